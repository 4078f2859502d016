"""`sidecar parse --messages`: the messages of whole logs, each once, and sums of them."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from policies.bulk_lifecycle import BulkLifecycle
from policies.message_json import message_json
from policies.message_lines import WANTED
from policies.message_record import MessageRecord
from sidecar.bulk import Part, parts, seldom_collected


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

    def __init__(self, some: Sequence[Part]) -> None:
        self._some = some
        self.refusals: Counter[str] = Counter()
        """Once all is read: see `BulkLifecycle.refusals`."""

    def messages(self) -> Iterator[list[MessageRecord]]:
        """A few at a time, in the order of their ends. Raises ParseError."""
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
                    yield lifecycle.finished()
            if lifecycle is not None:
                lifecycle.rest()
                yield lifecycle.finished()
                self.refusals = lifecycle.refusals


def write_messages(
    paths: Sequence[Path], *, zone: tzinfo, year: int | None, syslog_names: Sequence[str], out: TextIO
) -> None:
    """A line of JSON for each message, in the order of their ends. Raises ParseError."""
    log = MessageLog(parts(paths, zone=zone, year=year, syslog_names=syslog_names))
    for few in log.messages():
        out.writelines(f"{json.dumps(message_json(message, zone))}\n" for message in few)


def sum_messages(paths: Sequence[Path], *, zone: tzinfo, year: int | None, syslog_names: Sequence[str]) -> Sums:
    """The same, counted. Raises ParseError."""
    ends: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    log = MessageLog(parts(paths, zone=zone, year=year, syslog_names=syslog_names))
    for few in log.messages():
        ends.update([message.end.value for message in few])
        statuses.update([one.status for message in few for one in message.recipients])
    return Sums(ends, statuses, log.refusals)
