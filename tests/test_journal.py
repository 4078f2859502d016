import asyncio
import contextlib
import lzma
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from sidecar.config import ConfigError
from sidecar.journal import BACK_OFF, BACK_OFF_LONGEST, Entries, follow_journal
from sidecar.log_batch import BATCH_LINES, Batch, Position

SOURCE = "journal:DIRECTORY"
FIRST = [*(f"line {number}" for number in range(25)), "caf\udce9", "first of two", "x" * 6000]
"""Messages of tests/journal/make.py: before a reboot, after it, a little later."""
SECOND = ["line 25", "line 26", "line 27", "line 28"]
THIRD = ["line 29"]


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that everybody may enter; pytest's own are private."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def add(directory: Path, name: str) -> None:
    """A journal file appears; whole at once, as journald's own do when it rotates."""
    data = lzma.decompress((Path(__file__).parent / "journal" / f"{name}.journal.xz").read_bytes())
    (directory / name).write_bytes(data)
    (directory / name).rename(directory / f"{name}.journal")


def drop(directory: Path, name: str) -> None:
    (directory / f"{name}.journal").unlink()


class Reader:
    """Follows a directory of journal files, and remembers what a consumer would."""

    def __init__(self, batches: AsyncGenerator[Batch, None]) -> None:
        self._batches = batches
        self.position = Position(SOURCE, "")
        self.gaps: list[int] = []
        """How many messages had come when a gap was told."""
        self.messages: list[str] = []

    async def batch(self) -> Batch:
        batch = await asyncio.wait_for(anext(self._batches), 60)
        self.position = batch.position
        if batch.gap:
            self.gaps.append(len(self.messages))
        self.messages += [entry["MESSAGE"] for entry in batch.entries]
        return batch

    async def read(self, count: int) -> list[str]:
        """The next messages, so many."""
        before = len(self.messages)
        while len(self.messages) < before + count:
            await self.batch()
        return self.messages[before:]


