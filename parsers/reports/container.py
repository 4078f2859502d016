"""What an attachment holds, by its first bytes: zip, gzip, XML, JSON. Senders' own words about it are not asked.

Unpacks as it is read and stops at a limit, so that no bomb unpacks further than that.
"""

import re
import struct
import zlib
from collections.abc import Generator, Iterator
from enum import StrEnum
from typing import Final

from parsers.reports.refusal import ReportError

PACKED_MAX: Final = 5 << 20
"""Bytes of an archive."""
UNPACKED_MAX: Final = 50 << 20
LAYERS_MAX: Final = 2
"""Archives inside each other: some gateways pack once more what was packed."""
MEMBERS_MAX: Final = 100
"""Of a gzip file (RFC 1952 section 2.2), and entries of a zip file that are passed over for the first one with content."""
_CHUNK: Final = 64 << 10


class Kind(StrEnum):
    ZIP = "zip"
    GZIP = "gzip"
    XML = "xml"
    JSON = "json"
    OTHER = "other"


_MAGIC: Final = (
    (Kind.ZIP, re.compile(rb"PK\x03\x04")),
    (Kind.GZIP, re.compile(rb"\x1f\x8b")),
    (Kind.XML, re.compile(rb"(?:\xef\xbb\xbf)?\s*<[?!A-Za-z]|\xff\xfe\s?\x00?<\x00|\xfe\xff\x00?\s?\x00<")),
    (Kind.JSON, re.compile(rb"(?:\xef\xbb\xbf)?\s*\{")),
)
_LOCAL: Final = struct.Struct("<4s5H3I2H")
"""The local file header of zip: signature, version, flags, method, time, date, CRC, packed, unpacked, name, extra."""
_ENCRYPTED, _SIZES_FOLLOW = 1, 8
_STORED, _DEFLATED = 0, 8


def sniff(data: bytes) -> Kind:
    """Tell what it is by its first bytes."""
    head = data[:1024]
    return next((kind for kind, magic in _MAGIC if magic.match(head)), Kind.OTHER)


def unpacked(data: bytes, *, layers: int = LAYERS_MAX) -> Iterator[bytes]:
    """Give what is packed in it, in pieces; what is not packed comes as it is. Raises ReportError, also midway."""
    kind = sniff(data)
    if kind not in {Kind.ZIP, Kind.GZIP}:
        if len(data) > UNPACKED_MAX:
            raise ReportError(f"a report of more than {UNPACKED_MAX >> 20} MiB")
        yield data
        return
    if len(data) > PACKED_MAX:
        raise ReportError(f"a {kind} file of more than {PACKED_MAX >> 20} MiB")
    if layers == 0:
        raise ReportError(f"archives packed more than {LAYERS_MAX} times over")
    pieces = _limited(_zip(data) if kind is Kind.ZIP else _gzip(data))
    first = next(pieces, b"")
    if sniff(first) in {Kind.ZIP, Kind.GZIP}:
        yield from unpacked(_whole(first, pieces), layers=layers - 1)
        return
    yield first
    yield from pieces


def _whole(first: bytes, pieces: Iterator[bytes]) -> bytes:
    """An archive that was packed once more."""
    data = bytearray(first)
    for piece in pieces:
        data += piece
        if len(data) > PACKED_MAX:
            raise ReportError(f"an archive inside an archive of more than {PACKED_MAX >> 20} MiB")
    return bytes(data)


def _limited(pieces: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    try:
        for piece in pieces:
            size += len(piece)
            if size > UNPACKED_MAX:
                raise ReportError(f"unpacks to more than {UNPACKED_MAX >> 20} MiB")
            yield piece
    except zlib.error as error:
        raise ReportError(f"a damaged archive: {error}") from error


def _inflate(data: bytes, begin: int, form: int) -> Generator[bytes, None, int]:
    """Yield what one stream unpacks to; returns where it ended."""
    engine = zlib.decompressobj(form)
    position = begin
    while not engine.eof:
        if position >= len(data):
            raise ReportError("an archive that ends in the middle")
        packed = data[position : position + _CHUNK]
        position += len(packed)
        while packed and not engine.eof:
            piece = engine.decompress(packed, _CHUNK)
            packed = engine.unconsumed_tail
            if piece:
                yield piece
        while not engine.eof and (piece := engine.decompress(b"", _CHUNK)):
            yield piece
    return position - len(engine.unused_data)


def _gzip(data: bytes) -> Iterator[bytes]:
    position = 0
    for _ in range(MEMBERS_MAX):
        position = yield from _inflate(data, position, 16 + zlib.MAX_WBITS)
        if data[position : position + 2] != b"\x1f\x8b":  # the end, or padding that some put behind it
            return
    raise ReportError(f"a gzip file of more than {MEMBERS_MAX} members")


def _zip(data: bytes) -> Iterator[bytes]:
    """Yield the first file with content; others are left alone. The central directory is not asked."""
    position = 0
    for _ in range(MEMBERS_MAX):
        if len(data) < position + _LOCAL.size or not data.startswith(b"PK\x03\x04", position):
            raise ReportError("a zip file without a file in it")
        _, _, flags, method, _, _, crc, packed, _, name, extra = _LOCAL.unpack_from(data, position)
        begin = position + _LOCAL.size + name + extra
        is_directory = data[begin - extra - 1 : begin - extra] == b"/"
        if not is_directory and (packed or flags & _SIZES_FOLLOW):
            yield from _entry(data, begin, flags=flags, method=method, size=packed, crc=crc)
            return
        position = begin + packed
    raise ReportError(f"a zip file whose first {MEMBERS_MAX} entries are empty")


def _entry(data: bytes, begin: int, *, flags: int, method: int, size: int, crc: int) -> Iterator[bytes]:
    if flags & _ENCRYPTED:
        raise ReportError("a zip file with a password")
    if method == _STORED and not flags & _SIZES_FOLLOW:
        if begin + size > len(data):
            raise ReportError("an archive that ends in the middle")
        pieces: Iterator[bytes] = iter((data[begin : begin + size],))
    elif method == _DEFLATED:
        pieces = _inflate(data, begin, -zlib.MAX_WBITS)
    else:
        raise ReportError(f"a zip file packed by method {method}; wanted stored (0) or deflated (8)")
    found = 0
    for piece in pieces:
        found = zlib.crc32(piece, found)
        yield piece
    if not flags & _SIZES_FOLLOW and found != crc:
        raise ReportError("a damaged archive: its checksum does not match")
