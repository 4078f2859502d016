"""Wakes whoever waits on one file: watchdog tells of a change, a timer fires in any case.

Under load each change would cost more to tell than to look for, so the telling is then switched off for a while.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from watchdog.events import FileModifiedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from sidecar.threads import in_thread

TIMER = 0.1
"""Seconds between two looks at a file whose changes are told."""
TIMER_BUSY = 0.005
"""Seconds between two looks while telling rests."""
TIMER_UNTOLD = 0.02
"""Seconds between two looks where changes cannot be told (inotify's limits reached, directory missing)."""

TOLD_PER_SECOND = 200
"""Above this looking every 5 ms is cheaper: watchdog takes some 100 µs for each change, in three threads."""
TOLD_WINDOW = 0.25
REST = 2.0
REST_LONGEST = 60.0
RETRY = 10.0
"""Seconds until telling is tried again after it failed."""

NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "afs", "ocfs2"})
"""Where inotify does not tell what other hosts write."""

logger = logging.getLogger(__name__)


def on_network(path: Path) -> bool:
    """Whether the file lies on a file system of another host (proc(5), mountinfo)."""
    directory = os.path.realpath(path.parent)
    kinds: dict[str, str] = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        mount, _, source = line.partition(" - ")
        kinds[mount.split(" ")[4]] = source.split(" ")[0]
    while directory not in kinds and directory != "/":
        directory = os.path.dirname(directory)  # noqa: PTH120  # a text to look up, not a file
    kind = kinds.get(directory, "")
    return kind in NETWORK_FILE_SYSTEMS or kind.startswith("fuse.")


class FileWatch(FileSystemEventHandler):
    """Use through `watching`."""

    def __init__(self, path: Path, *, network: bool) -> None:
        self._path = path
        self._target = path
        """The file itself, where `path` is a symbolic link."""
        self._network = network
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._observer: BaseObserver | None = None
        self._watch: ObservedWatch | None = None
        self._told = 0
        self._window_began = time.monotonic()
        self._resting_until = 0.0
        self._rest = REST
        self._timer = TIMER

    async def wait(self) -> None:
        """Return when the file changed, or the timer fired."""
        now = time.monotonic()
        if self._watch and now - self._window_began >= TOLD_WINDOW:
            await self._weigh(now)
        elif not self._watch and not self._network and now >= self._resting_until:
            await in_thread(self.arm)
        timer = self._loop.call_later(self._timer, self._changed.set)
        await self._changed.wait()
        timer.cancel()
        # Before the file is read: what is written from here on is told again.
        self._changed.clear()

    async def _weigh(self, now: float) -> None:
        """Let telling rest when it is dearer than looking; longer each time it proves so at once."""
        rate = self._told / (now - self._window_began)
        if rate > TOLD_PER_SECOND:
            await in_thread(self._disarm)
            self._resting_until = now + self._rest
            self._rest = min(2 * self._rest, REST_LONGEST)
            self._timer = TIMER_BUSY
        else:
            self._rest = REST
        self._told, self._window_began = 0, now

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called in watchdog's thread."""
        self._told += 1
        if os.path.basename(event.src_path) == self._target.name and not self._changed.is_set():  # noqa: PTH119  # once a change: no Path made
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._changed.set)

    def arm(self) -> None:
        """Have changes told. Blocks shortly; call it in a thread."""
        self._timer = TIMER
        if self._network:
            return
        try:
            if self._observer is None:
                observer = Observer()
                observer.start()
                self._observer = observer
            # Not renames: the first line of the new file wakes us anyhow, and watchdog holds back
            # what follows a rename for half a second, to pair it.
            self._target = Path(os.path.realpath(self._path))
            self._watch = self._observer.schedule(self, str(self._target.parent), event_filter=[FileModifiedEvent])
        except OSError as error:
            logger.warning("%s: changes are not told (%s); looking every %g s", self._path, error, TIMER_UNTOLD)
            self._timer = TIMER_UNTOLD
            self._resting_until = time.monotonic() + RETRY
        self._told, self._window_began = 0, time.monotonic()

    def _disarm(self) -> None:
        if self._observer and self._watch:
            self._observer.unschedule(self._watch)
        self._watch = None

    def close(self) -> None:
        """Blocks until watchdog's threads are gone; call it in a thread."""
        if self._observer:
            self._observer.stop()
            self._observer.join()
        self._observer = self._watch = None


@contextlib.asynccontextmanager
async def watching(path: Path, *, network: bool) -> AsyncIterator[FileWatch]:
    """Watch a file, which need not exist; `network`: it cannot be told, only looked at."""
    watch = FileWatch(path, network=network)
    try:
        await in_thread(watch.arm)
        yield watch
    finally:
        await in_thread(watch.close)
