"""E-mail: plain text, one thread an incident, marked so that no machine answers it (RFC 3834).

Knows the headers; what a stranger said of himself stays in the body and in one line of the subject.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

from policies.note import Note, NoteKind, headline, paragraphs

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SUBJECT_MAX: Final = 200


def compose(note: Note, *, to: Sequence[str], sender: str, host: str, delivery: str) -> bytes:
    """Give the whole message, with bare line feeds as sendmail(1) wants them.

    `sender`: From, "" to have Postfix put it there. `delivery`: the same for each try, part of Message-ID.
    """
    message = EmailMessage()
    message["Subject"] = one_line(headline(note))[:_SUBJECT_MAX]
    message["To"] = ", ".join(to)
    if sender:
        message["From"] = sender
    message["Date"] = format_datetime(datetime.fromtimestamp(note.at, UTC))
    message["Message-ID"] = f"<{delivery}@{host}>"
    message["References"] = f"<sidecar-incident-{note.incident}@{host}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Sidecar-Incident"] = str(note.incident)
    message["X-Sidecar-Severity"] = str(note.severity)
    if note.is_open and note.severity == "critical":
        message["X-Priority"] = "1"
    message.set_content(plain_text(note))
    return message.as_bytes()


def plain_text(note: Note) -> str:
    """Give the note as text, in lines without control characters."""
    body = [headline(note), ""]
    for heading, lines in paragraphs(note):
        body += [f"{heading}:", *(f"  {line}" for line in lines), ""]
    body += [line for line in (note.link, _reference(note)) if line]
    return "\n".join(map(one_line, body)) + "\n"


def _reference(note: Note) -> str:
    return note.dedup_key if note.kind is NoteKind.DIGEST else f"incident {note.incident}, {note.dedup_key}"


def one_line(text: str) -> str:
    """One line without control characters, in UTF-8."""
    return _CONTROL.sub(" ", text.encode("utf-8", "backslashreplace").decode())
