"""Asking the world: servers of our own that fail in every way, and what becomes of it."""

import asyncio
import gzip
import os
import stat
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from parsers.feeds.asking import Answer, Ask, DnsAnswer, DnsAsk, HttpAnswer, HttpAsk, Keep, Kept, Poll, Reading
from sidecar import asking, mx
from sidecar.asking import Asking, fetch, retry_after
from sidecar.outside_store import RawAnswer
from tests.outside_world import Request, Response, Zone, http_server, name_server


def asked(*asks: Ask, zone: Zone | None = None) -> tuple[list[Answer], list[RawAnswer], list[str]]:
    """The answers, what is kept of them, and what the name server was asked."""
    got: list[Answer] = []

    def feed() -> Poll:
        got.extend((yield asks))
        return Reading()

    async def run() -> tuple[list[RawAnswer], list[str]]:
        async with name_server(zone or {}) as (server, resolver):
            _, raw = await Asking(resolver, backoff=0.01).poll(feed())
            return raw, server.asked

    raw, questions = asyncio.run(run())
    return got, raw, questions


ZONE: Zone = {
    ("listed.example", "A"): ["127.0.0.2", "127.0.0.9"],
    ("listed.example", "TXT"): ['"two " "strings"'],
    ("nodata.example", "A"): [],
    ("servfail.example", "A"): "SERVFAIL",
    ("refused.example", "A"): "REFUSED",
    ("silent.example", "A"): "",
}


@pytest.mark.parametrize(
    ("ask", "rcode", "records"),
    [
        (DnsAsk("listed.example"), "NOERROR", ("127.0.0.2", "127.0.0.9")),
        (DnsAsk("LISTED.example."), "NOERROR", ("127.0.0.2", "127.0.0.9")),
        (DnsAsk("listed.example", "TXT"), "NOERROR", ("two strings",)),
        (DnsAsk("nodata.example"), "NOERROR", ()),
        (DnsAsk("nowhere.example"), "NXDOMAIN", ()),
        (DnsAsk("servfail.example"), "SERVFAIL", ()),
        (DnsAsk("refused.example"), "REFUSED", ()),
        (DnsAsk("silent.example"), "TIMEOUT", ()),
        (DnsAsk("a..b"), "ERROR", ()),
        (DnsAsk("x" * 64 + ".example"), "ERROR", ()),
    ],
)
def test_look_up(ask: DnsAsk, rcode: str, records: tuple[str, ...]) -> None:
    (answer,), _, _ = asked(ask, zone=ZONE)
    assert isinstance(answer, DnsAnswer)
    assert (answer.rcode, tuple(sorted(answer.records))) == (rcode, records)


class Odd(asyncio.DatagramProtocol):
    """Answers by UDP as `say` makes it of the query."""

    def __init__(self, say: Callable[[dns.message.QueryMessage], bytes]) -> None:
        self._say = say

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._transport.sendto(self._say(cast("dns.message.QueryMessage", dns.message.from_wire(data))), addr)


def reply(
    query: dns.message.QueryMessage, *, rcode: str = "NOERROR", records: Sequence[str] = ()
) -> dns.message.Message:
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(dns.rcode.from_text(rcode))
    for record in records:
        name, kind, data = record.split()
        response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, data))
    return response


def truncated(query: dns.message.QueryMessage, *, rcode: str = "NOERROR") -> bytes:
    response = reply(query, rcode=rcode)
    response.flags |= dns.flags.TC
    return response.to_wire()


def to_another_question(query: dns.message.QueryMessage) -> bytes:
    other = dns.message.make_query("other.example", "A", id=query.id)
    return reply(other, records=["other.example. A 127.0.0.2"]).to_wire()


