"""The sums of core's store: exact, counted once whatever happens in between, and as private as the site wants."""

from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import pytest

from parsers.log import LogReader
from policies.engine import Engine
from policies.rollup import DAY, Flow
from policies.site import InstanceFacts
from policies.stored_address import AddressForm, hash_of, stored_reply
from sidecar import rules
from sidecar.log_batch import Position
from sidecar.store import Commit, Store
from tests.history_world import SETTINGS, TOTALS, filled, sums
from tests.test_rollup import BEGIN, attempt
from tests.world import RULES


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "core.db")
    yield opened
    opened.close()


@pytest.mark.parametrize("every", [1, 3, 1000])
def test_the_sums_of_a_log_are_those_counted_by_hand(tmp_path: Path, every: int) -> None:
    store = filled(tmp_path / "core.db", every=every)
    for table in ("hourly", "daily"):
        assert sums(store, table) == TOTALS
        for dimension in ("all", *Flow._fields):
            columns = ", ".join(f"sum({name})" for name in TOTALS)
            query = f"SELECT {columns} FROM {table}_value WHERE dimension = ?"  # noqa: S608  # ours
            assert store.connection.execute(query, (dimension,)).fetchone() == tuple(TOTALS.values())
    assert sums(store, where="flow.campaign = 'spring' AND flow.tenant = 'shop'")["sent"] == 3
    assert sums(store, where="flow.segment = 'spring.shop.example' AND flow.transport = 'lane-01'")["hard"] == 1
    letters = sums(store, where="flow.campaign = 'autumn'")
    assert (letters["messages"], letters["deferred"], letters["block"], letters["expired"]) == (3, 4, 1, 1)
    refused = store.connection.execute(
        "SELECT refusal.rule, sum(attempts) FROM daily_refusal JOIN refusal ON refusal.id = refusal GROUP BY rule"
    ).fetchall()
    assert dict(refused) == {
        "": 1,
        "google/no-such-user": 1,
        "google/rate-dkim-domain": 1,
        "microsoft/block-list": 1,
        "postfix/connect": 3,
        "yahoo/deferred": 1,
    }
    store.close()


def test_mail_that_expires_is_accounted_for(tmp_path: Path) -> None:
    store = filled(tmp_path / "core.db")
    assert {change.kind for _, change in store.changes(0, 100)} == {"opened", "postfix"}
    store.close()


@pytest.mark.parametrize(
    ("reply", "relay", "relayhost", "passed_on"),
    [
        ("250 2.0.0 Ok: queued as 4fV0Ac0000zz1", "127.0.0.1[127.0.0.1]:10024", "", "4fV0Ac0000zz1"),
        ("250 2.0.0 Ok", "localhost[127.0.0.1]:10024", "", "-"),
        ("250 2.0.0 Ok: queued as 4fV0Ac0000zz1", "127.0.0.1[127.0.0.1]:2525", "relayhost", ""),
        ("250 2.0.0 Ok: queued as 4fV0Ac0000zz1", "mx.other.example[192.0.2.1]:25", "", ""),
        ("250 2.0.0 Ok: queued as 4fV0Aa0000zz0", "filter[172.17.0.3]:10024", "", "4fV0Aa0000zz0"),
        ("250 2.0.0 Ok: queued as 4fV0Aa0000zz0", "mx.other.example[8.8.4.4]:25", "", ""),
    ],
)
def test_what_stays_in_this_host_is_no_outcome(reply: str, relay: str, relayhost: str, passed_on: str) -> None:
    """The last two name a queue id of a live message: believed of a neighbour, not of a stranger."""
    settings = SETTINGS._replace(instances={"postfix": InstanceFacts(relayhost=relayhost == "relayhost")})
    engine = Engine(RULES, rules.organizational_domain, settings)
    lines = (
        "2026-03-02T08:00:00+00:00 mx1 postfix/qmgr[1]: 4fV0Aa0000zz0: from=<a@b.example>, size=1, nrcpt=1 (queue active)\n"
        f"2026-03-02T08:00:01+00:00 mx1 postfix/smtp[2]: 4fV0Ab0000zz0: to=<c@d.example>, relay={relay}, delay=1,"
        f" delays=0/0/0/1, dsn=2.0.0, status=sent ({reply})\n"
    )
    for fact in LogReader(zone=UTC).block_facts(lines.encode()):
        engine.observe(fact, now=fact.record.time)
    assert [each.passed_on for each in engine.telling.attempts] == [passed_on]


