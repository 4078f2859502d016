"""What replies mean: the labelled rows, the same rows reworded, and what must never happen whatever a server says."""

import json
import random
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from parsers.linear import compile_pattern
from parsers.smtp import read_reply
from policies.blocklists import find_blocklists
from policies.classify import RuleSet, Said
from policies.identity import find_identity
from policies.matching import says
from policies.rules import DETAILS, OPENING_REACTIONS
from policies.said import hear, normalise, words
from policies.verdict import Bounce, IdentityType, Reaction, Scope, Verdict
from sidecar.classify import as_json, classify
from sidecar.config import Config, RulesConfig
from sidecar.rules import load, packaged_files

HERE = Path(__file__).parent
Row = dict[str, Any]
ROWS: list[Row] = [
    row for file in sorted((HERE / "replies").glob("*.toml")) for row in tomllib.loads(file.read_text())["row"]
]
REPLIES = [row for row in ROWS if "reply" in row]
RULES = load()


def logged(row: Row, *, reply: str = "", host: str = "") -> str:
    """The row's reason as Postfix logs it."""
    if "reason" in row:
        return str(row["reason"])
    peer = f"host {host or row['host']}[198.51.100.25]"
    if row["command"] == "greeting":
        return f"{peer} refused to talk to me: {reply or row['reply']}"
    return f"{peer} said: {reply or row['reply']} (in reply to {row['command']} command)"


def written(verdict: Verdict) -> str:
    return f"{verdict.identity.type}:{verdict.identity.value}" if verdict.identity else ""


def label(verdict: Verdict) -> tuple[str, str, str, str, str]:
    return verdict.detail, verdict.scope, verdict.bounce, verdict.reaction, written(verdict)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: (row.get("reply") or row["reason"])[:60])
def test_labelled_reply(row: Row) -> None:
    verdict = RULES.classify(Said(logged(row), row.get("host", "")))
    wanted = (row["detail"], row["scope"], row["bounce"], row["reaction"], row.get("identity", ""))
    assert label(verdict) == wanted, verdict.rule
    assert verdict.category == row["detail"].partition(".")[0]
    if "provider" in row:
        assert verdict.provider == row["provider"]
    if "blocklists" in row:
        assert list(verdict.blocklists) == row["blocklists"]


def test_rows_use_the_closed_vocabulary() -> None:
    assert len(ROWS) > 400
    for row in ROWS:
        assert row["detail"] in DETAILS
        assert {row["scope"]} <= set(Scope)
        assert {row["bounce"]} <= set(Bounce)
        assert {row["reaction"]} <= set(Reaction)


@pytest.mark.parametrize("host", ["mx.unknown.example", ""])
def test_without_the_provider_most_labels_stay_and_nobody_is_suppressed_wrongly(host: str) -> None:
    right = 0
    for row in REPLIES:
        said = Said(logged(row, host=host), host) if host else Said(row["reply"])
        verdict = RULES.classify(said)
        right += label(verdict)[:3] == (row["detail"], row["scope"], row["bounce"])
        if verdict.reaction is Reaction.SUPPRESS:
            assert row["reaction"] == "suppress", row["reply"]
    assert right >= 0.96 * len(REPLIES)


# --- the same reply, said otherwise -------------------------------------------------------------------------------


def _wrapped(text: str, width: int, joint: str) -> str:
    """A multi-line reply: each line repeats the codes, as servers send it and Postfix joins it."""
    reply = read_reply(text)
    assert reply is not None
    lines = [""]
    for word in reply.text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    status = f"{reply.enhanced} " if reply.enhanced else ""
    return joint.join(
        f"{reply.code}{' ' if number == len(lines) else '-'}{status}{line}" for number, line in enumerate(lines, 1)
    )


def _other_ids(text: str) -> str:
    rng = random.Random(len(text))
    return re.sub(
        r"\b(?=[0-9a-f-]*\d)[0-9a-f]{6,}(?:-[0-9a-f]{2,})+\b",
        lambda found: re.sub("[0-9a-f]", lambda _: rng.choice("0123456789abcdef"), found[0]),
        text,
    )


REWORDINGS: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "title": str.title,
    "narrow": lambda text: _wrapped(text, 30, " "),
    "wide": lambda text: _wrapped(text, 78, " "),
    "wrapped with blanks": lambda text: _wrapped(text, 50, "  "),
    "line ends": lambda text: _wrapped(text, 60, "\r\n"),
    "typographic quotes": lambda text: text.replace("'", "\u2019").replace('"', "\u201c"),
    "no quotes": lambda text: text.replace("'", "").replace('"', ""),
    "email": lambda text: re.sub(r"\bmail\b", "email", text),
    "e-mail": lambda text: re.sub(r"\bemail\b", "e-mail", text),
    "blanks": lambda text: text.replace(" ", "  "),
    "ids": _other_ids,
}


