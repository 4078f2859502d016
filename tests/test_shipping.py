"""Events on their way to ClickHouse: each there once, in every table, whatever happens to either side."""

import asyncio
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from policies.commands import Attempt, Change, Received, Removed
from policies.rollup import DAY, MEASURES
from sidecar import clickhouse_schema, shipping_prune
from sidecar.clickhouse import ClickHouse, ServerError, Value, literal
from sidecar.config import ClickHouseConfig, Config, StoreConfig
from sidecar.event_lines import line
from sidecar.history_sender import HistorySender
from sidecar.shipped_tables import ATTEMPT
from sidecar.shipping import LATER, LEFT_QUEUE, Sent, Shipper
from sidecar.store import Commit, Store
from tests.clickhouse_world import Embedded, PrivateServer, current, debian, emptied, private_server, server
from tests.test_rollup import BEGIN, attempt

__all__ = ["current", "debian", "server"]

DOCUMENT = Path(__file__).parents[1] / "docs" / "clickhouse.md"
NOW = BEGIN + 2 * DAY
SUMS = [*MEASURES, "ids"]


def many(number: int, begin: int = 0) -> list[Attempt]:
    """Attempts over two days, of every kind."""
    kinds: list[dict[str, Any]] = [
        {"first": 1},
        {"status": "deferred", "provider": "yahoo"},
        {"status": "bounced", "bounce": "hard", "campaign": "autumn"},
        {"status": "expired", "service": ""},
        {"passed_on": "4next"},
        {"delay": 86_400.5, "tenant": "O'Brien \\ 'x'"},
    ]
    return [
        attempt(**{"at": (each * 977.25) % (2 * DAY), "queue_id": f"4{each:05d}", **kinds[each % len(kinds)]})
        for each in range(begin, begin + number)
    ]  # fmt: skip


def core_with(path: Path, attempts: Sequence[Attempt], **more: Any) -> Path:
    store = Store.open(path / "core.db")
    store.commit(Commit(attempts=attempts, **more))
    store.close()
    return path / "core.db"


def sent(core: Path, server: ClickHouse, *, batch: int = 20_000, name: str = "mx1") -> Shipper:
    """All that waits, sent, and every day compared."""
    shipper = Shipper(core, server, name, days=90, batch=batch)
    drive(shipper)
    return shipper


def drive(shipper: Shipper, *, now: float = NOW) -> None:
    for _ in range(100):
        done = shipper.step(now=now)
        if not (done.rows or done.waiting):
            break
    for _ in range(100):
        if not shipper.step(now=now + LATER).doubts:
            return
    raise AssertionError("it comes to no end")


def ids(server: ClickHouse, table: str = "attempt") -> list[int]:
    return sorted(int(row[0]) for row in server.rows(f"SELECT id FROM {table}"))  # noqa: S608  # ours


def total(server: ClickHouse, table: str) -> dict[str, int]:
    columns = ", ".join(f"sum({name})" for name in SUMS)
    row = server.rows(f"SELECT {columns} FROM {table}")[0]  # noqa: S608  # ours
    return dict(zip(SUMS, map(int, row), strict=True))


def should_be(core: Path) -> dict[str, int]:
    with closing(Store.open_read_only(core)) as store:
        columns = ", ".join(f"sum({name})" for name in MEASURES)
        sums = store.connection.execute(f"SELECT {columns} FROM daily").fetchone()  # noqa: S608  # ours
        checked = store.connection.execute("SELECT sum(id) FROM attempt WHERE passed_on = ''").fetchone()
        return dict(zip(SUMS, (*sums, *checked), strict=True))


def agrees(server: ClickHouse, core: Path) -> None:
    with closing(Store.open_read_only(core)) as store:
        wanted = [row[0] for row in store.connection.execute("SELECT id FROM attempt ORDER BY id")]
    assert sorted(set(ids(server))) == wanted
    assert total(server, "hourly") == total(server, "daily") == should_be(core)


def test_all_is_there_once_and_the_sums_are_those_of_core(tmp_path: Path, server: ClickHouse) -> None:
    core = core_with(tmp_path, many(600))
    sent(core, server, batch=100)
    agrees(server, core)
    assert len(ids(server)) == 600


