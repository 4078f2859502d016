import os
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import held_record
from sidecar.held_record import HeldRecord, Op, RecordError

IDS = [f"4jX2Q347kNzJ9D{last}" for last in "BCDFGH"]
ACTS = st.lists(
    st.tuples(st.sampled_from(Op), st.sampled_from(["postfix", "postfix-out"]), st.sets(st.sampled_from(IDS)))
)


def model(acts: list[tuple[Op, str, set[str]]]) -> set[tuple[str, str]]:
    """What is ours after these acts, said in the simplest way."""
    ours: set[tuple[str, str]] = set()
    for op, instance, ids in acts:
        named = {(instance, one) for one in ids}
        ours = ours | named if op in held_record.OURS else ours - named
    return ours


@given(acts=ACTS)
def test_record_says_what_was_done(
    acts: list[tuple[Op, str, set[str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("record") / "held.record"
    record = HeldRecord(path)
    for op, instance, ids in acts:
        record.append(op, instance, ids, key="k", now=1.0)
    assert set(record.live) == model(acts)
    assert set(HeldRecord(path).live) == model(acts)
    assert held_record.read(path)[::2] == (record.live, 0)


@given(data=st.data())
def test_a_torn_line_costs_only_itself(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """kill -9, or a power cut, at any byte of the last line; the next line is whole."""
    path = tmp_path_factory.mktemp("record") / "held.record"
    record = HeldRecord(path)
    record.append(Op.HOLD, "postfix", IDS[:2], key="k", now=1.0)
    before = path.stat().st_size
    record.append(Op.RELEASE, "postfix", IDS[:1], key="k", now=2.0)
    cut = data.draw(st.integers(before, path.stat().st_size - 2))
    os.truncate(path, cut)
    again = HeldRecord(path)
    assert {one for _, one in again.live} == set(IDS[:2])
    assert again.damaged == (cut > before)
    again.append(Op.HOLD, "postfix", IDS[3:4], key="k", now=3.0)
    assert {one for _, one in HeldRecord(path).live} == {*IDS[:2], IDS[3]}


@pytest.mark.parametrize(
    "damage",
    [
        b"\0" * 40,
        b"{}",
        b"[1]",
        b'{"op":"hold"}',
        b'{"time":1,"op":"dance","instance":"postfix","key":"k","ids":["4jX2Q347kNzJ9DB"]}',
        b'{"time":"?","op":"hold","instance":"postfix","key":"k","ids":[]}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_line_costs_no_other(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "held.record"
    record = HeldRecord(path)
    record.append(Op.HOLD, "postfix", IDS[:1], key="k", now=1.0)
    path.write_bytes(damage + b"\n" + path.read_bytes() + damage + b"\n")
    live, _, damaged = held_record.read(path)
    assert [entry.queue_id for entry in live.values()] == IDS[:1]
    assert damaged == 2


def test_entry_carries_what_the_failsafe_needs(tmp_path: Path) -> None:
    record = HeldRecord(tmp_path / "held.record")
    record.append(Op.ADOPT, "postfix-out", IDS[:1], key="dkim-domain:example.com@google", now=1795289786.539)
    assert held_record.read(record.path).live["postfix-out", IDS[0]] == held_record.Entry(
        "postfix-out", IDS[0], "dkim-domain:example.com@google", 1795289786.539, Op.ADOPT
    )


def test_missing_record_is_an_empty_one(tmp_path: Path) -> None:
    assert held_record.read(tmp_path / "none") == ({}, frozenset(), 0)


def test_compaction_keeps_what_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_record, "COMPACT_AT", 2000)
    record = HeldRecord(tmp_path / "held.record")
    record.append(Op.HOLD, "postfix", IDS, key="k", now=1.0)
    for i in range(200):
        record.append(Op.HOLD, "postfix", ["AABBCC"], key="k", now=float(i))
        record.append(Op.RELEASE, "postfix", ["AABBCC"], key="k", now=float(i))
    assert record.path.stat().st_size < 3000
    assert set(held_record.read(record.path).live) == {("postfix", one) for one in IDS}


def test_two_writers_see_each_other_also_across_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_record, "COMPACT_AT", 500)
    first, second = HeldRecord(tmp_path / "held.record"), HeldRecord(tmp_path / "held.record")
    for i in range(40):
        writer, other = (first, second) if i % 3 else (second, first)
        writer.append(Op.HOLD, "postfix", [IDS[i % 6]], key="k", now=float(i))
        assert set(other.live) == set(writer.live)
        if i % 5 == 4:
            other.append(Op.GONE, "postfix", IDS[:3], key="", now=float(i))
    assert set(first.live) == set(held_record.read(first.path).live)


@pytest.mark.parametrize("make", ["symlink", "hard link", "fifo", "other owner"])
def test_a_trap_in_place_of_the_record_is_refused(tmp_path: Path, make: str) -> None:
    path, target = tmp_path / "held.record", tmp_path / "target"
    target.write_text("")
    if make == "symlink":
        path.symlink_to(target)
    elif make == "hard link":
        path.hardlink_to(target)
    elif make == "fifo":
        os.mkfifo(path)
    else:
        path.write_text("")
        os.chown(path, 65534, 65534)
    with pytest.raises(RecordError, match=r"held\.record"):
        HeldRecord(path).append(Op.HOLD, "postfix", IDS, key="k", now=1.0)
    assert target.read_text() == ""


def test_what_does_not_fit_on_the_disk_leaves_no_trace(tmp_path: Path) -> None:
    record = HeldRecord(tmp_path / "held.record")
    record.append(Op.HOLD, "postfix", IDS[:1], key="k", now=1.0)
    before = record.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
    try:
        with pytest.raises(RecordError, match="No space left"):
            record.append(Op.HOLD, "postfix", IDS[1:], key="k", now=2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert record.path.read_bytes() == before
    record.append(Op.HOLD, "postfix", IDS[1:2], key="k", now=3.0)
    assert {one for _, one in held_record.read(record.path).live} == set(IDS[:2])
