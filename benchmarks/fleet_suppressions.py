"""How soon all hosts of a fleet suppress what one of them was told to, through a real Redis; five hosts in one process.

python benchmarks/fleet_suppressions.py [--hosts 5] [--times 60] [--imported 10000]
"""

import argparse
import asyncio
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from sidecar.fleet.redis_store import RedisStore
from tests.redis_world import running_server, until
from tests.test_fleet_suppressions import BY_HAND, Host, host

AT_ONCE = 1_000


async def measure(folder: Path, arguments: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_server(folder))
        names = [f"mx{number}" for number in range(arguments.hosts)]
        hosts = [await stack.enter_async_context(host(folder, name, server.url)) for name in names]
        await until(lambda: not any(each.shared.silent for each in hosts), within=60.0)
        took = []
        for number in range(arguments.times):
            began = time.monotonic()
            await hosts[number % len(hosts)].add(f"{number}@x.example")
            await _all_have(hosts, f"{number}@x.example")
            took.append(time.monotonic() - began)
        took.sort()
        print(
            f"one address, on all {len(hosts)}: median {took[len(took) // 2]:.3f} s, most {took[-1]:.3f} of {len(took)}"
        )
        began = time.monotonic()
        for start in range(0, arguments.imported, AT_ONCE):
            await hosts[0].add(*(f"i{each}@x.example" for each in range(start, start + AT_ONCE)))
        imported = time.monotonic() - began
        await _all_have(hosts, f"i{start + AT_ONCE - 1}@x.example")
        print(f"{arguments.imported} imported in {imported:.1f} s, on all hosts after {time.monotonic() - began:.1f} s")
        store = RedisStore(server.url)
        known: Any = await store.redis.info()
        await store.close()
        print(f"Redis: {known['used_memory'] / 1e6:.1f} MB")


async def _all_have(hosts: list[Host], address: str) -> None:
    await until(lambda: all(each.has(address, BY_HAND) for each in hosts), within=300.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=5)
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--imported", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), arguments))


if __name__ == "__main__":
    main()
