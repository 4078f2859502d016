"""TLS as clients and servers log it at level 1: who spoke which protocol with which cipher, and what failed (tls_misc.c).

Lines of smtp(8), lmtp(8), smtpd(8) and tlsproxy(8).
"""

import re
from typing import Final

from parsers.postfix.facts import TlsEstablished, TlsFailed
from parsers.postfix.grammar import plain, queued
from parsers.postfix.notes import notes
from parsers.postfix.tokens import PEER, number, queue_id
from parsers.record import LogRecord

CLIENT: Final = "client"
SERVER: Final = "server"


def established(record: LogRecord, _lead: str, match: re.Match[str]) -> TlsEstablished:
    direction, host, address, port, protocol, cipher, bits = match.groups()
    level = match[0].partition(" ")[0]
    return TlsEstablished(
        record,
        "",
        role=CLIENT if direction == "to" else SERVER,
        level=level,
        protocol=protocol,
        cipher=cipher,
        bits=int(bits),
        peer_host=host,
        peer_address=address,
        peer_port=number(port),
    )


def handshake_failed(record: LogRecord, _lead: str, match: re.Match[str]) -> TlsFailed:
    """`SSL_accept error from`, `SSL_connect error to`."""
    host, address, _, reason = match.groups()
    role = SERVER if match[0].startswith("SSL_accept") else CLIENT
    return TlsFailed(record, "", role, host, address, reason)


def not_trusted(record: LogRecord, _lead: str, match: re.Match[str]) -> TlsFailed:
    return TlsFailed(record, "", CLIENT, match[2], match[3], f"certificate {match[1]} failed: {match[5]}")


def client_not_trusted(record: LogRecord, _lead: str, match: re.Match[str]) -> TlsFailed:
    return TlsFailed(record, "", SERVER, match[2], match[3], f"certificate {match[1]} failed: {match[5]}")


def no_session(record: LogRecord, lead: str, match: re.Match[str]) -> TlsFailed:
    """`Q: Cannot start TLS: handshake failure`, `Q: Server certificate not trusted`: the peer is in a line before."""
    return TlsFailed(record, lead, CLIENT, "", "", match[0])


def required(record: LogRecord, lead: str, match: re.Match[str]) -> TlsFailed:
    """`Q: TLS is required, but was not offered by host H[I]`: this server is not the last one (smtp_trouble.c)."""
    host, address, _ = match.groups("")
    return TlsFailed(record, lead, CLIENT, host, address, match[0])


def aborted(record: LogRecord, lead: str, match: re.Match[str]) -> TlsFailed:
    host, address, _, reason = match.groups()
    return TlsFailed(record, queue_id(lead), SERVER, host, address, reason)


def reported(record: LogRecord, _lead: str, match: re.Match[str]) -> TlsFailed:
    """What goes into a TLSRPT report (RFC 8460; tlsrpt_wrapper.c)."""
    _domain, host, address, reason = match.groups("")
    return TlsFailed(record, "", CLIENT, host, address, reason)


def proxy_failed(record: LogRecord, _lead: str, match: re.Match[str]) -> TlsFailed:
    return TlsFailed(record, "", SERVER, match[2], match[3], f"TLS handshake failed for service {match[1]}")


_CIPHER: Final = r"(\S+) with cipher (\S+) \((\d{1,6})/\d{1,6} bits\).*"
_LEVELS: Final = ("Anonymous", "Untrusted", "Trusted", "Verified")

ESTABLISHED: Final = tuple(
    plain(
        f"tls-{level.lower()}",
        level,
        # A server's client may be followed by " to NAME", the name that it asked for.
        rf" TLS connection (?:established|reused) (from|to) {PEER}(?: to \S+)?: {_CIPHER}",
        established,
    )
    for level in _LEVELS
)

_CONNECT_ERROR: Final = plain("ssl-connect-error", "SSL_connect error to ", rf"{PEER}: (.*)", handshake_failed)
_ACCEPT_ERROR: Final = plain("ssl-accept-error", "SSL_accept error from ", rf"{PEER}: (.*)", handshake_failed)
_VERIFICATION: Final = rf"((?:peer name )?verification) failed for {PEER}: (.*)"
_UNVERIFIED: Final = (
    plain("certificate-verification-failed", "certificate ", _VERIFICATION, not_trusted),
    plain("server-certificate-verification-failed", "server certificate ", _VERIFICATION, not_trusted),
)
_CLIENT_UNVERIFIED: Final = (
    plain("certificate-verification-failed", "certificate ", _VERIFICATION, client_not_trusted),
    plain("client-certificate-verification-failed", "client certificate ", _VERIFICATION, client_not_trusted),
)
_SETTING_UP: Final = notes("setting up TLS connection ", "cannot load Certificat", "initializing the ")

CLIENT_TLS: Final = (
    *ESTABLISHED,
    _CONNECT_ERROR,
    *_UNVERIFIED,
    *_SETTING_UP,
    *notes("SSL_connect:", "SSL3 alert "),
    queued("cannot-start-tls", "Cannot start TLS: ", ".*", no_session),
    queued("tls-required", "TLS is required, but ", rf"(?:(?:was not offered by )?host {PEER}(?: .*)?|.*)", required),
    queued("certificate-not-trusted", "Server certificate not ", ".*", no_session),
    plain(
        "tlsrpt-failure",
        "TLSRPT: status=failure, domain=",
        r"([^,]*+)(?:, receiving_mx=([^\[,]*+)(?:\[([^\]]*+)\])?)?, failure_type=(.*)",
        reported,
    ),
)

SERVER_TLS: Final = (
    *ESTABLISHED,
    _ACCEPT_ERROR,
    *_CLIENT_UNVERIFIED,
    *_SETTING_UP,
    *notes("TLS SNI ", "SSL_accept:", "SSL3 alert "),
    queued("abort-tls", "abort: TLS from ", rf"{PEER}: (.*)", aborted),
)

PROXY_TLS: Final = (
    *ESTABLISHED,
    _CONNECT_ERROR,
    _ACCEPT_ERROR,
    *_UNVERIFIED,
    plain("handshake-failed", "TLS handshake failed for service=", rf"(\S*) peer={PEER}.*", proxy_failed),
)
