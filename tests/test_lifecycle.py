"""Messages of logs: tests/lifecycle/*.toml, each by itself, all in one log, with lines out of order, and with lines twice."""

import random
import tomllib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from parsers.log import LogReader
from policies.lifecycle import WINDOW, Lifecycle
from policies.message_record import End, Hop, MessageRecord, RecipientOutcome

PATHS = sorted((Path(__file__).parent / "lifecycle").glob("*.toml"))
NOON = 1748779200.0  # 2025-06-01T12:00:00Z


def case(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def log_of(path: Path) -> list[str]:
    return str(case(path)["log"]).strip().splitlines()


EVERYTHING = sorted((line for path in PATHS for line in log_of(path)), key=lambda line: line[:32])
WANTED = [record for path in PATHS for record in case(path)["record"]]


def records(lines: Iterable[str], lifecycle: Lifecycle | None = None) -> list[MessageRecord]:
    lifecycle = lifecycle or Lifecycle()
    reader = LogReader(zone=UTC, reference=NOON + 3600)
    finished: list[MessageRecord] = []
    for line in lines:
        for fact in reader.facts(line.encode()):
            lifecycle.see(fact)
        finished += lifecycle.finished()
    lifecycle.rest()
    return [*finished, *lifecycle.finished()]


def plainly(value: Any) -> Any:
    """As the cases write it."""
    if isinstance(value, Hop):
        return " ".join(value)
    if isinstance(value, RecipientOutcome | MessageRecord):
        return {name: plainly(field) for name, field in value._asdict().items()}
    if isinstance(value, tuple):
        return [plainly(item) for item in value]
    return value


TIMES = {"arrival", "ended", "first_attempt", "last_attempt"}


def expect(found: dict[str, Any], wanted: dict[str, Any], grain: float) -> None:
    for name, value in wanted.items():
        if name == "recipients":
            assert len(found[name]) == len(value)
            key = {(one["recipient"], one["orig_to"]): one for one in found[name]}
            for one in value:
                expect(key[one["recipient"], one.get("orig_to", "")], one, grain)
        elif name in TIMES:
            assert found[name] == pytest.approx(NOON + value, abs=grain), name
        else:
            assert found[name] == value, name


def expect_all(found: Sequence[MessageRecord], wanted: Sequence[dict[str, Any]], grain: float = 0.001) -> None:
    """Each of the wanted, and no other. Messages are told apart by their hops and, where these come again, by arrival."""
    plain = sorted((plainly(record) for record in found), key=lambda one: (one["hops"], one["arrival"]))
    wanted = sorted(wanted, key=lambda one: (one["hops"], one.get("arrival", 0.0)))
    assert [one["hops"] for one in plain] == [one["hops"] for one in wanted]
    for one, want in zip(plain, wanted, strict=True):
        expect(one, want, grain)


def bsd(line: str) -> str:
    stamp, _, rest = line.partition(" ")
    return f"{datetime.fromisoformat(stamp).strftime('%b %e %H:%M:%S')} {rest}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    expect_all(records(log_of(path)), case(path)["record"])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_with_stamps_of_whole_seconds(path: Path) -> None:
    expect_all(records(map(bsd, log_of(path))), case(path)["record"], grain=1.0)


def test_all_in_one_log() -> None:
    expect_all(records(EVERYTHING), WANTED)


def shuffled(lines: Sequence[str], seed: int) -> list[str]:
    """As a syslog daemon does: each line comes up to two seconds late, its stamp stays."""
    dice = random.Random(seed)
    return sorted(lines, key=lambda line: datetime.fromisoformat(line[:32]).timestamp() + dice.random() * WINDOW * 0.99)


@pytest.mark.parametrize("seed", range(200))
def test_lines_out_of_order(seed: int) -> None:
    expect_all(records(shuffled(EVERYTHING, seed)), WANTED)


def test_every_line_twice() -> None:
    expect_all(records(line for line in EVERYTHING for _ in range(2)), WANTED)


def test_the_whole_log_twice() -> None:
    """A file that is read again, within what is remembered of finished messages."""
    found = records([*EVERYTHING, *EVERYTHING])
    expect_all(
        [record for record in found if record.end is not End.UNFINISHED],
        [record for record in WANTED if record["end"] != "unfinished"],
    )


@pytest.mark.parametrize("seed", range(20))
def test_every_line_twice_and_out_of_order(seed: int) -> None:
    expect_all(records(shuffled([*EVERYTHING, *EVERYTHING], seed)), WANTED)