@contextlib.asynccontextmanager
async def reading(
    directory: Path,
    start: Position | None = None,
    *,
    from_end: bool = False,
    program: Sequence[str] = ("journalctl",),
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[Reader, None]:
    batches = follow_journal(directory, source=SOURCE, start=start, from_end=from_end, program=program, pause=pause)
    async with contextlib.aclosing(batches):
        yield Reader(batches)


async def read_all(directory: Path, count: int) -> Reader:
    async with reading(directory) as reader:
        await reader.read(count)
        return reader


def test_mail_alone_is_read_from_the_beginning(directory: Path) -> None:
    add(directory, "first")
    reader = asyncio.run(read_all(directory, len(FIRST)))
    assert reader.messages == FIRST
    assert reader.gaps == []


async def entry_of(directory: Path) -> Batch:
    async with reading(directory) as reader:
        await reader.batch()
        return await reader.batch()


def test_an_entry_has_the_fields_of_a_log_line(directory: Path) -> None:
    add(directory, "first")
    entry = asyncio.run(entry_of(directory)).entries[0]
    assert {name: entry[name] for name in ("SYSLOG_IDENTIFIER", "SYSLOG_PID", "_PID", "_HOSTNAME", "PRIORITY")} == {
        "SYSLOG_IDENTIFIER": "postfix/smtp",
        "SYSLOG_PID": "4711",
        "_PID": "4711",
        "_HOSTNAME": "mx1",
        "PRIORITY": "6",
    }
    assert entry["__REALTIME_TIMESTAMP"] == "1763750000000000"


async def begin_at_the_end(directory: Path) -> Reader:
    async with reading(directory, from_end=True) as reader:
        first = await reader.batch()
        assert not first.entries
        assert first.position.token
        add(directory, "second")
        await reader.read(len(SECOND))
        return reader


def test_it_begins_at_the_end_says_where_and_follows(directory: Path) -> None:
    add(directory, "first")
    reader = asyncio.run(begin_at_the_end(directory))
    assert reader.messages == SECOND
    assert reader.position.token


def test_suppressed_messages_of_ours_are_a_gap_and_those_of_others_not(directory: Path) -> None:
    add(directory, "second")
    reader = asyncio.run(read_all(directory, len(SECOND)))
    assert reader.messages == SECOND
    assert reader.gaps == [2]


async def stop_and_go_on(directory: Path) -> Reader:
    add(directory, "first")
    async with reading(directory) as reader:
        await reader.read(len(FIRST))
    add(directory, "second")
    async with reading(directory, reader.position) as reader:
        assert await reader.read(len(SECOND)) == SECOND
    async with reading(directory, reader.position) as reader:
        add(directory, "third")
        await reader.read(len(THIRD))
        return reader


def test_it_goes_on_after_the_cursor_also_across_a_reboot(directory: Path) -> None:
    reader = asyncio.run(stop_and_go_on(directory))
    assert reader.messages == THIRD
    assert reader.gaps == []


async def go_on_where_the_cursor_is_gone(directory: Path) -> Reader:
    add(directory, "first")
    async with reading(directory, from_end=True) as reader:
        await reader.batch()
    drop(directory, "first")
    add(directory, "second")
    async with reading(directory, reader.position) as reader:
        await reader.read(len(SECOND))
        return reader


def test_a_cursor_that_is_gone_is_a_gap_and_no_entry_is_skipped(directory: Path) -> None:
    reader = asyncio.run(go_on_where_the_cursor_is_gone(directory))
    assert reader.messages == SECOND
    assert reader.gaps[0] == 0


async def go_on_in_an_emptied_journal(directory: Path) -> Reader:
    add(directory, "second")
    async with reading(directory, from_end=True) as reader:
        await reader.batch()
    drop(directory, "second")
    add(directory, "first")
    async with reading(directory, reader.position) as reader:
        await reader.batch()
        return reader


def test_nothing_at_or_after_the_cursor_is_a_gap_told_at_once(directory: Path) -> None:
    reader = asyncio.run(go_on_in_an_emptied_journal(directory))
    assert reader.messages == []
    assert reader.gaps == [0]


async def go_on_from_nonsense(directory: Path) -> Reader:
    add(directory, "first")
    async with reading(directory, Position(SOURCE, "nonsense")) as reader:
        await reader.batch()
        add(directory, "second")
        await reader.read(len(SECOND))
        return reader


def test_a_token_that_is_no_cursor_is_a_gap_and_the_end_is_where_it_begins(directory: Path) -> None:
    reader = asyncio.run(go_on_from_nonsense(directory))
    assert reader.messages == SECOND
    assert reader.gaps[0] == 0


async def lose_the_child(directory: Path) -> Reader:
    pids = directory / "pids"
    program = ("sh", "-c", f'echo $$ >> {pids}; exec journalctl "$@"', "sh")
    add(directory, "first")
    async with reading(directory, program=program) as reader:
        await reader.read(len(FIRST))
        add(directory, "second")
        await reader.read(1)
        for pid in pids.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        add(directory, "third")
        while reader.messages[-1:] != THIRD:
            await reader.batch()
        assert len(pids.read_text().split()) >= 3
        return reader


def test_a_killed_journalctl_is_started_again_after_the_last_entry(directory: Path) -> None:
    reader = asyncio.run(lose_the_child(directory))
    assert reader.messages == FIRST + SECOND + THIRD


async def wait_for_a_journal(directory: Path) -> Reader:
    async with reading(directory, from_end=True) as reader:
        first = await reader.batch()
        assert first.position.token == ""
        waiting = asyncio.create_task(reader.read(len(FIRST)))
        await asyncio.sleep(0)
        add(directory, "first")
        await waiting
        return reader


def test_a_journal_that_is_empty_yet_is_waited_for(directory: Path) -> None:
    reader = asyncio.run(wait_for_a_journal(directory))
    assert reader.messages == FIRST
    assert reader.gaps == []


async def pauses_of(directory: Path, count: int) -> list[float]:
    pauses: list[float] = []
    enough = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == count:
            enough.set()
            await asyncio.Event().wait()

    async with reading(directory, Position(SOURCE, "s=1;i=1"), program=("true",), pause=pause) as reader:
        endless = asyncio.create_task(reader.read(1))
        await asyncio.wait_for(enough.wait(), 60)
        endless.cancel()
        await asyncio.gather(endless, return_exceptions=True)
    return pauses


def test_it_is_not_started_in_haste(directory: Path) -> None:
    pauses = asyncio.run(pauses_of(directory, 10))
    assert pauses == [min(BACK_OFF * 2**number, BACK_OFF_LONGEST) for number in range(1, 11)]


async def pauses_between_entries(directory: Path) -> list[float]:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) in {2, 4}:
            add(directory, {2: "second", 4: "third"}[len(pauses)])

    program = (
        "sh",
        "-c",
        'for option; do shift; [ "$option" = --follow ] || set -- "$@" "$option"; done; journalctl "$@"',
        "sh",
    )
    add(directory, "first")
    async with reading(directory, program=program, pause=pause) as reader:
        assert await reader.read(len(FIRST + SECOND + THIRD)) == FIRST + SECOND + THIRD
    return pauses


