"""What a bad sign sets off by rule: an address leaves its pools, a sending domain is isolated, slowed or paused.

Knows how long each lasts, how an address comes back (by a share that grows), and that what an admin undid stays undone
until the sign has passed. Whether a sign is to be believed, whoever tells of it has made sure.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from policies.key import EVERYWHERE, Key
from policies.routing import POOL

LEASE: Final = 1800.0
"""Seconds that a pause holds for after the last word of its sign; without another word mail is tried again."""
RULE: Final = "react/"
"""Stands before a rule's name where rules are named."""
FIRST_SHARE: Final = 0.05
"""Of its mail that an address gets again at once when its sign has passed; it grows by the same factor each hour."""
BLOCKS: Final = 3
"""Replies against an address, of one provider ..."""
BLOCKS_WITHIN: Final = 600.0
"""... within so many seconds, that take it out there: one may be the slip of one server."""
BLOCKED_FOR: Final = 3600.0
"""Seconds that it stays out then; doubles each time that it is refused again before it was back for a day."""
BLOCKED_MAX: Final = 86_400.0
REMEMBERED: Final = 86_400.0
_EVIDENCE_MAX: Final = 500
_MOST: Final = 10_000


class Signal(StrEnum):
    LISTED = "listed"
    """An address, or a domain, is on a blocklist."""
    IP_BLOCKED = "ip-blocked"
    """A provider refuses an address by name or as the sender of the mail, in its replies."""
    REPUTATION = "reputation"
    """A provider's own page says that it thinks badly of a domain or an address."""
    AUTHENTICATION = "authentication"
    """SPF, DKIM or DMARC of a domain fail."""
    COMPLAINTS = "complaints"
    """More people complain about a domain's mail than a provider puts up with."""


class Do(StrEnum):
    LEAVE_POOL = "leave-pool"
    """The transport of the address takes no more mail out of pools."""
    ISOLATE = "isolate"
    """The domain's mail goes over another transport or pool."""
    PAUSE = "pause"
    """The domain's mail waits."""
    SLOW = "slow"
    """The domain's mail waits for a moment and then leaves by the ramp, as after a throttle."""


class Subject(StrEnum):
    TRANSPORT = "transport"
    DOMAIN = "domain"


ABOUT: Final[Mapping[Do, Subject]] = {
    Do.LEAVE_POOL: Subject.TRANSPORT,
    Do.ISOLATE: Subject.DOMAIN,
    Do.PAUSE: Subject.DOMAIN,
    Do.SLOW: Subject.DOMAIN,
}
SIGNALS_ABOUT: Final[Mapping[Subject, frozenset[Signal]]] = {
    Subject.TRANSPORT: frozenset({Signal.LISTED, Signal.IP_BLOCKED, Signal.REPUTATION}),
    Subject.DOMAIN: frozenset({Signal.LISTED, Signal.REPUTATION, Signal.AUTHENTICATION, Signal.COMPLAINTS}),
}


class Rule(NamedTuple):
    """A [[react]] of the configuration."""

    name: str
    signal: Signal
    do: Do
    to: str = ""
    """Transport or pool:NAME that isolated mail goes over."""
    providers: frozenset[str] = frozenset()
    """Providers at which it is done; empty: where the sign was seen, or everywhere."""
    only: frozenset[str] = frozenset()
    """Transports or domains that it is for; empty: all."""
    return_hours: float = 24.0
    """In how many hours an address that may come back gets all its mail again."""
    requeue: bool = False
    """What is queued for an address that leaves goes over another member of its pool."""


class Told(NamedTuple):
    """A sign that is there now."""

    signal: Signal
    subject: Subject
    object: str
    """A transport, or a domain in small letters."""
    provider: str
    """Where; "*": everywhere."""
    evidence: str


