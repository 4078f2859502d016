"""SMTP TLS reports (RFC 8460 section 4.4): how others' TLS connections to our MX hosts fared.

Knows the deviations that are in use: a text where a list belongs, times without a zone, details left out.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from parsers.reports.refusal import ReportError

SIZE_MAX: Final = 4 << 20
"""Bytes of JSON; as Python's objects it takes many times as much memory."""
POLICIES_MAX: Final = 1_000
FAILURES_MAX: Final = 10_000
COUNT_MAX: Final = 1 << 40
TEXT_MAX: Final = 1_000

POLICY_TYPES: Final = frozenset({"sts", "tlsa", "no-policy-found"})
RESULT_TYPES: Final = frozenset(
    {
        *("starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted"),
        *("validation-failure", "tlsa-invalid", "dnssec-invalid", "dane-required", "sts-policy-fetch-error"),
        *("sts-policy-invalid", "sts-webpki-invalid"),
    }
)


class Failure(NamedTuple):
    """Sessions that failed alike; "" for what the report leaves out."""

    result_type: str
    """One of RESULT_TYPES, else "unknown"."""
    sessions: int
    receiving_mx: str
    receiving_ip: str
    sending_ip: str
    reason: str


class PolicyResult(NamedTuple):
    """What happened under one policy of one domain."""

    domain: str
    type: str
    """One of POLICY_TYPES, else "unknown"."""
    mx: tuple[str, ...]
    """Patterns of the policy."""
    successes: int
    failures: int
    """As the summary says; the details below need not add up to it."""
    details: tuple[Failure, ...]


class TlsReport(NamedTuple):
    organization: str
    report_id: str
    contact: str
    begin: float
    """Seconds since the epoch, UTC."""
    end: float
    policies: tuple[PolicyResult, ...]


def read_tls_report(pieces: Iterable[bytes]) -> TlsReport:
    """Read a report. Raises ReportError."""
    data = bytearray()
    for piece in pieces:
        data += piece
        if len(data) > SIZE_MAX:
            raise ReportError(f"a TLS report of more than {SIZE_MAX >> 20} MiB")
    try:
        value = json.loads(bytes(data).decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError) as error:
        raise ReportError(f"not valid JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict) or not isinstance(value.get("policies"), list):
        raise ReportError('JSON without "policies"; wanted a TLS report (RFC 8460)')
    return _report(value)


def _report(value: dict[str, Any]) -> TlsReport:
    organization, report_id = _text(value, "organization-name"), _text(value, "report-id")
    if not organization or not report_id:
        raise ReportError("a TLS report without its organization-name or report-id")
    span = _table(value, "date-range")
    policies = [each for each in value["policies"] if isinstance(each, dict)]
    failures = sum(len(_list(each, "failure-details")) for each in policies)
    if len(policies) > POLICIES_MAX or failures > FAILURES_MAX:
        raise ReportError(f"a TLS report of {len(policies)} policies and {failures} failures")
    begin, end = _moment(span, "start-datetime"), _moment(span, "end-datetime")
    return TlsReport(
        organization, report_id, _text(value, "contact-info"), begin, end, tuple(_policy(each) for each in policies)
    )


def _policy(value: dict[str, Any]) -> PolicyResult:
    policy, summary = _table(value, "policy"), _table(value, "summary")
    kind = _text(policy, "policy-type").lower()
    mx = policy.get("mx-host")
    hosts = [mx] if isinstance(mx, str) else _list(policy, "mx-host")
    details = (each for each in _list(value, "failure-details") if isinstance(each, dict))
    return PolicyResult(
        _text(policy, "policy-domain").lower().rstrip("."),
        kind if kind in POLICY_TYPES else "unknown",
        tuple(each.lower()[:255] for each in hosts[:100] if isinstance(each, str)),
        _count(summary, "total-successful-session-count"),
        _count(summary, "total-failure-session-count"),
        tuple(_failure(each) for each in details),
    )


def _failure(value: dict[str, Any]) -> Failure:
    result = _text(value, "result-type").lower()
    return Failure(
        result if result in RESULT_TYPES else "unknown",
        _count(value, "failed-session-count"),
        _text(value, "receiving-mx-hostname").lower().rstrip("."),
        _text(value, "receiving-ip"),
        _text(value, "sending-mta-ip"),
        _text(value, "failure-reason-code"),
    )


def _text(value: dict[str, Any], key: str) -> str:
    found = value.get(key)
    return found.strip()[:TEXT_MAX] if isinstance(found, str) else ""


def _table(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _list(value: dict[str, Any], key: str) -> list[Any]:
    found = value.get(key)
    return found if isinstance(found, list) else []


def _count(value: dict[str, Any], key: str) -> int:
    """0 where it is missing: some give the summary or the details alone."""
    found = value.get(key, 0)
    if isinstance(found, str) and found.strip().isdecimal() and len(found) <= 20:
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= COUNT_MAX:
        raise ReportError(f"{key}: found {str(found)[:40]!r}, wanted a number of sessions")
    return found


def _moment(span: dict[str, Any], key: str) -> float:
    said = _text(span, key)
    try:
        moment = datetime.fromisoformat(said)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise ReportError(f"date-range/{key}: found {said[:40]!r}, wanted a time as 2026-04-01T00:00:00Z") from error
