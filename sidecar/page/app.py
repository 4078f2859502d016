"""The status page as an application: its addresses, its views and templates, and what every page has around it.

Each page is read and rendered in a thread of the page's own, so that nothing else of the outside process waits.
"""

import asyncio
import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Send
from starlette.types import Scope as Connection

from sidecar.config import Config
from sidecar.control import ask_core
from sidecar.own_log import printable
from sidecar.page import (
    addresses,
    audit,
    domains,
    feeds,
    incidents,
    known_object,
    now,
    pools,
    reading,
    search,
    subqueue,
    words,
)
from sidecar.page.live import Live
from sidecar.page.picture import Picture, Watch
from sidecar.page.scene import Scene

_CORE_SECONDS = 2.0
_THREADS = 2


class View(NamedTuple):
    path: str
    """A part in braces is what the page is about."""
    title: str
    template: str
    make: Callable[[Scene], Any]
    menu: str = ""
    """Its word in the menu; "" for a page that another leads to."""
    below: str = ""
    """The path of the menu that it belongs to."""
    live: bool = True
    """Renews itself."""


VIEWS = (
    View("/", "Now", "now.html", now.view, menu="Now"),
    View("/domains", "Sending domains", "domains.html", domains.view, menu="Domains"),
    View("/addresses", "Addresses and blocklists", "addresses.html", addresses.view, menu="Addresses"),
    View("/pools", "Pools and warm-up", "pools.html", pools.view, menu="Pools"),
    View("/feeds", "Feeds and authentication", "feeds.html", feeds.view, menu="Feeds"),
    View("/incidents", "Incidents", "incidents.html", incidents.listed, menu="Incidents"),
    View("/search", "Find a message", "search.html", search.view, menu="Search", live=False),
    View("/audit", "Audit", "audit.html", audit.view, menu="Audit"),
    View("/subqueue/{about:path}", "Sub-queue", "subqueue.html", subqueue.view, below="/"),
    View("/domain/{about:path}", "Domain", "object.html", known_object.domain, below="/domains"),
    View("/address/{about:path}", "Address", "object.html", known_object.address, below="/addresses"),
    View("/incident/{about}", "Incident", "incident.html", incidents.one, below="/incidents"),
)

THEMES = ("auto", "light", "dark")
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


class StatusPage:
    """Its routes; `close` when they are no longer served."""

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time, every: float = 2.0) -> None:
        """`every`: seconds between two looks for what open pages should show."""
        self._config = config
        self._clock = clock
        self.threads = ThreadPoolExecutor(_THREADS, "page")
        self._watch = Watch(
            functools.partial(ask_core, config.control_socket, timeout=_CORE_SECONDS), self.threads, clock=clock
        )
        self._live = Live(config, self._watch, every=every)
        self._assets = _assets()
        self._templates = _environment({name: f"/static/{name}?{mark}" for name, (_, mark, _) in self._assets.items()})

    def close(self) -> None:
        self.threads.shutdown(cancel_futures=True)

    def routes(self) -> list[Route]:
        pages = [Route(view.path, functools.partial(self._page, view)) for view in VIEWS]
        return [
            *pages,
            Route("/live", self._stream),
            Route("/theme", _theme),
            Route("/static/{name}", self._asset),
            Route("/favicon.ico", self._favicon),
        ]

    async def _page(self, view: View, request: Request) -> Response:
        picture = await self._watch.look()
        look = functools.partial(self._rendered, view, request, picture)
        body = await asyncio.get_running_loop().run_in_executor(self.threads, look)
        return Response(body, media_type="text/html")

    def _rendered(self, view: View, request: Request, picture: Picture) -> bytes:
        moment = self._clock()
        with reading.opened(self._config) as stores:
            about = request.path_params.get("about", "")
            query = {name: printable(value) for name, value in request.query_params.items()}
            path = view.path if "{" not in view.path else quote(request.url.path, safe="/@:")
            scene = Scene(self._config, stores, picture, path, query, about, moment)
            model = view.make(scene)
            template = self._templates.get_template(view.template)
            body = template.render(
                model=model,
                view=view,
                views=[each for each in VIEWS if each.menu],
                title=f"{printable(about)} – {view.title}" if about else view.title,
                here=view.below or view.path,
                about=printable(about),
                picture=picture,
                troubles=stores.troubles,
                now=moment,
                theme=_chosen(request),
                address=_address_line(request),
                user=request.scope["state"].get("user", ""),
                query=query,
            )
        return body.encode(errors="backslashreplace")

    async def _stream(self, _: Request) -> Response:
        if self._live.full:
            return Response("as many watch as may\n", HTTPStatus.SERVICE_UNAVAILABLE, media_type="text/plain")
        return StreamingResponse(self._live.events(), media_type="text/event-stream")

    async def not_found(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Answer for a path that is no page, in words that people and programs read."""
        there = ", ".join(view.path for view in VIEWS if view.menu)
        answer = Response(f"not found; there is {there}\n", HTTPStatus.NOT_FOUND, media_type="text/plain")
        await answer(scope, receive, send)

    async def _asset(self, request: Request) -> Response:
        found = self._assets.get(request.path_params["name"])
        if found is None:
            return Response("not found\n", HTTPStatus.NOT_FOUND, media_type="text/plain")
        body, _, kind = found
        # The mark in its address changes with the file.
        return Response(body, headers={"Cache-Control": "private, max-age=604800, immutable"}, media_type=kind)

    async def _favicon(self, _: Request) -> Response:
        body, _mark, kind = self._assets["icon.svg"]
        return Response(body, headers={"Cache-Control": "private, max-age=86400"}, media_type=kind)


def _assets() -> dict[str, tuple[bytes, str, str]]:
    """Name -> content, a mark that changes with it, its type."""
    found = {}
    for entry in (resources.files("sidecar.page") / "static").iterdir():
        body = entry.read_bytes()
        found[entry.name] = body, hashlib.sha256(body).hexdigest()[:12], _TYPES[entry.name.rpartition(".")[2]]
    return found


def _environment(assets: dict[str, str]) -> Environment:
    made = Environment(
        loader=PackageLoader("sidecar.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {
        "assets": assets,
        "themes": THEMES,
        "incident_marks": incidents.SEVERITIES,
        "phase_marks": incidents.PHASES,
    }
    for form in (words.stamp, words.iso, words.clock, words.span, words.relative, words.share, words.percent,
                 words.count, words.pace, printable, quoted):  # fmt: skip
        made.filters[form.__name__] = form
    return made


def quoted(text: str) -> str:
    """As one part of a path."""
    return quote(text, safe="")


# Light and dark: a cookie, so that the page comes in its colours, without a script and without a flash.


def _chosen(request: Request) -> str:
    theme = request.cookies.get("theme", "")
    return theme if theme in THEMES else "auto"


def _address_line(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


async def _theme(request: Request) -> Response:
    back = request.query_params.get("back", "/")
    inside = back.startswith("/") and not back.startswith(("//", "/\\")) and back.isprintable()
    answer = RedirectResponse(back if inside else "/", HTTPStatus.SEE_OTHER)
    theme = request.query_params.get("to", "")
    if theme in THEMES:
        answer.set_cookie("theme", theme, max_age=365 * 86_400, httponly=True, samesite="strict")
    return answer


def names(routes: Sequence[Route]) -> list[str]:
    """What paths begin with, for counting."""
    return ["/" + route.path.split("/", 2)[1] for route in routes]
