"""The policy service over real sockets: dialogs, and everything that has been seen to kill a policy server."""

import asyncio
import contextlib
import logging
import os
import re
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parsers.policy_protocol import Action, PolicyConnection, PolicyRequest, ProtocolError, encode
from policies.access import Access, Arrival, Parked
from policies.routing import Routing
from sidecar import policy_tally, policyd
from sidecar.policy_sockets import BACKLOG, Listener, Listening
from sidecar.policyd import PolicyServer, serve
from sidecar.systemd import Inherited
from tests.policy_world import KEY, World, access_in

DIALOGS = sorted((Path(__file__).parent / "policyd").glob("*.dialog"))
DUNNO = b"action=DUNNO\n\n"
HOLD = f"action=HOLD sidecar {KEY} (google/rate)\n\n".encode()

# A dialog: what smtpd sends after ">", what it must be answered after "<", "#" for words to people. \xNN is a byte.


def bytes_of(line: str) -> bytes:
    return re.sub(rb"\\x([0-9a-f]{2})", lambda code: bytes([int(code[1], 16)]), line[2:].encode()) + b"\n"


def turns(dialog: Path) -> list[tuple[bytes, bytes]]:
    """(asked, answered), in order."""
    found: list[tuple[bytes, bytes]] = []
    last = ""
    for line in dialog.read_text().splitlines():
        mark = line[:1]
        assert mark in {">", "<", "#"}, f"{dialog.name}: {line!r}"
        asked, answered = (b"", b"") if mark == ">" and last != ">" else (found[-1] if found else (b"", b""))
        if mark == ">" and last == ">":
            found[-1] = (asked + bytes_of(line), answered)
        elif mark == ">":
            found.append((bytes_of(line), b""))
        elif mark == "<":
            found[-1] = (asked, answered + bytes_of(line))
        last = mark if mark != "#" else last
    return found


@pytest.mark.parametrize("dialog", DIALOGS, ids=lambda dialog: dialog.stem)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_dialog_without_a_socket(dialog: Path, size: int) -> None:
    connection, access = PolicyConnection(), access_in()
    for asked, answered in turns(dialog):
        requests = [
            request for at in range(0, len(asked), size) for request in connection.receive_data(asked[at : at + size])
        ]
        replies = [encode(access.decide(request, "postfix", now=1e9).action) for request in requests]
        assert b"".join(replies) == answered


# The same, and worse, over sockets.


