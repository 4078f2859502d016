"""What the log counted, as the alerts count it: sums of the last day and the line of its hours.

The only SQL of the page about counts, so that every view gives the same numbers.
"""

from collections import defaultdict
from collections.abc import Collection
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
    """Every object of a kind that had mail in the last day, busiest first."""
    day = {name: Counts(*numbers) for name, *numbers in store.rows(_SUMS, (HOUR, *_range(now, DAY, HOUR), str(kind)))}
    hour = {name: Counts(*numbers) for name, *numbers in store.rows(_SUMS, (300, *_range(now, HOUR, 300), str(kind)))}
    found = [Flow(name, counts, hour.get(name, Counts())) for name, counts in day.items()]
    return sorted(found, key=lambda flow: (-flow.day.attempts, flow.name))


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


_FIELDS = ", ".join(f"sum({field})" for field in Counts._fields)
_SUMS = f"SELECT object, {_FIELDS} FROM tally WHERE width = ? AND begin >= ? AND begin < ? AND kind = ? GROUP BY object"  # noqa: S608  # names of ours
# Each cell is looked up by its whole key: a site with thousands of domains has millions of them.
_HOURS = """
    SELECT object, begin, attempts, sent FROM tally
    WHERE width = 3600 AND begin IN ({begins}) AND kind = ? AND object IN ({names})
"""
