"""Lane and pushback: a key's mail is slowed, or left with the client, and nothing is held."""

from typing import Any

import pytest

from parsers.policy_protocol import DUNNO, DeferIfPermit, Filter, PolicyRequest
from policies.access import Access, Arrival, Decision, Slowed, Wiring
from policies.engine import Engine
from policies.key import Key
from policies.routing import Routing, compiled, to_provider
from policies.rule import Opening, Strategy
from policies.site import InstanceFacts, Strategies
from policies.subqueue import State
from sidecar import rules
from sidecar.config import Config, ConfigError, SubqueuesConfig
from sidecar.site import check_strategies
from tests.world import GOOGLE_DKIM, RULES, World

RULE = "google/rate-dkim-domain"
KEY = Key("dkim-domain", "burst.example", "google")
LANES = ("lane-01", "lane-02", "lane-03", "lane-04")
LANE = Strategies(lane=frozenset({RULE}))
PUSHBACK = Strategies(pushback=frozenset({"google"}))


def world(strategies: Strategies, *, lanes: tuple[str, ...] = LANES, refuse: bool = False) -> World:
    """burst.example's mail to google has been refused."""
    at = World(lambda domain, *_: GOOGLE_DKIM.format(domain=domain) if refuse else None)
    settings = at.engine.settings._replace(
        strategies=strategies._replace(lanes=bool(lanes)), instances={"postfix": InstanceFacts(lanes=lanes)}
    )
    at.engine.take_over(RULES, settings)
    at.engine.habits.saw("dkim-domain", "burst.example", ("burst.example",))
    at.engine.recipients.learn("gmail.com", "google", now=at.now)
    at.engine.orders.open(KEY, rule=RULE, now=at.now)
    return at


def arrival(
    recipients: tuple[str, ...] = ("u@gmail.com",), *, complete: bool = True, queue_id: str = "4WzAzB"
) -> Arrival:
    return Arrival("postfix", queue_id, "news@burst.example", recipients, complete, 9, "192.0.2.9", "")


def state(at: World) -> State | None:
    sub = at.engine.subqueues.get(KEY)
    return sub.machine.state if sub else None


# Which one.


