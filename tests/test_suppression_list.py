"""The lists in core: by command and by outcome, in memory at once and in the store, after restarts as before."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from policies.classify import RuleSet
from policies.key import Key
from policies.site import Settings
from policies.suppression import Delivered, Listed, Reason
from sidecar import suppression, suppression_book, suppression_index, suppression_store
from sidecar.config import Config, StoreConfig, SuppressionStorage, WishesList
from sidecar.rules import load
from sidecar.store import Store
from sidecar.suppression import open_suppression
from tests.suppression_core import Core, core

RULES = load()
DEAD = Listed("global", Reason.HARD_BOUNCE)


def is_ready(it: Core) -> bool:
    return it.opened.shelf.ready


async def add(it: Core, *addresses: str, **row: Any) -> dict[str, Any]:
    return await it.ask("add", rows=[{"address": each, **row} for each in addresses])


def test_what_became_of_an_address_is_found_without_reading_the_whole_list(tmp_path: Path) -> None:
    """A copy of another host's list asks for each of a hundred thousand."""
    with closing(Store.open(tmp_path / "core.db")) as store:
        plan = store.connection.execute(f"EXPLAIN QUERY PLAN {suppression_store._OF}", (b"",)).fetchall()
    steps = [row[3] for row in plan]
    assert not any(step.startswith("SCAN") for step in steps), steps
    assert sum("suppression_in_force" in step or "suppression_ended" in step for step in steps) == 2


def test_by_hand_and_after_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        async with core(tmp_path) as it:
            said = await add(it, "a@x.example", "b@x.example", list="domain:Shop.example", evidence="ticket 7")
            assert said == {"added": 2, "known": 0, "refused": [], "stored": True}
            assert (await add(it, "A@X.example", list="domain:shop.example"))["known"] == 1
            assert it.listed("a@x.example") == (Listed("domain:shop.example", Reason.BY_HAND),)
            said = await it.ask("remove", address="B@x.example", why="she asked")
            assert said["removed"] == [{"list": "domain:shop.example", "reason": "by-hand"}]
        async with core(tmp_path) as it:
            assert it.listed("a@x.example") == (Listed("domain:shop.example", Reason.BY_HAND),)
            assert it.listed("b@x.example") == ()
            (entry,) = (await it.ask("check", address="b@x.example"))["entries"]  # the history stays
            assert (entry["ended_by"], entry["ended_why"], entry["by_whom"]) == ("root", "she asked", "root")
            (entry,) = (await it.ask("list"))["entries"]
            assert (entry["address"], entry["evidence"]) == ("a@x.example", "ticket 7")

    asyncio.run(story())


def test_what_makes_no_sense_is_refused_row_by_row(tmp_path: Path) -> None:
    async def story() -> None:
        async with core(tmp_path) as it:
            said = await it.ask(
                "add",
                rows=[
                    {"address": "no address"},
                    {"address": "a@x.example", "list": "locals"},
                    {"address": "a@x.example", "reason": "mood"},
                    {"address": "a@x.example", "until": "soon"},
                    {"digest": "12"},
                    "a@x.example",
                    {"address": "good@x.example"},
                ],
            )
            assert said["added"] == 1
            assert [each["row"] for each in said["refused"]] == [0, 1, 2, 3, 4, 5]
            for each, wanted in zip(
                said["refused"],
                ("wanted one as", "wanted global", "wanted one of", "wanted seconds", "32 hex", "an object"),
                strict=True,
            ):
                assert wanted in each["why"]
            for request in (
                {},
                {"do": "jump"},
                {"do": "add", "rows": 7},
                {"do": "take", "events": []},
                {"do": "list", "list": "x"},
            ):
                with pytest.raises(ValueError, match="wanted"):
                    await it.part.answer(request)

    asyncio.run(story())


def test_a_bounce_is_in_force_before_it_is_stored_and_afterwards(tmp_path: Path) -> None:
    async def story() -> None:
        async with core(tmp_path) as it:
            it.bounced("gone@gmail.com")
            assert it.listed("gone@gmail.com") == (DEAD,)
            await it.ledger.commit()
        async with core(tmp_path) as it:
            assert it.listed("gone@gmail.com") == (DEAD,)
            assert it.opened.suppressing.on_probation == 1
            (entry,) = (await it.ask("check", address="gone@gmail.com"))["entries"]
            assert entry["evidence"] == "to=<gone@gmail.com>"
            assert entry["provisional_until"] == 2e9 + 1_800

    asyncio.run(story())


