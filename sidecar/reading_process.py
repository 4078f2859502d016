"""Another process that reads messages, and how their lines go to it.

It knows how lines go from one process to another. Which messages it gets is not its business.
"""

import contextlib
import gc
import marshal
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final, Generic, NoReturn, TypeVar

from policies.bulk_lifecycle import read_messages
from policies.message_lines import MessageLines, Place, Source
from policies.message_record import MessageRecord
from sidecar.bulk import ParseError, seldom_collected

_SOURCES: Final = 20_000
"""Processes of the log that are remembered."""

R = TypeVar("R")
Some = Sequence[MessageRecord | MessageLines]


class ReadingProcess(Generic[R]):
    """Another process that reads messages; it has one lot at a time, so that never both wait until the other listens."""

    def __init__(self, make: Callable[[list[MessageRecord]], R]) -> None:
        forking = multiprocessing.get_context("fork")  # so that it begins at once, and `make` may be any function
        self.connection, theirs = forking.Pipe()
        self._process = forking.Process(target=_help, args=(make, theirs, self.connection), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is seen
        self.result: list[R] | None = None
        """Where what it makes belongs; None while it has nothing to do."""

    def __enter__(self) -> "ReadingProcess[R]":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()
        self.connection.close()

    def take(self, some: Some) -> list[R]:
        """Have it read these. Gives the list that the result will be put into."""
        self.result = []
        try:
            self.connection.send_bytes(packed(some))
        except OSError:
            self._was_ended()
        return self.result

    def receive(self) -> None:
        """Wait for what it made."""
        try:
            fault, result = self.connection.recv()
        except (EOFError, OSError):
            self._was_ended()
        if fault:
            raise ParseError(f"a process that read messages failed: {fault}")
        assert self.result is not None
        self.result.append(result)
        self.result = None

    def _was_ended(self) -> NoReturn:
        self._process.join()
        raise ParseError(
            f"a process that read messages was ended (status {self._process.exitcode}; -9: killed, perhaps as memory was"
            " short)"
        ) from None


def _help(make: Callable[[list[MessageRecord]], Any], connection: Connection, theirs: Connection) -> None:
    theirs.close()  # so that their end is seen
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()
    unpacking = Unpacking()
    with contextlib.suppress(EOFError), seldom_collected():
        while True:
            lot = connection.recv_bytes()
            try:
                connection.send(("", make(read_messages(unpacking.messages(lot)))))
            except Exception as error:  # noqa: BLE001  # whatever it is, the parent shall say it
                connection.send((f"{type(error).__name__}: {error}", None))


# Lines on their way: lists of plain values, which `marshal` takes several times as fast as `pickle` does.


def packed(some: Some) -> bytes:
    """Messages as bytes for `Unpacking`. The lines are not to be used afterwards."""
    numbers: dict[Source, int] = {}
    lots: list[Any] = []
    records: list[MessageRecord] = []
    for one in some:
        if isinstance(one, MessageLines):
            one.unfold()
            items = one.lines
            items[1::4] = [numbers.setdefault(source, len(numbers)) for source in items[1::4]]
            lots.append((one.queue_id, items))
        else:
            lots.append(None)
            records.append(one)
    keys = [(one.host, one.instance, one.service, one.daemon, one.pid) for one in numbers]
    return marshal.dumps((keys, lots, pickle.dumps(records)))


class Unpacking:
    """Makes messages of bytes again."""

    def __init__(self) -> None:
        self._sources: dict[tuple[str, str, str, str, int], Source] = {}
        self._places: dict[tuple[str, str], Place] = {}

    def messages(self, lot: bytes) -> Iterator[MessageRecord | MessageLines]:
        """Those of one call of `packed`, in their order."""
        keys, lots, pickled = marshal.loads(lot)  # noqa: S302  # our own process wrote it
        records = iter(pickle.loads(pickled))  # noqa: S301  # our own process wrote it
        sources = [self._source(key) for key in keys]
        for one in lots:
            yield next(records) if one is None else _lines(sources, *one)

    def _source(self, key: tuple[str, str, str, str, int]) -> Source:
        source = self._sources.get(key)
        if source is None:
            if len(self._sources) >= _SOURCES:
                self._sources.clear()
                self._places.clear()
            place = self._places.setdefault(key[:2], Place(*key[:2]))
            source = self._sources[key] = Source(place, *key)
        return source


def _lines(sources: Sequence[Source], queue_id: str, items: list[Any]) -> MessageLines:
    items[1::4] = [sources[number] for number in items[1::4]]
    lines = MessageLines(items[1].place, queue_id, 0)
    lines.lines = items
    return lines
