"""Lines of the delivery agents: smtp, lmtp, local, virtual, pipe, error, discard, retry, and any daemon that logs a delivery.

The record that log_adhoc.c writes is made of what strangers choose: the recipient and the remote server's reply. It
is read from the left, field by field, and what follows `status=S (` is never searched.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from parsers.postfix.facts import ConnectionFailed, Delays, DeliveryAttempt, HeaderLogged, RemoteReply
from parsers.postfix.grammar import Grammar, plain, queued
from parsers.postfix.notes import ABOUT_PEER, ANY_DAEMON, note, notes, queued_notes
from parsers.postfix.tls import CLIENT_TLS
from parsers.postfix.tokens import ADDRESS, BARE_ADDRESS, NUMBER, PEER, number
from parsers.record import LogRecord
from parsers.smtp import read_reply

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


@lru_cache(maxsize=8192)
def read_relay(text: str) -> Relay | None:
    """`relay=` with `conn_use=`; the same few come again and again."""
    match = _RELAY.fullmatch(text)
    if match is None:
        return None
    host, address, port, conn_use = match.groups()
    return Relay(host, address or "", number(port), number(conn_use))


@lru_cache(maxsize=1024)
def read_outcome(text: str) -> Outcome | None:
    """`dsn=` and `status=`."""
    match = _OUTCOME.fullmatch(text)
    return Outcome(match[1], match[2]) if match else None


@lru_cache(maxsize=8192)
def read_seconds(text: str) -> float | None:
    """`delay=`: mostly two digits as well."""
    try:
        return float(text)
    except ValueError:
        return None


@lru_cache(maxsize=8192)
def read_delays(text: str) -> Delays | None:
    """`delays=`: of two digits each, so that half of them and more come again."""
    try:
        a, b, c, d = text.split("/")
        return Delays(float(a), float(b), float(c), float(d))
    except ValueError:
        return None


def delivery(record: LogRecord, queue_id: str, match: re.Match[str]) -> DeliveryAttempt | None:
    """The common form: known keys in the known order."""
    recipient, orig_to, relay_text, delay, delays_text, tls, outcome_text, rest = match.groups()
    relay = read_relay(relay_text)
    outcome = read_outcome(outcome_text)
    delays = read_delays(delays_text)
    if relay is None or outcome is None or delays is None:
        return None
    reason = rest[:-1] if rest[-1:] == ")" and rest[-9:] != " command)" else read_reason(rest, len(record.text))
    seconds = read_seconds(delay)
    if seconds is None:
        return None
    return _make(
        DeliveryAttempt,
        (record, queue_id, recipient, orig_to or "", *relay, seconds, delays, tls or "", *outcome, reason, ()),
    )


def delivery_other_keys(record: LogRecord, queue_id: str, match: re.Match[str]) -> DeliveryAttempt | None:
    """Keys that we do not know, anywhere between relay and dsn: kept, and the line is not lost."""
    recipient, bare, orig_to, bare_orig_to = match.groups("")[:4]
    return _from_pairs(record, queue_id, recipient or bare, orig_to or bare_orig_to, match)


def delivery_internal(record: LogRecord, queue_id: str, match: re.Match[str]) -> DeliveryAttempt | None:
    """`info_log_address_format = internal`, and Postfix before 3.5: no quotes, so an address may hold anything.

    It ends at the first `>, relay=`, as everything after that may be the remote server's words.
    """
    recipient, _, orig_to = match[1].partition(">, orig_to=<")
    return _from_pairs(record, queue_id, recipient, orig_to, match)


_PAIR: Final = re.compile(r", ([\w-]+)=([^,]*)", re.ASCII)
_DELAYS: Final = re.compile(rf"({NUMBER})/({NUMBER})/({NUMBER})/({NUMBER})", re.ASCII)
_DELAY: Final = re.compile(rf"-?{NUMBER}", re.ASCII)
_COUNT: Final = re.compile(r"\d{1,9}", re.ASCII)


def _from_pairs(
    record: LogRecord, queue_id: str, recipient: str, orig_to: str, match: re.Match[str]
) -> DeliveryAttempt | None:
    relay, outcome = read_relay(match["relay"]), read_outcome(match["outcome"])
    values = dict(_PAIR.findall(match["pairs"]))
    delay = values.pop("delay", "0")
    delays = _DELAYS.fullmatch(values.pop("delays", "0/0/0/0"))
    conn_use = values.pop("conn_use", "0")
    if not (relay and outcome and delays and _DELAY.fullmatch(delay) and _COUNT.fullmatch(conn_use)):
        return None
    reason = read_reason(match["rest"], len(record.text))
    return DeliveryAttempt(
        record=record,
        queue_id=queue_id,
        recipient=recipient,
        orig_to=orig_to,
        relay_host=relay.host,
        relay_address=relay.address,
        relay_port=relay.port,
        conn_use=relay.conn_use or int(conn_use) or None,
        delay=float(delay),
        delays=Delays(*map(float, delays.groups())),
        tls=values.pop("tls", ""),
        dsn=outcome[0],
        status=outcome[1],
        reason=reason,
        extra=tuple(values.items()),
    )


_CUT: Final = 900
"""No syslog daemon cuts a shorter text; Postfix itself cuts at 2000 bytes."""


def read_reason(rest: str, length: int) -> str:
    """What stands between the parentheses; the last one may be missing where the line, of this length, was cut."""
    if length < _CUT and rest.endswith(") "):
        rest = rest.rstrip(" ")  # what has passed through some other program
    whole = rest.endswith(")") and not (length >= _CUT and rest.endswith(" command)") and _IN_REPLY.fullmatch(rest))
    return rest[:-1] if whole else rest


_PAIRS: Final = r"(?P<relay>[^,]*+)(?P<pairs>(?>(?:, (?!dsn=)[\w-]++=[^,]*+)*))"
_END: Final = r", dsn=(?P<outcome>[\d.]++, status=[^\s(]++) \((?P<rest>.*)"

DELIVERY: Final = (
    # Loose where the function looks again: a number spelt out in an expression costs 150 ns.
    queued(
        "delivery",
        "to=<",
        rf"({ADDRESS})>(?:, orig_to=<({ADDRESS})>)?, relay=([^,]*+(?:, conn_use=\d++)?), delay=(-?[\d.]++)"
        rf", delays=([\d./]++)(?:, tls=([^,]*+))?{_END}",
        delivery,
    ),
    queued(
        "delivery-other-keys",
        "to=",
        rf"(?:<({ADDRESS})>|({BARE_ADDRESS}))(?:, orig_to=(?:<({ADDRESS})>|({BARE_ADDRESS})))?"
        rf", relay={_PAIRS}{_END}",
        delivery_other_keys,
    ),
    queued(
        "delivery-internal-form",
        "to=<",
        rf'(?!(?:[^<>]*+>, orig_to=<)?")(?>(.*?)>, relay=){_PAIRS}{_END}',
        delivery_internal,
    ),
)
"""Of any daemon: cleanup, qmgr and an admin's own agents log deliveries too."""

