"""Figures of report mail for conditions: complaints and opt-outs over deliveries, DMARC and TLS failures.

The only SQL that looks at reports so. What nobody trusted wrote counts for nothing.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple

from parsers.observation import Outcome
from policies import reported
from policies.figures import Figure
from policies.reported import Sent, Sessions, by_object
from policies.windows import DAY, Object
from sidecar.incident_store import IncidentStore
from sidecar.log_tally import LogTally

MONTH: Final = 30 * DAY
BEFORE: Final = 8 * DAY
"""Seconds back in which lies what is usual for complaints; today is left out."""
REPORTED: Final = 3 * DAY
"""Seconds back in which reports end that are looked at: they come a day late, some two."""
LATENCIES_MAX: Final = 20_000
"""Unsubscriptions of a day that are looked at, the newest."""
DOMAINS_MAX: Final = 500
"""Of metrics."""
MEASURES: Final = {"complaints.24h": ("complaint", "complaint"), "opt-outs.24h": ("opt-out", "unsubscribe")}
"""Measure -> the kind of events that it counts, as report mail and as other programs of the site name it."""


class Reported(NamedTuple):
    """Sums of the reports of the last days, of the busiest domains."""

    dmarc: list[tuple[str, int, int]]
    """Messages: (domain, passed, failed)."""
    aligned: list[tuple[str, int, int]]
    """Messages: (domain, passed by an aligned DKIM signature, by an aligned SPF)."""
    tls: list[tuple[str, int, int]]
    """Sessions: (domain, well, failed)."""


class ReportFigures:
    def __init__(self, store: IncidentStore, tally: LogTally) -> None:
        self._store = store
        self._tally = tally
        self._newest: dict[str, int] = {}
        """Table -> the newest report that was looked at."""

    def answers(self, watched: Collection[Object], *, now: float) -> Iterator[Figure]:
        """Give complaints and opt-outs of the last day over what was delivered.

        While the sources cannot be read nobody knows how many there are. Raises StoreError.
        """
        with self._store.lock:
            troubled = self._store.polls.standing(reported.FEED).trouble is not None
        outcome = Outcome.UNKNOWN if troubled else Outcome.OK
        delivered = self._tally.busiest_day(now=now)
        sent = self._tally.sent(since=now - BEFORE, until=now - DAY)
        for measure, (reported_as, told_as) in MEASURES.items():
            counted = self._counted(reported_as, told_as, now - DAY, now)
            before = self._counted(reported_as, told_as, now - BEFORE, now - DAY)
            usual = {object_: before.get(object_, 0) / number for object_, number in sent.items() if number}
            yield from reported.per_delivered(measure, counted, delivered, usual, watched, outcome=outcome, now=now)

        yield from reported.latencies(self._latencies(now=now), watched, now=now)

    def _counted(self, reported_as: str, told_as: str, since: float, until: float) -> dict[Object, int]:
        rows = self._rows(_EVENTS, since, until, reported_as)
        if self._is_told():
            rows += self._rows(_TOLD, since, until, told_as, reported_as)
        return by_object((domain, provider, int(number)) for domain, provider, number in rows)

    def _latencies(self, *, now: float) -> dict[str, list[float]]:
        """How long after they happened we heard of unsubscriptions, by sending domain."""
        found: dict[str, list[float]] = {}
        for domain, seconds in self._rows(_LATENCIES, now - DAY, LATENCIES_MAX) if self._is_told() else ():
            found.setdefault(domain, []).append(seconds)
        return found

    def _is_told(self) -> bool:
        """Whether other programs may tell of events here."""
        return bool(self._rows("SELECT 1 FROM sqlite_schema WHERE name = 'ingest_event'"))

    def dmarc(self, addresses: Callable[[], Sequence[str]], *, now: float) -> Iterator[Figure]:
        """Give each domain's failures, when a report came since the last look. Raises StoreError.

        Ours are `addresses`, and those from which most mail of the domain passed in the month before: what lies
        behind NAT, or sends for us elsewhere, nobody names.
        """
        if not self._news("dmarc_report"):
            return
        named = addresses()
        for domain, at, stamp in self._rows(_DMARC_DOMAINS, now - REPORTED):
            rows = [Sent(*row) for row in self._rows(_DMARC, domain, now - REPORTED, 1e18)]
            before = [Sent(*row) for row in self._rows(_DMARC, domain, now - MONTH, now - REPORTED)]
            passing = {
                row.source_ip for row in before if row.messages - row.failed >= reported.OWN_SHARE * row.messages
            }
            yield from reported.dmarc(domain, rows, {*named, *passing}, stamp=stamp, at=at)

    def tls(self, *, now: float) -> Iterator[Figure]:
        """Give each domain's failed TLS sessions, when a report came since the last look. Raises StoreError."""
        if not self._news("tls_report"):
            return
        for domain, at, stamp in self._rows(_TLS_DOMAINS, now - REPORTED):
            rows = [Sessions(*row) for row in self._rows(_TLS, domain, now - REPORTED)]
            types = [str(name) for (name,) in self._rows(_TLS_TYPES, domain, now - REPORTED)]
            yield from reported.tls(domain, rows, types, stamp=stamp, at=at)

    def totals(self, *, now: float) -> Reported:
        """Sum up what metrics show. Raises StoreError."""
        since = now - REPORTED
        return Reported(*([tuple(row) for row in self._rows(query, since, DOMAINS_MAX)] for query in _TOTALS))

    def _news(self, table: str) -> bool:
        newest = self._rows(_NEWEST[table])[0][0]
        if newest <= self._newest.get(table, 0):
            return False
        self._newest[table] = newest
        return True

    def _rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self._store.lock:
            return self._store.database.rows(query, parameters)


