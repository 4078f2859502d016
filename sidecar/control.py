"""The control socket of core: one JSON object a line in, one a line out, several on a connection.

Knows how commands travel and how they fail; what a command does is its handler's business.
"""

import asyncio
import functools
import inspect
import json
import socket
import stat
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sidecar import own_log
from sidecar.config import ConfigError

Handler = Callable[[dict[str, Any]], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
"""Takes the whole request, gives the answer; "ok" is added. Raises ValueError to refuse, with the reason."""

LINE_MAX = 1 << 20
"""Bytes in a request; the largest, a batch of MX answers, has a tenth of it."""
_ANSWER_MAX = 256 << 20  # bytes; a status of 100,000 sub-queues has about 30 MB
_IDLE_MAX = 300.0  # seconds without a request, or without taking the answer
# Every connection is a file descriptor that the policy sockets of the same process may need.
_CONNECTIONS_MAX = 50
# Encoding 10,000 sub-queues in one go takes some 50 ms, and Postfix would wait that long.
_SLICE = 200


class CoreUnreachable(Exception):  # noqa: N818  # named for the situation, as are exit statuses
    """Nobody answers on the control socket; the message says what to look at."""


class CoreRefused(Exception):  # noqa: N818  # as above
    """Core answered that it will not; the message is core's."""


async def serve_control(
    path: Path, commands: Mapping[str, Handler], *, failures: Counter[str] | None = None
) -> asyncio.Server:
    """Serve `commands` on a unix socket at `path`, mode 0660; a stale socket there is replaced.

    A failing handler is answered {"ok": false, "error"} and counted in `failures` by command ("" for lines that
    are no command). Raises ConfigError when the socket is in use or cannot be made.
    """
    failures = Counter() if failures is None else failures
    open_now: set[asyncio.StreamWriter] = set()
    talk = functools.partial(_talk, commands=commands, failures=failures, open_now=open_now)
    return await asyncio.start_unix_server(talk, sock=_bound(path), limit=LINE_MAX)


def _bound(path: Path) -> socket.socket:
    unlink_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o660)  # before listen(): until then nobody can connect
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(f"{path}: cannot be made: {error.strerror or error}; see runtime_directory") from error
    return listener


def unlink_stale(path: Path) -> None:
    """Remove a unix socket that nobody listens on any more.

    Raises ConfigError when somebody does, or when something else has that name.
    """
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"{path}: is not a socket; move it away or choose another place")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog means that somebody listens, too
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror or error}") from error
    raise ConfigError(f"{path}: socket in use: another sidecar runs; stop it or choose another place")


async def _talk(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    commands: Mapping[str, Handler],
    failures: Counter[str],
    open_now: set[asyncio.StreamWriter],
) -> None:
    """Answer one connection's lines until it ends."""
    open_now.add(writer)
    try:
        if len(open_now) > _CONNECTIONS_MAX:
            await _send(writer, _refusal(f"more than {_CONNECTIONS_MAX} connections"))
            return
        while (line := await _line(reader)) is not None:
            await _send(writer, await _answered(line, commands, failures))
    except asyncio.LimitOverrunError:
        failures[""] += 1
        await _send(writer, _refusal(f"line longer than {LINE_MAX} bytes"))
    except (ConnectionError, asyncio.CancelledError):
        pass  # gone; or core stops, and asyncio would log a cancelled connection as an error (3.11)
    except TimeoutError:
        writer.transport.abort()  # neither asks nor takes what it asked for
    finally:
        open_now.discard(writer)
        writer.close()


async def _line(reader: asyncio.StreamReader) -> bytes | None:
    try:
        async with asyncio.timeout(_IDLE_MAX):
            return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return None


async def _send(writer: asyncio.StreamWriter, answer: list[str]) -> None:
    async with asyncio.timeout(_IDLE_MAX):
        for piece in answer:
            writer.write(piece.encode())
            await writer.drain()


