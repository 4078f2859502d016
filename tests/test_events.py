"""Events as lines for a central log store: each there, whole, whatever happens to the file or to us."""

import asyncio
import json
import os
import re
import resource
import signal
import socket
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pyvrl import Transform

from policies.commands import Attempt, Change, Received
from sidecar import event_writer
from sidecar.config import AlertsConfig, Config, ConfigError, EventsConfig, StoreConfig
from sidecar.event_lines import LogFile, Syslog, line, sink
from sidecar.event_writer import EventWriter
from sidecar.shipped_tables import ATTEMPT, CHANGE, MESSAGE, TABLES
from sidecar.store import Commit, Store
from tests.test_rollup import BEGIN, attempt

LOGS = Path(__file__).parents[1] / "monitoring" / "logs"


@pytest.fixture
def site(tmp_path: Path) -> Config:
    Store.open(tmp_path / "core.db").close()
    return Config(
        store=StoreConfig(path=str(tmp_path)),
        events=EventsConfig(to=str(tmp_path / "events.json")),
        alerts=AlertsConfig(host="mx1"),
    )


@pytest.fixture
def writer(site: Config) -> Iterator[EventWriter]:
    with closing(made(site)) as opened:
        opened.step()
        yield opened


def made(site: Config, **more: Any) -> EventWriter:
    return EventWriter(site, sink(site.events.to), **more)


def add(site: Config, attempts: Sequence[Attempt] = (), **more: Any) -> None:
    with closing(Store.open(site.core_database)) as store:
        store.commit(Commit(attempts=attempts, **more))


def written(site: Config, suffix: str = "") -> list[dict[str, Any]]:
    text = Path(site.events.to + suffix).read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(each) for each in text.splitlines()]


def numbered(first: int, last: int) -> list[Attempt]:
    return [attempt(queue_id=f"4{number}", at=float(number)) for number in range(first, last)]


def test_an_event_says_what_was_made_of_a_line(site: Config, writer: EventWriter) -> None:
    change = Change(BEGIN, "k@google", "opened", "paused", "why", "line", "rule", "engine", 3)
    received = Received(BEGIN, "mx1", "postfix", "4TX", "<m@x>", "a@shop.example", 900, 1, "h[192.0.2.1]", "shop")
    add(site, [attempt("bounced", bounce="hard")], changes=[change], received=[received])
    assert writer.step() == 3
    one, message, done = written(site)
    assert one == {
        "event": "attempt", "id": "mx1/attempt/1", "time": "2023-11-15T00:00:00.000000+00:00", "host": "mx1",
        "instance": "postfix", "queue_id": "4TX", "sender_domain": "shop.example", "recipient_domain": "gmail.com",
        "provider": "google", "relay": "mx.google.com", "dsn": "2.0.0", "status": "bounced",
        "rule": "google/no-such-user", "category": "recipient", "detail": "recipient.unknown", "bounce": "hard",
        "delay": 0.7, "service": "lane-01", "tenant": "shop", "campaign": "spring", "segment": "vip", "first": 0,
    }  # fmt: skip
    assert (message["event"], message["sender"], message["client"]) == ("message", "a@shop.example", "h[192.0.2.1]")
    assert (done["event"], done["host"], done["kind"], done["messages"]) == ("change", "mx1", "opened", 3)


def test_the_first_start_begins_with_what_is_new(site: Config) -> None:
    add(site, numbered(0, 3))
    with closing(made(site)) as writer:
        assert writer.step() == 0
        add(site, numbered(3, 5))
        assert writer.step() == 2
    assert [each["queue_id"] for each in written(site)] == ["43", "44"]


def test_another_process_goes_on(site: Config, writer: EventWriter) -> None:
    add(site, numbered(0, 3))
    writer.step()
    add(site, numbered(3, 6))
    with closing(made(site, batch=2)) as again:
        assert [again.step(), again.step(), again.step()] == [2, 1, 0]
    assert [each["queue_id"] for each in written(site)] == [f"4{number}" for number in range(6)]


def test_a_store_that_began_anew_goes_on_by_time(site: Config, writer: EventWriter) -> None:
    add(site, numbered(0, 9))
    writer.step()
    site.core_database.unlink()
    add(site, numbered(5, 12))
    writer.step()
    assert [each["queue_id"] for each in written(site)] == [f"4{number}" for number in range(12)]


