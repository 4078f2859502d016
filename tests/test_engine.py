"""Stories of the engine at a modelled queue, with the clock in our hand."""

from collections.abc import Callable

import pytest

from parsers.postfix import facts
from parsers.record import LogRecord
from parsers.smtp import Reply
from policies.access import Arrival, hold_text
from policies.commands import Adopt, Hold, Release, Reload
from policies.engine import Engine
from policies.key import Key
from policies.messages import Place
from policies.site import InstanceFacts, Settings
from policies.subqueue import State
from sidecar import rules
from tests.world import GOOGLE_DKIM, RULES, World

BURST = Key("dkim-domain", "burst.example", "google")


class Bucket:
    """A hidden limit by sending domain: `rate` a second, bursts of `burst`."""

    def __init__(self, domain: str, *, rate: float, burst: float) -> None:
        self.domain, self.rate, self.burst = domain, rate, burst
        self.tokens, self.last = burst, 0.0

    def __call__(self, domain: str, provider: str, now: float) -> str | None:
        if domain != self.domain or provider != "google":
            return None
        self.last = self.last or now
        self.tokens = min(self.burst, self.tokens + (now - self.last) * self.rate)
        self.last = now
        if self.tokens < 1:
            return GOOGLE_DKIM.format(domain=domain)
        self.tokens -= 1
        return None


def _submit(world: World) -> None:
    world.submit("shop@steady.example", ["buyer@gmail.com"])


def test_a_throttled_domain_waits_and_drains_while_others_pass() -> None:
    world = World(Bucket("burst.example", rate=1.0, burst=50))
    for i in range(600):
        world.submit("news@burst.example", [f"user{i}@gmail.com"])
    for second in range(300):
        world.at(world.now + second, lambda: _submit(world))
    world.run(3_600)
    assert sum(world.delivered.values()) == 900
    assert world.duplicates == 0
    assert world.silently_lost == []
    assert max(world.delays["steady.example"][50:]) < 2.0
    kinds = [change.kind for change in world.engine.telling.changes]
    assert kinds.index("opened") < kinds.index("held") < kinds.index("probing") < kinds.index("ramping")


def test_nobody_elses_mail_is_held() -> None:
    world = World(Bucket("burst.example", rate=0.2, burst=5))
    for i in range(100):
        world.submit("news@burst.example", [f"user{i}@gmail.com"])
    world.run(5)
    assert world.engine.subqueues.get(BURST) is not None
    for sender in ("shop@steady.example", "<>".strip("<>"), "double-bounce@mx1.example"):
        queue_id = world.submit(sender, ["buyer@gmail.com"])
        assert world.files[queue_id].queue != "hold"
    other_provider = world.submit("news@burst.example", ["user@comcast.net"])
    assert world.files[other_provider].queue != "hold"


@pytest.mark.parametrize("recipients", [["a@gmail.com", "b@comcast.net"], ["a@gmail.com", "b@unheard-of.example"]])
def test_a_mixed_message_is_never_held(recipients: list[str]) -> None:
    world = World(lambda *_: None)
    world.engine.orders.open(BURST, rule="google/rate-dkim-domain", now=world.now)
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    arrival_time = world.now
    arrival = Arrival(
        "postfix",
        "4WzMIXEDzB",
        "a@burst.example",
        tuple(recipients),
        complete=True,
        size=1,
        client_address="",
        sasl_username="",
    )
    assert world.engine.arriving(arrival, now=arrival_time) is None


def test_messages_waiting_for_a_slot_are_held_and_not_lost() -> None:
    """20 slots tarpitted for longer than the pause: rule 1."""
    world = World(Bucket("burst.example", rate=5.0, burst=1), slots=20, transaction=700.0)
    ids = [world.submit("news@burst.example", [f"user{i}@gmail.com"]) for i in range(60)]
    world.run(699.0)
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    world.engine.orders.open(BURST, rule="google/rate-dkim-domain", now=world.now)
    world.run(1.5)
    assert any(isinstance(command, Hold) for command in world.commands)
    assert world.files[ids[-1]].queue == "hold"
    world.transaction = 0.3
    world.run(14_400)
    assert world.silently_lost == []
    assert world.duplicates == 0
    assert sum(world.delivered.values()) == 60


def test_a_held_message_in_core_is_not_released_before_the_proof() -> None:
    world = World(lambda *_: None, slots=0)
    queue_id = world.submit("news@burst.example", ["user@gmail.com"])
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    world.engine.orders.pause(BURST, 5.0, by_whom="test", now=world.now)
    world.step()
    assert world.files[queue_id].queue == "hold"
    world.run(120)
    assert world.files[queue_id].queue == "hold"
    world.slots = 20
    world._serve("google")
    world.run(120)
    assert world.silently_lost == []
    assert sum(world.delivered.values()) == 1