@dataclass(slots=True)
class Reaction:
    """What a rule does about one thing at one provider. As the store keeps it."""

    rule: str
    object: str
    provider: str
    evidence: str
    since: float
    until: float = 0.0
    """When it ends by itself; 0: when its sign passes."""
    ended: float = 0.0
    """When its sign passed; 0: it has not. An address is then on its way back."""
    times: int = 1
    """How often in a row it came to that."""
    undone_by: str = ""
    """Who took it back, until its sign passes."""

    @property
    def place(self) -> tuple[str, str, str]:
        return self.rule, self.object, self.provider

    @property
    def on(self) -> bool:
        return not self.ended and not self.undone_by


class What(StrEnum):
    """What became of a reaction, for the audit."""

    BEGAN = "reacted"
    RETURNS = "returning"
    """Its sign has passed; the address comes back by and by."""
    OVER = "restored"
    UNDONE = "undone"


class Event(NamedTuple):
    what: What
    reaction: Reaction
    why: str
    by_whom: str = "react"


class Holder(Protocol):
    """`policies.orders`, as far as it is needed here."""

    def hold(self, key: Key, seconds: float, *, rule: str, line: str, by_whom: str, now: float) -> object: ...

    def open(self, key: Key, *, rule: str, line: str = "", by_whom: str, now: float) -> object: ...

    def resume(self, key: Key, *, by_whom: str, now: float) -> bool: ...