ODD: dict[str, tuple[Callable[[dns.message.QueryMessage], bytes], bool, str, tuple[str, ...]]] = {
    "truncated, and whole by TCP": (truncated, True, "NOERROR", ("127.0.0.2",)),
    "truncated, and nobody there by TCP": (truncated, False, "TIMEOUT", ()),
    "a truncated no": (lambda query: truncated(query, rcode="NXDOMAIN"), False, "TIMEOUT", ()),
    "an answer to another question": (to_another_question, True, "TIMEOUT", ()),
    "rubbish": (lambda _: b"rubbish", True, "TIMEOUT", ()),
    "another name for it": (
        lambda query: reply(query, records=["a.example. CNAME b.example.", "b.example. A 127.0.0.4"]).to_wire(),
        True,
        "NOERROR",
        ("127.0.0.4",),
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_answers_by_udp(name: str) -> None:
    """None is ever taken for a no: that would clear a listing."""
    say, tcp, rcode, records = ODD[name]

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        query = cast("dns.message.QueryMessage", dns.message.from_wire(await reader.readexactly(length)))
        answer = reply(query, records=["a.example. A 127.0.0.2"]).to_wire()
        writer.write(struct.pack("!H", len(answer)) + answer)
        await writer.drain()
        writer.close()

    async def run() -> DnsAnswer:
        streams = await asyncio.start_server(whole, "127.0.0.1", 0)
        port = streams.sockets[0].getsockname()[1]
        if not tcp:
            streams.close()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: Odd(say), local_addr=("127.0.0.1", port))
        resolver = mx.resolver_at((f"127.0.0.1:{port}",))()
        resolver.lifetime = 0.5
        try:
            return await asking.look_up(DnsAsk("a.example"), resolver)
        finally:
            transport.close()
            streams.close()

    answer = asyncio.run(run())
    assert answer.records == records
    assert answer.rcode == rcode or (rcode == "TIMEOUT" and answer.rcode in {"ERROR", "SERVFAIL"})


def test_nobody_there_is_no_exception() -> None:
    resolver = mx.resolver_at(("127.0.0.1:9",))()
    resolver.lifetime = 0.3
    answer = asyncio.run(asking.look_up(DnsAsk("a.example"), resolver))
    assert answer.rcode in {"TIMEOUT", "ERROR"}


def test_a_search_list_is_never_tried() -> None:
    _, _, questions = asked(DnsAsk("nowhere"), zone=ZONE)
    assert questions == ["nowhere A"]


@pytest.mark.parametrize(
    ("answers", "tries", "status"),
    [
        ([200], 1, 200),
        ([503, 200], 2, 200),
        ([503, 503, 503, 200], 3, 503),
        ([429, 429, 200], 3, 200),
        ([400, 200], 1, 400),
        ([401, 200], 1, 401),
        ([302, 200], 1, 302),
        ([0, 200], 2, 200),
        ([0, 0, 0, 200], 3, 0),
    ],
)
def test_only_what_may_pass_is_tried_again(answers: list[int], tries: int, status: int) -> None:
    script = iter(answers)

    def answer(_: Request) -> Response | None:
        status = next(script)
        return Response(status, b"body") if status else None

    with http_server(answer) as server:
        (got,), _, _ = asked(HttpAsk(server.url))
    assert isinstance(got, HttpAnswer)
    assert (got.status, len(server.requests)) == (status, tries)
    assert bool(got.error) == (status == 0)


def test_a_long_wait_is_left_to_the_next_poll() -> None:
    with http_server(lambda _: Response(429, headers=(("Retry-After", "3600"),))) as server:
        (got,), _, _ = asked(HttpAsk(server.url))
    assert isinstance(got, HttpAnswer)
    assert len(server.requests) == 1
    assert retry_after(got, now=time.time()) == 3600


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("Sat, 21 Nov 2026 10:01:00 GMT", 60),
        ("Sat, 21 Nov 2020 10:01:00 GMT", 0),
        ("99999999999999999999", 999999999),
    ],
)
def test_retry_after(said: str, seconds: float) -> None:
    answer = HttpAnswer(429, (("retry-after", said),))
    assert retry_after(answer, now=1795255200.0) == seconds


