"""Spamhaus Intelligence against a server of our own: what lists, what clears, and that no fault does either."""

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from parsers.feeds import spamhaus_sia
from parsers.feeds.asking import Reading, Trouble
from parsers.observation import Outcome
from sidecar import mx
from sidecar.asking import Asking
from sidecar.config import Config, ConfigError, FeedsConfig, SpamhausSiaConfig
from sidecar.feeds import FEEDS
from sidecar.outside_store import RawAnswer
from sidecar.scope import Scope
from tests.google_world import reply, without_sockets
from tests.outside_world import Request, Response, driven, http_server

NOW = 1795255200.0
LISTED, CLEAN = "192.0.2.10", "192.0.2.11"
ENTRY = {
    "dataset": "XBL",
    "ipaddress": LISTED,
    "listed": 1795000000,
    "valid_until": 1795300000,
    "remove_timestamp": 0,
    "heuristic": "BOTNET",
    "botname": "gozi",
    "srcport": 25,
}


class Spamhaus:
    def __init__(self, fault: Callable[[Request], Response | None] = lambda _: None) -> None:
        self.fault = fault
        self.asked: list[str] = []

    def answer(self, request: Request) -> Response | None:
        if (wrong := self.fault(request)) is not None:
            return None if wrong.status == 0 else wrong
        path = urlsplit(request.path).path
        self.asked.append(request.path)
        if path == "/api/v1/login":
            good = json.loads(request.body) == {"username": "us", "password": "s3cret", "realm": "intel"}
            return (
                reply(200, {"code": 200, "token": "jwt.1", "expires": 1795300000})
                if good
                else reply(401, {"code": 401})
            )
        if request.headers.get("authorization") != "Bearer jwt.1":
            return reply(401, {"code": 401})
        if path == f"/api/intel/v1/byobject/cidr/ALL/listed/live/{LISTED}":
            return reply(
                200, {"code": 200, "results": [ENTRY, {**ENTRY, "dataset": "CSS", "ipaddress": "192.0.2.0/24"}]}
            )
        return reply(404, {"code": 404})


def polled(fault: Callable[[Request], Response | None] = lambda _: None, *, given: str = "s3cret") -> Reading:
    return _polled(Spamhaus(fault), given)


def _polled(spamhaus: Spamhaus, given: str = "s3cret") -> Reading:
    poll = spamhaus_sia.poll(
        "us", given, (LISTED, CLEAN), now=NOW, base_url="http://sia.example/", lists=("cidr/ALL", "ip/SBL")
    )
    return driven(poll, without_sockets(spamhaus.answer))


def told(reading: Reading) -> dict[tuple[str, str], tuple[str, float | None]]:
    return {(seen.object, seen.measure): (seen.outcome.value, seen.value) for seen in reading.observations}


TRUTH = {
    (LISTED, "listed.ALL"): ("ok", 1.0),
    (LISTED, "listed.SBL"): ("ok", 0.0),
    (CLEAN, "listed.ALL"): ("ok", 0.0),
    (CLEAN, "listed.SBL"): ("ok", 0.0),
}


def test_a_poll() -> None:
    reading = polled()
    assert (reading.trouble, told(reading)) == (None, TRUTH)
    assert reading.observations[0].text == (
        "XBL BOTNET gozi until 2026-11-21 22:26 UTC; CSS BOTNET gozi until 2026-11-21 22:26 UTC"
    )


def test_a_wrong_password() -> None:
    reading = polled(given="wrong")
    assert (reading.trouble, reading.observations) == (Trouble.AUTHENTICATION, ())


FAULTS = {
    "HTML 404": (Response(404, b"<html>not found"), Trouble.FORMAT),
    "HTML 404 by type": (Response(404, b"", (("Content-Type", "text/html"),)), Trouble.FORMAT),
    "no results": (reply(200, {"code": 200, "results": []}), Trouble.FORMAT),
    "no list of results": (reply(200, {"code": 200, "results": {"a": 1}}), Trouble.FORMAT),
    "words": (reply(200, {"results": ["XBL"]}), Trouble.FORMAT),
    "a 404 in a 200": (reply(200, {"code": 404}), Trouble.FORMAT),
    "another address": (reply(200, {"results": [{**ENTRY, "ipaddress": "198.51.100.1"}]}), Trouble.FORMAT),
    "no address": (reply(200, {"results": [{"dataset": "XBL"}]}), Trouble.FORMAT),
    "JSON cut": (Response(200, b'{"results": [{"dataset"'), Trouble.FORMAT),
    "HTML": (Response(200, b"<html>"), Trouble.FORMAT),
    "400": (reply(400, {"code": 400}), Trouble.FORMAT),
    "401": (reply(401, {"code": 401}), Trouble.AUTHENTICATION),
    "403": (reply(403, {"code": 403}), Trouble.AUTHENTICATION),
    "elsewhere": (Response(302), Trouble.AUTHENTICATION),
    "429": (Response(429, b"", (("Retry-After", "600"),)), Trouble.REFUSED),
    "503": (Response(503), Trouble.NETWORK),
    "silent": (Response(0), Trouble.NETWORK),
}


