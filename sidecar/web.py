"""A very small HTTP server (RFC 9112) for the page, /healthz and /metrics: GET, one request a connection.

Knows requests, limits and addresses; what a page says is its function's business.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from sidecar import own_log
from sidecar.config import ConfigError

_CONNECTIONS_MAX = 64
_HEAD_MAX = 8192  # bytes of request line and headers
_REQUEST_SECONDS = 5.0  # to send a whole request
_TAKE_SECONDS = 30.0  # to take a whole answer


class Page(NamedTuple):
    """One answer."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"


Routes = Mapping[str, Callable[[], Awaitable[Page]]]
Count = Callable[[str, int], None]
"""Told the path ("other" for one that is no page, so that there are only so many) and the status of each answer."""


def address(listen: str, *, key: str = "web.listen") -> tuple[str, int]:
    """Read ADDRESS:PORT.

    Raises ConfigError. An empty address is refused: it would mean every interface, said by accident.
    """
    host, _, port = listen.rpartition(":")
    if port.isascii() and port.isdecimal() and int(port) <= 65535:
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))), int(port)
    raise ConfigError(f"{key}: found {listen!r}, wanted ADDRESS:PORT, as 127.0.0.1:8025 or [::1]:8025")


async def serve_web(listen: str, routes: Routes, *, count: Count) -> asyncio.Server:
    """Serve `routes`, path -> function, at ADDRESS:PORT.

    Raises ConfigError when that is no address or somebody else has it.
    """
    host, port = address(listen)
    open_now: set[asyncio.StreamWriter] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        try:
            if len(open_now) <= _CONNECTIONS_MAX:  # beyond that we hang up: an answer would need room, too
                await _talk(reader, writer, routes, count)
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()  # CancelledError: we stop, and asyncio would log it as an error (3.11)
        finally:
            open_now.discard(writer)
            writer.close()

    try:
        return await asyncio.start_server(talk, host, port, limit=_HEAD_MAX)
    except OSError as error:
        raise ConfigError(
            f"web.listen: cannot listen on {listen}: {error.strerror}; choose another port or stop what has it"
        ) from error


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, routes: Routes, count: Count) -> None:
    async with asyncio.timeout(_REQUEST_SECONDS):
        method, path = await _request(reader)
    page = await _page(method, path, routes)
    count(path if path in routes else "other", page.status.value)
    writer.write(_head(page))
    if method != "HEAD":
        writer.write(page.body)
    async with asyncio.timeout(_TAKE_SECONDS):
        await writer.drain()
        writer.close()
        await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Method and path without its query; ("", "") for what is no request."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return "", ""
    words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return "", ""
    return words[0], words[1].partition("?")[0]


async def _page(method: str, path: str, routes: Routes) -> Page:
    if not method:
        return Page(b"not an HTTP request\n", HTTPStatus.BAD_REQUEST)
    if method not in {"GET", "HEAD"}:
        return Page(b"GET only\n", HTTPStatus.METHOD_NOT_ALLOWED)
    if path not in routes:
        return Page(f"not found; there is {', '.join(routes)}\n".encode(), HTTPStatus.NOT_FOUND)
    try:
        return await routes[path]()
    except Exception as error:  # noqa: BLE001  # one broken page must not take the others along
        own_log.request_failed(path, error)
        return Page(b"failed; the log of sidecar outside says why\n", HTTPStatus.INTERNAL_SERVER_ERROR)


def _head(page: Page) -> bytes:
    lines = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}",
        f"Content-Type: {page.content_type}",
        f"Content-Length: {len(page.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()
