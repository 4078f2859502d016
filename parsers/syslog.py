"""The envelope of a log line: stamp, host, tag and pid, in every form that syslog daemons, journals, postlogd and containers write.

It knows how a tag names an instance, a service and a daemon of Postfix. It does not know what any line says.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from functools import cache
from typing import Any, Final, NamedTuple

from parsers.clock import STAMP, Clock
from parsers.record import LogRecord

_POSTFIX: Final = re.compile(r"postfix[^/\s]*", re.ASCII)
_ALONE: Final = frozenset({"postfix", "postfix-script"})
"""Programs that log under their bare name."""


def read_tag(tag: str, syslog_names: Sequence[str] = ()) -> tuple[str, str, str]:
    """Instance, service and daemon of a tag; of a foreign program "", "" and its name.

    "postfix/lane-01/smtp" gives ("postfix", "lane-01", "smtp"). `syslog_names` are those that do not begin with
    "postfix"; they may have slashes of their own.
    """
    for name in sorted(syslog_names, key=len, reverse=True):
        if tag == name or tag.startswith(f"{name}/"):
            return _path(name, tag[len(name) + 1 :])
    instance, slash, path = tag.partition("/")
    if slash and (not instance or _POSTFIX.fullmatch(instance)):
        return _path(instance or "postfix", path)
    if tag in _ALONE:
        return "postfix", "", tag
    return "", "", tag


def _path(instance: str, path: str) -> tuple[str, str, str]:
    service, _, daemon = path.rpartition("/")
    return instance, service, daemon or instance


_TAG: Final = r"(?P<tag>[^\s\[\]:]{1,128})(?:\[(?P<pid>\d{1,10})\]:|:(?= |$)) ?"
_SEVERITY: Final = (
    r"(?:<[a-z0-9]+\.[a-z]+> |(?:kern|user|mail|daemon|auth|syslog|local[0-7])\.[a-z]+ "
    r"|(?=[A-Z ]{8}\S)(?:EMERG|ALERT|CRIT|ERR|WARNING|NOTICE|INFO|DEBUG) {1,5})?"
)
_LINE: Final = re.compile(
    rf"(?P<stamp>{STAMP}) {_SEVERITY}(?:(?P<host>[^\s\[<]{{1,255}}) {{1,2}})??{_SEVERITY}{_TAG}"
    r"(?:\[ID \d{1,10} [a-z0-9]+\.[a-z]+\] )?(?P<text>.*)",
    re.ASCII | re.DOTALL,
)
"""BSD and ISO, with FreeBSD's `<mail.info>`, BusyBox' `mail.info`, Solaris' `[ID …]`, and the column of 8 characters
that container images have rsyslog write in place of the host (`INFO    `); some write no host.
"""
_RFC5424: Final = (
    rf"1 (?P<stamp>{STAMP}|-) (?P<host>\S{{1,255}}) (?P<tag>\S{{1,128}}) (?P<pid>\S{{1,128}}) \S{{1,64}} "
    r'(?:-|(?>(?:\[(?>(?:[^"\]]|"(?>(?:[^"\\]|\\.)*)")*)\])+))(?: \ufeff?(?P<text>.*))?'
)
_PRIORITY: Final = re.compile(r"<\d{1,3}>", re.ASCII)
_CONTAINER: Final = re.compile(
    r"(?:(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)) (?:(?:stdout|stderr) [FP] )?"
    rf"|{STAMP} \S{{1,255}} (?:docker/[^\s\[\]:]{{1,128}}|[0-9a-f]{{12}})\[\d{{1,10}}\]: "
    r"|\[?[A-Za-z0-9_./-]{1,255}(?:\]| {0,64}\|) )"
    rf"(?=<\d|{STAMP} |\d{{4}}-\d\d-\d\dT\S+ (?:stdout|stderr) )"
    r"|(?P<stream>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)) (?:stdout|stderr) [FP] ",
    re.ASCII,
)
"""What docker, its compose, its syslog driver and kubernetes put before a line: a stamp, a stream, a name."""
_REPEATED_LAST: Final = rf"(?P<stamp>{STAMP}) (?P<host>\S{{1,255}}) last message repeated (?P<times>\d{{1,9}}) times?"


@cache
def _seldom(expression: str) -> re.Pattern[str]:
    """Of lines that most logs have none of: made when the first one comes."""
    return re.compile(expression, re.ASCII | re.DOTALL)


class Repeated(NamedTuple):
    """Old syslog's `last message repeated N times`, about the last line of that host."""

    time: float
    host: str
    times: int