class Client:
    """As smtpd: asks and reads until the empty line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, asked: bytes) -> bytes:
        self.writer.write(asked)
        return await self.answer()

    async def answer(self) -> bytes:
        async with asyncio.timeout(60):
            return await self.reader.readuntil(b"\n\n")

    async def closed(self) -> bool:
        """Wait for the server to close."""
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read() == b""
            return True


class Service:
    def __init__(self, server: PolicyServer, path: Path) -> None:
        self.server = server
        self.path = path

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def until(self, true: Callable[[], bool]) -> None:
        """Let the loop run until something is so."""
        async with asyncio.timeout(60):
            while not true():  # noqa: ASYNC110  # what is waited for belongs to the server, which has no events for tests
                await asyncio.sleep(0)


def played(
    tmp_path: Path, story: Callable[[Service], Awaitable[None]], access: Access | None = None, **more: Any
) -> None:
    """Run a story with a server; at its end every connection must be gone and no error of the loop be left."""
    path = tmp_path / "policy"

    async def run() -> None:
        errors: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        server = await serve(access or access_in(), [Listener(f"unix:{path}")], **more)
        try:
            async with asyncio.timeout(60):
                await story(Service(server, path))
        finally:
            await server.close()
        assert server.figures().connections == 0
        assert not errors
        assert not path.exists()

    asyncio.run(run())


def request(**attributes: object) -> bytes:
    lines = {"request": "smtpd_access_policy"} | attributes
    return "".join(f"{name}={value}\n" for name, value in lines.items()).encode() + b"\n"


RCPT = request(protocol_state="RCPT", instance=1, sender="news@shop.example", recipient="a@gmail.com")
END = request(
    protocol_state="END-OF-MESSAGE", instance=1, sender="news@shop.example", recipient_count=2, queue_id="4SZv1"
)
ONE = request(
    protocol_state="END-OF-MESSAGE",
    instance=1,
    sender="news@shop.example",
    recipient="a@gmail.com",
    recipient_count=1,
    queue_id="4SZv1",
)


@pytest.mark.parametrize("dialog", DIALOGS, ids=lambda dialog: dialog.stem)
@pytest.mark.parametrize("size", [7, 4096])
def test_dialog_over_a_socket(dialog: Path, size: int, tmp_path: Path) -> None:
    async def story(service: Service) -> None:
        async with service.client() as client:
            for asked, answered in turns(dialog):
                for at in range(0, len(asked), size):
                    client.writer.write(asked[at : at + size])
                    await client.writer.drain()
                    await asyncio.sleep(0)
                assert await client.answer() == answered

    played(tmp_path, story)


def test_requests_in_one_segment_are_answered_in_order(tmp_path: Path) -> None:
    async def story(service: Service) -> None:
        async with service.client() as client:
            client.writer.write(RCPT + ONE + RCPT)
            assert [await client.answer() for _ in range(3)] == [DUNNO, HOLD, DUNNO]

    played(tmp_path, story)


def test_a_client_that_has_said_all_still_gets_its_answer(tmp_path: Path) -> None:
    """`nc -N`, as the README suggests for trying a policy server out."""

    async def story(service: Service) -> None:
        async with service.client() as client:
            client.writer.write(ONE)
            client.writer.write_eof()
            assert await client.reader.read() == HOLD

    played(tmp_path, story)


@pytest.mark.parametrize("breach", [b"GET / HTTP/1.1\n\n", b"\n", b"request=other\n\n", b"\x00" * 70_000])
def test_bytes_that_make_no_sense_close_that_connection(breach: bytes, tmp_path: Path) -> None:
    async def story(service: Service) -> None:
        async with service.client() as client, service.client() as other:
            assert await other.ask(RCPT) == DUNNO
            client.writer.write(RCPT + breach)
            assert await client.answer() == DUNNO
            assert await client.closed()
            assert await other.ask(RCPT) == DUNNO
        assert service.server.figures().closed == {"protocol": 1}

    played(tmp_path, story)


def test_64_megabytes_of_garbage_are_not_read(tmp_path: Path) -> None:
    async def story(service: Service) -> None:
        async with service.client() as client, service.client() as other:
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 64:
                    client.writer.write(b"x" * 1024 * 1024)
                    await client.writer.drain()
                    sent += 1
            assert sent < 4
            assert await other.ask(RCPT) == DUNNO

    played(tmp_path, story)


def test_a_request_that_does_not_end_is_given_up_and_silence_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policyd, "REQUEST_SECONDS", 0.1)

    async def story(service: Service) -> None:
        async with service.client() as slow, service.client() as silent, service.client() as again:
            assert await silent.ask(RCPT) == DUNNO
            assert await again.ask(RCPT + RCPT[:9]) == DUNNO
            assert await again.ask(RCPT[9:]) == DUNNO
            slow.writer.write(RCPT[:-1])
            assert await slow.closed()
            assert service.server.figures().closed == {"slow": 1}
            assert await silent.ask(RCPT) == DUNNO
            assert await again.ask(RCPT) == DUNNO

    played(tmp_path, story)


def test_a_request_that_drips_does_not_gain_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policyd, "REQUEST_SECONDS", 0.1)

    async def story(service: Service) -> None:
        async with service.client() as client:
            closed = asyncio.create_task(client.closed())
            drip = RCPT * 1000
            while not closed.done():
                client.writer.write(drip[:1])
                drip = drip[1:] if drip[1:2] != b"\n" else drip[:1] + drip[2:]
                await asyncio.sleep(0.001)
            assert service.server.figures().closed == {"slow": 1}

    played(tmp_path, story)


def test_clients_that_never_read(tmp_path: Path) -> None:
    async def story(service: Service) -> None:
        async with service.client() as other:
            with socket.socket(socket.AF_UNIX) as deaf:
                deaf.connect(str(service.path))
                deaf.setblocking(False)
                at, sent = 0, 0
                while sent < 50_000_000 and "unread" not in service.server.figures().closed:
                    with contextlib.suppress(BlockingIOError, ConnectionError):
                        sent += deaf.send((RCPT * 30)[at : at + len(RCPT) * 20 + 7])
                        at = sent % len(RCPT)
                    await asyncio.sleep(0)
                assert await other.ask(RCPT) == DUNNO
                assert service.server.figures().closed == {"unread": 1}
                assert not service.server._partial, "nobody waits for the rest of a request on a closed connection"

    played(tmp_path, story)


@pytest.mark.parametrize("says_it_is_done", [False, True])
def test_one_that_reads_late_gets_everything(says_it_is_done: bool, tmp_path: Path) -> None:  # noqa: FBT001  # a parameter
    """More answers than the socket takes at once wait for the client, in order."""

    async def story(service: Service) -> None:
        loop, server = asyncio.get_running_loop(), service.server
        with socket.socket(socket.AF_UNIX) as late:
            late.connect(str(service.path))
            late.setblocking(False)
            asked = 0
            while not any(len(connection._unsent) > 20_000 for connection in server._connections.values()):
                late.send(RCPT + ONE)
                asked += 2
                await service.until(lambda: sum(server.figures().requests.values()) == asked)  # noqa: B023  # awaited
            if says_it_is_done:
                late.shutdown(socket.SHUT_WR)
            for _ in range(10):
                await asyncio.sleep(0)  # the server hears of it, and still has to wait
            assert not server._epoll.poll(0), "it waits for the client, and is not called for anything else"
            received = b""
            while received.count(b"\n\n") < asked:
                received += await asyncio.wait_for(loop.sock_recv(late, 65_536), 60)
            assert received == (DUNNO + HOLD) * (asked // 2)
            assert not server._epoll.poll(0), "nothing is left to do, and it is not called for more"
            if says_it_is_done:
                assert await loop.sock_recv(late, 1) == b""
            else:
                late.send(RCPT)
                assert await asyncio.wait_for(loop.sock_recv(late, 100), 60) == DUNNO

    played(tmp_path, story)


def test_clients_that_ask_and_hang_up(tmp_path: Path) -> None:
    async def story(service: Service) -> None:
        async with service.client() as other:
            for _ in range(10):
                for _ in range(100):
                    with socket.socket(socket.AF_UNIX) as rude:
                        rude.connect(str(service.path))
                        rude.send(RCPT)
                assert await other.ask(RCPT) == DUNNO
            await service.until(lambda: service.server.figures().accepted == 1001)
            await service.until(lambda: service.server.figures().connections == 1)

    played(tmp_path, story)


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 8192:
        resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, max(hard, 8192)))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, 8192)))


@pytest.mark.usefixtures("many_files")
def test_1500_connections_at_once(tmp_path: Path) -> None:
    """All connect before one is accepted: with a shorter backlog connect() would say EAGAIN."""

    async def story(service: Service) -> None:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(1500)]
            for client in clients:
                client.setblocking(False)
                client.connect(str(service.path))
            for client in clients:
                client.send(RCPT)
            loop = asyncio.get_running_loop()
            for client in clients:
                assert await loop.sock_recv(client, 100) == DUNNO
            assert service.server.figures().connections == 1500
        await service.until(lambda: not service.server.figures().connections)

    backlog = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert min(backlog, BACKLOG) > 1500
    played(tmp_path, story)


def test_beyond_the_cap_the_old_ones_are_served(tmp_path: Path) -> None:
    async def story(service: Service) -> None:
        async with service.client() as one, service.client() as two:
            assert await one.ask(RCPT) == await two.ask(RCPT) == DUNNO
            async with service.client() as third:
                assert await third.closed()
            assert await one.ask(RCPT) == await two.ask(RCPT) == DUNNO
            assert service.server.figures().closed == {"full": 1}
        await service.until(lambda: not service.server.figures().connections)
        async with service.client() as fourth:
            assert await fourth.ask(RCPT) == DUNNO

    played(tmp_path, story, max_connections=2)


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)


def test_no_file_descriptor_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is lost, nothing spins: accept() is tried again after a while, and whoever waited is served."""
    monkeypatch.setattr(policyd, "_LOOK_AWAY", 0.05)
    tried = []
    accept = PolicyServer._accept

    def counted(server: PolicyServer, listening: Listening) -> None:
        tried.append(listening)
        accept(server, listening)

    monkeypatch.setattr(PolicyServer, "_accept", counted)

    async def story(service: Service) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3)]
            async with service.client() as old:
                assert await old.ask(RCPT) == DUNNO
                with no_descriptor_left():
                    for client in waiting:
                        client.setblocking(False)
                        client.connect(str(service.path))
                        client.send(RCPT)
                    for _ in range(200):
                        assert await old.ask(RCPT) == DUNNO
                    assert service.server.figures().accepted == 1
                    assert len(tried) < 50, "200 rounds of the loop, and the listening socket was ready all the time"
                for client in waiting:
                    assert await asyncio.wait_for(loop.sock_recv(client, 100), 60) == DUNNO
        messages = {record.getMessage() for record in caplog.records}
        assert messages == {"policy: cannot accept connections: Too many open files"}
        assert len(caplog.records) == 1

    played(tmp_path, story)


