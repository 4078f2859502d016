"""The file of digests: what is in it is found, what is not is not, and a file that is none is refused."""

import contextlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.suppression_index import IndexFile, Stamp, build, fold

STAMP = Stamp(b"store-0123456789", 7)

# Few buckets, so that some hold many: the first two bytes and a half tell which.
WHO = st.builds(
    lambda head, tail: bytes([0, head, 0xF0]) + tail, st.integers(0, 3), st.binary(min_size=13, max_size=13)
)
EDGES = st.sampled_from([bytes(16), b"\xff" * 16, b"\xff\xff\xff" + bytes(13), b"\x00\x00\x10" + bytes(13)])
LISTED = st.dictionaries(
    st.one_of(WHO, EDGES),
    st.lists(st.integers(0, (1 << 24) - 1), unique=True, max_size=3).map(lambda x: tuple(sorted(x))),
    max_size=60,
)


def rows(listed: dict[bytes, tuple[int, ...]]) -> list[tuple[bytes, int]]:
    return sorted((who, slot) for who, slots in listed.items() for slot in slots)


@settings(max_examples=8, deadline=None)
@given(LISTED, st.lists(LISTED, max_size=3))
def test_a_file_says_what_was_written_and_folded_into_it(
    tmp_path_factory: pytest.TempPathFactory,
    first: dict[bytes, tuple[int, ...]],
    later: list[dict[bytes, tuple[int, ...]]],
) -> None:
    path = tmp_path_factory.mktemp("index") / "suppressed.index"
    build(rows(first), path, STAMP)
    known = dict(first)
    file = IndexFile(path)
    for changed in later:
        fold(file, changed, path, STAMP)
        known |= changed
        file = IndexFile(path)
    assert {who: file.slots(who) for who in known} == known
    assert file.entries == sum(map(len, known.values()))
    assert file.stamp == STAMP
    assert file.slots(b"\x00\x01\xf0" + b"never there.."[:13]) == ()


def test_a_list_from_nothing_is_the_same_either_way(tmp_path: Path) -> None:
    rng = random.Random(1)
    listed: dict[bytes, tuple[int, ...]] = {rng.randbytes(16): (rng.randrange(9),) for _ in range(5_000)}
    build(rows(listed), tmp_path / "built", STAMP)
    fold(None, listed, tmp_path / "folded", STAMP)
    assert (tmp_path / "built").read_bytes() == (tmp_path / "folded").read_bytes()


def test_who_is_not_on_it_is_not_found(tmp_path: Path) -> None:
    rng = random.Random(2)
    build(rows({rng.randbytes(16): (1,) for _ in range(20_000)}), tmp_path / "index", STAMP)
    file = IndexFile(tmp_path / "index")
    assert not any(file.slots(rng.randbytes(16)) for _ in range(200_000))


def test_a_file_that_is_read_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build([(b"a" * 16, 1)], path, STAMP)
    old = IndexFile(path)
    fold(old, {b"a" * 16: (), b"b" * 16: (2,)}, path, STAMP)
    assert (old.slots(b"a" * 16), old.slots(b"b" * 16)) == ((1,), ())
    new = IndexFile(path)
    assert (new.slots(b"a" * 16), new.slots(b"b" * 16)) == ((), (2,))


@pytest.mark.parametrize("cut", [0, 10, 48, 5_000, -1])
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "index"
    build([(b"a" * 16, 1)], path, STAMP)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match="index"):
        IndexFile(path)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build([(b"a" * 16, 1)], path, STAMP)
    path.write_bytes(b"another version!" + path.read_bytes()[16:])
    with pytest.raises(ValueError, match="no index of this version"):
        IndexFile(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build([(b"a" * 16, 1)], path, STAMP)

    def broken() -> object:
        yield (b"b" * 16, 2)
        raise OSError(28, os.strerror(28))

    with pytest.raises(OSError, match="No space"):
        build(broken(), path, STAMP)  # type: ignore[arg-type]  # it never gets to its second row
    assert IndexFile(path).slots(b"a" * 16) == (1,)
    assert [each.name for each in tmp_path.iterdir()] == ["index"]


def test_kill_9_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "index"
    build([(b"a" * 16, 1)], path, STAMP)
    code = (
        "import sys; from pathlib import Path; from sidecar.suppression_index import *\n"
        "path, number = Path(sys.argv[1]), 0\n"
        "while True:\n"
        "    number += 1\n"
        "    who = number.to_bytes(16, 'big')\n"
        "    fold(IndexFile(path), {who: (1,)}, path, Stamp(b'store-0123456789', number))\n"
        "    print(number, flush=True)\n"
    )
    rng = random.Random(3)
    for _ in range(5):
        command = [sys.executable, "-c", code, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(1, 4)):
                process.stdout.readline()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.random() * 0.05)
            process.kill()
        file = IndexFile(path)
        assert file.slots(b"a" * 16) == (1,)
    assert file.entries > 1


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    build([], tmp_path / "index", STAMP)
    assert (tmp_path / "index").stat().st_mode & 0o777 & ~0o640 == 0
