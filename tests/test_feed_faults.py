"""Every feed under every fault, through store and conditions: no alert begins and none ends that is not so.

Each feed's own tests say what a fault makes of one answer; here a thousand polls, a seed and all of them together.
"""

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from parsers.feeds import (
    dnsbl,
    google_postmaster,
    google_postmaster_v1,
    own_authentication,
    senderscore,
    snds,
    spamhaus_sia,
)
from parsers.feeds.asking import Answer, Ask, DnsAnswer, DnsAsk, HttpAsk, Keep, Kept, Poll
from parsers.observation import Observation, Outcome
from policies.cadence import Standing
from policies.conditions import CONDITIONS, Alert, Category, Turn, begin, follow
from policies.figures import told
from sidecar import blocklists
from sidecar.config import Config
from sidecar.feeds import FEEDS
from sidecar.outside_store import OutsideStore
from tests.google_world import NOW, Google, refusal, reply, without_sockets
from tests.outside_world import Response, driven
from tests.test_dnsbl import NXDOMAIN, listing_of, said
from tests.test_google_postmaster import GRANT
from tests.test_own_authentication import BROKEN, FETCHED, SENDER, SITE, WELL, answers
from tests.test_snds import ADDRESSES, Disk, Microsoft, login
from tests.test_spamhaus_sia import CLEAN, LISTED, Spamhaus

POLLS = 1000 * int(os.environ.get("SOAK", "1"))
BAD, GOOD = ("192.0.2.10", "bad.example"), ("192.0.2.11", "good.example")

_SILENT = [DnsAnswer(rcode) for rcode in ("SERVFAIL", "TIMEOUT", "REFUSED", "ERROR", "FORMERR")]
_LIES = [
    *(said(f"127.255.255.{last}") for last in (250, 251, 252, 254, 255)),
    said("203.0.113.9"),
    said("127.0.9.9"),  # of no list: 127.0.0.99 is one of dronebl's
    said("127.0.0.2", "203.0.113.9"),
    said("not an address"),
]
"""Of DNS: what a resolver or a list says that does not answer the question."""
_HTTP = [
    Response(0),
    *(Response(status) for status in (302, 400, 401, 403, 429, 500, 502, 503)),
    Response(404, b"<!DOCTYPE html><title>Not here</title>", (("Content-Type", "text/html"),)),
    Response(200, b""),
    Response(200, b"<html>Sign in", (("Content-Type", "text/html"),)),
    Response(200, b'{"results": [{"dataset"', (("Content-Type", "application/json"),)),
    Response(200, b"Service Unavailable", (("Content-Type", "text/plain"),)),
    reply(200, {"error": {"code": 13, "message": "so it is"}}),
    refusal(429, "slow down", "RESOURCE_EXHAUSTED"),
]


class World(NamedTuple):
    """One feed, and the world that it asks about: always the same."""

    feeds: tuple[str, ...]
    """Names in the table of feeds."""
    poll: Callable[[], Poll]
    answer: Callable[[], Callable[[Ask], Answer]]
    """Made anew for each poll, for tokens that are good once."""
    dns: Sequence[DnsAnswer]
    http: Sequence[Response] = _HTTP
    zones: tuple[str, ...] = ()


# The lists.

_LISTS = blocklists.in_force(Config())


def _of_lists() -> Callable[[Ask], Answer]:
    by_name: dict[str, DnsAnswer] = {}
    for asked in _LISTS:
        bad = [each.name for each in (dnsbl.subject(each, {}) for each in BAD) if each.kind in asked.list.kinds]
        names = [dnsbl.test_points(asked.list)[0], *bad]
        by_name |= {f"{name}.{asked.zone}": listing_of(asked.list) for name in names if name}

    def answer(ask: Ask) -> Answer:
        assert isinstance(ask, DnsAsk)
        return said("see https://list.example/") if ask.type == "TXT" else by_name.get(ask.name, NXDOMAIN)

    return answer


def _of_scores() -> Callable[[Ask], Answer]:
    def answer(ask: Ask) -> Answer:
        assert isinstance(ask, DnsAsk)
        return said("127.0.4.97" if ask.name.startswith("11.") else "127.0.4.50")

    return answer


WORLDS = {
    "lists": World(
        tuple(blocklists.CADENCES),
        lambda: dnsbl.poll(_LISTS, (*BAD, *GOOD), {}, feed="dnsbl-1h"),
        _of_lists,
        [*_SILENT, *_LIES],
        zones=tuple(asked.zone for asked in _LISTS),
    ),
    "scores": World(
        (senderscore.FEED,), lambda: senderscore.poll((BAD[0], GOOD[0]), zone="s.example"), _of_scores, [*_SILENT, *_LIES]
    ),
    "authentication": World(
        (own_authentication.FEED, "authentication-active"),
        lambda: own_authentication.poll(SITE, (SENDER,), inbound=(SENDER.domain,)),
        lambda: answers(WELL | BROKEN, FETCHED),
        _SILENT,
        [Response(status) for status in (0, 429, 500, 503)],
    ),
    "Google": World(
        (google_postmaster.FEED,),
        lambda: google_postmaster.poll(
            GRANT, (), wanted=(), now=NOW, days=7, domains_max=9, base_url="http://google.example"
        ),
        lambda: without_sockets(Google().answer),
        (),
    ),
    "Google v1": World(
        (google_postmaster_v1.FEED,),
        lambda: google_postmaster_v1.poll(GRANT, ("example.com",), now=NOW, days=7, base_url="http://google.example"),
        lambda: without_sockets(Google(v1=True).answer),
        (),
    ),
    "SNDS": World((snds.FEED,), lambda: snds.poll(login(), ADDRESSES, now=NOW), lambda: Disk(Microsoft().answer).give, ()),
    "SIA": World(
        (spamhaus_sia.FEED,),
        lambda: spamhaus_sia.poll(
            "us", "s3cret", (LISTED, CLEAN), now=NOW, base_url="http://sia.example", lists=("cidr/ALL",)
        ),
        lambda: without_sockets(Spamhaus().answer),
        (),
    ),
}  # fmt: skip

