"""Redis (or Valkey) as the fleet uses it: texts that are read with the server's time and swapped if nobody was quicker,
and texts that are pushed. It knows no rule about what they say.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from sidecar.fleet.address import Sentinels, cluster, sentinels
from sidecar.fleet.cluster import Owner, client_of, in_one_slot, said_by

ANSWER_WITHIN = 1.0
"""Seconds. Later than that an answer is given up on; leases last several times as long."""
KEPT = 7 * 86_400
"""Seconds for which the store keeps what nobody has touched."""
_UNNAMED: Final[Mapping[str, Any]] = {"driver_info": None} if find_spec("redis.driver_info") else {}
"""A newer client tells its own name and version on each connection, looks them up on the disk first, and all of a fleet
connect anew at once; our account may not say that."""
LISTENS = 5.0
"""Seconds of silence on the listener's connection after which it has to prove that it lives."""

# One key a script, so that a Cluster can run it anywhere. `run_id` names a life of the server: it changes with each
# restart, and a replica that takes over has its own.
STAND = """
local function stand()
  local time, life = redis.call('TIME'), string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  return {life, time[1], time[2], redis.call('GET', KEYS[1]) or ''}
end
"""
_READ = STAND + "return stand()"
_SWAP = (
    STAND
    + """
local now = stand()
if now[1] ~= ARGV[1] or now[4] ~= ARGV[2] then return now end
redis.call('SET', KEYS[1], ARGV[3], 'EX', ARGV[4])
return {}
"""
)


class StoreSilent(ConnectionError):  # noqa: N818  # named for the situation: mail flows on
    """The store did not answer in time, or not as one; `str` says what happened."""


def goes_on() -> bool:
    """Whether nobody has asked us to stop. Raises CancelledError: the client took that for a fault of the connection."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return True


class Read(NamedTuple):
    server: str
    at: float
    """By the server's clock."""
    text: str
    """Empty where there is none."""


class Swap(NamedTuple):
    """Put `text` where `read` was read from."""

    name: str
    read: Read
    text: str


class Listening(NamedTuple):
    """To which life of a server we listen, and since when by the loop's clock.

    A server that was cut off from the others keeps its connections, and says nothing to them.
    """

    server: str
    since: float
    fleet_server: Callable[[], str]

    def check(self) -> None:
        """Raises ConnectionError where the fleet goes by another server, and has had the time to notice ours."""
        wanted = self.fleet_server()
        if wanted not in {"", self.server} and asyncio.get_running_loop().time() - self.since >= LISTENS:
            raise ConnectionError("the fleet goes by another server than the one that we listened to")


