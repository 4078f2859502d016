"""Which page of the fleet each incident of this host belongs to, over a restart too; and what it has the other hosts know of that.

It asks the store of the fleet, and decides nothing: `policies.fleet.trouble` knows what belongs together.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from parsers.feeds.dnsbl import Severity
from policies.fleet.page import Page
from policies.fleet.trouble import ENTERED, Troubles
from policies.incidents import Incident
from sidecar.fleet.redis_store import Read, Swap
from sidecar.incident_store import IncidentStore

T = TypeVar("T")

PAGE: Final = "page:"
TROUBLES: Final = "troubles"
TRIES: Final = 4


class Store(Protocol):
    """What is wanted of `RedisStore`. Each raises StoreSilent."""

    async def read(self, names: Sequence[str]) -> list[Read]: ...

    async def swap(self, swaps: Sequence[Swap]) -> list[Read | None]: ...


class _Entered(NamedTuple):
    """When an incident was entered among the troubles, in which life of the store, with how many alerts."""

    at: float
    """By our steady clock."""
    server: str
    members: int


class PageNames:
    def __init__(
        self, store: Store, rows: IncidentStore, *, steady: Callable[[], float], unread: Callable[[ValueError], None]
    ) -> None:
        """`unread` hears of texts of the store that cannot be read. Raises StoreError."""
        self._store = store
        self._rows = rows
        self._steady = steady
        self._unread = unread
        self._page_of: dict[int, str] = rows.pages_of()
        """By incident; it stays there."""
        self._kept = dict(self._page_of)
        self._entered: dict[int, _Entered] = {}

    def page_of(self, incident: Incident) -> str:
        """Name it; its own key where it is not known yet. Any thread may ask."""
        return self._page_of.get(incident.id, incident.dedup_key)

    def by_page(self, ours: Iterable[Incident]) -> dict[str, Incident]:
        """Give the worst of our incidents of each page, as far as that is known."""
        graver_last = sorted(ours, key=lambda each: (list(Severity).index(each.severity), each.id), reverse=True)
        return {self._page_of[each.id]: each for each in graver_last if each.id in self._page_of}

    async def find(self, ours: Sequence[Incident], *, server: str) -> None:
        """Find the pages of incidents that are new, and have it known what ours are about. Raises StoreSilent.

        `server`: the store's life, as known last.
        """
        due = [each for each in ours if self._is_due(each, server)]
        pages: dict[int, str] = {}
        for _ in range(TRIES if due else 0):
            asked = self._steady()
            (read,) = await self._store.read([TROUBLES])
            known = self._readable(read.text, Troubles.read) or Troubles()
            pages, entered = await self._found(due, known, at=read.at)
            swap = Swap(TROUBLES, read, entered.text())
            if entered is known or (await self._store.swap([swap])) == [None]:
                self._entered |= {each.id: _Entered(asked, read.server, len(each.members)) for each in due}
                break
        for number, page in pages.items():  # also where others were quicker each time: it must not wait
            self._page_of.setdefault(number, page)

    async def _found(
        self, due: Sequence[Incident], troubles: Troubles, *, at: float
    ) -> tuple[dict[int, str], Troubles]:
        new = {each.id: troubles.candidates(each, at=at) for each in due if each.id not in self._page_of}
        names = list(dict.fromkeys(name for candidates in new.values() for name in candidates))
        reads = await self._store.read([PAGE + name for name in names]) if names else []
        pages = {name: self._readable(read.text, Page.read) or Page() for name, read in zip(names, reads, strict=True)}
        going_on = {name for name, page in pages.items() if troubles.goes_on(name, page, at=at)}
        found: dict[int, str] = {}
        for each in due:
            likely = (name for name in new.get(each.id, ()) if name in going_on)
            found[each.id] = self._page_of.get(each.id) or next(likely, each.dedup_key)
            troubles = troubles.entered(found[each.id], each, at=at)
        return found, troubles

    def _is_due(self, incident: Incident, server: str) -> bool:
        was = self._entered.get(incident.id)
        if was is None or incident.id not in self._page_of:
            return True
        late = self._steady() - was.at >= ENTERED
        return late or was.server != server or was.members != len(incident.members)

    def by_itself(self, incident: Incident) -> str:
        """Have it be a page of its own if it belongs to none yet; the page. Any thread may call."""
        return self._page_of.setdefault(incident.id, incident.dedup_key)

    def keep(self, incidents: Iterable[Incident]) -> Mapping[int, str]:
        """Write down which pages our incidents belong to; those that are new. Raises StoreUnavailable."""
        known = {each.id for each in incidents}
        new = {
            number: page
            for number, page in self._page_of.copy().items()
            if number in known and self._kept.get(number) != page
        }
        gone = self._kept.keys() - known
        if new or gone:
            self._rows.put_pages_of(new, gone)
        self._kept |= new
        for number in gone:
            del self._kept[number]
            self._page_of.pop(number, None)
            self._entered.pop(number, None)
        return new

    def _readable(self, text: str, read: Callable[[str], T]) -> T | None:
        try:
            return read(text) if text else None
        except ValueError as error:
            self._unread(error)
            return None
