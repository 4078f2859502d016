"""Texts of the fleet's store that several hosts write anew, each by what stands there; and who has told a life of the store
all that it holds.

It knows no rule about what they say.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from policies.fleet.terms import ROUND
from sidecar.fleet.redis_store import Read, Swap

TRIES: Final = 4
"""Swaps that another host may be quicker at, one after the other."""


class Store(Protocol):
    """What is wanted of `RedisStore`. Each raises StoreSilent."""

    async def read(self, names: Sequence[str]) -> list[Read]: ...

    async def swap(self, swaps: Sequence[Swap]) -> list[Read | None]: ...

    async def texts(self, names: Sequence[str]) -> tuple[float, list[str]]: ...

    async def put(self, name: str, text: str) -> None: ...

    async def close(self) -> None: ...


class Text(Protocol):
    def text(self) -> str: ...


P = TypeVar("P", bound=Hashable)
T = TypeVar("T", bound=Text)


async def rewrite(
    store: Store, names: Mapping[P, str], make: Callable[[P, Read], T], steady: Callable[[], float]
) -> dict[P, tuple[T, float]]:
    """Write what `make` makes of what stands there; with each the time by `steady` before that was read.

    Those at which others were quicker each time are missing. Raises StoreSilent.
    """
    sent = steady()
    waiting = dict(zip(names, await store.read(list(names.values())), strict=True)) if names else {}
    done: dict[P, tuple[T, float]] = {}
    for _ in range(TRIES):
        if not waiting:
            break
        made = {place: make(place, read) for place, read in waiting.items()}
        again = steady()
        others = await store.swap([Swap(names[place], read, made[place].text()) for place, read in waiting.items()])
        quicker = {place: other for place, other in zip(waiting, others, strict=True) if other is not None}
        done.update((place, (made[place], sent)) for place in waiting if place not in quicker)
        waiting, sent = quicker, again
    return done


class Declaring:
    """Says that all that a host holds is in the books of this store, and hears of who has said so."""

    def __init__(self, store: Store, host: str, prefix: str) -> None:
        """`prefix`: of the names of these texts."""
        self.server = ""
        """The life of the store that we have told what we hold."""
        self.complete = ""
        """... that all hosts have."""
        self._store = store
        self._host = host
        self._prefix = prefix
        self._looked = 0.0

    async def say(self, server: str, members: Collection[str], *, now: float) -> None:
        """All that we hold is in its books. `now`: of our steady clock. Raises StoreSilent."""
        if self.complete == server or now - self._looked < ROUND:
            return
        self._looked = now
        if self.server != server:
            await self._store.put(f"{self._prefix}{self._host}", server)
            self.server = server
        _, said = await self._store.texts([f"{self._prefix}{host}" for host in members])
        if all(each == server for each in said):
            self.complete = server