def test_without_proof_postfix_is_reloaded_once_and_nothing_is_lost() -> None:
    world = World(lambda *_: None, slots=0)
    world.submit("news@burst.example", ["user@gmail.com"])
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    world.engine.orders.pause(BURST, 5.0, by_whom="test", now=world.now)
    world.run(900)
    assert sum(isinstance(command, Reload) for command in world.commands) == 1
    world.slots = 20
    world._serve("google")
    world.run(600)
    assert sum(world.delivered.values()) == 1
    assert world.silently_lost == []


def test_several_recipients_in_core_are_left_alone_until_deferred() -> None:
    world = World(lambda *_: None, slots=0)
    queue_id = world.submit("news@burst.example", ["a@gmail.com", "b@gmail.com"])
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    world.engine.orders.pause(BURST, 60.0, by_whom="test", now=world.now)
    world.step()
    assert world.files[queue_id].queue == "active"


def test_an_admins_hold_is_never_touched() -> None:
    world = World(lambda *_: None)
    queue_id = world.submit("news@burst.example", ["user@gmail.com"])
    message = world.engine.messages.get("postfix", queue_id)
    assert message is not None
    world.files[queue_id].queue = "hold"
    world.say(lambda r: facts.Held(r, queue_id, "admin", "", "", "", ""), "postsuper")
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    world.engine.orders.pause(BURST, 5.0, by_whom="test", now=world.now)
    world.run(1_200)
    world.engine.orders.release(None, by_whom="test", now=world.now)
    world.run(60)
    assert world.files[queue_id].queue == "hold"
    assert message.place is Place.FOREIGN


def test_a_header_check_before_ours_makes_the_hold_theirs() -> None:
    world = World(lambda *_: None)
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    world.engine.orders.pause(BURST, 5.0, by_whom="test", now=world.now)
    queue_id = world.submit("news@burst.example", ["user@gmail.com"])
    assert world.files[queue_id].queue == "hold"
    world.say(lambda r: facts.Held(r, queue_id, "cleanup", "", "header Subject: x", "", ""), "cleanup")
    world.run(3_600)
    assert world.files[queue_id].queue == "hold"


def _promised(world: World) -> str:
    """A message that we answered HOLD and that is on hold; no line of ours has been read."""
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    world.engine.orders.pause(BURST, 5.0, by_whom="test", now=world.now)
    queue_id = world.submit("news@burst.example", ["user@gmail.com"], line=False)
    assert world.files[queue_id].queue == "hold"
    return queue_id


def test_a_promise_without_our_own_line_is_not_released() -> None:
    """An access map held it at RCPT: smtpd logs that without a queue id, and our HOLD not at all."""
    world = World(lambda *_: None)
    queue_id = _promised(world)
    world.run(30)
    world.engine.orders.close(BURST, by_whom="test", now=world.now)
    world.run(30)
    world.engine.listed(world.listing(), now=world.now)
    world.run(3_600)
    assert world.files[queue_id].queue == "hold"


def test_our_own_line_counts_however_late_it_is_read() -> None:
    """The queue was listed first, as at a start, or the log lags: until then the hold seemed another's."""
    world = World(lambda *_: None)
    queue_id = _promised(world)
    world.run(120)
    world.engine.listed(world.listing(), now=world.now)
    text = "<END-OF-MESSAGE>: End-of-data " + hold_text(str(BURST), "by-hand")
    world.say(lambda r: facts.Held(r, queue_id, "policy", "END-OF-MESSAGE", text, "news@burst.example", ""), "smtpd")
    world.run(120)
    assert sum(world.delivered.values()) == 1


def test_after_a_gap_in_the_log_a_promise_is_believed() -> None:
    world = World(lambda *_: None)
    queue_id = _promised(world)
    world.engine.gap(now=world.now)
    world.run(120)
    assert sum(world.delivered.values()) == 1
    assert any(isinstance(command, Adopt) and queue_id in command.keys for command in world.commands)


def test_a_great_release_does_not_stand_in_front_of_others() -> None:
    """Two thousand messages at 40 a second through 20 slots, and a message of somebody else's each second."""
    world = World(lambda *_: None, transaction=0.5)
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    world.engine.orders.pause(BURST, 3_000.0, by_whom="test", now=world.now)
    for i in range(2_000):
        world.submit("news@burst.example", [f"user{i}@gmail.com"])
    world.engine.orders.release(None, by_whom="test", now=world.now)
    for second in range(70):
        world.at(world.now + second, lambda: _submit(world))
    world.run(70)
    assert sum(world.delivered.values()) >= 1_900
    assert max(world.delays["steady.example"]) < 3.0


