"""The web server: what it answers, and that rude clients hurt nobody."""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from starlette.routing import Mount, Router
from starlette.types import Receive, Scope, Send

from sidecar import web
from sidecar.config import ConfigError
from sidecar.web import Page
from sidecar.web_address import address


async def hello() -> Page:
    await asyncio.sleep(0)
    return Page(b"hello\n")


async def broken() -> Page:
    await asyncio.sleep(0)
    raise ZeroDivisionError("held / 0")


async def large() -> Page:
    await asyncio.sleep(0)
    return Page(b"x" * 5_000_000)


async def waits(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  # as the application is called
    """Begin an answer, and never end it."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    await asyncio.Event().wait()


ROUTES = {"/": hello, "/broken": broken, "/large": large}
Counts = Counter[tuple[str, int]]


def serving(talk: Callable[[int, Counts], Awaitable[None]]) -> None:
    """Run `talk` against a server at some port."""

    async def both() -> None:
        counts: Counts = Counter()
        app = web.watched(
            Router([*web.plain(ROUTES), Mount("/waits", waits)]),
            [*ROUTES, "/waits"],
            count=lambda path, status: counts.update([(path, status)]),
        )
        async with web.serve_web("127.0.0.1:0", app) as port, asyncio.timeout(60):
            await talk(port, counts)

    asyncio.run(both())


async def answer(port: int, request: bytes) -> bytes:
    """Everything that comes back for `request`, until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionResetError:  # it hung up without having read the request
        return b""
    finally:
        writer.close()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Everything until the other side hangs up."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize(
    ("request_", "status", "body", "counted"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"200 OK", b"hello\n", "/"),
        (b"GET / HTTP/1.0\r\n\r\n", b"200 OK", b"hello\n", "/"),
        (b"GET /?a=b HTTP/1.0\r\n\r\n", b"200 OK", b"hello\n", "/"),
        (b"HEAD / HTTP/1.0\r\n\r\n", b"200 OK", b"", "/"),
        (b"GET /no HTTP/1.0\r\n\r\n", b"404 Not Found", b"Not Found", "other"),
        (b"GET /broken/more HTTP/1.0\r\n\r\n", b"404 Not Found", b"Not Found", "/broken"),
        (b"POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n", b"405 Method Not Allowed", b"GET only\n", "/"),
        (b"GET /broken HTTP/1.0\r\n\r\n", b"500 Internal", b"failed; the log of sidecar outside", "/broken"),
        (b"request=smtpd_access_policy\r\n\r\n", b"400 Bad Request", b"Invalid HTTP request", ""),
        (b"GET / SPDY/1\r\n\r\n", b"400 Bad Request", b"Invalid HTTP request", ""),
        (b"\xff\x00\r\n\r\n", b"400 Bad Request", b"Invalid HTTP request", ""),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 60_000, b"400 Bad Request", b"Invalid HTTP request", ""),
    ],
)
def test_answer(request_: bytes, status: bytes, body: bytes, counted: str) -> None:
    async def talk(port: int, counts: Counts) -> None:
        head, rest = (await answer(port, request_)).split(b"\r\n\r\n", 1)

        assert head.startswith(b"HTTP/1.1 " + status)
        assert rest.startswith(body)
        assert (rest == b"") == (body == b"")
        assert counts == ({(counted, int(status[:3])): 1} if counted else {})
        if counted:
            assert {line.split(b":")[0] for line in head.split(b"\r\n")[1:]} >= {
                name.lower().encode() for name in web.HEADERS
            }

    serving(talk)


def test_the_policy_for_browsers_lets_nothing_in_from_elsewhere() -> None:
    policy = web.HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_several_requests_on_one_connection() -> None:
    async def talk(port: int, counts: Counts) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"hello\n")
        writer.close()
        assert counts == {("/", 200): 3}

    serving(talk)


