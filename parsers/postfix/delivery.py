"""A delivery in its usual form: the groups of the expression to a fact. Compiled, as it is the longest line and the one that counts.

The same few relays, outcomes and delays come again and again: each text is read once.
"""

import re
from typing import Final, NamedTuple

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


_CUT: Final = 900
"""No syslog daemon cuts a shorter text; Postfix itself cuts at 2000 bytes."""


def read_reason(rest: str, length: int) -> str:
    """What stands between the parentheses; the last one may be missing where the line, of this length, was cut."""
    if length < _CUT and rest.endswith(") "):
        rest = rest.rstrip(" ")  # what has passed through some other program
    whole = rest.endswith(")") and not (length >= _CUT and rest.endswith(" command)") and _IN_REPLY.fullmatch(rest))
    return rest[:-1] if whole else rest