class Broken(World):
    """Fails in the middle of a decision."""

    def arriving(self, *_: object, **__: object) -> None:
        raise KeyError("a bug")


def test_any_error_of_ours_is_dunno(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(service: Service) -> None:
        async with service.client() as client:
            for _ in range(5):
                assert await client.ask(ONE) == DUNNO
        figures = service.server.figures()
        assert figures.fail_open == {"KeyError": 5}
        assert figures.actions == {"DUNNO": 5}
        (line,) = caplog.records
        assert "answered DUNNO for an error of ours: KeyError('a bug')" in line.getMessage()
        assert line.exc_info, "once in a while, but then with its traceback"

    played(tmp_path, story, access_in(Broken()))


def test_a_decision_that_cannot_be_written_is_dunno(tmp_path: Path) -> None:
    class Wordy(World):
        def arriving(self, *arguments: Any, **named: Any) -> Any:
            parked = super().arriving(*arguments, **named)
            assert parked
            return parked._replace(key="sender-domain:" + "x" * 400 + "@google")

    async def story(service: Service) -> None:
        async with service.client() as client:
            assert await client.ask(ONE) == DUNNO
        assert service.server.figures().fail_open == {"ValueError": 1}

    played(tmp_path, story, access_in(Wordy()))


def test_our_log_has_one_line_an_action_with_the_queue_id_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar.policyd")
    routed = ONE.replace(b"gmail.com", b"yahoo.com").replace(b"instance=1", b"instance=2").replace(b"4SZv1", b"4SZv2")

    async def story(service: Service) -> None:
        async with service.client() as client:
            assert await client.ask(RCPT) == DUNNO
            assert await client.ask(ONE) == HOLD
            assert await client.ask(routed) == b"action=FILTER lane-02:\n\n"
        assert not caplog.records, "written later, off the path of an answer"

    played(tmp_path, story)
    held = f"4SZv1: HOLD sidecar {KEY} (google/rate): paused, 3 waiting"
    assert [record.getMessage() for record in caplog.records] == [held], "Postfix logs FILTER itself"


def test_a_flood_of_lines_is_cut_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_tally, "_LINES_MAX", 3)

    async def story(service: Service) -> None:
        async with service.client() as client:
            for _ in range(5):
                assert await client.ask(ONE) == HOLD
        assert service.server.figures().lines_dropped == 2

    played(tmp_path, story)


