"""Streams by hand: a condition's mail is paused or slowed wherever it goes, survives a restart, and leaves when it is closed."""

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies.by_hand import FIELDS, ByHand, stream_key
from policies.engine import Engine
from policies.key import Key
from policies.messages import Place
from policies.site import Settings
from policies.subqueue import State
from policies.subqueues import MOST_STREAMS
from sidecar import rows, rules
from sidecar.answers import Answers
from sidecar.core_parts import Lag
from sidecar.store import Store
from tests.world import RULES, World

NEWS = "tenant = newsletter"


def world() -> World:
    return World(lambda *_: None)


def opened(at: World, where: str = NEWS, *, rate: float = 0.0, seconds: float | None = None, name: str = "") -> Key:
    sub = at.engine.orders.open_stream(where, name=name, rate=rate, seconds=seconds, by_whom="ann", now=at.now)
    return sub.key


def queue_of(at: World, queue_id: str) -> str:
    return at.files[queue_id].queue


def test_new_mail_of_a_stream_is_held_as_it_arrives_wherever_it_goes() -> None:
    at = world()
    key = opened(at)
    assert str(key) == "stream:tenant-newsletter@*"
    ids = [at.submit("a@shop.example", [f"u@{domain}"], tenant="Newsletter") for domain in ("gmail.com", "yahoo.com")]
    mixed = at.submit("a@shop.example", ["u@gmail.com", "u@yahoo.com"], tenant="newsletter")
    other = at.submit("a@shop.example", ["u@gmail.com"], tenant="orders")
    bounce = at.submit("", ["u@gmail.com"], tenant="newsletter")
    assert [queue_of(at, queue_id) for queue_id in (*ids, mixed)] == ["hold"] * 3
    assert [queue_of(at, queue_id) for queue_id in (other, bounce)] == ["active"] * 2
    at.run(3 * 3600)
    assert [queue_of(at, queue_id) for queue_id in (*ids, mixed)] == ["hold"] * 3, "nothing probes a stream"
    assert at.engine.orders.close(key, by_whom="ann", now=at.now)
    at.run(60)
    assert not at.files
    assert (sum(at.delivered.values()), at.duplicates, at.silently_lost) == (6, 0, [])
    said = [
        (change.kind, change.by_whom, change.why) for change in at.engine.telling.changes if change.by_whom == "ann"
    ]
    assert said[0] == ("opened", "ann", "where tenant = newsletter: paused")
    assert said[-1][:2] == ("closed", "ann")


def test_queued_mail_is_taken_and_a_condition_may_ask_for_the_provider() -> None:
    at = World(lambda *_: "451 4.7.1 Try again later")
    google, yahoo = (
        at.submit("a@shop.example", [f"u@{domain}"], tenant="newsletter") for domain in ("gmail.com", "yahoo.com")
    )
    at.run(5)
    opened(at, f"{NEWS} and provider = google")
    at.run(5)
    assert (queue_of(at, google), queue_of(at, yahoo)) == ("hold", "deferred")
    both = at.submit("a@shop.example", ["u@gmail.com", "u@yahoo.com"], tenant="newsletter")
    assert queue_of(at, both) == "active", "a recipient that it is not about would wait as well"


def test_a_campaign_is_known_from_the_log() -> None:
    """Its header may be read only after the message has arrived: then it is taken as it becomes active."""
    at = World(lambda *_: None, slots=0)
    opened(at, "campaign = summer-sale")
    known = at.submit("a@shop.example", ["u@gmail.com"], campaign="Summer-Sale")
    late = at.submit("a@shop.example", ["u@gmail.com"], campaign="summer-sale", late=True)
    other = at.submit("a@shop.example", ["u@gmail.com"], campaign="winter")
    assert [queue_of(at, queue_id) for queue_id in (known, late, other)] == ["hold", "active", "active"]
    at.run(1)
    assert [queue_of(at, queue_id) for queue_id in (known, late, other)] == ["hold", "hold", "active"]


