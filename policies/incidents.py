"""Alerts that belong together become one incident; how long it lasts, and when people hear of it.

Knows what belongs together, that three messages a day are enough, and that an incident which comes and goes is one.
What people believe (the last message) is never better than what is: a calm that nobody may be told of stays open.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from parsers.feeds.dnsbl import Severity
from policies.conditions import Alert, Condition, Turn, worse
from policies.figures import Kind
from policies.key import Key
from policies.note import Note, NoteKind

MESSAGES_A_DAY: Final = 3
DAY: Final = 86_400.0
CALM: Final = 600.0
"""Seconds without a firing alert until an incident is over; doubles each time that it came back too soon."""
CALM_MAX: Final = 6 * 3600.0
REOPEN: Final = DAY
"""Seconds after its end in which the same alert opens the incident again."""
AGAIN: Final = 1200.0
"""Seconds between two words to a pager that it still goes on."""
SETTLE: Final = 600.0
"""Seconds after a message until people are told that it concerns more: by then it is plain how much."""
ALIKE: Final = 1800.0
"""Seconds within which what the log says of a provider, or of all mail, has one cause with what else it says."""
MEMBERS_MAX: Final = 500
LINES_MAX: Final = 8
"""Of evidence, victims, actions and alerts in a note."""


class Phase(StrEnum):
    OPEN = "open"
    CALM = "calm"
    """No alert fires any more; not yet for long enough."""
    RESOLVED = "resolved"
    CLOSED = "closed"
    """By hand."""


class Member(NamedTuple):
    """One alert of an incident."""

    key: str
    condition: str
    object: str
    kind: Kind
    severity: Severity
    firing: bool
    since: float
    fired_at: float
    resolved_at: float
    said: str


class Symptom(Protocol):
    """An alert, as far as what it belongs with goes."""

    @property
    def key(self) -> str: ...
    @property
    def condition(self) -> str: ...
    @property
    def object(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def fired_at(self) -> float: ...


class Surroundings(NamedTuple):
    """What is known around an incident when it opens or grows."""

    evidence: tuple[str, ...] = ()
    victims: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    """What the sidecar did by itself, oldest first."""


class Incident(NamedTuple):
    id: int
    dedup_key: str
    """Of the alert that opened it."""
    phase: Phase
    title: str
    category: str
    severity: Severity
    """The worst so far."""
    owner: str
    runbook: str
    began_at: float
    """The first sign, as far as figures tell."""
    opened_at: float
    calm_since: float = 0.0
    ended_at: float = 0.0
    members: tuple[Member, ...] = ()
    around: Surroundings = Surroundings()
    acked_by: str = ""
    acked_at: float = 0.0
    closed_by: str = ""
    flaps: int = 0
    """How often it came back during or soon after a calm."""
    messages: tuple[float, ...] = ()
    """When the messages of the last day were sent."""
    known_as: Severity | None = None
    """The severity that people know of; None where they believe that nothing is the matter."""
    known_scope: int = 0
    """How many things people know that it is about."""
    again_at: float = 0.0
    """When a pager was last told that it goes on."""
    again_of: int = 0
    """The incident that this one follows."""

    @property
    def live(self) -> bool:
        return self.phase in {Phase.OPEN, Phase.CALM}

    @property
    def about(self) -> tuple[str, ...]:
        """What it is about, without double."""
        return tuple(dict.fromkeys(tag for member in self.members for tag in strong(member)))

    @property
    def detect_seconds(self) -> float:
        return max(0.0, self.opened_at - self.began_at)

    @property
    def recover_seconds(self) -> float | None:
        """From its begin to the end of its last alert; None while it goes on."""
        return None if self.live else max(0.0, (self.calm_since or self.ended_at) - self.began_at)


def strong(alert: Symptom) -> tuple[str, ...]:
    """What an alert is about: two alerts with one of these in common belong together."""
    match alert.kind:
        case Kind.ADDRESS | Kind.DOMAIN if alert.condition == "listed":
            return f"{alert.kind}:{alert.object}", f"list:{alert.key.rpartition(':')[2]}"
        case Kind.SUBQUEUE:
            key = _key(alert.object)
            return (f"{_sort(key)}:{key.value}",) if key else (f"subqueue:{alert.object}",)
        case Kind.STREAM:
            return (f"{Kind.DOMAIN}:{alert.object.rpartition('@')[0]}",)
        case Kind.FEED | Kind.LIST:
            return ("feeds",)  # a resolver or a network that is away blinds them all
        case _:
            return (f"{alert.kind}:{alert.object}",)


def weak(alert: Symptom) -> tuple[str, ...]:
    """What it happens at: it belongs to trouble of the whole of it, not to its neighbours' there."""
    if alert.kind is Kind.STREAM:
        return (f"{Kind.PROVIDER}:{alert.object.rpartition('@')[2]}",)
    key = _key(alert.object) if alert.kind is Kind.SUBQUEUE else None
    return (f"{Kind.PROVIDER}:{key.provider}",) if key else ()