def test_a_promise_ends_with_a_milters_refusal() -> None:
    """The file never comes to hold: a release would be asked for it until the promise is forgotten."""
    world = World(lambda *_: None)
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    sub = world.engine.orders.pause(BURST, 5.0, by_whom="test", now=world.now)
    queue_id = world.submit("news@burst.example", ["user@gmail.com"])
    assert sub.held == 1
    del world.files[queue_id]
    refusal = facts.Rejected(
        LogRecord(world.now, "mx1", "postfix", "", "cleanup", 1, ""),
        queue_id,
        action="milter-reject",
        stage="END-OF-MESSAGE",
        code="550",
        enhanced="5.7.1",
        text="Command rejected",
        sender="news@burst.example",
        recipient="",
        client_host="",
        client_address="",
        helo="",
        sasl_username="",
    )
    world.engine.observe(refusal, now=world.now)
    assert (sub.held, world.engine.books.ours) == (0, {})
    world.run(120)
    assert not any(isinstance(command, Release) for command in world.commands)


def test_with_a_lifetime_of_an_hour_mail_leaves_hold_after_half_of_it() -> None:
    world = World(Bucket("burst.example", rate=0.0, burst=1))
    hour = InstanceFacts(lifetime=3_600.0, bounce_lifetime=3_600.0)
    world.engine = Engine(RULES, rules.organizational_domain, Settings(act=True, instances={"postfix": hour}))
    for i in range(30):
        world.submit("news@burst.example", [f"user{i}@gmail.com"])
    world.run(1_790, step=5.0)
    before = world.deferrals
    assert sum(file.queue == "hold" for file in world.files.values()) >= 28
    world.run(120)
    assert [file.queue_id for file in world.files.values() if file.queue == "hold"] == []
    assert world.deferrals - before >= 28
    world.run(1_500, step=5.0)
    assert not any(file.queue == "hold" for file in world.files.values())


def test_what_an_admin_releases_gets_its_attempt() -> None:
    world = World(lambda *_: None)
    world.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    world.engine.orders.pause(BURST, 600.0, by_whom="test", now=world.now)
    queue_id = world.submit("news@burst.example", ["user@gmail.com"])
    world.run(10)
    world.files[queue_id].queue = "deferred"
    world.say(lambda r: facts.Released(r, queue_id), "postsuper")
    world.due(world.files[queue_id], world.now + 0.3)
    world.run(10)
    assert sum(world.delivered.values()) == 1


def test_a_recipient_scoped_refusal_changes_nothing() -> None:
    reply = "452-4.2.2 The recipient's inbox is out of storage space. 452 4.2.2 Please direct the recipient to - gsmtp"
    world = World(lambda *_: reply)
    for i in range(50):
        world.submit("news@burst.example", [f"user{i}@gmail.com"])
    world.run(60)
    assert world.engine.subqueues.all() == []
    assert world.commands == []


def test_mail_leaves_at_hold_max_and_is_tried_once() -> None:
    world = World(Bucket("burst.example", rate=0.0, burst=1))
    for i in range(30):
        world.submit("news@burst.example", [f"user{i}@gmail.com"])
    world.run(43_200)
    held = sum(file.queue == "hold" for file in world.files.values())
    assert held >= 28
    before = world.deferrals
    world.run(48_000, step=5.0)
    assert world.deferrals - before >= 28
    assert any(change.kind == "capped" for change in world.engine.telling.changes)


def test_never_more_than_one_probe() -> None:
    world = World(Bucket("burst.example", rate=0.05, burst=5))
    for i in range(200):
        world.submit("news@burst.example", [f"user{i}@gmail.com"])
    world.run(10)
    sub = world.engine.subqueues.get(BURST)
    assert sub is not None
    for _ in range(3_000):
        before = sub.let_out
        probing = sub.machine.state is State.PROBING
        world.run(1.0)
        if probing and sub.machine.state is State.PROBING:
            assert sub.let_out - before <= 1


def replayed(build: Callable[[], World]) -> list[str]:
    return [
        f"{change.time:.3f} {change.key} {change.kind} {change.messages}" for change in build().engine.telling.changes
    ]


