"""The journal's export format (systemd's "Journal Export Format"), line by line: a field a line, a blank line behind each entry.

It keeps the fields that a log record needs. Values of several lines, which Postfix never writes, keep their first.
"""

import re
from typing import Final

BEGIN: Final = "__CURSOR="
_FIELD: Final = re.compile(r"([A-Z_][A-Z0-9_]{0,63})(?:=(.*))?", re.ASCII | re.DOTALL)
_KEPT: Final = frozenset({
    "MESSAGE", "SYSLOG_IDENTIFIER", "SYSLOG_PID", "_COMM", "_HOSTNAME", "_PID", "_SOURCE_REALTIME_TIMESTAMP",
    "__REALTIME_TIMESTAMP",
})  # fmt: skip
_SIZE: Final = 8
"""Bytes of a binary value's length, before it."""


class ExportedEntry:
    """The entry whose lines are coming in."""

    __slots__ = ("_binary", "_fields")

    def __init__(self) -> None:
        self._fields: dict[str, str] | None = None
        self._binary = ""
        """A field whose value stands on the next line, behind its length."""

    def begins(self, line: str) -> bool:
        """Whether the line begins an entry; then it is taken."""
        if not line.startswith(BEGIN):
            return False
        self._fields, self._binary = {}, ""
        return True

    @property
    def open(self) -> bool:
        return self._fields is not None

    def take(self, line: str) -> bool:
        """Take a line of an entry that has begun; False for one that is no part of it, which ends it."""
        assert self._fields is not None
        if self._binary:
            name, value, self._binary = self._binary, line[_SIZE:], ""
        elif match := _FIELD.fullmatch(line):
            name, value = match[1], match[2]
            if value is None:
                self._binary = name
                return True
        else:
            self._fields = None
            return False
        if name in _KEPT:
            self._fields[name] = value
        return True

    def finish(self) -> dict[str, str]:
        """At the blank line: the entry's fields."""
        fields, self._fields = self._fields or {}, None
        return fields
