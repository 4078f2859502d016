"""Rule 1, with everything that keeps messages long in the queue manager's memory: slow slots, few processes, delays.

Each of these loses mail silently when what was taken from there comes back by the clock: after the pause, by an
admin's `release all`, or at once.
"""

import asyncio
import random
import time
from collections.abc import Iterator

from sidecar.lab.drills import levers
from sidecar.lab.drills.drill import Drill, DrillError, until
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.patience import longer
from sidecar.lab.run import Bench

_SCALE = 30
"""With it Comcast's pause takes 10 s, and the engine has Postfix reloaded after 20 s without a proof."""
_KEY = "sender-domain:burst.example@comcast"
_GOOGLE_KEY = "dkim-domain:burst.example@google"


async def _waits_for_proof(bench: Bench) -> None:
    """An admin releases all while most of it is still in core; the proof of each message is there to wait for."""
    await levers.by_hand(bench, "release")
    await levers.drained(bench)
    if await levers.changes(bench, "reload"):
        raise DrillError("Postfix was reloaded; the proof of each message was there to wait for")


async def _paused_no_more(bench: Bench) -> None:
    deadline = time.monotonic() + longer(30)
    while await levers.state_of(bench, _KEY) in {"", "paused"}:
        if time.monotonic() > deadline:
            raise DrillError(f"{_KEY}: still paused after {longer(30):g} s")
        await asyncio.sleep(0.2)


async def _slow_slots(bench: Bench) -> None:
    await levers.slots_filled(bench, 16)
    await levers.on_hold(bench, 70)
    await _paused_no_more(bench)
    await _waits_for_proof(bench)


async def _two_processes(bench: Bench) -> None:
    await levers.slots_filled(bench, 16, before=6, slots=2)
    await levers.on_hold(bench, 30)
    await _paused_no_more(bench)
    await _waits_for_proof(bench)


async def _rate_delay(bench: Bench) -> None:
    """A second passes between two deliveries, also between two that find their file gone."""
    await levers.on_hold(bench, 15)
    await _waits_for_proof(bench)


async def _two_recipients(bench: Bench) -> None:
    """One recipient is deferred at once, the other waits for a slot: somebody's slow deliveries have those."""
    somebody = bench.scenario.senders()[1]
    dice = random.Random(bench.scenario.seed)
    levers.slow(bench, 18)
    for i in range(levers.SLOTS):
        message = bench.fleet.compose(somebody, dice)._replace(recipients=(f"pupil{i}@school.example",))
        await bench.fleet.submit(message)
    await until(lambda: len(bench.ledger.attempts) >= levers.SLOTS, "all slots taken", levers.PATIENCE_S)
    await asyncio.sleep(0.3)
    for provider in bench.providers.values():
        provider.faults.clear()
    await until(lambda: len(bench.follower.log.deferred) >= 10, "10 deferrals", levers.PATIENCE_S)
    await levers.by_hand(bench, "pause", _GOOGLE_KEY, seconds=30)
    await asyncio.sleep(3)
    await levers.drained(bench)


async def _at_once(bench: Bench) -> None:
    """The admin sees the sub-queue open and releases all in the same second."""
    await levers.slots_filled(bench, 8)
    await levers.on_hold(bench, 100)
    await levers.drained(bench)


async def _to_and_fro(bench: Bench) -> None:
    """Pause, release, close and pause again, within a second, while mail goes on arriving."""
    dice = random.Random(bench.scenario.seed)
    (sender,) = bench.scenario.senders()
    await levers.slots_filled(bench, 8)
    await levers.on_hold(bench, 100)
    ends = time.monotonic() + 15
    while time.monotonic() < ends:
        for do in ("release", "pause", "release", "close", "pause"):
            await bench.fleet.submit(bench.fleet.compose(sender, dice))
            await levers.by_hand(bench, do, "all" if do == "release" else _GOOGLE_KEY)
            await asyncio.sleep(dice.choice((0.0, 0.05, 0.4, 0.9)))
    await levers.by_hand(bench, "close", _GOOGLE_KEY)
    await levers.drained(bench)


async def _reload(bench: Bench) -> None:
    """`postfix reload` while an admin's release waits for a proof: it is one, and comes long before the slots are free."""
    await levers.slots_filled(bench, 20)
    await levers.on_hold(bench, 150)
    await levers.by_hand(bench, "release")
    await asyncio.sleep(3)
    on_hold = bench.follower.log.on_hold
    waiting = len(on_hold)
    await asyncio.to_thread(bench.postfix.reload)
    # Not all of them at once: mail that nothing holds any more leaves as Postfix gets it delivered.
    await until(lambda: len(on_hold) <= waiting - levers.SLOTS, "mail that the old queue manager had released", 12)
    await levers.drained(bench)


def _at_least(count: int, evidence: Evidence) -> Iterator[str]:
    taken = len(levers.taken_while_active(evidence))
    if taken < count:
        yield f"only {taken} messages were taken that the queue manager had; the trap did not close"


def _many_taken(evidence: Evidence, figures: Figures) -> Iterator[str]:
    del figures
    yield from _at_least(70, evidence)


def _some_taken(evidence: Evidence, figures: Figures) -> Iterator[str]:
    del figures
    yield from _at_least(15, evidence)


_SOMEBODY = """
recipients = 2
[[sender]]
domain = "somebody.example"
burst = 1
to = ["google"]
"""

DRILLS = (
    Drill(
        "slow-slots",
        "what waits behind deliveries that outlast the pause is released only after the agents' warnings",
        levers.campaign("slow-slots", provider="comcast", scale=_SCALE),
        _slow_slots,
        _many_taken,
    ),
    Drill(
        "slow-slots-two-processes",
        "the same with a transport of two processes",
        levers.campaign(
            "slow-slots-two-processes",
            burst=50,
            provider="comcast",
            scale=_SCALE,
            main_cf=["default_transport = few"],
            master_cf=["few unix - - n - 2 smtp"],
        ),
        _two_processes,
        _some_taken,
    ),
    Drill(
        "slow-slots-rate-delay",
        "the same with a destination rate delay, where a message leaves core each second",
        levers.campaign(
            "slow-slots-rate-delay",
            burst=22,
            takes=1,
            provider="comcast",
            scale=20,
            main_cf=["smtp_destination_rate_delay = 1s"],
        ),
        _rate_delay,
        _some_taken,
    ),
    Drill(
        "slow-slots-two-recipients",
        "a message with a recipient that still waits for a slot is not taken",
        levers.campaign("slow-slots-two-recipients", burst=60, at=3, takes=25, sender=_SOMEBODY),
        _two_recipients,
    ),
    Drill(
        "release-at-opening",
        "an admin's release in the moment of opening waits for the proof, too",
        levers.campaign("release-at-opening", burst=200),
        _at_once,
        _many_taken,
    ),
    Drill(
        "hold-and-release",
        "hold and release of the same messages within a second, again and again",
        levers.campaign("hold-and-release", burst=200),
        _to_and_fro,
        _many_taken,
    ),
    Drill(
        "reload-while-held",
        "a new queue manager is a proof; what an agent still delivers stays on hold",
        levers.campaign("reload-while-held", burst=200),
        _reload,
        _many_taken,
    ),
)