def test_figures(tmp_path: Path) -> None:
    async def story(service: Service) -> None:
        async with service.client() as client:
            for asked in (
                RCPT,
                RCPT,
                ONE,
                ONE,
                ONE.replace(b"END-OF-MESSAGE", b"NEWS"),
                RCPT.replace(b"RCPT", b"DATA"),
            ):
                await client.ask(asked)
            figures = service.server.figures()
        assert {state: count for state, count in figures.requests.items() if count} == {
            "RCPT": 2,
            "END-OF-MESSAGE": 2,
            "DATA": 1,
            "other": 1,
        }
        assert figures.actions == {"HOLD": 2, "DUNNO": 4}
        assert figures.observed == 0
        assert sum(figures.latency) == 6
        assert 0 < figures.latency_sum < 6
        assert (figures.connections, figures.accepted) == (1, 1)

    played(tmp_path, story)


def test_every_action_has_a_word_to_be_counted_under() -> None:
    assert set(policy_tally._WORDS) == set(get_args(Action))


def test_observing_is_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar.policyd")

    async def story(service: Service) -> None:
        async with service.client() as client:
            assert await client.ask(ONE) == DUNNO
        figures = service.server.figures()
        assert (figures.actions, figures.observed) == ({"DUNNO": 1}, 1)

    played(tmp_path, story, access_in(act=False))
    (line,) = caplog.records
    assert line.getMessage().startswith("4SZv1: DUNNO: observing; would answer HOLD")


