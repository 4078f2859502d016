"""Report mail of every kind, one file a case: what a mail says, whom it is from, and why it is refused."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from parsers.reports.dmarc import Aggregate
from parsers.reports.tls_rpt import TlsReport
from sidecar import rules
from sidecar.config import RecipientForm, ReportMailConfig
from sidecar.report_intake import Intake, Read

CASES = sorted((Path(__file__).parent / "reports").glob("*.toml"))
NOW = 1_795_086_000.0
SETTINGS = ReportMailConfig(
    authserv_ids=("MX.example.com",),
    reporters=("fbl.comcast.example",),
    own_headers=("X-Mailing", "X-Campaign-ID"),
    recipients=RecipientForm.ADDRESS,
)


@pytest.fixture(name="intake", scope="module")
def _intake() -> Intake:
    return Intake(SETTINGS, rules.load())


def told(read: Read) -> dict[str, Any]:
    """In the form of the files."""
    return {
        **{name: getattr(read.mail, name) for name in ("kind", "reporter", "trusted", "why")},
        "event": [event._asdict() for event in read.events],
        "dmarc": [
            {
                **report._asdict(),
                "domain": report.policy.domain,
                "rows": [[row.source_ip, row.messages, row.disposition, row.dkim, row.spf] for row in report.rows],
            }
            for report in read.reports
            if isinstance(report, Aggregate)
        ],
        "tls": [
            {
                **report._asdict(),
                "rows": [
                    [each.domain, each.type, each.successes, each.failures]
                    + [value for fail in each.details for value in (fail.result_type, fail.sessions)]
                    for each in report.policies
                ],
            }
            for report in read.reports
            if isinstance(report, TlsReport)
        ],
    }


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_a_mail_says_what_it_should(intake: Intake, file: Path, line_end: str) -> None:
    case = tomllib.loads(file.read_text())
    mail = case.pop("mail").replace("\n", line_end).encode()
    found = told(intake.read(mail, source="test", now=NOW))

    wanted = {"why": "", **case}
    for kind in ("event", "dmarc", "tls"):
        rows = wanted.pop(kind, [])
        seen = found.pop(kind)
        assert [{name: each.get(name) for name in row} for row, each in zip(rows, seen, strict=True)] == rows
    assert {name: found[name] for name in wanted} == wanted
