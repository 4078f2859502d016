"""Messages of logs: tests/lifecycle/*.toml, each by itself, all in one log, with lines out of order, and with lines twice."""

import random
import tomllib
from collections.abc import Iterable, Iterator, Sequence
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


def many(count: int, *, end: bool) -> Iterator[str]:
    """Messages one after the other, a second apart, deferred; the log goes on for as long as they are many."""
    for number in range(count):
        stamp = datetime.fromtimestamp(NOON + number, UTC).strftime("%Y-%m-%dT%H:%M:%S.000000+00:00")
        queue_id = f"{number:010X}"
        yield f"{stamp} mx1 postfix/smtpd[1]: {queue_id}: client=a.example[192.0.2.1]"
        yield f"{stamp} mx1 postfix/cleanup[2]: {queue_id}: message-id=<{number}@a.example>"
        yield f"{stamp} mx1 postfix/qmgr[3]: {queue_id}: from=<a@a.example>, size=1, nrcpt=1 (queue active)"
        yield (
            f"{stamp} mx1 postfix/smtp[4]: {queue_id}: to=<b@b.example>, relay=mx.b.example[198.51.100.1]:25, delay=0"
            ", delays=0/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 3F2A81C0B8)"
        )
        if end:
            yield f"{stamp} mx1 postfix/qmgr[3]: {queue_id}: removed"


def test_messages_that_do_not_end_are_given_up_after_a_while() -> None:
    lifecycle = Lifecycle(patience=60.0)
    found = records(many(9_000, end=False), lifecycle)
    assert len(found) == 9_000
    assert {record.end for record in found} == {End.UNFINISHED}
    assert {outcome.status for record in found for outcome in record.recipients} == {"sent"}


@pytest.mark.parametrize("end", [True, False])
def test_memory_is_bounded(end: bool) -> None:  # noqa: FBT001  # pytest fills it
    lifecycle = Lifecycle(most=1_000)
    reader = LogReader(zone=UTC, reference=NOON)
    count = most = 0
    for line in many(20_000, end=end):
        for fact in reader.facts(line.encode()):
            lifecycle.see(fact)
        most = max(most, lifecycle.open_messages)
        count += len(lifecycle.finished())
    lifecycle.rest()
    found = lifecycle.finished()
    assert count + len(found) == 20_000
    assert most <= (20 if end else 1_200)


def test_a_clock_that_was_set_back_and_a_stamp_from_the_future() -> None:
    lines = list(many(50, end=True))
    future = "2031-01-01T00:00:00.000000+00:00 mx1 postfix/qmgr[3]: 00FFFFFFFF: from=<>, size=1, nrcpt=1 (queue active)"
    found = records([*lines[:100], future, *lines[100:]])
    assert sum(record.end is End.REMOVED for record in found) == 50


def test_many_recipients_each_counted_once() -> None:
    delivery = (
        "2025-06-01T12:00:0{} mx1 postfix/smtp[4]: 3F2A81C0B7: to=<r{}@b.example>, relay=mx.b.example[198.51.100.1]:25"
        ", delay=0, delays=0/0/0/0, dsn=4.0.0, status=deferred (host mx.b.example[198.51.100.1] said: 450 later)"
    )
    lines = [delivery.format(f"{second}+00:00", number) for second in (1, 5) for number in range(50)]
    (record,) = records([line for line in lines for _ in range(2)])
    assert [(one.recipient, one.attempts) for one in record.recipients] == [(f"r{n}@b.example", 2) for n in range(50)]