def test_an_entry_ends_when_its_time_is_over(tmp_path: Path) -> None:
    async def story() -> None:
        async with core(tmp_path) as it:
            await add(it, "a@x.example", until=2e9)
            await add(it, "b@x.example", until=9e9)
            await it.settled()
            assert it.listed("a@x.example") == ()
            assert it.listed("b@x.example") != ()

    asyncio.run(story())


def test_a_large_list_goes_into_the_file_and_stays_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression_book, "OVERLAY_MAX", 100)
    names = [f"user{number}@x.example" for number in range(500)]

    async def story() -> None:
        async with core(tmp_path) as it:
            await add(it, *names)
            await it.settled()
            assert it.opened.book.entries_in_file == 500
            assert it.opened.book.changed == 0
            await it.ask("remove", address=names[0])
            await add(it, names[1], list="tenant:shop")
            await add(it, "late@x.example")
            assert it.store.connection.execute("SELECT count(*) FROM suppression_delta").fetchone() == (3,)
        for again in range(2):
            async with core(tmp_path) as it:
                assert it.opened.book.entries_in_file == 500
                assert it.listed(names[0]) == ()
                assert set(it.listed(names[1])) == {
                    Listed("global", Reason.BY_HAND),
                    Listed("tenant:shop", Reason.BY_HAND),
                }
                assert it.listed("late@x.example") != ()
                assert all(it.listed(each) for each in names[2:])
            if not again:
                continue
            (tmp_path / "suppressed.index").unlink()
            async with core(tmp_path) as it:
                assert not is_ready(it)  # it serves without, until the file is there again
                await it.settled()
                assert is_ready(it)
                assert all(it.listed(each) for each in names[1:])
                assert it.listed(names[0]) == ()

    asyncio.run(story())


def test_a_damaged_file_is_made_anew_and_the_file_of_another_store_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suppression_book, "OVERLAY_MAX", 10)
    names = [f"user{number}@x.example" for number in range(50)]

    async def story() -> None:
        async with core(tmp_path) as it:
            await add(it, *names)
            await it.settled()
        index = tmp_path / "suppressed.index"
        index.write_bytes(index.read_bytes()[:-1])
        async with core(tmp_path) as it:
            assert not any(map(it.listed, names))
            await it.settled()
            assert all(map(it.listed, names))
        (tmp_path / "core.db").unlink()  # a store that was set aside takes its list along
        async with core(tmp_path) as it:
            assert not any(map(it.listed, names))

    asyncio.run(story())


def test_changes_while_the_file_is_made_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression_book, "OVERLAY_MAX", 10)
    names = [f"user{number}@x.example" for number in range(20)]

    async def story() -> None:
        async with core(tmp_path) as it:
            await add(it, *names)
            fold = suppression_index.fold

            def meanwhile(*arguments: Any) -> None:
                fold(*arguments)
                it.bounced("new@gmail.com")  # decided, not stored
                it.bounced(names[0])

            monkeypatch.setattr(suppression_book, "fold", meanwhile)
            await it.opened.shelf.maintain(it.opened.book)
            assert it.listed("new@gmail.com") == (DEAD,)
            assert set(it.listed(names[0])) == {DEAD, Listed("global", Reason.BY_HAND)}
            assert it.opened.book.changed == 2

    asyncio.run(story())


def test_hashed_storage_names_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        async with core(tmp_path, storage=SuppressionStorage.HASH) as it:
            await add(it, "secret@x.example", evidence="a mail of Secret@X.example")
            it.bounced("other@gmail.com")
            await it.ledger.commit()
            assert it.listed("secret@x.example") != ()
            assert (await it.ask("check", address="secret@x.example"))["suppressed"] != []
        dump = "\n".join(sqlite3.connect(tmp_path / "core.db").iterdump()).lower()
        assert "secret@x" not in dump
        assert "other@gmail" not in dump
        async with core(tmp_path, storage=SuppressionStorage.HASH) as it:
            assert it.listed("Secret@x.example") != ()

    asyncio.run(story())


def test_another_key_recognizes_nobody_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with core(tmp_path) as it:
            await add(it, "a@x.example")
        (tmp_path / "suppression.key").write_text("00" * 16 + "\n")
        async with core(tmp_path) as it:
            assert it.listed("a@x.example") == ()

    asyncio.run(story())
    assert "not the one that the list was made with" in caplog.text


def test_without_a_key_that_can_be_read_mail_goes_on_as_without_lists(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "suppression.key").write_text("short")
    config = Config(store=StoreConfig(path=str(tmp_path)))
    store = Store.open(config.core_database)
    with ThreadPoolExecutor(1) as thread:
        assert open_suppression(config, store, thread) is None
    store.close()
    assert "nobody is suppressed" in caplog.text


