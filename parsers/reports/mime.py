"""The parts of a mail (RFC 5322, RFC 2045 to 2047), read with limits on size, depth and number.

Knows the outer form only; a message inside a message is read as far as its header and no further.
"""

import binascii
import functools
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_tz
from typing import Final, NamedTuple

from parsers.reports.refusal import ReportError

MESSAGE_MAX: Final = 16 << 20
"""Bytes of a mail. Postfix's own default is 10 MB (message_size_limit)."""
DEPTH_MAX: Final = 6
"""Multiparts inside each other; reports have two or three."""
PARTS_MAX: Final = 100
HEADER_MAX: Final = 256 << 10
"""Bytes of one header section."""
FIELDS_MAX: Final = 1_000
TEXT_MAX: Final = 256 << 10
"""Bytes of a text part that are looked at."""

_HEADER_END: Final = re.compile(rb"\r?\n\r?\n")
_CHARSET: Final = re.compile(
    r"utf-?8|us-ascii|iso-?8859-?\d{1,2}|windows-125\d|cp125\d|koi8-[ru]|iso-2022-(?:jp|kr)|shift[_-]jis|euc-(?:jp|kr)"
    r"|gb(?:k|2312|18030)|big5",
    re.IGNORECASE,
)
"""Charsets that are believed; some names of Python's codecs are no charsets, and some of those are slow."""


class Part(NamedTuple):
    """A mail, or a part of one."""

    fields: tuple[tuple[str, str], ...]
    """(name in lower case, value unfolded), in order."""
    body: bytes
    """As it came, still encoded; b"" for a multipart."""
    parts: tuple["Part", ...] = ()
    """Of a multipart; of message/rfc822 the one message, whose own parts are not read."""

    def header(self, name: str) -> str:
        """Give the first field of this name (lower case), "" where there is none."""
        return next((value for key, value in self.fields if key == name), "")

    def headers(self, name: str) -> tuple[str, ...]:
        return tuple(value for key, value in self.fields if key == name)

    @property
    def media_type(self) -> str:
        return self.header("content-type").partition(";")[0].strip().lower() or "text/plain"

    def parameter(self, name: str) -> str:
        """Read a parameter of Content-Type, "" where there is none."""
        found = _parameter(name).search(self.header("content-type"))
        return "" if found is None else found[1] if found[1] is not None else found[2]

    @property
    def content(self) -> bytes:
        """The body decoded (RFC 2045 section 6). Raises ReportError."""
        encoding = self.header("content-transfer-encoding").partition("(")[0].strip().lower()
        if encoding == "base64":
            try:
                return binascii.a2b_base64(self.body + b"==")
            except binascii.Error as error:
                raise ReportError(f"a part's base64 is damaged: {error}") from error
        return binascii.a2b_qp(self.body) if encoding == "quoted-printable" else self.body

    @property
    def text(self) -> str:
        """The begin of the content as text, with line feeds for line ends; what its charset does not know is replaced."""
        charset = self.parameter("charset")
        known = charset if _CHARSET.fullmatch(charset) else "utf-8"
        try:
            text = self.content[:TEXT_MAX].decode(known, "replace")
        except LookupError:  # iso-8859-99
            text = self.content[:TEXT_MAX].decode("utf-8", "replace")
        return text.replace("\r\n", "\n")

    def walk(self) -> Iterator["Part"]:
        """Itself and every part of it, outer ones first."""
        yield self
        for part in self.parts:
            yield from part.walk()


@functools.lru_cache(maxsize=32)
def _parameter(name: str) -> re.Pattern[str]:
    return re.compile(rf';\s*{re.escape(name)}\s*=\s*(?:"([^"]*)"|([^\s;"]+))', re.IGNORECASE)


def read_mail(data: bytes) -> Part:
    """Take a mail apart. Raises ReportError where it is beyond a limit."""
    if len(data) > MESSAGE_MAX:
        raise ReportError(f"a mail of more than {MESSAGE_MAX >> 20} MiB")
    if data.startswith(b"From "):  # the line that an mbox puts before it
        data = data.partition(b"\n")[2]
    return _Splitter().part(data, 0)


