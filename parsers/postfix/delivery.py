"""A delivery in its usual form, cut at its commas or by the groups of the expression, to a fact.

Compiled, as it is the longest line and the one that counts. The same few relays, outcomes and delays come again and
again: each text is read once.
"""

import re
from typing import Any, Final, NamedTuple

from parsers.postfix.facts import Delays, DeliveryAttempt
from parsers.postfix.tokens import number
from parsers.record import LogRecord

_make: Final = tuple.__new__
"""Makes the hottest facts in half the time that their constructors take."""
_RECORD: Final = LogRecord
_ATTEMPT: Final = DeliveryAttempt
"""Compiled code looks for what was imported by its name each time."""


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
            delays = _make(Delays, (float(a), float(b), float(c), float(d)))
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


class _Times(NamedTuple):
    """`delay=` and `delays=`."""

    delay: float
    delays: Delays


class _Ending(NamedTuple):
    """`tls=`, "" where there is none, `dsn=` and `status=`."""

    tls: str
    dsn: str
    status: str


# What the expression of the usual form takes, from one of its commas to another or to the parenthesis.
_RELAY_TEXT: Final = re.compile(r">, relay=([^,]*+)", re.ASCII)
_USE_TEXT: Final = re.compile(r", conn_use=(\d{1,9})", re.ASCII)
_TIMES_TEXT: Final = re.compile(r", delay=(-?[\d.]++), delays=([\d./]++)", re.ASCII)
_ENDING_TEXT: Final = re.compile(rf"(?:, tls=([^,(]*+))?, dsn={_OUTCOME.pattern} ", re.ASCII)
# Texts with their names, as they stand in a line: who finds one here need not compare the name.
_relay_texts: Final[dict[str, Relay]] = {}
_use_texts: Final[dict[str, Any]] = {}
_times_texts: Final[dict[str, _Times]] = {}
_ending_texts: Final[dict[str, _Ending]] = {}


def _read_relay(text: str) -> Relay | None:
    match = _RELAY_TEXT.fullmatch(text)
    relay = read_relay(match[1]) if match else None
    if relay is not None:
        if len(_relay_texts) >= _REMEMBERED:
            _relay_texts.clear()
        _relay_texts[text] = relay
    return relay


def _read_use(text: str) -> Any:
    """The number as the object that is kept, so that compiled code makes no other one; None where there is none."""
    match = _USE_TEXT.fullmatch(text)
    if match is None:
        return None
    if len(_use_texts) >= _REMEMBERED:
        _use_texts.clear()
    _use_texts[text] = int(match[1])
    return _use_texts[text]


def _read_times(text: str) -> _Times | None:
    match = _TIMES_TEXT.fullmatch(text)
    if match is None:
        return None
    delay_text: str
    delays_text: str
    delay_text, delays_text = match.groups()
    delay, delays = read_seconds(delay_text), read_delays(delays_text)
    if delay is None or delays is None:
        return None
    if len(_times_texts) >= _REMEMBERED:
        _times_texts.clear()
    _times_texts[text] = times = _make(_Times, (delay, delays))
    return times


def _read_ending(text: str) -> _Ending | None:
    match = _ENDING_TEXT.fullmatch(text)
    if match is None:
        return None
    if len(_ending_texts) >= _REMEMBERED:
        _ending_texts.clear()
    _ending_texts[text] = ending = _Ending(match[1] or "", match[2], match[3])
    return ending


_Attempt = tuple[str, str, str, str, Any, Any, Any, Any, str, str, str, str]
_OTHERWISE: Final[_Attempt] = ("", "", "", "", None, None, None, None, "", "", "", "")


def usual_attempt(lines: str, begin: int, stop: int, length: int) -> _Attempt:  # field by field
    """What the delivery in `lines` says whose `to=` begins at `begin`: recipient, original one, the relay's host, address
    and port, `conn_use`, delay, `Delays`, `tls`, dsn, status and reason. `length`: of its text, with the queue id. Where
    the status is empty it has another form.

    Whatever is taken here the expression takes as well, and finds the same: from the left, up to the next comma each, no
    address with quotes or angles, and what follows the parenthesis is not looked at. It costs a fifth of the expression.
    """
    # A plain tuple and never None, as compiled code makes no object of it on its way to another compiled function.
    # One character is found many times as fast as two.
    close = lines.find(">", begin, stop)
    if close < begin + 4 or ord(lines[begin + 3]) != _OPENING or lines[begin : begin + 3] != "to=":
        return _OTHERWISE
    recipient = lines[begin + 4 : close]
    if '"' in recipient or "<" in recipient:
        return _OTHERWISE
    orig_to = ""
    comma = lines.find(",", close + 2, stop)
    if comma < 0:
        return _OTHERWISE
    text = lines[close:comma]
    relay = _relay_texts.get(text)
    if relay is None:
        if lines[close : close + 12] == ">, orig_to=<":
            begin = close + 12
            close = lines.find(">", begin, stop)
            orig_to = lines[begin:close]
            if close < 0 or '"' in orig_to or "<" in orig_to:
                return _OTHERWISE
            comma = lines.find(",", close + 2, stop)
            if comma < 0:
                return _OTHERWISE
            text = lines[close:comma]
        relay = _relay_texts.get(text) or _read_relay(text)
    end = lines.find(",", comma + 2, stop)
    if relay is None or end < 0:
        return _OTHERWISE
    conn_use: Any = None
    if ord(lines[comma + 2]) == _OF_CONN_USE:
        text = lines[comma:end]
        conn_use = _use_texts.get(text) or _read_use(text)
        comma = end
        end = lines.find(",", comma + 2, stop)
        if conn_use is None or end < 0:
            return _OTHERWISE
    end = lines.find(",", end + 2, stop)
    paren = lines.find("(", end, stop) if end > 0 else -1
    if paren < 0:
        return _OTHERWISE
    text = lines[comma:end]
    times = _times_texts.get(text) or _read_times(text)
    text = lines[end:paren]
    ending = _ending_texts.get(text) or _read_ending(text)
    if times is None or ending is None:
        return _OTHERWISE
    delay: Any
    delay, delays = times
    tls, dsn, status = ending
    host, address, port, _ = relay
    if ord(lines[stop - 1]) == _CLOSING and ord(lines[stop - 2]) != _COMMAND_END:
        reason = lines[paren + 1 : stop - 1]
    else:
        reason = read_reason(lines[paren + 1 : stop], length)
    return recipient, orig_to, host, address, port, conn_use, delay, delays, tls, dsn, status, reason


def usual_delivery(  # noqa: PLR0917  # by name it takes longer
    time: float, host: str, instance: str, service: str, daemon: str, pid: Any,
    queue_id: str, lines: str, mark: int, begin: int, stop: int,
) -> DeliveryAttempt | None:  # fmt: skip
    """The delivery in `lines` whose text is from `mark` to `stop`, and goes on at `begin` with "to=", behind the queue id.
    None: it has another form.
    """
    recipient, orig_to, relay_host, address, port, conn_use, delay, delays, tls, dsn, status, reason = usual_attempt(
        lines, begin, stop, stop - mark
    )
    if not status:
        return None
    return _make(
        _ATTEMPT,
        (
            _make(_RECORD, (time, host, instance, service, daemon, pid, lines[mark:stop])), queue_id, recipient,
            orig_to, relay_host, address, port, conn_use, delay, delays, tls, dsn, status, reason, (),
        ),
    )  # fmt: skip


_OF_CONN_USE: Final = ord("c")
"""Behind the comma and the blank."""
_OPENING: Final = ord("<")
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
