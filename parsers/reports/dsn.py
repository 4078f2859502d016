"""Non-delivery reports: delivery status notifications (RFC 3464), and what older servers write instead.

Knows the forms. What a reply in one means is for the rules for replies; they are given it as a server said it.
"""

from typing import Final, NamedTuple

from parsers.reports.arf import embedded_header
from parsers.reports.dsn_text import TextBounce, read_text_bounce
from parsers.reports.mime import Part, date_in, read_fields
from parsers.reports.original import Original, Tracing, read_original
from parsers.reports.refusal import ReportError

RECIPIENTS_MAX: Final = 1_000
DIAGNOSTIC_MAX: Final = 4_096

ACTIONS: Final = frozenset({"failed", "delayed", "delivered", "relayed", "expanded"})


class Undelivered(NamedTuple):
    """One recipient; "" for what the report leaves out."""

    recipient: str
    """As the reporting server knows it: behind a forward it is another than ours."""
    original_recipient: str
    action: str
    """failed, delayed, delivered, relayed, expanded (RFC 3464 section 2.3.3)."""
    status: str
    """"5.1.1" (RFC 3463)."""
    remote: str
    """The server that spoke."""
    diagnostic: str
    """What it said, as Postfix would log it or as a bare reply."""
    at: float | None
    reply: str
    """What to ask the rules about: the server's words, with the status before them where they begin with no code."""

    @property
    def ours(self) -> str:
        """The address that we sent to, as far as the report tells."""
        return self.original_recipient or self.recipient


class NonDelivery(NamedTuple):
    form: str
    """"rfc3464", or the program that wrote it in a form of its own: qmail, exim, exchange."""
    reporting_mta: str
    arrival: float | None
    """When the message came in at the reporting server, seconds since the epoch."""
    recipients: tuple[Undelivered, ...]
    original: Original


def status_part(mail: Part) -> Part | None:
    kinds = {"message/delivery-status", "message/global-delivery-status"}
    return next((part for part in mail.walk() if part.media_type in kinds), None)


def read_non_delivery(mail: Part, tracing: Tracing) -> NonDelivery | None:
    """Read a report; None where the mail is none. Raises ReportError."""
    if part := status_part(mail):
        return _dsn(mail, part, tracing)
    bounce = read_text_bounce(mail)
    return _from_text(mail, bounce, tracing) if bounce else None


def _dsn(mail: Part, part: Part, tracing: Tracing) -> NonDelivery:
    blocks = part.content.replace(b"\r\n", b"\n").strip(b"\n").split(b"\n\n", RECIPIENTS_MAX + 2)
    groups = [Part(read_fields(block), b"") for block in blocks[: RECIPIENTS_MAX + 1] if block.strip()]
    per_message = groups[0] if groups else Part((), b"")
    recipients = tuple(_recipient(group) for group in groups if group.header("final-recipient"))
    if not recipients:
        raise ReportError("a delivery status notification without a Final-Recipient")
    queue_id = per_message.header("x-postfix-queue-id")[:20]
    sender = _value(per_message.header("x-postfix-sender"))
    original = read_original(embedded_header(mail), tracing, envelope_from=sender, queue_id=queue_id)
    return NonDelivery(
        "rfc3464",
        _value(per_message.header("reporting-mta")),
        date_in(per_message.header("arrival-date")),
        recipients,
        original,
    )


def _recipient(said: Part) -> Undelivered:
    action = said.header("action").partition("(")[0].strip().lower()
    diagnostic = said.header("diagnostic-code")
    kind, semicolon, words = diagnostic.partition(";")
    words = (words if semicolon and len(kind) < 40 else diagnostic).strip()[:DIAGNOSTIC_MAX]
    status = said.header("status").split(" ")[0][:20]
    has_code = words[:1].isdecimal() or kind.strip().lower() == "x-postfix"  # whose words the rules know
    return Undelivered(
        _value(said.header("final-recipient")),
        _value(said.header("original-recipient")),
        action if action in ACTIONS else "failed",
        status,
        _value(said.header("remote-mta")).partition(" ")[0],
        words,
        date_in(said.header("last-attempt-date")),
        words if has_code else f"{status} {words}".strip(),
    )


def _value(field: str) -> str:
    """What follows the type: "rfc822; user@example.com"."""
    kind, semicolon, value = field.partition(";")
    return (value if semicolon else kind).strip().strip("<>").lower()[:320]


def _from_text(mail: Part, bounce: TextBounce, tracing: Tracing) -> NonDelivery:
    recipients = tuple(
        Undelivered(each.recipient, "", "failed", "", each.remote, words := each.words[:DIAGNOSTIC_MAX], None, words)
        for each in bounce.recipients[:RECIPIENTS_MAX]
    )
    header = bounce.original if bounce.original.fields else embedded_header(mail)
    return NonDelivery(bounce.form, bounce.server, None, recipients, read_original(header, tracing))
