"""The web server of the outside process: one port for the page, /healthz and /metrics.

Knows connections, limits, the headers of every answer and what is counted; what a page says is its function's business.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config as UvicornConfig
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from sidecar import own_log
from sidecar.config import ConfigError
from sidecar.web_address import address

_CONNECTIONS_MAX = 64
_HEAD_MAX = 8192  # bytes of request line and headers
_REQUEST_SECONDS = 5.0  # to send a whole request, the next one on a connection as well
_TAKE_SECONDS = 30.0  # to take what is sent


class Page(NamedTuple):
    """One answer in plain text."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"


Routes = Mapping[str, Callable[[], Awaitable[Page]]]
Count = Callable[[str, int], None]
"""Told the path ("other" for one that is no page, so that there are only so many) and the status of each answer."""


def plain(pages: Routes) -> list[Route]:
    """Routes of pages that ask nothing of the request."""
    return [Route(path, _plain(make)) for path, make in pages.items()]


def _plain(make: Callable[[], Awaitable[Page]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        page = await make()
        return Response(page.body, page.status.value, {"Content-Type": page.content_type})

    return answer


@contextlib.asynccontextmanager
async def serve_web(listen: str, app: ASGIApp) -> AsyncIterator[int]:
    """Serve an application at ADDRESS:PORT as long as the context lasts; gives the port.

    Raises ConfigError when that is no address or somebody else has it.
    """
    listener = _bound(listen)
    # Nobody is believed to be somebody else, no path is logged, and nothing is started but the application.
    config = UvicornConfig(
        app, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False, server_header=False,
        h11_max_incomplete_event_size=_HEAD_MAX, timeout_keep_alive=int(_TAKE_SECONDS),
    )  # fmt: skip
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is no HTTP request is no news
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(config, state, {}), sock=listener)
    try:
        yield listener.getsockname()[1]
    finally:
        server.close()
        for connection in list(state.connections):
            cast("_Connection", connection).transport.abort()
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)


def _bound(listen: str) -> socket.socket:
    host, port = address(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"web.listen: cannot listen on {listen}: {error.strerror}; choose another port or stop what has it"
        ) from error
    return listener


class _Connection(H11Protocol):
    """Uvicorn's, for a bounded number of clients, each of them in bounded time."""

    _deadline: asyncio.TimerHandle | None = None
    _granted = False
    """More time to take the end of an answer, once."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS_MAX:  # we hang up: an answer would need room, too
            transport.abort()
        else:
            self._within(_REQUEST_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._within(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._within(None)

    def on_response_complete(self) -> None:
        self._granted = False
        self._within(_REQUEST_SECONDS)
        super().on_response_complete()

    def pause_writing(self) -> None:
        self._within(_TAKE_SECONDS)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._within(None if self.cycle is not None and not self.cycle.response_complete else _REQUEST_SECONDS)
        super().resume_writing()

    def _within(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        """Hang up on who is silent; who still takes an answer has a little longer."""
        if self.transport.get_write_buffer_size() and not self._granted:
            self._granted = True
            self._within(_TAKE_SECONDS)
        else:
            self.transport.abort()


# Every answer.

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def watched(app: ASGIApp, names: Iterable[str], *, count: Count) -> ASGIApp:
    """Give each answer the headers above, count it, and answer for what fails. `names`: what paths begin with."""
    known = frozenset(names)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_ours(message.get("headers", []))
            await send(message)

        try:
            if scope["method"] in {"GET", "HEAD"}:
                await app(scope, receive, sent)
            else:
                await _said(HTTPStatus.METHOD_NOT_ALLOWED, "GET only\n")(scope, receive, sent)
        except Exception as error:  # noqa: BLE001  # one broken page must not take the others along
            own_log.request_failed(scope["path"], error)
            if not status:
                text = "failed; the log of sidecar outside says why\n"
                await _said(HTTPStatus.INTERNAL_SERVER_ERROR, text)(scope, receive, sent)
        finally:
            if status:
                count(_counted(scope["path"], known), status)

    return answer


def _with_ours(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What an answer says of itself stands."""
    given = list(headers)
    names = {name.lower() for name, _ in given}
    ours = ((name.lower().encode(), value.encode()) for name, value in HEADERS.items())
    given.append((b"date", formatdate(usegmt=True).encode()))
    return [*given, *((name, value) for name, value in ours if name not in names)]


def _said(status: HTTPStatus, text: str) -> Response:
    return Response(text, status.value, media_type="text/plain")


def _counted(path: str, known: frozenset[str]) -> str:
    first = "/" + path.split("/", 2)[1] if path.startswith("/") else path
    return first if first in known else "other"
