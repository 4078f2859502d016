"""Several Postfix hosts whose sidecars share a store, with the clock in the test's hand: modelled queues, the engines
and the protocol as they are; only the store is a stand-in that swaps texts, or is gone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from policies.fleet.book import Book, attend
from policies.fleet.host import Host
from policies.fleet.roll import Roll, enrol
from policies.fleet.terms import ROUND
from policies.key import Key
from policies.subqueue import SubQueue
from tests.world import Judge, World


@dataclass
class Store:
    server: str = "server-1"
    ahead: float = 50_000.0
    """Of the hosts' clocks, seconds."""
    answers: bool = True
    texts: dict[str, str] = field(default_factory=dict)


class Fleet:
    def __init__(self, count: int, judge: Judge, *, scale: float = 1.0) -> None:
        self.store = Store()
        self.worlds = [World(judge, scale=scale) for _ in range(count)]
        self.hosts: list[Host] = []
        self.cut: set[str] = set()
        self._stirred: set[str] = set()
        self._count = 0
        for number, world in enumerate(self.worlds):
            self.hosts.append(self._host(number, world))
        for _ in range(2):  # who never met cannot know what a majority is
            for host in self.hosts:
                self._enrol(host)

    def _host(self, number: int, world: World) -> Host:
        host = Host(f"host-{number}", world.engine, steady=_Steady(world, 1_000.0 * number))
        host.stirred = lambda: self._stirred.add(host.name)
        return host

    @property
    def now(self) -> float:
        return self.worlds[0].now

    @property
    def at(self) -> float:
        return self.now + self.store.ahead

    def run(self, seconds: float, *, step: float = 0.5, each: Callable[[], None] = lambda: None) -> None:
        for _ in range(int(seconds / step)):
            self._count += 1
            for world in self.worlds:
                world.run(step, step=step)
            for number, host in enumerate(list(self.hosts)):
                if (self._count + number) % int(ROUND / step) == 0 or host.name in self._stirred:
                    self._stirred.discard(host.name)
                    self.round(host)
            each()

    def round(self, host: Host) -> None:
        """As the exchange goes it: the roll, then the books that are due."""
        due = host.look(list(host.parts))
        if not self.store.answers or host.name in self.cut:
            return
        self._enrol(host)
        for key in due:
            self._attend(host, key)

    def _enrol(self, host: Host) -> None:
        text = self.store.texts.get("roll", "")
        roll = enrol(Roll.read(text) if text else None, host.contact.asking(), server=self.store.server, at=self.at)
        self.store.texts["roll"] = roll.text()
        host.contact.answered(roll, at=self.at, sent=host.steady(), now=host.steady())

    def _attend(self, host: Host, key: Key) -> None:
        text, wish = self.store.texts.get(str(key), ""), host.wish(key)
        before = Book.read(text) if text else None
        book = attend(before, wish, host.contact.standing, server=self.store.server, at=self.at)
        self.store.texts[str(key)] = book.text()
        host.answered(key, book, wish, at=self.at, sent=host.steady(), now=self.now)
        if before is None or before.row != book.row:
            for other in self.hosts:
                if other is not host and other.name not in self.cut:
                    other.heard(book.row, at=self.at, now=self.now)

    def kill(self, number: int) -> None:
        """A host's power is gone, with all that it holds."""
        del self.hosts[number]
        del self.worlds[number]

    def reborn(self, number: int) -> None:
        """A host's sidecar begins again, from what it stored."""
        world = self.worlds[number]
        for sub in world.engine.subqueues.all():
            assert isinstance(sub.machine, SubQueue)
            sub.machine.fleet = None
        self.hosts[number] = self._host(number, world)

    def restart(self) -> None:
        """The store dies and another takes its place, empty, with another clock."""
        self.store = Store(server=self.store.server + "+", ahead=self.store.ahead - 20_000.0)

    # What came of it.

    @property
    def delivered(self) -> int:
        return sum(sum(world.delivered.values()) for world in self.worlds)

    @property
    def deferrals(self) -> int:
        return sum(world.deferrals for world in self.worlds)

    @property
    def lost(self) -> int:
        return sum(len(world.silently_lost) for world in self.worlds)

    @property
    def duplicates(self) -> int:
        return sum(world.duplicates for world in self.worlds)

    def states(self, key: Key) -> list[str]:
        subs = [world.engine.subqueues.get(key) for world in self.worlds]
        return [str(sub.machine.state) if sub else "closed" for sub in subs]


class _Steady:
    """A host's clock that nobody sets: it began somewhere else on each."""

    def __init__(self, world: World, began: float) -> None:
        self._world, self._began = world, began

    def __call__(self) -> float:
        return self._world.now - self._began