def test_attempts_and_their_sums_agree(tmp_path: Path) -> None:
    store = filled(tmp_path / "core.db")
    counted = store.connection.execute(
        "SELECT sum(status != 'expired'), sum(status = 'sent'), sum(first) FROM attempt WHERE passed_on = ''"
    ).fetchone()
    assert counted == (TOTALS["attempts"], TOTALS["sent"], TOTALS["messages"])
    store.close()


def test_a_commit_that_fails_adds_nothing_and_may_be_tried_again(store: Store) -> None:
    store.connection.execute("CREATE TRIGGER full BEFORE INSERT ON checkpoint BEGIN SELECT RAISE(ABORT, 'full'); END")
    commit = Commit(checkpoint=Position("log", "1"), attempts=[attempt(first=1), attempt("deferred")])
    for _ in range(2):
        with pytest.raises(Exception, match="full"):
            store.commit(commit)
    assert sums(store)["attempts"] is None
    store.connection.execute("DROP TRIGGER full")
    store.commit(commit)
    assert (sums(store)["attempts"], sums(store)["messages"]) == (2, 1)


def test_sums_go_on_after_a_restart_under_the_same_names(tmp_path: Path) -> None:
    path = tmp_path / "core.db"
    for _ in range(3):
        store = Store.open(path)
        store.commit(Commit(attempts=[attempt(first=1)]))
        store.close()
    store = Store.open(path)
    assert store.connection.execute("SELECT count(*) FROM flow").fetchone() == (1,)
    assert sums(store)["sent"] == 3
    store.close()


def test_a_message_that_was_tried_before_a_restart_is_not_a_new_one(store: Store) -> None:
    store.commit(Commit(attempts=[attempt("deferred", first=1)]))
    store.commit(Commit(attempts=[attempt("deferred", at=9.0, first=2), attempt(at=20.0, first=3)]))
    store.commit(Commit(attempts=[attempt(at=9.0, first=2, queue_id="4TZ"), attempt(at=9.0, first=2, queue_id="4TZ")]))
    assert sums(store)["messages"] == 2


def test_old_sums_go_and_their_flows_with_them(store: Store) -> None:
    store.commit(Commit(attempts=[attempt(), attempt(at=400.0 * DAY, campaign="later")]))
    while store.prune_history(hours_before=BEGIN + DAY, days_before=BEGIN + 2 * DAY, limit=1):
        pass
    assert (sums(store)["sent"], sums(store, "hourly")["sent"]) == (1, 1)
    assert store.connection.execute("SELECT campaign FROM flow").fetchall() == [("later",)]
    assert store.connection.execute("SELECT sum(sent) FROM daily_value").fetchone() == (8,)


@pytest.mark.parametrize(
    ("form", "recipient", "sender"),
    [
        (AddressForm.FULL, "ann@gmail.com", "news@shop.example"),
        (AddressForm.HASH, hash_of("ann@gmail.com"), hash_of("news@shop.example")),
        (AddressForm.NONE, "", ""),
    ],
)
def test_addresses_are_kept_as_the_site_wants(tmp_path: Path, form: AddressForm, recipient: str, sender: str) -> None:
    store = filled(tmp_path / "core.db", addresses=form)
    execute = store.connection.execute
    assert execute("SELECT recipient FROM attempt ORDER BY id LIMIT 1").fetchone() == (recipient,)
    assert execute("SELECT sender FROM message ORDER BY id LIMIT 1").fetchone() == (sender,)
    held = execute("SELECT count(*) FROM attempt WHERE reply LIKE '%@%' OR recipient LIKE '%@%'").fetchone()[0]
    assert (held > 0) is (form is AddressForm.FULL)
    store.close()


def test_a_reply_that_repeats_the_address_does_not_give_it_away() -> None:
    said = "host mx.example[192.0.2.1] said: 550 5.1.1 <ann.b+c@gmail.com>: user unknown (in reply to RCPT TO command)"
    assert "gmail" not in stored_reply(said, AddressForm.HASH, longest=500)
    assert stored_reply(said, AddressForm.FULL, longest=500) == said
    assert SETTINGS.addresses is AddressForm.FULL