OURS = {"gone", "domains-left-out", "zone-healthy", "credential-age", "data-age"}
"""Measures that are about our access: under faults they may well be other."""
WATCHED = [condition for condition in CONDITIONS if condition.category is not Category.SIDECAR]


def test_no_feed_is_forgotten() -> None:
    there = {name for world in WORLDS.values() for name in world.feeds}
    assert there == set(FEEDS)


class Watch:
    """Store and alerts, poll after poll."""

    def __init__(self, store: OutsideStore) -> None:
        self.store = store
        self.alerts: dict[str, Alert] = {}
        self.now = NOW

    def polled(self, seen: Sequence[Observation]) -> list[tuple[str, Turn]]:
        """Write down what a poll told, look at all of its feed, and tell what began or ended."""
        self.now += 900.0
        turns = []
        for feed in {each.feed for each in seen}:
            self.store.polled(feed, Standing(asked_at=self.now), [s for s in seen if s.feed == feed], (), now=self.now)
            for known in self.store.known(feed):
                text = known.text if known.outcome is Outcome.OK else known.why
                figure = told(Observation(*known[:4], known.value, text, known.at), stamp=known.polled_at)
                for condition in (each for each in WATCHED if each.looks_at(figure)):
                    key = condition.dedup_key(figure)
                    before = self.alerts.get(key, begin(condition, figure))
                    self.alerts[key], turn = follow(before, condition, figure, now=self.now)
                    turns += [(key, turn)] if turn else []
        return turns

    @property
    def firing(self) -> set[str]:
        return {key for key, alert in self.alerts.items() if alert.firing}


def troubled(world: World, dice: random.Random) -> Callable[[Ask], Answer]:
    """The world, any answer of which may be a fault; and whole zones that are dead in ways that look like answers."""
    usual, share = world.answer(), dice.random() ** 2
    dead = {
        zone: dice.choice(("emptied", "lists all", "for sale")) for zone in world.zones if dice.random() < share / 2
    }

    def answer(ask: Ask) -> Answer:
        if isinstance(ask, DnsAsk) and (how := dead.get(ask.zone)):
            return {"emptied": NXDOMAIN, "lists all": said("127.0.0.2"), "for sale": said("203.0.113.9")}[how]
        if dice.random() >= share:
            return usual(ask)
        match ask:
            case DnsAsk():
                return dice.choice(world.dns)
            case Keep():
                return Kept("No space left on device")
            case HttpAsk():
                return without_sockets(lambda _: _answer(dice.choice(world.http)))(ask)

    return answer


def _answer(response: Response) -> Response | None:
    return None if response.status == 0 else response


@pytest.mark.timeout(120 * (POLLS // 1000))
def test_no_fault_begins_or_ends_an_alert(tmp_path: Path) -> None:
    store = OutsideStore.open(tmp_path / "outside.db")
    watch = Watch(store)
    truth: dict[tuple[str, str, str, float], tuple[Outcome, float | None]] = {}
    for _ in range(2):
        for world in WORLDS.values():
            seen = driven(world.poll(), world.answer()).observations
            truth |= {(s.feed, s.object, s.measure, s.at): (s.outcome, s.value) for s in seen}
            watch.polled(seen)
    firing = watch.firing
    assert len([key for key in firing if BAD[0] in key and "dnsbl" in key]) >= 20
    assert not [key for key in firing if "dnsbl" in key and (GOOD[0] in key or GOOD[1] in key)]
    assert {key.split(":")[1] for key in firing} >= {
        "dnsbl",
        "senderscore",
        "authentication",
        "google-postmaster",
        "snds",
    }

    dice = random.Random(1)
    values = dict.fromkeys(WORLDS, 0)
    unknown = 0
    for number in range(POLLS):
        name = list(WORLDS)[number % len(WORLDS)]
        seen = driven(WORLDS[name].poll(), troubled(WORLDS[name], dice)).observations
        for each in seen:
            unknown += each.outcome is Outcome.UNKNOWN
            if each.outcome is Outcome.OK and each.measure not in OURS:
                values[name] += 1
                assert (each.outcome, each.value) == truth[each.feed, each.object, each.measure, each.at]
        assert watch.polled(seen) == []
    assert watch.firing == firing
    assert unknown > POLLS
    assert min(values.values()) > POLLS // 20
    store.close()


def test_the_watch_sees_an_alert_that_begins_and_one_that_ends(tmp_path: Path) -> None:
    """The test above can fail."""
    store = OutsideStore.open(tmp_path / "outside.db")
    watch = Watch(store)
    turns = [
        watch.polled([Observation("dnsbl-1h", BAD[0], "listed.spamcop", Outcome.OK, value, "error: listed")])
        for value in (1.0, 1.0, 0.0, 0.0)
    ]
    store.close()
    key = "pf-rep:dnsbl:192.0.2.10:spamcop"
    assert turns == [[], [(key, Turn.FIRED)], [], [(key, Turn.RESOLVED)]]