def test_the_same_log_gives_the_same_states() -> None:
    def build() -> World:
        world = World(Bucket("burst.example", rate=0.5, burst=20))
        for i in range(100):
            world.submit("news@burst.example", [f"user{i}@gmail.com"])
        world.run(1_000)
        return world

    assert replayed(build) == replayed(build)


def _in_delivery_while_ramping() -> tuple[World, str]:
    """A sub-queue that is ramping, and a message that it has let out and whose outcome is to come."""
    world = World(Bucket("burst.example", rate=1.0, burst=50))
    for i in range(600):
        world.submit("news@burst.example", [f"user{i}@gmail.com"])
    world.run(600.0)
    for _ in range(600):
        world.run(0.1, step=0.1)
        sub = world.engine.subqueues.get(BURST)
        out = [m.queue_id for m in world.engine.messages if m.in_core and sub and m.let_out > sub.opened_at]
        if sub and sub.machine.state is State.RAMPING and out:
            return world, out[0]
    raise AssertionError("it never ramped")


def _refused_by_one_mx(world: World, queue_id: str, domain: str = "burst.example") -> None:
    _one_mx_said(world, queue_id, "gmail-smtp-in.l.google.com", GOOGLE_DKIM.format(domain=domain))


def _one_mx_said(world: World, queue_id: str, host: str, said: str) -> None:
    reason = f"host {host}[192.0.2.1] said: {said} (in reply to end of DATA command)"
    reply = Reply(said[:3], said[4:].partition(" ")[0], said, host, "192.0.2.1", "end of DATA")
    world.say(lambda r: facts.RemoteReply(r, queue_id, host, "192.0.2.1", reason, reply), "smtp", text=reason)


COMCAST_RATE = "451 4.2.0 Throttled - https://postmaster.comcast.net/smtp-error-codes.php#RL000010"
ANYBODYS = "451 4.7.1 Service unavailable - try again later"


@pytest.mark.parametrize(
    ("said", "users", "opens"),
    [
        pytest.param(COMCAST_RATE, ("a", "b"), False, id="two recipients of three"),
        pytest.param(COMCAST_RATE, ("a", "b", "a"), False, id="one of them twice"),
        pytest.param(COMCAST_RATE, ("a", "b", "c"), True, id="three"),
        pytest.param(ANYBODYS, ("a", "b", "c", "d"), False, id="words that are nobody's own: one host's trouble"),
    ],
)
def test_where_the_reply_names_nobody_refusals_of_one_mx_host_open_by_recipients(
    said: str, users: tuple[str, ...], *, opens: bool
) -> None:
    world = _in_delivery_to_comcast(users)
    assert (_COMCAST_KEY in _refused_by_comcasts_first(world, said)) is opens


def test_a_recipient_that_the_next_mx_host_took_does_not_count_as_refused() -> None:
    world = _in_delivery_to_comcast(("a", "b"))
    assert not _refused_by_comcasts_first(world, COMCAST_RATE)
    world.run(10.0)
    assert sum(world.delivered.values()) == 2
    world.submit("news@burst.example", ["c@comcast.net"])
    world.run(1.0)
    assert not _refused_by_comcasts_first(world, COMCAST_RATE)


_COMCAST_KEY = Key("sender-domain", "burst.example", "comcast")


def _in_delivery_to_comcast(users: tuple[str, ...]) -> World:
    world = World(lambda *_: None, transaction=5.0)
    for user in users:
        world.submit("news@burst.example", [f"{user}@comcast.net"])
    world.run(1.0)
    return world


def _refused_by_comcasts_first(world: World, said: str) -> list[Key]:
    """Say for all that is in delivery that one MX host has refused; the keys that are open then."""
    for queue_id in [message.queue_id for message in world.engine.messages if message.in_core]:
        _one_mx_said(world, queue_id, "mx1a1.comcast.net", said)
    return [sub.key for sub in world.engine.subqueues.all()]


def test_the_first_mx_hosts_refusal_stops_a_ramp_before_the_outcome_and_is_counted_once() -> None:
    world, queue_id = _in_delivery_while_ramping()
    sub = world.engine.subqueues.get(BURST)
    assert sub is not None
    _refused_by_one_mx(world, queue_id)
    assert sub.machine.state is State.PAUSED
    paused = sub.machine.snapshot()["pace"]
    world.judge = lambda domain, *_: GOOGLE_DKIM.format(domain=domain)
    in_delivery = sum(message.in_core for message in world.engine.messages)
    world.run(1.0)
    assert world.engine.messages.get("postfix", queue_id) is not None
    assert sub.machine.snapshot()["pace"]["refused"] == paused["refused"] + in_delivery - 1


