"""Lines of those who meet clients before smtpd does, or count them: postscreen(8), dnsblog(8), tlsproxy(8), anvil(8)."""

import re
from typing import Final

from parsers.postfix.facts import CacheStatistic, DnsblHit, PostscreenVerdict, RateStatistic, Rejected
from parsers.postfix.grammar import Grammar, Shape, plain, queued
from parsers.postfix.notes import ANY_DAEMON, note, notes
from parsers.postfix.tls import PROXY_TLS
from parsers.postfix.tokens import ENDPOINT, PEER, number, queue_id
from parsers.postfix.transaction import read_transaction
from parsers.record import LogRecord


def verdict(record: LogRecord, _lead: str, match: re.Match[str]) -> PostscreenVerdict:
    """`VERDICT [detail] [from|for] [I]:p[ detail]`; what a client had sent stands last, in the detail."""
    before, address, port, behind = match.groups()
    said = match[0][: match.start(1)]
    detail = " ".join(part for part in (before.strip(" "), behind.lstrip(" :")) if part)
    return PostscreenVerdict(record, "", said, address, number(port), detail)


def rejected(record: LogRecord, lead: str, match: re.Match[str]) -> Rejected:
    """Postscreen's fields are parted by commas, smtpd's are not; `reject: CONNECT` carries none."""
    stage, address, _, code, enhanced, rest = match.groups("")
    text, transaction = read_transaction(rest)
    return Rejected(
        record,
        queue_id(lead),
        action="reject",
        stage=stage,
        code=code,
        enhanced=enhanced,
        text=text,
        sender=transaction.sender,
        recipient=transaction.recipient,
        client_host="",
        client_address=address,
        helo=transaction.helo,
        sasl_username="",
    )


def cache_statistic(record: LogRecord, _lead: str, match: re.Match[str]) -> CacheStatistic:
    return CacheStatistic(record, "", match[0])


def dnsbl_hit(record: LogRecord, _lead: str, match: re.Match[str]) -> DnsblHit:
    address, domain, answer = match.groups()
    return DnsblHit(record, "", address, domain, answer)


def rate_statistic(record: LogRecord, _lead: str, match: re.Match[str]) -> RateStatistic:
    kind, value, period, service, client = match.groups("")
    return RateStatistic(record, "", kind, int(value), period, service, client)


def cache_size(record: LogRecord, _lead: str, match: re.Match[str]) -> RateStatistic:
    return RateStatistic(record, "", "cache size", int(match[1]), "", "", "")


_VERDICTS: Final = (
    ("connect", "CONNECT", "() from "),
    ("pass-old", "PASS OLD", "() "),
    ("pass-new", "PASS NEW", "() "),
    ("disconnect", "DISCONNECT", "() "),
    ("pregreet", "PREGREET", r"( \d{1,9} after [\d.]{1,15}) from "),
    ("hangup", "HANGUP", r"( after [\d.]{1,15}) from "),
    ("dnsbl", "DNSBL", r"( rank -?\d{1,9}) for "),
    ("time-limit", "COMMAND TIME LIMIT", "() from "),
    ("count-limit", "COMMAND COUNT LIMIT", "() from "),
    ("length-limit", "COMMAND LENGTH LIMIT", "() from "),
    ("pipelining", "COMMAND PIPELINING", "() from "),
    ("non-smtp-command", "NON-SMTP COMMAND", "() from "),
    ("bare-newline", "BARE NEWLINE", "() from "),
    ("data-without-rcpt", "DATA without valid RCPT", "() from "),
    ("bdat-without-rcpt", "BDAT without valid RCPT", "() from "),
    ("allowlisted", "ALLOWLISTED", "() "),
    ("denylisted", "DENYLISTED", "() "),
    ("allowlist-veto", "ALLOWLIST VETO", "() "),
    ("whitelisted", "WHITELISTED", "() "),  # until 3.5, as the next two
    ("blacklisted", "BLACKLISTED", "() "),
    ("whitelist-veto", "WHITELIST VETO", "() "),
)
"""Name, the verdict's words, what stands between them and the client."""


def _verdicts(*rows: tuple[str, str, str]) -> tuple[Shape, ...]:
    return tuple(plain(name, words, f"{between}{ENDPOINT}(.*)", verdict) for name, words, between in rows)


POSTSCREEN: Final = Grammar(
    *_verdicts(*_VERDICTS),
    queued(
        "reject",
        "reject: ",
        rf"([A-Z][A-Za-z-]{{0,40}}) from {ENDPOINT}: (?:([2-5]\d\d) )?(?:([245]\.\d{{1,3}}\.\d{{1,3}}) )?(.*)",
        rejected,
    ),
    plain("reject-connect", "reject: ", rf"(connect) from {ENDPOINT}: ()()(.*)", rejected),
    plain("cache", "cache ", r"\S+ (?:full|partial) cleanup: .*", cache_statistic),
    *notes("entering STRESS mode ", "leaving STRESS mode "),
    plain("table-finishing", "table ", r"\S+ has changed - finishing in the background", note),
    plain("about-client", "", r"\[[^\]]*+\]:?\d{1,5}: (?:replacing command|discarding EHLO keywords).*", note),
    *ANY_DAEMON,
)

DNSBLOG: Final = Grammar(
    plain("listed", "addr ", r"(\S+) (?:listed|blocked) by domain (\S+) as (.*)", dnsbl_hit), *ANY_DAEMON
)

TLSPROXY: Final = Grammar(
    *_verdicts(("connect", "CONNECT", "() (?:from|to) "), ("disconnect", "DISCONNECT", "() ")),
    plain("connect-to-server", "CONNECT to ", PEER, note),
    plain("disconnect-server", "DISCONNECT ", PEER, note),
    *PROXY_TLS,
    *ANY_DAEMON,
)

_CLIENT: Final = r"\(((?:[0-9.]{7,15}:|\[[^\]]{0,64}\]:)?[^:()]{1,64}):([^()]*)\)"
_AT: Final = r" at [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"

ANVIL: Final = Grammar(
    plain(
        "rate", "statistics: max ", rf"([a-z]+ rate) (\d{{1,15}})/(\d{{1,9}}[smhdw]) for {_CLIENT}{_AT}", rate_statistic
    ),
    plain("count", "statistics: max ", rf"([a-z]+ count) (\d{{1,15}})() for {_CLIENT}{_AT}", rate_statistic),
    plain("cache-size", "statistics: max cache size ", rf"(\d{{1,15}}){_AT}", cache_size),
    *ANY_DAEMON,
)

SCACHE: Final = Grammar(plain("statistics", "statistics: ", ".*", cache_statistic), *ANY_DAEMON)

VERIFY: Final = Grammar(plain("cache", "cache ", r"\S+ (?:full|partial) cleanup: .*", cache_statistic), *ANY_DAEMON)
