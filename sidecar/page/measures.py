"""What the feeds told of some objects. The only SQL of the page about measures."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from parsers.observation import Outcome
from sidecar.outside_store import Known
from sidecar.page.judgement import Told, told
from sidecar.page.reading import Store
from sidecar.page.spark import Spark, spark

_CHUNK = 500


def of_objects(store: Store, objects: Collection[str]) -> dict[str, list[Told]]:
    """Everything that is known of each of them, feed by feed."""
    found: defaultdict[str, list[Told]] = defaultdict(list)
    names = list(objects)
    for begin in range(0, len(names), _CHUNK):
        chunk = names[begin : begin + _CHUNK]
        for row in store.rows(_OF.format(marks=", ".join("?" * len(chunk))), (*chunk,)):
            known = Known(*row)._replace(outcome=Outcome(row[3]))
            found[known.object].append(told(known))
    return found


def objects(store: Store, like: Sequence[str]) -> list[str]:
    """Every object of which one of these measures is known; a * at the end stands for any rest."""
    where = " OR ".join("measure GLOB ?" for _ in like)
    return [name for (name,) in store.rows(_OBJECTS.format(where=where), (*like,))]


def course(store: Store, known: Known, *, since: float, now: float) -> Spark | None:
    """How a number went since then, by sixtieths of that time; None where it hardly was one."""
    rows = store.rows(_HISTORY, (known.feed, known.object, known.measure, since))
    values = [(at, value) for at, value in rows if value is not None]
    if len({value for _, value in values}) < 2:
        return None
    bins: list[float | None] = [None] * 60
    for at, value in values:
        bins[min(59, int((at - since) / (now - since) * 60))] = value
    last: float | None = None
    for number, value in enumerate(bins):  # a row stands for the time until the next one
        last = bins[number] = last if value is None else value
    low, high = min(value for _, value in values), max(value for _, value in values)
    return spark(bins, words=f"between {low:g} and {high:g} in this time", low=low, high=high)


_COLUMNS = "feed, object, measure, outcome, why, polled_at, value, text, at, told_at"
_OF = f"SELECT {_COLUMNS} FROM measure WHERE object IN ({{marks}}) ORDER BY feed, object, measure"  # noqa: S608  # names of ours
_OBJECTS = "SELECT DISTINCT object FROM measure WHERE {where} ORDER BY object"
_HISTORY = "SELECT at, value FROM history WHERE feed = ? AND object = ? AND measure = ? AND at >= ? ORDER BY at"