def test_an_attempt_is_on_the_server_as_it_is_in_core(tmp_path: Path, server: ClickHouse) -> None:
    odd = attempt(reply="550 'quoted' \\ back\tslash\n ü € 😀 \0 end", time=BEGIN + 0.123457, delay=0.1)
    core = core_with(tmp_path, [odd])
    sent(core, server)
    assert [Attempt(*row) for row in server.rows(f"SELECT {', '.join(Attempt._fields)} FROM attempt")] == [odd]  # noqa: S608  # ours


def test_what_comes_later_is_sent_later(tmp_path: Path, server: ClickHouse) -> None:
    core = core_with(tmp_path, many(50))
    shipper = sent(core, server)
    core_with(tmp_path, many(50, 50))
    done = shipper.step(now=NOW)
    assert (done.rows, done.waiting, done.behind) == (50, 0, 0.0)
    agrees(server, core)


def test_the_day_is_that_of_utc(tmp_path: Path, server: ClickHouse) -> None:
    begin = BEGIN // DAY * DAY
    core = core_with(tmp_path, [attempt(at=begin - BEGIN), attempt(at=begin - BEGIN + DAY - 1)])
    sent(core, server)
    assert len(server.rows("SELECT DISTINCT day FROM attempt")) == 1
    assert server.rows("SELECT DISTINCT begin FROM daily") == [(begin,)]


def test_a_message_is_known_to_have_left(tmp_path: Path, server: ClickHouse) -> None:
    rows = [Received(BEGIN + n, "mx1", "postfix", f"4{n}", f"<{n}@x>", "a@b.example", 9, 1, "", "") for n in range(3)]
    core = core_with(tmp_path, [attempt()], received=rows, removed=[Removed(BEGIN + 5, "postfix", "40")])
    shipper = sent(core, server)
    core_with(tmp_path, [], removed=[Removed(BEGIN + 4, "postfix", "41")])
    assert shipper.step(now=NOW).rows == 1
    assert shipper.step(now=NOW).rows == 0
    found = server.rows("SELECT queue_id, removed FROM message FINAL ORDER BY queue_id")
    assert found == [("40", BEGIN + 5), ("41", BEGIN + 4), ("42", 0)]


def test_what_left_is_found_without_looking_at_all_that_came(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "core.db")) as store:
        plan = store.connection.execute(f"EXPLAIN QUERY PLAN {LEFT_QUEUE}", (0.0, 9, 9)).fetchall()
    assert [row[3] for row in plan] == ["SEARCH message USING INDEX message_by_removed (removed>?)"]


def test_a_change_comes_with_its_messages(tmp_path: Path, server: ClickHouse) -> None:
    change = Change(
        BEGIN, "dkim-domain:a.example@google", "held", "paused", "why", "line", "rule", "engine", 2,
        (("postfix", "4A"), ("postfix", "4B")),
    )  # fmt: skip
    core = core_with(tmp_path, [attempt()], changes=[change, change._replace(ids=())])
    sent(core, server)
    assert server.rows("SELECT messages, instances, queue_ids FROM change ORDER BY id") == [
        (2, ["postfix", "postfix"], ["4A", "4B"]),
        (2, [], []),
    ]


def test_the_documented_way_by_kafka_fills_the_same_tables(tmp_path: Path, current: Embedded) -> None:
    """With events as they are written for others, and a table that passes them on at once in the place of the topic."""
    emptied(current)
    attempts = many(60)
    sql = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[0]
    table, view = (each for each in sql.split(";") if each.strip())
    current.run(re.sub(r"ENGINE = Kafka.*", "ENGINE = Null", table, flags=re.DOTALL))
    current.run(view)
    lines = "".join(line(ATTEMPT, (number, *row), host="mx1") for number, row in enumerate(attempts, 1))
    current.run(f"INSERT INTO incoming SETTINGS input_format_skip_unknown_fields = 1 FORMAT JSONEachRow {lines}")
    assert total(current, "daily") == should_be(core_with(tmp_path, attempts))
    found = current.rows(f"SELECT {', '.join(Attempt._fields)} FROM attempt ORDER BY id")  # noqa: S608  # ours
    assert [Attempt(*row) for row in found] == attempts


# What may go wrong.


