"""Logs read by several processes: the same as by one, wherever the files are cut; and what is said of those that fail."""

import gzip
import itertools
import os
import random
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from parsers.log import LogReader
from parsers.postfix.facts import DeliveryAttempt, Fact
from sidecar import bulk
from sidecar.bulk import ParseError, Part, fold, parts
from sidecar.parse import Statistics, count, count_files

BERLIN = ZoneInfo("Europe/Berlin")
SENT = (
    b"postfix/lane-01/smtp[77]: 3F2A81C0B7: to=<a@example.com>, relay=mx.example.com[192.0.2.25]:25, delay=1.2"
    b", delays=0.05/0.01/0.43/0.71, dsn=2.0.0, status=sent (250 2.0.0 Ok)"
)
TEXTS = (
    SENT,
    b"postfix/qmgr[555]: 4TgXyz1MTHz9sPk: removed",
    b"postfix-out/smtpd[9]: connect from unknown[192.0.2.9]",
    b"postfix/smtpd[9]: something new",
    b"postfix/smtpd[9]: message repeated 2 times: [ connect from unknown[192.0.2.9]]",
    b"dovecot: imap-login: \xff\xfe",
    b"postfix/cleanup[8]: 3F2A81C0B7: message-id=<\xc3\xbc@example.com>\r",
    b"last message repeated 3 times",
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a file of some kilobytes is cut as one of gigabytes."""
    monkeypatch.setattr(bulk, "_LEAST", 2_000)
    monkeypatch.setattr(bulk, "_SAMPLES", 1_000)
    monkeypatch.setattr(bulk, "_LOOK", 2_000)
    monkeypatch.setattr(bulk, "_BLOCK", 700)


def write(
    path: Path,
    *,
    begin: datetime,
    step: timedelta,
    lines: int,
    seed: int = 1,
    iso: bool = False,
    texts: Sequence[bytes] = TEXTS,
) -> Path:
    chance = random.Random(seed)
    with path.open("wb") as file:
        for number in range(lines):
            now = (begin.astimezone(UTC) + number * step).astimezone(begin.tzinfo)
            stamp = now.isoformat() if iso else f"{now:%b} {now.day:2} {now:%H:%M:%S}"
            file.write(stamp.encode() + b" mx1 " + chance.choice(texts) + b"\n")
    os.utime(path, (now.timestamp(), now.timestamp()))
    return path


def facts_of(part: Part) -> list[Fact]:
    reader = part.reader()
    return [fact for block in part.blocks() for fact in reader.block_facts(block)]


LOGS = (
    (datetime(2024, 12, 31, 12, tzinfo=UTC), timedelta(minutes=5), UTC),
    (datetime(2023, 2, 10, tzinfo=UTC), timedelta(days=2), UTC),
    (datetime(2025, 10, 25, 20, tzinfo=BERLIN), timedelta(seconds=60), BERLIN),
    (datetime(2025, 3, 29, 20, tzinfo=BERLIN), timedelta(seconds=60), BERLIN),
    (datetime(2024, 2, 28, 20, tzinfo=UTC), timedelta(seconds=90), UTC),
)


@pytest.mark.parametrize(("begin", "step", "zone"), LOGS, ids=["new-year", "years", "autumn", "spring", "leap-day"])
@pytest.mark.parametrize("iso", [False, True], ids=["bsd", "iso"])
def test_the_same_facts_wherever_it_is_cut(
    tmp_path: Path, begin: datetime, step: timedelta, zone: tzinfo, *, iso: bool
) -> None:
    path = write(tmp_path / "mail.log", begin=begin, step=step, lines=600, iso=iso)
    (whole,) = parts([path], zone=zone)
    wanted = facts_of(whole)
    first = wanted[0].record.time
    assert 0 <= first - begin.timestamp() < 20 * step.total_seconds()
    assert all(earlier.record.time <= later.record.time for earlier, later in itertools.pairwise(wanted))
    for pieces in (2, 3, 5, 11):
        cut = parts([path], zone=zone, pieces=pieces)
        assert len(cut) > 1
        assert [fact for part in cut for fact in facts_of(part)] == wanted


def test_no_cut_in_the_hour_that_comes_twice(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mail.log", begin=datetime(2025, 10, 26, 2, 5, tzinfo=BERLIN), step=timedelta(seconds=5), lines=600
    )
    assert len(parts([path], zone=BERLIN, pieces=4)) == 1
    assert len(parts([path], zone=UTC, pieces=4)) == 4


def test_counts_are_those_of_one_process(tmp_path: Path) -> None:
    one = write(tmp_path / "mail.log", begin=LOGS[0][0], step=LOGS[0][1], lines=900)
    two = write(tmp_path / "mail.log.1", begin=LOGS[0][0], step=LOGS[0][1], lines=300, seed=2)
    three = tmp_path / "mail.log.2.gz"
    three.write_bytes(gzip.compress(two.read_bytes()))
    paths = [one, two, three]
    wanted = Statistics()
    for path in (one, two, two):
        reader = LogReader(zone=UTC, reference=path.stat().st_mtime)
        for line in path.read_bytes().split(b"\n")[:-1]:
            reader.facts(line)
        wanted.add(Statistics(reader.lines, reader.known, reader.unknown, reader.samples))
    assert wanted.lines == 1500
    assert wanted.unknown["smtpd"] > 0
    for processes in (1, 2, 3):
        assert count_files(paths, zone=UTC, processes=processes) == wanted


def test_deliveries_alone_by_parts(tmp_path: Path) -> None:
    path = write(tmp_path / "mail.log", begin=LOGS[0][0], step=LOGS[0][1], lines=600, texts=TEXTS[:-1])

    def deliveries(part: Part) -> int:
        reader = part.reader(only=[DeliveryAttempt])
        return sum(len(reader.block_facts(block)) for block in part.blocks())

    found = list(fold(deliveries, parts([path], zone=UTC, pieces=3), processes=3))
    assert len(found) == 3
    (whole,) = parts([path], zone=UTC)
    assert sum(found) == sum(isinstance(fact, DeliveryAttempt) for fact in facts_of(whole))


@pytest.fixture
def several(tmp_path: Path) -> list[Part]:
    paths = [
        write(tmp_path / f"mail.log.{number}", begin=LOGS[0][0], step=LOGS[0][1], lines=10 + number)
        for number in range(5)
    ]
    return parts(paths, zone=UTC)


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_results_come_in_order(several: list[Part], processes: int) -> None:
    found = [counted.lines for counted in fold(count, several, processes=processes)]
    assert found == [10, 11, 12, 13, 14]


def test_a_process_that_is_killed(several: list[Part]) -> None:
    def work(part: Part) -> int:
        if part.path.name == "mail.log.3":
            os.kill(os.getpid(), signal.SIGKILL)
        return 1

    with pytest.raises(ParseError, match=r"mail\.log\.3: the process that read it was ended by signal 9"):
        list(fold(work, several, processes=2))


def test_a_process_that_ends_by_itself(several: list[Part]) -> None:
    def work(_part: Part) -> int:
        os._exit(0)

    with pytest.raises(ParseError, match="was ended before its result came"):
        list(fold(work, several, processes=2))


def test_work_that_fails(several: list[Part]) -> None:
    def work(part: Part) -> float:
        return 1 / (part.path.name != "mail.log.1")

    with pytest.raises(ParseError, match=r"mail\.log\.1: ZeroDivisionError: division by zero"):
        list(fold(work, several, processes=3))


def test_a_broken_file_among_others(several: list[Part], tmp_path: Path) -> None:
    broken = tmp_path / "mail.log.9.gz"
    broken.write_bytes(gzip.compress(several[0].path.read_bytes())[:-30])
    paths = [*(part.path for part in several), broken]
    for processes in (1, 3):
        with pytest.raises(ParseError, match=r"mail\.log\.9\.gz: cannot be read: "):
            count_files(paths, zone=UTC, processes=processes)


def test_a_file_that_becomes_shorter(several: list[Part]) -> None:
    part = several[0]
    size = part.path.stat().st_size
    with pytest.raises(ParseError, match=r"mail\.log\.0: cannot be read: it has become shorter while it was read"):
        list(part._replace(end=size + 1).blocks())


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ParseError, match=r"nothing\.log: cannot be read: No such file or directory"):
        parts([tmp_path / "nothing.log"], zone=UTC)


def test_a_file_without_stamps_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(b"who knows\n" * 5_000)
    (part,) = parts([path], zone=UTC, pieces=4)
    assert count(part).lines == 5_000
