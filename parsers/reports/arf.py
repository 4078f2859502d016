"""Complaints: feedback reports (RFC 5965, RFC 6591 and 9991) and the older form of Hotmail's JMRP.

Knows the fields, and that most senders redact the recipient, so that only marks of our own lead to a message.
"""

import re
from enum import StrEnum
from typing import Final, NamedTuple

from parsers.reports.mime import Part, address_in, date_in, read_fields, read_header
from parsers.reports.original import NO_HEADER, Original, Tracing, read_original
from parsers.reports.refusal import ReportError

REPEATED_MAX: Final = 100
"""Recipients, domains and URIs of one report that are read."""


class Form(StrEnum):
    ARF = "arf"
    JMRP = "jmrp"
    """One message/rfc822 part with headers of Hotmail's, as it was until 2026."""


class FeedbackType(StrEnum):
    ABUSE = "abuse"
    FRAUD = "fraud"
    VIRUS = "virus"
    OTHER = "other"
    NOT_SPAM = "not-spam"
    """Taken out of the spam folder: no complaint, its contrary."""
    OPT_OUT = "opt-out"
    OPT_OUT_LIST = "opt-out-list"
    """Both: the recipient asks for no more, and complains of nothing."""
    AUTH_FAILURE = "auth-failure"
    """A receiver tells of a failed DMARC, DKIM or SPF check (RFC 6591)."""


class Complaint(NamedTuple):
    """One report; "" for what it leaves out."""

    form: Form
    type: FeedbackType
    said_type: str
    """The word as it came, where it is none of ours."""
    user_agent: str
    arrival: float | None
    """When the message came in at the reporter's, seconds since the epoch."""
    source_ip: str
    recipients: tuple[str, ...]
    """In lower case, those that look like addresses; redacted ones are none."""
    reported_domains: tuple[str, ...]
    reporting_mta: str
    incidents: int
    auth_failure: str
    """Of RFC 6591: bodyhash, revoked, signature, spf, dmarc, adsp."""
    delivery_result: str
    original: Original


_ADDRESS: Final = re.compile(r"[^@\s<>*]{1,64}@[^@\s<>*]{1,255}")
_REDACTED: Final = re.compile(r"redacted|x{4,}@|\*\*")
_ALIASES: Final = {"optout": FeedbackType.OPT_OUT, "not_spam": FeedbackType.NOT_SPAM, "notspam": FeedbackType.NOT_SPAM}
_JMRP_FROM: Final = "staff@hotmail.com"
_JMRP_SUBJECT: Final = re.compile(r"complaint about message from\s+([0-9A-Fa-f.:]{2,45})")


def feedback_part(mail: Part) -> Part | None:
    return next((part for part in mail.walk() if part.media_type == "message/feedback-report"), None)


def is_jmrp(mail: Part) -> bool:
    """Whether it is the older form of JMRP."""
    original = _embedded(mail)
    return original is not None and (
        bool(original.header("x-hmxmroriginalrecipient"))
        or (address_in(mail.header("from")) == _JMRP_FROM and bool(_JMRP_SUBJECT.search(mail.header("subject"))))
    )


def read_complaint(mail: Part, tracing: Tracing) -> Complaint:
    """Read a mail that `feedback_part` or `is_jmrp` recognised. Raises ReportError."""
    report = feedback_part(mail)
    return _arf(mail, report, tracing) if report is not None else _jmrp(mail, tracing)


def _arf(mail: Part, report: Part, tracing: Tracing) -> Complaint:
    said = Part(read_fields(report.content.strip()), b"")
    word = said.header("feedback-type").lower()
    if not word:
        raise ReportError("a feedback report without Feedback-Type")
    known = _ALIASES.get(word) or (FeedbackType(word) if word in list(FeedbackType) else None)
    sender = address_in(said.header("original-mail-from"))
    original = read_original(_embedded(mail) or NO_HEADER, tracing, envelope_from=_whole(sender))
    told = [address_in(each.rpartition(";")[2]) for each in said.headers("original-rcpt-to")[:REPEATED_MAX]]
    recipients = [each for each in told if _whole(each)] or [each for each in (original.recipient,) if _whole(each)]
    arrival = said.header("arrival-date") or said.header("received-date")
    incidents = said.header("incidents")
    return Complaint(
        Form.ARF,
        known or FeedbackType.OTHER,
        "" if known else word[:40],
        said.header("user-agent")[:200],
        date_in(arrival),
        said.header("source-ip").strip("[]")[:45],
        tuple(dict.fromkeys(recipients)),
        tuple(each.lower().rstrip(".")[:255] for each in said.headers("reported-domain")[:REPEATED_MAX]),
        said.header("reporting-mta").rpartition(";")[2].strip().lower()[:255],
        max(1, int(incidents)) if incidents.isdecimal() and incidents.isascii() and len(incidents) <= 6 else 1,
        said.header("auth-failure").lower()[:40],
        said.header("delivery-result").lower()[:40],
        original,
    )


def _jmrp(mail: Part, tracing: Tracing) -> Complaint:
    header = _embedded(mail)
    if header is None:
        raise ReportError("a complaint without the message that it is about")
    original = read_original(header, tracing)
    named = _JMRP_SUBJECT.search(mail.header("subject"))
    return Complaint(
        Form.JMRP,
        FeedbackType.ABUSE,
        "",
        "",
        date_in(header.header("date")),
        header.header("x-reporter-ip").strip("[]")[:45] or (named[1] if named else ""),
        (original.recipient,) if _whole(original.recipient) else (),
        (),
        "",
        1,
        "",
        "",
        original,
    )


def _embedded(mail: Part) -> Part | None:
    """The header of the message that came back, whole or its header alone."""
    for part in mail.walk():
        if part.media_type in {"message/rfc822", "message/global"} and part.parts:
            return part.parts[0]
        if part.media_type in {"text/rfc822-headers", "message/rfc822-headers", "message/global-headers"}:
            return read_header(part.content.lstrip())
    return None


def embedded_header(mail: Part) -> Part:
    """The same, empty where nothing came back."""
    return _embedded(mail) or NO_HEADER


def _whole(address: str) -> str:
    """The address, unless it was redacted."""
    return address if _ADDRESS.fullmatch(address) and not _REDACTED.search(address) else ""
