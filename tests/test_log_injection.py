"""Whatever strangers choose (recipients, senders, HELO, headers, message-ids, SASL names, replies) stays what it is.

Lines are put together as Postfix does it, of pieces that look like log fields, and read again. And any bytes whatever
give facts or nothing, in time that grows with their length.
"""

import itertools
import json
import re
import time
from collections import Counter
from datetime import UTC

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from parsers.fact_json import fact_json
from parsers.log import LogReader
from parsers.postfix import DAEMONS, parse
from parsers.postfix.delivery import usual_delivery
from parsers.postfix.facts import (
    ClientIdentified,
    DeliveryAttempt,
    Diagnostic,
    Fact,
    HeaderLogged,
    Held,
    MessageIdentified,
    PickedUp,
    QueueActive,
    Rejected,
    SaslFailed,
)
from parsers.record import LogRecord
from parsers.smtp import fold, read_reply

PIECES = (
    ">, relay=fake[6.6.6.6]:25, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 OK)",
    "<a@b>", ">", "<", '"', "\\", '\\"', "@", " ", ", ", "; ", ": ", "(", ")", "))", "[", "]", "=", "/", "x", "ü", "?",
    "status=sent (", "status=bounced (", ", dsn=5.1.1", "dsn=2.0.0, status=sent (250)", "relay=evil[6.6.6.6]:25",
    ">, orig_to=<", ", delays=0/0/0/0", ", tls=may", ", conn_use=2", "to=<", "from=<", "3F2A81C0B8: ", "3F2A81C0B8: removed",
    "; from=<f@f> to=<g@g> proto=SMTP helo=<h>", " from evil[6.6.6.6]; from=<f@f>", " from local; from=<f>", " helo=<",
    "> sasl_method=PLAIN sasl_username=admin", ", sasl_username=admin", ", sasl_sender=", ", orig_queue_id=3F2A81C0B8",
    ", orig_client=evil[6.6.6.6]", ", size=1, nrcpt=1 (queue active)", "> orig_id=3F2A81C0B8", "warning: ", "]: ",
    "mx1 postfix/smtp[1]: ", "host evil[6.6.6.6] said: 550 5.1.1 no", " (in reply to RCPT TO command)", "421-4.7.28 ",
    " 421 4.7.28 ", "550 5.1.1 ", "NOQUEUE: reject: ", "info: header From: ", "message repeated 3 times: [ ", "removed",
    "open active 3F2A81C0B8: No such file or directory", "SASL LOGIN authentication failed: ", "rate", "qid: <3F2A81C0B8>,",
)  # fmt: skip
crafted = st.lists(
    st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["C", "Z"]), max_size=3), max_size=8
).map("".join)
QUEUE_ID = "3F2A81C0B7"
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+")


def external(local: str) -> str:
    """An address as quote_822_local.c writes it: a local part that is no dot-string stands in quotes."""
    if not _ATOM.fullmatch(local):
        local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{local}@example.com"


COUNTING = LogReader(zone=UTC, only=(), counting=True)
ALONE = LogReader(zone=UTC, only=[DeliveryAttempt])
"""For which the process of the line is mostly a known one."""
OTHERS = (
    b"2025-06-01T12:00:00Z mx1 postfix/qmgr[1]: 3F2A81C0B7: from=<: to=<a@b>, size=1, nrcpt=1 (queue active)\n"
    b"2025-06-01T12:00:00Z mx1 postfix/smtp[1]: Trusted TLS connection established to mx[::1]:25: TLSv1.3 with cipher X (1/1 bits)\n"
    b"2025-06-01T12:00:00Z mx1 postfix/smtpd[1]: connect from mx[::1]\n\n_(: to=\n(\n: to=<("
    b"\n"
)
"""Lines without a delivery that have something of one."""


