"""What Postfix is told about a message that arrives: hold it, send it over a route, or nothing.

Joins smtpd's questions about one message (its recipients come one by one, before its queue id) and asks
`Arrivals` once, at the end; which sub-queues are paused is known there, not here.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from parsers.address import domain_of
from parsers.policy_protocol import DUNNO, Action, DeferIfPermit, Discard, Filter, Hold, PolicyRequest, Reject, value_of
from policies.audit import Acted
from policies.routing import Mail, Route, Routing
from policies.steering import Steered
from policies.suppression import Listed

MAX_AGE: Final = 600.0
"""Seconds that a message is remembered at least after smtpd last asked about it; at most twice as long."""
MAX_MESSAGES = 50_000
MAX_RECIPIENTS = 100_000
"""Of a generation. Beyond either limit the older half goes: recipients of its messages are unknown then."""

HOLD_PREFIX: Final = "sidecar "
"""Every HOLD text of ours begins with this, so that the log tells ours from an admin's."""


@lru_cache(maxsize=32_768)
def hold_text(key: str, rule: str) -> str:
    """Write the text of a HOLD answer: `sidecar dkim-domain:example.com@google (google/rate-dkim-domain)`.

    Raises ValueError for a key or rule that holds a space, which `held_key` could not read back.
    """
    text = f"{HOLD_PREFIX}{key} ({rule})"
    if held_key(text) != key:
        raise ValueError(f"key {key!a} or rule {rule!a}: wanted neither spaces nor nothing in them")
    return text


@lru_cache(maxsize=8_192)
def _hold(key: str, rule: str) -> Hold:
    """Give the same object for the same, which is found again at once where its bytes are kept. Raises ValueError."""
    return Hold(hold_text(key, rule))


@lru_cache(maxsize=8_192)
def _push_back(key: str) -> DeferIfPermit:
    """Name whom the limit is on and by whom, for that is what a sender can do something about (RFC 3463, X.4.5)."""
    identity, _, provider = key.rpartition("@")
    return DeferIfPermit("4.4.5", f"{provider} limits mail of {identity.partition(':')[2]} at present, try again later")


_POSTMASTER = "postmaster"
"""Mail to and from it is taken whatever happens (RFC 5321 section 4.5.1)."""


def held_key(text: str) -> str | None:
    """Read the key out of a HOLD text, also as smtpd logs it ("End-of-data sidecar ..."); None if it is not ours."""
    ours = _HELD.fullmatch(text)
    return ours["key"] if ours else None


# "<END-OF-MESSAGE>: End-of-data TEXT" (smtpd_check.c, log_whatsup). Anchored: the text of another policy
# service that quotes ours is not ours.
_HELD: Final = re.compile(rf"(?:<END-OF-MESSAGE>: )?(?:End-of-data )?{HOLD_PREFIX}(?P<key>[^\s@]+@\S+) \(\S+\)")


class Arrival(NamedTuple):
    """A message that smtpd has received whole and is about to queue."""

    postfix_instance: str
    queue_id: str
    """"" where an admin only asks."""
    sender: str
    """Internal form, case as sent; "" is the null sender."""
    recipients: tuple[str, ...]
    """Internal form, case as sent, before any rewriting. Empty where they are unknown: say None then."""
    complete: bool
    """These are all recipients, and no others. False: one or more of them may have been refused since,
    so that what is true of each of them is true of the message."""
    size: int
    """Bytes."""
    client_address: str
    sasl_username: str
    binding: bool = True
    """Parked becomes a HOLD answer. False (observing, a milter may quarantine, an admin asks): say what
    would be, promise and book nothing."""


class Parked(NamedTuple):
    """Hold this message under this sub-queue."""

    key: str
    rule: str
    why: str


class Slowed(NamedTuple):
    """Send this message over a slow lane."""

    key: str
    rule: str
    why: str
    transport: str


