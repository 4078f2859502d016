"""One report mail: which kinds of report it holds, and what they say.

Knows by what each kind is recognised. A mail that is none is no error; one that says it is, and cannot be read, is.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from parsers.reports import arf, container, dsn
from parsers.reports.arf import Complaint
from parsers.reports.container import Kind
from parsers.reports.dmarc import Aggregate, read_aggregate
from parsers.reports.dsn import NonDelivery
from parsers.reports.mime import Part
from parsers.reports.original import Tracing
from parsers.reports.refusal import ReportError
from parsers.reports.tls_rpt import TlsReport, read_tls_report

REPORTS_MAX: Final = 10
"""Reports attached to one mail that are read."""

Report = Complaint | NonDelivery | Aggregate | TlsReport


class Found(NamedTuple):
    """What a mail holds."""

    reports: tuple[Report, ...] = ()
    why: str = ""
    """Why something in it was refused, "" where nothing was."""


_NOT_ATTACHED: Final = frozenset({"text/plain", "text/html"})


def read_reports(mail: Part, tracing: Tracing) -> Found:
    """Read all reports of a mail; never raises."""
    try:
        if arf.feedback_part(mail) or arf.is_jmrp(mail):
            return Found((arf.read_complaint(mail, tracing),))
        bounce = dsn.read_non_delivery(mail, tracing)
    except ReportError as error:
        return Found((), str(error))
    if bounce is not None:
        return Found((bounce,))
    return _attached(mail)


def _attached(mail: Part) -> Found:
    reports: list[Report] = []
    refused: list[str] = []
    for part in mail.walk():
        if part.parts or part.media_type in {"message/rfc822", "message/global"}:
            continue
        try:
            reports.extend(_in_attachment(part))
        except ReportError as error:
            refused.append(str(error))
        if len(reports) + len(refused) >= REPORTS_MAX:
            break
    return Found(tuple(reports), "; ".join(refused))


def _in_attachment(part: Part) -> Iterator[Report]:
    """The report that a part holds, or none."""
    data = part.content
    declared = part.media_type
    kind = container.sniff(data)
    if kind is Kind.OTHER or (declared in _NOT_ATTACHED and kind is Kind.JSON):  # a text that begins with a brace
        if declared.startswith("application/tlsrpt") or declared in {"application/gzip", "application/zip"}:
            raise ReportError(f"{declared} that is neither zip, gzip, XML nor JSON")
        return
    if declared == "text/html":
        return
    pieces = container.unpacked(data)
    first = next(pieces, b"")
    inside = container.sniff(first)
    if inside is Kind.XML:
        yield read_aggregate(_again(first, pieces))
    elif inside is Kind.JSON:
        yield read_tls_report(_again(first, pieces))
    else:
        raise ReportError(f"a {kind} file with neither XML nor JSON in it")


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
