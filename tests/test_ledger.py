"""What cannot be stored is kept, stored once later, and nothing new is held meanwhile."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from policies.access import Arrival
from policies.commands import Hold, Removed
from policies.engine import Engine
from policies.key import Key
from policies.site import Settings
from sidecar import ledger as ledger_module
from sidecar import rules
from sidecar.ledger import Ledger
from sidecar.log_batch import Position
from sidecar.rows import merged, restore
from sidecar.store import Store, StoreUnavailable
from sidecar.store_rows import Commit, HeldBy, HoldRow
from tests.world import RULES, World

KEY = Key("sender-domain", "burst.example", "google")


class SometimesFull(Store):
    """A real store on a disk that is full while the test says so."""

    full = False

    def commit(self, commit: Commit) -> None:
        if self.full:
            raise StoreUnavailable("core.db: database or disk is full")
        super().commit(commit)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SometimesFull]:
    with_disk = SometimesFull.open(tmp_path / "core.db")
    yield with_disk
    with_disk.close()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def refuse(domain: str, provider: str, now: float) -> str:
    del domain, provider, now
    return "451 4.2.0 Throttled - try again later. http://postmaster.comcast.net/smtp-error-codes.php#RL000010"


def test_a_full_disk_loses_and_doubles_nothing(store: SometimesFull, thread: ThreadPoolExecutor) -> None:
    world = World(refuse)
    ledger = Ledger(world.engine, store, thread)

    async def story() -> None:
        for i in range(5):
            world.submit("news@burst.example", [f"u{i}@comcast.net"])
        world.run(5)
        ledger.position = Position("mail.log", "1")
        store.full = True
        assert not await ledger.commit()
        world.submit("news@burst.example", ["late@comcast.net"])
        world.run(5)
        ledger.position = Position("mail.log", "2")
        assert not await ledger.commit()
        store.full = False
        assert await ledger.commit()
        assert await ledger.commit()

    thread.submit(lambda: None).result()
    asyncio.run(story())
    attempts = store.attempts(0, 1_000)
    assert len(attempts) == world.deferrals
    assert len({(row.queue_id, row.time) for row in attempts}) == len(attempts)
    assert store.checkpoint("mail.log") == Position("mail.log", "2")


def test_what_a_cancelled_commit_took_is_stored(store: SometimesFull, thread: ThreadPoolExecutor) -> None:
    """As when core stops: the loops are cancelled, then all is stored once more."""
    world = World(refuse)
    ledger = Ledger(world.engine, store, thread)
    world.submit("news@burst.example", ["u@comcast.net"])
    world.run(5)
    ledger.position = Position("mail.log", "1")

    async def story() -> None:
        busy = threading.Event()
        thread.submit(busy.wait)
        cancelled = asyncio.create_task(ledger.commit())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        busy.set()
        assert await ledger.commit()

    asyncio.run(story())
    assert len(store.attempts(0, 1_000)) == world.deferrals > 0
    assert store.checkpoint("mail.log") == Position("mail.log", "1")


def test_what_is_dropped_while_the_disk_is_full_is_counted(
    store: SometimesFull, thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each kind of row the youngest stay."""
    monkeypatch.setattr(ledger_module, "MOST_KEPT", 2)
    engine = World(refuse).engine
    ledger = Ledger(engine, store, thread)
    engine.telling.removed += [Removed(float(number), "postfix", f"4Wz{number}") for number in range(5)]
    store.full = True
    assert asyncio.run(ledger.commit()) is False
    assert ledger.rows_dropped == 3


def test_nothing_new_is_held_while_intent_cannot_be_stored(store: SometimesFull, thread: ThreadPoolExecutor) -> None:
    engine = Engine(RULES, rules.organizational_domain, Settings(act=True))
    ledger = Ledger(engine, store, thread)
    engine.orders.pause(KEY, 60.0, by_whom="test", now=1.0)
    arrival = Arrival(
        "postfix",
        "4WzBCDFGHJKzB",
        "a@burst.example",
        ("u@gmail.com",),
        complete=True,
        size=1,
        client_address="",
        sasl_username="",
    )

    async def story() -> None:
        store.full = True
        assert not await ledger.commit()
        assert engine.arriving(arrival, now=2.0) is None
        store.full = False
        assert await ledger.commit()
        assert engine.arriving(arrival._replace(queue_id="4WzBCDFGHJLzB"), now=3.0) is not None

    asyncio.run(story())


def test_holds_are_taken_back_and_releases_are_not(store: SometimesFull) -> None:
    del store
    world = World(lambda *_: None, slots=0)
    world.submit("news@burst.example", ["u@gmail.com"])
    world.engine.orders.pause(KEY, 60.0, by_whom="test", now=world.now)
    commands = world.engine.step(now=world.now)
    assert any(isinstance(command, Hold) for command in commands)
    assert not any(isinstance(command, Hold) for command in world.engine.without_holds(commands))
    assert world.engine.books.ours == {}


def test_the_later_of_two_rows_counts() -> None:
    row = HoldRow("postfix", "A", ("k@p",), 1.0, HeldBy.TAKEN, False, True, "s@e.org", ("r@g.com",), 0.0)
    earlier = Commit(checkpoint=Position("log", "1"), holds=[row])
    gone = Commit(checkpoint=Position("log", "2"), holds_gone=[("postfix", "A")])
    ended = merged(earlier, gone)
    assert ended is not None
    assert ended.checkpoint == Position("log", "2")
    assert (list(ended.holds), list(ended.holds_gone)) == ([], [("postfix", "A")])
    again = merged(gone, earlier)
    assert again is not None
    assert list(again.holds) == [row]
    assert list(again.holds_gone) == []
    assert merged(None, earlier) == earlier


def test_books_and_sub_queues_come_back(store: SometimesFull, thread: ThreadPoolExecutor) -> None:
    world = World(lambda *_: None)
    world.engine.orders.pause(KEY, 600.0, by_whom="test", now=world.now)
    held = world.submit("news@burst.example", ["u@gmail.com"])
    world.run(3)
    asyncio.run(_commit(Ledger(world.engine, store, thread)))
    fresh = Engine(RULES, rules.organizational_domain, Settings(act=True))
    restore(fresh, store)
    assert [str(sub.key) for sub in fresh.subqueues.all()] == [str(KEY)]
    assert [message.queue_id for message in fresh.books.ours] == [held]
    sub = fresh.subqueues.get(KEY)
    assert sub is not None
    assert sub.held == 1


async def _commit(ledger: Ledger) -> None:
    assert await ledger.commit()
