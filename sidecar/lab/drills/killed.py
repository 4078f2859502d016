"""kill -9 of one process after the other, at moments nobody chose, while a burst is taken and let go.

Every delivery line is counted once all the same, and what was taken from core keeps its protection.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

from sidecar.lab.drills import levers
from sidecar.lab.drills.drill import Drill, DrillError, until
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

Act = Callable[[Bench], Coroutine[Any, Any, None]]

_AGAIN_S = (0.2, 1.4)
"""A process lives so long, at random, before it is killed again."""


def _kill(name: str) -> bool:
    """SIGKILL to what runs under this name; False where nothing does."""
    found = levers.processes(name)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)


async def _again_and_again(bench: Bench, name: str, times: int) -> None:
    """Kill one process of the sidecar; its supervisor waits longer each time, so that is renewed now and then."""
    dice = random.Random(bench.scenario.seed)
    sidecar = levers.sidecar_of(bench)
    for number in range(1, times + 1):
        await asyncio.sleep(dice.uniform(*_AGAIN_S))
        await until(lambda: _kill(name), f"{name} started again", levers.PATIENCE_S)
        if number % 5 == 0:
            await sidecar.stop()
            await sidecar.start()


@contextlib.asynccontextmanager
async def _more_mail(bench: Bench) -> AsyncIterator[None]:
    """Some twenty messages a second of the campaign, after the burst."""

    async def send() -> None:
        (sender,) = bench.scenario.senders()
        dice = random.Random(bench.scenario.seed)
        while True:
            await bench.fleet.submit(bench.fleet.compose(sender, dice))
            await asyncio.sleep(0.05)

    await until(lambda: len(bench.ledger.attempts) >= 1, "the first delivery", levers.PATIENCE_S)
    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _core(bench: Bench) -> None:
    async with _more_mail(bench):
        await _again_and_again(bench, "core", 20)
    await levers.drained(bench)
    await levers.counted_once(bench)


async def _core_and_the_log(bench: Bench) -> None:
    """Postfix's log is rotated and compressed, every other time while core is dead, in the middle of the traffic."""
    dice = random.Random(bench.scenario.seed)
    async with _more_mail(bench):
        for number in range(6):
            await asyncio.sleep(dice.uniform(1.0, 2.0))
            if number % 2:
                await until(lambda: _kill("core"), "core started again", levers.PATIENCE_S)
            await asyncio.to_thread(bench.postfix.rotate_log)
    await levers.drained(bench)
    await levers.counted_once(bench)
    rotated = list(bench.postfix.directory.glob(f"{bench.postfix.maillog.name}.*"))
    if len(rotated) < 6:
        raise DrillError(f"the log was rotated {len(rotated)} times, wanted 6; the trap did not close")


async def _core_and_slow_slots(bench: Bench) -> None:
    """What was held from core stays in core over a restart of ours: only the log, or a new qmgr, proves otherwise."""
    await levers.slots_filled(bench, 16)
    await levers.on_hold(bench, 100)
    await _again_and_again(bench, "core", 5)
    await levers.drained(bench)
    await levers.counted_once(bench)


async def _core_after_the_proof(bench: Bench) -> None:
    """Core has read the proof of each message before it is killed: it need not be given again."""
    await levers.slots_filled(bench, 5)
    await levers.on_hold(bench, 100)
    await until(lambda: len(bench.ledger.refused) >= 77, "slow deliveries refused", levers.PATIENCE_S)
    await asyncio.sleep(3)
    await until(lambda: _kill("core"), "core", levers.PATIENCE_S)
    await asyncio.sleep(3)
    await levers.drained(bench)
    await levers.counted_once(bench)
    if await levers.changes(bench, "reload"):
        raise DrillError("Postfix was reloaded for a proof that core had read before it was killed")


async def _helper(bench: Bench) -> None:
    async with _more_mail(bench):
        await _again_and_again(bench, "queue-helper", 10)
    await levers.drained(bench)
    await levers.counted_once(bench)


async def _queue_manager(bench: Bench) -> None:
    """Also while it has held messages in memory, and others in delivery."""
    await levers.slots_filled(bench, 6)
    dice = random.Random(bench.scenario.seed)
    for _ in range(4):
        await asyncio.sleep(dice.uniform(*_AGAIN_S))
        await until(lambda: _kill("qmgr"), "a queue manager", levers.PATIENCE_S)
        await levers.by_hand(bench, "release")
    await levers.drained(bench)
    await levers.counted_once(bench)


async def _master(bench: Bench) -> None:
    """All of Postfix goes down with it, and is started again at once, while agents are still delivering."""
    await levers.slots_filled(bench, 6)
    await levers.on_hold(bench, 60)
    os.kill(bench.postfix.master_pid(), signal.SIGKILL)
    await asyncio.sleep(1)
    await asyncio.to_thread(bench.postfix.start)
    await levers.drained(bench)
    await levers.counted_once(bench)


async def _everything(bench: Bench) -> None:
    """All processes of the sidecar at once, as the kernel's memory killer or a power switch would."""
    dice = random.Random(bench.scenario.seed)
    sidecar = levers.sidecar_of(bench)
    async with _more_mail(bench):
        for _ in range(8):
            await asyncio.sleep(dice.uniform(0.2, 2.0))
            await sidecar.kill()
            await sidecar.start()
    await levers.drained(bench)
    await levers.counted_once(bench)


def _expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    del figures
    if len(evidence.log.held) < 60:
        yield f"only {len(evidence.log.held)} messages were held; there was nothing to break"


def _drill(name: str, proves: str, act: Act, *, burst: int = 200, scale: float = 60, limit: str = "") -> Drill:
    return Drill(name, proves, levers.campaign(name, burst=burst, scale=scale, limit=limit), act, _expects)


_SOME_PASSES = 'by = "dkim"\nkind = "bucket"\nrate = 10\nburst = 20'
"""So that there are outcomes of all kinds, holds and releases all the time."""


DRILLS = (
    _drill("core-killed", "core killed 20 times: nothing lost, nothing counted twice", _core, limit=_SOME_PASSES),
    _drill(
        "core-killed-log-rotated",
        "no line is lost or read twice as the log moves",
        _core_and_the_log,
        limit=_SOME_PASSES,
    ),
    _drill("core-killed-slow-slots", "a killed core still knows what is in core", _core_and_slow_slots),
    _drill("core-killed-after-proof", "what was proved stays proved", _core_after_the_proof, scale=30),
    _drill("helper-killed", "a command that was cut off may be said again", _helper, limit=_SOME_PASSES),
    _drill("qmgr-killed", "a new queue manager remembers nothing", _queue_manager),
    _drill("master-killed", "Postfix killed and started again, with held mail", _master),
    _drill("sidecar-killed", "all processes killed at once, again and again", _everything, limit=_SOME_PASSES),
)