class Arrivals(Protocol):
    """What decisions need to know of sub-queues; implemented by the engine. Memory only, never a wait."""

    @property
    def pushing_back(self) -> int:
        """How many sub-queues want their clients told to try again later; `pushed_back` is asked where there are some."""
        ...

    def pushed_back(
        self, sender: str, recipient: str, login: str, postfix_instance: str, *, now: float
    ) -> Parked | None:
        """Say because of which sub-queue a client is to try this recipient again later, if any."""
        ...

    def arriving(self, arrival: Arrival, *, now: float) -> Parked | Slowed | None:
        """Say under which paused sub-queue the message belongs, if any, or over which lane it is to go.

        Called at END-OF-MESSAGE, once a message even where smtpd asks twice; after a restart of ours the
        second question is a second call with the same queue id, which must get the same answer.
        """
        ...

    def provider_of(self, recipient_domain: str) -> str | None:
        """Give the mailbox provider behind a lower-case domain, None where it is not known (yet)."""
        ...


class Refusing(Protocol):
    """Who gets no more mail; implemented by `policies.refusals`. Memory only, never a wait."""

    discard: frozenset[str]
    """SASL logins whose messages `discards` is to be asked about."""

    def find(self, address: str, /) -> tuple[Listed, ...]:
        """All lists that a recipient is on; () for nearly all."""
        ...

    def refuses(self, listed: tuple[Listed, ...], sender: str, login: str) -> "Decision | None":
        """Say what RCPT is answered, None where none of these lists counts for this mail."""
        ...

    def discards(self, arrival: Arrival) -> "Decision | None":
        """Say whether a message is to be taken and thrown away."""
        ...


class Steers(Protocol):
    """What routes come to now; implemented by `policies.steering`. Memory only, never a wait."""

    def __bool__(self) -> bool:
        """Whether mail may be steered that no route names."""
        ...

    def steer(
        self, route: Route | None, mail: Mail, counts: Mapping[str, int], queue_id: str, *, now: float
    ) -> Steered | None:
        """Say where a message goes for which a route was found, or none; None where it goes as ever.

        `counts`: recipients of the message by provider, "" for those that are not known. Counts nothing: it is also
        asked for what is only explained.
        """
        ...

    def answered(self, transport: str, counts: Mapping[str, int], place: tuple[str, str], *, now: float) -> None:
        """Count a message: `transport` is what FILTER was answered, "" where it was not; `place` is (instance, queue id)."""
        ...


class Wiring(NamedTuple):
    """What one Postfix instance allows."""

    filter_allowed: bool
    """No relayhost (an empty next hop bypasses it), no content_filter or other FILTER (the last one wins),
    no automatic BCC (it would take the same transport)."""
    own_domains: frozenset[str]
    """Lower-case domains this instance delivers or aliases itself: FILTER would send them away."""
    lanes: tuple[str, ...] = ()
    """Transports of few connections for mail that is slowed, empty where FILTER is not allowed."""
    tables: bool = False
    """Tables that we do not look into (transport_maps, virtual_mailbox_domains = hash:...) say of some domains where
    their mail goes: no route is answered then that does not say whom it leads to."""
    own_tables: bool = False
    """Some of its own domains stand in tables, which are asked in the background."""


class Decision(NamedTuple):
    action: Action
    key: str
    """The sub-queue, "" where none is concerned."""
    rule: str
    """The provider rule or route, "" where nothing is done nor would be."""
    why: str
    """For our log and `sidecar ask`, never for the client."""


REFUSALS: Final = (Reject, DeferIfPermit)
"""With these answers a recipient is not among those that Postfix accepts."""


class Admitting(Protocol):
    """Hygiene and quotas; implemented by `policies.admission`. Memory only, never a wait."""

    def recipient(  # noqa: PLR0917  # by name it takes longer
        self,
        request: PolicyRequest,
        message: tuple[str, str],
        wiring: Mapping[str, Wiring],
        again: bool,  # noqa: FBT001  # as above
        acting: bool,  # noqa: FBT001  # as above
        now: float,
    ) -> Decision | None:
        """Say what RCPT is answered, None where nothing; charge a recipient that is new to its message."""
        ...

    def explain(
        self, request: PolicyRequest, postfix_instance: str, wiring: Mapping[str, Wiring], *, now: float
    ) -> Decision | None:
        """The same, and charge nothing."""
        ...

    def ended(self, request: PolicyRequest, message: tuple[str, str], now: float) -> None:
        """END-OF-MESSAGE was asked, for the first time about this message."""
        ...

    def forget(self, message: tuple[str, str]) -> None:
        """A message was given up before its end, or was refused altogether."""
        ...


