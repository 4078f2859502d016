import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from sidecar.config import ConfigError
from sidecar.log_batch import BATCH_LINES, READ_SIZE, Batch, Position
from sidecar.log_source import follow, read_stdin


async def first_of(batches: AsyncGenerator[Batch, None]) -> Batch:
    async with contextlib.aclosing(batches):
        return await asyncio.wait_for(anext(batches), 60)


def test_a_path_is_a_file(tmp_path: Path) -> None:
    log = tmp_path / "mail:log"
    log.write_text("a\n")
    batch = asyncio.run(first_of(follow(str(log))))
    assert batch.position.source == str(log)
    assert batch.lines == ()


def test_journal_with_a_directory_is_a_journal(tmp_path: Path) -> None:
    batch = asyncio.run(first_of(follow(f"journal:{tmp_path}")))
    assert batch.position == Position(f"journal:{tmp_path}", "")


@pytest.mark.parametrize("source", ["", "journal:"])
def test_nothing_is_no_source(source: str) -> None:
    with pytest.raises(ConfigError, match=r"log\.source: found .*, wanted the path of a log file"):
        follow(source)


# Standard input


async def all_of(batches: AsyncGenerator[Batch, None]) -> list[Batch]:
    async with contextlib.aclosing(batches):
        return [batch async for batch in batches]


async def piped(write: Callable[[int], None]) -> list[Batch]:
    """What is read from a pipe while another thread writes it."""
    reading, writing = os.pipe()
    try:
        written = asyncio.create_task(asyncio.to_thread(write, writing))
        batches = await asyncio.wait_for(all_of(read_stdin(reading)), 60)
        await written
    finally:
        os.close(reading)
    return batches


def lines_of(batches: list[Batch]) -> list[bytes]:
    return [line for batch in batches for line in batch.lines]


CASES = [
    ([b""], []),
    ([b"a\n"], [b"a"]),
    ([b"a\nb"], [b"a", b"b"]),
    ([b"a", b"b\r", b"\nc\n"], [b"ab", b"c"]),
    ([b"\n\n"], [b"", b""]),
]


@pytest.mark.parametrize(("pieces", "expected"), CASES)
def test_standard_input_is_read_to_its_end(pieces: list[bytes], expected: list[bytes]) -> None:
    def write(descriptor: int) -> None:
        for piece in pieces:
            os.write(descriptor, piece)
        os.close(descriptor)

    batches = asyncio.run(piped(write))
    assert lines_of(batches) == expected
    assert {batch.position for batch in batches} <= {Position("-", "")}


def test_much_comes_in_batches_and_in_order() -> None:
    count = 20 * BATCH_LINES + 1

    def write(descriptor: int) -> None:
        with open(descriptor, "wb") as file:
            file.writelines(b"%d\n" % number for number in range(count))

    batches = asyncio.run(piped(write))
    assert lines_of(batches) == [b"%d" % number for number in range(count)]
    assert max(len(batch.lines) for batch in batches) <= BATCH_LINES


def test_a_line_without_end_is_cut() -> None:
    def write(descriptor: int) -> None:
        with open(descriptor, "wb") as file:
            file.write(b"x" * (3 * READ_SIZE))

    lines = lines_of(asyncio.run(piped(write)))
    assert b"".join(lines) == b"x" * (3 * READ_SIZE)
    assert max(map(len, lines)) <= 2 * READ_SIZE


def test_a_file_as_standard_input_has_its_own_time(tmp_path: Path) -> None:
    log = tmp_path / "old.log"
    log.write_text("a\n")
    os.utime(log, (5.0, 12345.5))
    with log.open("rb") as file:
        batches = asyncio.run(all_of(read_stdin(file.fileno())))
    assert [batch.reference for batch in batches] == [12345.5]


def test_the_null_device_is_an_empty_input() -> None:
    with Path(os.devnull).open("rb") as file:
        assert asyncio.run(all_of(read_stdin(file.fileno()))) == []


STOPPED = """
import asyncio, contextlib
from sidecar.log_source import follow

async def main():
    async with contextlib.aclosing(follow("-")) as batches:
        async for batch in batches:
            print(batch.lines)
            return

asyncio.run(main())
"""


def test_the_process_ends_while_the_input_does_not() -> None:
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", STOPPED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(b"a\n")
        child.stdin.flush()
        assert child.wait(timeout=60) == 0
        assert child.stdout.read() == b"[b'a']\n"
