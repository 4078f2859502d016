"""IP pools: transports that share mail by weight, and which of them a message goes over.

Knows rendezvous hashing: what goes over a member is decided by its own name and the key alone, so that one that comes or
leaves moves its own share and no other mail. Who is out, and for which provider, the caller says.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

from policies.routing import POOL


class Sticky(StrEnum):
    SENDING_DOMAIN = "sending-domain"
    """All mail of an organizational domain keeps to one member."""
    NONE = "none"
    """Each message by itself."""


class Member(NamedTuple):
    transport: str
    weight: float = 1.0
    """Its share of the mail is its weight in that of all members."""


class Pool(NamedTuple):
    name: str
    members: tuple[Member, ...]
    sticky: Sticky = Sticky.NONE
    otherwise: str = ""
    """Transport of mail that no member takes; "": as Postfix sends all other."""


class PassedOver(NamedTuple):
    transport: str
    why: str


class Choice(NamedTuple):
    transport: str
    """"" is normal delivery."""
    passed: tuple[PassedOver, ...] = ()
    """Members that come first by their hash, and did not take it."""


Refuses = Callable[[str, float], str]
"""Why a transport takes no such message, "" where it does. Beside it is given the luck of the message there: a number
from 0 to below 1, always the same for the same key, so that a member that takes a growing share takes ever more of the
same mail.
"""


def checked(pools: Iterable[Pool]) -> dict[str, Pool]:
    """Give them by name. Raises ValueError that says which is wrong, and what would be right."""
    found: dict[str, Pool] = {}
    for pool in pools:
        if pool.name in found:
            raise ValueError(f"pool {pool.name}: there are two of this name; wanted one")
        if not pool.members:
            raise ValueError(f"pool {pool.name}: no transports; wanted at least one")
        transports = [member.transport for member in pool.members]
        twice = next((name for name in transports if transports.count(name) > 1), "")
        if twice:
            raise ValueError(f"pool {pool.name}: {twice} is in it twice; wanted once, with the weight of both")
        light = next((member for member in pool.members if not 0 < member.weight < math.inf), None)
        if light is not None:
            raise ValueError(f"pool {pool.name}: {light.transport}: weight {light.weight:g}, wanted above 0")
        if pool.otherwise.startswith(POOL):
            raise ValueError(f"pool {pool.name}: otherwise: {pool.otherwise}: wanted a transport, not another pool")
        found[pool.name] = pool
    return found


def choose(pool: Pool, key: str, refuses: Refuses) -> Choice:
    """Give the first member by its hash that takes it; where none does, what the pool says for that case."""
    passed: list[PassedOver] = []
    for transport, luck in ranked(pool, key):
        why = refuses(transport, luck)
        if not why:
            return Choice(transport, tuple(passed))
        passed.append(PassedOver(transport, why))
    return Choice(pool.otherwise, tuple(passed))


def ranked(pool: Pool, key: str) -> tuple[tuple[str, float], ...]:
    """Give the members in the order in which a key wants them, each with the key's luck there.

    Each draws an exponential of its weight, and the least is first: that is first as often as its weight says, whatever
    the others draw (weighted rendezvous hashing).
    """
    drawn = []
    for transport, weight in pool.members:
        draw, luck = lots(transport, key)
        drawn.append((-math.log(draw) / weight, transport, luck))
    drawn.sort()
    return tuple((transport, luck) for _, transport, luck in drawn)


def lots(name: str, key: str) -> tuple[float, float]:
    """Draw two independent numbers above 0 and below 1 for a name and a key: the same ones on every host, for ever."""
    digest = hashlib.blake2b(f"{name}\0{key}".encode("utf-8", "surrogateescape"), digest_size=12).digest()
    return (int.from_bytes(digest[:6]) + 0.5) / 2**48, (int.from_bytes(digest[6:]) + 0.5) / 2**48
