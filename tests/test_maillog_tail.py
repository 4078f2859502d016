import asyncio
import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidecar import filewatch, maillog
from sidecar.config import ConfigError
from sidecar.filewatch import on_network, watching
from sidecar.log_batch import BATCH_LINES, READ_SIZE, Batch, Position
from sidecar.maillog import LINGER, PATIENCE, Tail, follow_file
from sidecar.rotation import LogFile, Place, log_files


class Log:
    """A mail log in a directory, what happens to it, and a tail that reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 1000.0
        self.position: Position | None = None
        self.gaps = 0
        self.reference = 0.0
        self._tail: Tail | None = None

    def write(self, text: str, path: Path | None = None) -> Self:
        with (path or self.path).open("ab") as file:
            file.write(text.encode())
        return self

    def rotate(self, *, to: str = "mail.log.1", create: bool = False) -> Path:
        old = self.path.rename(self.path.with_name(to))
        if create:
            self.path.touch()
        return old

    def copytruncate(self, to: str = "mail.log.1") -> Path:
        copy = self.path.with_name(to)
        shutil.copyfile(self.path, copy)
        os.truncate(self.path, 0)
        return copy

    def start(self, *, from_end: bool = False) -> Self:
        """Begin, or begin again where the last lines were handed out."""
        self.stop()
        self._tail = Tail(
            self.path, source=str(self.path), start=self.position, from_end=from_end, clock=lambda: self.now
        )
        return self

    def stop(self) -> None:
        if self._tail:
            self._tail.close()
        self._tail = None

    def step(self) -> list[Batch] | None:
        if self._tail is None:
            self.start()
        assert self._tail
        batches = self._tail.read()
        for batch in batches or ():
            self.position = batch.position
            self.gaps += batch.gap
            self.reference = batch.reference
        return batches

    def read(self) -> list[str]:
        """All lines that there are now."""
        lines: list[str] = []
        while (batches := self.step()) is not None:
            lines += [line.decode() for batch in batches for line in batch.lines]
        return lines

    def waiting(self) -> int | None:
        assert self._tail
        return self._tail.waiting()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path / "mail.log")
    yield made
    made.stop()


def gzipped(path: Path) -> Path:
    """As gzip does: the same modification time, another file."""
    return compressed(path, ".gz", gzip.compress)


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout


def compressed(path: Path, suffix: str, compress: Callable[[bytes], bytes]) -> Path:
    made = path.with_name(path.name + suffix)
    made.write_bytes(compress(path.read_bytes()))
    os.utime(made, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    path.unlink()
    return made


def older(path: Path, seconds: float) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - int(seconds * 1e9)))


# Where it begins


def test_it_begins_with_the_first_line(log: Log) -> None:
    log.write("a\nb\n").start()
    assert log.read() == ["a", "b"]


def test_it_begins_at_the_end_and_says_where(log: Log) -> None:
    log.write("a\nb\n").start(from_end=True)
    assert log.read() == []
    assert log.position
    assert Place.read(log.position.token).offset == 4
    assert log.write("c\n").read() == ["c"]


def test_the_end_is_before_a_half_written_line(log: Log) -> None:
    log.write("a\nhalf").start(from_end=True)
    assert log.read() == []
    assert log.write(" done\n").read() == ["half done"]


def test_a_file_that_comes_later_is_read_from_its_first_line(log: Log) -> None:
    log.start(from_end=True)
    assert log.read() == []
    assert log.write("a\n").read() == ["a"]


def test_older_files_are_not_read_where_nothing_was_read_before(log: Log) -> None:
    log.write("old\n").rotate()
    assert log.write("new\n").start().read() == ["new"]


def test_it_goes_on_after_the_position(log: Log) -> None:
    log.write("a\nb\n").read()
    log.write("c\n").start()
    assert log.read() == ["c"]
    assert log.gaps == 0


@pytest.mark.parametrize("token", ["", "{}", "null", "s=7;i=1", '{"offset": 4}'])
def test_a_position_that_is_none_is_a_gap(log: Log, token: str) -> None:
    log.position = Position(str(log.path), token)
    assert log.write("a\n").start(from_end=True).read() == ["a"]
    assert log.gaps == 1


# Lines


def test_a_half_written_line_is_kept_until_its_end_comes(log: Log) -> None:
    log.write("a\nb")
    assert log.read() == ["a"]
    assert log.write("c").read() == []
    assert log.write("\nd\n").read() == ["bc", "d"]


def test_a_half_written_line_is_read_again_after_a_restart(log: Log) -> None:
    log.write("a\nb").read()
    assert log.start().write("c\n").read() == ["bc"]


def test_line_ends_of_other_systems_are_taken_off(log: Log) -> None:
    log.write("a\r\nb\n\r\n")
    assert log.read() == ["a", "b", ""]
    assert log.start().write("c\r\n").read() == ["c"]


def test_many_lines_come_in_batches_each_with_its_position(log: Log) -> None:
    log.write("".join(f"{number}\n" for number in range(2 * BATCH_LINES + 5))).start()
    batches = [batch for batch in [*(log.step() or []), *(log.step() or [])] if batch.lines]
    assert [len(batch.lines) for batch in batches] == [BATCH_LINES, BATCH_LINES, 5]
    log.position = batches[0].position
    assert log.start().read()[0] == str(BATCH_LINES)


def test_a_line_without_end_is_cut(log: Log) -> None:
    log.write("x" * (3 * READ_SIZE) + "\nnext\n")
    lines = log.read()
    assert lines[-1] == "next"
    assert sum(map(len, lines[:-1])) == 3 * READ_SIZE
    assert max(map(len, lines)) <= 2 * READ_SIZE


def test_a_hole_is_no_line(log: Log) -> None:
    log.write("a\n").read()
    os.truncate(log.path, 5 * READ_SIZE)
    lines = log.write("b\n").read()
    assert [line.lstrip("\0") for line in lines] == ["b"]


def test_the_reference_is_the_time_of_the_file(log: Log) -> None:
    log.write("a\n")
    os.utime(log.path, (5.0, 12345.5))
    log.read()
    assert log.reference == 12345.5


# Rotation


def test_the_renamed_file_is_read_to_its_end_and_then_the_new_one(log: Log) -> None:
    log.write("a\n").read()
    old = log.rotate(create=True)
    assert log.write("b\n", old).read() == ["b"]
    assert log.write("c\n", old).write("d\n").read() == ["c", "d"]
    assert log.gaps == 0


def test_a_new_file_without_lines_does_not_end_the_old_one(log: Log) -> None:
    log.write("a\n").read()
    old = log.rotate(create=True)
    assert log.read() == []
    assert log.write("b\n", old).read() == ["b"]


def test_the_last_line_of_a_left_file_needs_no_end(log: Log) -> None:
    log.write("a\nhalf").read()
    log.rotate()
    assert log.write("b\n").read() == ["half", "b"]
    assert log.start().read() == []


def test_a_late_line_in_the_old_file_is_not_lost(log: Log) -> None:
    log.write("a\n").read()
    old = log.rotate()
    assert log.write("c\n").read() == ["c"]
    assert log.write("b\nhalf", old).read() == ["b"]
    log.now += LINGER
    assert log.write("d\n").read() == ["d", "half"]
    assert log.write("too late\n", old).read() == []
    assert log.start().read() == []


def test_what_the_writer_wrote_before_it_turned_over_comes_first(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write("a\n").read()
    old = log.rotate(create=True)

    def meanwhile(path: Path) -> list[LogFile]:
        monkeypatch.setattr(maillog, "log_files", log_files)
        log.write("b\n", old).write("c\n")
        return log_files(path)

    monkeypatch.setattr(maillog, "log_files", meanwhile)
    assert log.read() == ["b", "c"]


def test_several_rotations_between_two_looks(log: Log) -> None:
    log.write("a\n").read()
    log.rotate(to="mail.log.3")
    log.write("b\n").rotate(to="mail.log.2")
    log.write("c\n").rotate(to="mail.log.1")
    assert log.write("d\n").read() == ["b", "c", "d"]
    assert log.gaps == 0


def test_a_removed_file_is_read_to_its_end_and_a_gap_is_told(log: Log) -> None:
    log.write("a\n").read()
    log.write("b\n").path.unlink()
    assert log.read() == ["b"]
    assert log.write("c\n").read() == ["c"]
    assert log.gaps == 1


def test_a_file_compressed_at_once_is_no_gap(log: Log) -> None:
    log.write("a\n").read()
    gzipped(log.write("b\n").rotate())
    assert log.write("c\n").read() == ["b", "c"]
    assert log.gaps == 0


def test_a_link_to_the_newest_dated_file(tmp_path: Path) -> None:
    log = Log(tmp_path / "mail.log")
    for day in ("20251120", "20251121"):
        dated = tmp_path / f"mail-{day}.log"
        log.write(f"{day}\n", dated)
        log.path.unlink(missing_ok=True)
        log.path.symlink_to(dated.name)
        assert log.read() == [day]
    assert log.gaps == 0
    log.stop()


# Truncation

LONG = "a first line " * 50


def test_a_copied_and_truncated_file_is_read_to_its_end_in_the_copy(log: Log) -> None:
    log.write("a\n").read()
    log.write("b\n").copytruncate()
    assert log.write("c\n").read() == ["b", "c"]
    assert log.gaps == 0


def test_truncated_and_grown_again_beyond_what_was_read(log: Log) -> None:
    log.write("a\n").read()
    log.write("b\n").copytruncate()
    assert log.write("something longer than before\n").read() == ["b", "something longer than before"]
    assert log.gaps == 0


def test_a_half_written_line_is_completed_in_the_copy(log: Log) -> None:
    log.write("a\nhal").read()
    log.write("f\n").copytruncate()
    assert log.write("c\n").read() == ["half", "c"]


def test_truncated_without_a_copy_is_a_gap(log: Log) -> None:
    log.write("aaa\nbbb\n").read()
    os.truncate(log.path, 0)
    assert log.read() == []
    assert log.gaps == 1
    assert log.write("c\n").read() == ["c"]
    assert log.gaps == 1


def test_a_file_that_lost_its_end_goes_on_at_its_end(log: Log) -> None:
    """After a power failure: what is left was read."""
    log.write(LONG + "\nsecond line\n").read()
    os.truncate(log.path, len(LONG) + 1)
    assert log.read() == []
    assert log.write("third line\n").read() == ["third line"]
    assert log.gaps == 1


def test_a_file_that_lost_its_end_while_nobody_looked(log: Log) -> None:
    log.write(LONG + "\nsecond line\n").read()
    os.truncate(log.path, len(LONG) + 1)
    assert log.start().read() == []
    assert log.write("third line\n").read() == ["third line"]
    assert log.gaps == 1


def test_truncated_within_a_line_that_is_not_to_come(log: Log) -> None:
    log.write("aaa\nhalf").read()
    os.truncate(log.path, 0)
    assert log.write("c\n").read() == ["c"]


def test_truncated_and_removed(log: Log) -> None:
    log.write("aaa\nbbb\n").read()
    os.truncate(log.path, 0)
    log.path.unlink()
    log.read()
    assert log.write("c\n").read() == ["c"]
    assert log.gaps >= 1


# Catching up after a stop


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstd,
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_the_rest_of_a_compressed_file_and_all_newer_ones_are_read(log: Log, suffix: str) -> None:
    log.write("a\nb\n").read()
    log.stop()
    compressed(log.write("c\n").rotate(to="mail.log.3"), suffix, COMPRESSORS[suffix])
    compressed(log.write("d\n").rotate(to="mail.log.2"), suffix, COMPRESSORS[suffix])
    log.write("e\n").rotate(to="mail.log.1")
    assert log.write("f\n").start().read() == ["c", "d", "e", "f"]
    assert log.gaps == 0


NAMES = [
    ("mail.log.1", "mail.log.2"),
    ("mail.log-20251121", "mail.log-20251120"),
    ("mail.log-20251121.gz", "mail.log-20251120.gz"),
    ("mail.log-2025112107", "mail.log-2025112106"),
    ("mail.log.20251121-000000", "mail.log.20251120-000000.gz"),
    ("mail.log.20251121-000000", "mail.log.20251120-000000"),
    ("mail.1.log", "mail.2.log.gz"),
    ("mail-20251121.log", "mail-20251120.log.gz"),
    ("mail.log-2025-11-21", "mail.log-2025-11-20"),
]


@pytest.mark.parametrize(("newer", "oldest"), NAMES)
def test_every_usual_name_of_a_rotated_file_is_found(log: Log, newer: str, oldest: str) -> None:
    log.write("a\n").read()
    log.stop()
    for name, line in ((oldest, "b\n"), (newer, "c\n")):
        rotated = log.write(line).rotate(to=name.removesuffix(".gz"))
        if name.endswith(".gz"):
            gzipped(rotated)
    assert log.write("d\n").start().read() == ["b", "c", "d"]
    assert log.gaps == 0


def test_files_written_at_the_same_instant_are_in_order_of_their_names(log: Log) -> None:
    names = ["mail.log.20251119", "mail.log.20251120", "mail.log.10.gz", "mail.log.9", "mail.log.1", "mail.log"]
    for name in names:
        log.write("a\n", log.path.with_name(name))
        os.utime(log.path.with_name(name), (5, 5))
    found = [file.path.name for file in log_files(log.path)]
    assert [name for name in found if "2025" not in name] == names[2:]
    assert [name for name in found if "2025" in name] == names[:2]


STRANGERS = ["mail-2.log", "mail.logs", "mail.log.bak", "mail.log.1.swp", "xmail.log.1", "mail.log.offset", "mail.err"]


@pytest.mark.parametrize("name", STRANGERS)
def test_other_files_beside_it_are_left_alone(log: Log, name: str) -> None:
    log.write("not ours\n", log.path.with_name(name))
    log.write("ours\n")
    assert [file.path.name for file in log_files(log.path)] == ["mail.log"]


def test_a_file_that_is_being_compressed_is_read_once(log: Log) -> None:
    log.write("a\n").read()
    log.stop()
    old = log.write("b\n").rotate()
    old.with_name("mail.log.1.gz").write_bytes(gzip.compress(old.read_bytes())[:10])
    assert log.write("c\n").start().read() == ["b", "c"]
    assert log.gaps == 0


def test_a_copy_is_found_after_a_stop(log: Log) -> None:
    log.write("a\n").read()
    log.stop()
    log.write("b\n").copytruncate()
    assert log.write("a line that is longer\n").start().read() == ["b", "a line that is longer"]
    assert log.gaps == 0


def test_the_position_within_a_compressed_file_is_kept(log: Log) -> None:
    log.write("a\n").read()
    log.stop()
    gzipped(log.write("".join(f"{number}\n" for number in range(2 * BATCH_LINES))).rotate())
    log.start()
    while not (batches := [batch for batch in log.step() or () if batch.lines]):
        pass
    log.position = batches[0].position
    assert log.write("z\n").start().read() == [*map(str, range(BATCH_LINES, 2 * BATCH_LINES)), "z"]


def test_a_large_part_that_was_read_is_passed_over_in_steps(log: Log) -> None:
    log.write("x" * 99 + "\n")
    log.write(("y" * 99 + "\n") * (3 * READ_SIZE // 100)).read()
    log.stop()
    gzipped(log.write("new\n").rotate())
    assert log.write("z\n").start().step() == []
    assert log.step() == []
    assert log.read() == ["new", "z"]


def test_a_lost_file_is_a_gap_and_the_oldest_newer_one_comes_first(log: Log) -> None:
    log.write("lost\n").read()
    log.stop()
    older(log.path, 30)
    log.position = (
        Position(str(log.path), Place.read(log.position.token)._replace(mtime_ns=log.path.stat().st_mtime_ns).token())
        if log.position
        else None
    )
    log.path.unlink()
    for number, seconds in ((4, 60), (3, 40), (2, 20), (1, 10)):
        log.write(f"{number}\n")
        older(log.path, seconds)
        log.rotate(to=f"mail.log.{number}")
    assert log.write("live\n").start().read() == ["2", "1", "live"]
    assert log.gaps == 1


def test_a_lost_file_without_newer_ones_is_a_gap_before_the_live_one(log: Log) -> None:
    log.write("lost\n").read()
    log.stop()
    log.path.unlink()
    assert log.write("live\n").start().read() == ["live"]
    assert log.gaps == 1


def test_a_damaged_compressed_file_is_a_gap_and_not_the_end(log: Log) -> None:
    log.write("a\n").read()
    log.stop()
    old = gzipped(log.write("b\n" * 2000).rotate())
    data = old.read_bytes()
    old.write_bytes(data[:-12])
    log.write("c\n").start()
    assert log.read()[-1] == "c"
    assert log.gaps == 1


def test_a_damaged_compressed_file_and_nothing_newer(log: Log) -> None:
    log.write("a\n").read()
    log.stop()
    old = gzipped(log.write("b\n" * 2000).rotate())
    old.write_bytes(old.read_bytes()[:-12])
    log.start().read()
    assert log.gaps == 1
    assert log.read() == []
    assert log.write("c\n").read() == ["c"]


def test_nothing_is_there_after_a_stop(log: Log) -> None:
    log.write("a\n").read()
    log.stop()
    log.path.unlink()
    assert log.start().read() == []
    assert log.write("b\n").read() == ["b"]
    assert log.gaps == 1


# What cannot be read


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """The rights of a user who may read nothing of root's."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public() -> Iterator[Log]:
    """In a directory that everybody may enter."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    log = Log(directory / "mail.log")
    yield log
    log.stop()
    shutil.rmtree(directory)


def test_an_unreadable_file_is_said_with_its_remedy(public: Log) -> None:
    public.write("a\n").path.chmod(0)
    with as_nobody(), pytest.raises(ConfigError, match=r"log\.source: .*/mail\.log: cannot be read.*usermod -aG adm"):
        public.start().step()


def test_a_directory_is_no_log(tmp_path: Path) -> None:
    log = Log(tmp_path / "mail.log")
    log.path.mkdir()
    with pytest.raises(ConfigError, match=r"Is a directory; wanted a file"):
        log.start().step()


def test_a_new_file_that_gets_its_owner_late_is_waited_for(public: Log) -> None:
    public.write("a\n").read()
    public.rotate()
    public.write("b\n").path.chmod(0)
    with as_nobody():
        assert public.read() == []
        public.now += PATIENCE / 2
        assert public.read() == []
    public.path.chmod(0o644)
    with as_nobody():
        assert public.read() == ["b"]
    assert public.gaps == 0


def test_a_new_file_that_stays_unreadable_is_said(public: Log) -> None:
    public.write("a\n").read()
    public.rotate()
    public.write("b\n").path.chmod(0)
    with as_nobody():
        assert public.read() == []
        public.now += PATIENCE
        with pytest.raises(ConfigError, match="cannot be read"):
            public.read()


def test_a_stale_handle_is_opened_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS when another host rotated."""
    log.write("a\n").read()
    real = os.fstat
    stale = iter([OSError(116, "Stale file handle")])

    def fstat(descriptor: int) -> os.stat_result:
        for error in stale:
            raise error
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", fstat)
    assert log.write("b\n").read() == ["b"]
    assert log.gaps == 0


