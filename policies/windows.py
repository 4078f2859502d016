"""What the log counts, as figures: shares of messages over rolling windows, and streams that went quiet.

Knows what each share is made of. No attempt at all is a fact of our own log, and no silence.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from parsers.observation import Outcome
from policies.figures import Figure, Kind

FEED: Final = "log"
ALL: Final = "all mail"
"""Object of what is counted over all."""
STEADY_MIN: Final = 50
"""Messages that a stream must send in each such hour to be called steady."""
MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 86_400


class Counts(NamedTuple):
    """Delivery attempts of one object in one window."""

    attempts: int = 0
    sent: int = 0
    deferred: int = 0
    bounced: int = 0
    """Refused for good, for whatever reason."""
    hard: int = 0
    """Of those, for the recipient's."""
    connect: int = 0
    """No connection, or none in time."""
    tls: int = 0
    auth: int = 0
    """Refused for want of SPF, DKIM, DMARC or PTR."""

    def plus(self, other: "Counts") -> "Counts":
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def ended(self) -> int:
        return self.sent + self.bounced


class Window(NamedTuple):
    name: str
    seconds: int
    width: int
    """Of the counts that it is added up from."""
    every: float
    """Seconds between two looks."""


WINDOWS: Final = (
    Window("15m", 15 * MINUTE, 5 * MINUTE, 15.0),
    Window("1h", HOUR, 5 * MINUTE, 60.0),
    Window("24h", DAY, HOUR, 900.0),
    Window("7d", 7 * DAY, HOUR, 3600.0),
    Window("30d", 30 * DAY, HOUR, 4 * 3600.0),
)
BASELINE: Final = "7d"

Object = tuple[str, str]
"""(kind, name)"""


class Share(NamedTuple):
    measure: str
    part: Callable[[Counts], int]
    whole: Callable[[Counts], int]
    of_nothing: float = 0.0
    """Its value where there was no message."""


SHARES: Final = (
    Share("hard-bounces", lambda counts: counts.hard, lambda counts: counts.ended),
    Share("deferrals", lambda counts: counts.deferred, lambda counts: counts.attempts),
    Share("acceptance", lambda counts: counts.sent, lambda counts: counts.ended, 1.0),
    Share("connections", lambda counts: counts.connect, lambda counts: counts.attempts),
    Share("tls", lambda counts: counts.tls, lambda counts: counts.attempts),
    Share("authentication", lambda counts: counts.auth, lambda counts: counts.attempts),
)


def shares(
    window: Window,
    counted: Mapping[Object, Counts],
    usual: Mapping[Object, Counts],
    also: Collection[Object],
    *,
    now: float,
) -> Iterator[Figure]:
    """Give every share of every object that was counted, and of those in `also`, which may have had no message."""
    for object_ in {*counted, *also}:
        counts, baseline = counted.get(object_, Counts()), usual.get(object_)
        for share in SHARES:
            whole = share.whole(counts)
            value = share.part(counts) / whole if whole else share.of_nothing
            known = baseline is not None and share.whole(baseline) > 0
            before = share.part(baseline) / share.whole(baseline) if baseline is not None and known else None
            measure = f"{share.measure}.{window.name}"
            kind, name = object_
            yield Figure(FEED, name, Kind(kind), measure, Outcome.OK, value, "", now, now, float(whole), before)


STOPPED: Final = 0.02
"""Of what is expected; below it a stream stands."""
STREAMS: Final = (Kind.DOMAIN, Kind.TENANT, Kind.CAMPAIGN)
"""What may send steadily, and stop."""
MANY: Final = (5, 0.2)
"""Streams, and share of all steady ones, that stop together for one reason: a holiday, or all of us."""


def expected(
    last_hour: Mapping[Object, int], before: Sequence[Mapping[Object, int]], also: Collection[Object], *, now: float
) -> Iterator[Figure]:
    """Compare each stream's last hour with what it sent in such hours before: the least of them is expected.

    Where many domains stop together, nobody can say it of one: then that is told of all mail.
    """
    watched = {object_ for hours in before[:1] for object_ in hours} | set(also)
    least = {object_: min((hours.get(object_, 0) for hours in before), default=0) for object_ in watched}
    for kind in STREAMS:
        ours = [object_ for object_ in watched if object_[0] == kind]
        steady = [object_ for object_ in ours if least[object_] >= STEADY_MIN]
        stopped = sum(last_hour.get(object_, 0) <= STOPPED * least[object_] for object_ in steady)
        together = stopped >= MANY[0] and stopped >= MANY[1] * len(steady)
        for object_ in ours:
            usual = least[object_]
            value = last_hour.get(object_, 0) / usual if usual else 1.0
            outcome = Outcome.UNKNOWN if together and value <= STOPPED else Outcome.OK
            yield Figure(FEED, object_[1], kind, "of-expected.1h", outcome, value, "", now, now, float(usual))
        if kind is Kind.DOMAIN:
            share = stopped / len(steady) if together else 0.0
            yield Figure(FEED, ALL, Kind.HOST, "stopped.1h", Outcome.OK, share, "", now, now, float(len(steady)))
