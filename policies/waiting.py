"""What would have waited of one host's mail, had the engine's sub-queues been in force: counted, not acted out.

The log's own outcomes stand in for those that nobody can know (what a provider would have said to mail it was not
sent); so only an attempt that began while its sub-queue had stopped counts as avoided, none of a ramp.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Final, NamedTuple, Self

from parsers.postfix import facts
from policies.classify import RuleSet
from policies.commands import Attempt, Change
from policies.key import Key
from policies.messages import Message
from policies.rehearsal import Rehearsal
from policies.subqueues import IP_TYPES

REACTION: Final = 1.0
"""Seconds that a sidecar is given to act: an attempt begun sooner after the refusal is not counted as avoided."""
LISTED: Final = 10_000
"""Sub-queues listed one by one; further ones only add to the totals."""
SAMPLE: Final = 1_000
"""Characters of a reply or line that are kept."""
SUSPENDED: Final = "delivery temporarily suspended: "
"""Postfix repeats an earlier finding without an attempt (qmgr_error.c); no reply, but a deferral."""


@dataclass(slots=True)
class Counts:
    """Of one sub-queue, or of all. "Stopped" is paused or probing: all mail of the key waits, but for one probe.

    Grows while the sub-queue is open.
    """

    pauses: int = 0
    """The first one and all others."""
    retriggers: int = 0
    """Refusals during a ramp. At most so many: the log's mail was not paced."""
    failed_probes: int = 0
    stopped_s: float = 0.0
    parked: int = 0
    """Messages, each once, of which an attempt began while stopped and that could have been held."""
    deferrals_avoided: int = 0
    """Outcomes `deferred` of such attempts, those included in which Postfix only repeats an earlier refusal."""
    bounces_put_off: int = 0
    """Outcomes `bounced` of such attempts: the message would have been on hold, and tried later."""
    delivered_late: int = 0
    """Outcomes `sent` of such attempts: mail that got through and would have waited. The price."""
    delivered_late_s: float = 0.0
    """Seconds from these attempts to the end of the stop, in sum: what they would have waited at least."""
    not_held: int = 0
    """Outcomes while stopped that would have come all the same: first attempts of mail that no policy check sees,
    recipients that disagree, multi-recipient mail in the queue manager's memory, mail past hold_max."""
    others_sent: int = 0
    """Messages of other senders to the same provider that were delivered while it was open."""
    others_waited_s: float = 0.0
    """Seconds that these spent in the active queue, waiting for their turn (`delays=`, second number), in sum."""
    others_longest_s: float = 0.0
    others_suspended: int = 0
    """Deferrals of others to the provider without an attempt: Postfix had suspended the destination."""

    def add(self, other: Self) -> None:
        longest = max(self.others_longest_s, other.others_longest_s)
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        self.others_longest_s = longest


class Opened(NamedTuple):
    """A sub-queue that would have been opened."""

    host: str
    key: str
    rule: str
    line: str
    """The text of the log line that opened it."""
    opened: float
    closed: float | None
    """None: it was open when the log ended."""
    counts: Counts


class _Open:
    """A sub-queue while it is open. Mutable, and only this module's."""

    __slots__ = ("counts", "key", "late", "line", "opened", "rule", "state", "stopped_from", "stopped_to")

    def __init__(self, change: Change) -> None:
        self.key = Key.read(change.key)
        self.rule = change.rule
        self.line = change.line[:SAMPLE]
        self.opened = self.stopped_from = change.time
        self.stopped_to: float | None = None
        self.state = "paused"
        self.late: list[float] = []
        """When the attempts of this stop began that were accepted."""
        self.counts = Counts(pauses=1)

    def enters(self, state: str, *, at: float) -> None:
        """Follow the state machine: paused and probing are one stop."""
        tally = self.counts
        if state == "paused":
            tally.pauses += 1
            if self.state == "probing":
                tally.failed_probes += 1
            else:
                tally.retriggers += self.state == "ramping"
                self.stopped_from, self.stopped_to = at, None
        elif state != "probing":
            self.goes(at=at)
        self.state = state

    def goes(self, *, at: float) -> None:
        """The stop ends, or the log does."""
        if self.stopped_to is not None:
            return
        self.stopped_to = at
        self.counts.stopped_s += max(0.0, at - self.stopped_from)
        self.counts.delivered_late_s += sum(max(0.0, at - began) for began in self.late)
        self.late.clear()

    def stopped(self, began: float) -> bool:
        """Whether it had stopped, and a sidecar had had the time to act, when an attempt began."""
        return began >= self.stopped_from + REACTION and (self.stopped_to is None or began < self.stopped_to)