def _nobody_is(_: str) -> tuple[Listed, ...]:
    return ()


def _nothing(why: str) -> Decision:
    return Decision(DUNNO, "", "", why)


# Made once: at RCPT an answer must not cost an allocation.
_REMEMBERED: Final = _nothing("a recipient is remembered; the message is decided at END-OF-MESSAGE")
_OTHER_STATE: Final = _nothing("only RCPT and END-OF-MESSAGE say something of use")
_NO_QUEUE_ID: Final = _nothing("no queue id: smtpd_proxy_filter is set, and the message is not queued here")
_UNKNOWN: Final = _nothing(
    "recipients unknown: smtpd did not ask at RCPT about each that it accepted, or one was given twice"
)
_SOME_REFUSED: Final = _nothing("no route: some recipients were refused after our check, and we cannot tell which")
_OWN_DOMAIN: Final = _nothing("no route: a recipient's domain is delivered by this Postfix itself")
_TABLES: Final = _nothing(
    "no route: tables of this Postfix (check names them) say where mail of some domains goes, and the route does not "
    "name the recipients' provider or domain"
)
_NO_FILTER: Final = _nothing("no route: relayhost, content_filter or another FILTER is set for this Postfix instance")
_CLEAR: Final = _nothing("no paused sub-queue and no route takes this message")
_DISAGREE: Final = _nothing("no paused sub-queue takes it, and not all of its recipients share one route")


_MOST_REASONS: Final = 4_096
_NOBODY: Final[Mapping[str, int]] = {}

_Remembered = dict[str, None] | Decision
"""Of one SMTP transaction: recipients asked about so far, in order; or what was decided."""