def test_a_probe_is_judged_by_its_outcome() -> None:
    world = World(Bucket("burst.example", rate=1.0, burst=50), transaction=5.0)
    for i in range(200):
        world.submit("news@burst.example", [f"user{i}@gmail.com"])
    sub = None
    for _ in range(6_000):
        world.run(0.5)
        sub = world.engine.subqueues.get(BURST)
        if sub is not None and sub.probe is not None and sub.probe.in_core:
            break
    assert sub is not None
    assert sub.probe is not None
    _refused_by_one_mx(world, sub.probe.queue_id)
    assert sub.machine.state is State.PROBING
    world.run(10.0)
    assert str(sub.machine.state) == "ramping"


def test_one_mx_hosts_refusal_of_mail_from_before_the_opening_stops_no_ramp() -> None:
    world, _ = _in_delivery_while_ramping()
    sub = world.engine.subqueues.get(BURST)
    assert sub is not None
    early = world.submit("news@burst.example", ["late@gmail.com"], policy=False)
    message = world.engine.messages.get("postfix", early)
    assert message is not None
    message.let_out = sub.opened_at - 1
    _refused_by_one_mx(world, early)
    assert sub.machine.state is State.RAMPING


def test_a_sub_queue_that_opens_before_the_first_line_takes_the_message_with_it() -> None:
    """What the policy service was told is kept until the log speaks of the message."""
    world = World(lambda *_: None, slots=0)
    engine = world.engine
    arrival = Arrival("postfix", "4WzB", "a@burst.example", ("b@gmail.com",), True, 1, "", "")
    assert engine.arriving(arrival, now=world.now) is None
    assert len(engine.messages) == 0, "not live before its first line"
    engine.orders.open(Key("sender-domain", "burst.example", "google"), rule="google/rate-dkim-domain", now=world.now)
    assert not any(isinstance(command, Hold) for command in engine.step(now=world.now)), "perhaps not queued yet"
    world.say(lambda record: facts.QueueActive(record, "4WzB", "a@burst.example", 1, 1), "qmgr")
    (hold,) = engine.step(now=world.now)
    assert isinstance(hold, Hold)
    assert list(hold.keys) == ["4WzB"]
    (message,) = engine.messages
    assert [recipient.address for recipient in message.recipients] == ["b@gmail.com"]


def test_a_message_whose_line_we_failed_at_may_be_in_core_also_on_hold() -> None:
    world = World(lambda *_: None)
    queue_id = _promised(world)
    message = world.engine.messages.get("postfix", queue_id)
    assert message is not None
    assert not message.in_core
    world.engine.misread(facts.MessageSkipped(LogRecord(world.now, "mx1", "postfix", "", "qmgr", 1, ""), queue_id))
    assert message.in_core


def test_mail_announced_before_a_gap_is_not_taken_while_a_recipient_may_wait_in_core() -> None:
    """Its `(queue active)` line may be among those missing: one outcome does not prove that qmgr let it go."""
    world = World(lambda *_: None, slots=0)
    engine = world.engine
    both = ("b@gmail.com", "c@gmail.com")
    arrival = Arrival("postfix", "4WzB", "a@burst.example", both, True, 1, "", "")
    assert engine.arriving(arrival, now=world.now) is None
    engine.gap(now=world.now)
    engine.orders.open(Key("sender-domain", "burst.example", "google"), rule="google/rate-dkim-domain", now=world.now)
    world.say(
        lambda record: facts.DeliveryAttempt(
            *(record, "4WzB", "b@gmail.com", "", "mx.google.com", "192.0.2.1", 25, None, 1.0),
            *(facts.Delays(0.0, 0.0, 0.0, 1.0), "", "4.3.0", "deferred"),
            "host mx.google.com[192.0.2.1] said: 451 4.3.0 later",
        ),
        "smtp",
    )
    assert not any(isinstance(command, Hold) for command in engine.step(now=world.now))


def test_mail_that_never_gets_a_line_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As what a milter refused after our answer; of the latest some hundred are always known."""
    monkeypatch.setattr("policies.messages.MOST_ANNOUNCED", 100)
    world = World(lambda *_: None, slots=0)
    for number in range(1_000):
        arrival = Arrival("postfix", f"4Wz{number}", "a@burst.example", ("b@gmail.com",), True, 1, "", "")
        assert world.engine.arriving(arrival, now=world.now) is None
    known = [number for number in range(1_000) if world.engine.messages.get("postfix", f"4Wz{number}")]
    assert 100 <= len(known) <= 200
    assert known == list(range(1_000 - len(known), 1_000))
