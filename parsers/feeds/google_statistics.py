"""Google Postmaster v2's figures: which are asked for in which request, and what the entries of an answer say.

Knows that a day that is not there is no zero, and that a ratio above 1 is another unit than ours.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from parsers.feeds.http_failure import Failure
from parsers.observation import Observation, Outcome

FEED = "google-postmaster"
PAGE_SIZE = 200
"""The most that Google gives; without it a page has 10."""


class Kind(StrEnum):
    RATIO = "ratio"
    COUNT = "count"
    NAMES = "names"


class Metric(NamedTuple):
    measure: str
    standard: str
    """Google's StandardMetric."""
    filter: str = ""
    kind: Kind = Kind.RATIO


class Group(NamedTuple):
    """Figures that are asked for together: one bad filter fails all of them, so that they are of one sort."""

    metrics: tuple[Metric, ...]


def _errors(kind: str, reasons: Sequence[str]) -> tuple[Metric, ...]:
    return tuple(
        Metric(
            f"delivery-error.{kind}.{reason}",
            "DELIVERY_ERROR_RATE",
            f'error_type = "{kind}" AND error_reason = "{reason}"',
        )
        for reason in reasons
    )


def _by_type(measure: str, standard: str, kind: Kind = Kind.RATIO) -> tuple[Metric, ...]:
    types = tuple(Metric(f"{measure}.{each}", standard, f'error_type = "{each}"', kind) for each in _ERROR_TYPES)
    return (Metric(measure, standard, kind=kind), *types)


_ERROR_TYPES = ("reject", "temp_fail")
_REJECTED = (
    *("bad_attachment", "bad_or_missing_ptr_record", "ip_in_rbls", "low_domain_reputation", "low_ip_reputation"),
    *("spammy_content", "stamp_policy_error", "other"),
)
_DIRECTIONS = ("inbound", "outbound")

GROUPS = (
    Group((Metric("spam", "SPAM_RATE"),)),
    Group(
        tuple(Metric(f"auth-success.{k}", "AUTH_SUCCESS_RATE", f'auth_type = "{k}"') for k in ("spf", "dkim", "dmarc"))
    ),
    Group(tuple(Metric(f"tls.{d}", "TLS_ENCRYPTION_RATE", f'traffic_direction = "{d}"') for d in _DIRECTIONS)),
    Group(_by_type("delivery-error", "DELIVERY_ERROR_RATE")),
    Group((*_errors("reject", _REJECTED), *_errors("temp_fail", ("anomalous_traffic_pattern", "other")))),
    Group(
        (
            *_by_type("delivery-errors", "DELIVERY_ERROR_COUNT", Kind.COUNT),
            *(
                Metric(f"tls-messages.{d}", "TLS_ENCRYPTION_MESSAGE_COUNT", f'traffic_direction = "{d}"', Kind.COUNT)
                for d in _DIRECTIONS
            ),
        )
    ),
    Group((Metric("fbl-ids", "FEEDBACK_LOOP_ID", kind=Kind.NAMES),)),
)
_TELL_THE_DAY = frozenset({"spam", "auth-success.spf", "auth-success.dkim", "auth-success.dmarc"})
"""Figures that any day with enough mail has."""


def loops(names: Sequence[str]) -> Group:
    """The spam rates of feedback loops."""
    return Group(
        tuple(
            Metric(f"fbl-spam.{name}", "FEEDBACK_LOOP_SPAM_RATE", f'feedback_loop_id = "{_quoted(name)}"')
            for name in names
        )
    )


