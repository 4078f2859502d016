"""The store's disk is full, or its file is damaged or gone when core starts: mail does not notice.

Without a store nothing new is held; what is held leaves on time, and each delivery line is counted once in the end.
"""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from sidecar import held_record
from sidecar.lab.drills import levers
from sidecar.lab.drills.drill import Drill, DrillError, until
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

_KEY = "dkim-domain:burst.example@google"
_DISK_MB = 8


@contextlib.asynccontextmanager
async def _small_disk(bench: Bench) -> AsyncIterator[Path]:
    """The store's directory on a disk of its own, in the lab's own mounts; gives a file that fills it."""
    sidecar = levers.sidecar_of(bench)
    store = sidecar.directory / "store"
    await sidecar.stop()
    for file in store.iterdir():
        file.unlink()
    await asyncio.to_thread(_run, "mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m,mode=0755", "lab", str(store))
    try:
        await sidecar.start()
        yield store / "ballast"
    finally:
        await sidecar.stop()
        copy = store.with_name("store.copy")
        await asyncio.to_thread(shutil.copytree, store, copy)
        await asyncio.to_thread(_run, "umount", str(store))
        store.rmdir()
        copy.rename(store)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _fill(ballast: Path) -> None:
    """Leave no space, and none that the store has already: it would write its log ahead over and over in that."""
    with contextlib.closing(sqlite3.connect(ballast.with_name("core.db"))) as store:
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


async def _failing(bench: Bench) -> None:
    """Wait until core says that its store takes no writes."""
    for _ in range(100):
        if (await levers.sidecar_of(bench).ask("health"))["store"]:
            return
        await asyncio.sleep(0.1)
    raise DrillError("core has not noticed within 10 s that its disk is full; the trap did not close")


async def _full_while_held(bench: Bench) -> None:
    """Mail is held, then the disk is full: more mail comes, all of it leaves, and only then is there space again."""
    (sender,) = bench.scenario.senders()
    async with _small_disk(bench) as ballast:
        await levers.on_hold(bench, 80)
        await levers.by_hand(bench, "pause", _KEY, seconds=60)
        await asyncio.to_thread(_fill, ballast)
        held = len(bench.follower.log.held)
        await bench.fleet.burst(sender)
        await _failing(bench)
        await asyncio.sleep(1)
        if len(bench.follower.log.answered) > 50:
            raise DrillError("arriving mail is held although its intent cannot be stored")
        if len(bench.follower.log.held) > held + 50:
            raise DrillError("queued mail is taken although its intent cannot be stored")
        await levers.by_hand(bench, "release")
        await levers.flushed(bench)
        ballast.unlink()
        await levers.counted_once(bench)


async def _full_at_opening(bench: Bench) -> None:
    """Full before anything is refused: nothing is held until there is space, and then the queued mail is taken."""
    async with _small_disk(bench) as ballast:
        await asyncio.to_thread(_fill, ballast)
        await until(lambda: len(bench.ledger.refused) >= 20, "refusals", levers.PATIENCE_S)
        await _failing(bench)
        await asyncio.sleep(2)
        if bench.follower.log.held:
            raise DrillError(f"{len(bench.follower.log.held)} messages were held though intent cannot be stored")
        ballast.unlink()
        await levers.on_hold(bench, 80)
        await levers.drained(bench)
        await levers.counted_once(bench)


async def _restarted_without(bench: Bench, harm: Callable[[Path], None], *, kill: bool) -> None:
    """Core starts with a store that knows nothing of what is on hold, most of it taken from core a moment ago."""
    await levers.slots_filled(bench, 16)
    await levers.on_hold(bench, 100)
    sidecar = levers.sidecar_of(bench)
    await (sidecar.kill() if kill else sidecar.stop())
    harm(sidecar.directory / "store" / "core.db")
    await sidecar.start()
    await _adopted(bench)
    await levers.drained(bench)


async def _adopted(bench: Bench) -> None:
    """Wait until core has found again what it held."""
    for _ in range(80):
        held = len(list(bench.postfix.queue_files("hold")))
        if (found := await levers.held_by_us(bench)) == held:
            return
        await asyncio.sleep(0.1)
    raise DrillError(f"core knows {found} of {held} held messages after 8 s")


async def _truncated(bench: Bench) -> None:
    """What was in it is read again from the log that is still there."""
    await _restarted_without(bench, lambda store: os.truncate(store, store.stat().st_size // 2), kill=False)
    if not list((levers.sidecar_of(bench).directory / "store").glob("core.db.damaged-*")):
        raise DrillError("no damaged store was set aside; the trap did not close")
    await levers.counted_once(bench)


async def _emptied(bench: Bench) -> None:
    await _restarted_without(bench, lambda store: os.truncate(store, 0), kill=False)


async def _deleted(bench: Bench) -> None:
    at: list[float] = []

    def delete(store: Path) -> None:
        at.append(time.time())
        for file in store.parent.glob("core.db*"):
            file.unlink()

    await _restarted_without(bench, delete, kill=True)
    (lost,) = at
    noticed = min(change["time"] for change in await levers.changes(bench, "adopted"))
    bench.times |= {"detect_s": round(noticed - lost, 1), "recover_s": round(time.time() - lost, 1)}


async def _removed(bench: Bench) -> None:
    """Everything in the directory is removed under the living sidecar, the helper's record as well.

    Core has it all in memory and goes on; within a minute the record names again what is on hold. Then all is killed.
    """
    sidecar = levers.sidecar_of(bench)
    await levers.on_hold(bench, 197)
    await levers.by_hand(bench, "pause", _KEY, seconds=3_000)
    for file in (sidecar.directory / "store").iterdir():
        file.unlink()
    record = sidecar.directory / "store" / "held.record"
    await until(lambda: len(held_record.read(record).live) == 197, "the record names what is on hold", 120)
    await sidecar.kill()
    await sidecar.start()
    await _adopted(bench)
    await levers.drained(bench)


def _expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    del figures
    taken = len(levers.taken_while_active(evidence))
    if taken < 80:
        yield f"only {taken} messages were taken that the queue manager had; the trap did not close"


DRILLS = (
    Drill(
        "disk-full-while-held",
        "with a full disk held mail leaves on time, nothing new is held, and no event is lost",
        levers.campaign("disk-full-while-held", at=5),
        _full_while_held,
        _expects,
    ),
    Drill(
        "disk-full-at-opening",
        "with a full disk nothing is held, and later no event is counted twice",
        levers.campaign("disk-full-at-opening", at=5),
        _full_at_opening,
        _expects,
    ),
    Drill(
        "store-truncated",
        "a damaged store is set aside, what is held is found again, and the log is read again",
        levers.campaign("store-truncated", burst=200),
        _truncated,
        _expects,
    ),
    Drill(
        "store-emptied",
        "an empty store knows nothing, and what is held is found again",
        levers.campaign("store-emptied", burst=200),
        _emptied,
        _expects,
    ),
    Drill(
        "store-lost",
        "without its store core asks for a proof of each held message before it lets it go",
        levers.campaign("store-lost", burst=200),
        _deleted,
        _expects,
    ),
    Drill(
        "store-removed",
        "the helper's record is written again from core's memory, so that nothing stays on hold for ever",
        levers.campaign("store-removed", burst=200, seconds=300),
        _removed,
        _expects,
    ),
)
