"""A whole log's messages read in bulk are those of the lifecycle, line by line: on its cases, shuffled, doubled, damaged."""

import gc
import itertools
import random
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC
from functools import partial
from io import StringIO
from pathlib import Path

import pytest

from benchmarks import mail_log
from benchmarks.mail_log import Style, write_log
from parsers.log import LogReader
from parsers.postfix.facts import Rejected
from policies.bulk_lifecycle import BulkLifecycle
from policies.lifecycle import Lifecycle
from policies.message_lines import WANTED, MessageLines
from policies.message_record import MessageRecord
from tests.test_lifecycle import EVERYTHING, NOON, PATHS, bsd, log_of, shuffled

CASES = {path.stem: log_of(path) for path in PATHS}


def strictly(lines: Iterable[bytes], lifecycle: Lifecycle | None = None) -> Counter[MessageRecord]:
    lifecycle = lifecycle or Lifecycle()
    reader = LogReader(zone=UTC, reference=NOON + 3600, only=WANTED)
    for line in lines:
        for fact in reader.facts(line):
            lifecycle.see(fact)
    lifecycle.rest()
    return Counter(lifecycle.finished())


def in_bulk(lines: Sequence[bytes], size: int) -> Counter[MessageRecord]:
    """Read in blocks of so many lines."""
    reader = LogReader(zone=UTC, reference=NOON + 3600, only=WANTED)
    lifecycle = BulkLifecycle(reader)
    found: Counter[MessageRecord] = Counter()
    for begin in range(0, len(lines), size):
        lifecycle.read(b"\n".join(lines[begin : begin + size]) + b"\n")
        found.update(lifecycle.finished())
    lifecycle.rest()
    found.update(lifecycle.finished())
    assert lifecycle.open_messages == 0
    assert reader.lines == len(lines)
    return found


def encoded(lines: Iterable[str]) -> list[bytes]:
    return [line.encode() for line in lines]


def expect_same(lines: Sequence[bytes], size: int = 100) -> None:
    assert in_bulk(lines, size) == strictly(lines)


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("name", CASES)
def test_the_cases_of_the_lifecycle(name: str, size: int) -> None:
    expect_same(encoded(CASES[name]), size)
    expect_same(encoded(map(bsd, CASES[name])), size)


def test_all_cases_in_one_log() -> None:
    expect_same(encoded(EVERYTHING))
    expect_same(encoded(map(bsd, EVERYTHING)))


@pytest.mark.parametrize("seed", range(100))
def test_bulk_of_lines_out_of_order(seed: int) -> None:
    expect_same(encoded(shuffled(EVERYTHING, seed)))


def test_bulk_of_every_line_twice() -> None:
    expect_same(encoded(line for line in EVERYTHING for _ in range(2)))


def test_bulk_of_the_whole_log_twice() -> None:
    expect_same(encoded([*EVERYTHING, *EVERYTHING]))


@pytest.mark.parametrize("fraction", [".0000x0", ".00000-", ".      ", ".٠٠٠٠٣٣", ".00000³"])
def test_bulk_of_a_fraction_that_is_none(fraction: str) -> None:
    """Every third line has one, of processes that are known by then."""
    lines = [
        re.sub(r"(:\d\d)\.\d{6}", rf"\g<1>{fraction}", line, count=1) if number % 3 == 2 else line
        for number, line in enumerate(EVERYTHING)
    ]
    expect_same(encoded(lines))