def _key(text: str) -> Key | None:
    try:
        return Key.read(text)
    except ValueError:
        return None


def _sort(key: Key) -> str:
    return "address" if key.type in {"ip", "netblock"} else "host" if key.type == "host" else "domain"


def related(one: Symptom, other: Symptom) -> bool:
    return share([one], [other]) or alike(one, other)


def share(some: Iterable[Symptom], others: Iterable[Symptom]) -> bool:
    """Whether one of some alerts is about the same as one of others, or happens at what that is about."""
    (mine, mine_at), (theirs, theirs_at) = map(_about, (some, others))
    return bool(mine & theirs or mine & theirs_at or theirs & mine_at)


def _about(alerts: Iterable[Symptom]) -> tuple[set[str], set[str]]:
    tags = [(strong(each), weak(each)) for each in alerts]
    return {tag for found, _ in tags for tag in found}, {tag for _, found in tags for tag in found}


def alike(one: Symptom, other: Symptom) -> bool:
    """Whether they are two views of the same lines: one sender's refusals raise its provider's share too."""
    counted = one.key.startswith(_COUNTED) and other.key.startswith(_COUNTED)
    wide = not one.kind == other.kind == Kind.DOMAIN
    return counted and wide and abs(one.fired_at - other.fired_at) <= ALIKE


_COUNTED: Final = "pf-rep:log:"


