"""The control socket: what is asked, what is answered, what goes wrong on the way."""

import asyncio
import json
import socket
import stat
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar import control
from sidecar.config import ConfigError

MANY = [{"key": f"dkim-domain:d{number}.example@google", "held": number} for number in range(1001)]


async def later(_: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return {"when": "later"}


def refused(request: dict[str, Any]) -> dict[str, Any]:
    raise ValueError(f"no such sub-queue: {request['key']}")


def broken(_: dict[str, Any]) -> dict[str, Any]:
    raise ZeroDivisionError("held / 0")


COMMANDS: dict[str, control.Handler] = {
    "health": lambda _: {"pid": 1},
    "later": later,
    "echo": lambda request: {"request": request},
    "many": lambda _: {"changes": MANY, "end": True},
    "infinite": lambda _: {"budget_per_s": float("inf")},
    "no": lambda _: {"ok": False, "error": "not today"},
    "refused": refused,
    "broken": broken,
    "unspeakable": lambda _: {"set": {1, 2}},
}


def talking(
    path: Path, talk: Callable[[Path, Counter[str]], Awaitable[None]], commands: dict[str, control.Handler] = COMMANDS
) -> None:
    """Run `talk` against a served socket."""

    async def both() -> None:
        failures: Counter[str] = Counter()
        server = await control.serve_control(path, commands, failures=failures)
        try:
            async with asyncio.timeout(60):
                await talk(path, failures)
        finally:
            server.close()
            await server.wait_closed()

    asyncio.run(both())


async def lines_answered(path: Path, *lines: bytes) -> list[Any]:
    """What comes back for `lines`, sent on one connection, until the server has answered each or closed."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
    writer.writelines(lines)
    answers = [await reader.readline() for _ in lines]
    writer.close()
    return [json.loads(answer) for answer in answers if answer]


@pytest.mark.parametrize(
    ("request_line", "answer"),
    [
        ('{"command": "health"}', {"ok": True, "pid": 1}),
        ('{"command": "later"}', {"ok": True, "when": "later"}),
        ('{"command": "echo", "key": "a\\udc80@b"}', {"ok": True, "request": {"command": "echo", "key": "a\udc80@b"}}),
        ('{"command": "many"}', {"ok": True, "changes": MANY, "end": True}),
        ('{"command": "no"}', {"ok": False, "error": "not today"}),
        ('{"command": "refused", "key": "x:y@z"}', {"ok": False, "error": "no such sub-queue: x:y@z"}),
        ('{"command": "broken"}', {"ok": False, "error": "ZeroDivisionError: held / 0"}),
        (
            '{"command": "unspeakable"}',
            {"ok": False, "error": "TypeError: Object of type set is not JSON serializable"},
        ),
    ],
)
def test_answer(tmp_path: Path, request_line: str, answer: Any) -> None:
    async def talk(path: Path, _: Counter[str]) -> None:
        assert await lines_answered(path, request_line.encode() + b"\n") == [answer]

    talking(tmp_path / "control", talk)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"\n", "not JSON"),
        (b"status\n", "not JSON"),
        (b'{"command": "health"\n', "not JSON"),
        (b'\xff{"command": "health"}\n', "not JSON"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b"17\n", 'found None for "command", wanted one of health, later'),
        (b"[]\n", "found None"),
        (b"{}\n", "found None"),
        (b'{"command": ["health"]}\n', "found ['health']"),
        (b'{"command": "helth"}\n', "found 'helth' for \"command\", wanted one of health, later"),
    ],
)
def test_rubbish_is_answered_and_the_connection_goes_on(tmp_path: Path, line: bytes, says: str) -> None:
    async def talk(path: Path, failures: Counter[str]) -> None:
        bad, good = await lines_answered(path, line, b'{"command": "health"}\n')

        assert bad["ok"] is False
        assert says in bad["error"]
        assert good == {"ok": True, "pid": 1}
        assert failures == {"": 1}

    talking(tmp_path / "control", talk)


def test_failures_are_counted_by_command(tmp_path: Path) -> None:
    async def talk(path: Path, failures: Counter[str]) -> None:
        lines = [b'{"command": "broken"}\n', b'{"command": "refused", "key": ""}\n', b'{"command": "broken"}\n']
        await lines_answered(path, *lines)

        assert failures == {"broken": 2, "refused": 1}

    talking(tmp_path / "control", talk)


def test_a_line_that_is_too_long_is_refused_and_ends_only_its_connection(tmp_path: Path) -> None:
    async def talk(path: Path, failures: Counter[str]) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"command": "' + b"x" * (control.LINE_MAX + 1))
        answer = json.loads(await reader.readline())
        writer.close()

        assert answer == {"ok": False, "error": f"line longer than {control.LINE_MAX} bytes"}
        assert failures == {"": 1}
        assert await lines_answered(path, b'{"command": "health"}\n') == [{"ok": True, "pid": 1}]

    talking(tmp_path / "control", talk)


def test_a_line_may_come_in_pieces_and_a_connection_may_end_within_one(tmp_path: Path) -> None:
    async def talk(path: Path, failures: Counter[str]) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        for byte in b'{"command": "health"}\n{"comm':
            writer.write(bytes([byte]))
            await writer.drain()
        assert json.loads(await reader.readline()) == {"ok": True, "pid": 1}
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert failures == {}

    talking(tmp_path / "control", talk)


def test_too_many_connections_are_told_so(tmp_path: Path) -> None:
    async def talk(path: Path, _: Counter[str]) -> None:
        held = [await asyncio.open_unix_connection(path) for _ in range(50)]
        for reader, writer in held:  # answered: so the server has them all
            writer.write(b'{"command": "health"}\n')
            await reader.readline()
        with pytest.raises(control.CoreRefused, match="more than 50 connections"):
            await control.ask_core_async(path, {"command": "health"})
        for _reader, writer in held:
            writer.close()
            await writer.wait_closed()

    talking(tmp_path / "control", talk)


def test_while_a_long_answer_is_encoded_others_are_served(tmp_path: Path) -> None:
    order: list[str] = []

    def long(_: dict[str, Any]) -> dict[str, Any]:
        asyncio.get_running_loop().call_soon(lambda: order.append("somebody else"))
        return {"changes": MANY}

    async def talk(path: Path, _: Counter[str]) -> None:
        await control.ask_core_async(path, {"command": "long"})
        order.append("answered")
        assert order == ["somebody else", "answered"]

    talking(tmp_path / "control", talk, {"long": long})


def test_only_owner_and_group_may_talk(tmp_path: Path) -> None:
    async def talk(_path: Path, _: Counter[str]) -> None:
        pass  # the socket stays behind for the next start to replace

    talking(tmp_path / "control", talk)
    assert stat.S_IMODE((tmp_path / "control").stat().st_mode) == 0o660


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    async def talk(path: Path, _: Counter[str]) -> None:
        assert (await control.ask_core_async(path, {"command": "health"}))["pid"] == 1

    talking(path, talk)


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    async def talk(path: Path, _: Counter[str]) -> None:
        with pytest.raises(ConfigError, match="socket in use: another sidecar runs"):
            await control.serve_control(path, COMMANDS)
        assert (await control.ask_core_async(path, {"command": "health"}))["pid"] == 1

    talking(tmp_path / "control", talk)


def test_a_socket_with_a_full_backlog_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(ConfigError, match="socket in use"):
            control.unlink_stale(path)


def test_what_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "control"
    path.write_text("mine")

    with pytest.raises(ConfigError, match="is not a socket"):
        control.unlink_stale(path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("place", ["missing/control", "x" * 200])
def test_a_place_where_no_socket_can_be_says_so(tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match=rf"{place}: .*(cannot be made|too long).*"):
        asyncio.run(control.serve_control(tmp_path / place, COMMANDS))


@contextmanager
def somebody(path: Path, says: bytes, *, hangs: bool = False) -> Iterator[None]:
    """Somebody who is not core: takes one connection, says something, and hangs up unless he `hangs`."""
    done = threading.Event()

    def listen() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(says)
            if hangs:
                done.wait()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=listen)
        thread.start()
        yield
        done.set()
        thread.join()


def sync_client(path: Path, timeout: float) -> dict[str, Any]:
    return control.ask_core(path, {"command": "health"}, timeout=timeout)


def async_client(path: Path, timeout: float) -> dict[str, Any]:
    return asyncio.run(control.ask_core_async(path, {"command": "health"}, timeout=timeout))


CLIENTS = pytest.mark.parametrize("client", [sync_client, async_client])
Client = Callable[[Path, float], dict[str, Any]]


@CLIENTS
@pytest.mark.parametrize(
    ("says", "hangs", "why"),
    [
        (b"", False, "closed the connection without an answer"),
        (b'{"ok": true', False, "closed the connection without an answer"),
        (b"220 mail.example ESMTP\n", False, "what answers there is not core"),
        (b"[]\n", False, "what answers there is not core"),
        (b'{"ok": tr', True, "no answer from core within 0.2 s"),
    ],
)
def test_what_is_not_core_is_not_believed(tmp_path: Path, client: Client, says: bytes, hangs: bool, why: str) -> None:  # noqa: FBT001  # a column of the table
    path = tmp_path / "control"
    with somebody(path, says, hangs=hangs), pytest.raises(control.CoreUnreachable, match=why):
        client(path, 0.2 if hangs else 5)


@CLIENTS
def test_nobody_there(tmp_path: Path, client: Client) -> None:
    with pytest.raises(control.CoreUnreachable, match="core does not run here"):
        client(tmp_path / "control", 5)


@CLIENTS
def test_an_answer_and_a_refusal(tmp_path: Path, client: Client) -> None:
    path = tmp_path / "control"
    with somebody(path, b'{"ok": true, "budget_per_s": Infinity, "lag": NaN}\n'):
        assert client(path, 5) == {"ok": True, "budget_per_s": None, "lag": None}
    path.unlink()
    with somebody(path, b'{"ok": false, "error": "no"}\n'), pytest.raises(control.CoreRefused, match=r"^no$"):
        client(path, 5)


def test_infinity_reaches_the_asker_as_none(tmp_path: Path) -> None:
    async def talk(path: Path, _: Counter[str]) -> None:
        assert (await control.ask_core_async(path, {"command": "infinite"}))["budget_per_s"] is None

    talking(tmp_path / "control", talk)
