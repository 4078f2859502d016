"""The most frequent lines of messages in their usual form, read without their expressions, which cost three times as much.

Compiled. Whatever is taken here the expression takes as well, and finds the same in it; everything else is left to it.
"""

import re
from typing import TYPE_CHECKING, Any, Final

from parsers.postfix.cleanup import message_id
from parsers.postfix.delivery import delivery, usual_delivery
from parsers.postfix.facts import (
    ClientConnected,
    ClientDisconnected,
    ClientIdentified,
    Fact,
    MessageIdentified,
    PostscreenVerdict,
    QueueActive,
    QueueRemoved,
    TlsEstablished,
)
from parsers.postfix.grammar import Choice, MakeFact
from parsers.postfix.qmgr import queue_active, queue_removed
from parsers.postfix.smtpd import client, client_logged_in
from parsers.postfix.tokens import PEER, queue_id
from parsers.record import LogRecord
from parsers.speakers import ISO

if TYPE_CHECKING:  # the compiler alone needs it
    from mypy_extensions import i64

_make: Final = tuple.__new__
_RECORD: Final = LogRecord
"""Compiled code looks for what was imported by its name each time."""
_DELIVERED: Final[MakeFact] = delivery
_REMOVED: Final[MakeFact] = queue_removed
_NAMED: Final[MakeFact] = message_id
_ACTIVE: Final[MakeFact] = queue_active
_CLIENT: Final[MakeFact] = client
_LOGGED_IN: Final[MakeFact] = client_logged_in
"""By what makes their facts the shapes are known; where none is wanted there is none."""


def usual_fact(  # noqa: PLR0917  # by name it takes longer
    choice: Choice, time: float, host: str, instance: str, service: str, daemon: str, pid: Any,
    lead: str, lines: str, mark: int, begin: int, stop: int,
) -> Fact | None:  # fmt: skip
    """Of the line in `lines` whose text is from `mark` to `stop`, begins with the queue id `lead`, goes on behind it at
    `begin`, and is to be tried for these shapes. None: it has no usual form.
    """
    make = choice[0][1]
    if make is _DELIVERED:
        return usual_delivery(time, host, instance, service, daemon, pid, lead, lines, mark, begin, stop)
    if make is _REMOVED:
        if lines[begin:stop] != "removed":
            return None
        record = _make(_RECORD, (time, host, instance, service, daemon, pid, lines[mark:stop]))
        return _make(QueueRemoved, (record, lead, ""))
    if make is _NAMED:
        if lines[begin : begin + 11] != "message-id=":
            return None
        record = _make(_RECORD, (time, host, instance, service, daemon, pid, lines[mark:stop]))
        return _make(MessageIdentified, (record, lead, lines[begin + 11 : stop], False))
    if make is _ACTIVE:
        active = usual_active(lines, begin, stop)
        if active is None:
            return None
        sender, size, nrcpt = active
        record = _make(_RECORD, (time, host, instance, service, daemon, pid, lines[mark:stop]))
        return _make(QueueActive, (record, lead, sender, size, nrcpt))
    if make is _CLIENT and len(choice) > 1 and choice[1][1] is _LOGGED_IN:
        found = usual_client(lines, begin, stop)
        if found is None:
            return None
        client_host, address, method, username = found
        record = _make(_RECORD, (time, host, instance, service, daemon, pid, lines[mark:stop]))
        return _make(ClientIdentified, (record, queue_id(lead), client_host, address, method, username, ""))
    return None


def digits(text: str, begin: int, end: int) -> int:
    """The number that up to 18 ASCII digits tell between two places; -1 where something else is among them, or nothing."""
    # A loop over machine numbers, as compiled code makes no object for a character; `isdecimal` and `int` take ten times
    # as long, the same loop over Python's numbers three times.
    at: i64 = begin
    last: i64 = end
    number: i64 = 0 if 0 < last - at <= 18 else -1
    if number < 0:
        return -1
    while at < last:
        digit: i64 = ord(text[at]) - _ZERO
        if digit < 0 or digit > 9:
            return -1
        number = number * 10 + digit
        at += 1
    return number


def has_zone(text: str, begin: "i64", end: "i64") -> bool:
    """Whether the ISO stamp that begins there has a zone at `end`, and between seconds and zone a point or nothing."""
    sign: i64 = ord(text[end])
    zone = sign == _PLUS or sign == _UTC or sign == _MINUS  # noqa: PLR1714  # compiled code makes a tuple of them
    return zone and (end == begin + ISO or ord(text[begin + ISO]) == _POINT)


_PLUS: Final = ord("+")
_MINUS: Final = ord("-")
_UTC: Final = ord("Z")
_POINT: Final = ord(".")
_ZERO: Final = ord("0")
_QUEUE_ACTIVE: Final = " (queue active)"