def test_a_disk_that_cannot_be_read_is_said(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write("a\n").read()

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        raise OSError(5, "Input/output error", f"{descriptor} {length} {offset}")

    monkeypatch.setattr(os, "pread", pread)
    assert log.write("b\n").read() == []
    log.now += PATIENCE
    with pytest.raises(ConfigError, match="cannot be read: Input/output error"):
        log.read()


# Any order of events


class Rotations(RuleBasedStateMachine):
    """Whatever happens between two looks, each line is handed out once and in order; and no gap is told in vain."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.log = Log(self.directory / "mail.log")
        self.log.write("line 0, the first of this log\n")
        self.written = ["line 0, the first of this log"]
        self.half = ""
        self.seen = self.log.read()

    @rule(count=st.integers(1, 3))
    def write(self, count: int) -> None:
        for _ in range(count):
            line = f"line {len(self.written)} of this log"
            self.log.write((line + "\n").removeprefix(self.half))
            self.written.append(line)
            self.half = ""

    @rule()
    def write_half(self) -> None:
        if not self.half:
            self.half = f"line {len(self.written)}"
            self.log.write(self.half)

    @rule()
    def read(self) -> None:
        self.seen += self.log.read()

    @rule()
    def read_a_little(self) -> None:
        self.seen += [line.decode() for batch in self.log.step() or () for line in batch.lines]

    @rule()
    def stop_and_start(self) -> None:
        self.log.start()

    def shift(self) -> None:
        for number in range(20, 0, -1):
            for suffix in ("", ".gz"):
                old = self.directory / f"mail.log.{number}{suffix}"
                if old.exists():
                    old.rename(self.directory / f"mail.log.{number + 1}{suffix}")

    @precondition(lambda self: self.log.path.exists() and not self.half)
    @rule(create=st.booleans())
    def rename(self, create: bool) -> None:  # noqa: FBT001  # hypothesis gives it by name
        self.shift()
        self.log.rotate(create=create)

    @precondition(lambda self: bool(self.log.path.exists() and self.log.path.stat().st_size and not self.half))
    @rule()
    def copy_and_truncate(self) -> None:
        self.shift()
        self.log.copytruncate()

    @precondition(lambda self: self.log.position is not None and Place.read(self.log.position.token).head_length > 0)
    @rule(number=st.integers(1, 4))
    def compress(self, number: int) -> None:
        rotated = self.directory / f"mail.log.{number}"
        if rotated.exists() and rotated.stat().st_size:
            gzipped(rotated)

    @invariant()
    def in_order_and_once(self) -> None:
        if hasattr(self, "seen"):
            assert self.seen == self.written[: len(self.seen)]
            assert self.log.gaps == 0

    def teardown(self) -> None:
        self.write(1)
        self.seen += self.log.read()
        assert self.seen == self.written
        self.log.stop()
        shutil.rmtree(self.directory)


Rotations.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_whatever_happens = Rotations.TestCase


# Waiting


async def lines_of(batches: AsyncIterator[Batch], count: int) -> list[str]:
    lines: list[str] = []
    while len(lines) < count:
        lines += [line.decode() for line in (await anext(batches)).lines]
    return lines


async def follow_a_line(path: Path) -> list[str]:
    """Follow a file to which a line is written when the reader waits."""
    async with contextlib.aclosing(follow_file(path, source=str(path), start=None, from_end=True)) as batches:
        await anext(batches)
        waiting = asyncio.create_task(lines_of(batches, 1))
        await asyncio.sleep(0)
        with path.open("a") as file:
            file.write("a\n")
        return await asyncio.wait_for(waiting, 60)


def test_a_change_wakes_the_reader(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filewatch, "TIMER", 1000.0)
    log.write("")
    assert asyncio.run(follow_a_line(log.path)) == ["a"]


def test_the_timer_reads_where_changes_cannot_be_told(
    log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> None:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr(filewatch, "Observer", refused)
    log.write("")
    assert asyncio.run(follow_a_line(log.path)) == ["a"]
    assert "inotify instance limit reached" in caplog.text


def test_a_file_of_another_host_is_polled(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maillog, "on_network", lambda _: True)
    monkeypatch.setattr(filewatch, "Observer", None)
    log.write("")
    assert asyncio.run(follow_a_line(log.path)) == ["a"]


@pytest.mark.parametrize(
    ("kind", "expected"), [("nfs4", True), ("fuse.sshfs", True), ("ext4", False), ("tmpfs", False)]
)
def test_network_file_systems_are_known(monkeypatch: pytest.MonkeyPatch, kind: str, expected: bool) -> None:  # noqa: FBT001
    table = (
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"40 22 0:40 / /srv/log rw,relatime shared:2 master:1 - {kind} server:/log rw\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda *_args, **_options: table)
    assert on_network(Path("/srv/log/deep/mail.log")) == expected
    assert not on_network(Path("/var/log/mail.log"))


async def write_until_telling_rests(path: Path) -> None:
    """More lines than one wants to be told of; then quiet, and telling begins again."""
    async with watching(path, network=False) as watch:
        with path.open("ab", buffering=0) as file:
            while watch._watch:
                file.write(b"a line\n")
                await watch.wait()
        assert watch._timer == filewatch.TIMER_BUSY
        while not watch._watch:
            await watch.wait()
        assert watch._timer == filewatch.TIMER


def test_telling_rests_under_load(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filewatch, "TOLD_WINDOW", 0.05)
    monkeypatch.setattr(filewatch, "REST", 0.05)
    log.write("")
    asyncio.run(asyncio.wait_for(write_until_telling_rests(log.path), 60))


async def stop_after(path: Path, turns: int) -> None:
    """Begin to read, and cancel after so many turns of the loop: while watchdog starts, a thread reads, lines come."""
    batches = follow_file(path, source=str(path), start=None, from_end=False)
    reading = asyncio.create_task(lines_of(batches, 10**9))
    for _ in range(turns):
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await batches.aclose()


def test_it_can_be_stopped_at_any_moment(log: Log) -> None:
    log.write("x\n" * 200_000)
    before = len(list(Path("/proc/self/fd").iterdir()))
    threads = set(threading.enumerate())
    for turns in (0, 1, 2, 3, 5, 10, 20, 40, 80, 160, 320):
        asyncio.run(stop_after(log.path, turns))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not [thread.name for thread in threading.enumerate() if thread not in threads]


def test_waiting_is_cheap_and_says_how_much_there_is(log: Log) -> None:
    log.write("a\n").start()
    assert log.waiting() is None
    log.read()
    assert log.waiting() == 0
    log.write("bc")
    assert log.waiting() == 2
    log.read()
    assert log.waiting() == 0
    log.rotate()
    assert log.waiting() is None