DELIVERY_LITERAL: Final = ": to="
"""What every such line holds, whatever its envelope."""


def remote_reply(record: LogRecord, queue_id: str, match: re.Match[str]) -> RemoteReply:
    return RemoteReply(record, queue_id, match[1], match[2], match[0], read_reply(match[0]))


def lost_connection(record: LogRecord, queue_id: str, match: re.Match[str]) -> RemoteReply:
    """A conversation that broke: nothing more was said."""
    return RemoteReply(record, queue_id, match[1], match[2], match[0], None)


def sasl_said(record: LogRecord, queue_id: str, match: re.Match[str]) -> RemoteReply:
    reply = read_reply(match[0])
    host, address = (reply.host, reply.address) if reply else ("", "")
    return RemoteReply(record, queue_id, host, address, match[0], reply)


def connection_failed(record: LogRecord, queue_id: str, match: re.Match[str]) -> ConnectionFailed:
    host, address, port, reason, old_port = match.groups()
    return ConnectionFailed(record, queue_id, host, address, number(port or old_port), reason)


def subsystem_failed(record: LogRecord, queue_id: str, match: re.Match[str]) -> ConnectionFailed:
    """A socket of Postfix itself, or the path of an LMTP server."""
    return ConnectionFailed(record, queue_id, "", match[1], None, match[2])


def header_checked(record: LogRecord, queue_id: str, match: re.Match[str]) -> HeaderLogged:
    """smtp_header_checks and its like, after the message has left the queue (smtp_hbc_logger in smtp_proto.c).

    What a table adds to its action stands behind the line's first 60 characters and a ": ", and is not told apart.
    """
    where, line = match.groups()
    header, colon, value = line.partition(":") if where != "body" else ("", "", line)
    action = match[0].partition(": ")[0]
    return HeaderLogged(record, queue_id, header if colon else "", value.strip(" "), action, "", "")


_CHECKED: Final = ("info", "warning", "replace", "prepend", "strip")

AGENTS: Final = Grammar(
    *DELIVERY,
    queued("host-said", "host ", rf"{PEER} (?:said|refused to talk to me): .*", remote_reply),
    queued("lost-connection", "lost connection with ", rf"{PEER} while .*", lost_connection),
    queued("timed-out", "conversation with ", rf"{PEER} timed out while .*", lost_connection),
    queued("sasl-said", "SASL authentication failed; ", ".*", sasl_said),
    plain("connect-to", "connect to ", rf"{PEER}: (.*?)(?: \(port (\d{{1,5}})\))?", connection_failed),
    plain("connect-to-subsystem", "connect to subsystem ", r"(\S+): (.*)", subsystem_failed),
    *(queued(f"{verb}-line", verb, r": (header|mime|nested|body) (.*)", header_checked) for verb in _CHECKED),
    *CLIENT_TLS,
    *queued_notes(
        "status=deferred (",
        "passing <",
        "enabling PIX workarounds: ",
        "enabling PIX <CRLF>.<CRLF> workaround for ",
        "breaking line > ",
    ),
    plain("smtputf8", "host ", rf"{PEER} offers SMTPUTF8 support, but not 8BITMIME", note),
    *notes("TLSRPT: status=success, ", "discarding EHLO keywords: ", "Host offered STARTTLS: "),
    *ANY_DAEMON,
    ABOUT_PEER,
)