def read(daemon: str, text: str) -> Fact | None:
    """By the oracle, by a whole line, and counted."""
    record = LogRecord(1748779200.0, "mx1", "postfix", "", daemon, 1, text)
    fact = parse(record)
    line = f"2025-06-01T12:00:00Z mx1 postfix/{daemon}[1]: {text}\n".encode()
    assert LogReader(zone=UTC).block_facts(line + line) == ([fact, fact] if fact else [])
    alone = [fact, fact] if isinstance(fact, DeliveryAttempt) else []
    assert LogReader(zone=UTC, only=[DeliveryAttempt]).block_facts(line + line) == alone
    assert ALONE.block_facts(OTHERS + line + OTHERS + line) == alone
    before = COUNTING.known
    assert COUNTING.block_facts(line + line) == []
    assert COUNTING.known - before == (Counter({type(fact).__name__: 2}) if fact else Counter())
    return fact


DELIVERIES = st.tuples(
    crafted,
    st.none() | crafted,
    crafted,
    st.sampled_from(["", ", conn_use=3"]),
    st.sampled_from(["", ", tls=dane:may?", ", new=key", ", tls=may, a=b"]),
    st.sampled_from(["sent", "deferred", "bounced", "SOFTBOUNCE", "undeliverable-but-not-cached"]),
)


@given(DELIVERIES)
@settings(max_examples=400, deadline=None)
def test_delivery(pieces: tuple[str, str | None, str, str, str, str]) -> None:
    to, orig_to, reply, conn_use, keys, status = pieces
    orig = f", orig_to=<{external(orig_to)}>" if orig_to is not None else ""
    reason = f"host mx.example.net[192.0.2.25] said: 450 4.7.1 {reply} (in reply to MAIL FROM command)"
    fact = read(
        "smtp",
        f"{QUEUE_ID}: to=<{external(to)}>{orig}, relay=mx.example.net[192.0.2.25]:25{conn_use}, delay=1.5"
        f", delays=0.1/0.2/0.3/0.9{keys}, dsn=4.7.1, status={status} ({reason})",
    )
    assert isinstance(fact, DeliveryAttempt)
    assert fact.queue_id == QUEUE_ID
    assert fact.recipient == external(to)
    assert fact.orig_to == (external(orig_to) if orig_to is not None else "")
    assert fact[4:8] == ("mx.example.net", "192.0.2.25", 25, 3 if conn_use else None)
    assert (fact.delay, tuple(fact.delays)) == (1.5, (0.1, 0.2, 0.3, 0.9))
    assert (fact.dsn, fact.status, fact.reason) == ("4.7.1", status, reason)
    assert fact.reply is not None
    assert fact.reply[:2] == ("450", "4.7.1")
    assert fact.reply[3:] == ("mx.example.net", "192.0.2.25", "MAIL FROM")


PLACES: tuple[tuple[str, ...], ...] = (
    (
        "to=<a@b>",
        "to=<>",
        "to=<a, b@c>",
        'to=<"x>, relay=y"@z>',
        "to=a@b",
        "to=<a (b@c>",
        "to=<a<b>",
        "to=<a>b>",
        "to=<a",
        "to=<",
    ),
    ("", "orig_to=<c@d>", 'orig_to=<"c d"@e>', "orig_to=c", "orig_to=<c>d>", "orig_to=<"),
    (
        "relay=mx[::1]:25",
        "relay=none",
        "relay=",
        "relay=mx[a",
        "relay=mx,b",
        "relay=x (y",
        "relay=mx[1]:250000",
        "relay=x,",
        "relay=,c",
        "relay=a>b, conn_use=1",
        "delay=1",
    ),
    ("", "conn_use=2", "conn_use=0", "conn_use=", "conn_use=1234567890", "conn_use=x", "tls=may"),
    ("delay=0", "delay=1.5", "delay=-0.1", "delay=1.2.3", "delay=1e3", "delay=", "delays=1/2/3/4"),
    (
        "delays=0/0/0/0",
        "delays=0.1/2/300/4",
        "delays=1/2/3",
        "delays=1/2/3/4/5",
        "delays=1/2//4",
        "delays=.",
        "delay=1",
    ),
    ("", "tls=may", "tls=", "tls=dane:may?", "tls=a,b", "tls=a(b", "new=key"),
    ("dsn=2.0.0", "dsn=4.7.28", "dsn=4.7", "dsn=5.1.1234", "dsn=2.0.0 "),
    ("status=sent", "status=", "status=a(b", "status=SOFT bounce", "status=sent,"),
    (" (x)", " ()", " (", "", "(x)", " (x) ", " (x (in reply to DATA command)", " (a, b (c) d", " (and)"),
)
"""Each pair of a delivery as it should be, and otherwise."""