def test_an_address_of_any_bytes_has_a_digest() -> None:
    key = suppression_book.SuppressionKey(b"0123456789abcdef")
    texts = ["a@x.example", "\u00fc@x.example", "\udcfc@x.example", "", "a" * 1_000]
    assert {len(key.digest(text)) for text in texts} == {16}
    assert len({key.digest(text) for text in texts}) == len(texts)
    assert key.digest("\u00dc@X.example") == key.digest("\u00fc@x.EXAMPLE")
    assert key.digest("a@x.example") != suppression_book.SuppressionKey(b"0123456789abcdeg").digest("a@x.example")


def test_the_key_is_nobody_elses(tmp_path: Path) -> None:
    suppression_book.read_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def event(number: int, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "number": number,
        "kind": kind,
        "recipient": "a@gmail.com",
        "domain": "news.shop.example",
        "evidence": "arf",
        **more,
    }


def test_events_of_the_outside_process_count_once_whatever_it_repeats(tmp_path: Path) -> None:
    async def story() -> None:
        async with core(tmp_path) as it:
            events = [event(1, "complaint"), event(2, "unsubscribe", recipient="b@gmail.com")]
            assert await it.ask("take", source="outside-1", events=events) == {"upto": 2}
            assert it.listed("a@gmail.com") == (Listed("domain:shop.example", Reason.COMPLAINT),)
            await it.ask("remove", address="a@gmail.com")
            assert await it.ask("take", source="outside-1", events=events) == {"upto": 2}
            assert it.listed("a@gmail.com") == ()  # said again, and not done again
        async with core(tmp_path) as it:
            assert await it.ask("take", source="outside-1", events=events) == {"upto": 2}
            assert it.listed("a@gmail.com") == ()
            assert await it.ask("take", source="outside-2", events=events[:1]) == {"upto": 1}
            assert it.listed("a@gmail.com") != ()

    asyncio.run(story())


def test_complaints_may_count_for_all_senders(tmp_path: Path) -> None:
    async def story() -> None:
        async with core(tmp_path, complaints=WishesList.GLOBAL) as it:
            await it.ask("take", source="outside", events=[event(1, "complaint")])
            assert it.listed("a@gmail.com") == (Listed("global", Reason.COMPLAINT),)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("reply", "suppressed"),
    [
        ("550 5.1.1 No such user", True),
        ("550 5.7.1 blocked using Spamhaus", False),
        ("", False),
        ("452 4.2.2 full", False),
    ],
)
def test_a_bounce_that_came_by_mail_is_judged_as_any_other(tmp_path: Path, reply: str, *, suppressed: bool) -> None:
    async def story() -> None:
        async with core(tmp_path) as it:
            await it.ask("take", source="outside", events=[event(1, "bounce", reply=reply)])
            assert it.listed("a@gmail.com") == ((DEAD,) if suppressed else ())

    asyncio.run(story())


def test_a_bounce_that_came_by_mail_is_judged_by_the_rules_of_the_last_reload(tmp_path: Path) -> None:
    rule = '[[rule]]\nname = "mine"\nany = ["no such user"]\ndetail = "policy.other"\nscope = "message"\nbounce = "block"\n'
    rule += 'reaction = "nothing"\nexamples = ["550 5.1.1 No such user"]\n'
    mine = RuleSet.read([("providers/google.toml", f'mx = [".google.com"]\ndomains = ["gmail.com"]\n{rule}')])

    async def story() -> None:
        async with core(tmp_path) as it:
            it.part._engine.take_over(mine, Settings(act=True))
            await it.ask("take", source="outside", events=[event(1, "bounce", reply="550 5.1.1 No such user")])
            assert it.listed("a@gmail.com") == ()

    asyncio.run(story())