_EVENTS = """
    SELECT sending_domain, provider, sum(max(incidents, 1)) FROM report_event
    WHERE time >= ? AND time < ? AND kind = ? AND trusted GROUP BY sending_domain, provider
"""
# What report mail tells as well counts once.
_TOLD = """
    SELECT sending_domain, '', count(*) FROM ingest_event AS told
    WHERE time >= ? AND time < ? AND kind = ? AND NOT EXISTS (
        SELECT 1 FROM report_event WHERE report_event.recipient = told.recipient AND report_event.recipient != ''
            AND report_event.kind = ? AND report_event.sending_domain = told.sending_domain AND trusted
    ) GROUP BY sending_domain
"""
_LATENCIES = """
    SELECT sending_domain, max(0.0, time - at) FROM ingest_event WHERE time >= ? AND kind = 'unsubscribe'
    ORDER BY time DESC LIMIT ?
"""
_NEWEST = {
    "dmarc_report": "SELECT coalesce(max(id), 0) FROM dmarc_report",
    "tls_report": "SELECT coalesce(max(id), 0) FROM tls_report",
}
_DMARC_DOMAINS = "SELECT domain, max(end), max(time) FROM dmarc_report WHERE trusted AND end >= ? GROUP BY domain"
_DMARC = """
    SELECT source_ip, sum(messages), sum(iif(dkim != 'pass' AND spf != 'pass', messages, 0)),
        sum(iif(dkim != 'pass', messages, 0)),
        sum(iif(dkim != 'pass' AND spf != 'pass' AND disposition NOT IN ('quarantine', 'reject'), messages, 0))
    FROM dmarc_report JOIN dmarc_row ON dmarc_row.report = dmarc_report.id
    WHERE domain = ? AND end >= ? AND end < ? AND trusted GROUP BY source_ip
"""
_TLS_DOMAINS = """
    SELECT domain, max(end), max(time) FROM tls_report JOIN tls_row ON tls_row.report = tls_report.id
    WHERE trusted AND end >= ? GROUP BY domain
"""
_TLS = """
    SELECT organization, sum(successes), sum(failures) FROM tls_report JOIN tls_row ON tls_row.report = tls_report.id
    WHERE trusted AND domain = ? AND end >= ? AND result_type = '' GROUP BY organization
"""
_TLS_TYPES = """
    SELECT result_type FROM tls_report JOIN tls_row ON tls_row.report = tls_report.id
    WHERE trusted AND domain = ? AND end >= ? AND result_type != '' GROUP BY result_type ORDER BY sum(failures) DESC
"""
_TOTALS = (
    """
    SELECT domain, sum(iif(dkim = 'pass' OR spf = 'pass', messages, 0)),
        sum(iif(dkim = 'pass' OR spf = 'pass', 0, messages))
    FROM dmarc_report JOIN dmarc_row ON dmarc_row.report = dmarc_report.id
    WHERE trusted AND end >= ? GROUP BY domain ORDER BY sum(messages) DESC LIMIT ?
    """,
    """
    SELECT domain, sum(iif(dkim = 'pass', messages, 0)), sum(iif(spf = 'pass', messages, 0))
    FROM dmarc_report JOIN dmarc_row ON dmarc_row.report = dmarc_report.id
    WHERE trusted AND end >= ? GROUP BY domain ORDER BY sum(messages) DESC LIMIT ?
    """,
    """
    SELECT domain, sum(successes), sum(failures) FROM tls_report JOIN tls_row ON tls_row.report = tls_report.id
    WHERE trusted AND end >= ? AND result_type = '' GROUP BY domain ORDER BY sum(successes + failures) DESC LIMIT ?
    """,
)