async def _answered(line: bytes, commands: Mapping[str, Handler], failures: Counter[str]) -> list[str]:
    """The encoded answer to one request line; never raises, so that the server goes on."""
    name = ""
    try:
        request = _request(line, commands)
        name = request["command"]
        answer = commands[name](request)
        if inspect.isawaitable(answer):
            answer = await answer
        return await _encoded({"ok": True, **answer})
    except ValueError as error:
        failures[name] += 1
        return _refusal(str(error))
    except Exception as error:  # noqa: BLE001  # a bug in one command must not end core
        failures[name] += 1
        own_log.command_failed(name, error)
        return _refusal(f"{type(error).__name__}: {error}")


def _request(line: bytes, commands: Mapping[str, Handler]) -> dict[str, Any]:
    """Read one request line.

    Raises ValueError when it is no JSON object with a known command.
    """
    try:
        read = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    request: dict[str, Any] = read if isinstance(read, dict) else {}
    name = request.get("command")
    if not isinstance(name, str) or name not in commands:
        raise ValueError(f'found {name!r} for "command", wanted one of {", ".join(commands)}')
    return request


def _refusal(why: str) -> list[str]:
    return [json.dumps({"ok": False, "error": why}) + "\n"]


async def _encoded(answer: Mapping[str, Any]) -> list[str]:
    """`answer` as JSON, letting others run between the pieces."""
    pieces = []
    for piece in _pieces(answer):
        pieces.append(piece)
        await asyncio.sleep(0)
    return pieces


def _pieces(answer: Mapping[str, Any]) -> Iterator[str]:
    before = "{"
    for name, value in answer.items():
        yield f"{before}{json.dumps(name)}: "
        before = ", "
        if isinstance(value, list | tuple) and len(value) > _SLICE:
            for start in range(0, len(value), _SLICE):
                yield ("[" if start == 0 else ", ") + json.dumps(value[start : start + _SLICE])[1:-1]
            yield "]"
        else:
            yield json.dumps(value)
    yield "}\n"


def ask_core(path: Path, request: dict[str, Any], *, timeout: float = 5.0) -> dict[str, Any]:
    """Ask core one thing and wait for the answer, at most `timeout` seconds.

    Raises CoreUnreachable, or CoreRefused with core's reason.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            line = _received_line(connection, deadline=time.monotonic() + timeout)
    except OSError as error:
        raise CoreUnreachable(_unreachable(path, error, timeout)) from error
    return _answer(path, line)


async def ask_core_async(
    path: Path,
    request: dict[str, Any],
    *,
    timeout: float = 5.0,  # noqa: ASYNC109  # the same word as in ask_core
) -> dict[str, Any]:
    """As `ask_core`, for a process that has other things to do."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(path, limit=_ANSWER_MAX)
            try:
                writer.write(json.dumps(request).encode() + b"\n")
                line = await reader.readline()
            finally:
                writer.close()
    except (OSError, ValueError) as error:  # ValueError: longer than the limit
        raise CoreUnreachable(_unreachable(path, error, timeout)) from error
    return _answer(path, line)


def _received_line(connection: socket.socket, *, deadline: float) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = connection.recv(1 << 18)
        if not piece:
            break
        received += piece
        if len(received) > _ANSWER_MAX:
            raise OSError(None, f"answer longer than {_ANSWER_MAX} bytes")
    return bytes(received)


def _answer(path: Path, line: bytes) -> dict[str, Any]:
    """Read core's answer; numbers that JSON has no word for (Infinity) are None."""
    if not line.endswith(b"\n"):
        raise CoreUnreachable(f"{path}: core closed the connection without an answer")
    try:
        answer = json.loads(line, parse_constant=lambda _: None)
    except ValueError as error:
        raise CoreUnreachable(f"{path}: what answers there is not core: {error}") from error
    if not isinstance(answer, dict) or "ok" not in answer:
        raise CoreUnreachable(f'{path}: what answers there is not core: no "ok" in the answer')
    if not answer["ok"]:
        raise CoreRefused(str(answer.get("error", "refused without a reason")))
    return answer


def _unreachable(path: Path, error: Exception, timeout: float) -> str:
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return f"{path}: core does not run here; start it with `sidecar run` or systemctl, or see --config"
        case PermissionError():
            return f"{path}: not allowed to connect; be root or in the group of that socket"
        case TimeoutError():
            return f"{path}: no answer from core within {timeout:g} s"
        case _:
            return f"{path}: {getattr(error, 'strerror', None) or error}"