def read_fields(data: bytes) -> tuple[tuple[str, str], ...]:
    """Read a header section; lines that are no fields are left out. Raises ReportError beyond a limit."""
    if len(data) > HEADER_MAX:
        raise ReportError(f"a header of more than {HEADER_MAX >> 10} KiB")
    fields: list[tuple[str, list[str]]] = []
    for line in data.decode("utf-8", "replace").replace("\r\n", "\n").split("\n"):
        if line[:1] in {" ", "\t"}:
            if fields:
                fields[-1][1].append(line.strip())
            continue
        name, colon, value = line.partition(":")
        if colon and name and not name.strip().count(" "):
            fields.append((name.strip().lower(), [value.strip()]))
    if len(fields) > FIELDS_MAX:
        raise ReportError(f"a header of {len(fields)} fields; at most {FIELDS_MAX} are read")
    return tuple((name, " ".join(lines)) for name, lines in fields)


def read_header(data: bytes) -> Part:
    """Read the header of a message and leave its body alone. Raises ReportError."""
    head, _ = _split(data)
    return Part(read_fields(head), b"")


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Header and body."""
    if data.startswith((b"\n", b"\r\n")):
        return b"", data.partition(b"\n")[2]
    end = _HEADER_END.search(data)
    return (data[: end.start()], data[end.end() :]) if end else (data, b"")


class _Splitter:
    """Counts the parts of one mail."""

    def __init__(self) -> None:
        self._left = PARTS_MAX

    def part(self, data: bytes, depth: int) -> Part:
        if depth > DEPTH_MAX:
            raise ReportError(f"multiparts nested more than {DEPTH_MAX} deep")
        self._left -= 1
        if self._left < 0:
            raise ReportError(f"a mail of more than {PARTS_MAX} parts")
        head, body = _split(data)
        part = Part(read_fields(head), body)
        boundary = part.parameter("boundary")
        if part.media_type.startswith("multipart/") and boundary:
            return Part(part.fields, b"", tuple(self.part(each, depth + 1) for each in self._pieces(body, boundary)))
        if part.media_type in {"message/rfc822", "message/global"}:
            return part._replace(parts=(read_header(part.content),))
        return part

    def _pieces(self, body: bytes, boundary: str) -> Iterator[bytes]:
        """What stands between the delimiter lines (RFC 2046 section 5.1.1); a missing last one is forgiven."""
        escaped = re.escape(boundary.encode("utf-8", "replace"))
        delimiter = re.compile(rb"(?:\A|(?<=\n))--" + escaped + rb"(--)?[ \t]*(?:\r?\n|\Z)")
        begin = -1
        for found in delimiter.finditer(body):
            if begin >= 0:
                yield body[begin : max(begin, _without_line_end(body, found.start()))]
            begin = found.end()
            if found[1]:
                return
        if begin >= 0:
            yield body[begin:]


def _without_line_end(body: bytes, end: int) -> int:
    """The line end before a delimiter belongs to it."""
    if body[end - 1 : end] == b"\n":
        end -= 1
    return end - 1 if body[end - 1 : end] == b"\r" else end


def address_in(value: str) -> str:
    """Give the one address of a field as From or Return-Path, in lower case; "" where there is none."""
    inside = value.rpartition("<")[2].partition(">")[0] if "<" in value else value.partition("(")[0]
    return inside.strip().lower() if len(inside) <= 320 else ""


def date_in(value: str) -> float | None:
    """Read a date (RFC 5322 section 3.3), seconds since the epoch; without a zone it is taken for UTC."""
    try:
        read = parsedate_tz(value[:200])
        if read is None:
            return None
        moment = datetime(*read[:6], tzinfo=UTC) - timedelta(seconds=read[9] or 0)
        return moment.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
