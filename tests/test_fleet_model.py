"""The fleet's protocol under all that a network, a store and a host may do: a search for a run that breaks it.

Hosts ask in two steps, as in life: read, then swap. Between any two steps time may pass, a link break, a host stop, a
store restart empty, forget the last seconds, or become two. Host clocks and the stores' clocks share nothing.
"""

from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from policies.fleet.book import Book, Had, Share, Wish, Word, attend, lend, outer, pool
from policies.fleet.replica import Contact, Replica
from policies.fleet.roll import Asking, Roll, enrol
from policies.fleet.row import Row
from policies.fleet.terms import ALONE_AFTER, GRACE, LEASE, ROUND
from policies.key import Key
from policies.limit import Aftermath
from policies.subqueue import State

KEY = Key("dkim-domain", "example.com", "google")
PAUSE = 12.0
TICK = 1.0


@dataclass
class Store:
    name: str
    clock: float
    """Ahead of true time."""
    roll: Roll | None = None
    book: Book | None = None
    kept: tuple[Roll | None, Book | None] = (None, None)
    """What a failover would find."""


@dataclass
class Change:
    """A host's own share in a book, and where `new` is given all but the others' shares."""

    known: Book
    new: Book | None
    mine: Share | None
    wish: Wish
    pooled: float | None

    def done(self, book: Book, *, at: float) -> Book | None:
        """As the store does it when it gets there; None: it does not."""
        led = book.lead is not None and at + 100 * LEASE >= book.lead.expires > at >= book.settled
        same = outer(book, led=self.new is None) == self.known
        mine = book.lent().get(self.wish.host)
        if not same or not (led or self.new is not None):
            return None
        if (mine.expires if mine else None) != (self.mine.expires if self.mine else None):
            return None
        shares = {
            host: share
            for host, share in book.lent().items()
            if at + 100 * LEASE >= share.expires > at or host == self.wish.host
        }
        written = replace(self.new if self.new is not None else book, shares=shares)
        return lend(written, self.wish, self.pooled, at=at)


@dataclass
class Question:
    """One swap on its way: what was read, what is to stand there, when it was asked."""

    store: Store
    server: str
    about: str
    read: Roll | Book | None
    wanted: Roll | Book | Asking | Change
    at: float
    sent: float


@dataclass
class Host:
    name: str
    clock: float
    contact: Contact
    replica: Replica
    store: Store
    linked: bool = True
    alive: bool = True
    need: int = 0
    probe: int | None = None
    """Our token when we let it out; 0: none, we were alone."""
    word: Word | None = None
    had: Had | None = None
    questions: list[Question] = field(default_factory=list)
    read: tuple[Book, Share | None, float, float] | None = None
    """A book as it was read last: all but the shares, ours, when by the store's clock, and by ours."""


