"""Messages of a log read by several processes: one puts the lines to their messages, others read what they say.

It keeps the order of the messages. The log is not cut, so nothing has to be joined, a compressed one and standard input
are shared as well, and all comes out as from one process.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from policies.bulk_lifecycle import read_messages
from policies.message_lines import MessageLines
from policies.message_record import MessageRecord

if TYPE_CHECKING:
    from sidecar.reading_process import ReadingProcess

FEW: Final = 500
"""Messages that are worth being sent to another process."""
HERE: Final = 32
"""Messages read at a time where there is no other process: of more, lines and records leave the processor's caches."""
_MANY: Final = 4
"""Times so many wait for the others before this process reads some itself."""
_AHEAD: Final = 64
"""Results kept that wait for an earlier one."""

R = TypeVar("R")
Some = Sequence[MessageRecord | MessageLines]


def made_of(
    found: Iterable[Some], make: Callable[[list[MessageRecord]], R], *, helpers: int, few: int = FEW
) -> Iterator[R]:
    """What `make` makes of these messages, some at a time, in their order.

    `helpers`: further processes, started once there is enough for them; their results are pickled. Raises ParseError
    where one of them was ended (killed, out of memory) or failed. To hand messages over costs as much as to read them, so
    it pays where more is made of them, as JSON, and not where they are counted.
    """
    with contextlib.ExitStack() as ending:
        yield from _Desk(make, helpers, few, ending).results(found)


class _Desk(Generic[R]):
    """Hands messages out and takes results in."""

    def __init__(
        self, make: Callable[[list[MessageRecord]], R], helpers: int, few: int, ending: contextlib.ExitStack
    ) -> None:
        self._make = make
        self._wanted = helpers
        self._few = few
        self._ending = ending
        self._helpers: list[ReadingProcess[R]] = []
        self._results: deque[list[R]] = deque()
        """In the order of the messages; one that is not there yet is empty."""

    def results(self, found: Iterable[Some]) -> Iterator[R]:
        waiting: list[MessageRecord | MessageLines] = []
        for some in found:
            waiting += some
            if len(waiting) >= self._few:
                waiting = self._hand_out(waiting)
            yield from self._due()
        if waiting:
            self._results.append([self._make(read_messages(waiting))])
        yield from self._due(most=0)

    def _hand_out(self, waiting: list[MessageRecord | MessageLines]) -> list[MessageRecord | MessageLines]:
        """To whoever has nothing to do, else a part to this process once many wait. Gives what still waits."""
        if not self._wanted:
            self._results.append([self._make(read_messages(waiting))])
            return []
        many = len(waiting) >= self._few * _MANY
        if many and not self._helpers:
            from sidecar.reading_process import ReadingProcess  # noqa: PLC0415  # one process alone needs no multiprocessing

            self._helpers = [self._ending.enter_context(ReadingProcess(self._make)) for _ in range(self._wanted)]
        free = next((helper for helper in self._helpers if helper.result is None), None)
        if free is not None:
            self._results.append(free.take(waiting))
            return []
        if not many:
            return waiting
        self._results.append([self._make(read_messages(waiting[: self._few]))])
        return waiting[self._few :]

    def _due(self, most: int = _AHEAD) -> Iterator[R]:
        """What is there. Where more than `most` are kept, wait for the first."""
        for helper in self._helpers:
            if helper.result is not None and helper.connection.poll():
                helper.receive()
        while self._results and (self._results[0] or len(self._results) > most):
            first = self._results.popleft()
            for helper in self._helpers:
                if helper.result is first and not first:
                    helper.receive()
            yield first[0]
