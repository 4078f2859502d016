"""What an IMAP server says of folders and mails, as far as finding test mail wants it (RFC 9051, RFC 6154).

Knows folders by their special use or their usual names, and a test mail by the tag in its header.
"""

import re
from collections.abc import Iterable, Sequence
from email.message import Message
from typing import Final, NamedTuple

from parsers.reports.mime import date_in

HEADER: Final = "X-Sidecar-Seed"
FIELDS: Final = f"(UID INTERNALDATE BODY.PEEK[HEADER.FIELDS ({HEADER.upper()} RECEIVED)])"
"""What to fetch of a mail."""

_LISTED: Final = re.compile(rb'\((?P<flags>[^()]*)\) (?:NIL|"(?:\\.|[^"\\])*") (?P<name>.+)', re.DOTALL)
_QUOTED: Final = re.compile(rb'"((?:\\.|[^"\\])*)"')
_UID: Final = re.compile(rb"\bUID (\d+)")
_ARRIVED: Final = re.compile(rb'\bINTERNALDATE "\s?(\d{1,2})-([A-Za-z]{3})-(\d{4}) (\d\d:\d\d:\d\d) ([+-]\d{4})"')
_USUAL: Final = frozenset({"junk", "spam", "bulk", "bulk mail", "junk e-mail", "junk email"})
"""What folders for spam are called where none is marked."""


class Folder(NamedTuple):
    name: str
    """As the server spells it."""
    flags: frozenset[str]
    """In lower case, with their backslash."""

    @property
    def selectable(self) -> bool:
        return not self.flags & {"\\noselect", "\\nonexistent"}


class Seen(NamedTuple):
    """A test mail in a folder."""

    tag: str
    uid: str
    arrived_at: float
    """Seconds since the epoch, UTC; 0 where nothing tells."""


def folders(lines: Iterable[object]) -> list[Folder]:
    """Read the lines of LIST as imaplib gives them: a name in a literal comes as a pair."""
    found = []
    for line in lines:
        text = b" ".join(part for part in line if isinstance(part, bytes)) if isinstance(line, tuple) else line
        if not isinstance(text, bytes) or not (match := _LISTED.fullmatch(text.strip())):
            continue
        name = match["name"]
        if isinstance(line, tuple):
            name = line[-1]
        elif quoted := _QUOTED.fullmatch(name):
            name = re.sub(rb"\\(.)", rb"\1", quoted[1])
        flags = frozenset(match["flags"].decode("ascii", "replace").lower().split())
        found.append(Folder(name.decode("utf-8", "replace"), flags))
    return found


def spam_folders(there: Sequence[Folder], configured: Sequence[str]) -> list[str]:
    """Give the folders for spam: those configured, else those marked, else those that are called so."""
    if configured:
        return [folder.name for folder in there if folder.name in configured]
    marked = [folder.name for folder in there if "\\junk" in folder.flags]
    return marked or [folder.name for folder in there if re.split(r"[/.]", folder.name)[-1].lower() in _USUAL]


def seen(answer: Sequence[object]) -> list[Seen]:
    """Read an answer to a FETCH of FIELDS, as imaplib gives it; mails without a tag are left out."""
    found = []
    for place, part in enumerate(answer):
        if not (isinstance(part, tuple) and isinstance(part[0], bytes) and isinstance(part[1], bytes)):
            continue
        after = answer[place + 1] if place + 1 < len(answer) else b""
        items = part[0] + b" " + (after if isinstance(after, bytes) else b"")  # in whatever order it told them
        fields = header_fields(part[1])
        tag, uid = (fields[HEADER] or "").strip(), _UID.search(items)
        if tag and uid:
            found.append(Seen(tag, uid[1].decode(), _arrived(items) or _received(fields["Received"] or "")))
    return found


def header_fields(header: bytes) -> Message:
    """Read header fields; the first of a name stands."""
    fields = Message()
    for line in re.sub(rb"\r?\n(?=[ \t])", b" ", header).splitlines():
        name, colon, value = line.partition(b":")
        decoded = name.decode("ascii", "replace").strip()
        if colon and decoded not in fields:
            fields[decoded] = " ".join(value.decode("utf-8", "replace").split())
    return fields


def _arrived(items: bytes) -> float:
    """When it came into the mailbox."""
    match = _ARRIVED.search(items)
    return (date_in(b" ".join(match.groups()).decode()) or 0.0) if match else 0.0


def _received(field: str) -> float:
    """When the last server took it: RFC 5321 section 4.4, the time after the last semicolon."""
    return date_in(field.rpartition(";")[2]) or 0.0