BOMB = gzip.compress(bytes(64 << 20))


@pytest.mark.parametrize(
    "headers", [(("Content-Encoding", "gzip"),), (("Content-Encoding", "gzip"), ("Content-Type", "application/json"))]
)
def test_a_bomb_is_no_answer(headers: tuple[tuple[str, str], ...]) -> None:
    with http_server(lambda _: Response(200, BOMB, headers)) as server:
        got = fetch(HttpAsk(server.url))
    assert (got.status, got.error) == (0, "ValueError: an answer of more than 16 MiB")


def _drips(_: Request) -> Response:
    time.sleep(0.4)
    return Response(200, b"x")


def test_slowness_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "TOTAL_SECONDS", 0.1)
    with http_server(_drips) as server:
        assert fetch(HttpAsk(server.url)).status == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "nonsense", "http://[::bad/", "file:///etc/passwd"])
def test_no_server_no_exception(url: str) -> None:
    got = fetch(HttpAsk(url))
    assert got.status == 0
    assert got.error


def test_what_is_kept_of_an_answer_has_no_secrets() -> None:
    def answer(request: Request) -> Response:
        return Response(200, b"you are s3cret, from " + request.path.encode())

    with http_server(answer) as server:
        (got,), raw, _ = asked(HttpAsk(f"{server.url}/?key=s3cret", secrets=("s3cret",)))
    assert isinstance(got, HttpAnswer)
    assert b"s3cret" in got.body
    assert raw == [RawAnswer(f"GET {server.url}/?key=[secret] -> 200", b"you are [secret], from /?key=[secret]")]


def test_an_answer_that_brings_a_secret_is_not_kept() -> None:
    with http_server(lambda _: Response(200, b'{"access_token": "n3w"}')) as server:
        (got,), raw, _ = asked(HttpAsk(server.url, private=True))
    assert isinstance(got, HttpAnswer)
    assert b"n3w" in got.body
    assert raw == [RawAnswer(f"GET {server.url} -> 200", b"[secret]")]


def test_an_error_tells_no_secret() -> None:
    assert "s3cret" not in fetch(HttpAsk("http://127.0.0.1:9/?key=s3cret", secrets=("s3cret",))).error


def test_a_secret_is_kept_whole_and_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    (kept,), _, _ = asked(Keep(str(path), "new"))
    assert kept == Kept()
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [True, False])
def test_a_secret_that_root_keeps_stays_its_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, there: bool
) -> None:
    path = tmp_path / "token"
    if there:
        path.touch()
    owner = (path if there else tmp_path).stat()
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _, uid, gid: given.append((uid, gid)))
    assert asking.keep(Keep(str(path), "new")) == Kept()
    assert given == [(owner.st_uid, owner.st_gid)]


def test_a_secret_that_cannot_be_kept_says_so(tmp_path: Path) -> None:
    (kept,), _, _ = asked(Keep(str(tmp_path / "absent" / "token"), "new"))
    assert isinstance(kept, Kept)
    assert "No such file" in kept.error


def test_of_one_zone_only_a_few_are_asked_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way: list[int] = [0, 0]

    async def look_up(ask: DnsAsk, _: object) -> DnsAnswer:
        under_way[0] += 1
        under_way[1] = max(under_way)
        await asyncio.sleep(0)
        under_way[0] -= 1
        return DnsAnswer("NXDOMAIN", (ask.name,))

    monkeypatch.setattr(asking, "look_up", look_up)
    got, _, _ = asked(*(DnsAsk(f"{number}.zone.example", zone="zone.example") for number in range(40)))
    assert [answer.records for answer in got if isinstance(answer, DnsAnswer)] == [
        (f"{number}.zone.example",) for number in range(40)
    ]
    assert under_way[1] == asking.A_ZONE