class Fleet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.servers = 1
        self.store = Store("server-1", clock=5_000.0)
        self.other: Store | None = None
        self.hosts: list[Host] = []
        self.of_many = False
        """Whether they do as where there are hundreds: each its own share, beside the others'."""
        self.ceilings: list[tuple[float, float]] = []
        """(time, messages/s): what was in force, anywhere."""
        self.minute: list[tuple[float, float]] = []
        """Messages let out and allowed, a TICK each."""

    @initialize(
        count=st.integers(2, 5), ceiling=st.sampled_from([0.5, 10.0, 200.0]), of_many=st.booleans(), data=st.data()
    )
    def begin(self, count: int, ceiling: float, data: st.DataObject, *, of_many: bool) -> None:
        self.of_many = of_many
        row = Row(KEY, State.PAUSED, ceiling, 1, 1, 0.0, PAUSE, "google/rate", "line", "host-0")
        for number in range(count):
            clock = data.draw(st.sampled_from([0.0, -7_200.0, 123_456.0]))
            name = f"host-{number}"
            replica = Replica(row, pause_ends=clock + PAUSE)
            self.hosts.append(Host(name, clock, Contact(name), replica, self.store, need=data.draw(st.integers(0, 50))))
        for host in 2 * self.hosts:  # a fleet that never met cannot know what a majority of it is
            self.round(host)

    # One host's round, whole or in pieces.

    def ask(self, host: Host, about: str) -> None:
        store, sent = host.store, self.now + host.clock
        at = self.now + store.clock
        if about == "entry":
            wanted: Roll | Book | Asking | Change = host.contact.asking()
            read: Roll | Book | None = None
        elif about == "roll":
            wanted = enrol(store.roll, host.contact.asking(), server=store.name, at=at)
            read = store.roll
        else:
            if not host.contact.is_fresh(now=sent) or host.contact.server != store.name:
                return
            wish = host.replica.wish(host.name, need=host.need, word=host.word)._replace(had=host.had)
            if about == "share":
                found = self.renewal(host, wish, sent)
                if found is None:
                    return
                wanted, read = found, None
            else:
                wanted, read = attend(store.book, wish, host.contact.standing, server=store.name, at=at), store.book
                if read is not None:
                    host.read = (outer(read, led=True), read.lent().get(host.name), at, sent)
                if about == "beside" and read is not None and read.server == store.name:
                    wanted = self.beside(host, read, wanted, wish, at)
        host.questions.append(Question(store, store.name, about, read, wanted, at, sent))

    def renewal(self, host: Host, wish: Wish, sent: float) -> Change | None:
        """Give what a host that knows a book from before wants of it, if that is its share alone."""
        if host.read is None:
            return None
        known, mine, at, seen = host.read
        if known.lead is None or known.lead.host == host.name:
            return None
        at += sent - seen
        pooled = pool(known, host.contact.standing, at=at)
        after = attend(known, wish, host.contact.standing, server=known.server, at=at)
        alike = pooled is not None and outer(after, led=True) == known
        return Change(known, None, mine, wish, pooled) if alike else None

    def beside(self, host: Host, read: Book, wanted: Book, wish: Wish, at: float) -> Change:
        """Write what `wanted` says, but for the shares that others have when that gets there."""
        pooled = pool(wanted, host.contact.standing, at=at)
        return Change(outer(read, led=False), outer(wanted, led=False), read.lent().get(host.name), wish, pooled)

    def change(self, host: Host, question: Question, change: Change, *, heard: bool) -> None:
        store, at = question.store, self.now + question.store.clock
        before = store.book
        book = change.done(before, at=at) if before is not None and before.server == store.name else None
        if before is None or book is None:
            return
        store.book = book
        if heard:
            host.read = (outer(book, led=True), book.lent().get(host.name), at, question.sent)
            now = self.now + host.clock
            host.replica.came_from(book, host.name, at=at, sent=question.sent, now=now)
            if change.new is not None:
                host.word = None
            if before.row != book.row:
                self.push(store)

    def swap(self, host: Host, question: Question, *, heard: bool) -> None:
        host.questions.remove(question)
        store = question.store
        if store.name != question.server:
            return
        if question.about == "roll" and store.roll == question.read and isinstance(question.wanted, Roll):
            store.roll = question.wanted
            if heard:
                host.contact.answered(store.roll, at=question.at, sent=question.sent, now=self.now + host.clock)
        elif isinstance(question.wanted, Asking):
            self.enter(host, question, question.wanted, heard=heard)
        elif isinstance(question.wanted, Change):
            self.change(host, question, question.wanted, heard=heard)
        elif store.book == question.read and isinstance(question.wanted, Book):
            before, store.book = store.book, question.wanted
            if heard:
                now = self.now + host.clock
                host.replica.came_from(store.book, host.name, at=question.at, sent=question.sent, now=now)
                host.word = None
                if before is None or before.row != store.book.row:
                    self.push(store)

    def enter(self, host: Host, question: Question, asking: Asking, *, heard: bool) -> None:
        """As the store does it when it gets there: that host's entry alone, in a roll of this life that lacks nobody."""
        store, at = question.store, self.now + question.store.clock
        if store.roll is None or store.roll.server != store.name:
            return
        written = enrol(store.roll, asking, server=store.name, at=at)
        if written.members.keys() != store.roll.members.keys() | {host.name}:
            return
        store.roll = written
        if heard:
            host.contact.answered(store.roll, at=at, sent=question.sent, now=self.now + host.clock)

    def push(self, store: Store) -> None:
        for other in self.hosts:
            if other.linked and other.alive and other.store is store and store.book is not None:
                other.replica.heard(store.book.row, at=self.now + store.clock, now=self.now + other.clock)

    def round(self, host: Host) -> None:
        for about in ("entry", "roll", *(("share", "beside") if self.of_many else ("book",))):
            known = len(host.questions)
            if about != "roll" or host.contact.standing_at < self.now + host.clock:  # the entry alone was not enough
                self.ask(host, about)
            if len(host.questions) > known:
                self.swap(host, host.questions[-1], heard=True)

    def here(self) -> list[Host]:
        return [host for host in self.hosts if host.alive and host.linked]

    def of(self, number: int) -> Host:
        return self.hosts[number % len(self.hosts)]

    @rule(number=st.integers(0, 4), about=st.sampled_from(["roll", "entry", "book", "beside", "share"]))
    def sends(self, number: int, about: str) -> None:
        host = self.of(number)
        if host.alive and host.linked and len(host.questions) < 3:
            self.ask(host, about)

    @rule(number=st.integers(0, 4))
    def sees(self, number: int) -> None:
        """The roll is looked at and not written, because the one that was written has grown old."""
        host = self.of(number)
        if host.alive and host.linked and host.store.roll is not None:
            standing = host.store.roll.standing(at=self.now + host.store.clock)
            host.contact.saw(host.store.roll.server, standing, sent=self.now + host.clock)

    @rule(number=st.integers(0, 4), which=st.integers(0, 2), heard=st.booleans())
    def arrives(self, number: int, which: int, *, heard: bool) -> None:
        """A question gets there, maybe long after it was sent; its answer is dropped when the host gave up on it."""
        host = self.of(number)
        if len(host.questions) > which:
            question = host.questions[which]
            late = self.now + host.clock - question.sent > 3 * ROUND
            self.swap(host, question, heard=heard and host.alive and host.linked and not late)

    @rule(number=st.integers(0, 4), wait=st.sampled_from([1.0, 5.0]), heard=st.booleans(), cut=st.booleans())
    def slow_round(self, number: int, wait: float, *, heard: bool, cut: bool) -> None:
        """All that is asked takes a while; the answers are lost, or the last thing that is heard for some time."""
        host = self.of(number)
        if not host.alive or not host.linked:
            return
        for about in ("roll", "book"):
            if about == "book":
                self.round(host)  # the roll must be fresh
            known = len(host.questions)
            self.ask(host, about)
            self.silence(wait)
            if len(host.questions) > known:
                self.swap(host, host.questions[-1], heard=heard)
        host.linked = not cut

    @rule(number=st.integers(0, 4))
    def lost(self, number: int) -> None:
        self.of(number).questions.clear()

    @rule(seconds=st.sampled_from([1.0, 2.0, 5.0, 7.0, 13.0]))
    def silence(self, seconds: float) -> None:
        """Nobody hears anything."""
        for _ in range(int(seconds / TICK)):
            self.tick()

    @rule(seconds=st.sampled_from([4.0, 8.0, 16.0, 30.0]))
    def work(self, seconds: float) -> None:
        """Everybody who can goes their rounds, and probes, and the provider takes it."""
        for _ in range(int(seconds / TICK)):
            self.tick()
            for number, host in enumerate(self.here()):
                if self.now % ROUND == number % 2:
                    self.round(host)
                    self.act(host)

    def act(self, host: Host) -> None:
        now = self.now + host.clock
        token = host.replica.token(now=now)
        if host.need and host.probe is None and host.replica.may_probe(host.contact, now=now):
            host.probe = token or 0
        elif host.probe is not None:
            self.probe_ended(host, well=True)

    def probe_ended(self, host: Host, *, well: bool) -> None:
        now = self.now + host.clock
        if not well:
            host.replica.refused(host.replica.row.era, PAUSE, rule="google/rate", line="probe", now=now)
        elif host.probe:
            host.word = Word(host.probe, State.RAMPING, host.replica.row.ceiling)
        else:
            host.replica.probed_alone()
        host.probe = None

    # What happens to them.

    @rule(number=st.integers(0, 4), need=st.sampled_from([0, 1, 7, 3000]))
    def held(self, number: int, need: int) -> None:
        self.of(number).need = need

    @rule(number=st.integers(0, 4), short=st.sampled_from([0.0, 1.0, PAUSE / 2]))
    def refusal(self, number: int, short: float) -> None:
        host = self.of(number)
        if host.alive:
            now = self.now + host.clock
            host.replica.refused(host.replica.row.era, PAUSE, short=short, rule="r", line="l", now=now)

    @rule(number=st.integers(0, 4), accepted=st.integers(0, 3))
    def goes_on(self, number: int, accepted: int) -> None:
        """Some of what was under way at the refusal is accepted."""
        host = self.of(number)
        host.had = Had(host.replica.row.era, Aftermath(accepted, 0, 1.0))

    @rule(number=st.integers(0, 4), well=st.booleans())
    def probes(self, number: int, *, well: bool) -> None:
        host = self.of(number)
        if host.alive and host.probe is not None:
            self.probe_ended(host, well=well)

    @rule(number=st.integers(0, 4), factor=st.sampled_from([0.5, 0.97, 1.2, 2.0]))
    def steps(self, number: int, factor: float) -> None:
        host = self.of(number)
        token = host.replica.token(now=self.now + host.clock)
        if host.alive and token is not None and host.replica.row.state is State.RAMPING:
            host.word = Word(token, State.RAMPING, host.replica.row.ceiling * factor)

    @rule(number=st.integers(0, 4))
    def closes(self, number: int) -> None:
        host = self.of(number)
        token = host.replica.token(now=self.now + host.clock)
        if host.alive and token is not None and host.replica.row.state is State.RAMPING:
            host.word = Word(token, State.CLOSED, host.replica.row.ceiling)

    @rule(number=st.integers(0, 4), linked=st.booleans())
    def link(self, number: int, *, linked: bool) -> None:
        self.of(number).linked = linked

    @rule(number=st.integers(0, 4), alive=st.booleans())
    def stopped(self, number: int, *, alive: bool) -> None:
        """It does nothing, with all that it has in hand; what it believes when it wakes is what counts."""
        self.of(number).alive = alive

    @rule(clock=st.sampled_from([5_000.0, 4_000.0, 9_000.0]), memory=st.sampled_from(["all", "some", "none"]))
    def another_server(self, clock: float, memory: str) -> None:
        """The store restarts or fails over: all its memory, that of a while ago, or none; and another clock."""
        self.servers += 1
        kept = {"all": (self.store.roll, self.store.book), "some": self.store.kept, "none": (None, None)}[memory]
        self.store.name, self.store.clock = f"server-{self.servers}", clock
        self.store.roll, self.store.book = kept

    @rule(seconds=st.sampled_from([3_600.0, 864_000.0]))
    def clock_set_back(self, seconds: float) -> None:
        """The store's clock was ahead, and is put right: what is in it was written by the one before."""
        for store in (self.store, self.other):
            if store is not None:
                store.clock -= seconds

    @rule()
    def replicated(self) -> None:
        self.store.kept = (self.store.roll, self.store.book)

    @precondition(lambda self: self.other is None)
    @rule(sides=st.lists(st.booleans(), min_size=5, max_size=5))
    def two_stores(self, sides: list[bool]) -> None:
        """A second primary is made while the first lives, and some hosts go there."""
        self.servers += 1
        roll, book = self.store.kept
        self.other = Store(f"server-{self.servers}", clock=6_000.0, roll=roll, book=book)
        for host, side in zip(self.hosts, sides, strict=False):
            host.store = self.other if side else self.store

    @precondition(lambda self: self.other is not None)
    @rule()
    def one_store(self) -> None:
        """The first primary is told that it is none any more; what it was written is gone."""
        if self.other is not None:
            self.store, self.other = self.other, None
        for host in self.hosts:
            host.store = self.store
            host.questions = [question for question in host.questions if question.store is self.store]

    # What must hold.

    def tick(self) -> None:
        self.now += TICK
        let_out, allowed = self.rates()
        self.minute = [*self.minute[-int(60 / TICK) + 1 :], (let_out * TICK, allowed * TICK)]
        assert sum(out for out, _ in self.minute) <= 1.1 * sum(may for _, may in self.minute) + 1e-6
        self.one_lead()

    def rates(self) -> tuple[float, float]:
        """Give what all hosts let out now, and what the fleet may: the highest ceiling that one of them goes by."""
        going = [
            (rate, host.replica.row.ceiling)
            for host in self.hosts
            if (rate := host.replica.rate(host.contact, now=self.now + host.clock)) > 0
            and host.replica.row.state is not State.CLOSED
        ]
        for book in (store.book for store in (self.store, self.other) if store is not None):
            if book is not None:
                self.ceilings.append((self.now, book.row.ceiling))
        self.ceilings = [(time, ceiling) for time, ceiling in self.ceilings if time >= self.now - LEASE - TICK]
        highest = max([ceiling for _, ceiling in going] + [ceiling for _, ceiling in self.ceilings], default=0.0)
        return sum(rate for rate, _ in going), highest

    @invariant()
    def one_lead(self) -> None:
        leads = [host.name for host in self.hosts if host.replica.token(now=self.now + host.clock) is not None]
        assert len(leads) <= 1, leads

    @invariant()
    def one_budget(self) -> None:
        let_out, allowed = self.rates()
        assert let_out <= allowed * (1 + 1e-9), (let_out, allowed)

    def teardown(self) -> None:
        """Healed: all hosts agree within 5 s, and mail leaves as soon as pause, grace and probe are over."""
        if not self.hosts:
            return
        self.one_store()
        for host in self.hosts:
            host.alive = host.linked = True
            host.questions.clear()
            host.word, host.probe = None, None
        self.work(5.0 - TICK)
        rows = {
            host.replica.row._replace(since=0.0, until=0.0) for host in self.hosts
        }  # those are of the store's clock
        assert len(rows) == 1, rows
        self.hosts[0].need = 10
        self.work(2 * PAUSE + GRACE + 3 * LEASE + ALONE_AFTER)
        assert self.hosts[0].replica.rate(self.hosts[0].contact, now=self.now + self.hosts[0].clock) > 0
        ramping = self.hosts[0].replica.row
        if ramping.state is State.RAMPING:  # and the budget is made use of
            assert self.rates()[0] > 0.9 * ramping.ceiling


Fleet.TestCase.settings = settings(
    max_examples=120, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
test_the_protocol_holds = Fleet.TestCase
