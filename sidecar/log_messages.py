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

    def as_json(self) -> dict[str, Any]:
        return {"messages": dict(self.messages), "recipients": dict(self.recipients)}


def messages(some: Sequence[Part]) -> Iterator[list[MessageRecord]]:
    """All messages of these files, one after the other: what begins in one goes on in the next. Raises ParseError."""
    lifecycle: BulkLifecycle | None = None
    with seldom_collected():
        for part in some:
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


def write_messages(
    paths: Sequence[Path], *, zone: tzinfo, year: int | None, syslog_names: Sequence[str], out: TextIO
) -> None:
    """A line of JSON for each message, in the order of their ends. Raises ParseError."""
    some = parts(paths, zone=zone, year=year, syslog_names=syslog_names)
    for few in messages(some):
        out.writelines(f"{json.dumps(message_json(message, zone))}\n" for message in few)


def sum_messages(paths: Sequence[Path], *, zone: tzinfo, year: int | None, syslog_names: Sequence[str]) -> Sums:
    """The same, counted. Raises ParseError."""
    sums = Sums(Counter(), Counter())
    for few in messages(parts(paths, zone=zone, year=year, syslog_names=syslog_names)):
        sums.messages.update([message.end.value for message in few])
        sums.recipients.update([one.status for message in few for one in message.recipients])
    return sums