class Incidents:
    """The incidents that are open or ended lately, and what is to be said of them."""

    def __init__(self, known: Iterable[Incident] = (), *, last_id: int = 0, scale: float = 1.0) -> None:
        """`scale` divides the calm that ends an incident: for labs."""
        self._scale = scale
        self._known = {incident.id: incident for incident in known}
        self._last_id = max([last_id, *self._known])
        self._changed: set[int] = set()
        self._notes: list[Note] = []
        self._events: list[tuple[int, float, str]] = []

    def all(self) -> list[Incident]:
        return list(self._known.values())

    def get(self, number: int) -> Incident | None:
        return self._known.get(number)

    def take(self) -> tuple[list[Incident], list[Note], list[tuple[int, float, str]]]:
        """Hand over the incidents that changed, the notes, and (incident, time, what happened), since the last time."""
        taken = [self._known[number] for number in sorted(self._changed)], self._notes, self._events
        self._changed, self._notes, self._events = set(), [], []
        return taken

    # What happens.

    def turned(
        self, alert: Alert, turn: Turn, condition: Condition, *, now: float, around: Surroundings | None = None
    ) -> Incident | None:
        """An alert fired, got worse or was resolved; None where a resolved one belongs to nothing that is known."""
        found = self._last_with(alert.key) if turn is Turn.RESOLVED else self._belongs(alert, now=now)
        if found is None:
            if turn is Turn.RESOLVED:
                return None
            found = self._opened(alert, condition, now=now)
        incident = _joined(found, alert)
        if around is not None:
            incident = incident._replace(around=_together(incident.around, around))
        if turn is not Turn.RESOLVED and incident.phase is not Phase.OPEN:
            self._tell(incident, now, "it is back")
            if not incident.live:  # who took it on thought that it was over
                incident = incident._replace(acked_by="", acked_at=0.0)
            incident = incident._replace(
                phase=Phase.OPEN, flaps=incident.flaps + 1, calm_since=0.0, ended_at=0.0, closed_by=""
            )
        self._tell(incident, now, f"{turn}: {alert.said or alert.key}")
        self._put(_settled(incident, now=now))
        self.tick(now=now, only=incident.id)
        return self._known[incident.id]

    def tick(self, *, now: float, only: int = 0) -> None:
        """Let time pass: calms end, and what was not yet said is said."""
        for incident in [self._known[only]] if only else self.all():
            if incident.live:
                self._put(self._spoken(_settled(incident, now=now), now=now))

    def ack(self, number: int, *, who: str, now: float) -> Incident:
        """Somebody takes it on: the pager is quiet from now on. Raises ValueError."""
        incident = self._live(number)
        incident = incident._replace(acked_by=who, acked_at=now)
        self._note(incident, NoteKind.ACKED, now=now, by_whom=f"acknowledged by {who}")
        self._tell(incident, now, f"acknowledged by {who}")
        return self._put(incident)

    def close(self, number: int, *, who: str, now: float) -> Incident:
        """End it by hand, whatever its alerts say; each that fires anew opens it again. Raises ValueError."""
        incident = self._live(number)
        incident = incident._replace(phase=Phase.CLOSED, closed_by=who, ended_at=now)
        self._tell(incident, now, f"closed by {who}")
        if incident.known_as is not None:
            heard = _left(incident, now=now) >= 1
            self._note(incident, NoteKind.RESOLVED if heard else NoteKind.CLOSED, now=now, by_whom=f"closed by {who}")
            if heard:
                incident = incident._replace(messages=(*_of_today(incident, now=now), now))
        return self._put(incident._replace(known_as=None))

    def unsure(self, number: int, *, now: float) -> Note | None:
        """Say that it goes on, where nobody knows whether the last message arrived; None when that is no longer news."""
        incident = self._known.get(number)
        if incident is None or incident.phase is not Phase.OPEN or _left(incident, now=now) < 1:
            return None
        note = _note(incident, NoteKind.UNSURE, now=now)
        self._put(incident._replace(messages=(*incident.messages, now)))
        return note

    def note(self, number: int, kind: NoteKind, *, now: float) -> Note | None:
        """Give what there is to say of it now, and count it as nothing said; None where it is not known any more."""
        incident = self._known.get(number)
        return None if incident is None else _note(incident, kind, now=now)

    def forget(self, *, now: float) -> None:
        """Drop from memory what ended long ago."""
        old = [each.id for each in self.all() if not each.live and now - each.ended_at > REOPEN]
        for number in old:
            if number not in self._changed:
                del self._known[number]

    # Which incident.

    def _last_with(self, key: str) -> Incident | None:
        own = (each for each in self._known.values() if any(member.key == key for member in each.members))
        return max(own, key=lambda each: each.id, default=None)

    def _belongs(self, alert: Alert, *, now: float) -> Incident | None:
        """Its own incident; else one that is live and related; else its own that ended lately and may still speak."""
        last = self._last_with(alert.key)
        if last is not None and last.live:
            return last
        for incident in self._known.values():
            if incident.live and any(related(member, alert) for member in incident.members):
                return incident
        lately = last is not None and now - last.ended_at <= REOPEN and _left(last, now=now) >= 1
        return last if lately else None

    def _opened(self, alert: Alert, condition: Condition, *, now: float) -> Incident:
        last = self._last_with(alert.key)
        self._last_id += 1
        return Incident(
            self._last_id,
            alert.key,
            Phase.OPEN,
            alert.said,
            str(condition.category),
            alert.severity,
            condition.owner,
            condition.runbook,
            alert.since,
            now,
            flaps=last.flaps + 1 if last else 0,
            again_of=last.id if last else 0,
        )

    # What is said.

    def _spoken(self, incident: Incident, *, now: float) -> Incident:
        left = _left(incident, now=now)
        if incident.phase is Phase.OPEN:
            if incident.known_as is None and left >= 1:
                kind = NoteKind.REOPENED if incident.messages else NoteKind.OPENED
                return self._said(incident, kind, now=now)._replace(known_as=incident.severity)
            grown = incident.known_as is not None and worse(incident.severity, incident.known_as)
            # One message is kept for the end, unless it could not be worse.
            if grown and left >= (1 if incident.severity is Severity.CRITICAL else 2):
                return self._said(incident, NoteKind.WORSE, now=now)._replace(known_as=incident.severity)
            wider = incident.known_as is not None and len(incident.about) > incident.known_scope
            if wider and left >= 2 and now - max(incident.messages, default=0.0) >= SETTLE:
                return self._said(incident, NoteKind.WIDER, now=now)
            if incident.known_as is not None and not incident.acked_by and now - incident.again_at >= AGAIN:
                self._note(incident, NoteKind.AGAIN, now=now)
                return incident._replace(again_at=now)
        elif now - incident.calm_since >= calm_needed(incident.flaps) / self._scale and (
            incident.known_as is None or left >= 1
        ):
            self._tell(incident, now, "resolved")
            ended = incident._replace(phase=Phase.RESOLVED, ended_at=now)
            if incident.known_as is not None:
                ended = self._said(ended, NoteKind.RESOLVED, now=now)
            return ended._replace(known_as=None)
        return incident

    def _said(self, incident: Incident, kind: NoteKind, *, now: float) -> Incident:
        self._note(incident, kind, now=now)
        messages = (*_of_today(incident, now=now), now)
        return incident._replace(messages=messages, known_scope=len(incident.about), again_at=now)

    def _note(self, incident: Incident, kind: NoteKind, *, now: float, by_whom: str = "") -> None:
        self._notes.append(_note(incident, kind, now=now, by_whom=by_whom))

    # Bookkeeping.

    def _live(self, number: int) -> Incident:
        incident = self._known.get(number)
        if incident is None or not incident.live:
            raise ValueError(f"incident {number} is not open; `sidecar incident list` has those that are")
        return incident

    def _put(self, incident: Incident) -> Incident:
        if self._known.get(incident.id) != incident:
            self._known[incident.id] = incident
            self._changed.add(incident.id)
        return incident

    def _tell(self, incident: Incident, now: float, what: str) -> None:
        self._events.append((incident.id, now, what))


