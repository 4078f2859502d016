"""What the log counted, as the alerts count it: sums of the last day and the line of its hours.

The only SQL of the page about counts, so that every view gives the same numbers.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

from policies.figures import Kind
from policies.windows import DAY, HOUR, Counts
from sidecar.page.reading import Store
from sidecar.page.spark import Spark, share_words, spark

HOURS = 24


class Flow(NamedTuple):
    """The mail of one object in the last day."""

    name: str
    day: Counts = Counts()
    hour: Counts = Counts()

    @property
    def put_off(self) -> float:
        return self.day.deferred / self.day.attempts if self.day.attempts else 0.0

    @property
    def refused(self) -> float:
        return self.day.bounced / self.day.ended if self.day.ended else 0.0

    @property
    def acceptance(self) -> float:
        return self.day.sent / self.day.ended if self.day.ended else 1.0


def flows(store: Store, kind: Kind, *, now: float) -> list[Flow]:
    """Every object of a kind that had mail in the last day, busiest first; without its last hour."""
    rows = store.rows(_SUMS, (HOUR, *_range(now, DAY, HOUR), str(kind)))
    found = [Flow(name, _counts(numbers)) for name, *numbers in rows]
    return sorted(found, key=lambda flow: (-flow.day.attempts, flow.name))


def flow(store: Store, kind: Kind, name: str, *, now: float) -> Flow | None:
    """One object's; None where it had no mail in the last day."""
    day, hour = (
        next(iter(store.rows(_SUM, (width, *_range(now, seconds, width), str(kind), name))), None)
        for seconds, width in ((DAY, HOUR), (HOUR, 300))
    )
    if day is None or not day[0]:
        return None
    return Flow(name, _counts(day), _counts(hour) if hour and hour[0] else Counts())


def _counts(numbers: Sequence[int]) -> Counts:
    return Counts(**dict(zip(_FIELDS, numbers, strict=True)))


def sparks(store: Store, kind: Kind, names: Collection[str], *, now: float) -> dict[str, Spark]:
    """Of each object the share of attempts that were accepted, by the hour."""
    begins = _hours(now)
    counted: defaultdict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
    if names:
        marks = ", ".join("?" * len(names))
        query = _HOURS.format(begins=", ".join(map(str, begins)), names=marks)
        for name, begin, attempts, sent in store.rows(query, (str(kind), *names)):
            counted[name][begin] = (attempts, sent)
    return {name: _spark(counted[name], begins) for name in names}


def _spark(counted: dict[int, tuple[int, int]], begins: list[int]) -> Spark:
    values = [_share(*counted.get(begin, (0, 0))) for begin in begins]
    return spark(values, words=f"attempts accepted in the last 24 hours: {share_words(values)}")


def _share(attempts: int, sent: int) -> float | None:
    return sent / attempts if attempts else None


def _range(now: float, seconds: int, width: int) -> tuple[int, int]:
    """The same limits as the windows of the alerts have."""
    return int(now - seconds) // width * width, int(now) + width


def _hours(now: float) -> list[int]:
    newest = int(now) // HOUR * HOUR
    return [newest - hour * HOUR for hour in range(HOURS - 1, -1, -1)]


_FIELDS = ("attempts", "sent", "deferred", "bounced", "hard")
_ALL = ", ".join(f"sum({field})" for field in _FIELDS)
_IN = "FROM tally WHERE width = ? AND begin >= ? AND begin < ? AND kind = ?"
_SUMS = f"SELECT object, {_ALL} {_IN} GROUP BY object"  # names of ours
_SUM = f"SELECT {_ALL} {_IN} AND object = ?"  # as above
# Each cell is looked up by its whole key: a site with thousands of domains has millions of them.
_HOURS = """
    SELECT object, begin, attempts, sent FROM tally
    WHERE width = 3600 AND begin IN ({begins}) AND kind = ? AND object IN ({names})
"""
