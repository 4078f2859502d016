"""What an engine knows that was down for a while, or lost its store, about mail that was taken from core."""

from policies.commands import Adopt, Hold, Release
from policies.engine import Engine
from policies.key import Key
from policies.messages import Place
from policies.site import Settings
from sidecar import rules
from sidecar.rows import _hold_row, _message
from tests.world import GOOGLE_DKIM, RULES, World

BURST = Key("dkim-domain", "burst.example", "google")
SCALE = 60.0
"""So that a queue manager whose proof does not come is renewed after 10 s."""


def _taken_from_core(count: int = 60, *, transaction: float = 40.0) -> World:
    """20 messages in delivery, the others waiting in the queue manager's memory, all of them on hold."""
    world = World(lambda *_: None, transaction=transaction, scale=SCALE)
    for i in range(count):
        world.submit("news@burst.example", [f"user{i}@gmail.com"])
    world.run(1)
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    world.engine.recipients.learn("gmail.com", "google", now=world.now)
    world.engine.orders.pause(BURST, 600.0, by_whom="test", now=world.now)
    world.run(1)
    assert {file.queue for file in world.files.values()} == {"hold"}
    return world


def _engine() -> Engine:
    return Engine(RULES, rules.organizational_domain, Settings(act=True, scale=SCALE))


def _restored(world: World, killed: Engine) -> None:
    """An engine with the books as stored, its sub-queue paused."""
    world.engine = _engine()
    world.engine.orders.pause(BURST, 600.0, by_whom="test", now=world.now)
    for message in killed.books.ours:
        world.engine.books.restore(_message(_hold_row(message)))


def _fresh(world: World, *, replayed: bool = False) -> None:
    """An engine without a store, as at the end of its start: the record is there, perhaps the log as well."""
    taken_at = world.now - 2
    world.engine = _engine()
    if replayed:
        for fact in world.log:
            world.engine.observe(fact, now=fact.record.time)
    held = [file.queue_id for file in world.files.values() if file.queue == "hold"]
    listing = world.listing(dict.fromkeys(held, str(BURST)))
    world.engine.listed(listing._replace(since=dict.fromkeys(held, taken_at)), now=world.now)


def test_without_a_store_nothing_is_released_that_may_be_in_core() -> None:
    world = _taken_from_core()
    _fresh(world)
    assert len(world.engine.books.ours) == 60
    world.run(300)
    assert world.silently_lost == []
    assert sum(world.delivered.values()) == 60
    assert world.duplicates == 0


def test_what_was_found_before_its_sub_queue_opened_waits_in_it_and_is_counted_once() -> None:
    world = _taken_from_core()
    _fresh(world)
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    world.engine.recipients.learn("gmail.com", "google", now=world.now)
    sub = world.engine.orders.pause(BURST, 600.0, by_whom="test", now=world.now)
    world.run(1)
    assert sub.held == 60
    world.engine.orders.release(None, by_whom="test", now=world.now)
    world.run(300)
    assert (sub.held, sum(world.delivered.values())) == (0, 60)


def test_after_a_replay_of_the_log_the_helpers_holds_are_ours() -> None:
    world = _taken_from_core()
    _fresh(world, replayed=True)
    assert len(world.engine.books.ours) == 60
    world.run(300)
    assert world.silently_lost == []
    assert sum(world.delivered.values()) == 60


def test_an_admins_later_hold_is_not_ours_though_the_record_still_names_it() -> None:
    world = World(lambda *_: None, slots=0)
    held = world.submit("news@burst.example", ["u@gmail.com"])
    world.files[held].queue = "hold"
    listing = world.listing({held: str(BURST)})._replace(since={held: world.now - 60})
    message = world.engine.messages.get("postfix", held)
    assert message is not None
    world.engine.books.held_by_other(message, by_line=True, now=world.now)
    world.engine.listed(listing, now=world.now)
    assert message.place is Place.FOREIGN


def test_what_we_hold_and_the_record_lacks_is_written_down_again() -> None:
    """The record was removed under the helper: without it the failsafe would find nothing of ours."""
    world = _taken_from_core()
    queue_ids = sorted(world.files)
    recorded = dict.fromkeys(queue_ids[:20], str(BURST))
    world.engine.hold_queue("postfix", set(queue_ids), recorded, since={}, listed_at=world.now, now=world.now)
    adopted = [command for command in world.engine.step(now=world.now) if isinstance(command, Adopt)]
    assert adopted == [Adopt("postfix", dict.fromkeys(adopted[0].keys, str(BURST)))]
    assert sorted(adopted[0].keys) == queue_ids[20:]


def test_what_was_delivered_while_we_were_down_is_released_and_no_probe() -> None:
    world = _taken_from_core(20, transaction=5.0)
    killed, world.engine = world.engine, _engine()
    world.run(10)  # all are delivered; the one that reads it is killed as well
    assert len(world.delivered) == 20
    _restored(world, killed)
    world.engine.listed(world.listing(), now=world.now)
    world.engine.reloaded("postfix", began=world.now)
    world.run(5)
    assert world.files == {}


def test_the_outcome_that_core_did_not_live_to_read_counts() -> None:
    world = _taken_from_core(20, transaction=5.0)
    _restored(world, world.engine)
    assert sum(message.in_core for message in world.engine.books.ours) == 20
    world.run(10)
    assert len(world.delivered) == 20
    assert world.files == {}


def test_what_was_proved_is_stored() -> None:
    world = _taken_from_core(20, transaction=5.0)
    world.judge = lambda domain, *_: GOOGLE_DKIM.format(domain=domain)
    world.engine.books.changed.clear()
    world.run(6)
    noted = [message for message in world.engine.books.changed.values() if message is not None]
    assert len(noted) == 20
    assert not any(_hold_row(message).in_core for message in noted)


def test_an_attempt_from_before_a_release_by_hand_does_not_use_up_the_one_it_gives() -> None:
    world = _taken_from_core(20, transaction=5.0)
    world.judge = lambda domain, *_: GOOGLE_DKIM.format(domain=domain)
    world.engine.orders.release(None, by_whom="test", now=world.now)
    world.run(8)  # refused while on hold, then released
    first = next(i for i, command in enumerate(world.commands) if isinstance(command, Release))
    assert not any(isinstance(command, Hold) for command in world.commands[first:])