@given(st.tuples(*(st.sampled_from([place[0]] * len(place) + list(place)) for place in PLACES)), st.booleans())
@settings(max_examples=600, deadline=None)
def test_pairs_as_they_should_be_and_otherwise(pieces: tuple[str, ...], swapped: bool) -> None:  # noqa: FBT001  # as below
    *pairs, rest = pieces
    if swapped:
        pairs[-1], pairs[-2] = pairs[-2], pairs[-1]
    text = f"{QUEUE_ID}: {', '.join(filter(None, pairs))}{rest}"
    fact = read("smtp", text)
    short = usual_delivery(
        1748779200.0, "mx1", "postfix", "", "smtp", 1, QUEUE_ID, text, 0, len(QUEUE_ID) + 2, len(text)
    )
    assert short in {None, fact}


def test_what_is_usual_is_read_the_short_way() -> None:
    """Between other lines, of which nothing is taken; each pair that need not be there, there or not."""
    for orig_to, conn_use, tls in itertools.product(("", ", orig_to=<c@d>"), ("", ", conn_use=2"), ("", ", tls=may")):
        text = (
            f"{QUEUE_ID}: to=<a@b>{orig_to}, relay=mx[::1]:25{conn_use}, delay=0, delays=0/0/0/0{tls}"
            ", dsn=4.0.0, status=deferred (host mx[::1] said: 450 (in reply to RCPT TO command))"
        )
        lines = f"x: y\n{text}\n({text}"
        stop = 5 + len(text)
        begin = 5 + len(QUEUE_ID) + 2
        short = usual_delivery(1748779200.0, "mx1", "postfix", "", "smtp", 1, QUEUE_ID, lines, 5, begin, stop)
        assert short is not None
        assert short == read("smtp", text)


def test_a_delivery_that_is_cut_anywhere() -> None:
    text = (
        f"{QUEUE_ID}: to=<a@b>, orig_to=<c@d>, relay=mx[::1]:25, conn_use=2, delay=0, delays=0/0/0/0, tls=may, dsn=4.0.0"
        ", status=deferred (host mx[::1] said: 450 (in reply to RCPT TO command))"
    )
    lines = f"{text}, , , ((>>"
    for stop in range(len(QUEUE_ID) + 2, len(text)):
        fact = read("smtp", text[:stop])
        begin = len(QUEUE_ID) + 2
        short = usual_delivery(1748779200.0, "mx1", "postfix", "", "smtp", 1, QUEUE_ID, lines, 0, begin, stop)
        assert short in {None, fact}


