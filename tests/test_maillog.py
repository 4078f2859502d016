"""Every case of tests/maillog: one line of a log and the fact that it states."""

import tomllib
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from parsers.log import LogReader
from parsers.postfix import BESIDE, DAEMONS, grammar_of, parse
from parsers.postfix.facts import DeliveryAttempt, Fact, Held, QueueRemoved
from parsers.postfix.grammar import Grammar, Lead, Shape
from parsers.record import LogRecord
from parsers.syslog import read_tag

CASES = Path(__file__).parent / "maillog"
PATHS = sorted(CASES.glob("*/*.toml"))
TIME = 1748779200.0  # 2025-06-01T12:00:00Z


def case(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def record(path: Path) -> LogRecord:
    said = case(path)
    tag, _, pid = said["tag"].removesuffix("]").partition("[")
    return LogRecord(TIME, "mx1", *read_tag(tag), int(pid), said["text"])


def plainly(value: Any) -> Any:
    """As TOML writes it."""
    if hasattr(value, "_asdict"):
        return {name: plainly(field) for name, field in value._asdict().items()}
    if isinstance(value, tuple):
        return [plainly(item) for item in value]
    return value


def stated(fact: Fact) -> dict[str, Any]:
    fields = {**plainly(fact.record), **plainly(fact)}
    if isinstance(fact, DeliveryAttempt):
        fields["reply"] = plainly(fact.reply)
    if isinstance(fields.get("delays"), dict):
        fields["delays"] = list(fields["delays"].values())
    if "extra" in fields:
        fields["extra"] = dict(fields["extra"])
    return fields


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case(path: Path) -> None:
    said = case(path)
    assert said.keys() <= {"about", "tag", "text", "unset", "fact"}
    fact = parse(record(path))
    wanted = said.get("fact", {})
    assert ([type(fact).__name__] if fact else []) == list(wanted)
    if fact is None:
        return
    fields = stated(fact)
    for name, value in wanted[type(fact).__name__].items():
        found = fields[name]
        if isinstance(value, dict):
            assert found is not None, name
            found = {key: found.get(key) for key in value}
        assert found == value, name
    for name in said.get("unset", ()):
        assert fields[name] in ("", None, {}), name


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_whole_line_gives_the_same(path: Path) -> None:
    """The hot loop and the expressions one by one are the same grammar, from the first line of a process on."""
    reader = LogReader(zone=UTC, reference=TIME)
    said = case(path)
    line = f"Jun  1 12:00:00 mx1 {said['tag']}: {said['text']}".encode()
    fact = parse(record(path))
    assert reader.block_facts(line + b"\n" + line) == ([fact, fact] if fact else [])
    assert list(reader.facts(line)) == ([fact] if fact else [])
    assert reader.unknown.total() == (0 if fact else 3)


def test_counting_counts_the_same() -> None:
    """Every case, each followed by old syslog's word that it came again; what is counted and what is made."""
    lines = [f"Jun  1 12:00:00 mx1 {case(path)['tag']}: {case(path)['text']}\n".encode() for path in PATHS]
    again = b"Jun  1 12:00:01 mx1 last message repeated 2 times\n"
    block = b"".join(line + line + again for line in lines)
    made = LogReader(zone=UTC, reference=TIME)
    facts = made.block_facts(block)
    for only in ((), (DeliveryAttempt,), (QueueRemoved, Held)):
        counting = LogReader(zone=UTC, reference=TIME, only=only, counting=True)
        assert counting.block_facts(block) == [fact for fact in facts if isinstance(fact, only)]
        assert (counting.known, counting.unknown, counting.samples) == (made.known, made.unknown, made.samples)


def shapes() -> list[tuple[str, Shape]]:
    return [(daemon, shape) for daemon, one in {**DAEMONS, **BESIDE}.items() for shape in one.shapes]


def first_shape(one: Grammar, line: LogRecord) -> Shape | None:
    """The shape whose fact the line becomes."""
    fact = one.read(line)
    for shape in one.shapes:
        lead, _, rest = line.text.partition(": ")
        lead, rest = ("", line.text) if shape.lead is Lead.NOTHING else (lead, rest)
        if fact and shape.fact and (match := shape.match(rest)) and shape.fact(line, lead, match) == fact:
            assert shape.made in {None, type(fact)}
            return shape
    return None


def test_every_shape_has_a_case() -> None:
    proved = set()
    for path in PATHS:
        line = record(path)
        proved.add(id(first_shape(grammar_of(line.instance, line.daemon), line)))
    missing = {f"{daemon}: {shape.name}" for daemon, shape in shapes() if id(shape) not in proved}
    assert not missing


def test_names_of_shapes_are_unique_in_a_daemon() -> None:
    for daemon, one in {**DAEMONS, **BESIDE}.items():
        names = [shape.name for shape in one.shapes]
        assert len(names) == len(set(names)), daemon