def test_who_waits_for_the_next_request_for_too_long_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 0.05)

    async def talk(port: int, _: Counts) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"hello\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await reader.readexactly(1)
        writer.close()

    serving(talk)


def test_an_answer_under_way_may_take_longer_and_ends_with_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 0.05)
    left: list[bytes] = []

    async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left.append(await rest(reader))
        writer.close()

    async def talk() -> None:
        app = web.watched(Router([Mount("/waits", waits)]), (), count=lambda _path, _status: None)
        async with web.serve_web("127.0.0.1:0", app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /waits/ HTTP/1.0\r\n\r\n")
            await reader.readuntil(b"begun")
            listening = asyncio.create_task(listens(reader, writer))
            assert not (await asyncio.wait({listening}, timeout=0.3))[0]
        await listening

    asyncio.run(talk())
    assert left == [b""]


def test_a_long_answer_comes_whole() -> None:
    async def talk(port: int, _: Counts) -> None:
        head, body = (await answer(port, b"GET /large HTTP/1.0\r\n\r\n")).split(b"\r\n\r\n", 1)
        assert b"content-length: 5000000" in head
        assert len(body) == 5_000_000

    serving(talk)


def test_a_request_may_come_in_pieces() -> None:
    async def talk(port: int, _: Counts) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for byte in b"GET / HTTP/1.0\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await reader.read()).endswith(b"hello\n")
        writer.close()

    serving(talk)


def test_who_never_finishes_his_request_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_REQUEST_SECONDS", 0.05)

    async def talk(port: int, counts: Counts) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n")
        assert await rest(reader) == b""
        writer.close()
        assert counts == {}

    serving(talk)


async def sending_for_ever(client: socket.socket) -> None:
    """What is sent is answered with a reset once the other side has hung up: that is the event."""
    while True:
        await asyncio.get_running_loop().sock_sendall(client, b"x")
        await asyncio.sleep(0.01)


def test_who_never_takes_his_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_TAKE_SECONDS", 0.05)

    async def talk(port: int, _: Counts) -> None:
        loop = asyncio.get_running_loop()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        with client:
            await loop.sock_connect(client, ("127.0.0.1", port))
            await loop.sock_sendall(client, b"GET /large HTTP/1.0\r\n\r\n")
            with pytest.raises(ConnectionError):
                await sending_for_ever(client)

    serving(talk)


def test_a_crowd_of_silent_clients_leaves_the_server_alive() -> None:
    async def talk(port: int, _: Counts) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(80)]
        beyond = [reader for reader, _ in silent[70:]]
        assert [await rest(reader) for reader in beyond] == [b""] * 10
        for _reader, writer in silent[:64]:
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answers = [await reader.read() for reader, _writer in silent[:64]]
        assert all(reply.endswith(b"hello\n") for reply in answers)
        for _reader, writer in silent:
            writer.close()
        assert (await answer(port, b"GET / HTTP/1.0\r\n\r\n")).endswith(b"hello\n")

    serving(talk)


@pytest.mark.parametrize(
    ("listen", "at"),
    [
        ("127.0.0.1:8025", ("127.0.0.1", 8025)),
        ("[::1]:8025", ("::1", 8025)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),  # noqa: S104  # the admin may
    ],
)
def test_address(listen: str, at: tuple[str, int]) -> None:
    assert address(listen) == at


@pytest.mark.parametrize(
    "listen", ["", ":8025", "8025", "localhost:8025", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536"]
)
def test_what_is_no_address_is_refused(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"web.listen: found '.*', wanted ADDRESS:PORT, as 127.0.0.1:8025"):
        address(listen)


def test_a_port_in_use_is_a_configuration_error() -> None:
    async def talk(port: int, _: Counts) -> None:
        with pytest.raises(ConfigError, match=rf"web.listen: cannot listen on 127.0.0.1:{port}: .*choose another port"):
            async with web.serve_web(f"127.0.0.1:{port}", Router()):
                pass

    serving(talk)
