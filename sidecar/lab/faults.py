"""What the faults of a scenario do, one entry a kind."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sidecar.lab.scenario import Fault, FaultKind

if TYPE_CHECKING:
    from sidecar.lab.run import Bench


async def happen(fault: Fault, bench: "Bench") -> None:
    """Wait for the fault's time, then let it happen."""
    await asyncio.sleep(fault.at)
    await _KINDS[fault.kind](fault, bench)


async def _at_provider(fault: Fault, bench: "Bench") -> None:
    provider = bench.providers[fault.target]
    provider.faults.append(fault)
    if fault.seconds:
        await asyncio.sleep(fault.seconds)
        provider.faults.remove(fault)


async def _reload(fault: Fault, bench: "Bench") -> None:
    del fault
    await asyncio.to_thread(bench.postfix.reload)


async def _restart(fault: Fault, bench: "Bench") -> None:
    del fault
    await asyncio.to_thread(bench.postfix.stop)
    await asyncio.to_thread(bench.postfix.start)


async def _rotate(fault: Fault, bench: "Bench") -> None:
    del fault
    await asyncio.to_thread(bench.postfix.rotate_log)


async def _kill(fault: Fault, bench: "Bench") -> None:
    if bench.attachment is not None:
        await bench.attachment.kill()
        await asyncio.sleep(fault.delay)
        await bench.attachment.start()


async def _freeze(fault: Fault, bench: "Bench") -> None:
    if bench.attachment is not None:
        bench.attachment.freeze()
        await asyncio.sleep(fault.delay)
        bench.attachment.thaw()


_KINDS: dict[FaultKind, Callable[[Fault, "Bench"], Awaitable[None]]] = {
    FaultKind.GREETING_DELAY: _at_provider,
    FaultKind.TARPIT: _at_provider,
    FaultKind.SLOW_DATA: _at_provider,
    FaultKind.DROP: _at_provider,
    FaultKind.REFUSE: _at_provider,
    FaultKind.RELOAD: _reload,
    FaultKind.RESTART: _restart,
    FaultKind.KILL: _kill,
    FaultKind.FREEZE: _freeze,
    FaultKind.ROTATE: _rotate,
}
