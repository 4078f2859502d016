"""`sidecar parse --messages`: the messages of whole logs, each once, and sums of them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

from policies.bulk_lifecycle import BulkLifecycle
from policies.message_json import message_json
from policies.message_lines import WANTED, MessageLines
from policies.message_record import MessageRecord
from sidecar.bulk import Part, parts, processors, seldom_collected
from sidecar.message_reading import FEW, HERE, made_of

R = TypeVar("R")


class Sums(NamedTuple):
    """What became of the messages of a log, and of their recipients."""

    messages: Counter[str]
    """By their end."""
    recipients: Counter[str]
    """By the status of the last attempt."""
    refused: Counter[str]
    """Lines that refused what never became a message, by the reply's code."""

    def as_json(self) -> dict[str, Any]:
        return {"messages": dict(self.messages), "recipients": dict(self.recipients), "refused": dict(self.refused)}


class MessageLog:
    """All messages of these files, one after the other: what begins in one goes on in the next."""

    def __init__(self, some: Sequence[Part], *, processes: int | None = None) -> None:
        """`processes`: that read them, by default as many as there are processors."""
        self._some = some
        self._helpers = (processes or processors()) - 1
        self.refusals: Counter[str] = Counter()
        """Once all is read: see `BulkLifecycle.refusals`."""

    def made(self, make: Callable[[list[MessageRecord]], R], few: int | None = None) -> Iterator[R]:
        """What `make` makes of some messages at a time, in the order of their ends: `few`, or more. Raises ParseError.

        Other processes may call it: what it gives is pickled.
        """
        few = few or (FEW if self._helpers else HERE)
        yield from made_of(self._found(), make, helpers=self._helpers, few=few)

    def _found(self) -> Iterator[list[MessageRecord | MessageLines]]:
        lifecycle: BulkLifecycle | None = None
        with seldom_collected():
            for part in self._some:
                reader = part.reader(only=WANTED)
                if lifecycle is None:
                    lifecycle = BulkLifecycle(reader)
                else:
                    lifecycle.go_on(reader)
                for block in part.blocks():
                    lifecycle.read(block)
                    yield lifecycle.unread()
            if lifecycle is not None:
                lifecycle.rest()
                yield lifecycle.unread()
                self.refusals = lifecycle.refusals


def write_messages(
    paths: Sequence[Path], *, zone: tzinfo, year: int | None, syslog_names: Sequence[str], out: TextIO
) -> None:
    """A line of JSON for each message, in the order of their ends. Raises ParseError."""

    def told(messages: list[MessageRecord]) -> str:
        return "".join([f"{json.dumps(message_json(message, zone))}\n" for message in messages])

    out.writelines(MessageLog(parts(paths, zone=zone, year=year, syslog_names=syslog_names)).made(told))


def sum_messages(paths: Sequence[Path], *, zone: tzinfo, year: int | None, syslog_names: Sequence[str]) -> Sums:
    """The same, counted. Raises ParseError."""
    ends: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    log = MessageLog(parts(paths, zone=zone, year=year, syslog_names=syslog_names), processes=1)  # see made_of
    for some_ends, some_statuses in log.made(_counted):
        ends.update(some_ends)
        statuses.update(some_statuses)
    return Sums(ends, statuses, log.refusals)


def _counted(messages: list[MessageRecord]) -> tuple[Counter[str], Counter[str]]:
    return (
        Counter([message.end.value for message in messages]),
        Counter([one.status for message in messages for one in message.recipients]),
    )
