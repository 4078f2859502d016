"""A mail log of a busy fleet, made up line by line and the same every time; with what a reader should find in it.

Two instances and a dozen lanes, both kinds of queue ids, retries of what was deferred, and the lines around the mail
(postscreen, TLS, anvil, an IMAP server) that a reader must get out of its way.
"""

import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple, TextIO

BEGIN: Final = 1748779200.0
"""2025-06-01T12:00:00Z, the first line's time."""
PER_SECOND: Final = 12
"""Sessions begun in a second, refused ones too."""


class Style(StrEnum):
    BSD = "bsd"
    ISO = "iso"
    NEWEST = "newest"
    """Postfix 3.11 with ISO stamps: `tls=` in deliveries, notifications before their lines, NOQUEUE for what was lost."""


_DIGITS: Final = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
_DOMAINS: Final = [f"shop-{number}.example" for number in range(300)]
_CLIENTS: Final = [
    (f"h{number}.client.example.net" if number % 4 else "unknown", f"198.51.100.{number % 250}")
    for number in range(800)
]
_RELAYS: Final = [
    (f"{name}{number}.{domain}", f"192.0.2.{number * 7 % 250}" if number % 6 else f"2001:db8:{number:x}::1b")
    for number in range(60)
    for name, domain in (
        ("alt", "gmail-smtp-in.l.google.com"), ("example-com", "mail.protection.outlook.com"),
        ("mta", "am0.yahoodns.net"), ("mx", "emig.gmx.net"),
    )
]  # fmt: skip
_ACCEPTED: Final = (
    "250 2.0.0 OK  1748779200 {hex}a640c23a62f3a-a6f0{hex} - gsmtp",
    (
        "250 2.6.0 <{hex}@{domain}> [InternalId={number}, Hostname=DB9PR06MB{number}.eurprd06.prod.outlook.com]"
        " 18452 bytes in 0.213, 84.414 KB/sec Queued mail for delivery"
    ),
    "250 ok dirdel",
    "250 2.0.0 Ok: queued as {qid}",
)
_RATE: Final = (
    "host {host}[{ip}] said: 421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating"
    " 421-4.7.28 from your SPF domain [{domain}      35]. To protect our users 421-4.7.28 from spam, mail sent from"
    " your domain has been temporarily 421-4.7.28 rate limited. For more information, go to 421 4.7.28"
    "  https://support.google.com/mail/?p=UnsolicitedRateLimitError {hex} - gsmtp (in reply to end of DATA command)"
)
_REPUTATION: Final = (
    "host {host}[{ip}] said: 451 4.7.650 The mail server [203.0.113.9] has been temporarily rate limited due"
    " to IP reputation. For e-mail delivery information, see https://postmaster.live.com (S775)"
    " [Name=Protocol Filter Agent][AGT=PFA][MxId={hex}] (in reply to MAIL FROM command)"
)
_VOLUME: Final = (
    "host {host}[{ip}] refused to talk to me: 421 4.7.0 [TSS04] Messages from 203.0.113.9 temporarily deferred"
    " due to unexpected volume or user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes"
)
_DEFERRED: Final = (
    ("4.7.28", _RATE),
    ("4.7.650", _REPUTATION),
    ("4.7.0", _VOLUME),
    ("4.4.1", "connect to {host}[{ip}]:25: Connection timed out"),
    ("4.4.1", "delivery temporarily suspended: connect to {host}[{ip}]:25: Connection timed out"),
)
_NO_SUCH_USER: Final = (
    "host {host}[{ip}] said: 550-5.1.1 The email account that you tried to reach does not exist. Please try"
    " 550-5.1.1 double-checking the recipient's email address for typos or 550-5.1.1 unnecessary spaces. For more"
    " information, go to 550 5.1.1  https://support.google.com/mail/?p=NoSuchUser {hex} - gsmtp"
    " (in reply to RCPT TO command)"
)
_UNWANTED: Final = (
    "host {host}[{ip}] said: 550 5.7.1 Our system has detected that this message is likely unsolicited mail."
    " {hex} (in reply to end of DATA command)"
)
_BOUNCED: Final = (("5.1.1", _NO_SUCH_USER), ("5.7.1", _UNWANTED))


class _Message(NamedTuple):
    arrived: float
    instance: str
    qid: str


def write_log(
    out: TextIO, lines: int, *, style: Style = Style.BSD, seed: int = 7, to_the_end: bool = False
) -> Counter[str]:
    """Write that many lines, or a few more; tell how many deliveries of each status and how many removals are in them.

    `to_the_end`: and the lines of all messages that have begun by then, until the last is removed.
    """
    return _Fleet(style, random.Random(seed)).write(out, lines, to_the_end=to_the_end)


