"""The open sub-queues, and which of them a message falls under."""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from parsers.condition import Condition
from parsers.expression import ExpressionError
from policies.by_hand import STREAM, ByHand, ChosenMail, Requeueing, read_condition
from policies.classify import RuleSet
from policies.key import EVERYWHERE, Key
from policies.messages import Message, Messages
from policies.openings import Accepted
from policies.parked import OpenSubQueue
from policies.recipients import RecipientProviders
from policies.rule import Strategy
from policies.senders import SenderHabits
from policies.site import Strategies
from policies.subqueue import Pacing, State, SubQueue
from policies.telling import Telling

IP_TYPES: Final = frozenset({"ip", "netblock", "host"})
"""Keys that concern all mail of this host to the provider."""
DOMAIN_TYPES = frozenset({"dkim-domain", "spf-domain", "from-domain", "sender-domain"})
"""Keys that concern a sender's mail from any host."""
BY_HAND: Final = "by-hand"
"""Stands for a rule where an admin opened a sub-queue."""
MOST_STREAMS: Final = 50
_NONE: Mapping[str, dict[str, OpenSubQueue]] = {}
_MOST_CLOSED: Final = 20_000
"""Closed sub-queues whose learned pace is remembered."""


class Unsigned:
    """Mail of which only the envelope is known, and who submitted it."""

    __slots__ = ("instance", "sender", "sender_domain", "tenant")
    dkim_domains: tuple[str, ...] = ()
    from_domain = ""

    def __init__(self, sender_domain: str, sender: str, tenant: str, instance: str) -> None:
        self.sender_domain = sender_domain
        self.sender = sender
        self.tenant = tenant
        self.instance = instance