_NONE: frozenset[str] = frozenset()


class _Outcome(NamedTuple):
    """An outcome of a message in the time of a stop, until it is known whether the message could have been held."""

    stops: list[_Open]
    status: str
    began: float


class Waiting:
    """One host's log against one set of rules."""

    def __init__(self, rules: RuleSet, organizational: Callable[[str], str], host: str) -> None:
        self.host = host
        self.rehearsal = Rehearsal(rules, organizational, host=host)
        self.open: dict[str, _Open] = {}
        self.at_provider: dict[str, dict[str, _Open]] = {}
        self.listed: list[Opened] = []
        self.opened = 0
        self.totals = Counts()
        self._unasked: set[tuple[str, str]] = set()
        """Live messages that no smtpd received: their first attempt nobody can hold."""
        self._undecided: dict[tuple[str, str], list[_Outcome]] = {}
        """Of messages not all of whose recipients are known yet."""
        self._parked: dict[tuple[str, str], list[_Open]] = {}
        """Live messages that were counted as parked, and where."""
        self._forgets = 0

    def take(self, fact: facts.Fact) -> Attempt | None:
        """Take one fact; give the attempt that it states, if it states one."""
        kind = type(fact)
        rehearsal = self.rehearsal
        if kind is facts.QueueActive or kind is facts.PickedUp:
            self._is_it_asked_about(fact)  # type: ignore[arg-type]  # it is one of these
        rehearsal.observe(fact)
        changes = rehearsal.changes()
        moved = self._follow(changes, line=fact.record.text) if changes else _NONE
        if kind is facts.QueueRemoved:
            self._removed(fact)  # type: ignore[arg-type]  # it is one
        if kind is not facts.DeliveryAttempt or not (attempts := rehearsal.attempts()):
            return None
        if self.open:
            self._outcome(fact, attempts[0], moved)  # type: ignore[arg-type]  # it is one
        return attempts[0]

    def finish(self, *, now: float) -> None:
        """The log has ended."""
        self.rehearsal.wait(until=now)
        self._follow(self.rehearsal.changes(), line="")
        for sub in list(self.open.values()):
            sub.goes(at=now)
            self._list(sub, closed=None)
        self.open.clear()

    def _forget(self) -> None:
        """Bound the memory as the engine does: what it has forgotten is not heard of again."""
        self._forgets = self.rehearsal.forgets
        known = self.rehearsal.engine.messages.get
        self._unasked = {place for place in self._unasked if known(*place)}
        self._parked = {place: subs for place, subs in self._parked.items() if known(*place)}
        self._undecided = {place: outcomes for place, outcomes in self._undecided.items() if known(*place)}

    def _is_it_asked_about(self, fact: facts.QueueActive | facts.PickedUp) -> None:
        if self.rehearsal.forgets != self._forgets:
            self._forget()
        place = fact.record.instance, fact.queue_id
        if type(fact) is facts.PickedUp or self.rehearsal.engine.messages.get(*place) is None:
            self._unasked.add(place)

    def _removed(self, fact: facts.QueueRemoved) -> None:
        place = fact.record.instance, fact.queue_id
        self._unasked.discard(place)
        self._parked.pop(place, None)
        for outcome in self._undecided.pop(place, ()):
            _count_all_the_same(outcome)

    def _follow(self, changes: Sequence[Change], *, line: str) -> frozenset[str]:
        """Follow the states of sub-queues; tell which moved on by this line, and not by the time before it."""
        for change in changes:
            if change.kind == "opened":
                sub = self.open[change.key] = _Open(change)
                self.at_provider.setdefault(sub.key.provider, {})[change.key] = sub
                self.opened += 1
            elif change.key in self.open and change.kind == change.state:
                sub = self.open[change.key]
                sub.enters(change.state, at=change.time)
                if change.state == "closed":
                    del self.open[change.key], self.at_provider[sub.key.provider][change.key]
                    self._list(sub, closed=change.time)
        return frozenset(change.key for change in changes if line and change.state != "probing")

    def _list(self, sub: _Open, *, closed: float | None) -> None:
        self.totals.add(sub.counts)
        if len(self.listed) < LISTED:
            self.listed.append(Opened(self.host, str(sub.key), sub.rule, sub.line, sub.opened, closed, sub.counts))

    def _outcome(self, fact: facts.DeliveryAttempt, attempt: Attempt, moved: frozenset[str]) -> None:
        """Count an outcome for the sub-queues that are open at its provider: its own, and those of others."""
        at_provider = self.at_provider.get(attempt.provider) or {}
        place = attempt.instance, attempt.queue_id
        engine = self.rehearsal.engine
        message = engine.messages.get(*place)
        if message is None or not (at_provider or place in self._undecided):
            return
        own = {str(sub.key) for sub in engine.subqueues.matching(message, attempt.provider)}
        for key, sub in at_provider.items():
            if key not in own and sub.key.type not in IP_TYPES:
                _count_other(sub.counts, fact)
        began = attempt.time - fact.delays.connection_setup - fact.delays.transmission
        if message.nrcpt > 1:  # in the queue manager's memory it is not taken: it must have been on hold before
            began -= fact.delays.in_queue_manager
        stops = [at_provider[key] for key in own if key in at_provider and key not in moved]
        stops = [sub for sub in stops if sub.stopped(began)]
        if stops or place in self._undecided:
            self._decide(message, _Outcome(stops, fact.status, began), fact, now=attempt.time)

    def _decide(self, message: Message, outcome: _Outcome, fact: facts.DeliveryAttempt, *, now: float) -> None:
        """Count an outcome as avoided, or not, as soon as all recipients of its message are known."""
        place = message.instance, message.queue_id
        waiting = self._undecided.setdefault(place, [])
        waiting.append(outcome)
        if not message.all_known:
            return
        del self._undecided[place]
        could = self._could_be_held(message, fact, now=now)
        for each in waiting:
            if could:
                self._count_avoided(place, each)
            else:
                _count_all_the_same(each)

    def _could_be_held(self, message: Message, fact: facts.DeliveryAttempt, *, now: float) -> bool:
        engine = self.rehearsal.engine
        settings = engine.settings
        if message.activation < 2 and (message.instance, message.queue_id) in self._unasked:
            return False
        if settings.is_verification(message) or fact.delay >= settings.hold_max_of(message):
            return False
        open_then = {recipient.domain for recipient in message.recipients if not recipient.done}
        touched = {recipient.domain for recipient in message.recipients if recipient.activation == message.activation}
        return engine.subqueues.covering(message, sorted(open_then | touched), now=now) is not None

    def _count_avoided(self, place: tuple[str, str], outcome: _Outcome) -> None:
        for sub in outcome.stops:
            counted = self._parked.setdefault(place, [])
            if sub not in counted:
                counted.append(sub)
                sub.counts.parked += 1
            match outcome.status:
                case "sent":
                    sub.counts.delivered_late += 1
                    if sub.stopped_to is None:
                        sub.late.append(outcome.began)
                    else:
                        sub.counts.delivered_late_s += sub.stopped_to - outcome.began
                case "bounced" | "expired":
                    sub.counts.bounces_put_off += 1
                case _:
                    sub.counts.deferrals_avoided += 1


def _count_all_the_same(outcome: _Outcome) -> None:
    for sub in outcome.stops:
        sub.counts.not_held += 1


def _count_other(tally: Counts, fact: facts.DeliveryAttempt) -> None:
    if fact.status == "sent":
        waited = fact.delays.in_queue_manager
        tally.others_sent += 1
        tally.others_waited_s += waited
        tally.others_longest_s = max(tally.others_longest_s, waited)
    elif fact.reason.startswith(SUSPENDED):
        tally.others_suspended += 1