class _Fleet:
    """Lines are put down ahead of their time and written when it comes, as several processes log at once."""

    def __init__(self, style: Style, random_: random.Random) -> None:
        self._newest = style is Style.NEWEST
        self._stamp: Callable[[float], str] = _bsd if style is Style.BSD else _iso
        self._random = random_
        self._ahead: list[tuple[float, int, str]] = []
        self._put = 0
        self._pids: dict[tuple[str, int], int] = {}
        self.truth: Counter[str] = Counter()

    def write(self, out: TextIO, lines: int, *, to_the_end: bool) -> Counter[str]:
        now, written = BEGIN, 0
        while written < lines:
            now += self._random.expovariate(PER_SECOND)
            self._session(now)
            while self._ahead and self._ahead[0][0] <= now:
                out.write(heapq.heappop(self._ahead)[2])
                written += 1
        while to_the_end and self._ahead:
            out.write(heapq.heappop(self._ahead)[2])
        unwritten = Counter(kind for _, _, line in self._ahead for kind in _kinds(line))
        return self.truth - unwritten

    def _log(self, at: float, tag: str, text: str) -> None:
        self.truth.update(_kinds(text))
        place = (tag, self._random.randrange(1 if tag.endswith("/qmgr") else 12))
        if place not in self._pids or self._random.random() < 0.002:  # max_use: processes do not live long
            self._pids[place] = self._random.randrange(1_000, 400_000)
        self._put += 1
        line = f"{self._stamp(at)} mx1 {tag}[{self._pids[place]}]: {text}\n"
        heapq.heappush(self._ahead, (at, self._put, line))

    def _session(self, at: float) -> None:
        chance = self._random.random
        instance = "postfix" if chance() < 0.9 else "postfix-out"
        host, address = self._random.choice(_CLIENTS)
        client, smtpd = f"{host}[{address}]", f"{instance}/smtpd"
        if chance() < 0.5:
            smtpd = f"{instance}/submission/smtpd"
        else:
            self._screened(at, instance, address)
        if chance() < 0.04:
            self._log(at, "dovecot", f"imap-login: Login: user=<u>, method=PLAIN, rip={address}, TLS")
        self._log(at, smtpd, f"connect from {client}")
        if chance() < 0.3:
            self._log(at + 0.1, smtpd, f"Anonymous TLS connection established from {client}: TLSv1.3 with cipher"
                      " TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519 server-signature RSA-PSS (2048 bits)")  # fmt: skip
        refused = chance()
        if refused < 0.10:
            self._log(at + 0.2, smtpd, f"NOQUEUE: reject: RCPT from {client}: 554 5.7.1 Service unavailable; Client host"
                      f" [{address}] blocked using zen.example.org; https://www.example.org/query/ip/{address};"
                      f" from=<a@{self._random.choice(_DOMAINS)}> to=<info@example.org> proto=ESMTP helo=<{host}>")  # fmt: skip
            self._log(at + 0.3, smtpd, f"disconnect from {client} ehlo=1 mail=1 rcpt=0/1 quit=1 commands=3/4")
        elif refused < 0.15:
            lost = f"lost connection after {self._random.choice(('CONNECT', 'EHLO', 'AUTH'))} from {client}"
            self._log(at + 0.2, smtpd, f"NOQUEUE: {lost}" if self._newest else lost)
            self._log(at + 0.2, smtpd, f"disconnect from {client} ehlo=1 commands=1")
        else:
            self._message(at + 0.2, instance, smtpd, client)

    def _screened(self, at: float, instance: str, address: str) -> None:
        self._log(
            at,
            f"{instance}/postscreen",
            f"CONNECT from [{address}]:{self._random.randrange(1024, 65535)} to [203.0.113.9]:25",
        )
        if self._random.random() < 0.2:
            self._log(at, f"{instance}/dnsblog", f"addr {address} listed by domain zen.example.org as 127.0.0.4")
        self._log(at, f"{instance}/postscreen", f"PASS OLD [{address}]:{self._random.randrange(1024, 65535)}")
        if self._random.random() < 0.05:
            self._log(
                at,
                f"{instance}/anvil",
                f"statistics: max connection rate 4/60s for (smtp:{address}) at Jun  1 00:00:13",
            )

    def _message(self, at: float, instance: str, smtpd: str, client: str) -> None:
        rnd = self._random
        qid, domain = self._queue_id(), rnd.choice(_DOMAINS)
        login = f", sasl_method=PLAIN, sasl_username=app{rnd.randrange(99)}@{domain}" if "submission" in smtpd else ""
        self._log(at, smtpd, f"{qid}: client={client}{login}")
        self._log(
            at + 0.01,
            f"{instance}/cleanup",
            f"{qid}: message-id=<{rnd.randrange(10**12)}.{rnd.randrange(10**9)}@{domain}>",
        )
        sender = f"bounce-{rnd.randrange(10**6)}@{domain}"
        recipients = [self._recipient() for _ in range(rnd.choice((1, 1, 1, 1, 2, 4)))]
        self._log(at + 0.05, smtpd, f"disconnect from {client} ehlo=2 starttls=1 auth=1 mail=1 rcpt={len(recipients)}"
                  f" data=1 quit=1 commands={len(recipients) + 7}")  # fmt: skip
        active = f"from=<{sender}>, size={rnd.randrange(1_000, 90_000)}, nrcpt={len(recipients)} (queue active)"
        self._deliveries(_Message(at, instance, qid), at + 0.05, active, recipients)

    def _deliveries(self, message: _Message, at: float, active: str, to: list[str]) -> None:
        rnd = self._random
        self._log(at, f"{message.instance}/qmgr", f"{message.qid}: {active}")
        again: list[str] = []
        bounced = False
        for recipient in to:
            chance = rnd.random()
            if chance < 0.855:
                outcome = "2.0.0", "sent", rnd.choice(_ACCEPTED)
            elif chance < 0.946:
                dsn, reason = rnd.choice(_DEFERRED)
                outcome = dsn, "deferred", reason
                again.append(recipient)
            else:
                dsn, reason = rnd.choice(_BOUNCED)
                outcome = dsn, "bounced", reason
                bounced = True
            self._delivery(message, at, recipient, outcome)
        if bounced:
            self._notification(at + 5.0, message)
        if not again:
            self._log(at + 6.0, f"{message.instance}/qmgr", f"{message.qid}: removed")
        else:
            self._deliveries(message, at + 300.0, active, again)

    def _delivery(self, message: _Message, at: float, to: str, outcome: tuple[str, str, str]) -> None:
        rnd = self._random
        dsn, status, reason = outcome
        took = rnd.expovariate(1.5)
        host, ip = rnd.choice(_RELAYS)
        lane = f"lane-{rnd.randrange(12):02}/" if rnd.random() < 0.3 else ""
        agent = f"{message.instance}/{lane}smtp"
        if rnd.random() < 0.2:
            self._log(
                at + took / 2, agent, f"Trusted TLS connection established to {host}[{ip}]:25: TLSv1.3 with cipher"
                " TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519 server-signature RSA-PSS (2048 bits)",
            )  # fmt: skip
        reason = reason.format(
            host=host,
            ip=ip,
            domain=rnd.choice(_DOMAINS),
            qid=self._queue_id(),
            hex=f"{rnd.randrange(1 << 60):x}",
            number=rnd.randrange(10**12),
        )
        unreached = reason.startswith(("connect to", "delivery temporarily suspended"))
        relay = "none" if unreached else f"{host}[{ip}]:25"
        conn_use = f", conn_use={rnd.randrange(2, 9)}" if rnd.random() < 0.12 else ""
        tls = f", tls={rnd.choice(('may', 'dane', 'encrypt:may'))}" if self._newest and rnd.random() < 0.9 else ""
        before = at - message.arrived
        self._log(
            at + took,
            agent,
            f"{message.qid}: to=<{to}>, relay={relay}{conn_use}, delay={_digits(before + took)}, delays={_digits(before)}"
            f"/0.01/{_digits(took / 3)}/{_digits(took * 2 / 3)}{tls}, dsn={dsn}, status={status} ({reason})",
        )

    def _notification(self, at: float, message: _Message) -> None:
        """A bounce is a message of its own; 3.11 names it before cleanup does, older ones after."""
        instance, child = message.instance, self._queue_id()
        names = f"{message.qid}: sender non-delivery notification: {child}"
        self._log(at if self._newest else at + 0.2, f"{instance}/bounce", names)
        self._log(at + 0.1, f"{instance}/cleanup", f"{child}: message-id=<{at:.0f}.{child}@mx1.example.net>")
        self._log(at + 0.3, f"{instance}/qmgr", f"{child}: from=<>, size=4096, nrcpt=1 (queue active)")
        self._delivery(_Message(at, instance, child), at + 0.3, self._recipient(), ("2.0.0", "sent", _ACCEPTED[3]))
        self._log(at + 10.0, f"{instance}/qmgr", f"{child}: removed")

    def _recipient(self) -> str:
        rnd = self._random
        domain = rnd.choice(("gmail.com", "outlook.com", "yahoo.com", "gmx.net", f"d{rnd.randrange(900)}.example.com"))
        return f'"first last"@{domain}' if rnd.random() < 0.005 else f"user{rnd.randrange(10**5)}@{domain}"

    def _queue_id(self) -> str:
        if self._random.random() < 0.5:
            return (
                "4" + "".join(self._random.choices(_DIGITS, k=10)) + "z" + "".join(self._random.choices(_DIGITS, k=3))
            )
        return f"{self._random.randrange(1 << 20):05X}{self._random.randrange(1 << 24):06X}"


def _kinds(line: str) -> Iterator[str]:
    """What a line counts for; nothing in a generated line is made to look like another."""
    for status in ("sent", "deferred", "bounced"):
        if f", status={status} (" in line:
            yield status
    if line.endswith((": removed", ": removed\n")):
        yield "removed"


def _bsd(at: float) -> str:
    now = time.gmtime(at)
    return f"{time.strftime('%b', now)} {now.tm_mday:2} {time.strftime('%H:%M:%S', now)}"


def _iso(at: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1e6):06}+00:00"


def _digits(seconds: float) -> str:
    """Two significant digits, as Postfix logs delays."""
    return f"{seconds:.0f}" if seconds >= 10 else f"{round(seconds, 2):.2g}"
