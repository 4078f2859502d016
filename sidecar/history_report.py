"""A report on deliverability: what became of the mail of a selection, by what it was asked for, and what stands out.

Knows how rows are summed up and compared; what a rate means, policies/deliverability.py says, and how it looks,
history_tables and history_html.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, NamedTuple

import pandas as pd

from parsers.expression import AllOf, Comparison, Expression, FieldType, Operator
from policies.deliverability import Interval, Mark, Rate, differ, mark, newcombe, rates, wilson
from policies.naming import OTHER
from policies.rollup import DAY, HOUR, MEASURES
from policies.time_to_delivery import BUCKETS, percentile
from sidecar.database import Database
from sidecar.history_read import ALIASES, TIMES, History, Selection, complaints, events

PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
WINDOWS: Final = {"24 h": DAY, "7 d": 7 * DAY, "30 d": 30 * DAY}
_WITHIN: Final = [f"within_{number}" for number in range(BUCKETS)]
_SPIKES: Final = 5
_SPIKE_ATTEMPTS: Final = 50
"""Attempts in an hour, or a day, that can make a spike."""
_BEFORE: Final = HOUR
"""Seconds before a spike in which something may have led to it."""


class Row(NamedTuple):
    """A group of mail."""

    key: tuple[str, ...]
    """Its values of the dimensions; "" where one is not known."""
    sums: Mapping[str, float]

    @property
    def rates(self) -> dict[str, Rate]:
        return rates(self.sums)

    @property
    def percentiles(self) -> dict[str, float | None]:
        """Seconds to delivery."""
        within = [self.sums.get(name, 0) for name in _WITHIN]
        return {name: percentile(within, share) for name, share in PERCENTILES.items()}

    def mark(self, name: str) -> Mark | None:
        return mark(name, self.rates[name])


class Trend(NamedTuple):
    """One of WINDOWS, up to now, and as long a time before it."""

    window: str
    now: Row
    before: Row


class Spike(NamedTuple):
    """Hours, or days, in which far more than usual was deferred or bounced."""

    provider: str
    begin: int
    end: int
    refused: Rate
    usual: float
    """The median share of the provider's hours."""
    streams: tuple[tuple[str, float], ...]
    """Campaigns and domains that brought most of what was refused, with their share of it."""
    events: tuple[tuple[float, str], ...]
    """What happened shortly before, or meanwhile."""


class Difference(NamedTuple):
    """A rate of two groups, side by side."""

    rate: str
    one: Rate
    other: Rate
    interval: Interval
    """Of the difference `one` minus `other`, 95 %."""
    differ: bool


class Report(NamedTuple):
    selection: Selection
    rows: tuple[Row, ...]
    """The busiest first; in the order of time where that is a dimension."""
    total: Row
    by_time: pd.DataFrame
    """`begin` and the sums of the selection."""
    by_provider: pd.DataFrame
    """The same, and `provider`."""
    trends: tuple[Trend, ...]
    spikes: tuple[Spike, ...]

    @property
    def of_refusals(self) -> bool:
        return self.selection.of_refusals


def make(history: History, outside: Database | None, selection: Selection, *, now: float) -> Report:
    """Put a report together. `outside`: the store of complaints and listings, where there is one. Raises StoreError."""
    whole = selection.by != ("provider",) and not set(selection.by) & TIMES.keys()
    frame = _with_complaints(history, outside, selection._replace(whole=whole))
    plain = selection._replace(by=())
    if selection.of_refusals:
        by_provider = frame.iloc[0:0].assign(provider="")
        return Report(selection, _rows(frame, selection), _total(frame), _by_begin(frame), by_provider, (), ())
    by_provider = (
        frame if selection.by == ("provider",) else _with_complaints(history, outside, plain._replace(by=("provider",)))
    )
    by_time = _by_begin(by_provider)
    return Report(
        selection,
        _rows(frame, selection),
        _total(by_time),
        by_time,
        by_provider,
        _trends(history, outside, plain, now=now),
        _spikes(history, outside, plain, by_provider),
    )


def _with_complaints(history: History, outside: Database | None, selection: Selection) -> pd.DataFrame:
    frame = history.sums(selection)
    if outside is None or selection.of_refusals:
        return frame
    more = complaints(history, outside, selection)
    keys = ["begin", *dict.fromkeys(ALIASES.get(name, name) for name in selection.by if name not in TIMES)]
    more = more.groupby(keys, as_index=False)[["complaints"]].sum()
    joined = frame.merge(more, on=keys, how="outer")
    measures = [name for name in joined.columns if name not in keys]
    return joined.fillna(dict.fromkeys(measures, 0))