@pytest.mark.parametrize("name", REWORDINGS)
def test_labels_are_stable(name: str) -> None:
    changed = []
    for row in REPLIES:
        before = RULES.classify(Said(logged(row), row["host"]))
        reply = REWORDINGS[name](row["reply"])
        after = RULES.classify(Said(logged(row, reply=reply), row["host"]))
        if "mail" not in written(before) and (label(after), after.rule) != (label(before), before.rule):
            changed.append((before.rule, after.rule, reply))
    assert changed == []


def test_each_form_of_a_reply_means_the_same() -> None:
    row = next(row for row in REPLIES if row.get("identity") == "dkim-domain:news.example.com")
    plain = RULES.classify(Said(logged(row)))
    assert plain.provider == "google"
    for said in (
        Said(f"({logged(row)})"),
        Said(row["reply"], row["host"], "", "end of DATA"),
        Said(row["reply"], f"{row['host']}[198.51.100.25]:25"),
        Said(row["reply"] + " (in reply to end of DATA command)"),
        Said(row["reply"], "", "gmail.com"),
        Said(row["reply"].replace(" 421-4.7.28 ", "\r\n421-4.7.28 ").replace(" 421 4.7.28 ", "\n421 4.7.28 ") + "\r\n"),
        Said(logged(row), "", "hosted.example"),
    ):
        assert RULES.classify(said) == plain


# --- whose reply --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "provider"),
    [
        (Said("550 5.7.1 no", "aspmx.l.google.com", "yahoo.com"), "google"),
        (Said("550 5.7.1 no", "relay.isp.example", "gmail.com"), "google"),
        (Said("550 5.7.1 no", "relay.isp.example", "hosted.example"), "isp.example"),
        (Said("host relay.isp.example[198.51.100.1] said: 550 no"), "isp.example"),
        (Said("550 5.7.1 no - gsmtp"), "google"),
        (Said("451 4.2.0 Throttled - https://postmaster.comcast.net/smtp-error-codes.php#RL000010"), "comcast"),
        (Said("421 4.7.0 [TSS04] Messages from 192.0.2.7 temporarily deferred"), "yahoo"),
        (Said("[TSS04] Messages from 192.0.2.7 temporarily deferred"), "yahoo"),
        (Said("550 5.7.606 Access denied"), "microsoft-365"),
        (Said("550 5.7.1 no"), None),
        (Said("connect to aspmx.l.google.com[198.51.100.1]:25: Connection timed out"), "google"),
        (Said("mail transport unavailable", "none"), None),
    ],
)
def test_provider(said: Said, provider: str | None) -> None:
    assert RULES.classify(said).provider == provider


def test_a_relay_may_repeat_what_a_provider_said() -> None:
    verdict = RULES.classify(
        Said("421 4.7.28 unusual rate of mail from your DKIM domain [example.com 35] - gsmtp", "mx.relay.example")
    )
    assert (verdict.provider, verdict.rule, written(verdict)) == (
        "relay.example",
        "google/rate-dkim-domain",
        "dkim-domain:example.com",
    )


# --- what must never happen ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["greeting", "EHLO", "MAIL FROM", "STARTTLS"])
def test_nobody_is_suppressed_before_a_recipient_was_named(command: str) -> None:
    for row in REPLIES:
        if row["reaction"] == "suppress":
            verdict = RULES.classify(Said(row["reply"], row["host"], "", command))
            assert verdict.reaction is not Reaction.SUPPRESS, row["reply"]


def test_a_refused_greeting_is_never_about_a_message() -> None:
    for row in REPLIES:
        verdict = RULES.classify(Said(logged(row | {"command": "greeting"}), row["host"]))
        assert verdict.scope is not Scope.MESSAGE or verdict.rule == "unknown", row["reply"]


def test_what_postfix_repeats_is_counted_once() -> None:
    for row in REPLIES:
        inner = RULES.classify(Said(logged(row), row["host"]))
        verdict = RULES.classify(Said(f"delivery temporarily suspended: {logged(row)}", row["host"]))
        assert (verdict.detail, verdict.scope) == (inner.detail, inner.scope)
        assert verdict.bounce is Bounce.TRANSIENT
        assert verdict.reaction not in OPENING_REACTIONS | {Reaction.SUPPRESS}