def _quoted(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')


class Query(NamedTuple):
    domain: str
    group: Group


class Window(NamedTuple):
    """Days that are asked about, both included."""

    first: date
    last: date

    @classmethod
    def before(cls, now: float, days: int) -> "Window":
        """The last `days` whole days, UTC."""
        today = datetime.fromtimestamp(now, UTC).date()
        return cls(today - timedelta(days=days), today - timedelta(days=1))

    def days(self) -> list[date]:
        return [self.first + timedelta(days=number) for number in range((self.last - self.first).days + 1)]


def body(query: Query, window: Window, *, listed: bool = False, page: str = "") -> dict[str, Any]:
    """A QueryDomainStatsRequest; `listed`: the days one by one, which Google takes where it refuses a range."""
    if listed:
        days: dict[str, Any] = {"dateList": {"dates": [_date(day) for day in window.days()]}}
    else:
        dates = {"start": _date(window.first), "end": _date(window.last)}
        days = {"dateRanges": {"dateRanges": [dates]}}
    return {
        "metricDefinitions": [_definition(number, metric) for number, metric in enumerate(query.group.metrics)],
        "timeQuery": days,
        "aggregationGranularity": "DAILY",
        "pageSize": PAGE_SIZE,
        **({"pageToken": page} if page else {}),
    }


def _date(day: date) -> dict[str, int]:
    return {"year": day.year, "month": day.month, "day": day.day}


def _definition(number: int, metric: Metric) -> dict[str, Any]:
    what = {"name": f"m{number}", "baseMetric": {"standardMetric": metric.standard}}
    return {**what, "filter": metric.filter} if metric.filter else what


class Value(NamedTuple):
    number: float | None
    """None where the entry says none that we understand."""
    text: str = ""
    names: tuple[str, ...] = ()


class Told(NamedTuple):
    """What was told of one query."""

    days: Mapping[str, Mapping[date, Value]]
    """Of each measure."""
    wrong: Failure | None = None
    """Why something may be missing; None where the answer is complete."""


def observations(query: Query, told: Told, window: Window) -> Iterator[Observation]:
    """Yield each figure of each day, oldest first; and for what is not there whether it is known to be missing."""
    for metric in query.group.metrics:
        days = told.days.get(metric.measure, {})
        for day in sorted(days):
            value = days[day]
            outcome = Outcome.UNKNOWN if value.number is None else Outcome.OK
            yield Observation(FEED, query.domain, metric.measure, outcome, value.number, value.text, begin(day))
        if told.wrong:
            yield Observation(FEED, query.domain, metric.measure, Outcome.UNKNOWN, text=told.wrong.why)
        elif not days:
            why = f"no day since {window.first}: too little mail to Gmail, or not yet published"
            yield Observation(FEED, query.domain, metric.measure, Outcome.NO_DATA, text=why)


def data_age(domain: str, told: Mapping[Query, Told], window: Window, *, now: float) -> Observation:
    """How old the newest day is that Google tells anything about, in seconds since its begin."""
    basic = {query: each for query, each in told.items() if _TELL_THE_DAY & {m.measure for m in query.group.metrics}}
    if wrong := next((each.wrong for each in basic.values() if each.wrong), None):
        return Observation(FEED, domain, "data-age", Outcome.UNKNOWN, text=wrong.why)
    known = {day for each in basic.values() for days in each.days.values() for day in days}
    if not known:
        return Observation(FEED, domain, "data-age", Outcome.NO_DATA, text=f"no day since {window.first}")
    newest = max(known)
    return Observation(
        FEED, domain, "data-age", Outcome.OK, now - begin(newest), f"newest day: {newest}", begin(newest)
    )


def loop_names(told: Told) -> list[str]:
    """Feedback loops that Google names, those of the newest day first."""
    days = told.days.get("fbl-ids", {})
    return list(dict.fromkeys(name for day in sorted(days, reverse=True) for name in days[day].names))


def begin(day: date) -> float:
    """Of a day, UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def values(query: Query, entries: Sequence[Any], window: Window) -> dict[str, dict[date, Value]]:
    """Measure -> day -> value, of the entries of all pages. What an entry contradicts, or what is of no day that we asked for, is no value."""
    found: defaultdict[str, dict[date, Value]] = defaultdict(dict)
    metrics = {f"m{number}": metric for number, metric in enumerate(query.group.metrics)}
    for entry in entries:
        metric = metrics.get(str(entry.get("metric"))) if isinstance(entry, dict) else None
        if metric is None:
            continue
        day = _day(entry.get("date"))
        value = _value(metric.kind, entry.get("value"))
        if day is None or not window.first <= day <= window.last:
            day, value = window.last, Value(None, f"a day that was not asked for: {_said(entry.get('date'))}")
        before = found[metric.measure].setdefault(day, value)
        if before != value:
            found[metric.measure][day] = Value(None, "two values of one day")
    return found


def _day(told: Any) -> date | None:
    try:
        return date(told["year"], told["month"], told["day"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _value(kind: Kind, told: Any) -> Value:
    if kind is Kind.NAMES:
        names = _names(told)
        if names is None:
            return Value(None, f"not a list of names: {_said(told)}")
        return Value(float(len(names)), ", ".join(names)[:300], names)
    number = _number(told)
    if number is None:
        return Value(None, f"not a number: {_said(told)}")
    if kind is Kind.RATIO and number > 1:
        return Value(None, f"not a ratio of 0 to 1: {number:g}; has its unit changed?")
    return Value(number)


def _number(told: Any) -> float | None:
    """A number of 0 or more, in whichever field it comes; an int64 is a string in proto's JSON."""
    if not isinstance(told, dict):
        return None
    for name in ("doubleValue", "floatValue", "intValue"):
        value = told.get(name)
        if isinstance(value, bool) or value is None or not isinstance(value, int | float | str):
            continue
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) and number >= 0 else None
    return None


def _names(told: Any) -> tuple[str, ...] | None:
    """An empty list comes as {}, for proto's JSON leaves out what is empty."""
    listed = told.get("stringList") if isinstance(told, dict) else None
    names = listed.get("values", []) if isinstance(listed, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(dict.fromkeys(name for name in names if name and name.isprintable() and len(name) <= 100))


def _said(told: Any) -> str:
    return json.dumps(told)[:100]
