"""Domains that are looked for in Postfix's own tables before list hygiene judges them: whether they are strangers.

Knows what was found and for how long it holds; who asks is never kept waiting, and what is not known is no stranger.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

HOLDS: Final = 600.0
"""Seconds that an answer holds: a domain that moves in is taken in then at the latest."""
AGAIN: Final = 60.0
"""Seconds until a look-up that failed is tried again."""
_MOST: Final = 20_000
_MOST_WANTED: Final = 1_000


class Wanted(NamedTuple):
    instance: str
    domain: str


class Strangers:
    def __init__(self) -> None:
        self._known: OrderedDict[Wanted, tuple[bool, float]] = OrderedDict()
        """Whether it is a stranger, and until when that holds."""
        self._wanted: dict[Wanted, None] = {}

    def is_stranger(self, instance: str, domain: str, *, now: float) -> bool:
        """Whether the tables are known not to name a domain; where that is not known, it is looked for from now on."""
        place = Wanted(instance, domain)
        known = self._known.get(place)
        if known is not None and now < known[1]:
            return known[0]
        if len(self._wanted) < _MOST_WANTED:
            self._wanted[place] = None
        return known is not None and known[0]  # while it is looked for anew, the old answer counts

    def take(self) -> list[Wanted]:
        """Give what is to be looked for."""
        wanted, self._wanted = list(self._wanted), {}
        return wanted

    def learn(self, place: Wanted, *, stranger: bool | None, now: float) -> None:
        """Take an answer; None: nobody could say."""
        self._known.pop(place, None)
        if len(self._known) >= _MOST:
            self._known.popitem(last=False)
        self._known[place] = (bool(stranger), now + (AGAIN if stranger is None else HOLDS))
