"""What the hosts say of themselves to each other through the store, now and then; nothing is decided by it.

Each writes a text of its own, which no other host touches, and reads those of all members.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from policies.fleet.presence import Presence
from sidecar.fleet.redis_store import RedisStore

PRESENCE = "host:"
TELL_EVERY = 5.0
"""Seconds."""
READ_PER_SECOND = 2.0
"""Texts of others that a host reads; with so many hosts that five seconds do not suffice, each looks less often."""
READ_AT_LEAST = 5.0
"""Seconds between two looks in a small fleet."""


class Presences:
    def __init__(self, store: RedisStore) -> None:
        self.describe: Callable[[], Presence | None] = lambda: None
        """Tells how this host is; its `at` is put in here. None: nothing is told."""
        self.known: Mapping[str, Presence] = {}
        self.unreadable = 0
        self._store = store
        self._told = self._read = -math.inf

    async def exchange(self, members: Iterable[str], *, at: float, now: float) -> None:
        """Tell and read what is due. `at`: of the store's clock, `now`: of our steady one. Raises StoreSilent."""
        if now - self._told >= TELL_EVERY and (mine := self.describe()) is not None:
            await self._store.put(f"{PRESENCE}{mine.host}", mine._replace(at=at).text())
            self._told = now
        names = sorted(members)
        if names and now - self._read >= max(READ_AT_LEAST, len(names) / READ_PER_SECOND):
            _, texts = await self._store.texts([f"{PRESENCE}{name}" for name in names])
            self.known = dict(self._readable(zip(names, texts, strict=True)))
            self._read = now

    def _readable(self, found: Iterable[tuple[str, str]]) -> Iterable[tuple[str, Presence]]:
        for name, text in found:
            try:
                if text:
                    yield name, Presence.read(text)
            except ValueError:  # of a program that is none of ours: this host is shown without
                self.unreadable += 1

    def shown(self, row: Mapping[str, Any], *, at: float) -> dict[str, Any]:
        """Give a row of a host in the roll with what the host said; None and "" stand for what nobody knows."""
        said = self.known.get(str(row["host"]), Presence(str(row["host"]), at))
        told = said.host in self.known
        return {
            **row,
            "sidecar": said.sidecar,
            "mode": said.mode,
            "held": said.held,
            "live": said.live,
            "subqueues": said.subqueues,
            "lag_s": said.lag,
            "helper": said.helper,
            "said_s": round(max(0.0, at - said.at), 1) if told else None,
        }
