"""What the feeds told last, as series for Prometheus: a table of measures, the name and the labels of each.

Knows what stays bounded: of each metric so many series, the worst first; a value that is too old is no longer shown,
for a line that goes on for ever says that all is as it was.
"""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from parsers.feeds import google_postmaster, google_postmaster_v1, own_authentication, senderscore, snds
from parsers.observation import Observation, Outcome

SERIES_MAX: Final = 1_000
"""Of one metric: a few hundred addresses and domains with what matters most."""
STALE: Final = 3 * 86_400.0
"""Seconds since it was told after which a value is not shown any more."""
STALE_DAY: Final = 8 * 86_400.0
"""Seconds since the day that a daily value describes: Google is late by days."""

Key = tuple[str, str, str]
"""(feed, object, measure)"""


class Shown(NamedTuple):
    """One metric."""

    name: str
    help: str
    feed: str
    """With * at its end, all that begin so."""
    measure: str
    """An expression; its groups are labels."""
    object: str
    """Label of what it is about."""
    worst: Callable[[float], float]
    """Greater is worse: what is shown where there are too many."""
    states: tuple[str, ...] = ()
    """Names of the values 0, 1, ...: one series each, 1 for the one that holds."""


def _up(value: float) -> float:
    return value


def _down(value: float) -> float:
    return -value


_GOOGLE: Final = google_postmaster.FEED
SHOWN: Final = (
    Shown("sidecar_blocklist_listed", "1 while a list lists the address or domain", "dnsbl*", r"listed\.(?P<list>.+)",
         "object", _up),
    Shown("sidecar_blocklist_zone_healthy", "1 while a list can be believed", "dnsbl*", "zone-healthy", "list", _down),
    Shown("sidecar_requirement_ok", "1 where our own look-ups find a requirement of receivers met",
         own_authentication.FEED, r"requirement\.(?P<requirement>.+)", "object", _down),
    Shown("sidecar_senderscore", "Sender Score of an address, 0 to 100", senderscore.FEED, "score", "ip", _down),
    Shown("sidecar_gmail_spam_ratio", "Share of a domain's mail that Gmail's users call spam", _GOOGLE, "spam",
         "domain", _up),
    Shown("sidecar_gmail_auth_success_ratio", "Share of a domain's mail at Gmail that passes", _GOOGLE,
         r"auth-success\.(?P<auth_type>.+)", "domain", _down),
    Shown("sidecar_gmail_tls_ratio", "Share of a domain's mail with Gmail that is encrypted", _GOOGLE,
         r"tls\.(?P<direction>.+)", "domain", _down),
    Shown("sidecar_gmail_delivery_error_ratio", "Share of a domain's mail that Gmail refuses", _GOOGLE,
         r"delivery-error\.(?P<error_type>reject|temp_fail)\.(?P<error_reason>.+)", "domain", _up),
    Shown("sidecar_gmail_compliance_ok", "1 where Google finds a requirement met", _GOOGLE,
         r"compliance\.(?P<requirement>.+)", "domain", _down),
    Shown("sidecar_gmail_reputation", "Reputation of a domain at Gmail, 3 high to 0 bad", google_postmaster_v1.FEED,
         "domain-reputation", "domain", _down),
    Shown("sidecar_snds_filter_result", "How Outlook.com's filters judge an address", snds.FEED, "filter-result", "ip",
         _up, ("green", "yellow", "red")),
    Shown("sidecar_snds_complaint_ratio", "Share of an address's mail that Outlook.com's users call spam", snds.FEED,
         "complaints", "ip", _up),
    Shown("sidecar_snds_trap_hits", "Spam traps of Outlook.com that an address hit in a day", snds.FEED, "trap-hits",
         "ip", _up),
    Shown("sidecar_snds_blocked", "1 while Outlook.com blocks an address", snds.FEED, "blocked", "ip", _up),
)  # fmt: skip
"""A feed's measure that is not here is no series; `sidecar feeds` and the store have it."""


class _Told(NamedTuple):
    value: float
    told_at: float
    at: float
    """The begin of the day that it describes; 0 where it describes the moment."""


class FeedSeries(Collector):
    """Hands what was told last to prometheus_client."""

    def __init__(self, *, clock: Callable[[], float] = time.time, most: int = SERIES_MAX) -> None:
        self._clock = clock
        self._most = most
        self._told: dict[Key, _Told] = {}
        self._days: dict[str, float] = {}
        self._moments: dict[str, float] = {}

    def told(self, seen: Iterable[Observation], *, told_at: float) -> None:
        """Take in what a poll told; of the days of one measure the newest counts."""
        for each in seen:
            if each.outcome is not Outcome.OK or each.value is None:
                continue
            self._describes(each, told_at)
            known = self._told.get(each[:3])
            if known is None or each.at >= known.at:
                self._told[each[:3]] = _Told(each.value, told_at, each.at)

    def _describes(self, seen: Observation, told_at: float) -> None:
        """Note the newest time that a feed's values describe: of one with daily values the day, which lags."""
        if seen.at:
            self._days[seen.feed] = max(self._days.get(seen.feed, 0.0), seen.at)
        self._moments[seen.feed] = max(self._moments.get(seen.feed, 0.0), told_at)

    def collect(self) -> Iterator[Metric]:
        self._forget()
        by_row: defaultdict[str, list[tuple[Mapping[str, str], float, Shown]]] = defaultdict(list)
        for (feed, object_, measure), told in self._told.items():
            for shown in SHOWN:
                found = re.fullmatch(shown.measure, measure) if _fits(shown.feed, feed) else None
                if found is not None:
                    labels = {shown.object: object_, **found.groupdict()}
                    by_row[shown.name].append((labels, told.value, shown))
        left_out = GaugeMetricFamily(
            "sidecar_feed_series_left_out", "Series that are not shown, for there are too many", labels=["metric"]
        )
        for name, rows in by_row.items():
            rows.sort(key=lambda row: (-row[2].worst(row[1]), *row[0].values()))
            yield _family(rows[: self._most])
            left_out.add_metric([name], max(0, len(rows) - self._most))
        yield left_out
        data = GaugeMetricFamily(
            "sidecar_feed_data_timestamp_seconds", "The newest time that a feed's values describe", labels=["feed"]
        )
        for feed, at in {**self._moments, **self._days}.items():
            data.add_metric([feed], at)
        yield data

    def _forget(self) -> None:
        now = self._clock()
        old = [
            key
            for key, told in self._told.items()
            if now - told.told_at > STALE or (told.at and now - told.at > STALE_DAY)
        ]
        for key in old:
            del self._told[key]


def _family(rows: list[tuple[Mapping[str, str], float, Shown]]) -> Metric:
    labels, _, shown = rows[0]
    names = [*labels, *(["result"] if shown.states else [])]
    family = GaugeMetricFamily(shown.name, shown.help, labels=names)
    for each, value, _ in rows:
        # What a stranger's zone is called must still be UTF-8 for Prometheus.
        values = [text.encode(errors="backslashreplace").decode() for text in each.values()]
        if not shown.states:
            family.add_metric(values, value)
        for number, state in enumerate(shown.states):
            family.add_metric([*values, state], float(value == number))
    return family


def _fits(pattern: str, feed: str) -> bool:
    return feed.startswith(pattern[:-1]) if pattern.endswith("*") else feed == pattern
