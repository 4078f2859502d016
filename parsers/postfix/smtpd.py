"""Lines of smtpd(8): who came, what was begun, what was refused, who failed to log in (smtpd.c, smtpd_check.c).

HELO names, addresses, SASL names and the texts of refusals are strangers' words. Client, action, stage and codes
stand before them and are read from the left.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from parsers.postfix.agents import DELIVERY
from parsers.postfix.facts import (
    ClientConnected,
    ClientDisconnected,
    ClientIdentified,
    ConnectionLost,
    Filtered,
    Held,
    Rejected,
    SaslFailed,
)
from parsers.postfix.grammar import Grammar, MakeFact, plain, queued, warned
from parsers.postfix.notes import ABOUT_PEER, ANY_DAEMON, notes, queued_notes
from parsers.postfix.tls import SERVER_TLS
from parsers.postfix.tokens import PEER, QUEUE_ID, queue_id
from parsers.postfix.transaction import read_transaction
from parsers.record import LogRecord

_make: Final = tuple.__new__


def client(record: LogRecord, lead: str, match: re.Match[str]) -> ClientIdentified:
    host, address, _, orig_queue_id = match.groups()
    return _make(ClientIdentified, (record, queue_id(lead), host, address, "", "", orig_queue_id or ""))


def client_logged_in(record: LogRecord, lead: str, match: re.Match[str]) -> ClientIdentified:
    """After a SASL name, and after what MAIL FROM's AUTH= says, `orig_queue_id=` may be a stranger's: not believed."""
    host, address, _, method, username = match.groups("")
    return _make(
        ClientIdentified,
        (record, queue_id(lead), host, address, method, username.partition(", sasl_sender=")[0], ""),
    )


_CODES: Final = re.compile(r"(?:([2-5]\d\d) )?(?:([245]\.\d{1,3}\.\d{1,3}) )?(.*)", re.ASCII | re.DOTALL)
_TRIGGER: Final = re.compile(
    r'<(?:"(?>(?:[^"\\]|\\.)*)"[^<>"]*+|[^<>]*+|<[^<>]*+>)>: '
    r"(?:(?:Unverified )?Client host|Client certificate|Helo command|SASL login name|Sender address|Recipient address"
    r"|Etrn command|Data command|End-of-data) ",
    re.ASCII,
)


def held(record: LogRecord, lead: str, match: re.Match[str]) -> Held:
    """`hold: STAGE from H[I]: <trigger>: CLASS text; …`; of a milter `milter-hold: …: milter triggers HOLD action; …`."""
    stage, _, _, _, rest = match.groups()
    text, transaction = read_transaction(rest)
    return Held(
        record,
        queue_id(lead),
        by="policy" if match[0].startswith("hold") else "milter",
        stage=stage,
        text=_TRIGGER.sub("", text, count=1),
        sender=transaction.sender,
        recipient=transaction.recipient,
    )


def filtered(record: LogRecord, lead: str, match: re.Match[str]) -> Filtered:
    stage, _, _, _, rest = match.groups()
    text, transaction = read_transaction(rest)
    destination = text.rpartition("triggers FILTER ")[2]
    return Filtered(record, queue_id(lead), stage, destination, transaction.sender, transaction.recipient)


def rejected(record: LogRecord, lead: str, match: re.Match[str]) -> Rejected:
    """`ACTION: STAGE from H[I]: [code] [enhanced] text; from=<> to=<> proto= helo=<>` (log_whatsup in smtpd_check.c).

    What a before-queue filter answered (smtpd_proxy.c) has no client: `proxy-reject: STAGE: [reply]; from=<> …`.
    """
    stage, host, address, _, rest = match.groups("")
    action = match[0].partition(": ")[0]
    text, transaction = read_transaction(rest)
    code, enhanced, text = _CODES.fullmatch(text).groups("")  # type: ignore[union-attr]  # it fits any text
    sender, recipient, helo, sasl_username, _ = transaction
    return _make(
        Rejected,
        (
            record,
            queue_id(lead),
            action,
            stage,
            code,
            enhanced,
            text,
            sender,
            recipient,
            host,
            address,
            helo,
            sasl_username,
        ),
    )


def etrn_rejected(record: LogRecord, _lead: str, match: re.Match[str]) -> Rejected:
    """`reject: ETRN DOMAIN... from H[I]`: of a client that may not use it at all (smtpd_etrn_cmd)."""
    stage, domain, host, address, _ = match.groups()
    return Rejected(
        record,
        "",
        action="reject",
        stage=stage,
        code="",
        enhanced="",
        text=domain,
        sender="",
        recipient="",
        client_host=host,
        client_address=address,
        helo="",
        sasl_username="",
    )


def connected(record: LogRecord, _lead: str, match: re.Match[str]) -> ClientConnected:
    host, address, _ = match.groups()
    return _make(ClientConnected, (record, "", host, address))


def disconnected(record: LogRecord, _lead: str, match: re.Match[str]) -> ClientDisconnected:
    host, address, _, counts = match.groups()
    return _make(ClientDisconnected, (record, "", host, address, _counts(counts)))


_COUNT: Final = re.compile(r" ([a-z]+)=(?:(\d{1,9})/)?(\d{1,9})", re.ASCII)


@lru_cache(maxsize=4096)
def _counts(text: str) -> tuple[tuple[str, int, int], ...]:
    """` ehlo=1 rcpt=0/1`: few are different."""
    return tuple((name, int(good or total), int(total)) for name, good, total in _COUNT.findall(text))


def connection_lost(record: LogRecord, lead: str, match: re.Match[str]) -> ConnectionLost:
    """`kind after STAGE from H[I]`, since 3.10 with the queue id or NOQUEUE before it."""
    stage, host, address, _ = match.groups()
    return ConnectionLost(record, queue_id(lead), match[0].partition(" after ")[0], stage, host, address)


def sasl_failed(record: LogRecord, _severity: str, match: re.Match[str]) -> SaslFailed:
    host, address, _, mechanism, rest = match.groups("")
    reason, _, username = rest.partition(", sasl_username=")
    return SaslFailed(
        record,
        "",
        client_host=host,
        client_address=address,
        mechanism=mechanism,
        sasl_username=username,
        reason=reason,
    )


_ACTIONS: Final[Mapping[str, MakeFact]] = {
    "reject": rejected,
    "reject_warning": rejected,
    "hold": held,
    "filter": filtered,
    "discard": rejected,
    "redirect": rejected,
    "bcc": rejected,
    "prepend": rejected,
    "replace": rejected,
    "warn": rejected,
    "info": rejected,
    "delay": rejected,
    "permit": rejected,
    "milter-reject": rejected,
    "milter-hold": held,
    "milter-discard": rejected,
}
_STAGE: Final = r"([A-Z][A-Za-z-]{0,40})"
_AFTER: Final = rf" after {_STAGE}(?: \(\d{{1,15}} bytes\))? from {PEER}"
_LOST: Final = (
    ("lost-connection", "lost connection"),
    ("timeout", "timeout"),
    ("too-many-errors", "too many errors"),
    ("bare-lf", "bare <LF> received"),
)


ACTIONS: Final = tuple(queued(verb, verb, rf": {_STAGE} from {PEER}: (.*)", fact) for verb, fact in _ACTIONS.items())
"""smtpd's; cleanup logs what milters decide at END-OF-MESSAGE in the same form."""

