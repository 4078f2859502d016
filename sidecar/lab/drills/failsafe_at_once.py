"""The sidecar dies just after a burst, with most of the mail taken from core: `sidecar failsafe --now` gives it back.

It has the helper's record; in the second drill core.db is gone as well.
"""

import asyncio
import sys
import time
from collections.abc import Iterator

from sidecar.lab.drills import levers
from sidecar.lab.drills.drill import Drill, DrillError
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.patience import longer
from sidecar.lab.run import Bench


async def _dead_after_the_burst(bench: Bench) -> None:
    await levers.slots_filled(bench, 8)
    await levers.on_hold(bench, 100)
    await levers.sidecar_of(bench).kill()


async def failsafe(bench: Bench) -> str:
    """`sidecar failsafe --now`, as a timer would run it again while something is still in delivery; what it printed.

    Raises DrillError when it does not come to an end.
    """
    deadline = time.monotonic() + longer(40)
    command = ("--config", str(levers.sidecar_of(bench).config_file), "failsafe", "--now", "--rate", "100")
    while True:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed = (await process.communicate())[0].decode(errors="replace").strip()
        if process.returncode == 0:
            return printed
        if process.returncode != 1 or time.monotonic() > deadline:
            raise DrillError(f"sidecar failsafe --now: exit status {process.returncode}: {printed}")
        await asyncio.sleep(3)


async def _core_killed(bench: Bench) -> None:
    await _dead_after_the_burst(bench)
    await failsafe(bench)
    await levers.flushed(bench)


async def _store_gone(bench: Bench) -> None:
    await _dead_after_the_burst(bench)
    for file in (levers.sidecar_of(bench).directory / "store").glob("core.db*"):
        file.unlink()
    await failsafe(bench)
    await levers.flushed(bench)


async def _comes_back(bench: Bench) -> None:
    """While the failsafe lets mail go, staggered, the sidecar is started again; its books name what has left."""
    await _dead_after_the_burst(bench)
    await failsafe(bench)
    await levers.sidecar_of(bench).start()
    await levers.drained(bench)
    await levers.counted_once(bench)


def _expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    del figures
    taken = len(levers.taken_while_active(evidence))
    if taken < 100:
        yield f"only {taken} messages were taken that the queue manager had; the trap did not close"


DRILLS = (
    Drill(
        "failsafe-core-killed",
        "the failsafe has a new queue manager before it gives back what was taken from core",
        levers.campaign("failsafe-core-killed", burst=200),
        _core_killed,
        _expects,
    ),
    Drill(
        "failsafe-store-gone",
        "the failsafe needs the helper's record alone",
        levers.campaign("failsafe-store-gone", burst=200),
        _store_gone,
        _expects,
    ),
    Drill(
        "failsafe-and-back",
        "core that comes back while the failsafe releases neither loses nor holds up anything",
        levers.campaign("failsafe-and-back", burst=200),
        _comes_back,
        _expects,
    ),
)
