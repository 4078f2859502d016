"""Replies of servers large and small, each with the label that a person gave it; and who must never be suppressed."""

import os
import random

import pytest

from parsers.smtp import read_reply
from policies.classify import Said
from policies.rules import DETAILS, OPENING_REACTIONS
from policies.verdict import Bounce, Reaction, Scope
from sidecar.rules import load
from tests.labelled import HEARD, REPLIES, ROWS, Labelled, identity, labels

RULES = load()
SOAK = int(os.environ.get("SOAK", "1"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.place)
def test_heard(row: Labelled) -> None:
    verdict = RULES.classify(row.said())
    assert labels(verdict) == row.label, verdict.rule
    assert row.provider in {"", verdict.provider}
    assert row.identity in {"", identity(verdict)}
    assert set(row.blocklists) <= set(verdict.blocklists)


def test_labels_are_of_the_closed_vocabulary() -> None:
    assert len(ROWS) > 850
    for row in ROWS:
        detail, scope, bounce, reaction = row.label
        assert detail in {*DETAILS, "unknown"}
        assert {scope, bounce, reaction} <= {*Scope, *Bounce, *Reaction}
        assert (bounce == "hard") == (reaction == "suppress")


@pytest.mark.parametrize("host", ["", "mx.somewhere.example", "gmail-smtp-in.l.google.com", "mx1.qq.com"])
def test_whoever_says_it_nobody_is_suppressed_wrongly(host: str) -> None:
    for row in REPLIES:
        verdict = RULES.classify(Said(row.text, host, "", row.command))
        if row.label[3] != "suppress":
            assert verdict.reaction is not Reaction.SUPPRESS, (row.text, verdict.rule)


def test_without_its_host_a_reply_keeps_its_category() -> None:
    kept = sum(RULES.classify(Said(row.text)).category == row.label[0].partition(".")[0] for row in REPLIES)
    assert kept >= 0.95 * len(REPLIES)


def test_what_postfix_finds_itself_never_pauses_or_slows() -> None:
    for row in ROWS:
        if not row.command:
            for before in ("", "delivery temporarily suspended: "):
                verdict = RULES.classify(Said(before + row.text))
                assert verdict.reaction not in OPENING_REACTIONS


OUR_FAULT = [
    "rejected as spam", "your IP is on a blacklist", "blocked using zen.spamhaus.org", "poor reputation", "SPF check failed", "DKIM signature invalid", "DMARC policy of example.com", "greylisted, try again later",
    "no PTR record for 192.0.2.7", "message contains a virus", "relaying denied", "rate limit exceeded", "too many connections", "message too large", "sender address rejected", "must issue a STARTTLS command first",
    "authentication required", "rejected by our policy", "access denied", "bad HELO", "attachment not allowed", "your domain is blocked", "too many invalid recipients",
]  # fmt: skip
CODES = ["550", "551", "553", "554", "421", "450", "451", "521", "571", "591"]
STATUSES = [
    "",
    "5.1.1",
    "5.1.0",
    "5.1.2",
    "5.1.3",
    "5.1.6",
    "5.1.10",
    "5.2.0",
    "5.2.1",
    "5.4.1",
    "5.4.4",
    "5.5.0",
    "5.7.1",
    "5.7.26",
    "5.0.0",
    "4.7.1",
    "4.1.1",
    "5.9.9",
]
HOSTS = ["", "mx.example.net", "gmail-smtp-in.l.google.com", "example.mail.protection.outlook.com", "outlook-com.olc.protection.outlook.com", "mta5.am0.yahoodns.net", "mx01.mail.icloud.com", "mx00.gmx.net", "smtp-in.orange.fr", "mx1.comcast.net", "mxs.mail.ru", "mx1.qq.com", "163mx01.mxmail.netease.com", "eu-smtp-inbound-1.mimecast.com", "cluster1.eu.messagelabs.com", "mx1.emailsrvr.com"]  # fmt: skip
AFTER = [
    "",
    " for <nobody@example.net>",
    "; user unknown",
    " (mailbox unavailable)",
    " - see https://postmaster.example.net/help",
]


@pytest.mark.parametrize("fault", OUR_FAULT)
def test_what_is_our_fault_suppresses_nobody(fault: str) -> None:
    """Whatever code stands before it, whoever says it and whatever follows."""
    rng = random.Random(fault)
    for _ in range(300 * SOAK):
        code, status, after = rng.choice(CODES), rng.choice(STATUSES), rng.choice(AFTER)
        before = rng.choice(["", "<nobody@example.net>: ", "Recipient address rejected: ", "Sorry, ", "Error: "])
        if fault == "access denied" and status == "5.4.1":  # so Microsoft says that there is no such user
            continue
        reply = f"{code} {status} {before}{fault}{after}".replace("  ", " ")
        verdict = RULES.classify(Said(reply, rng.choice(HOSTS), "", rng.choice(["", "RCPT TO", "end of DATA"])))
        assert verdict.reaction is not Reaction.SUPPRESS, (reply, verdict.rule)


TRAPS = [line for line in (HEARD.parent / "never-suppressed.txt").read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("host", HOSTS)
def test_what_only_reads_like_a_bad_recipient_suppresses_nobody(host: str) -> None:
    assert len(TRAPS) > 40
    for reply in TRAPS:
        verdict = RULES.classify(Said(reply, host))
        assert verdict.reaction is not Reaction.SUPPRESS, (reply, verdict.rule)


def test_odd_codes_before_plain_words() -> None:
    """The words decide where they are plain, and one of them is enough to spare the recipient."""
    for reply, reaction in (
        ("550 5.7.1 <nobody@example.net>: user unknown", Reaction.SUPPRESS),
        ("554 5.0.0 No such user here", Reaction.SUPPRESS),
        ("550 5.1.1 Message identified as spam", Reaction.ALERT_CONTENT),
        ("550 5.1.1 Your IP 192.0.2.7 is blacklisted", Reaction.SLOW_IP),
        ("550 5.1.1 Unauthenticated mail is not accepted due to the DMARC policy", Reaction.ALERT_AUTH),
        ("450 5.1.1 <nobody@example.net>: user unknown", Reaction.NOTHING),
    ):
        assert RULES.classify(Said(reply, "mx.example.net", "", "RCPT TO")).reaction is reaction, reply


@pytest.mark.parametrize("status", ["5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1", "5.4.1", "5.7.1", "5.0.0"])
def test_an_enhanced_code_alone_condemns_nobody(status: str) -> None:
    """A refusal for another cause keeps to it under any enhanced code, at any provider."""
    rng = random.Random(status)
    others = [
        row
        for row in REPLIES
        if row.text.startswith("5")
        and row.label[0].startswith(("auth", "content", "reputation", "throttling", "policy"))
        if row.label[0] != "policy.protocol" and (status != "5.4.1" or "Access denied" not in row.text)
    ]
    for row in others:
        reply = read_reply(row.text)
        assert reply is not None, row
        for host in rng.sample(HOSTS, min(len(HOSTS), 2 * SOAK)):
            text = f"{rng.choice(['550', '553', '554'])} {status} {reply.text}"
            verdict = RULES.classify_anew(Said(text, host, "", row.command))
            assert verdict.reaction is not Reaction.SUPPRESS, (text, host, verdict.rule)


def test_only_what_is_about_the_recipient_suppresses() -> None:
    for rule in RULES.rules:
        assert rule.reaction is not Reaction.SUPPRESS or rule.category == "recipient", rule.id
