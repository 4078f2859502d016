"""A delivery in its usual form, cut at its commas or by the groups of the expression, to a fact.

Compiled, as it is the longest line and the one that counts. The same few relays, outcomes and delays come again and
again: each text is read once.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from parsers.postfix.facts import Delays, DeliveryAttempt
from parsers.postfix.tokens import number
from parsers.record import LogRecord

_make: Final = tuple.__new__
"""Makes the hottest facts in half the time that their constructors take."""


class Relay(NamedTuple):
    """`relay=` and `conn_use=`, as in `DeliveryAttempt`."""

    host: str
    address: str
    port: int | None
    conn_use: int | None


class Outcome(NamedTuple):
    """`dsn=` and `status=`."""

    dsn: str
    status: str


_RELAY: Final = re.compile(r"([^\[,]*+)(?:\[([^\]]*+)\](?::(\d{1,5}))?)?(?:, conn_use=(\d{1,9}))?", re.ASCII)
_OUTCOME: Final = re.compile(r"(\d\.\d{1,3}\.\d{1,3}), status=([^\s(]++)", re.ASCII)
_IN_REPLY: Final = re.compile(r".*\(in reply to [^()]* command\)", re.ASCII)
_REMEMBERED: Final = 8192
"""Texts of each kind that are remembered; then all are forgotten and learned again."""
_relays: Final[dict[str, Relay]] = {}
_outcomes: Final[dict[str, Outcome]] = {}
_seconds: Final[dict[str, float]] = {}
_delays: Final[dict[str, Delays]] = {}


def read_relay(text: str) -> Relay | None:
    """`relay=` with `conn_use=`."""
    relay = _relays.get(text)
    if relay is None and (match := _RELAY.fullmatch(text)):
        host, address, port, conn_use = match.groups()
        relay = Relay(host, address or "", number(port), number(conn_use))
        if len(_relays) >= _REMEMBERED:
            _relays.clear()
        _relays[text] = relay
    return relay


def read_outcome(text: str) -> Outcome | None:
    """`dsn=` and `status=`."""
    outcome = _outcomes.get(text)
    if outcome is None and (match := _OUTCOME.fullmatch(text)):
        outcome = Outcome(match[1], match[2])
        if len(_outcomes) >= _REMEMBERED:
            _outcomes.clear()
        _outcomes[text] = outcome
    return outcome


def read_seconds(text: str) -> float | None:
    """`delay=`: mostly two digits."""
    seconds = _seconds.get(text)
    if seconds is None:
        try:
            seconds = float(text)
        except ValueError:
            return None
        if len(_seconds) >= _REMEMBERED:
            _seconds.clear()
        _seconds[text] = seconds
    return seconds


def read_delays(text: str) -> Delays | None:
    """`delays=`: of two digits each, so that half of them and more come again."""
    delays = _delays.get(text)
    if delays is None:
        try:
            a, b, c, d = text.split("/")
            delays = Delays(float(a), float(b), float(c), float(d))
        except ValueError:
            return None
        if len(_delays) >= _REMEMBERED:
            _delays.clear()
        _delays[text] = delays
    return delays


def delivery(record: LogRecord, queue_id: str, match: re.Match[str]) -> DeliveryAttempt | None:
    """The common form: known keys in the known order."""
    rest: str
    recipient, orig_to, relay_text, delay, delays_text, tls, outcome_text, rest = match.groups()
    relay = read_relay(relay_text)
    outcome = read_outcome(outcome_text)
    delays = read_delays(delays_text)
    seconds = read_seconds(delay)
    if relay is None or outcome is None or delays is None or seconds is None:
        return None
    host, address, port, conn_use = relay
    dsn, status = outcome
    usual = rest.endswith(")") and not rest.endswith(" command)")
    reason = rest[:-1] if usual else read_reason(rest, len(record.text))
    return _make(
        DeliveryAttempt,
        (
            record, queue_id, recipient, orig_to or "", host, address, port, conn_use, seconds, delays, tls or "", dsn,
            status, reason, (),
        ),
    )  # fmt: skip


_PAIRS: Final[dict[str, tuple[re.Pattern[str], Callable[[str], Any]]]] = {
    name: (re.compile(rf"{name}=({value})", re.ASCII), read)
    for name, value, read in (
        ("relay", r"[^,]*+", read_relay),
        ("conn_use", r"\d{1,9}", int),
        ("delay", r"-?[\d.]++", read_seconds),
        ("delays", r"[\d./]++", read_delays),
        ("tls", r"[^,]*+", str),
        ("dsn", r"\d\.\d{1,3}\.\d{1,3}, status=[^\s(]++", read_outcome),
    )
}
"""What the expression of the usual form takes between two commas, and who reads it; the two that end it as one."""
# Whole pairs, one name each. Any, so that compiled code hands numbers on as the objects that lie here.
_relay_pairs: Final[dict[str, Any]] = {}
_use_pairs: Final[dict[str, Any]] = {}
_delay_pairs: Final[dict[str, Any]] = {}
_delays_pairs: Final[dict[str, Any]] = {}
_tls_pairs: Final[dict[str, Any]] = {}
_outcome_pairs: Final[dict[str, Any]] = {}


def _read(known: dict[str, Any], name: str, pair: str) -> Any:
    """What a pair says, where it is of this name and the expression takes it, else None."""
    value = known.get(pair)
    if value is None:
        form, read = _PAIRS[name]
        match = form.fullmatch(pair)
        value = read(match[1]) if match else None
        if value is not None:
            if len(known) >= _REMEMBERED:
                known.clear()
            known[pair] = value
    return value


def _address(pair: str, begin: int) -> str | None:
    """What stands between `<`, before `begin`, and `>`; None where quotes or angles have to be understood."""
    address = pair[begin:-1]
    plain = pair.endswith(">") and ">" not in address and '"' not in address and "<" not in address
    return address if plain else None


_Attempt = tuple[str, str, str, str, Any, Any, Any, Any, Any, str, str, str]
_OTHERWISE: Final[_Attempt] = ("", "", "", "", None, None, None, None, None, "", "", "")


def usual_attempt(lines: str, begin: int, stop: int, length: int) -> _Attempt:
    """What the delivery in `lines` says whose `to=` begins at `begin`: recipient, original one, the relay's host, address
    and port, `conn_use`, delay, `Delays`, `tls`, dsn, status and reason. `length`: of its text, with the queue id. Where
    the status is empty it has another form.

    Whatever is taken here the expression takes as well, and finds the same: each pair stands between two commas where
    it should stand, and what follows the first parenthesis is not looked at. It costs a third of the expression.
    """
    # A plain tuple and never None, as compiled code makes no object of it on its way to another compiled function.
    paren = lines.find("(", begin, stop)  # one character is found many times as fast as two
    end = lines.rfind(", dsn=", begin, paren) if paren > 0 else -1
    if end < 0 or ord(lines[paren - 1]) != _BLANK:
        return _OTHERWISE
    pairs = lines[begin:end].split(", ")
    count = len(pairs)
    if not 4 <= count <= 7 or not pairs[0].startswith("to=<"):
        return _OTHERWISE
    recipient = _address(pairs[0], 4)
    orig_to: str | None = ""
    at = 1
    relay: tuple[str, str, Any, Any] | None = _relay_pairs.get(pairs[1])
    if relay is None:
        if pairs[1].startswith("orig_to=<"):
            orig_to = _address(pairs[1], 9)
            at = 2
        relay = _read(_relay_pairs, "relay", pairs[at])
    at += 1
    conn_use: Any = None
    delay = _delay_pairs.get(pairs[at])
    if delay is None:
        if pairs[at].startswith("conn_use="):
            conn_use = _read(_use_pairs, "conn_use", pairs[at])
            at += 1
            if conn_use is None or count < at + 2:
                return _OTHERWISE
        delay = _read(_delay_pairs, "delay", pairs[at])
    tls: Any = ""
    if count == at + 3:
        tls = _read(_tls_pairs, "tls", pairs[at + 2])
    elif count != at + 2:
        return _OTHERWISE
    delays = _read(_delays_pairs, "delays", pairs[at + 1])
    outcome: tuple[str, str] | None = _read(_outcome_pairs, "dsn", lines[end + 2 : paren - 1])
    if (
        recipient is None
        or orig_to is None
        or relay is None
        or delay is None
        or delays is None
        or tls is None
        or outcome is None
    ):
        return _OTHERWISE
    dsn, status = outcome
    host, address, port, _ = relay
    if ord(lines[stop - 1]) == _CLOSING and ord(lines[stop - 2]) != _COMMAND_END:
        reason = lines[paren + 1 : stop - 1]
    else:
        reason = read_reason(lines[paren + 1 : stop], length)
    return recipient, orig_to, host, address, port, conn_use, delay, delays, tls, dsn, status, reason


def usual_delivery(  # noqa: PLR0917  # by name it takes longer
    time: float,
    host: str,
    instance: str,
    service: str,
    daemon: str,
    pid: int,
    lines: str,
    mark: int,
    colon: int,
    stop: int,
) -> DeliveryAttempt | None:
    """The delivery in `lines` whose text is from `mark` to `stop`, and which goes on with "to=" behind the queue id's
    `colon`. None: it has another form.
    """
    recipient, orig_to, relay_host, address, port, conn_use, delay, delays, tls, dsn, status, reason = usual_attempt(
        lines, colon + 2, stop, stop - mark
    )
    if not status:
        return None
    return _make(
        DeliveryAttempt,
        (
            _make(LogRecord, (time, host, instance, service, daemon, pid, lines[mark:stop])), lines[mark:colon], recipient,
            orig_to, relay_host, address, port, conn_use, delay, delays, tls, dsn, status, reason, (),
        ),
    )  # fmt: skip


_BLANK: Final = ord(" ")
_CLOSING: Final = ord(")")
_COMMAND_END: Final = ord("d")
"""Before the last parenthesis: it may be that of `(in reply to X command)`."""
_CUT: Final = 900
"""No syslog daemon cuts a shorter text; Postfix itself cuts at 2000 bytes."""


def read_reason(rest: str, length: int) -> str:
    """What stands between the parentheses; the last one may be missing where the line, of this length, was cut."""
    if length < _CUT and rest.endswith(") "):
        rest = rest.rstrip(" ")  # what has passed through some other program
    whole = rest.endswith(")") and not (length >= _CUT and rest.endswith(" command)") and _IN_REPLY.fullmatch(rest))
    return rest[:-1] if whole else rest
