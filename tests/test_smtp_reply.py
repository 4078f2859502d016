"""Replies out of Postfix's reasons, folded: one line, each code once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.smtp import Reply, fold, read_reply


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("250 2.0.0 Ok", "250 2.0.0 Ok"),
        ("421-4.7.28 unusual rate of  421-4.7.28 mail. To 421 4.7.28  go - gsmtp", "421 4.7.28 unusual rate of mail. To go - gsmtp"),
        ("421-4.7.28 unusual rate of\r\n421-4.7.28 mail. To\r\n421 4.7.28 go - gsmtp\r\n", "421 4.7.28 unusual rate of mail. To go - gsmtp"),
        ("550-one\n550-two\n550 three", "550 one two three"),
        ("550-one 550-two 550 three of 550 users", "550 one two three of 550 users"),
        ("554-mx.example.com ESMTP 554 no access", "554 mx.example.com ESMTP no access"),
        ("550-one 550- 550 three", "550 one three"),
        ("550-one 550", "550 one"),
        ("550-", "550"),
        ("550-5.7.26 a 550-5.7.26 550 5.7.26 b", "550 5.7.26 a b"),
        # One line only: a code inside is text.
        ("250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 7F", "250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 7F"),
        ("450 more than 450 users 450-odd", "450 more than 450 users 450-odd"),
        # Another code than the reply's own is text.
        ("550-5.1.1 try 421-4.7.0 not 550 5.1.1 end", "550 5.1.1 try 421-4.7.0 not end"),
        # Inside a whole reason.
        ("host h[1.2.3.4] said: 421-4.7.0 a 421 4.7.0 b (in reply to DATA command)", "host h[1.2.3.4] said: 421 4.7.0 a b (in reply to DATA command)"),
        ("host h[1.2.3.4] refused to talk to me: 554-a 554 b", "host h[1.2.3.4] refused to talk to me: 554 a b"),
        ("connect to h[1.2.3.4]:25:\tConnection   timed out", "connect to h[1.2.3.4]:25: Connection timed out"),
        ("", ""),
    ],
)  # fmt: skip
def test_fold(text: str, folded: str) -> None:
    assert fold(text) == folded
    assert fold(folded) == folded


HOST = "host mx.example.com[192.0.2.25]"


def reply(
    code: str, enhanced: str, text: str, command: str = "", *, host: str = "mx.example.com", address: str = "192.0.2.25"
) -> Reply:
    return Reply(code, enhanced, text, host, address, command)


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [
        ("250 2.0.0 Ok: queued as 7F", reply("250", "2.0.0", "Ok: queued as 7F", host="", address="")),
        ("250 Ok", reply("250", "", "Ok", host="", address="")),
        ("250", reply("250", "", "", host="", address="")),
        ("  550 5.1.1 no\r\n", reply("550", "5.1.1", "no", host="", address="")),
        ("550-5.1.1 no\r\n550 5.1.1 one", reply("550", "5.1.1", "no one", host="", address="")),
        ("550 5.1.1: no", reply("550", "5.1.1", "no", host="", address="")),
        ("550 #5.1.0 Address rejected.", reply("550", "5.1.0", "Address rejected.", host="", address="")),
        ("550 5.7.606 Access denied", reply("550", "5.7.606", "Access denied", host="", address="")),
        ("421 4.7.0.1 x", reply("421", "", "4.7.0.1 x", host="", address="")),
        (f"{HOST} said: 550 5.1.1 <a@b>: unknown (in reply to RCPT TO command)", reply("550", "5.1.1", "<a@b>: unknown", "RCPT TO")),
        (f"{HOST} said: 421 try (later) (in reply to end of DATA command)", reply("421", "", "try (later)", "end of DATA")),
        (f"{HOST} said: 550 a (in reply to DATA command) (in reply to MAIL FROM command)", reply("550", "", "a (in reply to DATA command)", "MAIL FROM")),
        (f"{HOST}:25 said: 550 no (in reply to EHLO command)", reply("550", "", "no", "EHLO")),
        (f"{HOST} said: 550 cut off in the mid", reply("550", "", "cut off in the mid")),
        (f"{HOST} said: 550 cut off (in reply to end of DA", reply("550", "", "cut off")),
        (f"{HOST} refused to talk to me: 421 4.3.2 too many", reply("421", "4.3.2", "too many", "greeting")),
        (f"{HOST} refused to start TLS: 454 4.7.0 no", reply("454", "4.7.0", "no", "STARTTLS")),
        ("host ::1[::1] said: 550 no (in reply to LHLO command)", reply("550", "", "no", "LHLO", host="::1", address="::1")),
        ("host a.b[private/lmtp] said: 550 no (in reply to RCPT TO command)", reply("550", "", "no", "RCPT TO", host="a.b", address="private/lmtp")),
        (f"delivery temporarily suspended: {HOST} said: 450 4.2.1 busy (in reply to RCPT TO command)", reply("450", "4.2.1", "busy", "RCPT TO")),
        ("SASL authentication failed; server r.example[192.0.2.30] said: 535 5.7.8 bad", reply("535", "5.7.8", "bad", "AUTH", host="r.example", address="192.0.2.30")),
        (f"{HOST} said: nonsense (in reply to RCPT TO command)", None),
        (f"{HOST} said: 999 nonsense (in reply to RCPT TO command)", None),
        (f"{HOST} said: 4500 nonsense", None),
        ("connect to mx.example.com[192.0.2.25]:25: Connection refused", None),
        ("delivery temporarily suspended: connect to mx.example.com[192.0.2.25]:25: Connection refused", None),
        ("lost connection with mx.example.com[192.0.2.25] while sending RCPT TO", None),
        ("conversation with mx.example.com[192.0.2.25] timed out while sending message body", None),
        ("Host or domain name not found. Name service error for name=a.example type=MX: Host not found, try again", None),
        ("TLS is required, but was not offered by host mx.example.com[192.0.2.25]", None),
        ("delivered to mailbox", None),
        ("bounce failed", None),
        ("550x", None),
        ("\u0665\u0665\u0660 no", None),
        ("", None),
    ],
)  # fmt: skip
def test_read_reply(reason: str, wanted: Reply | None) -> None:
    assert read_reply(reason) == wanted


words = st.text("abc xyz,.<>@", min_size=1, max_size=30).map(lambda text: " ".join(text.split()) or "x")


@given(
    st.lists(words, min_size=1, max_size=6),
    st.sampled_from(["", "5.7.1", "5.7.606"]),
    st.sampled_from([" ", "\r\n", "\n"]),
)
def test_wrapping_makes_no_difference(lines: list[str], enhanced: str, end: str) -> None:
    """However a server wraps its words over lines, and however they were joined, they read the same."""
    status = f"{enhanced} " if enhanced else ""
    wrapped = end.join(
        f"550{' ' if number == len(lines) else '-'}{status}{text}" for number, text in enumerate(lines, start=1)
    )
    assert read_reply(wrapped) == read_reply(f"550 {status}{' '.join(lines)}")