def test_another_instance_on_a_connection_ends_the_message_before_it(tmp_path: Path) -> None:
    access = access_in()

    async def story(service: Service) -> None:
        async with service.client() as client, service.client() as other:
            for instance in range(50):
                await client.ask(RCPT.replace(b"instance=1", f"instance={instance}".encode()))
            assert access.remembered == 1
            assert await client.ask(RCPT.replace(b"instance=1", b"instance=")) == DUNNO
            assert access.remembered == 1, "a question without one says nothing"
            await other.ask(RCPT.replace(b"instance=1", b"instance=other"))
            assert access.remembered == 2, "another smtpd has its own"

    played(tmp_path, story, access)


def test_a_question_asked_again_on_another_connection(tmp_path: Path) -> None:
    """smtpd lost the first one: what it asked there is still known, and nothing is counted twice."""
    world = World()

    async def story(service: Service) -> None:
        async with service.client() as client:
            await client.ask(RCPT)
            await client.ask(RCPT.replace(b"a@", b"b@"))
            assert await client.ask(END) == HOLD
        async with service.client() as client:
            assert await client.ask(END) == HOLD
        assert len(world.arrivals) == 1

    played(tmp_path, story, access_in(world))


def test_over_tcp(tmp_path: Path) -> None:
    async def run() -> None:
        server = await serve(access_in(), [Listener("inet:127.0.0.1:0"), Listener(f"unix:{tmp_path}/policy")])
        tcp, path = server.addresses()
        assert path == f"{tmp_path}/policy"
        assert isinstance(tcp, tuple)
        reader, writer = await asyncio.open_connection(*tcp)
        assert await Client(reader, writer).ask(ONE) == HOLD
        (connection,) = server._connections.values()
        assert connection._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        await server.close()

    asyncio.run(run())


async def ask_like_smtpd(path: Path, asked: bytes, *, tries: int = 2) -> bytes:
    """Ask, and once more on a new connection where the first one broke (smtpd sleeps a second before that)."""
    for _ in range(tries):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return await Client(reader, writer).ask(asked)
            finally:
                writer.close()
    return b"default_action"


def test_a_restart_with_the_socket_kept_open_loses_no_question(tmp_path: Path) -> None:
    """As under systemd: the listening socket stays, the server behind it is another."""
    path = tmp_path / "policy"
    world = World()

    async def run() -> None:
        with socket.socket(socket.AF_UNIX) as kept:
            kept.bind(str(path))
            kept.listen(BACKLOG)

            async def start() -> PolicyServer:
                passed = [Inherited("policy", kept.dup())]
                return await serve(access_in(world), [Listener(f"unix:{path}")], inherited=passed)

            server = await start()
            questions = [
                asyncio.create_task(ask_like_smtpd(path, ONE.replace(b"4SZv1", b"4S%d" % i))) for i in range(200)
            ]
            await asyncio.wait(questions, return_when=asyncio.FIRST_COMPLETED)
            await server.close()
            assert path.exists(), "an inherited socket is not ours to remove"
            questions += [asyncio.create_task(ask_like_smtpd(path, ONE)) for _ in range(50)]
            await asyncio.sleep(0)
            server = await start()
            assert {await question for question in questions} == {HOLD}
            await server.close()

    asyncio.run(run())


