"""What one host learned of names the others know: within seconds, after a restart, and whatever anybody puts into the store."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.fleet import taught
from policies.fleet.taught import AT_ONCE, PROVIDER, Fact
from policies.provider_directory import ProviderDirectory
from policies.recipients import MX_LIFETIME, RecipientProviders
from policies.senders import Habit, SenderHabits
from sidecar.fleet import taught_store
from sidecar.fleet.maps import SharedMaps
from sidecar.fleet.redis_store import RedisStore
from sidecar.fleet.stream import BEGINNING
from sidecar.fleet.taught_store import STREAM, Taught, TaughtStore
from sidecar.store import Store
from tests.redis_world import Server, Sidecar, running_server, sidecars, store_at, until

NOW = 1.8e9
KIND = "dkim-domain"


def providers() -> RecipientProviders:
    return RecipientProviders(ProviderDirectory(()))


def test_what_was_seen_here_counts_more_than_what_others_say_for_a_day() -> None:
    known = providers()
    assert known.hear("a.example", "one.example", at=NOW, now=NOW)
    assert known.here("a.example") == ("one.example", False)
    known.learn("a.example", "two.example", now=NOW)
    assert not known.hear("a.example", "one.example", at=NOW + 9.0, now=NOW + 9.0)
    assert known.here("a.example") == ("two.example", True)
    later = NOW + MX_LIFETIME + 1.0
    assert not known.hear("a.example", "one.example", at=NOW - 1.0, now=later)  # older than what we saw
    assert known.hear("a.example", "one.example", at=later, now=later)
    assert known.here("a.example") == ("one.example", False)


def test_a_domain_that_was_heard_of_is_looked_up_no_more_for_a_day() -> None:
    known = providers()
    assert known.of_domain("a.example", now=NOW) is None
    known.hear("a.example", "one.example", at=NOW, now=NOW)
    assert known.wanted(10) == []
    assert known.of_domain("a.example", now=NOW) == "one.example"
    assert known.of_domain("a.example", now=NOW + 2 * MX_LIFETIME) == "one.example"
    assert known.wanted(10) == ["a.example"]


def test_what_others_say_an_envelope_domain_signs_as_holds_until_such_mail_is_seen_here() -> None:
    habits = SenderHabits()
    assert habits.hear(Habit(KIND, "bounce.example", "shop.example"))
    assert habits.habits(KIND, "bounce.example") == ("shop.example",)
    habits.saw(KIND, "bounce.example", ("other.example",))
    assert habits.habits(KIND, "bounce.example") == ("other.example",)
    assert not habits.hear(Habit(KIND, "bounce.example", "shop.example"))


def test_where_others_say_several_none_is_a_habit() -> None:
    habits = SenderHabits()
    for domain in ("one.example", "two.example"):
        habits.hear(Habit(KIND, "bounce.example", domain))
    assert habits.habits(KIND, "bounce.example") == ()
    assert sorted(habits.envelope_domains(KIND, "two.example")) == ["bounce.example"]


def test_only_what_nobody_told_us_is_told_and_all_of_it_where_too_much_was_new() -> None:
    known, habits = providers(), SenderHabits()
    known.news, habits.news = [], []
    known.hear("a.example", "one.example", at=NOW, now=NOW)
    known.learn("a.example", "one.example", now=NOW)
    known.learn("b.example", "two.example", now=NOW)
    habits.hear(Habit(KIND, "a.example", "one.example"))
    habits.saw(KIND, "a.example", ("one.example", "two.example"))
    habits.signed("one.example", "s1", now=NOW)
    assert taught.news(known, habits, most=10) == [
        Fact(PROVIDER, "b.example", "two.example"),
        Fact(KIND, "a.example", "two.example"),
    ]
    assert taught.news(known, habits, most=10) == []
    for number in range(12):
        known.learn(f"{number}.example", "one.example", now=NOW)
    assert len(taught.news(known, habits, most=10)) == 10 + 2


names = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1, max_size=255)
facts = st.builds(Fact, st.sampled_from([PROVIDER, "dkim-domain", "from-domain"]), names, names)


@given(st.lists(facts, max_size=60))
def test_facts_are_read_as_they_were_written(told: list[Fact]) -> None:
    written = taught.texts(told)
    assert [fact for text in written for fact in taught.read(text)] == [
        fact for fact in told if fact.name.isprintable() and fact.value.isprintable()
    ]


@given(
    st.text(max_size=60)
    | st.lists(st.lists(st.integers() | st.text(max_size=5), max_size=4), max_size=4).map(json.dumps)
)
def test_what_is_no_fact_is_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert taught.read(text) is not None


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[[]]", "[1]", '[["provider","a b","c"]]', '[["provider","","c"]]', '[["provider","a",7]]', "[" * 9_000,
     json.dumps([["provider", "a", "b"]] * (AT_ONCE + 1)), json.dumps([["provider", "a" * 256, "b"]])],
)  # fmt: skip
def test_bad_texts(text: str) -> None:
    with pytest.raises(ValueError, match=r"fact|Expecting|character|list"):
        taught.read(text)


def test_other_kinds_are_of_a_newer_version() -> None:
    assert taught.read('[["later",{"any":1},2],["provider","a.example","b.example",9]]') == [
        Fact(PROVIDER, "a.example", "b.example")
    ]


def test_bytes_that_are_no_text_are_told_to_nobody() -> None:
    assert taught.texts([Fact(PROVIDER, "a\udcff.example", "b"), Fact(PROVIDER, "c.example", "d")]) == [
        '[["provider","c.example","d"]]'
    ]


def test_so_many_are_kept_and_none_for_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taught_store, "MOST", 100)
    store = Store.open(tmp_path / "core.db")
    kept: TaughtStore = store.taught
    kept.keep([Taught(PROVIDER, f"{i}.example", "one.example", "mx1", float(i)) for i in range(109)], "7-0", before=5.0)
    assert (len(kept.all()), kept.place()) == (100, "7-0")
    kept.keep([Taught(PROVIDER, "9.example", "two.example", "mx2", 1e9)], "8-0", before=100.0)
    assert [row.host for row in kept.about("9.example", limit=5)] == ["mx2"]
    assert len(kept.all()) == 10
    store.close()


class Learner:
    """A host with a store of its own, that shares what it learned."""

    def __init__(self, sidecar: Sidecar, url: str, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.engine = sidecar.engine
        self.thread = ThreadPoolExecutor(1)
        self.store = Store.open(path)
        self.maps = SharedMaps(
            sidecar.host, RedisStore(url), sidecar.engine, self.store.taught, thread=self.thread, clock=clock
        )

    def learns(self, domain: str, provider: str = "hoster.example") -> None:
        self.engine.recipients.learn(domain, provider, now=time.time())

    def knows(self, domain: str) -> str | None:
        return self.engine.recipients.of_domain(domain, now=time.time())


def _skewed(skew: float) -> float:
    return time.time() + skew


@contextlib.asynccontextmanager
async def learners(
    server: Server, folder: Path, fleet: list[Sidecar], *, skews: tuple[float, ...] = (0.0, 0.0, 0.0)
) -> AsyncIterator[list[Learner]]:
    made = [
        Learner(each, server.url, folder / f"{each.host.name}.db", clock=partial(_skewed, skew))
        for each, skew in zip(fleet, skews, strict=False)
    ]
    tasks = [asyncio.create_task(each.maps.run()) for each in made]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in made:
            await asyncio.get_running_loop().run_in_executor(each.thread, each.store.close)
            each.thread.shutdown()


def test_what_one_learned_all_know_within_seconds_whatever_their_clocks_say_and_after_a_restart(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 3) as fleet:
            async with learners(server, tmp_path, fleet, skews=(0.0, -3_600.0, 90_000.0)) as hosts:
                hosts[0].learns("first.example")
                hosts[0].engine.habits.saw(KIND, "bounce.example", ("shop.example",))
                await until(lambda: all(each.knows("first.example") for each in hosts))
                await until(lambda: all(each.engine.habits.habits(KIND, "bounce.example") for each in hosts))
                found: list[dict[str, Any]] = []

                async def is_kept() -> bool:
                    found[:] = await hosts[2].maps.about("first.example", limit=9)
                    return bool(found)

                await until(is_kept)
                (row,) = found
                assert (row["host"], row["value"], row["here"]) == ("host-0", "hoster.example", ["hoster.example"])
                assert not row["seen_here"]
            again = Sidecar("host-1", server.url)
            async with learners(server, tmp_path, [again]) as (host,):
                assert host.knows("first.example") == "hoster.example"  # before it has asked anybody

    asyncio.run(scene())


def test_a_store_that_was_killed_and_begins_empty_is_told_all_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 2) as fleet:
            async with learners(server, tmp_path, fleet) as hosts:
                hosts[0].learns("first.example")
                await until(lambda: hosts[1].knows("first.example") is not None)
                life = fleet[0].host.contact.server
                server.kill()
                hosts[1].learns("second.example")
                await server.start()
                await until(lambda: hosts[0].knows("second.example") is not None)
                await until(lambda: all(each.maps._told_all not in {"", life} for each in hosts))
            third = Sidecar("host-9", server.url)
            async with learners(server, tmp_path, [third]) as (host,):
                await until(lambda: bool(host.knows("first.example") and host.knows("second.example")))

    asyncio.run(scene())


def test_a_store_that_hung_for_a_while_is_followed_again(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            running_server(tmp_path) as server,
            sidecars(server.url, 2) as fleet,
            learners(server, tmp_path, fleet) as hosts,
        ):
            await until(lambda: not any(each.maps.silent for each in hosts))
            server.send(signal.SIGSTOP)
            hosts[0].learns("first.example")
            await until(lambda: bool(hosts[0].maps.silent))
            server.send(signal.SIGCONT)
            await until(lambda: hosts[1].knows("first.example") is not None)

    asyncio.run(scene())


def test_garbage_in_the_store_ends_nobody_and_the_rest_is_taken(tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            running_server(tmp_path) as server,
            sidecars(server.url, 1) as fleet,
            learners(server, tmp_path, fleet) as (host,),
            store_at(server.url) as stranger,
        ):
            key = stranger.key(STREAM)
            bad: list[dict[Any, Any]] = [
                {"x": "y"},
                *({"host": "mx9", "facts": text} for text in ("[" * 9_000, "[[3]]")),
            ]
            for fields in bad:
                await stranger.redis.xadd(key, fields)
            good = taught.texts([Fact(PROVIDER, "first.example", "hoster.example")])[0]
            await stranger.redis.xadd(key, {"host": "mx8", "facts": good})
            await until(lambda: host.knows("first.example") is not None)
            assert host.maps.bad == 3
            assert host.maps._after != BEGINNING

    asyncio.run(scene())


def test_what_waits_for_a_store_that_is_away_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    tell = SharedMaps._say_all

    async def telling(maps: SharedMaps) -> None:
        try:
            await tell(maps)
        finally:
            tried.append(len(maps._untold))

    monkeypatch.setattr(SharedMaps, "_say_all", telling)

    async def scene() -> None:
        async with (
            running_server(tmp_path) as server,
            sidecars(server.url, 1) as fleet,
            learners(server, tmp_path, fleet) as (one,),
        ):
            await until(lambda: bool(one.maps._told_all))
            server.send(signal.SIGSTOP)
            for number in range(2):
                one.learns(f"{number}.example")
                before = len(tried)
                await until(lambda: len(tried) > before + 1)  # noqa: B023  # waited for here
            assert max(tried) == 1
            server.send(signal.SIGCONT)
            await until(lambda: one.maps.told == 2 and not one.maps._untold)

    asyncio.run(scene())
