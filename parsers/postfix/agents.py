"""Lines of the delivery agents: smtp, lmtp, local, virtual, pipe, error, discard, retry, and any daemon that logs a delivery.

The record that log_adhoc.c writes is made of what strangers choose: the recipient and the remote server's reply. It
is read from the left, field by field, and what follows `status=S (` is never searched.
"""

import re
from typing import Final

from parsers.postfix.delivery import delivery, read_outcome, read_reason, read_relay
from parsers.postfix.facts import ConnectionFailed, Delays, DeliveryAttempt, HeaderLogged, RemoteReply
from parsers.postfix.grammar import Grammar, plain, queued
from parsers.postfix.notes import ABOUT_PEER, ANY_DAEMON, note, notes, queued_notes
from parsers.postfix.tls import CLIENT_TLS
from parsers.postfix.tokens import ADDRESS, BARE_ADDRESS, NUMBER, PEER, number
from parsers.record import LogRecord
from parsers.smtp import read_reply


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
        DeliveryAttempt,
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
    queued("protocol-error", "Protocol error: host ", rf"{PEER} said: .*", remote_reply),
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
