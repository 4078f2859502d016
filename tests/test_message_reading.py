"""Messages read by several processes are those of one, in their order, however they are shared; and what is said if one fails."""

import json
import os
import random
import signal
from collections.abc import Iterator, Sequence
from datetime import UTC
from io import StringIO
from pathlib import Path

import pytest

from benchmarks.mail_log import Style, write_log
from parsers.log import LogReader
from policies.bulk_lifecycle import BulkLifecycle, read_messages
from policies.message_json import message_json
from policies.message_lines import WANTED, MessageLines
from policies.message_record import MessageRecord
from sidecar import reading_process
from sidecar.bulk import ParseError, parts
from sidecar.log_messages import MessageLog
from sidecar.message_reading import made_of
from sidecar.reading_process import Unpacking, packed
from tests.test_bulk_lifecycle import damaged
from tests.test_lifecycle import EVERYTHING, NOON, bsd, shuffled

Found = list[MessageRecord | MessageLines]


def generated(style: Style, lines: int = 2_000) -> list[bytes]:
    log = StringIO()
    write_log(log, lines, style=style)
    return log.getvalue().encode().splitlines()


def of_another(lines: Sequence[str]) -> Iterator[str]:
    """The same with the lines of a second host and a second instance between."""
    for line in lines:
        yield line
        yield line.replace(" mx1 ", " mx9 ")
        yield line.replace(" postfix/", " postfix-out/")


LOGS = {
    "cases": [line.encode() for line in EVERYTHING],
    "bsd": [bsd(line).encode() for line in EVERYTHING],
    "hosts": [line.encode() for line in of_another(EVERYTHING)],
    "shuffled": [line.encode() for line in shuffled(EVERYTHING, 3)],
    "damaged": damaged([line.encode() for line in EVERYTHING], random.Random(5)),
    "busy": generated(Style.BSD),
    "newest": generated(Style.NEWEST),
}


def found(lines: Sequence[bytes], size: int) -> Iterator[Found]:
    """What comes through, block by block."""
    lifecycle = BulkLifecycle(LogReader(zone=UTC, reference=NOON + 3600, only=WANTED))
    for begin in range(0, len(lines), size):
        lifecycle.read(b"\n".join(lines[begin : begin + size]) + b"\n")
        yield lifecycle.unread()
    lifecycle.rest()
    yield lifecycle.unread()


def told(messages: Sequence[MessageRecord]) -> str:
    return "".join(json.dumps(message_json(message)) + "\n" for message in messages)


@pytest.mark.parametrize(("size", "few", "helpers"), [(1, 1, 1), (50, 3, 1), (7, 2, 3)])
@pytest.mark.parametrize("name", LOGS)
def test_several_processes_tell_what_one_tells(name: str, size: int, few: int, helpers: int) -> None:
    lines = LOGS[name]
    alone = "".join(made_of(found(lines, 10_000), told, helpers=0))
    assert alone.count("\n") > 20
    assert "".join(made_of(found(lines, size), told, helpers=helpers, few=few)) == alone


def pid_and_ends(messages: Sequence[MessageRecord]) -> tuple[int, list[str]]:
    return os.getpid(), [message.end.value for message in messages]


def test_others_do_a_part_of_it() -> None:
    results = list(made_of(found(LOGS["busy"], 20), pid_and_ends, helpers=1, few=2))
    assert len({pid for pid, _ in results} - {os.getpid()}) == 1
    assert sum(len(ends) for _, ends in results) > 100


def test_lines_go_from_one_process_to_another() -> None:
    lots = [*found(LOGS["newest"], 100), *found(LOGS["cases"], 100)]
    usual = [one for lot in lots for one in lot if isinstance(one, MessageLines)]
    assert len(usual) > 100
    for lot in lots:
        records = read_messages(lot)
        assert read_messages(Unpacking().messages(packed(lot))) == records


def test_processes_that_are_many_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_process, "_SOURCES", 2)
    unpacking = Unpacking()
    for lot in found(LOGS["busy"], 100):
        records = read_messages(lot)
        assert read_messages(unpacking.messages(packed(lot))) == records


def first_of(messages: Sequence[MessageRecord]) -> str:
    return messages[100_000].end


def test_one_that_fails_is_told() -> None:
    with pytest.raises(ParseError, match="a process that read messages failed: IndexError: "):
        list(made_of(helped(), first_of, helpers=1, few=2))


def killed(messages: Sequence[MessageRecord]) -> None:
    assert messages
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_that_is_killed_is_told() -> None:
    with pytest.raises(ParseError, match=r"was ended \(status -9;"):
        list(made_of(helped(), killed, helpers=1, few=2))


def helped() -> Iterator[Found]:
    """Enough for one other process, and none for this one."""
    yield next(lot for lot in found(LOGS["busy"], 1_000) if len(lot) > 8)


def test_a_log_of_several_files_by_several_processes(tmp_path: Path) -> None:
    paths = [tmp_path / "mail.log.1", tmp_path / "mail.log"]
    lines = LOGS["newest"]
    paths[0].write_bytes(b"\n".join(lines[:800]) + b"\n")
    paths[1].write_bytes(b"\n".join(lines[800:]) + b"\n")
    by = ["".join(MessageLog(parts(paths, zone=UTC), processes=some).made(told, 3)) for some in (1, 2, 3)]
    assert by[0].count("\n") > 100
    assert by[0] == by[1] == by[2]