AGAIN: dict[str, Callable[[list[str]], list[str]]] = {
    "twice": lambda lines: [*lines, *lines],
    "three times": lambda lines: [*lines, *lines, *lines],
    "in two files that overlap": lambda lines: [*lines[: len(lines) * 2 // 3], *lines[len(lines) // 3 :]],
    "in two files that overlap a little": lambda lines: [*lines[: len(lines) // 2], *lines[len(lines) // 2 - 30 :]],
}


@pytest.mark.parametrize("sessions", [12.0, 0.02], ids=["half a minute", "hours"])
@pytest.mark.parametrize("how", AGAIN)
def test_bulk_of_a_log_put_behind_itself(how: str, sessions: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message is there once."""
    monkeypatch.setattr(mail_log, "PER_SECOND", sessions)
    log = StringIO()
    write_log(log, 2_000, style=Style.NEWEST)
    lines = log.getvalue().splitlines()
    again = encoded(AGAIN[how](lines))
    expect_same(again, 300)
    assert in_bulk(again, 300) == in_bulk(encoded(lines), 300)


def test_bulk_of_files_in_the_wrong_order() -> None:
    """A removal whose message comes only later has told of nothing; recipients may stand in another order."""
    log = StringIO()
    write_log(log, 5_000)
    lines = log.getvalue().splitlines()
    wrong = encoded([*lines[2_500:], *lines[:2_500]])
    found, wanted = ({(one.hops, one.end, len(one.recipients)) for one in way(wrong)} for way in (by_half, strictly))
    assert found == wanted


def by_half(lines: Sequence[bytes]) -> Counter[MessageRecord]:
    return in_bulk(lines, 1_000)


def test_a_clock_that_stands_does_not_keep_all_open() -> None:
    """What has ended is closed when too many wait for a later line."""
    lines = [
        f"2025-06-01T12:00:00.000000+00:00 mx1 postfix/{daemon}[7]: {number:05X}B: {said}\n"
        for number in range(21_000)
        for daemon, said in (("cleanup", "message-id=<1@a.example>"), ("qmgr", "removed"))
    ]
    lifecycle = BulkLifecycle(LogReader(zone=UTC, reference=NOON + 3600, only=WANTED))
    lifecycle.read("".join(lines).encode())
    assert len(lifecycle.finished()) == 1_000
    assert lifecycle.open_messages == 20_000


def test_bulk_of_a_clock_that_was_set_back() -> None:
    """What processes had said before is of no session that begins now."""
    log = StringIO()
    write_log(log, 8_000)
    busy = log.getvalue().splitlines()
    earlier = [re.sub(r"\b(?:4(?=\w{10}z\w{3}\b)|[0-9A-F](?=[0-9A-F]{10}\b))", "Z", line) for line in busy[:4_000]]
    expect_same(encoded([*busy[4_000:], *(line.replace(" 12:", " 10:") for line in earlier)]), 500)


@pytest.mark.parametrize("style", Style)
def test_bulk_of_a_busy_log(style: Style) -> None:
    log = StringIO()
    write_log(log, 8_000, style=style)
    expect_same(encoded(log.getvalue().splitlines()), 500)


def test_bulk_of_messages_that_are_deferred_for_days() -> None:
    """Their many lines are kept small, and lose nothing by it."""
    begin = "2025-06-{:02}T{:02}:{:02}:00.000000+00:00 mx1 postfix/{}[7]: {}: "
    lines = []
    for queue_id in ("4bBNC10001zLNG", "3F2A81C0B7"):
        lines.append(begin.format(1, 11, 59, "smtpd", queue_id) + "client=a.example[192.0.2.1]")
        lines.append(begin.format(1, 11, 59, "cleanup", queue_id) + "message-id=<1@a.example>")
    for attempt in range(300):
        for queue_id in ("4bBNC10001zLNG", "3F2A81C0B7"):
            say = partial(begin.format, 1 + attempt // 60, 12, attempt % 60)
            lines.append(say("qmgr", queue_id) + "from=<a@a.example>, size=9, nrcpt=2 (queue active)")
            lines += [
                f"{say('smtp', queue_id)}to=<{user}\udcff@b.example>, relay=none, delay={attempt}, delays={attempt}/0/0/0,"
                f" dsn=4.4.1, status=deferred (connect to b.example[192.0.2.{attempt % 9}]:25: timed out)"
                for user in ("one", "two")
            ]
            if attempt == 150:
                lines.append(say("bounce", queue_id) + "sender delay notification: 4bBNC10001zLNH")
    lines.append(begin.format(6, 12, 0, "qmgr", "3F2A81C0B7") + "removed")
    expect_same([line.encode("utf-8", "surrogateescape") for line in lines], 50)


SAID = {
    "a": "smtp[9]: {}: to=<one@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=deferred (timed out)",
    "b": "smtp[9]: {}: to=<two@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=deferred (timed out)",
    "c": "smtp[8]: {}: to=<one@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=deferred (timed out)",
    "d": "local[9]: {}: to=<one@b.example>, orig_to=<one>, relay=local, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (ok)",
    "e": "smtp[9]: {}: to=<one@b.example>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=deferred (refused)",
    "q": "qmgr[7]: {}: from=<a@a.example>, size=9, nrcpt=2 (queue active)",
}


@pytest.mark.parametrize("moments", ["0000", "0011", "0001"])
def test_bulk_of_deliveries_and_copies_in_one_moment(moments: str) -> None:
    """A copy of a line is known by the recipient's last two lines, whichever stand between."""
    lines = []
    for number, some in enumerate(itertools.product(SAID, repeat=4)):
        queue_id = f"{number:05X}B"
        say = "2025-06-01T12:{:02}:{:02}.{}00000+00:00 mx1 postfix/".format
        minute = number // 60 % 60, number % 60
        lines += [
            f"{say(*minute, 0)}smtpd[5]: {queue_id}: client=a.example[192.0.2.1]",
            f"{say(*minute, 0)}cleanup[6]: {queue_id}: message-id=<1@a.example>",
            f"{say(*minute, 0)}{SAID['q'].format(queue_id)}",
            *(say(*minute, moment) + SAID[one].format(queue_id) for one, moment in zip(some, moments, strict=True)),
            f"{say(*minute, 2)}qmgr[7]: {queue_id}: removed",
        ]
    expect_same(encoded(lines), 100)


@pytest.mark.parametrize(
    "answer",
    [
        "(250 2.0.0 Ok: queued as {})",
        "(250 2.0.0 Ok: queued as {}",
        "(250 2.0.0 Ok: queued as {}) ) ",
        "(250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as {})",
        "(forwarded as {})",
        "(ed as {})",
        "({})",
        "(250 queued as {} and thanks)",
        "(250 queued as  {})",
        "(250 queued  as {})",
        "(250 queued as {}, or queued as 0000F)",
        "(250 queued as {}é)",
        "(250 queued as é{0} queued as {0})",
        "(250 queued as <{}>)",
        "(250 queued as )",
        "()",
        ")",
        "(",
        "(250 queued as {}-" + "0" * 64 + ")",
        "(250 queued as {}" + "0" * 60 + ")",
    ],
)
def test_bulk_of_an_answer_that_may_name_the_next_queue_id(answer: str) -> None:
    begin = "2025-06-01T12:00:0{}.000000+00:00 mx1 postfix/{}: {}: "
    lines = [
        begin.format(0, "smtpd[5]", "0000A") + "client=a.example[192.0.2.1]",
        begin.format(0, "cleanup[6]", "0000A") + "message-id=<1@a.example>",
        begin.format(1, "qmgr[7]", "0000A") + "from=<a@a.example>, size=9, nrcpt=1 (queue active)",
        begin.format(2, "smtpd[5]", "0000B") + "client=localhost[127.0.0.1]",
        begin.format(2, "cleanup[6]", "0000B") + "message-id=<1@a.example>",
        begin.format(3, "smtp[8]", "0000A") + "to=<one@b.example>, relay=127.0.0.1[127.0.0.1]:10025, delay=1,"
        f" delays=1/0/0/0, dsn=2.0.0, status=sent {answer.format('0000B')}",
        begin.format(3, "qmgr[7]", "0000A") + "removed",
        begin.format(4, "qmgr[7]", "0000B") + "from=<a@a.example>, size=9, nrcpt=1 (queue active)",
        begin.format(5, "smtp[9]", "0000B") + "to=<one@b.example>, relay=b.example[192.0.2.2]:25, delay=1, delays=1/0/0/0,"
        " dsn=2.0.0, status=sent (250 ok dirdel)",
        begin.format(5, "qmgr[7]", "0000B") + "removed",
    ]  # fmt: skip
    expect_same(encoded(lines))
    expect_same(encoded([*lines[:3], *lines[5:7], *lines[3:5], *lines[7:]]))


def test_refusals_are_counted_as_the_grammar_reads_them() -> None:
    """Of everything that daemons say in the cases, as it stands and of what never had a queue id."""
    lines = []
    for path in MAILLOG:
        one = tomllib.loads(path.read_text())
        tag, text = str(one["tag"]), str(one["text"])
        if "\n" not in text:
            _, _, rest = text.partition(": ")
            begin = f"2025-06-01T12:00:00.000000+00:00 mx1 {tag}: "
            lines += [f"{begin}{said}".encode("utf-8", "surrogateescape") for said in (text, f"NOQUEUE: {rest}")]
    reader = LogReader(zone=UTC, reference=NOON + 3600, only=WANTED)
    wanted = Counter(
        fact.code
        for line in lines
        for fact in reader.facts(line)
        if isinstance(fact, Rejected) and fact.action == "reject" and not fact.queue_id
    )
    lifecycle = BulkLifecycle(LogReader(zone=UTC, reference=NOON + 3600, only=WANTED))
    lifecycle.read(b"\n".join([*lines, *lines]) + b"\n")  # the second time all processes are known
    assert lifecycle.refusals == Counter({code: 2 * number for code, number in wanted.items()})
    assert wanted.total() > 10


def test_what_is_through_is_not_kept() -> None:
    """Messages that named a next queue id, or were the last that an smtpd began, are gone with all their lines."""
    log = StringIO()
    write_log(log, 6_000)
    reader = LogReader(zone=UTC, reference=NOON + 3600, only=WANTED)
    lifecycle = BulkLifecycle(reader)
    lifecycle.read(log.getvalue().encode())
    through = len(lifecycle.finished())
    gc.collect()
    kept = sum(isinstance(one, MessageLines) for one in gc.get_objects())
    assert through > 300
    assert kept <= lifecycle.open_messages + 10


def damaged(lines: Sequence[bytes], dice: random.Random) -> list[bytes]:
    """Some lines are lost, cut, doubled, told of as repeated, or have a few bytes changed."""
    some: list[bytes] = []
    for line in lines:
        kind = dice.randrange(40)
        if kind == 0:
            continue
        if kind == 1:
            line = line[: dice.randrange(len(line))]  # noqa: PLW2901  # that is what happens to it
        elif kind == 2:
            some.append(line)
        elif kind == 3:
            place = dice.randrange(30, len(line))
            line = line[:place] + bytes([dice.choice(b' :;,<>()[]"=0aZ\xff')]) + line[place + 1 :]  # noqa: PLW2901
        some.append(line)
        if kind == 4:
            some.append(b" ".join(line.split(b" ")[:2]) + b" last message repeated 2 times")
    return some


@pytest.mark.parametrize("seed", range(60))
def test_bulk_of_damaged_lines(seed: int) -> None:
    dice = random.Random(seed)
    expect_same(damaged(encoded(EVERYTHING), dice), dice.choice([1, 10, 1000]))


MAILLOG = sorted((Path(__file__).parent / "maillog").glob("*/*.toml"))


def case_lines(path: Path, second: int) -> list[bytes]:
    """A case's text as a line of its daemon, with what a message has around it under the same queue id."""
    one = tomllib.loads(path.read_text())
    tag, text = str(one["tag"]), str(one["text"])
    lead = text.partition(": ")[0]
    stamp = f"2025-06-01T12:{second // 60 % 60:02}:{second % 60:02}"
    about = [
        f"{stamp}.100000+00:00 mx1 postfix/smtpd[7]: {lead}: client=a.example[192.0.2.1]",
        f"{stamp}.200000+00:00 mx1 postfix/cleanup[8]: {lead}: message-id=<{second}@a.example>",
        f"{stamp}.300000+00:00 mx1 {tag}: {text}",
        f"{stamp}.400000+00:00 mx1 postfix/qmgr[10]: {lead}: from=<a@a.example>, size=9, nrcpt=1 (queue active)",
        f"{stamp}.500000+00:00 mx1 {tag}: {text}",
        f"{stamp}.600000+00:00 mx1 postfix/qmgr[10]: {lead}: removed",
    ]
    return [line.encode("utf-8", "surrogateescape") for line in about if "\n" not in line]


@pytest.mark.parametrize("path", MAILLOG, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_bulk_of_every_shape_of_line(path: Path) -> None:
    expect_same(case_lines(path, 30), 2)
