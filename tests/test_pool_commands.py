"""Pools from the configuration to the store and the commands: what is refused, kept over a restart, shown and done by hand."""

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner

from policies.canary import Arm, Phase
from policies.engine import Engine
from policies.figures import Kind
from policies.pools import Member, Pool, Sticky
from policies.reacting import Do, Signal
from policies.signs import Sign
from policies.site import Settings
from policies.warm_up import DAY, day_of
from sidecar import pool_commands, pools, rules
from sidecar.cli import sidecar
from sidecar.config import (
    CanaryConfig,
    Config,
    ConfigError,
    PoolConfig,
    PoolMember,
    ReactConfig,
    WarmUpCap,
    WarmUpConfig,
    load,
)
from sidecar.pool_answers import PoolAnswers
from sidecar.rows import gather, merged
from sidecar.store import Store
from tests.steering_world import BEGIN, CANARY, MAIL, PLAN, World, attempt
from tests.world import RULES

BULK = PoolConfig("bulk", (PoolMember("ip-1"), PoolMember("ip-2", 2.0, "192.0.2.7")), Sticky.SENDING_DOMAIN, "last")
WARM = WarmUpConfig("ip-2", "2024-10-04", 200, 50_000, 1.3, (WarmUpCap("google", 5_000),))
TRY = CanaryConfig("new-template", "tenant = newsletter", "pool:bulk")
OUT = ReactConfig("out", Signal.LISTED, Do.LEAVE_POOL, only=("ip-1",), return_hours=48.0)
GOOD = Config(pool=(BULK,), warm_up=(WARM,), canary=(TRY,), react=(OUT,))


