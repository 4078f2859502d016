"""The fleet's changes to the suppression list, as a stream in Redis: appended by all, read by each from where it was.

It knows how much is kept, and no rule about what an entry says.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from policies.fleet import reading
from sidecar.fleet.redis_store import KEPT, RedisStore
from sidecar.fleet.stream import AT_ONCE, BEGINNING, Stream

MOST = 100_000
"""Entries that are kept, some 50 MB; who was away for more of them is told so."""


class Telling(NamedTuple):
    """Who tells, and up to which number it has told."""

    origin: str
    said: int
    host: str
    key: str


# Told again where the answer was lost, an entry stands there once; a server that lost its memory says so by its number.
_SAY = """
local known = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0') or 0
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
        self.bad = 0
        """Numbers that cannot be read."""
        self._store = store
        self.stream = Stream(store, "suppressions")
        self._stream = self.stream.key
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
        known = {}
        for origin, number in told.items():
            try:
                known[str(origin)] = reading.counted(number)
            except ValueError:
                self.bad += 1  # as of one that has told nothing
        return known

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

    async def close(self) -> None:
        await self._store.close()
