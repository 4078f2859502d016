"""What a delivery attempt means for the sub-queues: scope first, then whom it concerns."""

from collections.abc import Callable
from typing import NamedTuple

from parsers.postfix.facts import DeliveryAttempt, MessageExpired, RemoteReply
from parsers.record import LogRecord
from policies.classify import RuleSet, Said
from policies.commands import Attempt
from policies.key import Key
from policies.messages import Message, Recipient
from policies.openings import Acceptances, Accepted, Openings
from policies.parked import OpenSubQueue
from policies.recipients import RecipientProviders
from policies.senders import SenderHabits
from policies.site import Settings
from policies.stored_address import stored, stored_reply
from policies.subqueue import State
from policies.subqueues import IP_TYPES, SubQueues
from policies.suppression import Suppressing
from policies.telling import Telling
from policies.verdict import IdentityType, Reaction, Scope, Verdict

_LATELY = 300.0
"""Seconds before an opening whose deliveries tell what the provider takes; a lab divides them."""
_READ_LATE = 0.1
"""Seconds between a line and our reading of it ..."""
_ROUNDED = 0.1
"""... and the part of a delay that Postfix, which logs two digits, may have rounded away."""
_MARGIN = 1.0
"""Seconds by which the beginning of an attempt, computed from its delays, may be too late."""


class Judgement(NamedTuple):
    opens: Key | None
    """The sub-queue to open."""
    rule: str
    """The rule that read a refusal by which sub-queues open or pause; "" where there was none."""
    concerned: list[OpenSubQueue]
    """Sub-queues that were told of the attempt."""
    accepted_by: str = ""
    """The provider that took the message."""


def _has_no_other(transport: str, provider: str, now: float) -> bool:  # noqa: ARG001  # one address for everything
    return False