class Access:
    """Answers smtpd's questions; remembers what it asked about messages that are not yet received whole.

    Messages are joined by (Postfix instance, `instance`) and not by connection: an smtpd opens one
    connection for each differently written check_policy_service.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        *,
        routing: Routing,
        milters_quarantine: bool,
        act: bool,
        wiring: Mapping[str, Wiring],
        refusing: Refusing | None = None,
        steering: Steers | None = None,
        admitting: Admitting | None = None,
    ) -> None:
        """`wiring`: by Postfix instance; one that is missing gets no FILTER. `steering`: None where nothing but routes steers."""
        self._arrivals = arrivals
        self._refusing = refusing
        self._admitting = admitting
        self._listed = refusing.find if refusing else _nobody_is
        self._discard = refusing.discard if refusing else frozenset[str]()
        # Two generations: what is asked about moves to the younger, the older is dropped as a whole.
        self._young: dict[tuple[str, str], _Remembered] = {}
        self._old: dict[tuple[str, str], _Remembered] = {}
        self._recipients = 0
        """Of the young."""
        self._since = 0.0
        """When the young generation began."""
        self._acted: Counter[Decision] = Counter()
        """What smtpd was told that changes mail, but for HOLD and for what stands here:"""
        self._not_admitted: dict[str, tuple[Decision, int]] = {}
        """By rule of hygiene or quota: the first that was refused, and how many. Each names a domain or a sender, of
        which there may be any number."""
        self.configure(
            routing=routing, milters_quarantine=milters_quarantine, act=act, wiring=wiring, steering=steering
        )

    def configure(
        self,
        *,
        routing: Routing,
        milters_quarantine: bool,
        act: bool,
        wiring: Mapping[str, Wiring],
        steering: Steers | None = None,
    ) -> None:
        """Take other settings; what is remembered stays."""
        self._steering = steering
        self._routing = routing
        self._over: dict[tuple[str, str, str], Decision] = {}
        """By route, transport and who was passed over."""
        self._milters_quarantine = milters_quarantine
        self._act = act
        self._wiring = dict(wiring)

    @property
    def routing(self) -> Routing:
        """In force."""
        return self._routing

    def wiring(self, postfix_instance: str) -> Wiring | None:
        """What an instance allows; None where nothing is known of it."""
        return self._wiring.get(postfix_instance)

    @property
    def remembered(self) -> int:
        """Messages remembered now."""
        return len(self._young) + len(self._old)

    def decide(self, request: PolicyRequest, postfix_instance: str, *, now: float) -> Decision:
        """Answer one question of smtpd. The same question asked again gets the same answer."""
        answer = _STATES.get(request.protocol_state)
        return _OTHER_STATE if answer is None else answer(self, request, postfix_instance, now)

    def explain(self, request: PolicyRequest, postfix_instance: str, *, now: float) -> Decision:
        """Say what `decide` would answer, and change nothing.

        A request without a state means the message as a whole; its one `recipient` is all of them then.
        """
        listed = self._listed(request.recipient) if request.protocol_state in {"", "RCPT"} else ()
        refused = self._refused(listed, request) if listed else None
        if refused is None and self._arrivals.pushing_back and request.protocol_state in {"", "RCPT"}:
            refused = self._pushed_back(request, postfix_instance, now)
        if refused is not None:
            return refused
        if self._admitting is not None and request.recipient and request.protocol_state in {"", "RCPT"}:
            said = self._admitting.explain(request, postfix_instance, self._wiring, now=now)
            if said is not None:
                return self._acting(said)
        if request.protocol_state == "RCPT":
            return _REMEMBERED
        if request.protocol_state not in {"", "END-OF-MESSAGE"}:
            return _OTHER_STATE
        key = (postfix_instance, request.instance)
        known = self._young.get(key) or self._old.get(key)
        if isinstance(known, Decision):
            return known
        one = request.recipient and not request.recipient_count
        asked = request._replace(recipient_count=1) if one else request
        arrival = _arrival(asked, postfix_instance, known, binding=False)
        return self._decided(arrival, self._counts(arrival), now)

    def take_acted(self) -> list[tuple[Acted, int]]:
        """Give what smtpd was told since the last time that changes mail, but for HOLD, which the engine tells."""
        acted, self._acted = self._acted, Counter()
        not_admitted, self._not_admitted = self._not_admitted, {}
        return [
            (Acted(_KINDS[type(decision.action)], decision.rule, decision.why), count)
            for decision, count in (*acted.items(), *not_admitted.values())
        ]

    def forget(self, postfix_instance: str, instance: str) -> None:
        """The message is finished or aborted: its smtpd asks about another one on the same connection."""
        key = (postfix_instance, instance)
        known = self._young.pop(key, None)
        if known is None:
            known = self._old.pop(key, None) if self._old else None
        elif isinstance(known, dict):
            self._recipients -= len(known)
        if self._admitting is not None and not isinstance(known, Decision):
            self._admitting.forget(key)

    def _remember(self, request: PolicyRequest, postfix_instance: str, now: float) -> Decision:
        """A RCPT query: again for the same recipient where several lists ask, or smtpd lost a connection."""
        instance, recipient = request.instance, request.recipient
        listed = self._listed(recipient)
        refused = self._refused(listed, request) if listed else None
        if refused is not None and self._act:
            self._acted[refused] += 1
            return refused  # and not remembered: Postfix will not count it among those that it accepted
        if refused is None and self._arrivals.pushing_back:
            refused = self._pushed_back(request, postfix_instance, now)
            if refused is not None and self._act:
                self._acted[refused] += 1
                return refused
        answer = refused or _REMEMBERED
        if not instance:
            return answer
        key = (postfix_instance, instance)
        known = self._young.get(key)
        if known is None:
            known = self._from_old(key, now)
        again = known is not None and (isinstance(known, Decision) or recipient in known)
        if self._admitting is not None and refused is None:
            said = self._admitting.recipient(request, key, self._wiring, again, self._act, now)
            if said is not None:
                if self._act and isinstance(said.action, REFUSALS):
                    first, count = self._not_admitted.get(said.rule, (said, 0))
                    self._not_admitted[said.rule] = first, count + 1
                    return said
                answer = self._acting(said)
        if again:
            return answer
        if isinstance(known, dict):
            known[recipient] = None
        else:
            self._young[key] = {recipient: None}
        self._recipients += 1
        return answer

    def _refused(self, listed: tuple[Listed, ...], request: PolicyRequest) -> Decision | None:
        """Say what is answered about a recipient who is on these lists."""
        assert self._refusing is not None
        refused = self._refusing.refuses(listed, request.sender, request.sasl_username)
        return self._acting(refused) if refused is not None else None

    def _end_of_message(self, request: PolicyRequest, postfix_instance: str, now: float) -> Decision:
        if not request.queue_id and self._admitting is None:
            return _NO_QUEUE_ID
        instance = request.instance
        key = (postfix_instance, instance)
        known = self._young.get(key)
        if known is None:
            known = self._from_old(key, now)
        if isinstance(known, Decision):
            return known  # smtpd lost the connection before it read our first answer
        if self._admitting is not None and instance:
            self._admitting.ended(request, key, now)
        binding = self._act and not self._milters_quarantine
        arrival = _arrival(request, postfix_instance, known, binding=binding)
        counts = _NOBODY if self._steering is None else self._counts(arrival)
        decision = self._decided(arrival, counts, now) if request.queue_id else _NO_QUEUE_ID
        action = decision.action
        if type(action) in _KINDS:
            self._acted[decision] += 1
        if (
            self._steering is not None
            and self._act
            and request.queue_id
            and (action is DUNNO or isinstance(action, Filter))
        ):
            goes = action.transport if isinstance(action, Filter) else ""
            place = (postfix_instance, request.queue_id)
            self._steering.answered(goes, counts, place, now=now)
        if known is not None:
            self._recipients -= len(known)
        if instance:
            self._young[key] = decision
        return decision

    def _from_old(self, key: tuple[str, str], now: float) -> _Remembered | None:
        """Move a message to the young generation, None where it is in neither; let generations pass."""
        full = len(self._young) >= MAX_MESSAGES or self._recipients >= MAX_RECIPIENTS
        if full or not 0 <= now - self._since < MAX_AGE:  # a clock set back passes them on as well
            self._old, self._young = self._young, {}
            self._recipients, self._since = 0, now
        if not self._old:
            return None
        known = self._old.pop(key, None)
        if known is not None:
            self._young[key] = known
            self._recipients += len(known) if isinstance(known, dict) else 0
        return known

    def _decided(self, arrival: Arrival, counts: Mapping[str, int], now: float) -> Decision:
        """Hold before route: only one action fits in an answer, and held mail is routed by Postfix's own maps.

        `counts`: as `_counts`, empty where nothing steers.
        """
        discarded = None
        if arrival.sasl_username in self._discard:
            assert self._refusing is not None
            discarded = self._refusing.discards(arrival)
            if discarded is not None and self._act:
                return discarded
        parked = self._arrivals.arriving(arrival, now=now)
        if discarded is not None:
            return self._acting(discarded)
        if not arrival.recipients:
            return _UNKNOWN
        if parked is None:
            return self._routed(arrival, counts, now)
        if isinstance(parked, Slowed):
            return self._acting(self._laned(parked))
        key, rule, why = parked
        hold = _new(Decision, (_hold(key, rule), key, rule, why))
        if not self._milters_quarantine:
            return self._acting(hold)
        routed = self._routed(arrival, counts, now)
        if routed.action is not DUNNO:
            return routed
        return hold._replace(action=DUNNO, why=f"not held on arrival, for a milter may quarantine it: {why}")

    def _routed(self, arrival: Arrival, counts: Mapping[str, int], now: float) -> Decision:
        if not (self._routing or self._steering):
            return _CLEAR
        if not arrival.complete:
            return _SOME_REFUSED
        wiring = self._wiring.get(arrival.postfix_instance)
        if wiring is None or not wiring.filter_allowed:
            return _NO_FILTER
        agreed: Steered | None = None
        looked_at = set()
        for recipient in arrival.recipients:
            domain = domain_of(recipient)
            if domain in wiring.own_domains or not domain or domain.startswith("["):
                return _OWN_DOMAIN
            if domain in looked_at and not self._routing.by_recipient:
                continue
            looked_at.add(domain)
            found = self._route(arrival, recipient, domain, counts, now)
            if found is None:
                return _CLEAR
            if not found.transport:
                return _nothing(f"no route: {found.why}")
            if wiring.tables and not found.route.names_recipients:
                return _TABLES
            if agreed is not None and agreed.transport != found.transport:
                return _DISAGREE
            agreed = agreed or found
        return self._acting(self._goes_over(agreed)) if agreed else _CLEAR

    def _counts(self, arrival: Arrival) -> dict[str, int]:
        """Count the recipients by provider, "" for those that are not known."""
        counts: dict[str, int] = {}
        for recipient in arrival.recipients:
            provider = self._arrivals.provider_of(domain_of(recipient)) or ""
            counts[provider] = counts.get(provider, 0) + 1
        return counts

    def _route(
        self, arrival: Arrival, recipient: str, domain: str, counts: Mapping[str, int], now: float
    ) -> Steered | None:
        """Find the route to one recipient, and the transport that it comes to now; None where it goes as ever."""
        provider = self._arrivals.provider_of(domain)
        if self._routing.by_domain_alone and not self._steering:
            route = self._routing.for_domain(provider, domain)
            if route is None:
                return None
            if self._steering is None:
                return None if route.pool else _new(Steered, (route, route.transport, ""))
        instance, queue_id, sender, recipients, _, size, client, login, _ = arrival
        sends = domain_of(sender)
        sending = self._routing.organizational(sends)
        count = len(recipients)
        values = (provider, recipient, domain, sender, sends, sending, login, client, instance, size, count)
        mail = _new(Mail, values)
        route = self._routing.transport_for(mail)
        if self._steering is not None:
            return self._steering.steer(route, mail, counts, queue_id, now=now)
        return None if route is None or route.pool else _new(Steered, (route, route.transport, ""))

    def _goes_over(self, steered: Steered) -> Decision:
        """Give the same object for the same, which is found again at once where its bytes are kept."""
        route, transport, passed = steered
        key = route.name, transport, passed
        decision = self._over.get(key)
        if decision is None:
            if len(self._over) >= _MOST_REASONS:
                self._over.clear()
            why = f"all its recipients go over {transport}" + (f", {passed}" if passed else "")
            decision = self._over[key] = Decision(Filter(transport), "", f"route/{route.name}", why)
        return decision

    def _laned(self, slowed: Slowed) -> Decision:
        """Over a lane of this Postfix, whatever the routes say; only for recipients at providers that are known."""
        key, rule, why, transport = slowed
        return Decision(Filter(transport), key, rule, f"{key}: {why}; over {transport}")

    def _pushed_back(self, request: PolicyRequest, postfix_instance: str, now: float) -> Decision | None:
        """Have the client keep it for now; mail that is not kept by anybody else is never pushed back."""
        _, _, _, _, sender, recipient, _, _, _, _, login, _ = request
        if not sender or _POSTMASTER in {sender.partition("@")[0].lower(), recipient.partition("@")[0].lower()}:
            return None
        parked = self._arrivals.pushed_back(sender, recipient, login, postfix_instance, now=now)
        if parked is None:
            return None
        key, rule, why = parked
        return self._acting(Decision(_push_back(key), key, rule, f"{key}: {why}"))

    def _acting(self, decision: Decision) -> Decision:
        if self._act:
            return decision
        would = value_of(decision.action)
        return decision._replace(action=DUNNO, why=f"observing; would answer {would}: {decision.why}")


def _arrival(request: PolicyRequest, postfix_instance: str, known: dict[str, None] | None, *, binding: bool) -> Arrival:
    """Say who the recipients are, as far as `recipient_count` bears out what is remembered.

    More are remembered than were accepted: some were refused after our check. Fewer: one was never asked
    about (a bare <postmaster>, a list without our check, a restart of ours), and anything may be true of it.
    """
    _, address, _, _, sender, recipient, count, queue_id, _, size, login, _ = request  # by name it takes twice as long
    recipients: tuple[str, ...] = ()
    complete = False
    if count == 1 and recipient:
        recipients, complete = (recipient,), True
    elif known is not None and len(known) >= count > 0:
        recipients, complete = tuple(known), len(known) == count
    sure = binding and bool(recipients)
    values = (postfix_instance, queue_id, sender, recipients, complete, size, address, login, sure)
    return _new(Arrival, values)


_KINDS: dict[type[Action], str] = {
    Filter: "routed",
    Reject: "rejected",
    Discard: "discarded",
    DeferIfPermit: "deferred",
}
"""Of answers that are counted for the audit."""

_new: Final = tuple.__new__  # a third of the time that Arrival(...) takes


_STATES: dict[str, Callable[[Access, PolicyRequest, str, float], Decision]] = {
    "RCPT": Access._remember,  # noqa: SLF001  # the table of this class's own answers
    "END-OF-MESSAGE": Access._end_of_message,  # noqa: SLF001  # as above
}
"""Which states of the protocol we answer from what we know; the others get DUNNO."""
