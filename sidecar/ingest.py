"""The ingest interface: complaints, unsubscriptions, opens, clicks and bounces over HTTP, and from there to core.

Knows who may tell us something, how much of it, and how it gets to core exactly once; what it means core knows.
"""

import asyncio
import contextlib
import functools
import hmac
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from parsers.address import domain_of
from parsers.ingest_event import IngestEvent, read_event, read_items
from policies.stored_address import hash_of
from sidecar import erasure, own_log
from sidecar.config import Config, ConfigError, RecipientForm
from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.credentials import secret
from sidecar.database import Database, StoreUnavailable
from sidecar.ingest_store import IngestRow, IngestStore, body_of
from sidecar.outside_store import SCHEMA
from sidecar.threads import in_thread
from sidecar.web_address import address

_LOG = logging.getLogger("sidecar.ingest")
T = TypeVar("T")
AskCore = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

BODY_MAX = 1 << 20
EVENTS_MAX = 1_000
"""In one request."""
TOKEN_MIN = 20
BODY_SECONDS = 20.0
_CLIENTS_MAX = 1_000
_HAND_OVER = 200
"""Events in one message to core."""
HAND_OVER_EVERY = 1.0
PRUNE_EVERY = 6 * 3_600.0


class Allowance:
    """So many events a minute of each client address; a burst of a minute's worth."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._left: dict[str, tuple[float, float]] = {}
        """Address -> what is left, and when that was so."""

    def wait(self, client: str, events: int, *, now: float) -> float:
        """Take so many, or say after how many seconds they may be taken; 0 where they were."""
        most = float(self._per_minute)
        left, at = self._left.pop(client, (most, now))
        left = min(most, left + (now - at) * most / 60.0)
        # Who sends more at once than a minute has is not shut out for ever.
        enough = left >= min(events, most)
        if len(self._left) >= _CLIENTS_MAX:
            del self._left[next(iter(self._left))]
        self._left[client] = (left - events if enough else left, now)
        return 0.0 if enough else (min(events, most) - left) * 60.0 / most


class Ingest:
    """Takes events in and hands them over."""

    def __init__(self, config: Config, store: IngestStore, database: Database, ask_core: AskCore) -> None:
        self._config = config
        self._store = store
        self._database = database
        self._ask_core = ask_core
        self._token = _token(config) if config.ingest.listen else b""
        self._allowance = Allowance(config.ingest.per_minute)
        self._turn = asyncio.Lock()  # the store is for one thread at a time
        self._wake = asyncio.Event()
        self._said = ""

    def application(self) -> Starlette:
        return Starlette(routes=[Route("/v1/events", self._events, methods=["POST"])])

    async def _events(self, request: Request) -> JSONResponse:
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, b"Bearer " + self._token):
            return _refused(401, "wanted the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(request)
            items = read_items(body) if body is not None else []
        except TimeoutError:
            return _refused(408, f"the body was not there after {BODY_SECONDS:.0f} s")
        except ValueError as error:
            return _refused(400, str(error))
        if body is None or len(items) > EVENTS_MAX:
            return _refused(413, f"wanted at most {EVENTS_MAX} events and {BODY_MAX} bytes in a request")
        client = request.client.host if request.client else ""
        if wait := self._allowance.wait(client, len(items), now=time.monotonic()):
            return _refused(
                429, f"more than {self._config.ingest.per_minute} events a minute", {"Retry-After": f"{wait + 1:.0f}"}
            )
        return await self._taken(items)

    async def _taken(self, items: list[Any]) -> JSONResponse:
        now = time.time()
        events: list[IngestEvent] = []
        refused = []
        for number, item in enumerate(items):
            try:
                events.append(read_event(item, now=now))
            except ValueError as error:
                refused.append(
                    {"item": number, "id": item.get("id") if isinstance(item, dict) else None, "why": str(error)}
                )
        try:
            new = await self._stored(lambda: self._store.add([self._row(event, now=now) for event in events]))
        except StoreUnavailable as error:
            own_log.not_stored(str(error))
            return _refused(503, "cannot be stored now; nothing was taken", {"Retry-After": "30"})
        self._wake.set()
        return JSONResponse({"accepted": sum(new), "repeated": len(new) - sum(new), "refused": refused})

    def _row(self, event: IngestEvent, *, now: float) -> tuple[IngestRow, str]:
        plain = self._config.report_mail.recipients is RecipientForm.ADDRESS
        recipient = event.recipient if plain else hash_of(event.recipient)
        row = IngestRow(
            event.id, now, event.at, event.kind, recipient, domain_of(event.recipient), event.sending_domain,
            event.campaign, event.reply,
        )  # fmt: skip
        about = f", campaign {event.campaign}" if event.campaign else ""
        evidence = f"{event.kind} {event.id}{about}{': ' if event.reply else ''}{event.reply}"
        body = body_of(
            event.kind, event.recipient, event.sending_domain,
            at=event.at, evidence=evidence, by="ingest", reply=event.reply,
        )  # fmt: skip
        return row, body

    async def _stored(self, call: Callable[[], T]) -> T:
        async with self._turn:
            return await in_thread(call)

    async def run(self) -> None:
        """Hand over, and forget what is old, for ever."""
        pruned = time.monotonic() - PRUNE_EVERY
        while True:
            try:
                while await self._hand_over():
                    pass
                if time.monotonic() - pruned > PRUNE_EVERY:
                    pruned = time.monotonic()
                    before = time.time() - self._config.store.retention_days * 86_400.0
                    await self._stored(functools.partial(self._store.prune, before=before))
                self._trouble("")
            except (CoreUnreachable, CoreRefused, StoreUnavailable) as error:
                self._trouble(str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HAND_OVER_EVERY):
                    await self._wake.wait()
            self._wake.clear()

    async def _hand_over(self) -> bool:
        """Hand the oldest over; whether there may be more. Said twice, core hears it once."""
        waiting = await self._stored(lambda: self._store.waiting(_HAND_OVER))
        if not waiting.events:
            return False
        upto = int(waiting.events[-1]["number"])
        if self._config.suppression.enabled:
            request = {"command": "suppress", "do": "take", "source": waiting.source, "events": waiting.events}
            upto = int((await self._ask_core(request))["upto"])
        await self._stored(lambda: self._store.heard(upto))
        return True

    def _trouble(self, why: str) -> None:
        """Said when it is news: the same is met each second."""
        if why and why != self._said:
            _LOG.warning("events wait to be handed to core: %s", why)
        self._said = why

    async def erase(self, request: dict[str, Any]) -> dict[str, Any]:
        """The control command "erase": one person, out of the whole store. Raises ValueError."""
        who = request.get("address")
        if not isinstance(who, str) or "@" not in who:
            raise ValueError('wanted {"address": "user@example.com"}')
        # What waits for core names them as well, and would bring the name back there afterwards.
        try:
            while await self._hand_over():
                pass
        except (CoreUnreachable, CoreRefused) as error:
            raise ValueError(f"nothing was erased: what waits for core has to get there first: {error}") from error
        found = await in_thread(lambda: _find(self._config.outside_database, who))
        rows = await self._stored(lambda: erasure.erase(self._database, who, found))
        await self._stored(lambda: erasure.settle(self._database))
        return {"rows": rows}

    def close(self) -> None:
        self._store.close()


def _find(path: Path, who: str) -> list[erasure.Found]:
    """On a connection of its own, for it may take minutes."""
    database = Database.open_read_only(path, SCHEMA)
    try:
        return list(erasure.find(database.connection, who))
    finally:
        database.close()


def ingest(config: Config, ask_core: AskCore) -> Ingest:
    """Open the store once more, for its own thread. Raises ConfigError, StoreError."""
    database = Database.open(config.outside_database, SCHEMA)
    try:
        return Ingest(config, IngestStore(database), database, ask_core)
    except BaseException:
        database.close()
        raise


@contextlib.asynccontextmanager
async def listening(config: Config, it: Ingest) -> AsyncIterator[None]:
    """Serve the interface, where one is wanted, as long as the context lasts. Raises ConfigError."""
    if not config.ingest.listen:
        yield
        return
    server = _Server(
        uvicorn.Config(
            it.application(), log_config=None, access_log=False, lifespan="off", limit_concurrency=64,
            timeout_keep_alive=30, server_header=False, proxy_headers=False, ws="none", http="h11", loop="none",
        )
    )  # fmt: skip
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is no HTTP request is no news
    with _bound(config.ingest.listen) as listener:
        own_log.listening(config.ingest.listen, purpose="events")
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = server.force_exit = True
            await serving


class _Server(uvicorn.Server):
    """Uvicorn's, but signals are the process's own business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _bound(listen: str) -> Iterator[socket.socket]:
    host, port = address(listen, key="ingest.listen")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(128)  # who connects before uvicorn accepts waits
        except OSError as error:
            raise ConfigError(
                f"ingest.listen: cannot listen on {listen}: {error.strerror}; choose another port or stop what has it"
            ) from error
        yield listener


def _token(config: Config) -> bytes:
    """Raises ConfigError."""
    token = secret("ingest.token_file", config.ingest.token_file)
    if len(token) < TOKEN_MIN:
        raise ConfigError(
            f"ingest.token_file: {len(token)} characters; wanted {TOKEN_MIN} at least, as from openssl rand -hex 32"
        )
    return token.encode()


async def _body(request: Request) -> bytes | None:
    """The whole body; None where it is too long."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_MAX:
            return None
    return bytes(body)


def _refused(status: int, why: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": why}, status, headers)