@pytest.mark.parametrize(
    ("domain", "detail"),
    [("", "recipient.bad-domain"), ("gone.example", "recipient.bad-domain"), ("b.example", "infrastructure.dns")],
)
def test_a_relay_that_does_not_resolve_is_not_the_recipients_fault(domain: str, detail: str) -> None:
    reason = "Host or domain name not found. Name service error for name=gone.example type=AAAA: Host not found"
    assert RULES.classify(Said(reason, "none", domain)).detail == detail


@pytest.mark.parametrize(
    "reply",
    [
        "550 5.1.1 Your IP 192.0.2.7 is on our blocklist for sending to unknown users, user unknown",
        "550 5.1.1 <info@example.com>: Sender address rejected: User unknown in local recipient table",
        "550 User unknown; rejected by policy",
        "550 5.1.1 Mailbox does not exist or your reputation is too low",
        "554 5.7.1 <nobody@example.net>: Recipient address rejected: Access denied",
        "550 Too many invalid recipients",
        "550 5.7.1 Message rejected: no such user allowed to send spam",
        "450 4.1.1 <nobody@example.net>: Recipient address rejected: User unknown in local recipient table",
        "550 5.2.1 The user is receiving mail too quickly",
        "552 5.2.2 Mailbox full",
        "550 5.7.27 Sender address has null MX",
        "550 Requested action not taken: mailbox unavailable",
        "host mx.example.net[198.51.100.1] said: user unknown (in reply to RCPT TO command)",
        "5.7.1 Access denied",
    ],
)
def test_doubt_suppresses_nobody(reply: str) -> None:
    verdict = RULES.classify(Said(reply, "mx.example.net", "example.net", "RCPT TO" if "taken" not in reply else ""))
    assert verdict.reaction is not Reaction.SUPPRESS, verdict.rule


TEXT = st.text(max_size=300) | st.lists(
    st.sampled_from(
        [
            *sorted({word for row in REPLIES for word in row["reply"].split()}),
            "host mx.example[198.51.100.1] said:",
            "(in reply to RCPT TO command)",
            "delivery temporarily suspended:",
        ]
    ),
    max_size=25,
).map(" ".join)


@settings(deadline=None)
@given(TEXT, st.sampled_from(["", "mx.example.net", "aspmx.l.google.com"]), st.sampled_from(["", "gmail.com"]))
def test_any_text_gives_a_sane_verdict(reason: str, host: str, domain: str) -> None:
    verdict = RULES.classify(Said(reason, host, domain))
    assert verdict == RULES.classify_anew(Said(reason, host, domain))
    assert (verdict.bounce is Bounce.HARD) == (verdict.reaction is Reaction.SUPPRESS)
    if verdict.reaction is Reaction.SLOW_IP:
        assert verdict.scope is Scope.IP
    if verdict.reaction is Reaction.PAUSE_DOMAIN:
        assert verdict.scope in {Scope.SENDER_DOMAIN, Scope.URL}
    if verdict.identity:
        assert verdict.identity.value
        assert verdict.identity.value == verdict.identity.value.lower()
    assert json.loads(json.dumps(as_json(verdict)))["rule"] == verdict.rule


@settings(deadline=None)
@given(TEXT)
def test_own_words_around_a_reply_never_pause_or_slow(inner: str) -> None:
    for own in (
        "delivery temporarily suspended: ",
        "connect to mx.example[198.51.100.1]:25: ",
        "SASL authentication failed; ",
    ):
        assert RULES.classify(Said(own + inner)).reaction not in OPENING_REACTIONS


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100_000,
        ":" * 5_000,
        "1." * 3_000,
        "[[" * 2_500,
        "unusual dkim domain [" * 300,
        "from 1.2.3. " * 500,
        "550 5.7.1 " + "blocked using " * 400,
        "421-4.7.0 " * 600,
        "mail from: <a@" * 400,
        " :::::: a.a.a.a." * 300,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    for prefix in ("", "550 5.7.1 ", "421 4.7.28 unusual netblock spf dkim "):
        RULES.classify_anew(Said(prefix + text, "aspmx.l.google.com"))
        RULES.classify_anew(Said(prefix + text))
    assert time.process_time() - began < 10.0


def test_remembered_verdicts_are_bounded() -> None:
    for number in range(3_000):
        RULES.classify(Said(f"550 5.1.1 <user{number}@example.net>: User unknown"))
    assert RULES._remembered.cache_info().currsize <= 2_000