ODDITIES = st.one_of(
    st.sampled_from([RCPT, ONE, END, RCPT[:-1], b"\n", b"\r\n", b"\x00", b"=", b"request=", b"request=other\n\n"]),
    st.binary(max_size=40),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(ODDITIES, max_size=8))
def test_whatever_is_sent_the_reply_is_valid_or_there_is_none(pieces: list[bytes]) -> None:
    async def run() -> tuple[bytes, dict[str, int]]:
        errors: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        server = PolicyServer(access_in())
        client, accepted = socket.socketpair(socket.AF_UNIX)
        with client:
            server.take(accepted, "postfix")
            for piece in pieces:
                with contextlib.suppress(BrokenPipeError):
                    client.send(piece)
                await asyncio.sleep(0)
            client.shutdown(socket.SHUT_WR)
            client.setblocking(False)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := await loop.sock_recv(client, 65_536):
                    received += piece
        await server.close()
        assert not errors
        return received, dict(server.figures().requests)

    received, requests = asyncio.run(run())
    assert re.fullmatch(rb"(?:action=(?:DUNNO|HOLD sidecar \S+ \(\S+\))\n\n)*", received)
    wanted = expected(pieces)
    assert sum(requests.values()) == len(wanted)
    assert received.count(b"\n\n") <= len(wanted), "fewer only where the connection was reset before all was read"


def expected(pieces: list[bytes]) -> list[PolicyRequest]:
    try:
        return PolicyConnection().receive_data(b"".join(pieces))
    except ProtocolError as error:
        return error.requests


def test_an_error_on_one_connection_is_not_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class BreaksOnce(dict[str, int]):
        def __getitem__(self, state: str) -> int:
            counted.append(state)
            if len(counted) == 1:
                raise RuntimeError(state)
            return 0

    counted: list[str] = []

    async def story(service: Service) -> None:
        async with service.client() as client, service.client() as other:
            assert await client.ask(RCPT) == await other.ask(RCPT) == DUNNO
            service.server._requests = BreaksOnce()
            client.writer.write(RCPT)
            assert await client.closed()
            assert await other.ask(RCPT) == DUNNO
        assert service.server.figures().closed == {"error": 1}
        assert "closed a connection: an error of ours: RuntimeError('RCPT')" in caplog.text

    played(tmp_path, story)


def test_an_error_while_one_answer_is_sent_keeps_back_no_other(tmp_path: Path) -> None:
    class Broken(socket.socket):
        def send(self, *_: Any) -> int:
            raise RuntimeError("nobody thought of this")

    async def story(service: Service) -> None:
        async with service.client() as one, service.client() as other:
            assert await one.ask(RCPT) == await other.ask(RCPT) == DUNNO
            first = next(iter(service.server._connections.values()))
            first._socket = Broken(fileno=first._socket.detach())
            for client in (one, other):  # both before the server has its turn: it serves them together
                client.writer.write(RCPT)
            answers = sorted([await one.reader.read(1000), await other.reader.read(1000)])
            assert answers == [b"", DUNNO]
        assert service.server.figures().closed == {"error": 1}

    played(tmp_path, story)


def test_another_access_may_take_over(tmp_path: Path) -> None:
    """A reload closes no connection."""

    class Other(World):
        def arriving(self, arrival: Arrival, *, now: float) -> Parked | None:
            assert arrival.queue_id
            assert now
            raise OSError

    async def story(service: Service) -> None:
        async with service.client() as client:
            assert await client.ask(ONE) == HOLD
            service.server.access = Access(Other(), routing=Routing(()), milters_quarantine=False, act=True, wiring={})
            assert await client.ask(ONE) == DUNNO
            assert service.server.figures().fail_open == {"OSError": 1}

    played(tmp_path, story)