_PROXY: Final = rf"{_STAGE}()()(): (.*)"

SMTPD: Final = Grammar(
    queued("client", "client=", rf"{PEER}(?:, orig_queue_id=({QUEUE_ID}))?(?:, orig_client=.*)?", client),
    queued(
        "client-logged-in", "client=", rf"{PEER}(?:, sasl_method=([^,\s]*+))?, sasl_username=(.*)", client_logged_in
    ),
    queued("client-for-sender", "client=", rf"{PEER}(?:, sasl_method=([^,\s]*+))?, sasl_sender=.*()", client_logged_in),
    plain("connect", "connect from ", PEER, connected),
    plain("disconnect", "disconnect from ", rf"{PEER}((?>(?: [a-z]+=[\d/]+)*))", disconnected),
    *ACTIONS,
    *(queued(f"{name}-with-id", kind, _AFTER, connection_lost) for name, kind in _LOST),
    *(plain(name, kind, _AFTER, connection_lost) for name, kind in _LOST),
    warned("sasl-failed", "", rf"{PEER}: SASL ([A-Za-z0-9_-]+) authentication failed:(?: (.*))?", sasl_failed),
    queued("proxy-accept", "proxy-accept: ", _PROXY, rejected),
    queued("proxy-reject", "proxy-reject: ", _PROXY, rejected),
    plain("proxy-accept-without-id", "proxy-accept: ", _PROXY, rejected),
    plain("proxy-reject-without-id", "proxy-reject: ", _PROXY, rejected),
    plain("reject-etrn", "reject: ", rf"(ETRN) (.{{0,100}})\.\.\. from {PEER}", etrn_rejected),
    *SERVER_TLS,
    *notes(
        "improper command pipelining after ",
        "discarding EHLO keywords: ",
        "Relaying allowed for certified client: ",
        "relay_clientcerts: ",
    ),
    *queued_notes("replacing command "),
    *DELIVERY,
    *ANY_DAEMON,
    ABOUT_PEER,
)
