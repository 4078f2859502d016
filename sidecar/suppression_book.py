"""The suppression lists as core has them in memory: the file of digests, what changed since, and the key.

Knows how an address becomes a digest, and when a new file is made; what belongs on a list the policy knows.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2s
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from policies.suppression import Add, Counted, End, Listed
from sidecar import statements
from sidecar.database import Database, StoreError
from sidecar.suppression_index import WHO_BYTES, IndexFile, Stamp, build, fold
from sidecar.suppression_store import Current, Probation, SuppressionTables

_LOG: Final = logging.getLogger("sidecar.suppression")
T = TypeVar("T")

KEY_BYTES: Final = 16
OVERLAY_MAX = 20_000
"""Digests that changed, until a file is made with them: a few MB, and a part of a second when core starts."""


_AT_ONCE: Final = 2_000


class SuppressionKey:
    """Makes digests of addresses. Whoever has it can tell whether an address they know is on the list."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @property
    def fingerprint(self) -> bytes:
        return blake2s(self._secret + b"\0fingerprint", digest_size=16).digest()

    def digest(self, address: str) -> bytes:
        """Digest an address. Upper and lower case are the same in both parts, as with all large providers."""
        # The key before the text is as good as BLAKE2's own keyed mode, and half as dear for what fits a block; and
        # half of a whole digest is sooner made than one of half the length, for that is one more argument.
        try:
            return blake2s(self._secret + address.lower().encode()).digest()[:WHO_BYTES]
        except UnicodeEncodeError:  # bytes that are no UTF-8, as lone surrogates
            return blake2s(self._secret + address.lower().encode(errors="surrogateescape")).digest()[:WHO_BYTES]


def read_key(path: Path) -> SuppressionKey:
    """Read the key, or make one where there is none. Raises StoreError."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(number, "wb") as file:
            file.write(secrets.token_hex(KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreError(f"{path}: cannot be made: {error.strerror}") from error
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    if len(secret) != KEY_BYTES:
        raise StoreError(f"{path}: {len(secret)} bytes; wanted {KEY_BYTES} in hexadecimal digits")
    return SuppressionKey(secret)


class SuppressionBook:
    """What is looked up at RCPT. One thread's, but for the file that another one makes."""

    def __init__(self, key: SuppressionKey) -> None:
        self.key = key
        self._digest = key.digest
        self._file: IndexFile | None = None
        self._names: dict[int, Listed] = {}
        """Of the slots in the file."""
        self._changed: dict[bytes, tuple[Listed, ...]] = {}
        """Digest -> all its lists now, whatever the file says."""

    @property
    def entries_in_file(self) -> int:
        return self._file.entries if self._file else 0

    @property
    def changed(self) -> int:
        """Digests that are not as in the file."""
        return len(self._changed)

    def digest(self, address: str) -> bytes:
        return self._digest(address)

    def find(self, address: str) -> tuple[Listed, ...]:
        """All lists that an address is on; () for nearly all."""
        file, changed = self._file, self._changed
        if file is None and not changed:
            return ()
        who = self._digest(address)
        if file is None or who in changed:
            return changed.get(who, ())
        slots = file.slots(who)
        return tuple(self._names[slot] for slot in slots) if slots else ()

    def listed(self, who: bytes) -> tuple[Listed, ...]:
        """As `find`, by the digest."""
        changed = self._changed.get(who)
        if changed is not None:
            return changed
        if self._file is None:
            return ()
        slots = self._file.slots(who)
        return tuple(self._names[slot] for slot in slots) if slots else ()

    def apply(self, move: Add | End) -> None:
        """Change what is looked up, at once."""
        listed = self.listed(move.who)
        if isinstance(move, End):
            self._changed[move.who] = tuple(each for each in listed if each != move.listed)
        elif move.listed not in listed:
            self._changed[move.who] = (*listed, move.listed)

    def take(self, current: Current) -> None:
        """Believe the store about these digests."""
        for who, slots in current.slots.items():
            self._changed[who] = tuple(current.names[slot] for slot in slots)

    def whos_changed(self) -> list[bytes]:
        return list(self._changed)

    def use(self, file: IndexFile, names: Mapping[int, Listed]) -> None:
        """Look up in this file from now on; what has changed since goes before it."""
        self._file, self._names = file, dict(names)

    def settle(self, current: Iterable[tuple[bytes, tuple[Listed, ...]]]) -> None:
        """Forget of what changed since what stands in the file by now, which has these."""
        for who, listed in current:
            if self._changed.get(who) == listed:
                del self._changed[who]


class Shelf:
    """Where the file of digests stands, and who makes it anew."""

    def __init__(self, path: Path, database: Path, tables: SuppressionTables, thread: ThreadPoolExecutor) -> None:
        """`thread` is the one that all SQL on `tables` runs in."""
        self._path = path
        self._database = database
        self._tables = tables
        self._worker = thread
        self._store = b""
        self.ready = False
        """False: a large list is being read, and nobody is suppressed yet."""

    def open(self, book: SuppressionBook) -> tuple[list[Probation], list[Counted], dict[str, int]]:
        """Take the list into the book, in the thread; `maintain` does what would take long.

        Gives what the policy must know as well: probations, counts, whose events were heard. Raises StoreError.
        """
        self._store = self._tables.identity("store")
        known = self._tables.identify("key", book.key.fingerprint)
        if known != book.key.fingerprint and self._tables.count(1):
            _LOG.error("suppression.key is not the one that the list was made with: nobody on it is recognized")
        file = self._read()
        if file is not None:
            current = self._tables.current_since(file.stamp.upto)
            book.use(file, current.names)
            book.take(current)
            self.ready = True
        elif self._tables.count(OVERLAY_MAX + 1) <= OVERLAY_MAX:
            book.take(self._tables.all_current())
            self.ready = True
        return self._tables.probations(), self._tables.counts(), self._tables.heard()

    def _read(self) -> IndexFile | None:
        try:
            file = IndexFile(self._path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _LOG.warning("%s: %s; it is made anew", self._path, error)
            return None
        return file if file.stamp.store == self._store else None

    async def maintain(self, book: SuppressionBook) -> None:
        """Make a file where there ought to be one, or a new one where too much has changed. Raises OSError, StoreError."""
        if not self.ready:
            _LOG.warning("the list is read anew from the store; until it is nobody on it is recognized")
            current = await asyncio.to_thread(self._rebuild)
            later = await self._in_store(lambda: self._tables.current_since(current.upto))
            book.use(IndexFile(self._path), later.names)
            book.take(later)
            self.ready = True
            _LOG.info("the list is in force: %d entries", book.entries_in_file)
        elif book.changed > OVERLAY_MAX:
            whos = book.whos_changed()
            current = await self._in_store(lambda: self._tables.current(whos))
            old = self._read()
            await asyncio.to_thread(fold, old, current.slots, self._path, Stamp(self._store, current.upto))
            book.use(IndexFile(self._path), current.names)
            named = ((who, tuple(current.names[slot] for slot in slots)) for who, slots in current.slots.items())
            while some := list(islice(named, _AT_ONCE)):
                book.settle(some)
                await asyncio.sleep(0)  # a large import has changed more than an answer to Postfix should wait for
            await self._in_store(lambda: self._tables.forget_changes(current.upto))

    async def _in_store(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    def _rebuild(self) -> Current:
        database = Database.open_read_only(self._database, statements.SCHEMA)
        try:
            current, rows = SuppressionTables(database).rows()
            build(rows, self._path, Stamp(self._store, current.upto))
            return current
        finally:
            database.close()