def test_a_stream_is_slowed_and_its_pace_changed() -> None:
    at = world()
    key = opened(at, rate=1 / 6)
    for i in range(100):
        at.submit("a@shop.example", [f"u{i}@gmail.com"], tenant="newsletter")
    at.run(300)
    assert 48 <= sum(at.delivered.values()) <= 52
    assert opened(at, rate=1.0) == key
    at.run(30)
    assert 76 <= sum(at.delivered.values()) <= 84
    opened(at)
    at.run(300)
    assert 76 <= sum(at.delivered.values()) <= 84, "paused"
    assert at.engine.orders.close(key, by_whom="ann", now=at.now)
    at.run(30)
    assert (sum(at.delivered.values()), at.duplicates, at.silently_lost) == (100, 0, [])


def test_a_stream_closes_by_itself_where_that_is_wanted() -> None:
    at = world()
    key = opened(at, seconds=600.0)
    at.submit("a@shop.example", ["u@gmail.com"], tenant="newsletter")
    at.run(590)
    assert at.engine.subqueues.get(key) is not None
    at.run(30)
    assert at.engine.subqueues.get(key) is None
    assert not at.files
    assert queue_of(at, at.submit("a@shop.example", ["u@gmail.com"], tenant="newsletter")) == "active"


def test_nothing_is_held_beyond_hold_max() -> None:
    at = world()
    opened(at)
    at.submit("a@shop.example", ["u@gmail.com"], tenant="newsletter")
    at.run(86_400 + 60, step=5)
    assert not at.files


def test_what_servers_say_changes_no_pace_of_an_admins() -> None:
    at = World(lambda *_: "421 4.7.0 slow down")
    key = opened(at, rate=1.0)
    at.submit("a@shop.example", ["u@gmail.com"], tenant="newsletter")
    at.run(60)
    sub = at.engine.subqueues.get(key)
    assert sub is not None
    assert (sub.machine.state, sub.machine.budget_per_s, at.deferrals) == (State.RAMPING, 1.0, 1)


def test_a_restart_forgets_nothing(tmp_path: Any) -> None:
    at = world()
    key = opened(at)
    held = [at.submit("a@shop.example", ["u@gmail.com"], tenant="newsletter") for _ in range(3)]
    at.run(5)
    with_store(tmp_path, at)
    sub = at.engine.subqueues.get(key)
    assert sub is not None
    assert (sub.held, sub.line, sub.machine.state) == (3, NEWS, State.PAUSED)
    assert queue_of(at, at.submit("a@shop.example", ["u@gmail.com"], tenant="newsletter")) == "hold"
    at.run(600)
    assert {queue_of(at, queue_id) for queue_id in held} == {"hold"}
    at.engine.orders.close(key, by_whom="ann", now=at.now)
    at.run(30)
    with_store(tmp_path, at)
    assert at.engine.subqueues.all() == []
    assert (sum(at.delivered.values()), at.duplicates, at.silently_lost) == (4, 0, [])


def with_store(directory: Any, at: World) -> None:
    """The engine dies after it stored everything, and another takes its place."""
    store = Store.open(directory / "core.db")
    commit = rows.gather(at.engine, None, now=at.now)
    assert commit is not None
    store.commit(commit)
    at.engine = Engine(RULES, rules.organizational_domain, Settings(act=True))
    rows.restore(at.engine, store)
    store.close()


def test_a_condition_that_cannot_be_read_any_more_lets_its_mail_go() -> None:
    at = world()
    key = opened(at)
    engine = Engine(RULES, rules.organizational_domain, Settings(act=True))
    snapshot = {
        "where": "tennant = a",
        "rate": 0.0,
        "until": None,
        "since": 1.0,
        "budget": 0.0,
        "budget_at": 1.0,
        "closed": False,
    }
    engine.subqueues.restore(key, snapshot, rule="by-hand", line="", opened=1.0)
    assert engine.subqueues.all() == []
    assert engine.subqueues.gone == [key]
    assert "unknown field tennant" in engine.telling.changes[0].why


def test_a_stream_is_not_opened_without_its_condition() -> None:
    at = world()
    with pytest.raises(ValueError, match="a stream is opened by a condition, with --where"):
        at.engine.orders.pause(stream_key(NEWS), 5.0, by_whom="ann", now=at.now)
    with pytest.raises(ValueError, match=r"where: column 1: unknown field tennant; did you mean tenant\?"):
        opened(at, "tennant = a")
    opened(at)
    with pytest.raises(ValueError, match="is open with another condition: tenant = newsletter; give this one another"):
        opened(at, "tenant != newsletter", name="tenant-newsletter")
    with pytest.raises(ValueError, match="name 'Sale 1': wanted small letters"):
        opened(at, NEWS, name="Sale 1")