class RedisStore:
    """One connection for questions, of one task; each listener has its own."""

    def __init__(self, url: str, *, prefix: str = "sidecar", password: str = "") -> None:
        """`url` as `sidecar.fleet.address` reads it; a `password` goes before the URL's. Raises ValueError."""
        self._cluster = cluster(url)
        self._prefix = prefix if self._cluster is None else in_one_slot(prefix)
        self._url = url
        self._sentinels = sentinels(url)
        self._password = password
        self._owner = Owner(self._cluster.nodes, self.key("roll")) if self._cluster is not None else None
        self.fleet_server: Callable[[], str] = lambda: ""
        """Tells the life of the server that the fleet goes by; "" where that is not known now."""
        # All that is asked is asked in `answering`. A wait of the client's own would be a task for each question that is sent, and a
        # timer for each answer.
        self.redis, self._watchers = self.clients(wait=None)

    def clients(self, *, wait: float | None) -> tuple[Redis, list[Redis]]:
        """Make a client of the server, and those of the Sentinels that tell where it is."""
        options: dict[str, Any] = {
            "socket_timeout": wait,
            "socket_connect_timeout": ANSWER_WITHIN,
            "retry": Retry(NoBackoff(), 0),  # a question that is sent twice may be answered twice
            "decode_responses": True,
            "encoding_errors": "surrogateescape",  # a sender's domain may have bytes that are no UTF-8, and is in keys
            **_UNNAMED,
        }
        if self._password:
            options["password"] = self._password
        if self._sentinels is not None:
            return self._watched(self._sentinels, options)
        if self._cluster is not None and self._owner is not None:
            return client_of(self._cluster, self._owner, options), []
        return Redis.from_url(self._url, **options), []

    def _watched(self, named: Sentinels, options: dict[str, Any]) -> tuple[Redis, list[Redis]]:
        given = {"db": named.database, "username": named.user or None, "ssl": named.tls}
        if named.password:
            given["password"] = named.password
        timeouts = {"socket_timeout": ANSWER_WITHIN, "socket_connect_timeout": ANSWER_WITHIN}
        watchers = Sentinel(  # type: ignore[no-untyped-call]  # of the library
            list(named.hosts), sentinel_kwargs={**timeouts, "ssl": named.tls, **_UNNAMED}
        )
        return watchers.master_for(named.name, **{**given, **options}), watchers.sentinels

    async def read(self, names: Sequence[str]) -> list[Read]:
        """Read texts, in the order asked for. Raises StoreSilent."""
        return [read_of(found) for found in await self.run([(_READ, name, ()) for name in names])]

    async def swap(self, swaps: Sequence[Swap]) -> list[Read | None]:
        """Swap texts; None where that was done, else what stands there meanwhile. Raises StoreSilent."""
        calls = [(_SWAP, swap.name, (swap.read.server, swap.read.text, swap.text, str(KEPT))) for swap in swaps]
        return [read_of(found) if found else None for found in await self.run(calls)]

    async def texts(self, names: Sequence[str]) -> tuple[float, list[str]]:
        """Read texts, one or more, as `read` does, cheaply for the server; and its time by then. Raises StoreSilent."""
        async with self.answering():
            pipe = self.redis.pipeline(transaction=False)
            pipe.eval(_READ, 1, self.key(names[0]))
            for name in names[1:]:
                pipe.get(self.key(name))
            first, *rest = await pipe.execute()
            return (stand := read_of(first)).at, [stand.text, *(str(text or "") for text in rest)]

    async def put(self, name: str, text: str) -> None:
        """Write a text that nobody else writes. Raises StoreSilent."""
        async with self.answering():
            await self.redis.set(self.key(name), text, ex=KEPT)

    async def push(self, texts: Sequence[str]) -> None:
        """Raises StoreSilent."""
        async with self.answering():
            pipe = self.redis.pipeline(transaction=False)
            for text in texts:
                pipe.publish(self._channel, text)
            await pipe.execute()

    async def names(self, begins: str) -> list[str]:
        """List the names of texts that begin so. Raises StoreSilent."""
        found: list[str] = []
        cursor: Any = 0
        while True:
            async with self.answering():
                cursor, keys = await self.redis.scan(cursor, match=f"{_literal(self.key(begins)[:-1])}*", count=1_000)
            found += [str(key).removeprefix(f"{self._prefix}:{{").removesuffix("}") for key in keys]
            if not int(cursor):
                return list(dict.fromkeys(found))

    async def pushed(self) -> AsyncGenerator[str, None]:
        """Give what is pushed from now on, first an empty text once we listen. Raises StoreSilent when that ends."""
        listener, watchers = self.clients(wait=None)
        try:
            async with listener:
                listening = await self.listening(listener)
                async with listener.pubsub() as channel, aclosing(self._messages(channel, listening)) as messages:
                    async for text in messages:
                        yield text
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreSilent(said_by(error) or "the listener's connection gave no sign of life") from error
        finally:
            await close_all(watchers)

    async def listening(self, listener: Redis) -> "Listening":
        """See which server a client of one connection is connected to."""
        async with asyncio.timeout(ANSWER_WITHIN):
            said: Any = await listener.info("server")
        return Listening(str(said["run_id"]), asyncio.get_running_loop().time(), self.fleet_server)

    async def _messages(self, channel: Any, listening: "Listening") -> AsyncGenerator[str, None]:
        async with asyncio.timeout(ANSWER_WITHIN):
            await channel.subscribe(self._channel)
        asked = listens = False
        while True:
            silence = ANSWER_WITHIN if asked else LISTENS
            async with asyncio.timeout(silence + LISTENS):  # a client whose connection ended makes another, and waits
                message = await channel.get_message(timeout=silence)
                if message is None:
                    if asked:
                        raise TimeoutError
                    await channel.ping()
            asked = message is None
            listening.check()
            if message is not None and message["type"] == "subscribe":
                if listens:
                    raise ConnectionError("the listener's connection ended, and the next one may be to another server")
                listens = True
                yield ""
            elif message is not None and message["type"] == "message":
                yield message["data"]

    async def close(self) -> None:
        await close_all([self.redis, *self._watchers])

    @property
    def _channel(self) -> str:
        return f"{self._prefix}:rows"

    def key(self, name: str) -> str:
        """Give what the server knows a text as."""
        return f"{self._prefix}:{{{name}}}"

    async def run(self, calls: Sequence[tuple[str, str, tuple[str, ...]]]) -> list[Any]:
        """Run scripts, each on its key, in one go. Raises StoreSilent."""
        async with self.answering():
            pipe = self.redis.pipeline(transaction=False)
            for script, name, values in calls:
                pipe.eval(script, 1, self.key(name), *values)
            return await pipe.execute()

    @contextlib.asynccontextmanager
    async def answering(self) -> AsyncGenerator[None, None]:
        """Give up after ANSWER_WITHIN, and the connection with it: a late answer must not be taken for the next."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                yield
        except (RedisError, OSError, TimeoutError) as error:
            with contextlib.suppress(RedisError, OSError):
                await self.redis.connection_pool.disconnect()
            raise StoreSilent(said_by(error) or f"no answer within {ANSWER_WITHIN:g} s") from error


async def close_all(clients: Sequence[Redis]) -> None:
    for client in clients:
        with contextlib.suppress(RedisError, OSError):
            await client.aclose()


def read_of(found: Sequence[str]) -> Read:
    """Take what a script gave of `stand()`."""
    life, seconds, micro, text = found
    return Read(life, int(seconds) + int(micro) / 1e6, text)


def _literal(text: str) -> str:
    """Escape what a pattern of SCAN would take for more than itself."""
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in text)
