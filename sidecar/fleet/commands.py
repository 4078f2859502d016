"""What an admin has all hosts do, or another one: told by a stream in Redis, done once by each, answered to who asked.

Knows who ought to hear and for how long it is worth doing; what is done is core's business.
"""

import asyncio
import contextlib
import json
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from policies.fleet import reading
from sidecar.fleet.cluster import said_by
from sidecar.fleet.redis_store import ANSWER_WITHIN, LISTENS, RedisStore, StoreSilent, close_all, goes_on

_LOG = logging.getLogger("sidecar.fleet")

Request = Mapping[str, Any]
Answer = Mapping[str, Any]

STILL_DONE: Final = 3_600.0
"""Seconds after which a host that was away does it no more."""
ANSWERED_WITHIN: Final = 3.0
"""Seconds for which who asked waits for those that are there."""
MOST: Final = 10_000
"""Commands that are kept, some two MB."""
AT_ONCE: Final = 100
LONGEST: Final = 1 << 24
"""Characters of an answer: that with a part of a list is the longest."""
ASKED: Final = 30.0
"""Seconds for which the answer to a question is kept: nobody but who asked wants it."""
TRY_AGAIN: Final = 1.0
_LOOK: Final = 0.05

# A host does a command once, also where it is started anew while it does it. One that asks again, for the answer was lost, is
# told the same.
_BEGIN = """
local begun = redis.call('HGET', KEYS[1], ARGV[1])
if begun then return begun == ARGV[2] and 1 or 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""
_BEGUN: Final = "begun"
"""In what stands in place of an answer until there is one: which life of core began."""


class Told(NamedTuple):
    """What became of a command."""

    answers: Mapping[str, Answer]
    """By host, of the others that answered in time."""
    unheard: Mapping[str, str]
    """By host, why there is no answer."""


class FleetCommands:
    def __init__(self, host: str, store: RedisStore, members: Callable[[], Mapping[str, bool]]) -> None:
        """`members`: of all hosts, whether each is there."""
        self.host = host
        self.do: Callable[[Request], Awaitable[Answer]] | None = None
        """Does a command here. Raises ValueError."""
        self.silent = "not asked yet"
        self.bad = 0
        """Commands and answers that cannot be read."""
        self.done = 0
        """Commands of others that were done here."""
        self._store = store
        self._members = members
        self._stream = store.key("commands")
        self._turn = asyncio.Lock()
        self._after = ""
        self._begun = json.dumps({"ok": False, "error": _BEGUN, _BEGUN: secrets.token_hex(8)})
        self._unsaid: dict[str, Answer] = {}
        """What was done here while the store was silent: said when the command is read again."""

    def others(self, to: str = "") -> list[str]:
        """List the other hosts that a command is for: all, or the one. Raises ValueError."""
        known = self._members()
        if to and to not in {*known, self.host}:
            raise ValueError(f"host {to}: no host of the fleet; known are {', '.join(sorted({*known, self.host}))}")
        return [name for name in sorted(known) if name != self.host and to in {"", name}]

    async def tell(self, request: Request, to: str = "", *, asks: bool = False) -> Told:
        """Have the others do it, and wait for those that are there. Raises ValueError.

        `asks`: who hears of it late does nothing, for nobody waits for what it says.
        """
        wanted = self.others(to)
        there = self._members()
        entry = {"host": self.host, "to": to, "request": json.dumps(dict(request)), "asks": str(int(asks))}
        try:
            async with self._turn, self._store.answering():
                number = str(await self._store.redis.xadd(self._stream, entry, maxlen=MOST, approximate=True))  # type: ignore[arg-type]  # text to text
                await self._store.redis.expire(self._stream, int(STILL_DONE))
        except StoreSilent as error:
            return Told({}, dict.fromkeys(wanted, f"perhaps not told: the fleet's store is silent: {error}"))
        said = await self._answers(number, {name for name in wanted if there[name]})
        answers = {name: answer for name, answer in said.items() if answer is not None}
        late = f"does it when it is back within {STILL_DONE / 3600:g} h"
        why = {name: f"no answer within {ANSWERED_WITHIN:g} s" if there[name] else "not there" for name in wanted}
        why = {name: f"{reason}; {late}" for name, reason in why.items()}
        why |= dict.fromkeys(said, "has begun with it, and not said what came of it")
        return Told(answers, {name: why[name] for name in wanted if name not in answers})

    async def _answers(self, number: str, wanted: set[str]) -> dict[str, Answer | None]:
        """By host; None of one that has begun."""
        found: dict[str, Answer | None] = {}
        loop = asyncio.get_running_loop()
        ends = loop.time() + ANSWERED_WITHIN
        while True:
            with contextlib.suppress(StoreSilent):  # it was told: that the store is slow for a moment does not end it
                async with self._turn, self._store.answering():
                    said: Any = await self._store.redis.hgetall(self._answer(number))
                read = {str(host): self._read(text) for host, text in said.items()}
                found = {host: None if _BEGUN in answer else answer for host, answer in read.items()}
            if wanted <= {host for host, answer in found.items() if answer is not None} or loop.time() >= ends:
                return found
            await asyncio.sleep(_LOOK)

    def _read(self, text: str) -> Answer:
        try:
            return read_answer(text)
        except ValueError as error:
            self._is_bad(error)
            return {"ok": False, "error": str(error)}

    def _is_bad(self, error: ValueError) -> None:
        self.bad += 1
        if self.bad == 1:
            _LOG.warning("a host says to a command what we cannot read: %s", error)

    async def run(self) -> None:
        """Do what others tell until cancelled. What fails is read again."""
        try:
            while goes_on():
                try:
                    await self._listen()
                except StoreSilent as error:
                    if not self.silent:
                        _LOG.warning("commands of other hosts are not heard: %s", error)
                    self.silent = str(error)
                except Exception:  # noqa: BLE001  # an error of ours here must not end core: it answers Postfix
                    _LOG.exception("commands of other hosts")
                await asyncio.sleep(TRY_AGAIN * random.uniform(0.5, 1.0))
        finally:
            await self._store.close()

    async def _listen(self) -> None:
        """Raises StoreSilent."""
        listener, watchers = self._store.clients(wait=None)
        try:
            async with listener:
                listening = await self._store.listening(listener)
                while goes_on():
                    await self._take(listener)
                    listening.check()
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreSilent(said_by(error) or "the reader's connection gave no sign of life") from error
        finally:
            await close_all(watchers)

    async def _take(self, listener: Redis) -> None:
        at = await self._now()
        oldest = f"{int(1_000 * (at - STILL_DONE))}-0"
        newest = f"{int(1_000 * at)}-0"
        # A place ahead of the clock is of another server: what this one has is looked through, and done where it was not.
        after = self._after if self._after and _place(oldest) <= _place(self._after) <= _place(newest) else oldest
        goes_on()  # the client may have taken a stop for a fault of the connection, and what follows may take its time
        async with asyncio.timeout(LISTENS + ANSWER_WITHIN):
            found: Any = await listener.xread({self._stream: after}, count=AT_ONCE, block=int(1_000 * LISTENS))
        self.silent = ""
        for number, fields in found[0][1] if found else ():
            if fields.get("host") != self.host and fields.get("to") in {"", self.host}:
                await self._do(str(number), fields)
            self._after = str(number)

    async def _now(self) -> float:
        """By the store's clock."""
        async with self._turn, self._store.answering():
            seconds, micro = await self._store.redis.time()
            return float(seconds) + float(micro) / 1e6

    async def _do(self, number: str, fields: Mapping[str, str]) -> None:
        """Raises StoreSilent."""
        late = max(0.0, await self._now() - _place(number)[0] / 1_000)
        asks = fields.get("asks") == "1"
        kept = int(ASKED if asks else 2 * STILL_DONE)
        if number not in self._unsaid:
            if (asks and late > ASKED) or not await self._begins(number, kept):
                return
            self._unsaid[number] = await self._answered(fields, late)
            self.done += 1
        async with self._turn, self._store.answering():
            await self._store.redis.hset(self._answer(number), self.host, json.dumps(self._unsaid[number]))
            await self._store.redis.expire(self._answer(number), kept)  # the store may have forgotten that it was begun
        del self._unsaid[number]

    async def _begins(self, number: str, kept: int) -> bool:
        """Whether this host has not begun with it before. Raises StoreSilent."""
        async with self._turn, self._store.answering():
            begun: Any = await self._store.redis.eval(
                _BEGIN, 1, self._answer(number), self.host, self._begun, str(kept)
            )
        return bool(int(begun))

    async def _answered(self, fields: Mapping[str, str], late: float) -> Answer:
        try:
            request = _request(fields, late)
        except ValueError as error:
            self._is_bad(error)
            return {"ok": False, "error": str(error)}
        try:
            if request.get("seconds") is not None and request["seconds"] <= 0:
                raise ValueError(f"its time was over {-request['seconds']:.0f} s before it was heard here")  # noqa: TRY301  # answered as what `do` raises
            assert self.do is not None  # core sets it before it runs us
            return {"ok": True, **await self.do(request)}
        except ValueError as error:
            return {"ok": False, "error": str(error)}
        except Exception as error:  # noqa: BLE001  # a bug in one command must not end core
            _LOG.exception("a command of host %s", fields.get("host"))
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}

    def _answer(self, number: str) -> str:
        return self._store.key(f"answers:{number}")


def _request(fields: Mapping[str, str], late: float) -> dict[str, Any]:
    """Read what another host tells; `late`: seconds since it did. Raises ValueError."""
    request = reading.read(fields.get("request", ""), "command", dict)
    if request.get("seconds") is not None:
        request["seconds"] = reading.number(request["seconds"]) - late
    return {**request, "who": f"host {fields.get('host', '')} ({request.get('who', '')})"}


def read_answer(text: str) -> Answer:
    """Read what another host says to a command. Raises ValueError."""
    return reading.read(text, "answer", _answer_of, longest=LONGEST)


def _answer_of(values: Mapping[str, Any]) -> Answer:
    if not reading.flag(values["ok"]):
        reading.text(values["error"])
    return values


def _place(identifier: str) -> tuple[int, ...]:
    return tuple(map(int, identifier.split("-")))