def test_over_the_control_socket() -> None:
    at = world()
    parts = SimpleNamespace(engine=at.engine, fleet=None, steering=None)
    answers = Answers(parts, Lag(), SimpleNamespace(), lambda: None)  # type: ignore[arg-type]  # what it needs
    asked = {"do": "open", "where": NEWS, "name": "news", "rate": 0.5, "seconds": 60, "who": "ann"}
    said = answers.subqueue(asked)["subqueue"]
    assert (said["key"], said["state"], said["budget_per_s"]) == ("stream:news@*", "ramping", 0.5)
    assert said["opened_by"] == {"line": NEWS, "rule": "by-hand"}
    assert said["next_step_at"] > said["since"]
    said = answers.subqueue({"do": "open", "where": NEWS, "name": "news"})["subqueue"]
    assert (said["state"], said["next_step_at"]) == ("paused", None)
    assert answers.subqueue({"do": "close", "key": "stream:news@*"})["state"] == "closed"
    with pytest.raises(ValueError, match="where: column 9: it ends here"):
        answers.subqueue({"do": "open", "where": "tenant ="})


@pytest.mark.parametrize("seconds", ["nan", "inf", -5, 0])
@pytest.mark.parametrize(
    "asked", [{"do": "pause", "key": "dkim-domain:shop.example@google"}, {"do": "open", "where": NEWS}]
)
def test_a_time_that_never_comes_is_refused_and_nothing_held(asked: dict[str, str], seconds: object) -> None:
    at = world()
    parts = SimpleNamespace(engine=at.engine, fleet=None, steering=None)
    answers = Answers(parts, Lag(), SimpleNamespace(), lambda: None)  # type: ignore[arg-type]  # what it needs
    with pytest.raises(ValueError, match=f"seconds: found {seconds}, wanted a number above 0"):
        answers.subqueue({**asked, "seconds": seconds})
    assert at.engine.subqueues.all() == []


def test_so_many_and_no_more() -> None:
    at = world()
    for i in range(MOST_STREAMS):
        opened(at, f"tenant = t{i}")
    with pytest.raises(ValueError, match="50 are open"):
        opened(at, "tenant = more")
    opened(at, "tenant = t7", rate=5.0)


def test_observing_holds_nothing() -> None:
    at = world()
    at.engine.take_over(RULES, at.engine.settings._replace(act=False))
    opened(at)
    at.submit("a@shop.example", ["u@gmail.com"], tenant="newsletter", line=False)
    message = next(iter(at.engine.messages), None)
    assert message is None or message.place is Place.QUEUED


@pytest.mark.parametrize(
    ("where", "name", "key"),
    [
        ("tenant = newsletter", "", "stream:tenant-newsletter@*"),
        ('campaign ~ "^Summer"  and provider in (google)', "", "stream:campaign-summer-and-provider-in-google@*"),
        ("tenant = a", "summer.sale_2", "stream:summer.sale_2@*"),
    ],
)
def test_keys(where: str, name: str, key: str) -> None:
    assert str(stream_key(where, name)) == key
    assert Key.read(key) == stream_key(where, name)


@example(1.0, [(2.0, 17), (0.0, 10), (0.0, 2)])
@given(
    st.floats(0.01, 50.0),
    st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(0, 40)), min_size=1, max_size=60),
)
def test_no_more_leaves_than_the_pace_allows(rate: float, steps: list[tuple[float, int]]) -> None:
    machine, now, left = ByHand("tenant = a", rate=rate, until=math.inf, now=0.0), 0.0, 0
    for passed, held in steps:
        now += passed
        count = min(held, machine.allowance(now=now, held=held))
        machine.spent(count, now=now)
        left += count
        machine = ByHand.restore(json.loads(json.dumps(machine.snapshot()))) if held % 7 == 3 else machine
        assert left <= rate * now + max(1 + rate, 3 * rate) + 1e-6
        assert machine.next_at(now=now, held=1) > now or machine.allowance(now=now, held=1)


def test_fields_are_those_that_mail_has() -> None:
    at = world()
    for field in FIELDS:
        opened(at, f'{field} ~ "no such thing"')
    assert queue_of(at, at.submit("a@shop.example", ["u@gmail.com"], tenant="x", campaign="y")) == "active"