@pytest.mark.parametrize("how", ["rename", "copytruncate", "delete"])
def test_the_file_is_rotated_without_a_word(site: Config, writer: EventWriter, how: str) -> None:
    path = Path(site.events.to)
    add(site, numbered(0, 3))
    writer.step()
    if how == "rename":
        path.rename(f"{path}.1")
    elif how == "copytruncate":
        Path(f"{path}.1").write_bytes(path.read_bytes())
        os.truncate(path, 0)
    else:
        path.unlink()
    add(site, numbered(3, 5))
    writer.step()
    assert [each["queue_id"] for each in written(site)] == ["43", "44"]
    if how != "delete":
        assert len(written(site, ".1")) == 3


def test_a_full_disk_leaves_whole_lines_and_they_come_later(
    site: Config, writer: EventWriter, caplog: pytest.LogCaptureFixture
) -> None:
    add(site, numbered(0, 3))
    writer.step()
    size = Path(site.events.to).stat().st_size
    add(site, numbered(3, 40))
    caplog.set_level("INFO")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    file = writer._sink
    assert isinstance(file, LogFile)
    lines = [line(ATTEMPT, (number, *attempt()), host="mx1") for number in range(40)]
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, before[1]))
        with pytest.raises(OSError, match="too large"):
            file.write(lines)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert Path(site.events.to).stat().st_size == size
    writer.step()
    assert [each["queue_id"] for each in written(site)] == [f"4{number}" for number in range(40)]


def test_half_a_line_of_a_crash_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.json"
    path.write_text('{"event":"attempt","id":"mx1/att')
    with closing(LogFile(path)) as file:
        file.write(['{"id":"mx1/attempt/1"}\n'])
    assert path.read_text().splitlines() == ['{"event":"attempt","id":"mx1/att', '{"id":"mx1/attempt/1"}']


def test_lines_that_were_written_and_not_noted_come_again_with_their_ids(site: Config, writer: EventWriter) -> None:
    add(site, numbered(0, 3))
    writer._sink.write([line(ATTEMPT, (1, *attempt()), host="mx1")])
    writer.step()
    assert [each["id"] for each in written(site)] == [f"mx1/attempt/{number}" for number in (1, 1, 2, 3)]


