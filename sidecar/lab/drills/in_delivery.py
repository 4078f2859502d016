"""Messages that an agent is delivering while they are put on hold, however that delivery ends.

The file keeps its lock, the outcome is written into it, and Postfix removes it only after a release.
"""

import asyncio
import time
from collections.abc import Iterator

from sidecar.lab.drills import levers
from sidecar.lab.drills.drill import Drill, DrillError, all_delivered, until
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench
from sidecar.lab.scenario import Fault, FaultKind

_KEY = "dkim-domain:burst.example@google"
_LONG_PAUSE = 60.0


async def _under_way(bench: Bench, seconds: float) -> None:
    """Deliveries of so many seconds in every slot, everything on hold, and the pause lasts longer than they."""
    await levers.slots_filled(bench, seconds)
    await levers.by_hand(bench, "pause", _KEY, seconds=_LONG_PAUSE)
    await levers.on_hold(bench, 90)


async def _ends_well(bench: Bench) -> None:
    """250: delivered, and the file leaves hold although the sub-queue is still paused."""
    levers_forgiven = asyncio.create_task(_accept_second_wave(bench))
    await _under_way(bench, 6)
    await levers_forgiven
    await _finished_leave(bench)
    await levers.drained(bench)


async def _accept_second_wave(bench: Bench) -> None:
    """The limit is lifted after the first refusals have been decided and before the next deliveries are."""
    await until(lambda: len(bench.ledger.attempts) >= 2 * levers.SLOTS, "first deliveries begun", 20)
    await asyncio.sleep(0.5)
    levers.accept(bench)


async def _ends_in_deferral(bench: Bench) -> None:
    await _under_way(bench, 6)
    await until(lambda: len(bench.ledger.refused) >= 4 * levers.SLOTS - 3, "second refusals", 20)
    await asyncio.sleep(1)
    if held := await levers.held_by_us(bench) != 97:
        raise DrillError(f"{held} messages are held by our books, 97 were not yet delivered")
    await levers.drained(bench)


async def _ends_in_refusal(bench: Bench) -> None:
    """550: it bounces during the hold, once, and is removed without waiting for the end of the pause."""
    refusal = Fault(
        at=0, kind=FaultKind.REFUSE, target="google", reply="550 5.1.1 The email account does not exist"
    )
    task = asyncio.create_task(_refuse_second_wave(bench, refusal))
    await _under_way(bench, 6)
    await task
    await until(lambda: len(bench.follower.log.bounced) >= 2 * levers.SLOTS, "bounces", 20)
    bench.providers["google"].faults.remove(refusal)
    await _finished_leave(bench)
    await levers.drained(bench)