class Outcomes:
    def __init__(
        self,
        rules: RuleSet,
        *,
        subqueues: SubQueues,
        recipients: RecipientProviders,
        habits: SenderHabits,
        telling: Telling,
        settings: Settings,
        suppressing: Suppressing | None = None,
    ) -> None:
        self.rules = rules
        self._suppressing = suppressing
        self.has_other: Callable[[str, str, float], bool] = _has_no_other
        """Whether mail over a transport, to a provider, goes over another one when that refuses the address of this."""
        self._subqueues = subqueues
        self._recipients = recipients
        self._habits = habits
        self._telling = telling
        self.settings = settings
        self._openings = Openings()
        self._acceptances = Acceptances(within=_LATELY / settings.scale)

    def judge(
        self, fact: DeliveryAttempt, message: Message, recipient: Recipient, *, passed_on: str = "", now: float
    ) -> Judgement:
        """Feed an attempt to the sub-queues it concerns; tell whether one is to be opened, and by which rule.

        `passed_on`: as in Attempt.
        """
        provider = self._provider(fact, recipient, now=now)
        verdict = None if fact.status == "sent" else self._verdict(fact, recipient, provider)
        key = self._named(verdict, message, provider, fact.record, now=now) if verdict and provider else None
        refused = self._subqueues.named(key) if key else None
        concerned = self._subqueues.matching(message, provider) if provider else []
        if provider and verdict is None:
            self._acceptances.accepted(provider, message.sender_domain, now=now)
        if provider:
            self._count(key, refused, message, recipient, provider, now=now)
            for sub in concerned:
                self._feed(sub, fact, message, verdict, refused=sub is refused, now=now)
        row = _row(fact, message, recipient, provider, verdict, key=refused.key if refused else key, now=now)
        form = self.settings.addresses
        self._telling.attempted(
            row._replace(
                passed_on=passed_on,
                recipient=stored(recipient.address, form),
                reply=stored_reply(fact.reason, form, longest=_ACCEPTED if verdict is None else _REFUSED),
            )
        )
        if self._suppressing is not None and (provider or fact.relay_host == "none"):
            self._suppressing.attempted(
                fact.recipient,
                provider or "",
                verdict,
                fact.record.text,
                remote=fact.relay_host != "none",
                domain=self._subqueues.organizational(message.sender_domain) if message.sender_domain else "",
                now=now,
            )
        if key is None or verdict is None:
            return Judgement(None, "", concerned, provider if provider and verdict is None else "")
        opens = refused is None and self._opens(key, verdict, recipient, now=now)
        return Judgement(key if opens else None, verdict.rule, concerned)

    def expired(self, fact: MessageExpired, message: Message, *, now: float) -> None:
        """Tell of the recipients that are returned to the sender because their time in the queue is over."""
        for recipient in message.open_recipients:
            recipient.done = True
            provider = self._recipients.of_domain(recipient.domain, now=now)
            self._telling.attempted(
                Attempt(
                    time=now,
                    host=fact.record.host,
                    instance=fact.record.instance,
                    queue_id=fact.queue_id,
                    sender_domain=message.sender_domain,
                    recipient_domain=recipient.domain,
                    provider=provider or "",
                    relay="",
                    dsn="",
                    status="expired",
                    rule="",
                    detail="",
                    bounce="",
                    scope="",
                    delay=max(0.0, now - message.arrival),
                    key="",
                    recipient=stored(recipient.address, self.settings.addresses),
                    tenant=message.stream.tenant,
                    campaign=message.stream.campaign,
                    segment=message.stream.segment,
                    first=0 if _first(message) < 2 else 3,
                )
            )

    def foresee(self, fact: RemoteReply, message: Message, *, now: float) -> Judgement:
        """Judge a refusal that is no outcome yet: one MX host has refused and the next is being asked.

        Only where the reply names the identity, or a rule of the provider's own knows it: what nobody knows may be
        the trouble of that one host. A sub-queue that is ramping stops, a whole transaction sooner than by the outcome.
        A probe's outcome is waited for.
        """
        provider = self._recipients.of_relay(fact.relay_host)
        domains = {recipient.domain for recipient in message.open_recipients}
        if provider is None or {self._recipients.of_domain(domain, now=now) for domain in domains} != {provider}:
            return _NOTHING
        verdict = self.rules.classify(Said(fact.reason, fact.relay_host, next(iter(domains))))
        waits = self.waits_for_repair(verdict.rule)
        key = None if waits else self._named(verdict, message, provider, fact.record, now=now)
        named = verdict.identity is not None
        if key is None or not (named or verdict.rule.startswith(f"{provider}/")):
            return _NOTHING
        sub = self._subqueues.named(key)
        if sub is None:
            addresses = (recipient.address for recipient in message.open_recipients)
            opening = self.rules.opening(verdict.rule)
            opens = self._openings.foreseen(key, addresses, opening, named=named, now=now)
            return Judgement(key if opens else None, verdict.rule, [])
        if sub.machine.state is not State.RAMPING or message.let_out < sub.opened_at:
            return _NOTHING
        sub.refused_early(message)
        sub.machine.refused(began=message.let_out, now=now)
        sub.dirty = True
        self._subqueues.schedule(sub, now=now)
        return Judgement(None, verdict.rule, [sub])

    def accepted_lately(self, key: Key, *, now: float) -> Accepted:
        """Tell what the provider accepted of a key before it refused: where its first ramp begins."""
        domains = None if key.type in IP_TYPES else self._subqueues.envelope_domains(key)
        return self._acceptances.lately(key.provider, domains, now=now)

    def opened_by(self, sub: OpenSubQueue, fact: DeliveryAttempt, *, now: float) -> None:
        """Tell a sub-queue of the refusal that opened it: its pace learns from what was under way then."""
        began = now - fact.delays.connection_setup - fact.delays.transmission
        sub.machine.refused(began=min(began, sub.opened_at), now=now)

    def _provider(self, fact: DeliveryAttempt, recipient: Recipient, *, now: float) -> str | None:
        """Tell whose answer this outcome is; None where it is none of a mailbox provider (rule 7).

        The first pass of a content filter, a relay and local delivery say nothing about a provider: an
        outcome counts when its relay is an MX host of the recipient's provider.
        """
        known = self._recipients.of_domain(recipient.domain, now=now)
        if fact.relay_port is None or fact.relay_host in _OWN_RELAYS:
            return known if fact.relay_host == "none" else None
        served_by = self._recipients.of_relay(fact.relay_host)
        relayed = self.settings.instance(fact.record.instance).relayhost
        if known is None and served_by is not None and not relayed:
            self._recipients.learn(recipient.domain, served_by, now=now)
            return served_by
        return known if served_by == known else None

    def _verdict(self, fact: DeliveryAttempt, recipient: Recipient, provider: str | None) -> Verdict:
        return self.rules.classify(Said(fact.reason, fact.relay_host if provider else "", recipient.domain))

    def _feed(
        self,
        sub: OpenSubQueue,
        fact: DeliveryAttempt,
        message: Message,
        verdict: Verdict | None,
        *,
        refused: bool,
        now: float,
    ) -> None:
        """Tell one sub-queue of an attempt of its mail."""
        began = _began(sub, fact, message, now=now)
        machine = sub.machine
        known = sub.was_refused_early(message)
        if verdict is None:
            machine.accepted(began=began, now=now)
        elif refused:
            self._unheld(sub, message, began)
            if not known:
                machine.refused(began=began, now=now)
        elif verdict.scope in _TALKED and verdict.reaction not in _OPENING:
            machine.talked(began=began, now=now)
        elif sub.probe is message:
            machine.void(now=now)
        sub.dirty = True
        sub.settled(message)
        self._subqueues.schedule(sub, now=now)

    def _unheld(self, sub: OpenSubQueue, message: Message, began: float) -> None:
        """Count an attempt during a pause that we did not let out."""
        if (
            sub.machine.state is State.PAUSED
            and began > sub.machine.since + _MARGIN
            and message.let_out < sub.opened_at
        ):
            sub.unheld_attempts += 1
            self._telling.unheld_attempts += 1

    def _named(self, verdict: Verdict, message: Message, provider: str, record: LogRecord, *, now: float) -> Key | None:
        """Make the key that a refusal is about; None where it pauses nobody."""
        if verdict.reaction not in _OPENING or self.waits_for_repair(verdict.rule):
            return self._unauthenticated(verdict, message, provider)
        named = verdict.identity
        if verdict.reaction is Reaction.SLOW_IP:
            if self.has_other(record.service, provider, now):
                return None  # that address leaves its pool there, and no other mail of this host need wait
            if named and named.type in {IdentityType.IP, IdentityType.NETBLOCK}:
                return Key(named.type, named.value, provider)
            return Key("host", self.settings.host, provider)
        if named and named.type in _SENDER_IDENTITIES:
            if named.type is IdentityType.DKIM_DOMAIN and message.sender_domain:
                self._habits.named("dkim-domain", message.sender_domain, named.value)
                message.signs_as(named.value)
            return Key(named.type, named.value, provider)
        if message.sender_domain:
            return Key("sender-domain", self._subqueues.organizational(message.sender_domain), provider)
        return None

    def _unauthenticated(self, verdict: Verdict, message: Message, provider: str) -> Key | None:
        """Make the key of a reply that wants a repair of ours (SPF, DKIM, DMARC, PTR, TLS), where its mail is to wait.

        Not the whole organization's mail where nobody is named: it is one envelope domain's record that is wrong.
        """
        if not self.waits_for_repair(verdict.rule):
            return None
        wanted, named = self.settings.hold_broken, verdict.identity
        if verdict.scope in _OF_THIS_HOST:
            return Key("host", self.settings.host, provider) if wanted.everybody else None
        if verdict.scope is not Scope.SENDER_DOMAIN:
            return None
        if named and named.type in _SENDER_IDENTITIES:
            return Key(named.type, named.value, provider) if wanted.wants(named.value) else None
        domain = message.sender_domain
        return Key("spf-domain", domain, provider) if domain and wanted.wants(domain) else None

    def waits_for_repair(self, rule: str) -> bool:
        """Whether a rule's replies say that something of ours wants repair."""
        return self.rules.opening(rule).configuration

    def _count(
        self,
        key: Key | None,
        refused: OpenSubQueue | None,
        message: Message,
        recipient: Recipient,
        provider: str,
        *,
        now: float,
    ) -> None:
        """Keep the other half of the opening ratio: attempts of keys that have been refused lately."""
        if key is not None and refused is None:
            return  # counted with its refusal
        if message.sender_domain:
            domain = self._subqueues.organizational(message.sender_domain)
            self._openings.attempted(Key("sender-domain", domain, provider), recipient.address, now=now)
        self._openings.attempted(Key("host", self.settings.host, provider), recipient.address, now=now)

    def _opens(self, key: Key, verdict: Verdict, recipient: Recipient, *, now: float) -> bool:
        opening = self.rules.opening(verdict.rule)
        named = verdict.identity is not None and not opening.configuration  # one odd reply breaks nothing
        return self._openings.refused(key, recipient.address, opening, named=named, now=now)