PEERS = (
    "mx[192.0.2.1]", "unknown[unknown]", "[::1]", "mx[::1]:25", "a b[::1]", "a\t[::1]", "m]x[::1]", "mx[a]b]", "mx[", "mx]:25",
)  # fmt: skip
VERDICTS = (
    ("CONNECT", "PASS OLD", "PASS NEW", "PASS", "DISCONNECT", "HANGUP"), (" ", " from ", " to ", ""),
    ("[192.0.2.1]", "[::1]", "[]", "192.0.2.1", "[a]b]", "[", "]["), (":25", ":123456", ":", "", ":x", ":٣"), ("", " to [::1]:25", "]:1"),
)  # fmt: skip
ENCRYPTED = (
    ("Trusted", "Untrusted", "Anonymous", "Verified", "Trust"), (" TLS connection established to ", " TLS connection reused from ", " TLS "),
    PEERS, ("", ":25", ":123456"), (": ", " to a.example: ", ":"), ("TLSv1.3", "TLSv1.3 x", ""), (" with cipher X", " with cipher", ""),
    (" (256/256 bits)", " (1234567/1 bits)", "(256/256 bits)"), ("", " key-exchange X", " é", "\x7f"),
)  # fmt: skip
LINES: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
    ("qmgr", (
        ("from=<", "from=", 'from=<"', "from=<<"), ("a@b", "", "a b@c", "a>b"), (">, size=", ">, size=-", ">, size= ", ">,size="),
        ("512", "", "1" * 15, "1" * 16, "x", "٣", "1_0"), (", nrcpt=", ",nrcpt=", ", "), ("3", "", "1" * 9, "1" * 10, "3, nrcpt=3"),
        (" (queue active)", " (queue active) ", "(queue active)", ""),
    )),
    ("qmgr", (("removed", "removed ", "remove", "removed (canceled)"),)),
    ("cleanup", (("message-id=", "message-id", "resent-message-id="), ("<a@b>", "", "<a b", "x=<y>, z"))),
    ("cleanup", (("removed (", "removed"), ("canceled)", ")", ""))),
    ("smtpd", (
        ("client=", "client", "client=x "), ("mx[192.0.2.1]", "unknown[unknown]", "mx[::1]:25", "a,b[::1]", "mx[a,b]", "mx["),
        ("", ", sasl_method=PLAIN", ", sasl_method=", ", sasl_method=A-B", ", sasl_method=é", ", orig_queue_id=3F2A81C0B8"),
        ("", ", sasl_username=u", ", sasl_username=", ", sasl_sender=s", ", sasl_username=u, sasl_sender=s", ", orig_client=x"),
    )),
    ("smtpd", (
        ("connect from ", "connect to ", "disconnect from ", "disconnect from", "lost connection after AUTH from "), PEERS,
        ("", " ehlo=1 rcpt=0/1 commands=1/2", " ehlo=1", " ehlo=", " =1", " ehlo=1 ", ": x", " Ehlo=٣"),
    )),
    ("postscreen", VERDICTS), ("tlsproxy", VERDICTS), ("smtp", ENCRYPTED), ("smtpd", ENCRYPTED), ("tlsproxy", ENCRYPTED),
)  # fmt: skip
"""By daemon: the pieces of its frequent lines as they should be, and otherwise."""


@st.composite
def frequent(draw: st.DrawFn) -> tuple[str, str]:
    daemon, places = draw(st.sampled_from(LINES))
    return daemon, "".join(draw(st.sampled_from([place[0]] * len(place) + list(place))) for place in places)


@given(frequent(), st.sampled_from([QUEUE_ID, "4fRkzq1Z5wz2Dbc", "NOQUEUE"]))
@settings(max_examples=600, deadline=None)
def test_frequent_lines_as_they_should_be_and_otherwise(said: tuple[str, str], lead: str) -> None:
    daemon, text = said
    fact = read(daemon, f"{lead}: {text}")
    assert fact is None or fact.queue_id in {lead, ""}


@given(crafted)
@settings(max_examples=200, deadline=None)
def test_local_delivery_never_has_a_reply(text: str) -> None:
    fact = read(
        "pipe", f"{QUEUE_ID}: to=<a@b>, relay=tool, delay=1, delays=0/0/0/1, dsn=5.3.0, status=bounced (x{text})"
    )
    assert isinstance(fact, DeliveryAttempt)
    assert (fact.status, fact.relay_host, fact.reply, fact.reason) == ("bounced", "tool", None, f"x{text}")