def test_trouble_is_said_once_and_so_is_its_end(site: Config, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    Path(site.events.to).mkdir()
    with closing(made(site)) as writer:
        asyncio.run(writer.round())
        add(site, numbered(0, 2))
        assert [asyncio.run(writer.round()) for _ in range(3)] == [-1, -1, -1]
        Path(site.events.to).rmdir()
        assert asyncio.run(writer.round()) == 2
    assert [record.getMessage()[:19] for record in caplog.records] == ["events: not written", "events: written aga"]


def test_syslog_gets_a_line_a_datagram_and_may_be_started_again(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def listening() -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.bind(str(path))
        made.settimeout(60)
        return made

    with closing(Syslog(path)) as syslog:
        with listening() as receiver:
            syslog.write(['{"a":1}\n', '{"a":2}\n'])
            assert [receiver.recv(100) for _ in range(2)] == [
                b'<134>sidecar-events: {"a":1}',
                b'<134>sidecar-events: {"a":2}',
            ]
        path.unlink()
        with pytest.raises(OSError, match="refused"):
            syslog.write(["{}\n"])
        with listening() as receiver:
            syslog.write(["{}\n"])
            assert receiver.recv(100) == b"<134>sidecar-events: {}"


def test_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    sink("stdout").write(['"\U0001f4e7"\n'])
    assert capsys.readouterr().out == '"\U0001f4e7"\n'


@given(st.text(), st.floats(0, 4e9))
def test_nothing_that_a_sender_wrote_ends_a_line(text: str, time: float) -> None:
    row = (7, *attempt(reply=text, campaign=text, time=time))
    said = line(ATTEMPT, row, host="mx1")
    assert all(" " <= character <= "~" or character > "\uffff" for character in said[:-1])
    assert said[-1] == "\n"
    assert not re.search(r"(?<!\\)(\\\\)*\\ud[89ab]", said)  # no reader needs to put two escapes together
    assert json.loads(said).get("reply", "") == text


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (EventsConfig(to="events.json"), 'wanted "stdout", "syslog" or the absolute path'),
        (EventsConfig(to="stdout", kinds=("attempts",)), "'attempts': wanted attempt, message, change"),
    ],
)
def test_wrong_settings_say_what_would_be_right(tmp_path: Path, events: EventsConfig, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        event_writer.configured(Config(store=StoreConfig(path=str(tmp_path)), events=events))


# What is delivered for others.


def test_each_part_of_the_fragment_for_vector_is_fed_and_leads_somewhere() -> None:
    vector = tomllib.loads((LOGS / "vector.toml").read_text())
    parts = {**vector["sources"], **vector["transforms"], **vector["sinks"]}
    fed = {name for part in parts.values() for name in part.get("inputs", ())}
    assert fed == {*vector["sources"], *vector["transforms"]}
    assert {part["type"] for part in vector["sinks"].values()} == {"elasticsearch", "loki", "splunk_hec_logs", "kafka"}
    known = set(json.loads(line(CHANGE, (1, *example()), host="mx1")))
    for part in vector["sinks"].values():
        assert part["acknowledgements"]["enabled"]  # what is away at a restart gets it later
        assert {part.get("id_key", "id"), part.get("key_field", "id")} <= known
    assert {name.strip("{} ") for name in list(vector["sinks"]["loki"]["labels"].values())[1:]} <= known


def example() -> tuple[Any, ...]:
    return tuple(Change(BEGIN, "k", "opened", "paused", "", "", "", "engine", 0)[:-1])


@pytest.fixture(scope="module")
def remap() -> Callable[[str], dict[str, Any]]:
    """The remap of the fragment, made by Vector's own compiler, on a line as the file source hands it over."""
    (transform,) = tomllib.loads((LOGS / "vector.toml").read_text())["transforms"].values()
    assert transform["drop_on_error"]  # what raises here is dropped there
    program = Transform(transform["source"] + "\n.")
    return lambda text: cast(
        "dict[str, Any]", program.remap({"message": text, "file": "events.json", "host": "central"})
    )


@pytest.mark.parametrize(
    "said",
    [
        line(ATTEMPT, (7, *attempt(reply="421 4.7.28 na\u00efve \U0001f4e7", campaign="a\tb\0")), host="mx1"),
        line(MESSAGE, (8, *Received(BEGIN, "mx1", "postfix", "4TX", "<m@x>", "a@b", 9, 1, "h", ""), None), host="mx1"),
        line(CHANGE, (9, *example()), host="mx1"),
    ],
)
def test_vectors_remap_makes_of_a_line_its_event(remap: Callable[[str], dict[str, Any]], said: str) -> None:
    wanted = json.loads(said)
    assert remap(said.rstrip("\n")) == wanted | {"timestamp": datetime.fromisoformat(wanted["time"])}


@pytest.mark.parametrize("broken", ["", "{", '{"event":"attempt"', "[]", "{}", '{"time":1}', '{"time":"yesterday"}'])
def test_vectors_remap_takes_no_broken_line(remap: Callable[[str], dict[str, Any]], broken: str) -> None:
    with pytest.raises(ValueError, match="remap failure"):
        remap(broken)


def test_the_fragment_for_fluent_bit_reads_what_is_written() -> None:
    fluent = yaml.safe_load((LOGS / "fluent-bit.yaml").read_text())
    (parser,) = fluent["parsers"]
    (source,) = fluent["pipeline"]["inputs"]
    event = json.loads(line(CHANGE, (1, *example()), host="mx1"))
    assert source["parser"] == parser["name"]
    assert parser["time_key"] in event
    assert {each["match"] for each in fluent["pipeline"]["outputs"]} == {source["tag"]}
    outputs = {each["name"]: each for each in fluent["pipeline"]["outputs"]}
    assert outputs.keys() == {"opensearch", "loki", "splunk"}
    assert outputs["opensearch"]["id_key"] in event
    assert {each["retry_limit"] for each in outputs.values()} == {"no_limits"}  # the default is to drop
    assert (source["storage.type"], source["read_from_head"], source["skip_long_lines"]) == ("filesystem", True, True)
    assert "storage.path" in fluent["service"]
    assert {name.strip("$") for name in outputs["loki"]["label_keys"].split(",")} <= event.keys()


def test_all_kinds_are_written_unless_said_otherwise() -> None:
    assert set(EventsConfig().kinds) == {table.name for table in TABLES}