_NOTHING = Judgement(None, "", [])
_OPENING = frozenset({Reaction.PAUSE_DOMAIN, Reaction.SLOW_IP})
_OF_THIS_HOST = frozenset({Scope.IP, Scope.LOCAL})
_TALKED = frozenset({Scope.RECIPIENT, Scope.RECIPIENT_DOMAIN, Scope.MESSAGE, Scope.URL})
_SENDER_IDENTITIES = frozenset({IdentityType.DKIM_DOMAIN, IdentityType.SPF_DOMAIN, IdentityType.FROM_DOMAIN})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_OWN_RELAYS = LOOPBACK_NAMES | {"none", "local", "virtual"}
_ACCEPTED, _REFUSED = 160, 500
"""Characters that are kept of a reply."""


def _began(sub: OpenSubQueue, fact: DeliveryAttempt, message: Message, *, now: float) -> float:
    """Tell when the attempt began: not before we let the message out, where we did in this episode."""
    took = fact.delays.connection_setup + fact.delays.transmission
    if message.let_out >= sub.opened_at:
        return max(now - took - _MARGIN, message.let_out)
    # Under way when it opened: what of that was taken after the first refusal began tells the limit, if it is seen.
    return now - took - _READ_LATE - _ROUNDED * took


def _row(
    fact: DeliveryAttempt,
    message: Message,
    recipient: Recipient,
    provider: str | None,
    verdict: Verdict | None,
    *,
    key: Key | None,
    now: float,
) -> Attempt:
    return Attempt(
        time=now,
        host=fact.record.host,
        instance=fact.record.instance,
        queue_id=fact.queue_id,
        sender_domain=message.sender_domain,
        recipient_domain=recipient.domain,
        provider=provider or "",
        relay=fact.relay_host,
        dsn=fact.dsn,
        status=fact.status,
        rule=verdict.rule if verdict else "",
        detail=verdict.detail if verdict else "",
        bounce=str(verdict.bounce) if verdict else "",
        scope=str(verdict.scope) if verdict else "",
        delay=fact.delay,
        key=str(key) if key else "",
        service=fact.record.service or fact.record.daemon,
        tenant=message.stream.tenant,
        campaign=message.stream.campaign,
        segment=message.stream.segment,
        first=_first(message),
    )


def _first(message: Message) -> int:
    """As Attempt.first."""
    later = message.attempts > 1
    if message.entry is not None and message.entry[0] is not None:
        return 0 if later else 1
    return 3 if later else 2
