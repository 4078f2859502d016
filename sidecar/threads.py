"""Blocking calls beside the event loop, run to their end even when the caller is cancelled."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """Run a call of bounded length in a thread.

    Cancelled, it is cancelled only after the call has returned: what the thread uses may be closed then.
    """
    step = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(step)
    except asyncio.CancelledError:
        await asyncio.wait({step})
        raise
