"""Whatever happens at the queue, in whatever order: nothing is lost, doubled, or held for good."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parsers.postfix import facts
from policies.engine import Engine
from policies.messages import Place
from sidecar import rules
from sidecar.rows import gather, restore
from sidecar.store import Store
from tests.world import GOOGLE_DKIM, RULES, File, World

SENDERS = ("burst.example", "steady.example", "other.example")
RECIPIENTS = ("gmail.com", "comcast.net", "yahoo.com")
COMCAST = "451 4.2.0 Throttled - try again later. http://postmaster.comcast.net/smtp-error-codes.php#RL000010"
LONG_ENOUGH = 200_000.0
SOAK = int(os.environ.get("SOAK", "1"))
"""How many times longer the properties are searched; `make soak` sets it."""


class Play:
    """A world, providers whose mood the test sets, and a store for restarts."""

    def __init__(self, store: Store) -> None:
        self.refused: set[tuple[str, str]] = set()
        self.world = World(self.judge)
        self.store = store

    def judge(self, domain: str, provider: str, _: float) -> str | None:
        if (domain, provider) not in self.refused:
            return None
        return GOOGLE_DKIM.format(domain=domain) if provider == "google" else COMCAST

    def submit(self, sender: str, domains: list[str], count: int, *, policy: bool) -> None:
        for i in range(count):
            recipients = [f"u{i}-{j}@{domain}" for j, domain in enumerate(domains)]
            self.world.submit(f"news@{sender}", recipients, policy=policy)

    def mood(self, sender: str, provider: str) -> None:
        self.refused ^= {(sender, provider)}

    def wait(self, seconds: float) -> None:
        self.world.run(seconds, step=max(0.5, seconds / 200))

    def wait_for_all(self) -> None:
        """Let time pass until everything has left, or the longest that anything may be held is over."""
        end = self.world.now + LONG_ENOUGH
        while self.left() and self.world.now < end:
            self.world.run(500.0, step=10.0)

    def left(self) -> list[File]:
        return [file for file in self.world.files.values() if not file.by_admin]

    def release(self) -> None:
        self.world.engine.orders.release(None, by_whom="test", now=self.world.now)

    def reload(self) -> None:
        self.world.reload()

    def slow(self) -> None:
        self.world.transaction = 700.0

    def quick(self) -> None:
        self.world.transaction = 0.3

    def admin_holds(self) -> None:
        """`postsuper -h` of every other deferred message."""
        for file in [file for file in self.world.files.values() if file.queue == "deferred"][::2]:
            file.queue, file.by_admin = "hold", True
            self._say(facts.Held, file.queue_id, "admin", "", "", "", "")

    def admin_releases(self) -> None:
        """`postsuper -H` of what is on hold and not in core: whoever does it to the rest loses it by himself."""
        for file in [file for file in self.world.files.values() if file.queue == "hold" and not file.locked]:
            if file.queue_id not in self.world.core:
                file.queue, file.by_admin = "deferred", False
                self._say(facts.Released, file.queue_id)
                self.world.due(file, self.world.now + 0.3)

    def _say(self, kind: Callable[..., facts.Fact], queue_id: str, *rest: str) -> None:
        self.world.say(lambda record: kind(record, queue_id, *rest), "postsuper")

    def restart(self) -> None:
        """Core is stopped and comes back with what it stored, and a look at the queue."""
        commit = gather(self.world.engine, None, now=self.world.now)
        if commit is not None:
            self.store.commit(commit)
        fresh = Engine(RULES, rules.organizational_domain, self.world.engine.settings)
        restore(fresh, self.store)
        self.world.engine = fresh
        ours = {row.queue_id: row.keys[0] for row in self.store.holds() if row.keys}
        fresh.listed(self.world.listing(ours), now=self.world.now)


@contextmanager
def playing() -> Iterator[Play]:
    with tempfile.TemporaryDirectory() as directory:
        store = Store.open(Path(directory) / "core.db")
        try:
            yield Play(store)
        finally:
            store.close()


def step(
    name: str, *arguments: st.SearchStrategy[object], **named: st.SearchStrategy[object]
) -> st.SearchStrategy[object]:
    return st.tuples(st.just(name), st.tuples(*arguments), st.fixed_dictionaries(named))


STEPS = st.lists(
    st.one_of(
        step(
            "submit",
            st.sampled_from(SENDERS),
            st.lists(st.sampled_from(RECIPIENTS), min_size=1, max_size=3),
            st.integers(1, 30),
            policy=st.booleans(),
        ),
        step("mood", st.sampled_from(SENDERS), st.sampled_from(("google", "comcast"))),
        step("wait", st.sampled_from((0.4, 3.0, 40.0, 400.0, 4000.0))),
        *map(step, ("release", "reload", "slow", "quick", "admin_holds", "admin_releases", "restart")),
    ),
    min_size=3,
    max_size=20,
)


@settings(max_examples=25 * SOAK, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_nothing_is_lost_doubled_or_held_for_good(
    steps: list[tuple[str, tuple[object, ...], dict[str, object]]],
) -> None:
    with playing() as play:
        for name, arguments, named in steps:
            getattr(play, name)(*arguments, **named)
        assert play.world.silently_lost == []
        assert play.world.duplicates == 0
        for sub in play.world.engine.subqueues.all():
            assert sub.held == sum(sub.key in message.held_under for message in play.world.engine.books.ours)
        play.refused.clear()
        play.quick()
        play.wait_for_all()
        assert play.world.silently_lost == []
        assert play.world.duplicates == 0
        assert play.left() == []


@settings(max_examples=8 * SOAK, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(0, 4))
def test_restoring_equals_never_having_stopped(bursts: list[int], stop_after: int) -> None:
    def story(*, stops: bool) -> list[tuple[str, str, int]]:
        with playing() as play:
            play.mood("burst.example", "google")
            for i, count in enumerate(bursts):
                play.submit("burst.example", ["gmail.com"], count, policy=True)
                play.wait(200.0)
                if stops and i == stop_after:
                    play.restart()
            play.mood("burst.example", "google")
            play.wait(4_000.0)
            states = play.world.engine.subqueues.all()
            return [(str(sub.key), str(sub.machine.state), sub.held) for sub in states] + [
                ("", "", sum(play.world.delivered.values()))
            ]

    assert story(stops=True) == story(stops=False)


def test_what_was_on_hold_before_us_is_not_ours() -> None:
    with playing() as play:
        queue_id = play.world.submit("news@steady.example", ["u@gmail.com"])
        play.world.files[queue_id].queue = "hold"
        play.restart()
        message = play.world.engine.messages.get("postfix", queue_id)
        assert message is not None
        assert message.place is Place.FOREIGN