def test_who_is_silent_for_long_is_suppressed_and_back_with_the_first_click(tmp_path: Path) -> None:
    async def story() -> None:
        async with core(tmp_path, inactive_days=90, inactive_deliveries=3) as it:
            book, suppressing = it.opened.book, it.opened.suppressing
            for number in range(4):
                for name in ("silent@x.example", "reader@x.example"):
                    suppressing.moves.append(Delivered(book.digest(name), "shop.example", 1e9 + number))
            suppressing.moves.append(Delivered(book.digest("new@x.example"), "shop.example", 1e9))
            await it.ask("take", source="outside", events=[event(1, "open", recipient="reader@x.example", at=1e9 + 9)])
            await it.part._suppress_silent(now=1e9 + 89 * 86_400)
            assert it.listed("silent@x.example") == ()
            await it.part._suppress_silent(now=1e9 + 91 * 86_400)
            assert it.listed("silent@x.example") == (Listed("domain:shop.example", Reason.INACTIVE),)
            assert it.listed("reader@x.example") == it.listed("new@x.example") == ()
            segments = (await it.ask("segments"))["segments"]
            assert sum(each["people"] for each in segments) == 3
            assert {"domain": "shop.example", "engaged": "never", "people": 2} in segments
            await it.ask("take", source="outside", events=[event(2, "click", recipient="silent@x.example", at=2e9)])
            assert it.listed("silent@x.example") == ()

    asyncio.run(story())


@pytest.mark.parametrize("forget", [False, True])
def test_a_person_is_erased_everywhere(tmp_path: Path, *, forget: bool) -> None:
    async def story() -> None:
        async with core(tmp_path, inactive_days=90) as it:
            await add(it, "Jane@x.example", "not.jane@x.example", evidence="mail to Jane@x.example of May")
            it.bounced("jane@x.example", "452 4.2.2 mailbox full")
            it.opened.suppressing.moves.append(Delivered(it.opened.book.digest("jane@x.example"), "s.example", 1e9))
            key = Key("sender-domain", "shop.example", "google")
            it.part._engine.orders.open(key, rule="r", line="to=<Jane@x.example>, refused", now=2e9)
            await it.ledger.commit()
            execute = it.store.connection.execute
            execute("INSERT INTO change VALUES (7, 1, 'k', 'opened', 's', 'w', 'to=<JANE@x.example>, x', 'r', 'e', 0)")
            execute("CREATE TABLE of_somebody_else (who TEXT PRIMARY KEY, what TEXT) WITHOUT ROWID")
            execute("INSERT INTO of_somebody_else VALUES ('jane@x.example', 'a'), ('jane@x.example.org', 'b')")
            said = await it.ask("erase", address="jane@x.example", forget=forget)
            it.part._engine.orders.pause(key, 60.0, by_whom="root", now=2e9 + 1)
            await it.ledger.commit()
            assert said["rows"] >= 4
            assert (it.listed("jane@x.example") == ()) is forget
            assert it.listed("not.jane@x.example") != ()
            assert execute("SELECT line FROM change WHERE id = 7").fetchone() == ("to=<[erased]>, x",)
            assert execute("SELECT * FROM of_somebody_else ORDER BY 1").fetchall() == [
                ("[erased]", "a"),
                ("jane@x.example.org", "b"),
            ]
            digest = it.opened.book.digest("jane@x.example")
            for table in ("suppression_count", "engagement", *(["suppression"] if forget else [])):
                left = execute(f"SELECT count(*) FROM {table} WHERE who = ?", (digest,))  # noqa: S608  # our tables
                assert left.fetchone() == (0,)
            dump = "\n".join(it.store.connection.iterdump()).lower()
            assert "'jane@x.example'" not in dump.replace("jane@x.example.org", "")
            assert "<jane@" not in dump
            raw = (tmp_path / "core.db").read_bytes() + (tmp_path / "core.db-wal").read_bytes()
            assert b"mail to Jane@x.example of May" not in raw  # nor what was deleted
        async with core(tmp_path) as it:
            assert (it.listed("jane@x.example") == ()) is forget

    asyncio.run(story())


def test_nothing_is_said_to_be_done_that_is_not_stored(tmp_path: Path) -> None:
    async def story() -> None:
        async with core(tmp_path) as it:
            it.store.connection.execute("PRAGMA busy_timeout = 50")
            other = sqlite3.connect(tmp_path / "core.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            assert (await add(it, "a@x.example"))["stored"] is False
            with pytest.raises(ValueError, match="not stored yet"):
                await it.ask("take", source="outside", events=[event(1, "complaint")])
            with pytest.raises(ValueError, match="nothing was erased"):
                await it.ask("erase", address="a@x.example")
            other.execute("ROLLBACK")
            other.close()
            assert await it.ask("take", source="outside", events=[event(1, "complaint")]) == {"upto": 1}
        async with core(tmp_path) as it:  # and what was kept meanwhile is stored with it
            assert it.listed("a@x.example") != ()
            assert it.listed("a@gmail.com") != ()

    asyncio.run(story())


def test_all_that_the_command_knows_is_in_its_table() -> None:
    assert set(suppression._DO) == {"add", "remove", "check", "list", "segments", "take", "erase"}
