"""Requeueing by hand: queued mail of a transport is taken in anew, paced, once, and nothing is lost or doubled by it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from policies.by_hand import ByHand, Requeueing
from policies.commands import Leaving, Requeue
from policies.figures import Kind
from policies.key import Key
from policies.messages import Place
from policies.pools import Member, Pool, Sticky
from policies.reacting import Do, Reactions, Rule, Signal
from policies.redirects import LIFETIME, Redirects, can_lead
from policies.releasing import RESOLVED_FOR
from policies.signs import Sign
from policies.steering import Away
from sidecar import pools, postfix, requeue_limits, rerouting
from sidecar.config import Config, ConfigError, ReactConfig
from sidecar.hands import Hands
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.postfix import PostfixError
from sidecar.queue_client import HelperRefused
from sidecar.transport_table import TransportTable
from tests.steering_world import BEGIN
from tests.steering_world import Hands as NoHands
from tests.steering_world import World as Steered
from tests.world import World

AWAY = Requeueing("smtp", "out-b")
WHERE = 'transport = "smtp"'
STICKY = Pool("sticky", (Member("ip-1"), Member("ip-2"), Member("ip-3")), Sticky.SENDING_DOMAIN)
REFUSED = "451 4.7.1 Try again later"


def putting_off(*providers: str) -> World:
    """A world in which these providers put mail off."""
    return World(lambda _, provider, __: REFUSED if provider in providers else None)


def requeued(at: World, where: str = WHERE, *, rate: float = 2.0, seconds: float = 3600.0) -> Key:
    sub = at.engine.orders.requeue(
        AWAY, where=where, name="requeue-smtp", rate=rate, seconds=seconds, by_whom="ann", now=at.now
    )
    return sub.key


def commands(at: World) -> list[Requeue]:
    return [command for command in at.commands if isinstance(command, Requeue)]


def told(at: World, kind: str) -> list[tuple[str, int]]:
    return [(change.why, change.messages) for change in at.engine.telling.changes if change.kind == kind]


def test_queued_mail_is_taken_in_anew_once_and_paced() -> None:
    at = putting_off("google")
    ids = [at.submit("a@shop.example", [f"u{i}@gmail.com"]) for i in range(20)]
    other = at.submit("a@shop.example", ["u@yahoo.com"])
    at.run(20)
    key = requeued(at, f"{WHERE} and provider = google", rate=1.0)
    at.run(5)
    assert {at.files[queue_id].queue for queue_id in ids} == {"hold"}
    assert not commands(at), "for half a minute Postfix may remember the old way"
    at.judge = lambda *_: None
    at.run(RESOLVED_FOR)
    assert 3 <= len(at.requeued) <= 12, "a second each"
    at.run(60)
    assert sorted(at.requeued.values()) == sorted(ids)
    assert (sum(at.delivered.values()), at.duplicates, at.silently_lost, at.files) == (21, 0, [], {})
    assert (other, "u@yahoo.com") in at.delivered
    assert {command.key for command in commands(at)} == {str(key)}
    first = commands(at)[0]
    assert first[2:4] == AWAY
    assert first.mail[ids[0]] == Leaving("shop.example", ("u0@gmail.com",))
    assert sum(count for _, count in told(at, "requeued")) == 20


def test_what_was_requeued_and_is_put_off_again_stays_with_postfix() -> None:
    """Else it would go round, with one more Received: header each time, until it bounced for its hops."""
    at = putting_off("google")
    at.submit("a@shop.example", ["u@gmail.com"])
    at.run(10)
    requeued(at)
    at.run(1200)
    assert len(at.requeued) == 1
    assert {file.queue for file in at.files.values()} <= {"deferred", "active"}
    at.judge = lambda *_: None
    at.run(3600)
    assert (sum(at.delivered.values()), at.duplicates, at.files) == (1, 0, {})


def test_new_mail_is_not_touched() -> None:
    at = putting_off("google")
    requeued(at)
    late = at.submit("a@shop.example", ["u@gmail.com"])
    at.run(120)
    assert at.files[late].queue in {"deferred", "active"}
    assert not at.requeued


def test_mail_that_was_delivered_in_part_stays_as_it_is() -> None:
    at = putting_off("google")
    queue_id = at.submit("a@shop.example", ["u@gmail.com", "u@yahoo.com"])
    at.run(10)
    requeued(at)
    at.run(120)
    assert not at.requeued
    assert at.files[queue_id].queue in {"deferred", "active"}


@pytest.mark.parametrize(
    "end", [lambda at, key: at.engine.orders.close(key, by_whom="ann", now=at.now), lambda at, _: at.run(700)]
)
def test_what_is_on_hold_when_it_ends_leaves_as_it_is(end: Callable[[World, Key], object]) -> None:
    at = putting_off("google")
    ids = [at.submit("a@shop.example", [f"u{i}@gmail.com"]) for i in range(30)]
    at.run(20)
    key = requeued(at, rate=0.02, seconds=600)
    at.run(40)
    at.judge = lambda *_: None
    end(at, key)
    at.run(700)
    assert at.engine.subqueues.get(key) is None
    assert len(at.requeued) < 15
    assert any((queue_id, "u29@gmail.com") in at.delivered for queue_id in ids), "under its own id"
    assert (sum(at.delivered.values()), at.duplicates, at.silently_lost, at.files) == (30, 0, [], {})


def test_what_waits_in_a_paused_sub_queue_too_waits_for_both_and_is_requeued_under_its_stream() -> None:
    at = putting_off("google")
    queue_id = at.submit("a@shop.example", ["u@gmail.com"])
    at.run(10)
    paused = Key.read("sender-domain:shop.example@google")
    at.engine.orders.pause(paused, 3600.0, by_whom="ann", now=at.now)
    key = requeued(at, seconds=7200)
    at.run(120)
    assert at.files[queue_id].queue == "hold"
    assert not at.requeued
    at.judge = lambda *_: None
    at.engine.orders.close(paused, by_whom="ann", now=at.now)
    at.run(30)
    assert [command.key for command in commands(at)] == [str(key)]
    assert (sum(at.delivered.values()), at.duplicates, at.files) == (1, 0, {})


def test_where_a_requeue_is_refused_the_stream_ends_and_mail_leaves_as_it_is() -> None:
    at = putting_off("google")
    queue_id = at.submit("a@shop.example", ["u@gmail.com"])
    at.run(10)
    key = requeued(at)
    at.run(RESOLVED_FOR - 5)
    at.judge = lambda *_: None
    hands = Hands(at.engine, Refusing(), rerouting.Rerouting(at.engine, None, None))  # type: ignore[arg-type]  # as a helper that says no
    command = Requeue("postfix", str(key), *AWAY, {queue_id: Leaving("shop.example", ("u@gmail.com",))})
    asyncio.run(hands.do([command]))
    assert hands.wants_listing
    at.run(30)
    assert at.engine.subqueues.get(key) is None
    assert (dict(at.delivered), at.requeued) == ({(queue_id, "u@gmail.com"): 1}, {})


class Refusing:
    async def requeue(self, *_: object, **__: object) -> None:
        raise HelperRefused("always_bcc = archive@one.example: a requeue would apply it again")


def test_it_survives_a_restart() -> None:
    machine = ByHand(WHERE, rate=2.0, until=99.0, now=1.0, requeueing=AWAY)
    again = ByHand.restore({**machine.snapshot(), "requeueing": list(AWAY)})  # as JSON gives it back
    assert (again.requeueing, again.snapshot()) == (AWAY, machine.snapshot())
    before = {name: value for name, value in machine.snapshot().items() if name != "requeueing"}
    assert ByHand.restore(before).requeueing is None


def test_a_command_that_failed_is_given_again() -> None:
    at = putting_off("google")
    queue_id = at.submit("a@shop.example", ["u@gmail.com"])
    at.run(10)
    requeued(at)
    at.run(RESOLVED_FOR)
    (message,) = [message for message in at.engine.messages if message.queue_id == queue_id]
    assert message.place is Place.HELD
    message.place = Place.RELEASING
    at.engine.books.not_released("postfix", [queue_id], "no helper", now=at.now)
    at.judge = lambda *_: None
    at.run(30)
    assert list(at.requeued.values()) == [queue_id]
    assert sum(at.delivered.values()) == 1


# Whither.


def test_a_recipient_is_led_as_long_as_mail_of_it_is_under_way() -> None:
    redirects = Redirects()
    redirects.lead(["U@a.example", "v@a.example"], "out-b", now=1.0)
    redirects.lead(["u@a.example"], "out-c", now=2.0)
    assert redirects.table() == {"u@a.example": "out-c", "v@a.example": "out-b"}
    redirects.settled("nobody@a.example")
    redirects.settled("u@A.example")
    assert not redirects.settled_any
    redirects.settled("u@a.example")
    assert (redirects.table(), redirects.settled_any) == ({"v@a.example": "out-b"}, True)
    redirects.restore({"v@a.example": "other", "w@a.example": "out-d"}, now=3.0)
    assert redirects.table() == {"v@a.example": "out-b", "w@a.example": "out-d"}
    redirects.forget_old(now=1.0 + LIFETIME + 1.0)
    assert redirects.table() == {"w@a.example": "out-d"}


@pytest.mark.parametrize(
    ("recipient", "can"),
    [
        ("u@a.example", True),
        ("postmaster", False),
        ("#u@a.example", False),
        ('"a b"@a.example', False),
        ("a\tb@c.example", False),
        ("grün@a.example", True),
        ("gr\udcfcn@a.example", False),
        ("a\x00b@a.example", False),
    ],
)
def test_whom_a_table_can_name(recipient: str, can: bool) -> None:  # noqa: FBT001  # a column of the table above
    assert can_lead(recipient) is can


def test_a_pool_gives_another_member_than_the_one_that_mail_leaves() -> None:
    at = Steered(
        pools=(Pool("bulk", (Member("ip-1"), Member("ip-2"), Member("ip-3"))), Pool("one", (Member("ip-1"),)), STICKY)
    )

    def over(pool: str, *ids: str) -> set[str]:
        return {
            at.steering.over(pool, (queue_id, "shop.example"), "google", instead_of="ip-1", now=BEGIN)
            for queue_id in ids
        }

    ids = [f"id{i}" for i in range(50)]
    assert over("bulk", *ids) == {"ip-2", "ip-3"}
    assert len(over("sticky", *ids)) == 1
    assert over("one", *ids) == over("gone", *ids) == {""}
    listed = Sign(Signal.LISTED, Kind.ADDRESS, "192.0.2.2", "*", "listed by zen")
    at.steering.signs([listed], now=BEGIN)
    assert over("bulk", *ids) == {"ip-3"}


LEAVES = Rule("listed", Signal.LISTED, Do.LEAVE_POOL, requeue=True)


def test_a_rule_leads_away_what_is_queued_for_an_address_that_left_its_pool() -> None:
    at = Steered(rules=(LEAVES,))
    ip_1 = Sign(Signal.LISTED, Kind.ADDRESS, "192.0.2.1", "*", "listed by zen")
    at.steering.signs([ip_1], now=BEGIN)
    at.steering.signs([ip_1], now=BEGIN + 30)
    assert at.steering.away == [Away("ip-1", "bulk", "*", "listed", over=False)], "once"
    at.steering.signs([], now=BEGIN + 60)
    assert at.steering.away[1:] == [Away("ip-1", "bulk", "*", "listed", over=True)]
    at.steering.signs([Sign(Signal.LISTED, Kind.ADDRESS, "192.0.2.9", "*", "of no pool")], now=BEGIN + 90)
    assert len(at.steering.away) == 2
    assert not Steered(rules=(LEAVES._replace(requeue=False),)).steering.away


@pytest.mark.parametrize(
    ("at", "key", "where"),
    [
        ("*", "stream:requeue-ip-1@*", 'transport = "ip-1"'),
        ("google", "stream:requeue-ip-1-google@*", 'transport = "ip-1" and (provider = "google")'),
    ],
)
def test_core_opens_and_ends_what_a_rule_wants(at: str, key: str, where: str, caplog: pytest.LogCaptureFixture) -> None:
    core, steering = World(lambda *_: None), Steered(rules=(LEAVES,)).steering
    steering.away = [Away("ip-1", "bulk", at, "listed", over=False)]
    asyncio.run(rerouting.lead_away(core.engine, steering, (), "lmdb:/x"))
    (sub,) = core.engine.subqueues.all()
    assert (str(sub.key), sub.line, sub.requeueing) == (key, where, Requeueing("ip-1", "pool:bulk"))
    assert core.engine.telling.changes[-1].by_whom == "react/listed"
    steering.away = [Away("ip-1", "bulk", at, "listed", over=True)]
    asyncio.run(rerouting.lead_away(core.engine, steering, (), "lmdb:/x"))
    core.run(5)
    assert core.engine.subqueues.all() == []
    steering.away = [Away("ip-1", "bulk", at, "listed", over=False)]
    asyncio.run(rerouting.lead_away(core.engine, steering, (), ""))
    assert core.engine.subqueues.all() == []
    assert "stays as it is: to: postfix.transport_table is not set" in caplog.text


def test_such_a_rule_wants_the_table() -> None:
    react = (ReactConfig("listed", Signal.LISTED, Do.LEAVE_POOL, requeue=True),)
    with pytest.raises(ConfigError, match=r"react\[0\].requeue: found true, wanted with postfix.transport_table"):
        pools.wanted(Config(react=react), [])
    with pytest.raises(ValueError, match="react x: requeue: true; wanted with do = leave-pool alone"):
        Reactions((Rule("x", Signal.COMPLAINTS, Do.PAUSE, requeue=True),), NoHands())


@pytest.mark.postfix
def test_after_a_restart_the_table_is_read_before_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "main.cf").touch()
    table = f"lmdb:{tmp_path}/transport"
    TransportTable(table, tmp_path).lead({"old@a.example": "out-a"})
    at = World(lambda *_: None)
    made = rerouting.Rerouting(at.engine, None, TransportTable(table, tmp_path))
    mail = {"4cG1": Leaving("shop.example", ("New@a.example", '"a b"@a.example'))}
    asyncio.run(made.lead(Requeue("postfix", "stream:x@*", "ip-1", "out-b", mail)))
    assert TransportTable(table, tmp_path).led() == {"old@a.example": "out-a", "new@a.example": "out-b"}
    at.engine.redirects.settled("new@a.example")
    asyncio.run(made.tidy())
    assert TransportTable(table, tmp_path).led() == {"old@a.example": "out-a"}


@pytest.mark.postfix
def test_what_is_no_text_is_an_error_of_the_table_and_not_of_core(tmp_path: Path) -> None:
    (tmp_path / "main.cf").touch()
    with pytest.raises(PostfixError, match="surrogates not allowed"):
        TransportTable(f"lmdb:{tmp_path}/transport", tmp_path).lead({"gr\udcfcn@a.example": "out-a"})


BULK = "lmdb:/bulk"
MASTER = (
    "ip-1 unix - - n - - smtp -o syslog_name=postfix/ip-1\nip-2 unix - - n - - smtp -o syslog_name=postfix/ip-2\n"
    "nameless unix - - n - - smtp\n"
)


@pytest.mark.postfix
@pytest.mark.parametrize(
    ("settings", "table", "source", "to", "says"),
    [
        ({}, BULK, "ip-1", "ip-2", ""),
        ({}, "", "smtp", "", ""),
        ({"always_bcc": "a@b.example"}, BULK, "ip-1", "", "always_bcc = a@b.example: a requeue would apply it again"),
        ({}, BULK, "nameless", "", "transport: the log names none nameless: wanted an entry of master.cf with -o sys"),
        ({}, BULK, "ip-1", "pool:none", "to: no pool is called none; known: bulk"),
        ({}, BULK, "ip-1", "ip-9", "master.cf has no transport ip-9"),
        ({}, "", "ip-1", "ip-2", "to: postfix.transport_table is not set"),
        ({"transport_maps": ""}, BULK, "ip-1", "ip-2", "main.cf: transport_maps does not name lmdb:/bulk"),
    ],
)  # fmt: skip
def test_what_cannot_be_requeued_is_said_before_anything_is_touched(
    tmp_path: Path, settings: dict[str, str], table: str, source: str, *, to: str, says: str
) -> None:
    mail = PrivatePostfix(tmp_path / "postfix", main_cf={"transport_maps": BULK, **settings}, master_cf=MASTER)
    said = requeue_limits.objection(postfix.instances(mail.config_directory), table, source, to, ["bulk"])
    assert says in said
    assert bool(said) is bool(says)
