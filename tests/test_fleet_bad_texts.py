"""Whatever anybody writes into the fleet's store is passed over, counted and said once, and what comes after it is heard."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from parsers.feeds.dnsbl import Severity
from policies.figures import Kind
from policies.fleet import allowance, book, budget, news, page, roll, row, taught, trouble
from policies.fleet.book import Book, Lead, Share
from policies.fleet.presence import Presence
from policies.fleet.roll import Asking, Roll, Standing
from policies.fleet.row import Row
from policies.incidents import Incident, Member, Phase
from policies.limit import Aftermath
from policies.note import NoteKind
from policies.subqueue import State
from policies.suppression import Add, End, Erase, Listed, Reason
from policies.warm_up import Level, Plan
from sidecar.fleet import commands
from sidecar.fleet.redis_store import RedisStore
from sidecar.fleet.roll_store import ROLL
from tests.redis_world import KEY, LINE, RULE, Sidecar, running_server, sidecars, until
from tests.test_fleet_commands import Mx, at_work
from tests.test_fleet_suppressions import ANN, BY_HAND, host

ROOT = Path(__file__).parents[1]
DEEP = "[" * 20_000 + "]" * 20_000
TEXTS = {
    "no JSON": "x",
    "cut off": '{"server": "a',
    "nested too deep": DEEP,
    "nested too deep within": f'{{"server": {DEEP}, "row": {DEEP}, "at": {DEEP}}}',
    "list": "[]",
    "text": '"x"',
    "nothing": "null",
    "whole number": "7",
    "too many digits": "9" * 5_000,
    "empty object": '{"": {}}',
    "NaN": '{"server": NaN, "at": NaN}',
    "half a pair of surrogates": '{"server": "\\ud800"}',
    "too long": f'{{"x": "{"a" * (1 << 20)}"}}',
}
VALUES: list[Any] = [
    None, True, "", "x", "nan", -1, 1.5, 10**30, 1e308, float("inf"), float("nan"), [], {}, [[]], {"x": []}, [1, 2, 3, 4], ["x"] * 9, "\ud800",
]  # fmt: skip
"""What stands where something else should."""

SUB = Row(KEY, State.RAMPING, 3.0, 1, 4, 1.7e9, 1.7e9 + 60, RULE, LINE, "mx1", exploring=True)
PLAN = Plan("out", 20_000, 200, 2.0, 50_000, fleet=True)
ADD = Add(b"\x01" * 16, "a@x.example", Listed("global", Reason.BY_HAND), "line", 1.7e9, "root")


class Reader(NamedTuple):
    good: str
    read: Callable[[str], Any]
    use: Callable[[Any], Any] = str
    """What is done with it next."""


def _attend_book(found: Book) -> str:
    wish = book.Wish("mx2", SUB, need=3, refused_in=1)
    return book.attend(found, wish, Standing(quorate=True, reserved=0.1), server="a", at=1.7e9).text()


def _attend_budget(found: budget.Budget) -> str:
    wish = budget.Wish("mx2", 20_001, budget.Share(1.0, 9.0), "", None)
    terms = budget.Terms(PLAN, None, {"mx2": 0.5}, may_grow=True, all_declared=True, server="a", today=20_001)
    return budget.attend(found, wish, terms, provider="google").text()


def _lend(found: allowance.Allowance) -> str:
    wish = allowance.Wish("mx2", 0.1, 0.5, 60.0)
    return allowance.lend(found, wish, 0.5, may_grow=True, all_declared=True, server="a", at=1.7e9).text()


def _enrol(found: Roll) -> str:
    found.standing(at=1.7e9)
    return roll.enrol(found, Asking("mx2", "a", 1.7e9, 1.7e9, 0.1, {}), server="a", at=1.7e9).text()


def _speak(found: page.Page) -> str:
    mine = page.Mine(3, Severity.ERROR, 1)
    way = page.Way("chat", frozenset(Severity), frozenset(NoteKind))
    after, _ = page.attend(page.merged(found, page.Page()), "mx2", mine, [way], {}, at=1.7e9 + 700, may_speak=True)
    said = page.said(after, "chat", NoteKind.WORSE, page.Told(1.7e9 + 700, "error", by="mx2"))
    return said.text() + "".join(said.hosts(at=1.7e9))


def _find_page(found: trouble.Troubles) -> str:
    member = Member("k", "c", "example.com", Kind.DOMAIN, Severity.ERROR, True, 0.0, 0.0, 0.0, "it")  # it fires
    incident = Incident(3, "x", Phase.OPEN, "x", "y", Severity.ERROR, "", "", 0.0, 1.7e9, members=(member,))
    likely = found.candidates(incident, at=1.7e9)
    name = next((each for each in likely if found.goes_on(each, page.Page(), at=1.7e9)), incident.dedup_key)
    return found.entered(name, incident, at=1.7e9).text()


READERS: Mapping[str, Reader] = {
    "row": Reader(SUB.text(), Row.read, Row.text),
    "push": Reader(row.pushed_text(SUB, at=1.7e9), row.read_pushed),
    "book": Reader(
        Book(
            "a", 1.6e9, SUB, 4, Lead("mx1", 4, 1.7e9 + 6), {"mx1": Share(1.0, 2, 1.7e9 + 6, 3)},
            {"mx1": book.Had(1, Aftermath(1, 2, 3.0))},
        ).text(), Book.read, _attend_book,
    ),
    "roll": Reader(Roll("a", 1.6e9, {"mx1": roll.Member(1.7e9, 1.7e9, 0.25)}).text(), Roll.read, _enrol),
    "presence": Reader(
        Presence("mx1", 1.7e9, "1.0", "act", 3, 4, 5, 0.1, helper=True).text(), Presence.read, Presence.text
    ),
    "learned names": Reader(
        taught.texts([taught.Fact("provider", "a.example", "google")])[0], taught.read, taught.texts
    ),
    "suppression": Reader(news.change_text(ADD), news.read_change, news.change_text),
    "release": Reader(
        news.change_text(End(ADD.who, ADD.listed, 1.7e9, "root", "by hand")), news.read_change, news.change_text
    ),
    "erasure": Reader(
        news.change_text(Erase(ADD.who, ADD.address, forget=True, at=1.7e9, by_whom="root")), news.read_change, news.change_text
    ),
    "copied suppression": Reader(
        json.dumps({**ADD._asdict(), "digest": ADD.who.hex(), "list": "global", "reason": "by-hand", "id": 3, "who": 0}),
        lambda text: news.read_copied(json.loads(text)), news.change_text,
    ),
    "page": Reader(
        page.Page(
            "x", "y", 1.7e9, {"mx1": page.Sight(1.7e9, "error", 1.7e9, 3)},
            {"chat": page.Told(1.7e9, "warning", 1, 1, (1.7e9,), by="mx1")}, {"pager": page.Claim("mx1", 1, 1.7e9)}, 1,
            page.Hand(1.7e9, "ann"),
        ).text(), page.Page.read, _speak,
    ),
    "troubles": Reader(
        trouble.Troubles({"a": trouble.Entry(1.7e9, (trouble.Sign("k", "c", "example.com", Kind.DOMAIN, 1.7e9),))}).text(),
        trouble.Troubles.read, _find_page,
    ),
    "quota": Reader(
        allowance.Allowance("a", 1.6e9, {"mx1": allowance.Loan(0.1, 0.2, 1.7e9)}).text(), allowance.Allowance.read, _lend
    ),
    "warm-up": Reader(
        budget.Budget("a", 0, 20_000, Level("out", "google", 20_001, 300.0), "", {"mx1": budget.Share(3.0, 4.0, 1)}, ("mx1",)).text(),
        budget.Budget.read, _attend_budget,
    ),
    "command": Reader(
        json.dumps({"command": "subqueue", "seconds": 60.0}), lambda text: commands._request({"request": text}, 1.0)
    ),
    "answer": Reader(json.dumps({"ok": False, "error": "no"}), commands.read_answer),
}  # fmt: skip


def test_what_is_good_is_read() -> None:
    for reader in READERS.values():
        reader.use(reader.read(reader.good))


@pytest.mark.parametrize("name", READERS)
def test_a_bad_text_is_a_value_error_and_nothing_else(name: str) -> None:
    reader = READERS[name]
    for what, text in TEXTS.items():
        if name == "copied suppression" and what in {"no JSON", "cut off", "nested too deep", "nested too deep within"}:
            continue  # it is read as a part of an answer
        assert _is_sound(reader, text), f"{what}: {text[:60]}"


@pytest.mark.parametrize("name", READERS)
def test_a_bad_value_anywhere_is_a_value_error_or_does_no_harm(name: str) -> None:
    reader = READERS[name]
    for text in _spoilt(json.loads(reader.good)):
        assert _is_sound(reader, text), text[:300]


def _is_sound(reader: Reader, text: str) -> bool:
    """Whether it is refused, or can be gone on with and be sent."""
    try:
        found = reader.read(text)
    except ValueError:
        return True
    used = str(reader.use(found))
    used.encode(errors="surrogateescape")
    return "NaN" not in used and "Infinity" not in used


def _spoilt(good: Any) -> Iterator[str]:
    """Give texts of which one value is another, or missing."""
    for path in _paths(good):
        for value in VALUES:
            copy = json.loads(json.dumps({"top": good}))
            at = copy
            for step in ("top", *path)[:-1]:
                at = at[step]
            at[("top", *path)[-1]] = value
            yield json.dumps(copy["top"]).replace(json.dumps(float("inf")), "1e999")
        if path:
            copy = json.loads(json.dumps(good))
            at = copy
            for step in path[:-1]:
                at = at[step]
            del at[path[-1]]
            yield json.dumps(copy)


def _paths(value: Any) -> Iterator[tuple[Any, ...]]:
    yield ()
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from ((name, *rest) for rest in _paths(part))


@pytest.mark.parametrize(("name", "path"), [
    ("troubles", "a"), ("page", "x"), ("page", "y"), ("page", "mx1"), ("page", "chat"), ("page", "pager"), ("page", "ann"),
])  # fmt: skip
def test_what_our_own_store_could_not_keep_of_pages_is_refused(name: str, path: str) -> None:
    """SQLite keeps no bytes that are no UTF-8: one round after the other would fail at them, and people hear of nothing."""
    reader = READERS[name]
    for bad in ("b\udcff", "b\\udcff"):  # as it is read from the server, and as JSON writes it
        text = reader.good.replace(f'"{path}"', f'"{bad}"')
        assert text != reader.good
        with pytest.raises(ValueError, match="surrogates"):
            reader.read(text)


def test_json_of_others_is_read_in_one_place() -> None:
    found = {
        str(path.relative_to(ROOT))
        for folder in ("policies/fleet", "sidecar/fleet")
        for path in (ROOT / folder).glob("*.py")
        if re.search(r"\bjson\.loads?\b", path.read_text())
    }
    assert found == {"policies/fleet/reading.py"}


def test_commands_and_answers_that_nobody_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "LISTENS", 0.2)

    async def story() -> None:
        async with running_server(tmp_path) as server:
            there = {"mx1": True, "mx2": True}
            one, two = (Mx(name, server.url, there) for name in there)
            stranger = RedisStore(server.url)
            async with at_work(one, two):
                for text in TEXTS.values():
                    await stranger.redis.xadd(
                        stranger.key("commands"), {"host": "mx9", "to": "mx2", "request": text[:90_000]}
                    )
                told = await one.commands.tell({"key": "k"}, "mx2")
                await until(lambda: two.asked[-1:] == [{"key": "k", "who": "host mx1 ()"}], within=60.0)
                assert two.commands.bad >= len(TEXTS) - 1  # an empty object is a command of nobody
                await until(lambda: not (one.commands.silent or two.commands.silent), within=60.0)
            del told
            alone = Mx("mx1", server.url, there)
            asking = asyncio.create_task(alone.commands.tell({"key": "l"}, "mx2"))

            async def answered() -> bool:
                found: Any = await stranger.redis.xrevrange(stranger.key("commands"), count=1)
                number, fields = found[0]
                if json.loads(fields["request"]).get("key") != "l":
                    return False
                await stranger.redis.hset(stranger.key(f"answers:{number}"), "mx2", DEEP)
                return True

            await until(answered, within=60.0)
            answers = (await asking).answers
            assert not answers["mx2"]["ok"]
            assert "is no answer of the fleet" in answers["mx2"]["error"]
            await alone.commands._store.close()
            await stranger.close()

    asyncio.run(story())


def test_changes_of_suppressions_that_nobody_can_read(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            running_server(tmp_path) as server,
            host(tmp_path, "mx1", server.url) as one,
            host(tmp_path, "mx2", server.url) as two,
        ):
            stranger = RedisStore(server.url)
            stream = stranger.key("suppressions")
            entry: dict[Any, Any] = {"origin": "x", "host": "mx9", "key": one.shared._key, "number": "1"}
            for text in TEXTS.values():
                await stranger.redis.xadd(stream, {**entry, "change": text[:90_000]})
            for number in ("9" * 30, "-1", "x", ""):
                await stranger.redis.xadd(stream, {**entry, "number": number, "change": news.change_text(ADD)})
            await stranger.redis.hset(f"{stream}:upto", mapping={"x": "y" * 20, one.shared._outbox.origin: "none"})
            await one.add(ANN)
            await until(lambda: two.has(ANN, BY_HAND), within=60.0)
            assert two.shared.bad >= len(TEXTS) + 4
            await until(lambda: not two.shared.silent, within=60.0)
            await stranger.close()

    asyncio.run(story())


def test_books_rolls_presences_and_pushes_that_nobody_can_read(tmp_path: Path) -> None:
    async def story() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 2) as (one, two):
            stranger = RedisStore(server.url)
            other = KEY._replace(value="other.example")
            for bad in (DEEP, TEXTS["half a pair of surrogates"], TEXTS["empty object"]):
                before = one.exchange.rounds
                for name in (f"book:{KEY}", "roll", "host:host-0", f"book:{other}"):
                    await stranger.put(name, bad)
                await stranger.push([bad])
                await until(lambda: one.exchange.rounds > before, within=60.0)  # noqa: B023  # awaited here
            await stranger.put(f"book:{KEY}", READERS["book"].good.replace(str(KEY), str(other)))
            one.open()
            await until(lambda: one.state() == two.state() == "paused", within=60.0)
            assert one.exchange.bad_texts
            await until(lambda: not (one.exchange.silent or two.exchange.silent), within=60.0)
            third = Sidecar("host-9", server.url)
            task = asyncio.create_task(third.run())
            await until(lambda: third.state() == "paused", within=60.0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await stranger.close()

    asyncio.run(story())


def test_times_that_are_none_in_the_roll_are_written_anew(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, sidecars(server.url, 2) as fleet:
            await until(lambda: all(len(each.host.standing()["hosts"]) == 2 for each in fleet))
            stranger = RedisStore(server.url)
            key = stranger.key(ROLL)

            async def wrote(name: str, entry: list[Any]) -> None:
                roll: Any = json.loads(str(await stranger.redis.get(key)))
                roll["members"][name] = entry
                await stranger.redis.set(key, json.dumps(roll, separators=(",", ":"), sort_keys=True))

            async def all_know() -> bool:
                at, _ = await stranger.texts(["x"])
                await wrote("gone", [at, at, 0.1])
                return all(len(each.host.standing()["hosts"]) == 3 for each in fleet)

            async def somebody_saw() -> bool:
                await wrote("gone", ["x", 1.0, 0.1])
                return any(each.exchange.bad_texts for each in fleet)

            await until(all_know)
            await until(somebody_saw)
            before = [each.host.contact.met for each in fleet]
            await until(lambda: all(each.host.contact.met > met for each, met in zip(fleet, before, strict=True)))
            Roll.read(str(await stranger.redis.get(key)))
            await stranger.close()

    asyncio.run(scene())


def test_a_place_that_no_clock_says_ends_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_server(tmp_path) as server, host(tmp_path, "mx1", server.url) as one:
            await until(lambda: not one.shared.silent)
            stranger = RedisStore(server.url)
            await stranger.redis.xadd(stranger.key("suppressions"), {"x": "y"}, id=f"{2**64 - 1}-1")
            await until(lambda: one.shared.bad == 1)
            assert await one.core.ledger.commit()
            await stranger.close()

    asyncio.run(scene())
