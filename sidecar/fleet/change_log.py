"""The fleet's changes to the suppression list, as a stream in Redis: appended by all, read by each from where it was.

It knows how much is kept, and no rule about what an entry says.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from sidecar.fleet.redis_store import ANSWER_WITHIN, KEPT, LISTENS, RedisStore, StoreSilent, close_all, goes_on

MOST = 100_000
"""Entries that are kept, some 50 MB; who was away for more of them is told so."""
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


class Telling(NamedTuple):
    """Who tells, and up to which number it has told."""

    origin: str
    said: int
    host: str
    key: str


# Told again where the answer was lost, an entry stands there once; a server that lost its memory says so by its number.
_SAY = """
local known = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if known ~= tonumber(ARGV[2]) then return known end
for place = 7, #ARGV, 2 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], '*', 'origin', ARGV[1], 'host', ARGV[3], 'key', ARGV[4],
    'number', ARGV[place], 'change', ARGV[place + 1])
  known = tonumber(ARGV[place])
end
redis.call('HSET', KEYS[2], ARGV[1], known)
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('EXPIRE', KEYS[2], ARGV[6])
return known
"""


class ChangeLog:
    def __init__(self, store: RedisStore) -> None:
        """`store`: of one task, that tells."""
        self._store = store
        self._stream = store.key("suppressions")
        self._upto = f"{self._stream}:upto"  # in the same slot of a Cluster

    async def say(self, told: Telling, entries: Sequence[tuple[int, str]]) -> int:
        """Append (number, change) of one origin, where it knows all before them; the last number that it knows now.

        Raises StoreSilent, and they may have been taken.
        """
        values = [text for number, change in entries for text in (str(number), change)]
        async with self._store.answering():
            known: Any = await self._store.redis.eval(
                _SAY, 2, self._stream, self._upto, *map(str, (*told, MOST, KEPT)), *values
            )
            return int(known)

    async def upto(self) -> dict[str, int]:
        """Give the last number of each origin that told anything lately. Raises StoreSilent."""
        async with self._store.answering():
            told: Any = await self._store.redis.hgetall(self._upto)
            return {str(origin): int(number) for origin, number in told.items()}

    async def take_out(self, who: bytes) -> int:
        """Delete what is said about somebody; how many entries. Raises StoreSilent."""
        taken, after = 0, BEGINNING
        while True:
            async with self._store.answering():
                found: Any = await self._store.redis.xrange(self._stream, min=f"({after}", count=AT_ONCE)
                if not found:
                    return taken
                after = found[-1][0]
                named = [number for number, fields in found if who.hex() in fields.get("change", "")]
                if named:
                    taken += await self._store.redis.xdel(self._stream, *named)
            await asyncio.sleep(0)

    async def pages(self, after: str) -> AsyncGenerator[Page, None]:
        """Give what is kept after that place, and then what comes, as it comes. Raises StoreSilent when that ends.

        All that is kept where the place lies ahead of it: another server's clock wrote it.
        """
        listener, watchers = self._store.clients(wait=None)
        try:
            async with listener:
                async with asyncio.timeout(ANSWER_WITHIN):
                    newest: Any = await listener.xrevrange(self._stream, count=1)
                if newest and _place(newest[0][0]) < _place(after):
                    after = BEGINNING
                while goes_on():
                    page = await self._page(listener, after)
                    after = page.upto
                    yield page
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreSilent(str(error) or "the reader's connection gave no sign of life") from error
        finally:
            await close_all(watchers)

    async def _page(self, listener: Redis, after: str) -> Page:
        async with asyncio.timeout(LISTENS + ANSWER_WITHIN):
            found: Any = await listener.xread({self._stream: after}, count=AT_ONCE, block=int(1_000 * LISTENS))
        rows = found[0][1] if found else []
        return Page([fields for _, fields in rows], rows[-1][0] if rows else after, len(rows) < AT_ONCE)

    async def close(self) -> None:
        await self._store.close()


def _place(identifier: str) -> tuple[int, ...]:
    return tuple(map(int, identifier.split("-")))
