"""The part of the outside store that report mail fills: events, DMARC and TLS rows, and which mails were read.

The only SQL about it. One mail is one transaction; a report that was known already changes nothing, unless now it is
trusted and was not before.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple

from parsers.reports.dmarc import Aggregate, Row
from parsers.reports.tls_rpt import TlsReport
from sidecar.database import Database
from sidecar.ingest_store import hand_over

REPORT_SECONDS = 400 * 86_400.0
"""How long DMARC and TLS rows stay; they name nobody."""
UNTRUSTED_ROWS = 1_000
"""Rows kept of a report that nobody vouches for: strangers must not fill the disk."""
UNTRUSTED_SECONDS = 30 * 86_400.0


class MailRow(NamedTuple):
    """As the table report_mail."""

    digest: str
    time: float
    source: str
    kind: str
    reporter: str
    trusted: bool
    why: str


class EventRow(NamedTuple):
    """As the table report_event."""

    key: str
    time: float
    at: float
    source: str
    kind: str
    type: str
    trusted: bool
    reporter: str
    provider: str
    recipient: str
    recipient_domain: str
    sending_domain: str
    source_ip: str
    reporting_mta: str
    found_by: str
    own_id: str
    feedback_id: str
    message_id: str
    queue_id: str
    incidents: int
    status: str = ""
    reply: str = ""
    rule: str = ""
    category: str = ""
    detail: str = ""
    bounce: str = ""


class Added(NamedTuple):
    """What of a mail was new."""

    events: int = 0
    reports: int = 0
    rows: int = 0


class ReportStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def is_known(self, digest: str) -> bool:
        return bool(self._database.rows("SELECT 1 FROM report_mail WHERE digest = ?", (digest,)))

    def add(
        self,
        mail: MailRow,
        events: Iterable[EventRow] = (),
        reports: Iterable[Aggregate | TlsReport] = (),
        for_core: Iterable[str] = (),
    ) -> Added:
        """Write down one mail and all it says, and what core has to hear of it.

        Raises StoreUnavailable, and nothing is written; StoreDamaged.
        """
        prepared = [_prepare(report, mail) for report in reports]  # before others are kept waiting
        with self._database.transaction():
            execute = self._database.connection.execute
            if not execute(_ADD_MAIL, mail).rowcount:
                return Added()
            new = sum(execute(_ADD_EVENT, event).rowcount for event in events)
            added = [self._add_report(each, trusted=mail.trusted) for each in prepared]
            hand_over(self._database, for_core)
        return Added(new, sum(rows is not None for rows in added), sum(filter(None, added)))

    def _add_report(self, report: "_Prepared", *, trusted: bool) -> int | None:
        """How many rows; None where the report is known."""
        if not self._make_room(report.kind, report.key, trusted=trusted):
            return None
        sql = _SQL[report.kind]
        number = self._database.connection.execute(sql.add, report.values).lastrowid
        self._database.connection.executemany(sql.add_row, ((number, i, *row) for i, row in enumerate(report.rows)))
        return len(report.rows)

    def _make_room(self, kind: str, key: tuple[object, ...], *, trusted: bool) -> bool:
        """Whether to write the report: it is new, or takes the place of one that anybody may have forged."""
        execute = self._database.connection.execute
        known = execute(_SQL[kind].find, key).fetchone()
        if known is None:
            return True
        number, was_trusted = known
        if was_trusted or not trusted:
            return False
        for statement in _SQL[kind].delete:
            execute(statement, (number,))
        return True

    def prune(self, *, now: float, event_seconds: float) -> int:
        """Delete what is too old; how many rows. Raises StoreUnavailable."""
        old, forged = now - REPORT_SECONDS, now - UNTRUSTED_SECONDS
        # What is forgotten of report_mail and still in a mailbox would be read again: it stays longest.
        aged = ((_PRUNE_EVENTS, (now - event_seconds,)), *((each, (old, forged)) for each in _PRUNE_REPORTS))
        with self._database.transaction():
            execute = self._database.connection.execute
            return sum(execute(*each).rowcount for each in (*aged, (_PRUNE_MAILS, (old,))))


class _Prepared(NamedTuple):
    """A report as it goes into its tables."""

    kind: str
    key: tuple[object, ...]
    values: tuple[object, ...]
    rows: list[tuple[object, ...]]


def _prepare(report: Aggregate | TlsReport, mail: MailRow) -> _Prepared:
    vouched = (mail.time, mail.trusted, mail.reporter)
    key: tuple[object, ...]
    if isinstance(report, Aggregate):
        key = (report.organization, report.report_id, report.policy.domain, report.begin)
        policy = _json({name: said for name, said in report.policy._asdict().items() if said})
        values = (*key, report.end, report.rfc, policy, *vouched, report.unreadable)
        rows = report.rows if mail.trusted else report.rows[:UNTRUSTED_ROWS]
        return _Prepared("dmarc", key, values, [_dmarc_row(row) for row in rows])
    key = (report.organization, report.report_id, report.begin)
    made = _tls_rows(report)
    return _Prepared("tls", key, (*key, report.end, *vouched), made if mail.trusted else made[:UNTRUSTED_ROWS])


def _dmarc_row(row: Row) -> tuple[object, ...]:
    results = _json({"dkim": row.dkim_results, "spf": row.spf_results})
    about = (row.source_ip, row.messages, row.disposition, row.dkim, row.spf, row.header_from, row.envelope_from)
    return (*about, results, _json(row.reasons))


def _tls_rows(report: TlsReport) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for each in report.policies:
        rows.append((each.domain, each.type, "", each.successes, each.failures, "", "", "", ""))
        rows += [
            (each.domain, each.type, fail.result_type, 0, fail.sessions, fail.receiving_mx, fail.receiving_ip,
             fail.sending_ip, fail.reason)
            for fail in each.details
        ]  # fmt: skip
    return rows


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _places(row: type[MailRow | EventRow]) -> str:
    return f"({', '.join(row._fields)}) VALUES ({', '.join('?' * len(row._fields))})"


_PRUNE_EVENTS = "DELETE FROM report_event WHERE time < ?"
_PRUNE_MAILS = "DELETE FROM report_mail WHERE time < ?"
_PRUNE_REPORTS = (
    "DELETE FROM dmarc_row WHERE report IN (SELECT id FROM dmarc_report WHERE time < ? OR (NOT trusted AND time < ?))",
    "DELETE FROM dmarc_report WHERE time < ? OR (NOT trusted AND time < ?)",
    "DELETE FROM tls_row WHERE report IN (SELECT id FROM tls_report WHERE time < ? OR (NOT trusted AND time < ?))",
    "DELETE FROM tls_report WHERE time < ? OR (NOT trusted AND time < ?)",
)
_ADD_MAIL = f"INSERT OR IGNORE INTO report_mail {_places(MailRow)}"
_ADD_EVENT = f"""
    INSERT INTO report_event {_places(EventRow)}
    ON CONFLICT (key) DO UPDATE SET
        trusted = excluded.trusted, reporter = excluded.reporter, provider = excluded.provider,
        time = excluded.time, source = excluded.source
    WHERE excluded.trusted > trusted
"""


class _Sql(NamedTuple):
    find: str
    add: str
    add_row: str
    delete: tuple[str, ...]


_SQL = {
    "dmarc": _Sql(
        "SELECT id, trusted FROM dmarc_report WHERE organization = ? AND report_id = ? AND domain = ? AND begin = ?",
        "INSERT INTO dmarc_report (organization, report_id, domain, begin, end, rfc, policy, time, trusted, reporter,"
        " unreadable) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "INSERT INTO dmarc_row VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ("DELETE FROM dmarc_row WHERE report = ?", "DELETE FROM dmarc_report WHERE id = ?"),
    ),
    "tls": _Sql(
        "SELECT id, trusted FROM tls_report WHERE organization = ? AND report_id = ? AND begin = ?",
        "INSERT INTO tls_report (organization, report_id, begin, end, time, trusted, reporter)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        "INSERT INTO tls_row VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ("DELETE FROM tls_row WHERE report = ?", "DELETE FROM tls_report WHERE id = ?"),
    ),
}
