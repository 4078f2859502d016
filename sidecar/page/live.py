"""Tells open pages that something changed (server-sent events); they then ask for themselves again.

Knows when core's picture and the stores' files change; looks only while somebody watches.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from sidecar.config import Config
from sidecar.page.picture import Picture, Watch

STREAMS_MAX = 24
"""Of 64 connections: whoever comes later asks now and then."""
_EVERY = 2.0
_BEAT = 15.0
"""Seconds of silence after which a word is said, so that a dead connection is noticed."""
_LASTS = 1800.0
"""Seconds until a stream ends, for its user to be asked again who that is."""


class Live:
    def __init__(self, config: Config, watch: Watch, *, every: float = _EVERY) -> None:
        self._watch = watch
        self._every = every
        self._files = tuple(_with_log(path) for path in (config.core_database, config.outside_database))
        self._changed = asyncio.Event()
        self._number = 0
        self._streams = 0
        self._looking: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        return self._streams >= STREAMS_MAX

    async def events(self) -> AsyncIterator[bytes]:
        """One stream, from now on."""
        loop = asyncio.get_running_loop()
        self._streams += 1
        self._looking = self._looking or asyncio.create_task(self._look())
        ends = loop.time() + _LASTS
        try:
            yield b"retry: 5000\n\n"
            while loop.time() < ends:
                try:
                    async with asyncio.timeout(_BEAT):
                        await self._changed.wait()
                except TimeoutError:
                    yield b": still here\n\n"
                else:
                    yield b"event: changed\ndata: %d\n\n" % self._number
        finally:
            self._streams -= 1
            if not self._streams and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        """Wake all streams at each change, as long as there are some."""
        before: tuple[Picture, tuple[float, ...]] | None = None
        while True:
            picture = await self._watch.look()
            seen = picture, tuple(_modified(path) for files in self._files for path in files)
            if before is not None and not (picture.same_as(before[0]) and seen[1] == before[1]):
                self._number += 1
                self._changed.set()
                self._changed = asyncio.Event()
            before = seen
            await asyncio.sleep(self._every)


def _with_log(path: Path) -> Sequence[Path]:
    return path, path.with_name(f"{path.name}-wal")


def _modified(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0