def test_the_configuration_becomes_what_steering_wants() -> None:
    found = pools.wanted(GOOD, [])
    assert found.pools == {"bulk": Pool("bulk", (Member("ip-1"), Member("ip-2", 2.0)), Sticky.SENDING_DOMAIN, "last")}
    assert [(plan.started, plan.caps) for plan in found.plans] == [(20_000, {"google": 5_000})]
    ((canary, route),) = found.canaries
    assert (canary.name, canary.share, route.name, route.pool) == ("new-template", 0.05, "canary-new-template", "bulk")
    assert (found.rules[0].only, found.rules[0].return_hours) == (frozenset({"ip-1"}), 48.0)
    assert found.transports == {"192.0.2.7": ("ip-2",)}
    assert list(found.named()) == [
        ("pool.transports", "ip-1"), ("pool.transports", "ip-2"), ("pool.otherwise", "last"),
    ]  # fmt: skip
    assert pools.names(GOOD) == {"bulk"}
    assert not pools.wanted(Config(), []).anything


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Config(pool=(BULK, BULK)), "pool bulk: there are two of this name; wanted one"),
        (
            Config(pool=(PoolConfig("p", (PoolMember("a b"),)),)),
            "pool[0].transports: 'a b'; wanted the name of a transp",
        ),
        (
            Config(pool=(PoolConfig("p", (PoolMember("a", address="x"),)),)),
            "pool.transports.address: found 'x', wanted a",
        ),
        (
            Config(warm_up=(WarmUpConfig("a", "tomorrow", 1, 2),)),
            "warm_up[0].started: found 'tomorrow', wanted a day, as",
        ),
        (
            Config(warm_up=(WarmUpConfig("a", "2026-11-22", 9, 2),)),
            "warm_up a: until_per_day 2, wanted start_per_day or",
        ),
        (Config(canary=(TRY,)), "canary[0].transport: no pool is called bulk; there is no [[pool]]"),
        (Config(canary=(CanaryConfig("c", "tennant = a", "x"),)), "canary[0].when: column 1: "),
        (
            Config(canary=(CanaryConfig("c", "tenant = a", "x", share=2.0),)),
            "canary[0]: canary c: share 2, wanted above",
        ),
        (Config(canary=(CanaryConfig("c", "tenant = a", "x"),) * 2), "canary[1].name: c: there are two of this name"),
        (
            Config(react=(ReactConfig("r", Signal.LISTED, Do.ISOLATE, "pool:x"),)),
            "react[0].to: no pool is called x; th",
        ),
        (Config(react=(ReactConfig("r", Signal.LISTED, Do.ISOLATE),)), "react r: to: missing; wanted the transport or"),
    ],
)
def test_what_cannot_be_used_is_refused(config: Config, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        pools.wanted(config, [])
    assert str(refused.value).startswith(said)


# The store.


def engine() -> Engine:
    return Engine(RULES, rules.organizational_domain, Settings(act=True))


def full_world() -> World:
    """One in which something of everything is known."""
    world = World(plans=(PLAN,), canary="tenant = app")
    for number in range(30):
        world.send(f"4cK{number}")
    world.send("4cL", mail=MAIL._replace(tenant="app"))
    world.steering.signs([Sign(Signal.LISTED, Kind.ADDRESS, "192.0.2.2", "*", "zen")], now=BEGIN)
    world.steering.pause("ip-3", by_whom="jo", now=BEGIN)
    world.steering.decide(CANARY.name, Phase.STOPPED, by_whom="jo", now=BEGIN)
    return world


def state(world: World) -> tuple[Any, ...]:
    it = world.steering
    return it.warm_ups.levels("ip-3"), dict(it.warm_ups.paused), it.reactions.known(), it.canaries


def test_the_store_keeps_it_all(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "core.db")
    world = full_world()
    commit = gather(engine(), None, world.steering, now=BEGIN)
    assert commit is not None
    store.commit(commit)
    assert gather(engine(), None, world.steering, now=BEGIN) is None
    again = World(plans=(PLAN,), canary="tenant = app")
    store.restore_steering(again.steering)
    assert state(again) == state(world)
    world.steering.resume("ip-3", by_whom="jo", now=BEGIN)
    world.steering.undo("ip-2", by_whom="jo", now=BEGIN)
    world.steering.signs([], now=BEGIN)
    second = gather(engine(), None, world.steering, now=BEGIN)
    assert second is not None
    store.commit(second)
    third = World(plans=(PLAN,), canary="tenant = app")
    store.restore_steering(third.steering)
    assert state(third) == state(world)
    assert state(third)[1:3] == ({}, [])
    store.close()


def test_what_could_not_be_stored_is_stored_with_what_came_since(tmp_path: Path) -> None:
    world = full_world()
    first = gather(engine(), None, world.steering, now=BEGIN)
    world.steering.resume("ip-3", by_whom="jo", now=BEGIN)
    for number in range(30):
        world.send(f"4cM{number}")
    both = merged(first, gather(engine(), None, world.steering, now=BEGIN))
    assert both is not None
    store = Store.open(tmp_path / "core.db")
    store.commit(both)
    again = World(plans=(PLAN,), canary="tenant = app")
    store.restore_steering(again.steering)
    assert state(again) == state(world)
    store.close()


def test_what_waits_to_be_stored_does_not_change_meanwhile() -> None:
    world = full_world()
    commit = gather(engine(), None, world.steering, now=BEGIN)
    assert commit is not None
    assert commit.pools is not None
    before = repr(commit.pools)
    world.steering.resume("ip-3", by_whom="jo", now=BEGIN)
    for number in range(30):
        world.send(f"4cM{number}")
    world.steering.signs([], now=BEGIN)
    world.steering.decide(CANARY.name, Phase.RUNNING, by_whom="jo", now=BEGIN)
    assert repr(commit.pools) == before


def test_the_attempts_of_a_commit_are_heard_before_it_is_made() -> None:
    world = World(plans=(PLAN,), rules=())
    for number in range(30):
        world.send(f"4cK{number}")
    working = engine()
    working.telling.attempts.append(attempt("4cK1", "ip-3"))
    commit = gather(working, None, world.steering, now=BEGIN)
    assert commit is not None
    assert commit.pools is not None
    assert [level and level.attempts for level in commit.pools.levels.values()] == [1, 1]


# The commands.


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> World:
    """A core that answers the commands."""
    world = full_world()
    monkeypatch.setattr("sidecar.pool_answers.time.time", lambda: BEGIN + 60)
    monkeypatch.setattr("sidecar.pool_commands.time.time", lambda: BEGIN + 60)
    monkeypatch.setattr("sidecar.pool_commands.who", lambda: "jo")
    table = PoolAnswers(world.steering, lambda: None).table()

    def ask(_: Path, request: dict[str, Any], *, timeout: float) -> dict[str, Any]:
        assert timeout >= 10.0  # where it waits for other hosts, too
        answered = table[request["command"]](request)
        return cast("dict[str, Any]", json.loads(json.dumps(answered)))

    monkeypatch.setattr(pool_commands, "ask_core", ask)
    return world


def said(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(sidecar, words, obj=Config(), catch_exceptions=False)
    assert result.exit_code == status, result.output
    return "\n".join(" ".join(line.split()) for line in result.output.splitlines())


def test_pools_are_shown_with_why_one_is_out(core: World) -> None:
    assert core
    assert said("pool", "list").splitlines()[1:4] == [
        "bulk ip-1 1",
        "bulk ip-2 1 *: 0% (listed: zen)",
        "bulk ip-3 1 its warm-up is paused by jo",
    ]


def test_a_warm_up_by_hand(core: World) -> None:
    sent = core.steering.warm_ups.levels("ip-3")[0].promised
    assert said("warmup", "list").splitlines()[1] == f"ip-3 1 all {sent} 100 0 0 0 paused by jo"
    said("warmup", "resume", "ip-3")
    assert said("warmup", "show", "ip-3").splitlines()[1:] == [
        f"ip-3 1 {name} {sent} 100 0 0 0" for name in ("all", "google")
    ]
    (found,) = json.loads(said("warmup", "pause", "ip-3", "--json"))
    assert (found["paused_by"], found["providers"][0]["promised"]) == ("jo", sent)
    assert core.said[-2:] == ["warm-up ip-3 goes on by jo", "warm-up ip-3 is paused by jo"]
    for wrong in (("pause", "ip-1"), ("resume", "ip-9")):
        with pytest.raises(ValueError, match="nothing of this name warms up; known: ip-3"):
            said("warmup", *wrong)


def test_a_canary_by_hand(core: World) -> None:
    assert said("canary", "list").splitlines()[1] == "new-template ip-8 10.0% stopped 0 by hand"
    assert json.loads(said("canary", "start", "new-template", "--json"))["phase"] == "running"
    ((_, trial),) = core.steering.canaries
    trial.count(Arm.CANARY, attempts=300, sent=270, bounced=30)
    trial.count(Arm.CONTROL, attempts=3000, sent=2970, bounced=30)
    shown = said("canary", "show", "new-template").splitlines()
    assert shown[0].startswith(
        "new-template: running by jo: acceptance 90.00% of 300 against 99.00% of 3000 of control"
    )
    assert shown[2].startswith("acceptance 90.00% 300 99.00% 3000 -12.")
    assert shown[2].endswith("worse")
    said("canary", "promote", "new-template")
    assert trial.phase is Phase.PROMOTED
    with pytest.raises(ValueError, match="no canary is called so; known: new-template"):
        said("canary", "stop", "other")


def test_reactions_are_shown_and_undone_by_hand(core: World) -> None:
    assert said("react", "list").splitlines()[1] == "ip-2 * leave-pool on 60 s listed zen"
    assert said("react", "undo", "192.0.2.2") == "undone: ip-2@*"
    assert said("react", "list").splitlines()[1] == "ip-2 * leave-pool undone by jo 60 s listed zen"
    assert core.steering.reactions.refuses("ip-2", "google", 0.9, now=BEGIN + 60) == ""
    with pytest.raises(ValueError, match=r"shop\.example: nothing is done about it"):
        said("react", "undo", "Shop.Example")


def test_core_hears_of_signs_over_the_control_socket(core: World) -> None:
    react = PoolAnswers(core.steering, lambda: None).table()["react"]
    sign = {"signal": "reputation", "kind": "domain", "object": "shop.example", "provider": "google", "evidence": "BAD"}
    found = cast("dict[str, Any]", react({"do": "signs", "signs": [sign]}))
    assert [(each["object"], each["ended"] > 0) for each in found["reactions"]] == [
        ("ip-2", True),
        ("shop.example", False),
    ]
    with pytest.raises(ValueError, match="not a valid Signal"):
        react({"do": "signs", "signs": [{**sign, "signal": "weather"}]})
    with pytest.raises(ValueError, match="wanted list, undo or signs"):
        react({"do": "dance"})


@pytest.mark.parametrize(
    "words", [("pool",), ("warmup",), ("canary",), ("react",), ("canary", "promote"), ("react", "undo")]
)
def test_every_command_has_an_example(words: tuple[str, ...]) -> None:
    assert "Example: sidecar " in said(*words, "--help")


def test_the_day_of_the_configuration_is_counted_in_utc() -> None:
    assert day_of("2024-10-04") * DAY == BEGIN


def test_what_the_document_shows_is_taken(tmp_path: Path) -> None:
    document = (Path(__file__).parents[1] / "docs" / "pools.md").read_text()
    shown = "\n".join(re.findall(r"```toml\n(.*?)```", document, re.DOTALL))
    path = tmp_path / "sidecar.toml"
    path.write_text(f'{shown}\n[[pool]]\nname = "doubtful"\ntransports = [{{ transport = "ip-9" }}]\n')
    found = pools.wanted(load(path), [])
    assert (len(found.pools), len(found.plans), len(found.canaries), len(found.rules)) == (2, 1, 1, 3)
    assert all(f"| `{signal}` |" in document for signal in Signal)
    assert all(f"`{do}`" in document for do in Do)
