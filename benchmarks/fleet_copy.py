"""How soon a host that missed changes of the suppression list has a copy of another's, and for how long it holds its loop meanwhile.

    python benchmarks/fleet_copy.py [--entries 100000]

Two processes, each as much of core as has to do with the list, at a real Redis.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path

from sidecar.core import spare_the_collector
from sidecar.fleet.commands import FleetCommands
from sidecar.fleet.redis_store import RedisStore
from tests.redis_world import running_server, until
from tests.suppression_core import core
from tests.test_fleet_suppressions import Host, host

NAMES = ["mx1", "mx2"]
WITHIN = 600.0


def give(folder: Path, url: str, entries: int, parent: Connection) -> None:
    spare_the_collector()
    asyncio.run(_give(folder, url, entries, parent))


async def _give(folder: Path, url: str, entries: int, parent: Connection) -> None:
    directory = folder / NAMES[0]
    directory.mkdir()
    (directory / "suppression.key").write_text("00" * 16)
    async with core(directory) as before:  # what is added here nobody tells the other
        for start in range(0, entries, 500):
            rows = [{"address": f"user{number}@x.example"} for number in range(start, min(start + 500, entries))]
            await before.ask("add", rows=rows)
    async with host(folder, NAMES[0], url) as mine, _asked(mine, url):
        parent.send("ready")
        loop, held = asyncio.get_running_loop(), asyncio.create_task(_held())
        await loop.run_in_executor(None, parent.recv)
        held.cancel()
        parent.send((await held, _cpu()))


@contextlib.asynccontextmanager
async def _asked(mine: Host, url: str) -> AsyncIterator[FleetCommands]:
    commands = FleetCommands(mine.shared.host, RedisStore(url), lambda: dict.fromkeys(NAMES, True))
    commands.do = mine.shared.page
    task = asyncio.create_task(commands.run())
    try:
        yield commands
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _held() -> float:
    """Tell, when cancelled, for how long at most the loop was held by others."""
    most = 0.0
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            most = max(most, time.perf_counter() - began - 0.005)
    return most


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(folder: Path, entries: int) -> None:
    async with running_server(folder) as server:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        other = context.Process(target=give, args=(folder, server.url, entries, theirs), daemon=True)
        other.start()
        await asyncio.to_thread(ours.recv)
        async with host(folder, NAMES[1], server.url) as mine, _asked(mine, server.url) as commands:
            await until(lambda: not mine.shared.silent, within=WITHIN)
            mine.shared.commands = commands
            held, began, used = asyncio.create_task(_held()), time.monotonic(), _cpu()
            mine.shared.hearing.missed.add("another")
            mine.shared._is_missing()  # noqa: SLF001  # as what it reads would have it
            await until(lambda: not mine.shared.hearing.missed, within=WITHIN)
            took, used = time.monotonic() - began, _cpu() - used
            held.cancel()
            most = await held
            ours.send("done")
            most_there, _ = ours.recv()
            print(
                f"{mine.shared.copied} entries copied in {took:.1f} s; the loop was held for at most {1e3 * most:.0f} ms, the "
                f"other's {1e3 * most_there:.0f} ms; {used:.1f} s of processor time here; load {os.getloadavg()[0]:.1f}"
            )
        other.join(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000)
    arguments = parser.parse_args()
    spare_the_collector()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), arguments.entries))


if __name__ == "__main__":
    main()