# --- parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("dkim-domain", "your dkim domain [example.com 35].", "example.com"),
        ("dkim-domain", "your dkim domain email.example.co.uk. to protect", "email.example.co.uk"),
        ("dkim-domain", "dkim signature d=example.com is broken", "example.com"),
        ("dkim-domain", "dkim = did not pass", None),
        ("spf-domain", "spf [_spf.example.com] with ip: [192.0.2.7]", "_spf.example.com"),
        ("spf-domain", "the mail from domain [example.com] has", "example.com"),
        ("spf-domain", "<info@example.com>: sender address rejected", "example.com"),
        ("spf-domain", "<nobody@example.net>: sender address [info@example.com] blocked", "example.com"),
        ("spf-domain", "<nobody@example.net>: recipient address rejected", None),
        ("spf-domain", "192.0.2.7 is not allowed to send mail from example.com.", "example.com"),
        ("spf-domain", "spf hardfail for example.com", "example.com"),
        ("spf-domain", "the spf record of example.com does not permit 192.0.2.7", "example.com"),
        ("spf-domain", "spf check failed for 192.0.2.7", None),
        ("spf-domain", "http://www.openspf.net/why?s=mfrom;id=info@example.com;ip=192.0.2.7;r=x", "example.com"),
        ("spf-domain", "http://www.openspf.org/why?scope=mfrom&id=info%40example.com&ip=192.0.2.7", "example.com"),
        ("spf-domain", "verification failed for <info@example.com> the account may not exist", "example.com"),
        ("from-domain", "dmarc validation failed for example.com", "example.com"),
        ("url-domain", "a url in this email (bad.example) is listed", "bad.example"),
        ("spf-domain", "domain of sender address info@example.com does not exist", "example.com"),
        ("from-domain", "email from example.com is not accepted", "example.com"),
        ("from-domain", "due to example.com's dmarc policy", "example.com"),
        ("from-domain", "sending domain [example.com] does not", "example.com"),
        ("url-domain", "https://www.spamhaus.org/query/domain/bad.example", "bad.example"),
        ("ip", "messages from [192.0.2.7] weren't sent", "192.0.2.7"),
        ("ip", "client host [ipv6:2001:db8::7] blocked", "2001:db8::7"),
        ("ip", "see https://x.example/?a=1&ip=192.0.2.7&r=1", "192.0.2.7"),
        ("ip", "http://www.sorbs.net/lookup.shtml?192.0.2.7", "192.0.2.7"),
        ("ip", "127.0.0.4: client host 192.0.2.7 blocked", "192.0.2.7"),
        ("ip", "[192.0.2.7 15] from your ip 192.0.2.7", "192.0.2.7"),
        ("ip", "ip 192.0.2.7 and server 198.51.100.9, see ?ip=192.0.2.7", "192.0.2.7"),
        ("ip", "answer 127.0.0.2", None),
        ("ip", "version 1.2.3 at 10:20:30", None),
        ("ip", "999.1.1.1", None),
        ("ip", "1.2.3.4.5.6", None),
        ("ip", "[ipv6:2001:db8::7]:25", "2001:db8::7"),
        ("netblock", "your ip netblock [192.0.2.0/24 23]", "192.0.2.0/24"),
        ("netblock", "within 2001:db8:5::/64 range", "2001:db8:5::/64"),
        ("netblock", "your ip netblock 192.0.2.0. to protect", "192.0.2.0"),
        ("message-id", "same message-id: <abc@example.com>", "abc@example.com"),
    ],
)
def test_identity(kind: str, text: str, value: str | None) -> None:
    found = find_identity(IdentityType(kind), text)
    assert (found.value if found else None) == value


@settings(deadline=None)
@given(st.sampled_from(IdentityType), st.text(alphabet="0123456789abcdf.:/[]@ =ip?", max_size=60))
def test_any_text_names_a_clean_identity_or_none(kind: IdentityType, text: str) -> None:
    found = find_identity(kind, text, compile_pattern("ip ([0-9a-f.:]{3,45})") if kind is IdentityType.IP else None)
    assert found is None or (found.value and not set(found.value) & set(" []@=?"))


@pytest.mark.parametrize(
    ("text", "lists"),
    [
        ("see postmaster.comcast.net#BL000000", ()),
        ("see postmaster.comcast.net#BL000101", ("spamhaus_zen", "senderscore_bl")),
        ("AUP#IPBL0110", ("returnpath", "invaluement_ivmsip")),
        ("AUP#URLBL101", ("surbl", "invaluement_ivmuri")),
        ("in Spamhaus's list", ("spamhaus",)),
        ("listed by zen.spamhaus.org and bl.spamcop.net", ("spamhaus_zen", "spamcop")),
        ("rejected, sbl12345 at spamhaus", ("spamhaus_sbl",)),
        ("blocked using rbl.example.org; sorry", ("rbl.example.org",)),
        ("blocked", ()),
    ],
)
def test_blocklists(text: str, lists: tuple[str, ...]) -> None:
    text = normalise(text)
    assert find_blocklists(text, words(text), zone_in=text) == lists


