"""A stream in Redis as the fleet uses it: appended by all hosts, and read by each from where it was.

It knows how it is read to its end and on, and no rule about what an entry says.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from sidecar.fleet.cluster import said_by
from sidecar.fleet.redis_store import ANSWER_WITHIN, KEPT, LISTENS, RedisStore, StoreSilent, close_all, goes_on

AT_ONCE = 100
"""Entries: about a millisecond of taking them in."""
BEGINNING = "0-0"

Fields = Mapping[str, str]


class Page(NamedTuple):
    entries: Sequence[Fields]
    upto: str
    """Where to read on."""
    is_last: bool
    """There is no more just now."""


class Stream:
    def __init__(self, store: RedisStore, name: str) -> None:
        self._store = store
        self.key = store.key(name)

    async def add(self, entries: Sequence[Mapping[str, str]], *, most: int) -> None:
        """Append these; the oldest are dropped where there are more than about `most`.

        Raises StoreSilent, and some may have been taken.
        """
        async with self._store.answering():
            pipe = self._store.redis.pipeline(transaction=False)
            for entry in entries:
                fields: dict[Any, Any] = dict(entry)  # wider than the library's own type, which is invariant
                pipe.xadd(self.key, fields, maxlen=most, approximate=True)
            pipe.expire(self.key, KEPT)
            await pipe.execute()

    async def pages(self, after: str) -> AsyncGenerator[Page, None]:
        """Give what is kept after that place, and then what comes, as it comes. Raises StoreSilent when that ends.

        All that is kept where the place lies ahead of it: another server's clock wrote it.
        """
        listener, watchers = self._store.clients(wait=None)
        try:
            async with listener:
                listening = await self._store.listening(listener)
                async with asyncio.timeout(ANSWER_WITHIN):
                    newest: Any = await listener.xrevrange(self.key, count=1)
                if newest and _place(newest[0][0]) < _place(after):
                    after = BEGINNING
                while goes_on():
                    page = await self._page(listener, after)
                    after = page.upto
                    yield page
                    listening.check()
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreSilent(said_by(error) or "the reader's connection gave no sign of life") from error
        finally:
            await close_all(watchers)

    async def _page(self, listener: Redis, after: str) -> Page:
        async with asyncio.timeout(LISTENS + ANSWER_WITHIN):
            found: Any = await listener.xread({self.key: after}, count=AT_ONCE, block=int(1_000 * LISTENS))
        rows = found[0][1] if found else []
        return Page([fields for _, fields in rows], rows[-1][0] if rows else after, len(rows) < AT_ONCE)


def _place(identifier: str) -> tuple[int, ...]:
    return tuple(map(int, identifier.split("-")))
