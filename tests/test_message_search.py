"""A message is found by any of its names, and its whole life is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from policies.stored_address import AddressForm
from sidecar.database import Database
from sidecar.message_search import Life, search
from sidecar.statements import SCHEMA
from sidecar.store import Commit
from tests.history_world import filled
from tests.test_rollup import attempt


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    path = tmp_path_factory.mktemp("search") / "core.db"
    filled(path).close()
    opened = Database.open_read_only(path, SCHEMA)
    yield opened
    opened.close()


def found(database: Database, query: str) -> list[Life]:
    return search(database, query, addresses=AddressForm.FULL)


@pytest.mark.parametrize(
    "query",
    ["4fV0Aa3333zB3", "<4fv0aa3333zb3@shop.example>", "4fv0aa3333zb3@shop.example", " cy@yahoo.com ", "cy@YAHOO.com"],
)
def test_by_each_of_its_names(database: Database, query: str) -> None:
    (life,) = found(database, query)
    assert (life.queue_id, life.message_id, life.sender) == (
        "4fV0Aa3333zB3",
        "<4fv0aa3333zb3@shop.example>",
        "info@letters.example",
    )
    assert (life.client, life.tenant, life.size, life.nrcpt) == (
        "crm.letters.example[198.51.100.9]",
        "letters",
        2000,
        1,
    )
    assert [(each.status, each.rule, each.delay) for each in life.attempts] == [
        ("deferred", "yahoo/deferred", 1.0),
        ("sent", "", 601.0),
    ]
    assert life.attempts[1].reply == "250 ok dirdel"
    assert life.removed - life.received == 601.0


def test_by_its_sender_the_newest_first(database: Database) -> None:
    lives = found(database, "info@letters.example")
    assert [life.queue_id for life in lives] == ["4fV0Ac8888zB9", "4fV0Aa7777zB8", "4fV0Aa4444zB4", "4fV0Aa3333zB3"]


@pytest.mark.parametrize("queue_id", ["4fV0Aa6666zB6", "4fV0Ab6666zB7"])
def test_through_a_content_filter(database: Database, queue_id: str) -> None:
    first, second = found(database, queue_id)
    assert (first.queue_id, first.attempts[0].passed_on) == ("4fV0Aa6666zB6", "4fV0Ab6666zB7")
    assert (second.queue_id, second.attempts[0].relay) == ("4fV0Ab6666zB7", "gmail-smtp-in.l.google.com")


def test_with_what_the_sidecar_did(database: Database) -> None:
    (life,) = found(database, "gus@gmail.com")
    assert [(change.kind, change.key) for change in life.changes] == [("opened", "dkim-domain:shop.example@google")]


@pytest.mark.parametrize("query", ["", "x", "nobody@elsewhere.example", "4ZZZZZ", "'; DROP TABLE message; --", "%"])
def test_nothing(database: Database, query: str) -> None:
    assert found(database, query) == []


def test_a_hashed_address_is_found_and_one_that_is_not_kept_is_not(tmp_path: Path) -> None:
    for form, number in ((AddressForm.HASH, 1), (AddressForm.NONE, 0)):
        store = filled(tmp_path / f"{form}.db", addresses=form)
        database = Database(store.path, store.connection)
        assert len(search(database, "Ann@gmail.com", addresses=form)) == number
        store.close()


def test_a_short_queue_id_that_is_used_again_is_two_messages(tmp_path: Path) -> None:
    store = filled(tmp_path / "core.db")
    entered, removed = "INSERT INTO message VALUES (NULL, ?, 'mx1', 'postfix', 'ABC123', ?, '', 1, 1, '', '', ?)", 50.0
    store.connection.execute(entered, (10.0, "<one@x>", removed))
    store.connection.execute(entered, (100.0, "<two@x>", 0.0))
    row = attempt(queue_id="ABC123", recipient="a@b.example")
    store.commit(Commit(attempts=[row._replace(time=11.0), row._replace(time=101.0)]))
    database = Database(store.path, store.connection)
    assert [life.message_id for life in found(database, "ABC123")] == ["<two@x>", "<one@x>"]
    assert [life.message_id for life in found(database, "<one@x>")] == ["<one@x>"]
    assert [len(life.attempts) for life in found(database, "ABC123")] == [1, 1]
    store.close()


def test_what_waits_says_where(tmp_path: Path) -> None:
    store = filled(tmp_path / "core.db")
    key = "dkim-domain:shop.example@google"
    store.connection.execute(
        "INSERT INTO hold VALUES ('postfix', '4fV0Aa9999zBB', ?, 1.0, 'taken', 1, 0, 's', '[]', 1.0)", (f'["{key}"]',)
    )
    (life,) = found(Database(store.path, store.connection), "4fV0Aa9999zBB")
    assert life.held_under == (key,)
    store.close()
