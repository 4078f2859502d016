"""SNDS' tables, in the shapes that Microsoft's old and new portals give: CSV with and without a header, and JSON.

Knows columns by their names, else by their number; what fits neither is a changed format, never a guess.
"""

import csv
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

Row = Mapping[str, Any]
"""Column, by our name -> what stands in it."""

_NAMES = {
    "ip": ("ipaddress", "ip", "ipv4address"),
    "start": ("activityperiod", "activitystart", "activitystarttime", "activityperiodstart"),
    "rcpt": ("rcptcommands", "rcptcommandcount"),
    "data": ("datacommands", "datacommandcount"),
    "recipients": ("messagerecipients", "messagerecipientcount"),
    "result": ("filterresult",),
    "complaints": ("complaintrate",),
    "traps": ("traphits", "trapmessagehits", "traphitcount"),
    "first": ("beginningipaddress", "beginningip", "firstip", "firstipaddress", "startipaddress"),
    "last": ("endingipaddress", "endingip", "lastip", "lastipaddress", "endipaddress"),
    "blocked": ("blocked", "isblocked"),
    "reason": ("reason", "details"),
}
_OURS = {theirs: ours for ours, aliases in _NAMES.items() for theirs in aliases}

DATA = ("ip", "result", "complaints", "traps")
"""Columns without which a table of daily data says nothing."""
STATUS = ("first", "last", "blocked")
_BY_NUMBER = {
    14: ("ip", "start", "", "rcpt", "data", "recipients", "result", "complaints", "", "", "traps", "", "", ""),
    11: ("ip", "start", "rcpt", "data", "recipients", "result", "complaints", "", "traps", "", ""),
    4: ("first", "last", "blocked", "reason"),
}
"""Columns where there is no header: the old portal's, the new one's, the state of addresses."""
_WRAPPERS = ("value", "items", "data", "results")
_CONTINUED = ("nextlink", "odatanextlink", "continuationtoken", "nextpagetoken")
_ROWS_MAX = 200_000


class FormatError(Exception):
    """A table that we cannot read; says what is wrong."""


class LoginPage(Exception):  # noqa: N818  # it is what came, and no error of anybody
    """HTML where a table was wanted: the session or the link has expired."""


def read(body: bytes, *, wanted: Sequence[str]) -> list[Row]:
    """Read a table of DATA or of STATUS; an empty body has no rows. Raises FormatError, LoginPage."""
    try:
        text = body.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise FormatError("neither CSV nor JSON in UTF-8") from error
    if not text:
        return []
    if text.startswith("<"):
        raise LoginPage
    rows = _json(text) if text[0] in "[{" else _csv(text)
    for row in rows:
        if lacking := [name for name in wanted if name not in row]:
            raise FormatError(f"the format has changed: no column for {', '.join(lacking)}")
    return rows


def _json(text: str) -> list[Row]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"JSON that ends early or is none: {str(error)[:100]}") from error
    if isinstance(told, dict):
        keys = {_plain(key): value for key, value in told.items()}
        if any(keys.get(name) for name in _CONTINUED):
            raise FormatError("the table goes on on a further page, which we do not know how to ask for")
        told = next((keys[name] for name in _WRAPPERS if isinstance(keys.get(name), list)), None)
    if not isinstance(told, list) or not all(isinstance(row, dict) for row in told):
        raise FormatError("JSON without a list of rows")
    return [{_OURS.get(_plain(key), key): value for key, value in row.items()} for row in _bounded(told)]


def _csv(text: str) -> list[Row]:
    try:
        lines = [[cell.strip() for cell in line] for line in csv.reader(text.splitlines(), strict=True) if line]
    except csv.Error as error:
        raise FormatError(f"not CSV: {error}") from error
    header = [_OURS.get(_plain(name), "") for name in lines[0]]
    if {"ip", "first"} & set(header):
        lines = lines[1:]
    else:
        header = list(_BY_NUMBER.get(len(lines[0]), ()))
    if not header:
        raise FormatError(f"the format has changed: {len(lines[0])} columns without a header, wanted 14, 11 or 4")
    for line in _bounded(lines):
        if len(line) != len(header):
            raise FormatError(f"a line of {len(line)} columns among others of {len(header)}")
    return [dict(zip(header, line, strict=True)) for line in lines]


def _bounded(rows: list[Any]) -> list[Any]:
    if len(rows) > _ROWS_MAX:
        raise FormatError(f"more than {_ROWS_MAX} rows")
    return rows


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


# What stands in the cells.


class Range(NamedTuple):
    """Addresses of one state."""

    first: int
    last: int
    version: int
    blocked: bool | None
    """None where they use a word that we do not know."""
    reason: str

    def has(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return self.version == address.version and self.first <= int(address) <= self.last


_YES_OR_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def ranges(rows: Sequence[Row]) -> list[Range]:
    """Raises FormatError: one range that cannot be read may be any address."""
    return list(map(_range, rows))


def _range(row: Row) -> Range:
    try:
        first, last = (ipaddress.ip_address(str(row[name]).strip()) for name in ("first", "last"))
    except ValueError as error:
        raise FormatError(f"a range that is none: {str(error)[:100]}") from error
    if first.version != last.version or int(first) > int(last):
        raise FormatError(f"a range that is none: {first} to {last}")
    blocked = _YES_OR_NO.get(str(row["blocked"]).strip().lower())
    return Range(int(first), int(last), first.version, blocked, str(row.get("reason") or "")[:300])


class Complaints(NamedTuple):
    ratio: float
    below: bool
    """It is less than `ratio`, and nobody says how much less."""


_PERCENT = re.compile(r"(<)?\s*(\d{1,3}(?:\.\d{1,6})?)\s*%", re.ASCII)
_COUNT = re.compile(r"\d{1,15}", re.ASCII)
_STAMPS = ("%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M:%S %p")


def complaints(cell: Any) -> Complaints | None:
    """Read "0.2%" or "< 0.1%"; None for what is no share, as a bare number, whose unit nobody knows."""
    match = _PERCENT.fullmatch(str(cell).strip())
    if match is None or float(match[2]) > 100:
        return None
    return Complaints(float(match[2]) / 100, match[1] is not None)


def count(cell: Any) -> int | None:
    said = "" if isinstance(cell, bool) else str(cell).strip()
    return int(said) if _COUNT.fullmatch(said) else None


def day(cell: Any) -> date:
    """The day of a stamp; the new portal's are UTC, the zone of the old one's is not documented. Raises FormatError."""
    said = " ".join(str(cell).split())
    for form in _STAMPS:
        try:
            return datetime.strptime(said, form).replace(tzinfo=UTC).date()
        except ValueError:
            continue
    try:
        return datetime.fromisoformat(said).date()
    except ValueError as error:
        raise FormatError(f"a row of no day: {said[:50]}") from error


def by_address(rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    """Rows with their address, as everybody writes it. Raises FormatError."""
    for row in rows:
        try:
            yield str(ipaddress.ip_address(str(row["ip"]).strip())), row
        except ValueError as error:
            raise FormatError(f"a row of no address: {str(error)[:100]}") from error