@given(crafted, st.booleans())
@settings(max_examples=200, deadline=None)
def test_sender(local: str, quoted: bool) -> None:  # noqa: FBT001  # hypothesis fills it
    sender = external(local) if quoted else f"{local}@example.com"
    fact = read("qmgr", f"{QUEUE_ID}: from=<{sender}>, size=512, nrcpt=7 (queue active)")
    assert fact is not None
    assert fact[1:] == (QUEUE_ID, sender, 512, 7)
    assert isinstance(fact, QueueActive)
    fact = read("pickup", f"{QUEUE_ID}: uid=5 from=<{external(local)}>")
    assert isinstance(fact, PickedUp)
    assert fact[1:] == (QUEUE_ID, 5, external(local), "")


@given(crafted, crafted, crafted, st.sampled_from(["reject", "reject_warning", "milter-reject", "discard"]))
@settings(max_examples=400, deadline=None)
def test_refusal(sender: str, recipient: str, helo: str, action: str) -> None:
    fact = read(
        "smtpd",
        f"NOQUEUE: {action}: RCPT from out.example.org[192.0.2.9]: 554 5.7.1 <{external(recipient)}>: Relay access denied"
        f"; from=<{external(sender)}> to=<{external(recipient)}> proto=ESMTP helo=<{helo}>",
    )
    assert isinstance(fact, Rejected)
    assert (fact.queue_id, fact.action, fact.stage, fact.code, fact.enhanced) == ("", action, "RCPT", "554", "5.7.1")
    assert (fact.client_host, fact.client_address) == ("out.example.org", "192.0.2.9")
    assert (fact.sender, fact.recipient) == (external(sender), external(recipient))


@given(crafted, crafted)
@settings(max_examples=200, deadline=None)
def test_hold(key: str, helo: str) -> None:
    fact = read(
        "smtpd",
        f"{QUEUE_ID}: hold: END-OF-MESSAGE from out.example.org[192.0.2.9]: <END-OF-MESSAGE>: End-of-data held by us"
        f"; from=<{external(key)}> to=<a@b> proto=ESMTP helo=<{helo}>",
    )
    assert isinstance(fact, Held)
    assert fact[1:] == (QUEUE_ID, "policy", "END-OF-MESSAGE", "held by us", external(key), "a@b")


@given(crafted, crafted)
@settings(max_examples=200, deadline=None)
def test_login(username: str, sender: str) -> None:
    for tail in ("", f", sasl_sender={sender}"):
        fact = read(
            "smtpd", f"{QUEUE_ID}: client=a.example[192.0.2.9], sasl_method=PLAIN, sasl_username={username}{tail}"
        )
        assert isinstance(fact, ClientIdentified)
        assert fact[1:5] == (QUEUE_ID, "a.example", "192.0.2.9", "PLAIN")
        assert fact.orig_queue_id == ""
        if ", sasl_sender=" not in username:
            assert fact.sasl_username == username
    fact = read(
        "smtpd", f"warning: a.example[192.0.2.9]: SASL LOGIN authentication failed: bad, sasl_username={username}"
    )
    assert isinstance(fact, SaslFailed)
    assert fact[1:5] == ("", "a.example", "192.0.2.9", "LOGIN")
    assert (fact.reason, fact.sasl_username) == ("bad", username)


@given(crafted.filter(lambda text: len(text.encode()) < 190))
@settings(max_examples=200, deadline=None)
def test_header(value: str) -> None:
    for remark in ("", ": a remark"):
        fact = read(
            "cleanup",
            f"{QUEUE_ID}: info: header Subject: {value} from out.example.org[192.0.2.9]"
            f"; from=<a@b> to=<c@d> proto=ESMTP helo=<h>{remark}",
        )
        assert isinstance(fact, HeaderLogged)
        assert fact[1:] == (QUEUE_ID, "Subject", value.strip(" "), "info", "a@b", "c@d")
    fact = read("cleanup", f"{QUEUE_ID}: message-id={value}")
    assert isinstance(fact, MessageIdentified)
    assert fact[1:] == (QUEUE_ID, value, False)