class SubQueues:
    def __init__(
        self,
        rules: RuleSet,
        organizational: Callable[[str], str],
        recipients: RecipientProviders,
        habits: SenderHabits,
        telling: Telling,
        *,
        scale: float,
        strategies: Strategies = Strategies(),  # noqa: B008  # frozen
    ) -> None:
        self.strategies = strategies
        """For those that open from now on."""
        self.pushing_back = 0
        """How many open ones have clients try again later."""
        self.organizational = organizational
        self.gone: list[Key] = []
        """Keys that closed since the store last looked."""
        self.moved: Callable[[OpenSubQueue, str], None] | None = None
        """Told of each that is opened, and whenever its state may be another one, with who did that."""
        self.rules = rules
        self._recipients = recipients
        self._habits = habits
        self._telling = telling
        self._scale = scale
        self._open: dict[str, dict[Key, OpenSubQueue]] = {}
        self._closed: dict[Key, SubQueue] = {}
        self._index: dict[str, dict[str, dict[str, OpenSubQueue]]] = {}
        """The open ones once more: provider -> type -> value."""
        self._streams: dict[Key, tuple[OpenSubQueue, Condition[ChosenMail]]] = {}
        """The open ones that an admin opened with a condition."""
        self._in_order: list[OpenSubQueue] | None = None
        self._due: list[tuple[float, int, OpenSubQueue]] = []
        self._sequence = 0

    def __bool__(self) -> bool:
        return bool(self._open)

    def all(self) -> list[OpenSubQueue]:
        """List the open sub-queues in the order of their keys."""
        if self._in_order is None:
            found = {key: sub for at_provider in self._open.values() for key, sub in at_provider.items()}
            self._in_order = [found[key] for key in sorted(found)]
        return self._in_order

    def get(self, key: Key) -> OpenSubQueue | None:
        return self._open.get(key.provider, {}).get(key)

    def named(self, key: Key) -> OpenSubQueue | None:
        """Find the one that a reply's key feeds: a host's mail to a provider has one, whatever IP is named."""
        if key.type not in IP_TYPES:
            return self.get(key)
        types = self._index.get(key.provider, _NONE)
        return next((sub for type_ in IP_TYPES.intersection(types) for sub in types[type_].values()), None)

    def open(self, key: Key, *, rule: str, line: str, by_whom: str, accepted: Accepted, now: float) -> OpenSubQueue:
        """Open one that is not open; what an earlier episode learned is remembered."""
        machine = self._closed.pop(key, None)
        if machine is None:
            machine = SubQueue(self._pacing(rule), now=now, accepted=accepted.messages, during=accepted.seconds)
        else:
            machine = SubQueue.restore(self._pacing(rule), machine.snapshot())  # the rule may pause otherwise now
            machine.reopen(now=now)
        strategy = self.strategies.of(rule, self.rules.opening(rule))
        sub = OpenSubQueue(key, machine, rule=rule, line=line, now=now, strategy=strategy)
        self._add(sub)
        self._moved(sub, by_whom)
        self.schedule(sub, now=now)
        self._telling.tell(
            "opened",
            f"by {rule}" if sub.parks else f"by {rule}, {sub.strategy}",
            now=now,
            key=str(key),
            state=str(machine.state),
            line=line,
            rule=rule,
            by_whom=by_whom,
        )
        return sub

    def open_stream(
        self,
        key: Key,
        where: str,
        *,
        rate: float,
        until: float,
        by_whom: str,
        now: float,
        requeueing: Requeueing | None = None,
    ) -> OpenSubQueue:
        """Open one over mail for which a condition holds, or give the open one another pace; all as in ByHand.

        Raises ExpressionError for the condition, ValueError where the key is open with another one.
        """
        sub = self.get(key)
        if sub is None:
            condition = read_condition(where)
            if len(self._streams) >= MOST_STREAMS:
                raise ValueError(f"{MOST_STREAMS} are open; each is asked of each message, so close one first")
            machine = ByHand(where, rate=rate, until=until, now=now, requeueing=requeueing)
            sub = OpenSubQueue(key, machine, rule=BY_HAND, line=where, now=now)
            self._streams[key] = sub, condition
            self._add(sub)
        elif not isinstance(sub.machine, ByHand) or (sub.machine.where, sub.requeueing) != (where, requeueing):
            other = "way to go" if sub.line == where else "condition"
            raise ValueError(f"{key} is open with another {other}: {sub.line}; give this one another name")
        else:
            sub.machine.set_pace(rate, until=until, now=now)
            sub.said, sub.dirty = sub.machine.state, True
        pace = f"{rate:g} messages/s" if rate else "paused"
        if requeueing is not None:
            pace = f"requeued, {pace}, to go over {requeueing.to or 'whatever Postfix sends such mail over'}"
        why = f"where {where}: {pace}{f' for {until - now:.0f} s' if until < math.inf else ''}"
        state = str(sub.machine.state)
        self._telling.tell("opened", why, now=now, key=str(key), state=state, rule=BY_HAND, by_whom=by_whom)
        self.schedule(sub, now=now)
        return sub

    def retire(self, sub: OpenSubQueue) -> None:
        """Put away one that has closed."""
        self._in_order = None
        sub.due_at = 0.0
        del self._open[sub.key.provider][sub.key]
        if not self._open[sub.key.provider]:
            del self._open[sub.key.provider]
        self.gone.append(sub.key)
        self.pushing_back -= sub.strategy is Strategy.PUSHBACK
        if isinstance(sub.machine, ByHand):
            del self._streams[sub.key]
            return
        types = self._index[sub.key.provider]
        del types[sub.key.type][sub.key.value]
        if not types[sub.key.type]:
            del types[sub.key.type]
        self._closed[sub.key] = sub.machine
        if len(self._closed) > _MOST_CLOSED:
            del self._closed[next(iter(self._closed))]

    def _add(self, sub: OpenSubQueue) -> None:
        self._in_order = None
        self._open.setdefault(sub.key.provider, {})[sub.key] = sub
        self.pushing_back += sub.strategy is Strategy.PUSHBACK
        if isinstance(sub.machine, ByHand):
            return
        self._index.setdefault(sub.key.provider, {}).setdefault(sub.key.type, {})[sub.key.value] = sub

    # When to look at which: with thousands of them, most have nothing to do.

    def schedule(self, sub: OpenSubQueue, *, now: float, not_before: float = 0.0) -> None:
        """Arrange for a look at the next moment at which its state or budget changes."""
        at = max(sub.machine.next_at(now=now, held=sub.held), not_before)
        if at != sub.due_at:
            sub.due_at = at
            self._sequence += 1
            heapq.heappush(self._due, (at, self._sequence, sub))

    def due(self, *, now: float) -> list[OpenSubQueue]:
        """Take those to be looked at now; each must be scheduled again."""
        found = []
        while self._due and self._due[0][0] <= now:
            at, _, sub = heapq.heappop(self._due)
            if sub.due_at == at:
                sub.due_at = 0.0
                found.append(sub)
        return found

    def next_due(self) -> float | None:
        """Tell when the next one is due."""
        while self._due and self._due[0][2].due_at != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def tell_state(
        self, sub: OpenSubQueue, *, now: float, rule: str = "", line: str = "", by_whom: str = "engine"
    ) -> bool:
        """Tell a state that was not told yet; whether there was one."""
        state = sub.machine.state
        if state is sub.said:
            self._moved(sub, by_whom)  # it may be another pause
            return False
        sub.said = state
        sub.dirty = True
        if state is State.PAUSED and line:
            sub.rule, sub.line = rule, line
        self._moved(sub, by_whom)
        waiting = f"{sub.held} waiting"
        self._telling.tell(
            str(state), waiting, now=now, key=str(sub.key), state=str(state), line=line, rule=rule, by_whom=by_whom
        )
        return True

    def _moved(self, sub: OpenSubQueue, by_whom: str) -> None:
        if self.moved is not None:
            self.moved(sub, by_whom)

    def matching(self, message: Message | Unsigned, provider: str) -> list[OpenSubQueue]:
        """List the open sub-queues that a message's mail to a provider falls under."""
        found = [self._index.get(at) for at in (provider, EVERYWHERE)]
        return [sub for types in found if types for sub in self._matching(types, message)]

    def _matching(
        self, types: Mapping[str, Mapping[str, OpenSubQueue]], message: Message | Unsigned
    ) -> list[OpenSubQueue]:
        """Look up what the message can be known by, type by type of those that are open at a provider.

        With thousands of sub-queues none is looked at in vain.
        """
        found: list[OpenSubQueue] = []
        for type_, values in types.items():
            if type_ in IP_TYPES:
                found += values.values()
            elif message.sender_domain:  # the null sender is never parked by domain (rule 4)
                for value in self._values(type_, message):
                    sub = values.get(value)
                    if sub is not None:
                        found.append(sub)
        return found

    def _values(self, type_: str, message: Message | Unsigned) -> Iterable[str]:
        """Give what a message can be known by: its own lines first, else the habit of its envelope domain."""
        domain = message.sender_domain
        match type_:
            case "spf-domain":
                return (domain,)
            case "sender-domain":
                return (self.organizational(domain),)
            case "dkim-domain" if message.dkim_domains:
                return message.dkim_domains
            case "from-domain" if message.from_domain:
                return (message.from_domain,)
            case _:
                return self._habits.habits(type_, domain)

    def falls_under(self, message: Message | Unsigned, key: Key) -> bool:
        """Whether a message's mail to a key's provider is of that key, open or not."""
        if key.type in IP_TYPES:
            return True
        return bool(message.sender_domain) and key.value in self._values(key.type, message)

    def covering(self, message: Message | Unsigned, domains: Iterable[str], *, now: float) -> list[OpenSubQueue] | None:
        """List the sub-queues over a message if each recipient's domain has at least one; else None (rule 4)."""
        everywhere = self._index.get(EVERYWHERE)
        always = self._matching(everywhere, message) if everywhere else []
        covering: list[OpenSubQueue] = []
        for domain in domains:
            provider = self._recipients.of_domain(domain, now=now)
            types = self._index.get(provider) if provider else None
            matching = self._matching(types, message) + always if types else always
            if self._streams and message.sender_domain:  # the null sender's is never parked (rule 4)
                matching = [*matching, *self._streams_over(message, domain, provider)]
            if not matching:
                return None
            covering += [sub for sub in matching if sub not in covering] if covering else matching
        return covering or None

    def _streams_over(self, message: Message | Unsigned, domain: str, provider: str | None) -> Iterator[OpenSubQueue]:
        sender_domain = message.sender_domain
        if isinstance(message, Unsigned):
            tenant, campaign, segment, transport = message.tenant, None, None, ""
        else:
            (tenant, campaign, segment), transport = message.stream, message.service
        sending, sender = self.organizational(sender_domain), message.sender or ""
        mail = ChosenMail(
            provider,
            domain,
            sender,
            sender_domain,
            sending,
            tenant,
            campaign or None,
            segment or None,
            message.instance,
            transport or None,
        )
        return (
            sub
            for sub, holds in self._streams.values()
            if holds(mail) and (sub.requeueing is None or _was_there(message, sub.opened_at))
        )

    def candidates(self, key: Key, messages: Messages) -> Iterable[Message]:
        """List live messages that may be of this key; each is looked at again before it is taken."""
        if key.type in IP_TYPES or key.type == STREAM:
            return list(messages)
        if key.type == "sender-domain":
            domains = [d for d in messages.sender_domains() if d and self.organizational(d) == key.value]
        else:
            domains = self.envelope_domains(key)
        return [message for domain in domains for message in messages.of_sender(domain)]

    def envelope_domains(self, key: Key) -> list[str]:
        """List envelope domains whose mail may be of a sender's key, as far as they are known without looking."""
        if key.type in {"spf-domain", "sender-domain"}:
            return [key.value]
        return self._habits.envelope_domains(key.type, key.value)

    def _pacing(self, rule: str) -> Pacing:
        opening = self.rules.opening(rule)
        pacing = Pacing(pause=opening.pause, pause_min=opening.pause_min, pause_max=opening.pause_max)
        return pacing.scaled(self._scale)

    # The store's side.

    def restore(self, key: Key, snapshot: Mapping[str, Any], *, rule: str, line: str, opened: float) -> None:
        """Take back a sub-queue as stored; a closed one is remembered for what it learned."""
        if key.type == STREAM:
            self._restore_stream(key, snapshot, opened=opened)
            return
        machine = SubQueue.restore(self._pacing(rule), snapshot)
        if machine.state is State.CLOSED:
            self._closed[key] = machine
            return
        strategy = self.strategies.of(rule, self.rules.opening(rule))
        sub = OpenSubQueue(key, machine, rule=rule, line=line, now=opened, strategy=strategy)
        sub.dirty = False
        self._add(sub)
        self.schedule(sub, now=0.0)

    def _restore_stream(self, key: Key, snapshot: Mapping[str, Any], *, opened: float) -> None:
        """Take back one that was opened with a condition; one that cannot be read any more lets its mail go."""
        machine = ByHand.restore(snapshot)
        try:
            condition = read_condition(machine.where)
        except ExpressionError as error:
            self.gone.append(key)
            why = f"its condition cannot be read any more: {error}"
            self._telling.tell("closed", why, now=opened, key=str(key), state=str(State.CLOSED), rule=BY_HAND)
            return
        sub = OpenSubQueue(key, machine, rule=BY_HAND, line=machine.where, now=opened)
        sub.dirty = False
        self._streams[key] = sub, condition
        self._add(sub)
        self.schedule(sub, now=0.0)

    def dirty(self) -> list[tuple[OpenSubQueue, Mapping[str, Any]]]:
        """Take those that changed since the last look, with their snapshots."""
        changed = [sub for sub in self.all() if sub.dirty]
        for sub in changed:
            sub.dirty = False
        return [(sub, sub.machine.snapshot()) for sub in changed]

    def closed(self, key: Key) -> Mapping[str, Any] | None:
        """Give what is remembered of a closed one."""
        machine = self._closed.get(key)
        return machine.snapshot() if machine is not None else None


def _was_there(message: Message | Unsigned, since: float) -> bool:
    """Whether a message may be requeued: what came later, a requeued one too, may not, nor what was delivered in part."""
    return (
        isinstance(message, Message)
        and message.arrival < since
        and all(recipient.activation and not recipient.done for recipient in message.recipients)
    )
