"""Steering: what a route comes to now, in which order its reasons count, and that only answers are counted."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from parsers.policy_protocol import DUNNO, Filter, PolicyRequest
from policies.access import Access, Decision
from policies.canary import Arm, Phase
from policies.figures import Kind
from policies.key import Key
from policies.pools import Sticky
from policies.reacting import BLOCKS, Signal
from policies.routing import Routing, compiled, read_route
from policies.signs import Sign
from policies.warm_up import DAY, REFUSALS
from tests.policy_world import OPEN, access_in
from tests.steering_world import BEGIN, CANARY, MAIL, PLAN, POOL, World

IDS = [f"4cH{number:05d}" for number in range(3_000)]
LISTED = Sign(Signal.LISTED, Kind.ADDRESS, "192.0.2.2", "*", "192.0.2.2 is listed by zen")
HOUR = 3600.0


def shares(world: World, **more: object) -> Counter[str]:
    return Counter(world.send(queue_id, **more) for queue_id in IDS)


def test_a_pool_shares_its_mail_and_a_route_to_a_transport_is_as_it_was() -> None:
    world = World()
    assert all(number == pytest.approx(1_000, abs=90) for number in shares(world).values())
    assert world.send("4cH", route=read_route("out", "tenant = newsletter")) == "out"
    assert world.ask("4cH", route=None) is None


def test_sticky_keeps_a_sending_domain_together() -> None:
    world = World(pools=(POOL._replace(sticky=Sticky.SENDING_DOMAIN),), rules=())
    assert len(shares(world)) == 1
    assert len(shares(world, mail=MAIL._replace(sending_domain=""))) == 3  # bounces have none


def test_a_listed_address_is_out_for_its_pools_and_said() -> None:
    world = World()
    usual = {queue_id: world.send(queue_id) for queue_id in IDS}
    world.steering.signs([LISTED], now=BEGIN)
    assert world.said == ["reacted ip-2 at *: listed: 192.0.2.2 is listed by zen by react"]
    for queue_id, went in usual.items():
        now = world.ask(queue_id, now=BEGIN + 60)
        assert now is not None
        assert now.transport == went if went != "ip-2" else now.transport in {"ip-1", "ip-3"}
        assert (now.why == "pool bulk without ip-2: listed (listed)") == (went == "ip-2")
    assert world.send("4cH", route=read_route("ip-2", "tenant = newsletter")) == "ip-2"  # who is named, is meant


def test_it_comes_back_after_delisting_by_a_growing_share() -> None:
    world = World()
    world.steering.signs([LISTED], now=BEGIN)
    world.steering.signs([], now=BEGIN + HOUR)
    assert world.said[1:] == ["returning ip-2 at *: its sign has passed by react"]
    seen = [shares(world, now=BEGIN + hours * HOUR)["ip-2"] for hours in (1, 7, 13, 19, 25)]
    assert seen == sorted(seen)
    assert seen[0] < 90
    assert seen[-1] == pytest.approx(1_000, abs=90)


def test_out_at_one_provider_is_in_at_others_and_mail_to_both_agrees_on_a_member() -> None:
    world = World()
    for number in range(BLOCKS):
        world.delivered("4cH", "ip-2", status="deferred", scope="ip", reply=f"421 4.7.0 {number}", now=BEGIN + number)
    assert world.said == [f"reacted ip-2 at google: ip-blocked: 421 4.7.0 {BLOCKS - 1} by react"]
    assert set(shares(world)) == {"ip-1", "ip-3"}
    yahoo = MAIL._replace(provider="yahoo")
    assert set(shares(world, mail=yahoo)) == {"ip-1", "ip-2", "ip-3"}
    for queue_id in IDS[:300]:
        both = [world.ask(queue_id, mail=mail, google=1, yahoo=1) for mail in (MAIL, yahoo)]
        assert both[0] == both[1]
        assert both[0] is not None
        assert both[0].transport != "ip-2"


def test_when_none_is_left_it_goes_as_the_pool_says() -> None:
    world = World()
    world.steering.signs(
        [Sign(Signal.LISTED, Kind.ADDRESS, f"192.0.2.{number}", "*", "x") for number in (1, 2, 3)], now=BEGIN
    )
    found = world.ask("4cH")
    assert found is not None
    assert found.transport == "last"
    assert found.why.startswith("pool bulk without ip-")
    nothing = World(pools=(POOL._replace(otherwise=""),), rules=world.steering.reactions.rules[:1])
    nothing.steering.signs(
        [Sign(Signal.LISTED, Kind.ADDRESS, f"192.0.2.{number}", "*", "x") for number in (1, 2, 3)], now=BEGIN
    )
    found = nothing.ask("4cH")
    assert found is not None
    assert found.transport == ""


def test_a_daily_figure_is_spent_by_answers_alone_and_the_rest_goes_over_others() -> None:
    world = World(plans=(PLAN,))
    for queue_id in IDS:
        world.ask(queue_id)
    assert shares(world)["ip-3"] == 100
    assert shares(world, now=BEGIN + DAY)["ip-3"] == 150
    whole, google = world.steering.warm_ups.levels("ip-3")
    assert (whole.promised, google.promised) == (150, 150)
    assert google.turned_away > 700


def test_a_transport_that_warms_up_takes_no_more_than_its_figure_by_a_route_either() -> None:
    world = World(plans=(PLAN,))
    direct = read_route("ip-3", "tenant = newsletter")
    assert shares(world, route=direct) == Counter({"ip-3": 100, "": 2_900})
    found = world.ask("4cH", route=direct)
    assert found is not None
    assert found.why == "ip-3: its 100 of today at google are spent"


def test_what_comes_back_steers_the_warm_up() -> None:
    world = World(plans=(PLAN,), rules=())
    shares(world)
    shares(world, now=BEGIN + DAY)
    for _ in range(REFUSALS):
        world.delivered("4cH", "ip-3", status="deferred", scope="ip", reply="421 4.7.0", now=BEGIN + DAY)
    assert world.said == ["warm-up ip-3 at google steps back from 150 to 100 a day by warm-up"]
    assert world.lines == ["421 4.7.0"]
    greylisted = World(plans=(PLAN,), rules=())
    shares(greylisted)
    for _ in range(100):
        greylisted.delivered("4cH", "ip-3", status="deferred", detail="throttling.greylist")
    assert shares(greylisted, now=BEGIN + DAY)["ip-3"] == 150
    passed_on = World(plans=(PLAN,), rules=())
    shares(passed_on)
    passed_on.delivered("4cH", "ip-3", passed_on="4cK")
    assert passed_on.steering.warm_ups.levels("ip-3")[0].attempts == 0


def test_a_listing_holds_the_warm_up_as_well() -> None:
    world = World(plans=(PLAN,), rules=())
    shares(world)
    world.steering.signs([Sign(Signal.LISTED, Kind.ADDRESS, "192.0.2.3", "*", "zen")], now=BEGIN)
    assert shares(world, now=BEGIN + DAY)["ip-3"] == 100


def test_an_isolated_domain_goes_elsewhere_whatever_route_it_has() -> None:
    world = World()
    assert bool(world.steering)
    world.steering.signs([Sign(Signal.REPUTATION, Kind.DOMAIN, "shop.example", "google", "BAD")], now=BEGIN)
    assert (world.send("4cH"), world.send("4cH", route=None)) == ("ip-9", "ip-9")
    assert world.send("4cH", mail=MAIL._replace(provider="yahoo"), route=None) == ""
    assert world.send("4cH", mail=MAIL._replace(sending_domain="steady.example"), route=None) == ""
    world.steering.undo("shop.example", by_whom="jo", now=BEGIN)
    assert world.send("4cH", route=None) == ""
    assert world.said[-1] == "undone shop.example at google: by hand by jo"


def test_an_address_is_undone_by_its_own_name() -> None:
    world = World()
    world.steering.signs([LISTED], now=BEGIN)
    assert len(world.steering.undo("192.0.2.2", by_whom="jo", now=BEGIN)) == 1
    assert "ip-2" in shares(world)


def trial(world: World) -> dict[Arm, dict[str, int]]:
    ((_, found),) = world.steering.canaries
    return found.counts


def test_a_canary_takes_its_share_and_both_arms_are_counted() -> None:
    world = World(canary="tenant = newsletter", rules=())
    assert bool(world.steering)
    went = {queue_id: world.send(queue_id) for queue_id in IDS}
    mine = [queue_id for queue_id, over in went.items() if over == "ip-8"]
    assert len(mine) == pytest.approx(300, abs=60)
    for queue_id, over in went.items():
        world.delivered(queue_id, over)
    world.delivered("4cX", "ip-8")  # not of this trial
    assert (trial(world)[Arm.CANARY]["sent"], trial(world)[Arm.CONTROL]["sent"]) == (len(mine), 3_000 - len(mine))
    assert world.send("4cH", mail=MAIL._replace(tenant="shop"), route=None) == ""


def test_a_canary_is_stopped_by_its_own_refusals_and_begun_anew_by_hand() -> None:
    world = World(canary="tenant = newsletter", rules=())
    for queue_id in IDS:
        over = world.send(queue_id)
        refused: dict[str, Any] = {"status": "bounced", "bounce": "block"} if over == "ip-8" else {}
        world.delivered(queue_id, over, **refused)
    world.steering.look(now=BEGIN)
    assert world.said[0].startswith("canary new-template is stopped: acceptance 0.00% of ")
    assert "ip-8" not in shares(world)
    world.steering.decide("new-template", Phase.RUNNING, by_whom="jo", now=BEGIN)
    assert trial(world)[Arm.CANARY]["attempts"] == 0
    assert "ip-8" in shares(world)
    world.steering.decide("new-template", Phase.PROMOTED, by_whom="jo", now=BEGIN)
    assert set(shares(world)) == {"ip-8"}
    assert world.ask("") is not None
    with pytest.raises(KeyError):
        world.steering.decide("other", Phase.STOPPED, by_whom="jo", now=BEGIN)


def test_a_canary_is_promoted_when_enough_was_delivered() -> None:
    world = World(canary="tenant = newsletter", rules=())
    for round_ in range(3):
        for queue_id in IDS:
            world.delivered(f"{queue_id}{round_}", world.send(f"{queue_id}{round_}"))
    world.steering.look(now=BEGIN)
    ((_, found),) = world.steering.canaries
    assert found.counts[Arm.CANARY]["sent"] > CANARY.until
    assert found.phase is Phase.PROMOTED


def test_a_restart_knows_what_was_stored() -> None:
    world = World(plans=(PLAN,), canary="tenant = newsletter")
    world.steering.signs([LISTED], now=BEGIN)
    shares(world)
    world.delivered(next(queue_id for queue_id in IDS if world.ask(queue_id).transport == "ip-8"), "ip-8")  # type: ignore[union-attr]
    again = World(plans=(PLAN,), canary="tenant = newsletter")
    for level in world.steering.warm_ups.levels("ip-3"):
        again.steering.warm_ups.restore(replace(level))
    for reaction in world.steering.reactions.known():
        again.steering.reactions.restore(replace(reaction))
    for _, found in world.steering.canaries:
        again.steering.restore_trial(replace(found))
    again.steering.restore_trial(replace(found, name="gone"))
    assert again.steering.changed_trials == {"gone": None}
    for queue_id in IDS[:500]:
        assert again.ask(queue_id) == world.ask(queue_id)
    assert again.steering.canaries == world.steering.canaries


def ends(access: Access, number: int) -> Decision:
    """A message with one recipient, at its end."""
    said = {
        "protocol_state": "END-OF-MESSAGE", "sender": "x@news.example", "recipient": "a@gmail.com", "instance": number,
        "recipient_count": 1, "queue_id": IDS[number], "size": 9,
    }  # fmt: skip
    return access.decide(PolicyRequest.of({name: str(value) for name, value in said.items()}), "postfix", now=BEGIN)


def test_smtpd_is_answered_and_only_then_is_it_counted() -> None:
    routing = Routing([compiled(read_route("pool:bulk", "sender_domain = news.example"))])
    world = World(plans=(PLAN,), rules=())
    access = access_in(routing=routing, steering=world.steering)
    went = Counter(ends(access, number).action for number in range(400))
    assert set(went) == {Filter("ip-1"), Filter("ip-2"), Filter("ip-3")}
    for number in range(400):
        ends(access, number)  # smtpd asks again after it lost the connection
    levels = world.steering.warm_ups.levels("ip-3")
    assert [level.promised for level in levels] == [went[Filter("ip-3")]] * 2 == [100, 100]


def test_observing_counts_nothing() -> None:
    routing = Routing([compiled(read_route("pool:bulk", "sender_domain = news.example"))])
    world = World(plans=(PLAN,), rules=())
    access = access_in(routing=routing, steering=world.steering, act=False)
    assert {ends(access, number).action for number in range(100)} == {DUNNO}
    assert all(level.promised == 0 for level in world.steering.warm_ups.levels("ip-3"))


def test_mail_that_no_route_names_is_steered_too() -> None:
    world = World(canary="sender_domain = news.example", rules=())
    access = access_in(routing=Routing([]), steering=world.steering)
    went = Counter(ends(access, number).action for number in range(400))
    assert set(went) == {DUNNO, Filter("ip-8")}
    assert (
        ends(access, next(n for n in range(400) if ends(access, n).action is not DUNNO)).rule
        == "route/canary-new-template"
    )
    tables = access_in(routing=Routing([]), steering=world.steering, wiring={"postfix": OPEN._replace(tables=True)})
    assert {ends(tables, number).action for number in range(400)} == {DUNNO}


def test_there_is_another_way_while_a_member_is_wholly_in() -> None:
    world = World()

    def has_other(transport: str = "ip-2", provider: str = "google", hours: float = 0.0) -> bool:
        return world.steering.has_other(transport, provider, BEGIN + hours * HOUR)

    assert has_other()
    assert not has_other("ip-9", "google")  # alone in its pool
    assert not has_other("out", "google")  # in none
    one, three = (Sign(Signal.LISTED, Kind.ADDRESS, f"192.0.2.{number}", "*", "x") for number in (1, 3))
    world.steering.signs([one], now=BEGIN)
    assert has_other()
    world.steering.signs([one, three], now=BEGIN)
    assert not has_other()
    world.steering.signs([], now=BEGIN)
    assert not has_other(hours=12)  # both are only on their way back
    assert has_other(hours=25)
    assert not World(rules=()).steering.has_other("ip-2", "google", BEGIN)  # nothing would take it out


def test_what_an_admin_lets_go_is_not_paused_again_while_the_sign_is_there() -> None:
    world = World()
    broken = Sign(Signal.AUTHENTICATION, Kind.DOMAIN, "shop.example", "*", "no key")
    bad = Sign(Signal.REPUTATION, Kind.DOMAIN, "shop.example", "*", "BAD")
    world.steering.signs([broken, bad], now=BEGIN)
    for key in ("spf-domain:shop.example@*", "sender-domain:shop.example@google", "sender-domain:shop.example@*"):
        world.steering.let_go(Key.read(key), by_whom="jo", now=BEGIN)
    assert world.said[2:] == ["undone shop.example at *: by hand by jo"]
    assert [reaction.undone_by for reaction in world.steering.reactions.known()] == ["jo", ""]
    assert world.send("4cH", route=None) == "ip-9"  # what is isolated stays so
