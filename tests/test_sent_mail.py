"""How our own mail presents itself: from header lines of the log, through core's store, to what receivers make of it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.feeds.asking import Answer, Ask, DnsAnswer, DnsAsk, Poll, Reading
from parsers.feeds.own_mail import ALIGNMENT, ONE_CLICK, Presented, Sent, judge
from parsers.observation import Observation, Outcome
from parsers.postfix import facts
from parsers.record import LogRecord
from policies.engine import Engine
from policies.sent_as import HOUR, KEPT, ListHeaders, SentAs, SentMail, list_headers
from policies.site import Settings
from sidecar import own_domains, sent_mail
from sidecar.config import Config, OutsideConfig, StoreConfig
from sidecar.ledger import Ledger
from sidecar.rows import gather, merged
from sidecar.rules import organizational_domain
from sidecar.scope import Scope
from sidecar.store import Store
from tests.outside_world import driven
from tests.world import RULES

NOW = 1_800_000_000.0
NEW = "shop.example"

HEADERS: dict[str, tuple[str, str, ListHeaders]] = {
    "a list": ("list-id", "news <news.shop.example>", ListHeaders.MAILING),
    "https": ("list-unsubscribe", "<https://shop.example/u/1>", ListHeaders.MAILING | ListHeaders.HTTPS),
    "both, folded": ("list-unsubscribe", "<mailto:u@x>,? <HTTPS://x/u>", ListHeaders.MAILING | ListHeaders.HTTPS),
    "mailto alone": ("list-unsubscribe", "<mailto:u@shop.example>", ListHeaders.MAILING),
    "http is no https": ("list-unsubscribe", "<http://shop.example/u/1>", ListHeaders.MAILING),
    "cut before the end": ("list-unsubscribe", f"<mailto:{'u' * 176}", ListHeaders.MAILING | ListHeaders.CUT),
    "post": ("list-unsubscribe-post", "List-Unsubscribe=One-Click", ListHeaders.POST),
    "post, odd case": ("list-unsubscribe-post", " list-unsubscribe=one-click", ListHeaders.POST),
    "another post": ("list-unsubscribe-post", "List-Unsubscribe=Two-Clicks", ListHeaders.NONE),
    "another header": ("feedback-id", "a:b:c:d", ListHeaders.NONE),
}


@pytest.mark.parametrize("name", HEADERS)
def test_what_a_list_header_says(name: str) -> None:
    header, value, said = HEADERS[name]
    assert list_headers(header, value) == said


FULL = ListHeaders.MAILING | ListHeaders.HTTPS | ListHeaders.POST


def test_counts_are_handed_over_once_and_by_the_hour() -> None:
    mail = SentMail()
    mail.saw("b.example", NEW, ("z.example", "a.example"), FULL, now=HOUR * 10)
    mail.saw("b.example", NEW, ("a.example", "z.example"), ListHeaders.NONE, now=HOUR * 10 + 5)
    mail.saw("b.example", "", (), ListHeaders.NONE, now=HOUR * 10 + 6)  # nothing is known of it
    kind = ("b.example", NEW, "a.example z.example")
    assert mail.take() == [SentAs(10, *kind, 2, 1, 1)]
    assert mail.take() == []
    mail.saw("b.example", NEW, ("a.example", "z.example"), ListHeaders.MAILING, now=HOUR * 10 + 7)
    mail.saw("b.example", NEW, (), ListHeaders.MAILING | ListHeaders.CUT | ListHeaders.POST, now=HOUR * 11)
    assert mail.take() == [SentAs(10, *kind, 1, 1, 0), SentAs(11, "b.example", NEW, "", 1, 0, 0)]


def test_the_memory_of_an_hour_is_bounded() -> None:
    mail = SentMail()
    for number in range(6_000):
        mail.saw(f"{number}.example", NEW, (), ListHeaders.NONE, now=HOUR)
    assert len(mail.take()) == 5_000


def say(engine: Engine, queue_id: str, *headers: tuple[str, str], sender: str = "bounce@esp.example") -> None:
    record = LogRecord(NOW, "mx1", "postfix", "", "cleanup", 1, "")
    for name, value in headers:
        engine.observe(facts.HeaderLogged(record, queue_id, name, value, "info", sender, "x@gmail.com"), now=NOW)
    engine.observe(facts.QueueActive(record._replace(daemon="qmgr"), queue_id, sender, 1000, 1), now=NOW)


MAILING = (
    ("From", "Shop <news@shop.example>"),
    ("DKIM-Signature", "v=1; a=rsa-sha256; d=shop.example; s=s1"),
    ("List-Unsubscribe", "<https://shop.example/u>"),
    ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
)


def test_from_the_log_to_the_requirement(tmp_path: Path) -> None:
    """Also across a store that was busy, a second try of a message, and a new start."""
    engine = Engine(RULES, organizational_domain, Settings(act=False))
    earlier = None
    for number in range(30):
        say(engine, f"4Q{number:08}z", *MAILING)
        say(engine, f"4Q{number:08}z")  # tried again: one message
        earlier = merged(earlier, gather(engine, None, now=NOW)) if number % 3 else earlier
    assert earlier is not None
    assert len(earlier.sent_as) == 1  # however long the store is away
    store = Store.open(tmp_path / "core.db")
    with ThreadPoolExecutor(1) as thread:
        ledger = Ledger(engine, store, thread)
        ledger._pending = earlier  # what a full disk leaves
        assert asyncio.run(ledger.commit())
    store.forget_sent_as(before_hour=int((NOW - KEPT) // HOUR))
    config = Config(store=StoreConfig(path=str(tmp_path)), outside=OutsideConfig(domains=(NEW,)))
    (found,) = sent_mail.lately(config, now=NOW)
    assert found.presented == Presented(NEW, (Sent("esp.example", (NEW,), 30),), 30, 30)
    seen = driven(own_domains.poll(config, Scope((), (NEW,), (NEW,)), NOW, active=True), nothing_there)
    values = {each.measure: each.value for each in seen.observations if each.object == NEW}
    assert (values[ALIGNMENT], values[ONE_CLICK]) == (1.0, 1.0)
    store.forget_sent_as(before_hour=int(NOW // HOUR) + 1)
    assert sent_mail.lately(config, now=NOW) == []
    store.close()


def nothing_there(ask: Ask) -> Answer:
    assert isinstance(ask, DnsAsk)
    return DnsAnswer("NOERROR", ("a.root.",)) if ask.name == "." else DnsAnswer("NXDOMAIN")


def test_a_domain_of_others_is_not_judged(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "core.db")
    engine = Engine(RULES, organizational_domain, Settings(act=False))
    for number in range(30):
        say(engine, f"4Q{number:08}z", ("From", "friend@gmail.com"), sender="us@shop.example")
    commit = gather(engine, None, now=NOW)
    assert commit is not None
    store.commit(commit)
    store.close()
    config = Config(store=StoreConfig(path=str(tmp_path)), outside=OutsideConfig(domains=(NEW,)))
    seen = driven(own_domains.poll(config, Scope((), (NEW,), (NEW,)), NOW, active=True), nothing_there)
    assert not [each for each in seen.observations if each.object == "gmail.com"]


def test_no_store_no_mail(tmp_path: Path) -> None:
    config = Config(store=StoreConfig(path=str(tmp_path)))
    assert sent_mail.lately(config, now=NOW) == []
    (tmp_path / "core.db").write_bytes(b"no store")
    assert sent_mail.lately(config, now=NOW) == []


def test_the_newest_hours_that_are_enough() -> None:
    """What was wrong yesterday is not held against today; a mailing of this morning still counts."""
    rows = [
        SentAs(20, "d.example", "d.example", "d.example", 15, 0, 0),
        SentAs(20, "e.example", "d.example", "", 3, 0, 0),
        SentAs(19, "d.example", "d.example", "d.example", 9, 30, 30),
        SentAs(3, "other.example", "d.example", "", 900, 900, 0),
        SentAs(2, "d.example", "", "d.example", 900, 900, 0),
    ]
    (found,) = sent_mail.by_domain(rows)
    assert found.newest == 20 * HOUR
    assert [each.messages for each in found.presented.sent] == [15, 3, 9]
    assert (found.presented.mailings, found.presented.one_click) == (30, 30)
    assert found.presented.signatures_shown


# Judging. What was sent, and the DMARC record -> value and words.

RELAXED, STRICT = "v=DMARC1; p=none", "v=DMARC1; p=none; adkim=s; aspf=s"
ALIGNED: dict[str, tuple[tuple[Sent, ...], str, float | None, str]] = {
    "by the envelope": ((Sent("bounces.shop.example", (), 50),), RELAXED, 1.0, ""),
    "by the signature": ((Sent("esp.example", ("esp.example", "mail.shop.example"), 50),), RELAXED, 1.0, ""),
    "by neither": ((Sent("esp.example", ("esp.example",), 50),), RELAXED, 0.0, "0% of 50 messages; 50 are sent by esp"),
    "not signed": ((Sent("esp.example", (), 50),), RELAXED, 0.0, "esp.example and not signed: wanted one of the two"),
    "a subdomain, strictly": (
        (Sent("b.shop.example", ("m.shop.example",), 50),),
        STRICT,
        0.0,
        "to be shop.example its",
    ),
    "itself, strictly": ((Sent("esp.example", ("shop.example",), 50),), STRICT, 1.0, ""),
    "one odd message": ((Sent("shop.example", (), 99), Sent("esp.example", (), 1)), RELAXED, 1.0, ""),
    "three in a hundred": ((Sent("shop.example", (), 97), Sent("esp.example", (), 3)), RELAXED, 0.0, "97% of 100"),
    "too few": ((Sent("esp.example", (), 19),), RELAXED, None, "19 messages in the last day, wanted 20"),
    "no record": ((Sent("esp.example", ("m.shop.example",), 50),), "", 1.0, ""),
    "two records": ((Sent("b.shop.example", (), 50),), f"{STRICT}\n{RELAXED}", 1.0, ""),
    "a broken record": ((Sent("b.shop.example", (), 50),), "v=DMARC1; p=what", 1.0, ""),
}


def judged(presented: Presented, record: str, rcode: str = "NOERROR") -> dict[str, Observation]:
    def answer(ask: Ask) -> Answer:
        assert isinstance(ask, DnsAsk)
        assert ask.name == "_dmarc.shop.example"
        return DnsAnswer(rcode, tuple(record.splitlines()))

    def whole() -> Poll:
        return Reading(tuple((yield from judge("authentication", presented, organizational_domain))))

    return {each.measure: each for each in driven(whole(), answer).observations}


@pytest.mark.parametrize("name", ALIGNED)
def test_alignment(name: str) -> None:
    sent, record, value, words = ALIGNED[name]
    seen = judged(Presented(NEW, sent), record)[ALIGNMENT]
    assert (seen.value, seen.outcome) == (value, Outcome.NO_DATA if value is None else Outcome.OK)
    assert words in seen.text
    assert bool(words) == bool(seen.text)


@pytest.mark.parametrize("rcode", ["SERVFAIL", "TIMEOUT", "REFUSED"])
def test_a_look_up_that_fails_says_nothing_of_alignment(rcode: str) -> None:
    seen = judged(Presented(NEW, (Sent("esp.example", (), 50),)), "", rcode)[ALIGNMENT]
    assert (seen.outcome, seen.text) == (Outcome.UNKNOWN, f"_dmarc.shop.example: {rcode}")


def test_without_signatures_in_the_log_nothing_is_said_of_mail_that_may_have_one() -> None:
    unseen = judged(Presented(NEW, (Sent("esp.example", (), 50),), signatures_shown=False), RELAXED)[ALIGNMENT]
    assert (unseen.outcome, unseen.value) == (Outcome.NO_DATA, None)
    assert "the log does not show who signs" in unseen.text
    by_spf = judged(Presented(NEW, (Sent("b.shop.example", (), 50),), signatures_shown=False), RELAXED)[ALIGNMENT]
    assert by_spf.value == 1.0


@pytest.mark.parametrize(
    ("mailings", "one_click", "value", "words"),
    [
        (19, 0, None, "19 mailings with a known way out in the last day, wanted 20"),
        (20, 20, 1.0, ""),
        (100, 98, 1.0, ""),
        (100, 97, 0.0, "97% of 100 mailings, wanted in each List-Unsubscribe: <https://...> and List-Unsubscribe-Post"),
    ],
)
def test_one_click(mailings: int, one_click: int, value: float | None, words: str) -> None:
    sent = (Sent(NEW, (NEW,), 100),)
    seen = judged(Presented(NEW, sent, mailings, one_click), RELAXED)[ONE_CLICK]
    assert seen.value == value
    assert words in seen.text


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=30))
def test_no_mail_is_counted_twice_and_none_that_is_needed_left_out(rows: list[tuple[int, int, int]]) -> None:
    made = [SentAs(hour, "d.example", "d.example", "", count, more, 0) for hour, count, more in sorted(rows)[::-1]]
    (found,) = sent_mail.by_domain(made)
    counted = sum(each.messages for each in found.presented.sent)
    assert min(20, sum(row.messages for row in made)) <= counted <= sum(row.messages for row in made)
    assert found.presented.mailings >= min(20, sum(row.mailings for row in made))