@given(crafted)
@settings(max_examples=200, deadline=None)
def test_what_a_client_sends_is_never_more_than_a_remark(data: str) -> None:
    for text in (
        f"improper command pipelining after EHLO from a.example[192.0.2.9]: {data}",
        f"warning: non-SMTP command from a.example[192.0.2.9]: {data}",
        f"warning: Illegal address syntax from a.example[192.0.2.9] in MAIL command: {data}",
    ):
        fact = read("smtpd", text)
        assert isinstance(fact, Diagnostic)
        assert fact.queue_id == ""


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_facts_or_nothing(line: bytes) -> None:
    for prefix in (b"", b"Jun  1 12:00:00 mx1 postfix/smtp[1]: ", b"<22>1 ", b'{"log":"'):
        reader = LogReader(zone=UTC, reference=1750000000.0)
        for _ in range(2):
            for fact in reader.facts(prefix + line):
                assert json.dumps(fact_json(fact))


@given(st.sampled_from([*DAEMONS, "opendkim", "rspamd"]), st.sampled_from(["", f"{QUEUE_ID}: ", "warning: "]), crafted)
@settings(max_examples=500, deadline=None)
def test_any_text_of_any_daemon(daemon: str, lead: str, text: str) -> None:
    assume(not (lead + text).startswith("message repeated "))  # the envelope's, not the grammar's
    fact = read(daemon, lead + text)
    if isinstance(fact, DeliveryAttempt):
        assert fact.queue_id in {QUEUE_ID, "3F2A81C0B8"}


@given(crafted | st.text())
@settings(max_examples=300, deadline=None)
def test_any_reply(text: str) -> None:
    assert "\n" not in fold(text).strip()
    for reason in (text, f"host h[1.2.3.4] said: {text}", f"421-4.7.0 {text}"):
        reply = read_reply(reason)
        assert reply is None or re.fullmatch(r"[2-5]\d\d", reply.code)


LONG = 60_000


@pytest.mark.parametrize("daemon", [*DAEMONS, "rspamd", "opendkim"])
def test_time_grows_with_length(daemon: str) -> None:
    """Nothing backtracks over and over: a quadratic expression would take minutes here."""
    leads = ("", f"{QUEUE_ID}: ", "warning: ", f"{QUEUE_ID}: to=<", f"{QUEUE_ID}: reject: RCPT from h[1.2.3.4]: ")
    started = time.process_time()
    for piece in (*PIECES, '"\\', "a=b, ", ", a=b", "host h[1] said: 421-", " from h[1];", "; from=<a>", "[a", "<a: "):
        for lead in leads:
            text = lead + piece * (LONG // len(piece))
            parse(LogRecord(0.0, "mx1", "postfix" if daemon in DAEMONS else "", "", daemon, 1, text))
    assert time.process_time() - started < 20


def test_time_of_an_envelope_grows_with_its_length() -> None:
    reader = LogReader(zone=UTC, reference=1750000000.0)
    started = time.process_time()
    for piece in (*PIECES, "Jun  1 12:00:00 ", "2025-06-01T12:00:00Z ", "a: ", "[", '["', "\0", "{", '{"log":'):
        for lead in (
            "",
            "Jun  1 12:00:00 mx1 ",
            "<22>1 2025-06-01T12:00:00Z h a - - [",
            "2025-06-01T12:00:00Z stdout F ",
        ):
            reader.facts((lead + piece * (LONG // len(piece))).encode())
            fold("421-" + piece * (LONG // len(piece)))
            read_reply("host h[1] said: 421-" + piece * (LONG // len(piece)))
    assert time.process_time() - started < 20
