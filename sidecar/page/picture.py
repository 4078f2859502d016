"""Core as the page last saw it: asked no more often than looking needs, and kept while core is away.

Knows core's answer to "status"; a core with many sub-queues is asked less often, for answering costs it time.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from typing import Any, NamedTuple

from policies.subqueue import State
from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.core_status import Fleet, Row, rows
from sidecar.own_log import printable

Ask = Callable[[dict[str, Any]], dict[str, Any]]
"""Blocks until core answers, or raises CoreUnreachable or CoreRefused."""

_EVERY = 1.0
_OLD = 5.0
"""Seconds from which a picture is not shown while a new one can be had."""
_SHARE = 20
"""Between two questions there are so many times the seconds that the last one took."""


class Picture(NamedTuple):
    """What core said last."""

    taken_at: float = 0.0
    """0: it said nothing since this process began."""
    away: str = "not asked yet"
    """Why there was no answer the last time; "" where there was one."""
    mode: str = ""
    subqueues: tuple[Row, ...] = ()
    """Those that hold most first."""
    held: int = 0
    live: int = 0
    source: str = ""
    lines: int = 0
    lag: float = 0.0
    requests: int = 0
    fail_open: int = 0
    helper: bool = True
    store: str = ""
    """What is the matter with the store; "" where it takes writes."""
    fleet: Fleet | None = None
    """None: this host is by itself."""

    def same_as(self, other: "Picture") -> bool:
        """Whether a page would show the same of both."""
        mine, theirs = (
            each._replace(taken_at=0.0, lines=0, requests=0, lag=each.lag // 10, fleet=_coarse(each.fleet))
            for each in (self, other)
        )
        return mine == theirs


def _coarse(fleet: Fleet | None) -> Fleet | None:
    """Without what changes with every look though nothing has happened."""
    if fleet is None:
        return None
    hosts = (each._replace(heard=None, said=None, lag=(each.lag or 0.0) // 10) for each in fleet.hosts)
    return fleet._replace(hosts=tuple(hosts))


def read(answer: Mapping[str, Any], *, now: float) -> Picture:
    """Read core's answer. Raises KeyError, TypeError, ValueError where it is not one."""
    log, policy, store = answer["log"], answer["policy"], answer.get("store") or {}
    return Picture(
        taken_at=now,
        away="",
        mode=str(answer["mode"]),
        subqueues=tuple(rows(answer)),
        held=int(answer["held_total"]),
        live=int(answer["messages_live"]),
        source=printable(str(log["source"])),
        lines=int(log["lines"]),
        lag=float(log["lag_s"]),
        requests=_total(policy.get("requests")),
        fail_open=_total(policy.get("fail_open")),
        helper=bool((answer.get("helper") or {}).get("reachable")),
        store=printable(str(store.get("failure") or "")),
        fleet=Fleet.read(answer),
    )


def _total(counts: Any) -> int:
    return sum(counts.values()) if isinstance(counts, dict) else int(counts or 0)


def states(subqueues: Iterable[Row]) -> dict[State, int]:
    """How many there are in each state that is not the end."""
    found = Counter(row.state for row in subqueues)
    return {state: found[state] for state in (State.PAUSED, State.PROBING, State.RAMPING)}


class Watch:
    def __init__(self, ask: Ask, threads: Executor, *, clock: Callable[[], float] = time.time) -> None:
        self._ask = ask
        self._threads = threads
        self._clock = clock
        self._asking: asyncio.Future[None] | None = None
        self._picture = Picture()
        self._asked_at = -math.inf
        self._next = 0.0

    async def look(self) -> Picture:
        """Give the newest picture, and have the next one made; waits for it where this one is old."""
        now = time.monotonic()
        if self._asking is None and now >= self._next:
            self._asking = asyncio.ensure_future(self._renew())
        if self._asking is not None and now - self._asked_at > _OLD:
            await asyncio.shield(self._asking)
        return self._picture

    async def _renew(self) -> None:
        began = time.monotonic()
        try:
            self._picture = await asyncio.get_running_loop().run_in_executor(self._threads, self._asked)
        finally:
            self._asked_at = time.monotonic()
            self._next = self._asked_at + max(_EVERY, _SHARE * (self._asked_at - began))
            self._asking = None

    def _asked(self) -> Picture:
        try:
            return read(self._ask({"command": "status"}), now=self._clock())
        except (CoreUnreachable, CoreRefused) as error:
            return self._picture._replace(away=str(error))
        except (KeyError, TypeError, ValueError) as error:
            return self._picture._replace(away=f"core's answer cannot be read: {type(error).__name__}: {error}")