class Reactions:
    def __init__(self, rules: Iterable[Rule], holder: Holder, *, scale: float = 1.0) -> None:
        """`scale` divides durations, for labs. Raises ValueError for a rule that makes no sense."""
        self._holder = holder
        self._scale = scale
        self._reactions: dict[tuple[str, str, str], Reaction] = {}
        self._of: dict[str, list[Reaction]] = {}
        """By object, those that are not over."""
        self._blocks: dict[tuple[str, str], deque[float]] = {}
        self.changed: dict[tuple[str, str, str], Reaction | None] = {}
        """To store since the last look; None for those that are over."""
        self.configure(rules)

    def configure(self, rules: Iterable[Rule]) -> None:
        """Take other rules. What was done by one that is gone is over. Raises ValueError, and nothing has changed."""
        found: dict[str, Rule] = {}
        for rule in rules:
            _check(rule)
            if rule.name in found:
                raise ValueError(f"react {rule.name}: there are two of this name; wanted one")
            found[rule.name] = rule
        self._rules = found
        self.isolates = any(rule.to for rule in found.values())
        """Whether some mail may go elsewhere than its route says."""
        for place in [place for place in self._reactions if place[0] not in found]:
            self._drop(self._reactions[place])

    def restore(self, reaction: Reaction) -> None:
        """Take back what the store kept; what no rule asks for any more is forgotten."""
        if reaction.rule in self._rules:
            self._keep(reaction)
        else:
            self.changed[reaction.place] = None

    def known(self) -> list[Reaction]:
        return sorted(self._reactions.values(), key=lambda reaction: (reaction.since, reaction.place))

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(self._rules.values())

    # Signs.

    def told(self, signs: Iterable[Told], *, now: float) -> list[Event]:
        """Hear of all signs that are there now, but for those that are read from replies; others have passed."""
        events: list[Event] = []
        there: set[tuple[str, str, str]] = set()
        for sign in signs:
            for rule in self._rules.values():
                if sign.signal is not Signal.IP_BLOCKED and _concerns(rule, sign):
                    for provider in sorted(rule.providers) or [sign.provider]:
                        there.add((rule.name, sign.object, provider))
                        events += self._begin(rule, sign.object, provider, sign.evidence, now=now)
        for reaction in list(self._reactions.values()):
            of_replies = self._rules[reaction.rule].signal is Signal.IP_BLOCKED
            if not of_replies and reaction.place not in there and not reaction.ended:
                events += self._end(reaction, "its sign has passed", now=now)
        return events

    def blocked(self, transport: str, provider: str, line: str, *, now: float) -> list[Event]:
        """Hear of one reply against the address of a transport."""
        rules = [rule for rule in self._rules.values() if rule.signal is Signal.IP_BLOCKED]
        sign = Told(Signal.IP_BLOCKED, Subject.TRANSPORT, transport, provider, line)
        concerned = [rule for rule in rules if _concerns(rule, sign)]
        if not concerned:
            return []
        seen = self._blocks.setdefault((transport, provider), deque(maxlen=BLOCKS))
        seen.append(now)
        if len(seen) < BLOCKS or now - seen[0] > BLOCKS_WITHIN / self._scale:
            return []
        seen.clear()
        return [
            event
            for rule in concerned
            if not rule.providers or provider in rule.providers
            for event in self._begin(rule, transport, provider, line, now=now)
        ]

    def look(self, *, now: float) -> list[Event]:
        """End what is over by the clock."""
        events: list[Event] = []
        for reaction in list(self._reactions.values()):
            if not reaction.ended and 0 < reaction.until <= now:
                events += self._end(reaction, "its time is over", now=now)
            remembered = (
                self._scaled(REMEMBERED) if reaction.until else 0.0
            )  # how often it came to that counts for a day
            if reaction.ended and now >= reaction.ended + self._returning(reaction) + remembered:
                self._drop(reaction)
        return events

    def undo(self, object_: str, provider: str = "", *, do: Do | None = None, by_whom: str, now: float) -> list[Event]:
        """Take back what is done about something, and do it no more until its sign has passed; `do`: that alone."""
        events = []
        for reaction in list(self._of.get(object_, ())):
            if reaction.undone_by or (provider and reaction.provider != provider):
                continue
            if do is not None and self._rules[reaction.rule].do is not do:
                continue
            if reaction.ended or reaction.until:
                self._drop(reaction)  # the sign has passed, or was one of a moment: the next one counts again
            else:
                reaction.undone_by = by_whom
                self.changed[reaction.place] = reaction
            self._let_go(reaction, by_whom=by_whom, now=now)
            events.append(Event(What.UNDONE, reaction, "by hand", by_whom))
        return events

    # What is done.

    def refuses(self, transport: str, provider: str, luck: float, *, now: float) -> str:
        """Say why a transport takes no mail of a pool for a provider; "" where it does. `luck` as policies/pools.py has it."""
        reactions = self._of.get(transport)
        if not reactions:
            return ""
        for reaction in reactions:
            if reaction.provider not in {provider, EVERYWHERE} or reaction.undone_by:
                continue
            share = self.share(reaction, now=now)
            if luck >= share:
                signal = self._rules[reaction.rule].signal
                back = f", back with {share:.0%} of its mail" if share else ""
                return f"{signal} ({reaction.rule}){back}"
        return ""

    def leaves(self, transport: str, provider: str) -> bool:
        """Whether a rule has a transport leave its pools where a provider refuses its address."""
        return any(
            rule.signal is Signal.IP_BLOCKED
            and (not rule.only or transport in rule.only)
            and (not rule.providers or provider in rule.providers)
            for rule in self._rules.values()
        )

    def isolated(self, domain: str, provider: str) -> tuple[str, str]:
        """Say over what a domain's mail goes instead, and by which rule; ("", "") where it is not isolated."""
        for reaction in self._of.get(domain, ()):
            rule = self._rules[reaction.rule]
            if reaction.on and rule.do is Do.ISOLATE and reaction.provider in {provider, EVERYWHERE}:
                return rule.to, rule.name
        return "", ""

    def share(self, reaction: Reaction, *, now: float) -> float:
        """Which share of its mail an address gets, 0 to 1."""
        if not reaction.ended:
            return 0.0
        gone = max(0.0, now - reaction.ended) / self._returning(reaction)
        return 1.0 if gone >= 1.0 else float(FIRST_SHARE ** (1.0 - gone))

    def _begin(self, rule: Rule, object_: str, provider: str, evidence: str, *, now: float) -> list[Event]:
        known = self._reactions.get((rule.name, object_, provider))
        if known is not None and known.undone_by:
            return []
        new = known is None or bool(known.ended)
        if known is None:
            if len(self._reactions) >= _MOST:
                return []
            known = Reaction(rule.name, object_, provider, evidence[:_EVIDENCE_MAX], now)
            self._keep(known)
        elif known.ended:
            known.times += 1
            known.since, known.ended, known.evidence = now, 0.0, evidence[:_EVIDENCE_MAX]
        if new and rule.signal is Signal.IP_BLOCKED:
            known.until = now + self._scaled(min(BLOCKED_MAX, BLOCKED_FOR * 2.0 ** (min(known.times, 20) - 1)))
        self._hold(rule, known, new=new, now=now)
        if not new:
            return []
        self.changed[known.place] = known
        return [Event(What.BEGAN, known, f"{rule.signal}: {known.evidence}")]

    def _end(self, reaction: Reaction, why: str, *, now: float) -> list[Event]:
        undone = bool(reaction.undone_by)
        returns = self._rules[reaction.rule].do is Do.LEAVE_POOL and not undone
        if not returns:
            self._drop(reaction)
            if not undone:
                self._let_go(reaction, by_whom="react", now=now)
        else:
            reaction.ended = now
            self.changed[reaction.place] = reaction
        return [] if undone else [Event(What.RETURNS if returns else What.OVER, reaction, why)]

    def _hold(self, rule: Rule, reaction: Reaction, *, new: bool, now: float) -> None:
        key, name = _key(reaction), f"{RULE}{rule.name}"
        if rule.do is Do.PAUSE:
            self._holder.hold(key, self._scaled(LEASE), rule=name, line=reaction.evidence, by_whom="react", now=now)
        elif rule.do is Do.SLOW and new:
            self._holder.open(key, rule=name, line=reaction.evidence, by_whom="react", now=now)

    def _let_go(self, reaction: Reaction, *, by_whom: str, now: float) -> None:
        rule = self._rules.get(reaction.rule)
        if rule is not None and rule.do is Do.PAUSE:
            self._holder.resume(_key(reaction), by_whom=by_whom, now=now)

    def _keep(self, reaction: Reaction) -> None:
        self._reactions[reaction.place] = reaction
        self._of.setdefault(reaction.object, []).append(reaction)

    def _drop(self, reaction: Reaction) -> None:
        del self._reactions[reaction.place]
        self._of[reaction.object].remove(reaction)
        if not self._of[reaction.object]:
            del self._of[reaction.object]
        self.changed[reaction.place] = None

    def _returning(self, reaction: Reaction) -> float:
        return self._scaled(self._rules[reaction.rule].return_hours * 3600.0)

    def _scaled(self, seconds: float) -> float:
        return seconds / self._scale


def _key(reaction: Reaction) -> Key:
    return Key("sender-domain", reaction.object, reaction.provider)


def _concerns(rule: Rule, sign: Told) -> bool:
    if rule.signal is not sign.signal or ABOUT[rule.do] is not sign.subject:
        return False
    return not rule.only or sign.object in rule.only


def _check(rule: Rule) -> None:
    """Raises ValueError."""
    about, name = ABOUT[rule.do], f"react {rule.name}"
    if rule.signal not in SIGNALS_ABOUT[about]:
        right = ", ".join(sorted(SIGNALS_ABOUT[about]))
        raise ValueError(f"{name}: do = {rule.do} is about a {about}, {rule.signal} is not; wanted {right}")
    if rule.do is Do.ISOLATE and rule.to in {"", POOL}:
        raise ValueError(f"{name}: to: missing; wanted the transport or pool:NAME that isolated mail goes over")
    if rule.do is not Do.ISOLATE and rule.to:
        raise ValueError(f"{name}: to: {rule.to}; wanted with do = isolate alone")
    if rule.requeue and rule.do is not Do.LEAVE_POOL:
        raise ValueError(f"{name}: requeue: true; wanted with do = leave-pool alone")