def test_a_phrase_begins_at_a_word_and_may_go_on() -> None:
    assert says("rate limited", "rate limit")
    assert says("(ip blocked", "ip blocked")
    assert not says("zip blocked", "ip blocked")
    assert says("zip blocked, ip blocked", "ip blocked")


@pytest.mark.parametrize("source", ["(a+)+b", "a*b*c*", ".*x.*", "(?:a|b*)*", "(?:a{0,100}){0,100}"])
def test_patterns_that_could_take_long_are_refused(source: str) -> None:
    with pytest.raises(ValueError, match="too many ways"):
        compile_pattern(source)


def test_patterns_are_for_small_letters() -> None:
    assert compile_pattern(r"Error [A-F]\S").search("error c!")


def test_codes_are_heard_wherever_servers_put_them() -> None:
    assert hear(Said("550 #5.1.0 Address rejected.")).enhanced == "5.1.0"
    assert hear(Said("553 sorry (#5.7.1)")).enhanced == "5.7.1"
    assert hear(Said("5.7.508 Access denied")).enhanced == "5.7.508"
    assert hear(Said("host mx.example[198.51.100.1] said: go away (in reply to RCPT TO command)")).command == "RCPT TO"
    assert hear(Said("host mx.example[198.51.100.1] said: go away")).remote


# --- the command --------------------------------------------------------------------------------------------------


def test_command_reads_an_argument() -> None:
    result = CliRunner().invoke(classify, ["550 5.1.1 <nobody@gmail.com> does not exist - gsmtp"], obj=Config())
    assert result.exit_code == 0
    assert json.loads(result.output) == {
        "provider": "google",
        "rule": "google/no-such-user-code",
        "category": "recipient",
        "detail": "recipient.unknown",
        "bounce": "hard",
        "scope": "recipient",
        "identity": None,
        "blocklists": [],
        "reaction": "suppress",
        "code": "550",
        "enhanced": "5.1.1",
    }


def test_command_answers_each_line_and_never_dies() -> None:
    lines = [
        b"550 5.1.1 User unknown",
        b'{"reply": "421 4.7.28 unusual rate from your SPF domain [Example.com 19]", "host": "aspmx.l.google.com"}',
        b'{"reply": "550 mailbox unavailable", "host": null, "command": "RCPT TO", "delay": 3}',
        b'{"reply": 5}',
        b'{"host": "x"}',
        b'{"reply": "x", "host": 7}',
        b"{not json",
        b"[" * 50_000,
        b'{"reply":' + b"[" * 50_000,
        b"",
        b"\xff\xfe 550",
        b"554 last line without an end",
    ]
    result = CliRunner().invoke(classify, input=b"\n".join(lines), obj=Config())
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in result.output.splitlines()]
    assert len(answers) == len(lines)
    assert answers[1]["identity"] == {"type": "spf-domain", "value": "example.com"}
    assert answers[2]["detail"] == "recipient.unknown"
    assert [number for number, answer in enumerate(answers) if "error" in answer] == [3, 4, 5, 6, 8]
    assert answers[3]["error"].startswith("line 4: reply: missing or no text; wanted")
    assert answers[5]["error"] == "line 6: host: found 7; wanted text in quotes"


def test_command_answers_before_the_next_line_comes() -> None:
    program = "from sidecar.classify import classify; from sidecar.config import Config; classify([], obj=Config())"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for reply, category in (("550 5.1.1 User unknown", "recipient"), ("421 too many connections", "throttling")):
            running.stdin.write(f"{reply}\n")
            running.stdin.flush()
            assert json.loads(running.stdout.readline())["category"] == category
        running.stdin.close()
    assert running.returncode == 0


def test_command_takes_the_admins_rules(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        """
mx = [".mine.example"]
[[rule]]
name = "moon"
any = "full moon"
detail = "policy.other"
scope = "remote"
bounce = "transient"
reaction = "nothing"
examples = ["450 not at full moon"]
"""
    )
    config = Config(rules=RulesConfig(directory=str(tmp_path)))
    result = CliRunner().invoke(classify, ['{"reply": "450 Not at full moon", "host": "mx.mine.example"}'], obj=config)
    assert json.loads(result.output)["rule"] == "mine/moon"


def test_rules_are_asked_in_the_same_order_every_time() -> None:
    again = RuleSet.read(packaged_files())
    for row in ROWS:
        said = Said(logged(row), row.get("host", ""))
        assert again.classify_anew(said).rule == RULES.classify(said).rule