def test_it_is_started_soon_again_where_it_found_entries(directory: Path) -> None:
    pauses = asyncio.run(pauses_between_entries(directory))
    assert pauses == [BACK_OFF, 2 * BACK_OFF, BACK_OFF, 2 * BACK_OFF]


# What cannot be read


async def begin(directory: Path, program: Sequence[str], start: Position | None) -> None:
    async with reading(directory, start, from_end=True, program=program) as reader:
        await reader.batch()


HINT = "Hint: You are currently not seeing messages from other users and the system."
REFUSALS = [
    (("no-such-journalctl",), "read with no-such-journalctl, which is not installed"),
    (("sh", "-c", f"echo '{HINT}' >&2; echo Pass -q >&2"), "not seeing messages.*usermod -aG systemd-journal"),
    (("sh", "-c", "echo 'No journal files were opened due to insufficient permissions.' >&2"), "insufficient"),
    (("sh", "-c", "echo 'unknown option' >&2; exit 1"), "unknown option"),
]


@pytest.mark.parametrize(("program", "said"), REFUSALS)
@pytest.mark.parametrize("start", [None, Position(SOURCE, "s=1;i=1")])
def test_what_hinders_it_at_first_is_said(
    directory: Path, program: Sequence[str], said: str, start: Position | None
) -> None:
    with pytest.raises(ConfigError, match=rf"^log\.source: .*{said}"):
        asyncio.run(begin(directory, program, start))


def test_a_directory_that_is_not_there_is_said(directory: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file or directory; .*an existing directory after journal:"):
        asyncio.run(begin(directory / "none", ("journalctl",), None))


# Batches


def line(number: int, **fields: str) -> bytes:
    more = "".join(f', "{name}": "{value}"' for name, value in fields.items())
    return f'{{"__CURSOR": "s=1;i={number};t={number}", "MESSAGE": "{number}"{more}}}'.encode()


def test_many_entries_come_in_batches_each_with_its_cursor() -> None:
    entries = Entries(SOURCE, "")
    batches = list(entries.batches([line(number) for number in range(2 * BATCH_LINES + 1)], now=5.0))
    assert [len(batch.entries) for batch in batches] == [BATCH_LINES, BATCH_LINES, 1]
    assert [batch.position.token for batch in batches] == [
        f"s=1;i={number};t={number}" for number in (BATCH_LINES - 1, 2 * BATCH_LINES - 1, 2 * BATCH_LINES)
    ]
    assert {batch.reference for batch in batches} == {5.0}


def test_the_same_entry_in_another_file_is_the_cursor_s() -> None:
    entries = Entries(SOURCE, "s=9;i=77;t=1")
    entries.expect_cursor(must_come=True)
    batches = list(entries.batches([line(1), line(2)], now=5.0))
    assert [[entry["MESSAGE"] for entry in batch.entries] for batch in batches] == [["2"]]
    assert not batches[0].gap


def test_a_line_that_is_no_entry_is_a_gap_and_not_the_end() -> None:
    entries = Entries(SOURCE, "")
    batches = list(entries.batches([line(1)[:-5], line(2)], now=5.0))
    assert [([entry["MESSAGE"] for entry in batch.entries], batch.gap) for batch in batches] == [(["2"], True)]


def test_another_entry_than_that_of_the_cursor_is_no_gap_where_the_boot_is_another() -> None:
    entries = Entries(SOURCE, "s=1;i=1;t=1")
    entries.expect_cursor(must_come=False)
    assert [(len(batch.entries), batch.gap) for batch in entries.batches([line(2)], now=5.0)] == [(1, False)]


def test_suppressed_entries_of_a_unit_that_logs_mail_are_missed() -> None:
    entries = Entries(SOURCE, "")
    suppressed = {"MESSAGE_ID": "a596d6fe7bfa4994828e72309e95d61e"}
    told = line(3, **suppressed).replace(b'"3"', b'"Suppressed 9 messages from opendkim.service"')
    assert not [batch for batch in entries.batches([told], now=5.0) if batch.gap]
    batches = list(entries.batches([line(2, _SYSTEMD_UNIT="opendkim.service"), told, line(4)], now=5.0))
    assert [(len(batch.entries), batch.gap) for batch in batches] == [(1, False), (1, True)]