class Faulty:
    """A server whose inserts go wrong: nothing arrives, or all but the answer does."""

    def __init__(self, server: ClickHouse, faults: Iterable[str]) -> None:
        self._server = server
        self._faults = iter(faults)
        self.name = server.name
        self.late: list[tuple[str, Sequence[str], list[Sequence[Value]]]] = []

    def rows(self, statement: str, parameters: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        return self._server.rows(statement, parameters)

    def run(self, statement: str) -> None:
        self._server.run(statement)

    def insert(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> None:
        listed = list(rows)
        fault = next(self._faults, "")
        if fault == "late":
            self.late.append((table, columns, listed))
        elif fault != "lost":
            self._server.insert(table, columns, listed)
        if fault:
            raise ServerError(fault)


def persist(shipper: Shipper) -> None:
    for _ in range(100):
        try:
            if not shipper.step(now=NOW).waiting:
                return
        except ServerError:
            pass
    raise AssertionError("it does not get on")


@pytest.mark.parametrize("faults", [["lost"] * 3, ["no answer"] * 3, ["", "no answer", "lost", "", "no answer"]])
def test_an_insert_of_which_nobody_knows_is_there_once(tmp_path: Path, server: ClickHouse, faults: list[str]) -> None:
    core = core_with(tmp_path, many(300))
    shipper = Shipper(core, Faulty(server, faults), "mx1", days=90, batch=60)
    persist(shipper)
    drive(shipper)
    agrees(server, core)


def test_an_insert_that_takes_place_after_it_was_sent_again_counts_once(tmp_path: Path, server: ClickHouse) -> None:
    core = core_with(tmp_path, many(120))
    faulty = Faulty(server, ["late"])
    shipper = Shipper(core, faulty, "mx1", days=90, batch=60)
    persist(shipper)
    for table, columns, rows in faulty.late:
        server.insert(table, columns, rows)
    assert total(server, "daily") != should_be(core)
    drive(shipper)
    agrees(server, core)


def test_another_process_goes_on_where_the_one_before_ended(tmp_path: Path, server: ClickHouse) -> None:
    core = core_with(tmp_path, many(300))
    Shipper(core, server, "mx1", days=90, batch=70).step(now=NOW)
    Shipper(core, server, "mx1", days=90, batch=70).step(now=NOW)
    sent(core, server)
    agrees(server, core)
    assert len(ids(server)) == 300


@pytest.mark.parametrize("table", ["hourly", "daily"])
def test_sums_that_were_not_added_to_are_put_right(tmp_path: Path, server: ClickHouse, table: str) -> None:
    """As after the death of a server between its tables."""
    core = core_with(tmp_path, many(300))
    server.run(f"DROP TABLE {table}_of_attempt")
    Shipper(core, server, "mx1", days=90).step(now=NOW)
    clickhouse_schema.make(server)
    sent(core, server)
    agrees(server, core)


def test_rows_that_the_server_lost_are_sent_again(tmp_path: Path, server: ClickHouse) -> None:
    """As after a power failure: parts of the last minutes are gone, in one table and not in the other."""
    core = core_with(tmp_path, many(300))
    sent(core, server, batch=60)
    partition = server.rows("SELECT max(day) FROM attempt")[0][0]
    server.run(f"ALTER TABLE attempt DROP PARTITION '{partition}'")
    sent(core, server)
    agrees(server, core)


def test_many_hosts_share_a_server(tmp_path: Path, server: ClickHouse) -> None:
    for name in ("mx1", "mx10", "mx1.example"):
        (tmp_path / name).mkdir()
        sent(core_with(tmp_path / name, many(30)), server, name=name)
    assert server.rows("SELECT store, count() FROM attempt GROUP BY store ORDER BY store") == [
        ("mx1.example/1", 30),
        ("mx1/1", 30),
        ("mx10/1", 30),
    ]


def test_a_new_store_under_the_old_name_is_told_apart(tmp_path: Path, server: ClickHouse) -> None:
    """After a damaged core.db was set aside: what core reads once more of the logs was sent before."""

    def received(number: int) -> Received:
        return Received(BEGIN + number, "mx1", "postfix", f"4{number}", "", "", 9, 1, "", "")

    core = core_with(tmp_path, many(30), received=[received(n) for n in range(30)])
    sent(core, server)
    core.unlink()
    again, more = many(30)[10:], [attempt(at=2 * DAY + n) for n in range(7)]
    core_with(tmp_path, [*sorted(again), *more], received=[received(n) for n in (*range(9, 30), 2 * DAY)])
    for _ in range(2):  # another process finds the same
        sent(core, server)
        for table, fresh in (("attempt", 7), ("message", 1)):
            rows = server.rows(f"SELECT store, count() FROM {table} GROUP BY store ORDER BY store")  # noqa: S608  # ours
            assert rows == [("mx1/1", 30), ("mx1/2", fresh)]


def test_what_the_server_drops_by_age_is_not_sent(tmp_path: Path, server: ClickHouse) -> None:
    core = core_with(tmp_path, [attempt(at=-40 * DAY), attempt()])
    drive(Shipper(core, server, "mx1", days=30))
    assert ids(server) == [2]


# A real server.


def test_a_server_that_is_killed_stopped_or_emptied_gets_all_once(tmp_path: Path) -> None:
    directory = tmp_path / "clickhouse"
    directory.mkdir()
    core = core_with(tmp_path, many(500))
    with private_server(directory) as debian, closing(debian.client()) as client:
        client.create()
        shipper = Shipper(core, client, "mx1", days=90, batch=100)
        shipper.step(now=NOW)
        debian.kill()
        with pytest.raises(ServerError, match="no answer"):
            shipper.step(now=NOW)
        debian.start()
        shipper.step(now=NOW)
        debian.kill()
        for path in (directory / "data").iterdir():
            path.rename(directory / f"lost-{path.name}")
        (directory / "data").mkdir(exist_ok=True)
        debian.start()
        client.create()
        persist(shipper)
        drive(shipper)
        agrees(client, core)


def test_a_paused_server_is_an_error_in_time(debian: PrivateServer) -> None:
    with closing(debian.client()) as client, debian.paused():
        client.patience = 0.3
        began = time.monotonic()
        with pytest.raises(ServerError, match="no answer"):
            client.rows("SELECT 1")
        assert time.monotonic() - began < 60


def test_a_wrong_password_is_said(debian: PrivateServer) -> None:
    with closing(debian.client()) as client:
        client._session.headers["X-ClickHouse-Key"] = "wrong"
        with pytest.raises(ServerError, match="password"):
            client.rows("SELECT 1")


def test_a_server_that_is_away_is_said_once_and_so_is_its_return(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "clickhouse"
    directory.mkdir()
    core_with(tmp_path, many(20))
    config = Config(store=StoreConfig(path=str(tmp_path)), clickhouse=ClickHouseConfig(name="mx1", event_days=100_000))
    heard: list[Sent | None] = []
    debian = PrivateServer(directory)
    caplog.set_level("INFO")
    with closing(debian.client()) as client:
        sender = HistorySender(config, client, told=heard.append)
        try:
            for _ in range(3):
                asyncio.run(sender.round())
            debian.start()
            for _ in range(2):
                asyncio.run(sender.round())
        finally:
            debian.kill()
    assert heard[:3] == [None] * 3
    assert [each.rows for each in heard[3:] if each] == [20, 0]
    assert [record.getMessage().partition(": ")[2][:21] for record in caplog.records] == [
        "nothing is sent: http",
        "events are sent again",
    ]


def test_what_is_too_old_is_dropped_by_whole_days_and_sums_by_their_own(tmp_path: Path, server: ClickHouse) -> None:
    days = [attempt(at=-number * DAY, queue_id=f"4{number}") for number in (0, 1, 29, 30, 31, 60, 500)]
    core = core_with(tmp_path, days)
    Shipper(core, server, "mx1", days=1000).step(now=NOW)
    shipping_prune.prune(server, now=BEGIN, events=30, hours=45, days=400)
    assert ids(server) == [1, 2, 3, 4]
    assert len(server.rows("SELECT DISTINCT day FROM named")) == 4
    assert len(server.rows("SELECT begin FROM hourly")) == 5
    assert len(server.rows("SELECT begin FROM daily")) == 6
    Shipper(core, server, "mx1", days=30).step(now=BEGIN)
    assert ids(server) == [1, 2, 3, 4]
    assert len(server.rows("SELECT begin FROM daily")) == 6


@pytest.mark.parametrize("text", ["", "it's", "\\", "\\'", "a\nb\tc\rd", "nul \0 nul", "ü€😀", "?", "%s {x}"])
def test_a_text_in_a_question_is_that_text(server: ClickHouse, text: str) -> None:
    assert server.rows("SELECT ?, length(?)", (text, text)) == [(text, len(text.encode()))]
    assert literal("?") == "'?'"
