"""Several hosts and one ClickHouse server: all send at once, two have one name, and a person is to be forgotten."""

import asyncio
import contextlib
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from policies.commands import Change, Received
from policies.rollup import DAY
from sidecar import history_erasure
from sidecar.clickhouse import ClickHouse, ServerError
from sidecar.config import ClickHouseConfig, Config, StoreConfig
from sidecar.history_sender import HistorySender
from sidecar.shipping import LATER, Shipper
from sidecar.shipping_name import SAY_EVERY, SILENT_AFTER, Claim, NameTaken, this_host
from tests.clickhouse_world import PASSWORD, PrivateServer, current, debian, emptied, server
from tests.test_rollup import BEGIN, attempt
from tests.test_shipping import NOW, core_with, drive, many, sent, total

__all__ = ["current", "debian", "server"]

HOSTS, EVENTS = 5, 1_500
TRIES = 3
"""As the outside process: a server that is short of time for one is asked again."""


@pytest.fixture
def empty(debian: PrivateServer) -> PrivateServer:
    with closing(debian.client()) as client:
        client.create()
        emptied(client)
        client.run("TRUNCATE TABLE sender")
    return debian


def test_hosts_that_send_at_once_lose_and_double_nothing(empty: PrivateServer, tmp_path: Path) -> None:
    cores = []
    for number in range(HOSTS):
        (tmp_path / f"mx{number}").mkdir()
        cores.append(core_with(tmp_path / f"mx{number}", many(EVENTS)))
    failed: list[BaseException] = []

    def send(number: int) -> None:
        try:
            with closing(empty.client()) as client:
                shipper = Shipper(cores[number], client, f"mx{number}", days=90, batch=500, host=f"mx{number} 1")
                for _ in range(TRIES - 1):
                    with contextlib.suppress(ServerError):
                        drive(shipper)
                drive(shipper)
        except BaseException as error:  # noqa: BLE001  # told below
            failed.append(error)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(HOSTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with closing(empty.client()) as client:
        per_host = client.rows("SELECT store, count(), uniqExact(id) FROM attempt FINAL GROUP BY store ORDER BY store")
        assert [(store, int(rows), int(ids)) for store, rows, ids in per_host] == [
            (f"mx{number}/1", EVENTS, EVENTS) for number in range(HOSTS)
        ]
        daily = total(client, "daily")
        (tmp_path / "one").mkdir()
        emptied(client)
        sent(core_with(tmp_path / "one", many(EVENTS)), client)
        assert {name: value / HOSTS for name, value in daily.items()} == total(client, "daily")


def test_of_two_hosts_with_one_name_the_later_one_sends_nothing(empty: PrivateServer, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with closing(empty.client()) as client:
        first = Shipper(core_with(tmp_path / "a", many(10)), client, "mx1", days=90, host="a 1")
        drive(first)
        second = Shipper(core_with(tmp_path / "b", many(20)), client, "mx1", days=90, host="b 1")
        with pytest.raises(
            NameTaken, match=r"the host 'a 1' sends under the name 'mx1' as well, last \d+ s ago; .* of its own"
        ):
            second.step(now=NOW)
        assert client.rows("SELECT count() FROM attempt") == [(10,)]
        first.step(now=NOW + LATER + SAY_EVERY)  # the first one is not disturbed
        again = Shipper(tmp_path / "a" / "core.db", client, "mx1", days=90, host="a 1")
        again.step(now=NOW)  # a restart is no other host
        client.run("TRUNCATE TABLE sender")
        at = time.time() - SILENT_AFTER - 60.0
        client.insert("sender", ("name", "host", "begun", "seen"), [("mx1", "a 1", at, at)])
        second.step(now=NOW)  # a host that was replaced, long silent


def test_two_that_claim_a_name_in_one_moment_do_not_both_keep_it(server: ClickHouse) -> None:
    server.run("TRUNCATE TABLE sender")
    later = Claim("mx1", "b 1")
    later.hold(server, now=0.0)
    ((begun, seen),) = server.rows("SELECT begun, seen FROM sender")
    server.insert("sender", ("name", "host", "begun", "seen"), [("mx1", "a 1", float(begun), float(seen))])
    later.hold(server, now=SAY_EVERY - 1.0)
    with pytest.raises(NameTaken, match="'a 1'"):
        later.hold(server, now=SAY_EVERY)


def test_a_host_is_told_from_its_twin() -> None:
    assert this_host() == this_host()
    assert " " in this_host() or not Path("/etc/machine-id").exists()


ANN = "ann+x.y@x.example"
LINE = f"to=<{ANN}>, orig_to=<{ANN}> {ANN}.de not{ANN} (550 <ANN+X.Y@x.example>: unknown; {ANN} {ANN}, {ANN}.)"
ERASED = f"to=<[erased]>, orig_to=<[erased]> {ANN}.de not{ANN} (550 <[erased]>: unknown; [erased] [erased], [erased].)"


def test_a_person_is_erased_and_nothing_else(server: ClickHouse, tmp_path: Path) -> None:
    attempts = [
        attempt(at=1.0, recipient=ANN, reply=LINE),
        attempt(at=2.0, recipient="bob@x.example", queue_id="4other"),
        attempt(at=DAY + 3.0, recipient=f"{ANN}.de", queue_id="4third"),
    ]
    core = core_with(
        tmp_path,
        attempts,
        received=[Received(BEGIN + 1.0, "mx1", "postfix", "4abc", "m@x", ANN, 1, 1, "c", "t")],
        changes=[Change(BEGIN + 1.0, "k:v@p", "opened", "paused", f"why {ANN}", LINE, "r", "engine", 1)],
    )
    shipper = sent(core, server)
    before = total(server, "daily")
    assert history_erasure.erase(server, ANN)
    assert server.rows("SELECT recipient, reply FROM attempt ORDER BY id") == [
        ("[erased]", ERASED),
        ("bob@x.example", attempts[1].reply),
        (f"{ANN}.de", attempts[2].reply),
    ]
    assert server.rows("SELECT sender FROM message") == [("[erased]",)]
    assert server.rows("SELECT why, line FROM change") == [("why [erased]", ERASED)]
    words = {word for (word,) in server.rows("SELECT DISTINCT word FROM named")}
    assert ANN not in words
    assert {"bob@x.example", f"{ANN}.de"} <= words
    assert total(server, "daily") == before
    drive(shipper, now=NOW + 2 * LATER)
    assert server.rows("SELECT count() FROM attempt") == [(3,)]  # nothing was sent again for it
    assert history_erasure.erase(server, "nobody@y.example")


def test_the_outside_process_erases_between_two_rounds(empty: PrivateServer, tmp_path: Path) -> None:
    async def scene() -> None:
        password = tmp_path / "password"
        password.write_text(PASSWORD)
        config = Config(
            store=StoreConfig(path=str(tmp_path), clickhouse=empty.url),
            clickhouse=ClickHouseConfig(name="mx1", user="default", password_file=str(password)),
        )
        core_with(tmp_path, [attempt(at=0.0, recipient=ANN)])
        with closing(empty.client()) as client:
            sender = HistorySender(config, client, told=lambda _: None)
            client.run("DROP DATABASE sidecar")
            with pytest.raises(ValueError, match="not erased on the ClickHouse server"):
                await sender.erase({"address": ANN})
            with pytest.raises(ValueError, match="wanted"):
                await sender.erase({"address": 7})
            await sender.round()
            await sender.round()
            assert await sender.erase({"address": ANN}) == {"done": True}
            assert client.rows("SELECT count() FROM attempt WHERE recipient = ?", (ANN,)) == [(0,)]

    asyncio.run(scene())


def test_a_name_that_is_taken_is_an_error_of_the_server_s_kind() -> None:
    assert issubclass(NameTaken, ServerError)  # so that it is told as one, and tried again