@pytest.mark.parametrize(
    ("strategies", "opening", "strategy"),
    [
        (Strategies(), Opening(), Strategy.PARK),
        (Strategies(), Opening(strategy=Strategy.LANE), Strategy.LANE),
        (Strategies(lane=frozenset({"google"})), Opening(), Strategy.LANE),
        (Strategies(lane=frozenset({RULE})), Opening(strategy=Strategy.PUSHBACK), Strategy.LANE),
        (Strategies(lane=frozenset({"yahoo"})), Opening(), Strategy.PARK),
        (Strategies(pushback=frozenset({"google"})), Opening(), Strategy.PUSHBACK),
        (Strategies(lane=frozenset({"google"}), lanes=False), Opening(), Strategy.PARK),
        (Strategies(pushback=frozenset({"google"}), lanes=False), Opening(), Strategy.PUSHBACK),
        (Strategies(lane=frozenset({"google"})), Opening(configuration=True), Strategy.PARK),
    ],
)
def test_the_strategy_of_a_rule(strategies: Strategies, opening: Opening, strategy: Strategy) -> None:
    assert strategies.of(RULE, opening) is strategy


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            {"lane": ("google/rate-dkim-domian",)},
            r"subqueues\.lane\[0\]: no rule .*; did you mean google/rate-dkim-domain\?",
        ),
        ({"pushback": ("google", "gogle")}, r"subqueues\.pushback\[1\]: .* did you mean google\?"),
    ],
)
def test_a_rule_that_there_is_not(names: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_strategies(Config(subqueues=SubqueuesConfig(**names)), RULES)
    check_strategies(Config(subqueues=SubqueuesConfig(lane=(RULE,), pushback=("yahoo",))), RULES)


# Lane.


def test_new_mail_of_a_key_goes_over_its_lane_and_none_is_held() -> None:
    at = world(LANE)
    ids = [at.submit("news@burst.example", [f"u{i}@gmail.com"]) for i in range(20)]
    assert {at.over.get(queue_id) for queue_id in ids} == {at.over[ids[0]]}
    assert at.over[ids[0]] in LANES
    other = at.submit("shop@steady.example", ["u@gmail.com"])
    elsewhere = at.submit("news@burst.example", ["u@yahoo.com"])
    assert other not in at.over
    assert elsewhere not in at.over
    at.run(60)
    assert (sum(at.delivered.values()), at.duplicates, at.silently_lost) == (22, 0, [])
    assert at.commands == []


def test_queued_mail_of_a_lane_stays_with_postfix() -> None:
    at = world(LANE, refuse=True)
    queue_id = at.submit("news@burst.example", ["u@gmail.com"])
    at.run(900)
    assert at.files[queue_id].queue == "deferred"
    assert not at.engine.books.ours


def test_what_gets_through_over_the_lane_ends_the_pause() -> None:
    at = world(LANE)
    seen = set()
    for _ in range(90):
        at.submit("news@burst.example", ["u@gmail.com"])
        at.run(60)
        seen.add(state(at))
    assert {State.PAUSED, State.RAMPING} <= seen
    assert state(at) in {State.CLOSED, None}
    assert at.submit("news@burst.example", ["u@gmail.com"]) not in at.over


def test_two_keys_have_two_lanes() -> None:
    at = world(LANE)
    lanes = set()
    for i in range(20):
        key = Key("sender-domain", f"burst{i}.example", "google")
        at.engine.orders.open(key, rule=RULE, now=at.now)
        lanes.add(at.over[at.submit(f"a@burst{i}.example", ["u@gmail.com"])])
    assert lanes == set(LANES)


@pytest.mark.parametrize(
    ("recipients", "complete"), [(("u@gmail.com", "u@yahoo.com"), True), (("u@gmail.com", "v@gmail.com"), False)]
)
def test_mail_that_no_filter_can_be_answered_for_goes_as_ever(recipients: tuple[str, ...], complete: bool) -> None:  # noqa: FBT001
    at = world(LANE)
    assert at.engine.arriving(arrival(recipients, complete=complete), now=at.now) is None


def test_without_lanes_it_waits_on_hold() -> None:
    at = world(LANE, lanes=())
    assert at.files[at.submit("news@burst.example", ["u@gmail.com"])].queue == "hold"


def test_a_pause_by_hand_holds_whatever_the_lane() -> None:
    at = world(LANE)
    at.engine.orders.open_stream(
        "sender_domain = burst.example", name="", rate=0.0, seconds=None, by_whom="ann", now=at.now
    )
    queue_id = at.submit("news@burst.example", ["u@gmail.com"])
    assert at.files[queue_id].queue == "hold"
    message = at.engine.messages.get("postfix", queue_id)
    assert message is not None
    assert [key.type for key in message.held_under] == ["stream"], "the lane's own pace is none of its business"


def access(engine: Engine, *, act: bool = True) -> Access:
    wired = {"postfix": Wiring(filter_allowed=True, own_domains=frozenset(), lanes=LANES)}
    routes = Routing([compiled(to_provider("google", "out-google"))])
    return Access(engine, routing=routes, milters_quarantine=False, act=act, wiring=wired)


def asked(**attributes: Any) -> PolicyRequest:
    given = {"instance": "1", "sender": "news@burst.example", "recipient": "u@gmail.com"}
    return PolicyRequest.of({name: str(value) for name, value in (given | attributes).items()})


def test_a_lane_goes_before_a_route() -> None:
    at = world(LANE)
    end = asked(protocol_state="END-OF-MESSAGE", recipient_count=1, queue_id="4WzAzB", size=9)
    decision = access(at.engine).decide(end, "postfix", now=at.now)
    assert isinstance(decision.action, Filter)
    assert decision.action.transport in LANES
    assert (decision.key, decision.rule) == (str(KEY), RULE)
    assert f"{KEY}: paused; over lane-" in decision.why
    explained = access(at.engine).explain(asked(), "postfix", now=at.now)
    assert (explained.action, explained.rule) == (decision.action, RULE)
    observed = access(at.engine, act=False).explain(asked(), "postfix", now=at.now)
    assert (observed.action, "observing; would answer FILTER lane-" in observed.why) == (DUNNO, True)


def test_asking_changes_nothing() -> None:
    at = world(LANE)
    found = at.engine.arriving(arrival(queue_id=""), now=at.now)
    assert isinstance(found, Slowed)
    assert len(at.engine.messages) == 0


# Pushback.


def told(at: World, *, act: bool = True, explain: bool = False, **attributes: Any) -> Decision:
    of = access(at.engine, act=act)
    return (of.explain if explain else of.decide)(asked(protocol_state="RCPT", **attributes), "postfix", now=at.now)


def test_the_client_is_told_to_come_back() -> None:
    at = world(PUSHBACK)
    decision = told(at)
    text = "google limits mail of burst.example at present, try again later"
    assert decision == (DeferIfPermit("4.4.5", text), str(KEY), RULE, f"{KEY}: paused, 0 waiting")
    assert told(at, explain=True) == decision
    queue_id = at.submit("news@burst.example", ["u@gmail.com"])
    assert at.files[queue_id].queue == "active", "whoever was not asked at RCPT is let in, and nothing is held"
    at.run(5)
    assert at.commands == []


@pytest.mark.parametrize(
    "attributes",
    [
        {"sender": ""},
        {"sender": "Postmaster@burst.example"},
        {"recipient": "postmaster@gmail.com"},
        {"sender": "double-bounce@burst.example"},
        {"sender": "shop@steady.example"},
        {"recipient": "u@yahoo.com"},
        {"recipient": "u@unheard-of.example"},
    ],
)
def test_who_is_never_pushed_back(attributes: dict[str, Any]) -> None:
    assert told(world(PUSHBACK), **attributes).action == DUNNO


def test_observing_pushes_nobody_back() -> None:
    decision = told(world(PUSHBACK), act=False, explain=True)
    assert decision.action == DUNNO
    assert "observing; would answer DEFER_IF_PERMIT 4.4.5 google limits" in decision.why


def test_nobody_is_pushed_back_where_another_strategy_rules() -> None:
    for strategies in (LANE, Strategies()):
        at = world(strategies)
        assert at.engine.pushing_back == 0
        assert told(at).action == DUNNO


def test_the_client_who_comes_back_is_the_probe_and_others_follow() -> None:
    """Clients that retry every minute, as mail servers do: all of it is delivered, and the sub-queue closes."""
    at = world(PUSHBACK)
    waiting = [f"u{i}@gmail.com" for i in range(30)]
    at.run(250)
    while waiting and at.now < 1_010_000.0:
        for recipient in list(waiting):
            if told(at, recipient=recipient).action == DUNNO:
                at.submit("news@burst.example", [recipient])
                waiting.remove(recipient)
        at.run(60)
    at.run(5)
    assert waiting == []
    assert (sum(at.delivered.values()), at.duplicates, at.deferrals) == (30, 0, 0)
    kinds = [change.kind for change in at.engine.telling.changes]
    assert kinds.index("probing") < kinds.index("ramping")
    at.engine.orders.close(KEY, by_whom="ann", now=at.now)
    assert at.engine.pushing_back == 0


def test_what_is_stored_opens_with_its_strategy() -> None:
    at = world(PUSHBACK)
    ((sub, snapshot),) = at.engine.subqueues.dirty()
    fresh = Engine(RULES, rules.organizational_domain, at.engine.settings)
    fresh.subqueues.restore(sub.key, snapshot, rule=sub.rule, line="", opened=at.now)
    assert fresh.pushing_back == 1