def calm_needed(flaps: int) -> float:
    """Seconds of calm after which an incident is over."""
    return min(CALM * 2.0 ** min(flaps, 20), CALM_MAX)


def _of_today(incident: Incident, *, now: float) -> tuple[float, ...]:
    return tuple(each for each in incident.messages if now - each < DAY)


def _left(incident: Incident, *, now: float) -> int:
    return MESSAGES_A_DAY - len(_of_today(incident, now=now))


def _joined(incident: Incident, alert: Alert) -> Incident:
    """Put an alert's present state into its incident."""
    members = {member.key: member for member in incident.members}
    members[alert.key] = Member(
        alert.key,
        alert.condition,
        alert.object,
        alert.kind,
        alert.severity,
        alert.firing,
        alert.since,
        alert.fired_at,
        alert.resolved_at,
        alert.said,
    )
    return incident._replace(
        members=tuple(members.values())[-MEMBERS_MAX:],
        severity=alert.severity if worse(alert.severity, incident.severity) else incident.severity,
    )


def _settled(incident: Incident, *, now: float) -> Incident:
    """Open while any of its alerts fires, calm from the moment when none does."""
    if not incident.live:
        return incident
    if any(member.firing for member in incident.members):
        return incident._replace(phase=Phase.OPEN, calm_since=0.0)
    return incident if incident.phase is not Phase.OPEN else incident._replace(phase=Phase.CALM, calm_since=now)


def _together(old: Surroundings, new: Surroundings) -> Surroundings:
    """The newest of each, without double."""
    return Surroundings(
        *(tuple(dict.fromkeys((*was, *now)))[-4 * LINES_MAX :] for was, now in zip(old, new, strict=True))
    )


def _note(incident: Incident, kind: NoteKind, *, now: float, by_whom: str = "") -> Note:
    firing = sorted(incident.members, key=lambda member: (not member.firing, list(Severity).index(member.severity)))
    lines = [f"{member.severity}: {member.said}" for member in firing[:LINES_MAX]]
    if len(firing) > LINES_MAX:
        lines.append(f"and {len(firing) - LINES_MAX} more")
    return Note(
        kind,
        incident.id,
        incident.dedup_key,
        incident.severity,
        incident.title,
        incident.category,
        now,
        incident.began_at,
        incident.opened_at,
        incident.owner,
        incident.runbook,
        scope=incident.about[:LINES_MAX],
        alerts=tuple(lines),
        evidence=incident.around.evidence[-LINES_MAX:],
        victims=incident.around.victims[-LINES_MAX:],
        actions=incident.around.actions[-LINES_MAX:],
        by_whom=by_whom,
    )


class Times(NamedTuple):
    """How fast incidents were noticed and over, in seconds; medians of those that ended."""

    incidents: int
    detect_median: float
    recover_median: float
    detect_worst: float
    recover_worst: float


def times(ended: Iterable[Incident]) -> Times | None:
    """None where none ended."""
    pairs = [(each.detect_seconds, each.recover_seconds) for each in ended if each.recover_seconds is not None]
    if not pairs:
        return None
    detect = sorted(detect for detect, _ in pairs)
    recover = sorted(recover for _, recover in pairs if recover is not None)
    middle = len(pairs) // 2
    return Times(len(pairs), detect[middle], recover[middle], detect[-1], recover[-1])


def severities(incidents: Iterable[Incident]) -> Mapping[Severity, int]:
    """How many are live, by severity."""
    counts = dict.fromkeys(Severity, 0)
    for incident in incidents:
        if incident.live:
            counts[incident.severity] += 1
    return counts