def usual_active(lines: str, begin: int, stop: int) -> tuple[str, int, int] | None:
    """`from=<SENDER>, size=N, nrcpt=N (queue active)`, of a sender without quotes and angles."""
    end = lines.find(">", begin, stop)
    if end < begin + 6 or lines[begin : begin + 6] != "from=<" or lines[end : end + 8] != ">, size=":
        return None
    sender = lines[begin + 6 : end]
    comma = lines.find(",", end + 8, stop)
    last = stop - len(_QUEUE_ACTIVE)
    if comma < 0 or lines[comma : comma + 8] != ", nrcpt=" or lines[last:stop] != _QUEUE_ACTIVE:
        return None
    size, nrcpt = digits(lines, end + 8, comma), digits(lines, comma + 8, last)
    short = comma - end - 8 <= 15 and last - comma - 8 <= 9
    if size < 0 or nrcpt < 0 or not short or "<" in sender or '"' in sender:
        return None
    return sender, size, nrcpt


_CLIENT_PEER: Final = re.compile(rf"client={PEER}", re.ASCII)
_REMEMBERED: Final = 8192
_clients: Final[dict[str, tuple[str, str]]] = {}
"""Host and address of those who came before."""


def usual_client(lines: str, begin: int, stop: int) -> tuple[str, str, str, str] | None:
    """`client=H[I]`, alone or with `, sasl_method=M, sasl_username=U`: host, address, method, name."""
    comma = lines.find(",", begin, stop)
    pair = lines[begin : comma if comma > 0 else stop]
    peer = _clients.get(pair)
    if peer is None:
        match = _CLIENT_PEER.fullmatch(pair)
        if match is None:
            return None
        if len(_clients) >= _REMEMBERED:
            _clients.clear()
        peer = _clients[pair] = match[1], match[2]
    host, address = peer
    if comma < 0:
        return host, address, "", ""
    if lines[comma : comma + 14] != ", sasl_method=":
        return None
    end = lines.find(",", comma + 14, stop)
    if end < 0:
        return None
    method = lines[comma + 14 : end]
    if lines[end : end + 16] != ", sasl_username=" or not method.isalnum():
        return None
    return host, address, method, lines[end + 16 : stop].partition(", sasl_sender=")[0]


_CONNECT: Final = re.compile(rf"connect from {PEER}", re.ASCII)
_DISCONNECT: Final = re.compile(rf"disconnect from {PEER}", re.ASCII)
_COUNTS: Final = re.compile(r"(?: [a-z]+=[0-9/]+)*", re.ASCII)
_TLS_PEER: Final = re.compile(
    r"(?:Anonymous|Untrusted|Trusted|Verified) TLS connection (?:established|reused) (?:from|to) [^\[\s]*\[[^\]]*\]",
    re.ASCII,
)
_CIPHER: Final = re.compile(r"(?::\d{1,5})?: \S+ with cipher \S+ \(\d{1,6}/\d{1,6} bits\)[ -~]{0,200}", re.ASCII)
_connects: Final[set[str]] = set()
_disconnects: Final[set[str]] = set()
_counts: Final[set[str]] = set()
_tls_peers: Final[set[str]] = set()
_ciphers: Final[set[str]] = set()
_CONNECTED: Final[type[Fact]] = ClientConnected
_DISCONNECTED: Final[type[Fact]] = ClientDisconnected
_ENCRYPTED: Final[type[Fact]] = TlsEstablished
_SCREENED: Final[type[Fact]] = PostscreenVerdict
_VERDICTS: Final = frozenset({"CONNECT from ", "PASS OLD ", "PASS NEW ", "DISCONNECT "})
"""Of postscreen, as they stand before an address and a port."""


def usual_count(kind: type[Fact], lines: str, mark: int, stop: int) -> bool:
    """Whether the line in `lines` whose text is from `mark` to `stop` has the usual form of those that state this kind of
    fact, which is the first that such a line is tried for.
    """
    if kind is _CONNECTED:
        return _fits(_connects, _CONNECT, lines[mark:stop])
    if kind is _DISCONNECTED:
        end = lines.find("]", mark, stop) + 1
        return (
            end > 0 and _fits(_disconnects, _DISCONNECT, lines[mark:end]) and _fits(_counts, _COUNTS, lines[end:stop])
        )
    if kind is _ENCRYPTED:
        end = lines.find("]", mark, stop) + 1
        return end > 0 and _fits(_tls_peers, _TLS_PEER, lines[mark:end]) and _fits(_ciphers, _CIPHER, lines[end:stop])
    if kind is _SCREENED:
        begin = lines.find("[", mark, stop)
        if begin < 0 or lines[mark:begin] not in _VERDICTS:
            return False
        end = lines.find("]", begin, stop)
        return 0 < end < stop - 2 and lines[end + 1] == ":" and 0 <= ord(lines[end + 2]) - _ZERO <= 9
    return False


def _fits(known: set[str], form: re.Pattern[str], text: str) -> bool:
    """Whether a text has this form; those that have are remembered."""
    if text in known:
        return True
    if form.fullmatch(text) is None:
        return False
    if len(known) >= _REMEMBERED:
        known.clear()
    known.add(text)
    return True