def _by_begin(frame: pd.DataFrame) -> pd.DataFrame:
    measures = _measures(frame)
    return frame.groupby("begin", as_index=False)[measures].sum()


def _measures(frame: pd.DataFrame) -> list[str]:
    return [name for name in (*MEASURES, "complaints") if name in frame.columns]


def _total(frame: pd.DataFrame) -> Row:
    return Row((), {str(name): int(value) for name, value in frame[_measures(frame)].sum().items()})


def _rows(frame: pd.DataFrame, selection: Selection) -> tuple[Row, ...]:
    names = [ALIASES.get(name, name) for name in selection.by]
    if not names or frame.empty:
        return ()
    for name in names:
        if name in TIMES:
            frame = frame.assign(**{name: frame["begin"] // TIMES[name] * TIMES[name]})
    measures = _measures(frame)
    grouped = frame.groupby(list(dict.fromkeys(names)), sort=False, as_index=False)[measures].sum()
    keys = zip(*(_said(name, grouped[name].tolist()) for name in names), strict=True)
    sums = grouped[measures].to_numpy().tolist()
    rows = [Row(key, dict(zip(measures, values, strict=True))) for key, values in zip(keys, sums, strict=True)]
    if set(names) & TIMES.keys():
        return tuple(sorted(rows, key=lambda row: row.key))
    return tuple(sorted(rows, key=lambda row: (-row.sums["attempts"] - row.sums.get("expired", 0), row.key)))


def _said(name: str, values: Iterable[Any]) -> list[str]:
    return [_day_or_hour(name, value) for value in values] if name in TIMES else list(map(str, values))


def _day_or_hour(name: str, value: Any) -> str:
    return datetime.fromtimestamp(int(value), UTC).strftime("%Y-%m-%d" if name == "day" else "%Y-%m-%dT%H:00Z")


# Trends.


def _trends(history: History, outside: Database | None, plain: Selection, *, now: float) -> tuple[Trend, ...]:
    trends = []
    frames: dict[int, pd.DataFrame] = {}
    for window, seconds in WINDOWS.items():
        width = _width(seconds)
        until = (int(now) // width + 1) * width
        if width not in frames:  # one question for all windows of that width
            longest = max(each for each in WINDOWS.values() if _width(each) == width)
            frames[width] = _with_complaints(history, outside, plain._replace(since=until - 2 * longest, until=until))
        frame, since = frames[width], until - seconds
        before = frame[(frame["begin"] < since) & (frame["begin"] >= since - seconds)]
        trends.append(Trend(window, _total(frame[frame["begin"] >= since]), _total(before)))
    return tuple(trends)


def _width(window: int) -> int:
    return HOUR if window == DAY else DAY


# Spikes.


def _spikes(
    history: History, outside: Database | None, plain: Selection, by_provider: pd.DataFrame
) -> tuple[Spike, ...]:
    width = HOUR if plain.table == "hourly" else DAY
    found: list[Spike] = []
    for provider, frame in by_provider.groupby("provider", sort=False):
        frame = frame[frame["attempts"] >= _SPIKE_ATTEMPTS].sort_values("begin")  # noqa: PLW2901  # those that count
        refused = (frame["deferred"] + frame["bounced"]).tolist()
        attempts, begins = frame["attempts"].tolist(), frame["begin"].tolist()
        if len(begins) < 3:
            continue
        usual = float(pd.Series([a / b for a, b in zip(refused, attempts, strict=True)]).median())
        high = [
            (begin, Rate(hits, of))
            for begin, hits, of in zip(begins, refused, attempts, strict=True)
            if wilson(Rate(hits, of)).low > max(2 * usual, usual + 0.05)
        ]
        found += [
            Spike(str(provider), some[0][0], some[-1][0] + width, _sum(rate for _, rate in some), usual, (), ())
            for some in _runs(high, width)
        ]
    found.sort(key=lambda spike: spike.refused.hits, reverse=True)
    if not found:
        return ()
    told = events(history, outside, plain.since - _BEFORE, plain.until)
    return tuple(_explained(history, plain, spike, told) for spike in found[:_SPIKES])


def _runs(high: list[tuple[int, Rate]], width: int) -> Iterable[list[tuple[int, Rate]]]:
    """Join hours that follow each other."""
    if not high:
        return []
    runs = [[high[0]]]
    for before, after in pairwise(high):
        if after[0] - before[0] <= width:
            runs[-1].append(after)
        else:
            runs.append([after])
    return runs


def _sum(some: Iterable[Rate]) -> Rate:
    listed = list(some)
    return Rate(sum(rate.hits for rate in listed), sum(rate.of for rate in listed))


def _explained(history: History, plain: Selection, spike: Spike, told: pd.DataFrame) -> Spike:
    told = told[(told["time"] >= spike.begin - _BEFORE) & (told["time"] < spike.end)]
    near = [
        (float(time), _words(kind, about, why))
        for time, kind, about, why in told.to_numpy().tolist()
        if kind != "opened" or about.endswith(f"@{spike.provider}")
    ]
    within = Selection(
        spike.begin,
        spike.end,
        ("campaign", "domain"),
        _and_provider(plain.where, spike.provider),
        plain.table == "daily",
    )
    frame = history.sums(within)
    refused = (frame["deferred"] + frame["bounced"]).groupby([frame["campaign"], frame["domain"]]).sum()
    largest = refused.sort_values(ascending=False).head(3)
    whole = max(float(refused.sum()), 1.0)
    streams = tuple((_stream(*key), float(number) / whole) for key, number in largest.items() if number)  # type: ignore[misc]  # of two names
    return spike._replace(streams=streams, events=tuple(near[-8:]))


def _and_provider(where: Expression | None, provider: str) -> Expression:
    one = Comparison("provider", FieldType.TEXT, Operator.EQUAL, provider)
    return one if where is None else AllOf((where, one))


def _stream(campaign: str, domain: str) -> str:
    return f"{campaign} ({domain})" if campaign and campaign != OTHER else domain


def _words(kind: str, about: str, why: str) -> str:
    match kind:
        case "opened":
            return f"sub-queue opened: {about}"
        case "listed":
            return f"listed: {about} on {why}"
        case _:
            return f"Postfix: {why}"


# Side by side.


def compare(report: Report, one: str, other: str) -> tuple[Difference, ...]:
    """Set two values of the first dimension side by side. Raises KeyError with the value that has no mail."""
    found = {}
    for value in (one, other):
        some = [row.sums for row in report.rows if row.key[0] == value]
        if not some:
            raise KeyError(value)
        found[value] = rates({name: sum(each.get(name, 0) for each in some) for name in some[0]})
    return tuple(
        Difference(name, rate, found[other][name], newcombe(rate, found[other][name]), differ(rate, found[other][name]))
        for name, rate in found[one].items()
    )


def cohorts(history: History, selection: Selection, dimension: str) -> pd.DataFrame:
    """Give acceptance by the day on which a value of a dimension first had mail (rows) and by days since (columns).

    What had mail on the first day may be older: its row is marked with "<=". Raises StoreError.
    """
    frame = history.sums(selection._replace(by=(dimension,)))
    name = ALIASES.get(dimension, dimension)
    frame = frame[~frame[name].isin(["", OTHER])]
    frame = frame.assign(day=frame["begin"] // DAY * DAY)
    frame["first"] = frame.groupby(name)["day"].transform("min")
    frame["age"] = (frame["day"] - frame["first"]) // DAY
    frame["final"] = frame["sent"] + frame["bounced"] + frame["expired"]
    if frame.empty:
        return pd.DataFrame()
    sent, final = (
        frame.pivot_table(index="first", columns="age", values=name, aggfunc="sum") for name in ("sent", "final")
    )
    share = sent / final.where(final > 0)
    sizes = frame.groupby("first")[name].nunique()
    begin = selection.since // DAY * DAY
    share.index = pd.Index(
        [f"{'<= ' if first == begin else ''}{_day_or_hour('day', first)} ({sizes[first]})" for first in share.index],
        name=f"{name} first seen",
    )
    return share


def warm_up(history: History, selection: Selection) -> pd.DataFrame:
    """Give each transport's days: how much it delivered, how much more than the day before, and at what price."""
    frame = history.sums(selection._replace(by=("transport",)))
    frame = frame.assign(day=frame["begin"] // DAY * DAY)
    days = frame.groupby(["transport", "day"], as_index=False)[_measures(frame)].sum()
    days["number"] = days.groupby("transport").cumcount() + 1
    days["growth"] = days["sent"] / days.groupby("transport")["sent"].shift()
    final = days["sent"] + days["bounced"] + days["expired"]
    days["acceptance"] = days["sent"] / final.where(final > 0)
    days["deferrals"] = days["deferred"] / days["attempts"].where(days["attempts"] > 0)
    days["day"] = _said("day", days["day"])
    return days[["transport", "day", "number", "attempts", "sent", "growth", "acceptance", "deferrals"]]