class Syslog:
    """Lines of one source to records."""

    __slots__ = ("_names", "clock")

    def __init__(
        self,
        *,
        zone: tzinfo,
        reference: float | None = None,
        year: int | None = None,
        after: float | None = None,
        syslog_names: Sequence[str] = (),
    ) -> None:
        self.clock = Clock(zone=zone, reference=reference, year=year, after=after)
        self._names = tuple(syslog_names)

    def read(self, text: str) -> LogRecord | Repeated | None:
        """The record of a line without its line end; None where no envelope is found."""
        text = text.strip("\0\ufeff")
        if text.startswith('{"') and (entry := _journal_entry(text)):
            return self.read_journal(entry)
        text, outer = _unwrapped(text)
        if match := _LINE.fullmatch(text) or _seldom(_RFC5424).fullmatch(text):
            return self._record(match, outer)
        if outer and (match := _LINE.fullmatch(f"{outer} {text}")):  # a container whose syslog writes no stamp
            return self._record(match, outer)
        if (match := _seldom(_REPEATED_LAST).fullmatch(text)) and (time := self.clock.read(match["stamp"])) is not None:
            return Repeated(time, match["host"], int(match["times"]))
        return None

    def _record(self, match: re.Match[str], outer: str) -> LogRecord | None:
        stamp = outer or match["stamp"]
        time = self.clock.latest if stamp == "-" else self.clock.read(stamp)
        if time is None:
            return None
        tag = read_tag(match["tag"], self._names)
        return LogRecord(time, match["host"] or "", *tag, _pid(match["pid"] or ""), match["text"] or "")

    def read_journal(self, entry: Mapping[str, Any]) -> LogRecord | None:
        """One object of `journalctl -o json`; fields may be missing, and texts that are not UTF-8 are lists of bytes."""
        stamp = _text(entry.get("_SOURCE_REALTIME_TIMESTAMP")) or _text(entry.get("__REALTIME_TIMESTAMP"))
        tag = _text(entry.get("SYSLOG_IDENTIFIER")) or _text(entry.get("_COMM"))
        if not (stamp.isascii() and stamp.isdecimal() and len(stamp) <= 17 and tag):
            return None
        pid = _pid(_text(entry.get("SYSLOG_PID")) or _text(entry.get("_PID")))
        text = _text(entry.get("MESSAGE")).rstrip("\r\n")
        return LogRecord(int(stamp) / 1e6, _text(entry.get("_HOSTNAME")), *read_tag(tag, self._names), pid, text)


def _pid(digits: str) -> int:
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 10 else 0


def _text(value: object) -> str:
    """A journal field: a string, a list of byte values, or null where it was too long to print."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in value):
        return bytes(value).decode("utf-8", "surrogateescape")
    return ""


def _unwrapped(text: str) -> tuple[str, str]:
    """The line without what a container runtime or a priority put around it, and the outermost stamp ("" if none)."""
    outer = ""
    if text.startswith('{"'):
        text, outer = _docker_json(text)
    for _ in range(3):
        if not (match := _CONTAINER.match(text)):
            break
        outer = outer or match["stamp"] or match["stream"] or ""
        text = text[match.end() :]
    return _PRIORITY.sub("", text, count=1) if text[:1] == "<" else text, outer


def _journal_entry(text: str) -> Mapping[str, Any] | None:
    """A line of `journalctl -o json`; others write JSON too."""
    if '"MESSAGE"' not in text:
        return None
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and "MESSAGE" in entry else None


def _docker_json(text: str) -> tuple[str, str]:
    """Docker's json-file: `{"log": LINE, "stream": …, "time": STAMP}`."""
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return text, ""
    log, time = (entry.get("log"), entry.get("time")) if isinstance(entry, dict) else (None, None)
    if isinstance(log, str):
        return log.rstrip("\r\n"), time if isinstance(time, str) else ""
    return text, ""
