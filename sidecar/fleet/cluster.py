"""Redis Cluster as the fleet uses it: all that a fleet shares lies in one slot, so one node has it, with one clock and one life.

It knows how that node is found: any node that is asked for a key says who has it. A client asks each time it connects, so a
failover or a slot that has moved costs no more than a connection.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection
from redis.exceptions import AskError, MovedError, RedisError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from sidecar.fleet.address import Cluster, Place


def in_one_slot(prefix: str) -> str:
    """Give a prefix of which the part in braces alone says where a key lies (Redis Cluster specification, hash tags).

    Raises ValueError where none can be made of it: what stands in the first braces of a key must not be empty.
    """
    opened = prefix.find("{")
    if 0 <= opened < prefix.find("}", opened + 1) - 1:
        return prefix
    if not prefix or prefix.startswith("}"):
        raise ValueError(
            f"with fleet.prefix = {prefix!r} a Cluster would spread the fleet's keys over all its nodes; wanted a prefix "
            f"that is not empty and does not begin with }}, as {prefix.lstrip('}') or 'sidecar'!r}"
        )
    return f"{{{prefix}}}"


def said_by(error: Exception) -> str:
    """Give what a store's error says, for people.

    While our slot is being moved its keys are at two servers, of two clocks and two lives: no host can go by that, so nobody is sent after
    them, and the store counts as silent until the move is over.
    """
    if isinstance(error, AskError | TryAgainError):
        return (
            f"the slot with the fleet's keys is being moved to another node of the Cluster ({error}); "
            "if that was broken off: redis-cli --cluster fix"
        )
    return str(error)


def client_of(named: Cluster, owner: "Owner", options: Mapping[str, Any]) -> Redis:
    """Make a client of the node that has the owner's key, whichever that is when it connects."""
    account = {"username": named.user or None, **({"password": named.password} if named.password else {}), **options}
    kind = _TlsToOwner if named.tls else _ToOwner
    return Redis.from_pool(
        ConnectionPool(connection_class=kind, owner=owner, asking={**account, "ssl": named.tls}, **account)
    )


class Owner:
    """Finds the node that has a key; clients that share one learn from each other whom to ask."""

    def __init__(self, nodes: Sequence[Place], key: str) -> None:
        self._nodes = deque(nodes)
        self._key = key

    async def find(self, options: Mapping[str, Any]) -> Place:
        """Ask one node after the other, by a client with these options; the first that knows is believed.

        Raises ConnectionError of redis-py where none says. Who hangs is asked last when we are asked again: our caller
        gives up on all of it in a second.
        """
        said: Exception | None = None
        for _ in range(len(self._nodes)):
            node = self._nodes[0]
            self._nodes.rotate(-1)
            try:
                found = await self._ask(node, options)
            except (RedisError, OSError, TimeoutError) as error:
                said = error
                continue
            self._nodes.rotate(1)
            return found
        raise RedisConnectionError(f"no node of the Cluster says who has the fleet's keys: {said}") from said

    def doubt(self) -> None:
        """Ask another node first: whom the last one named was not to be had."""
        self._nodes.rotate(-1)

    async def _ask(self, node: Place, options: Mapping[str, Any]) -> Place:
        async with Redis(host=node.host, port=node.port, **options) as client:
            try:
                await client.get(self._key)
            except MovedError as moved:  # without a host it is the one that was asked, at another port
                return Place(str(moved.host) or node.host, int(moved.port))
        return node


class _ToOwner(Connection):
    def __init__(self, *, owner: Owner, asking: Mapping[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self._owner = owner
        self._asking = asking

    async def connect(self) -> None:
        if not self.is_connected:
            self.host, self.port = await self._owner.find(self._asking)
        try:
            await super().connect()  # type: ignore[no-untyped-call]  # of the library
        except BaseException:  # also where it hangs, and our caller has given up
            self._owner.doubt()
            raise


class _TlsToOwner(_ToOwner, SSLConnection):
    """The same with TLS."""