@pytest.mark.parametrize(("response", "trouble"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_neither_lists_nor_clears(response: Response, trouble: Trouble) -> None:
    spamhaus = Spamhaus(lambda request: response if "byobject" in request.path else None)
    reading = _polled(spamhaus)
    assert reading.trouble is trouble
    assert set(told(reading).values()) == {("unknown", None)}
    assert reading.retry_after == (600 if trouble is Trouble.REFUSED else 0)


@pytest.mark.parametrize(
    ("response", "trouble"),
    [
        (reply(200, {"code": 200}), Trouble.FORMAT),
        (reply(200, {"token": "a\nb"}), Trouble.FORMAT),
        (Response(200, b"<html>"), Trouble.FORMAT),
        (reply(401, {"message": "Unauthorized"}), Trouble.AUTHENTICATION),
        (Response(404), Trouble.FORMAT),
        (Response(503), Trouble.NETWORK),
        (Response(0), Trouble.NETWORK),
    ],
)
def test_without_a_login_nothing_is_told(response: Response, trouble: Trouble) -> None:
    reading = polled(lambda request: response if "login" in request.path else None)
    assert (reading.trouble, reading.observations) == (trouble, ())


def test_where_they_want_no_more_nothing_more_is_asked() -> None:
    seen: list[str] = []

    def fault(request: Request) -> Response | None:
        seen.append(request.path)
        return Response(429) if CLEAN in request.path else None

    reading = polled(fault)
    assert reading.trouble is Trouble.REFUSED
    assert told(reading) == {key: value if key[0] == LISTED else ("unknown", None) for key, value in TRUTH.items()}
    assert len(seen) == 4  # the login, two about the first address, one about the second


def test_no_fault_lists_or_clears_anybody() -> None:
    dice = random.Random(3)
    responses = [response for response, _ in FAULTS.values()]
    values = 0
    for _ in range(1000):
        share = dice.random()

        def fault(_: Request, share: float = share) -> Response | None:
            return dice.choice(responses) if dice.random() < share else None

        for seen in polled(fault).observations:
            if seen.outcome is Outcome.OK:
                values += 1
                assert (seen.outcome.value, seen.value) == TRUTH[seen.object, seen.measure]
    assert values > 500


def configured(password: Path, **settings: Any) -> Config:
    ours = SpamhausSiaConfig(username="us", password=str(password), **settings)
    return Config(feeds=FeedsConfig(spamhaus_sia=ours))


def test_over_http(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("s3cret\n")

    async def run(config: Config) -> tuple[Reading, list[RawAnswer]]:
        poll = FEEDS["spamhaus-sia"].poll(config, Scope((LISTED, CLEAN), ()), NOW)
        return await Asking(mx.system_resolver, backoff=0.01).poll(poll)

    spamhaus = Spamhaus()
    with http_server(spamhaus.answer) as server:
        reading, raw = asyncio.run(run(configured(password, base_url=server.url, lists=("cidr/ALL", "ip/SBL"))))
    assert told(reading) == TRUTH
    assert "limit=20" in spamhaus.asked[1]
    assert not any(secret in repr(raw) for secret in ("s3cret", "jwt.1"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lists": ("cidr/ALLES",)}, "feeds.spamhaus_sia.lists: found 'cidr/ALLES', wanted of cidr/ALL, cidr/XBL"),
        ({}, "feeds.spamhaus_sia.password: .*: empty; wanted the secret"),
    ],
)
def test_bad_settings(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    password = tmp_path / "password"
    password.write_text("\n")
    with pytest.raises(ConfigError, match=says):
        FEEDS["spamhaus-sia"].poll(configured(password, **settings), Scope((), ()), NOW)


@pytest.mark.parametrize("name", ["", "/nowhere/password"])
def test_no_password(name: str) -> None:
    with pytest.raises(ConfigError, match=r"feeds.spamhaus_sia.password: (not set|/nowhere/password: cannot be read)"):
        FEEDS["spamhaus-sia"].poll(
            Config(feeds=FeedsConfig(spamhaus_sia=SpamhausSiaConfig(password=name))), Scope((), ()), NOW
        )
