"""A message found in ClickHouse: the same life as core's store tells."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from policies.commands import Change
from policies.stored_address import AddressForm
from sidecar.clickhouse import ClickHouse
from sidecar.config import ClickHouseConfig, Config, StoreConfig
from sidecar.database import Database
from sidecar.message_search import search, tell
from sidecar.message_server import ServerEvents
from sidecar.page import reading
from sidecar.page.picture import Picture
from sidecar.page.scene import Scene
from sidecar.page.search import view
from sidecar.statements import SCHEMA
from sidecar.store import Commit, Store
from tests.clickhouse_world import PASSWORD, PrivateServer, current, debian, emptied, server
from tests.history_world import filled
from tests.test_report import NOW
from tests.test_rollup import attempt
from tests.test_shipping import sent

__all__ = ["current", "debian", "server"]

QUERIES = [
    "4fV0Aa3333zB3", "<4fv0aa3333zb3@shop.example>", "4fv0aa3333zb3@shop.example", "cy@yahoo.com", "cy@YAHOO.com",
    "info@letters.example", "4fV0Aa6666zB6", "4fV0Ab6666zB7", "nobody@example.com", "4fV0Aa9999zzz", "it's", "''",
]  # fmt: skip


@pytest.fixture(scope="module", params=list(AddressForm))
def stored(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, AddressForm]:
    path = tmp_path_factory.mktemp("search") / "core.db"
    with closing(filled(path, addresses=request.param)) as store:
        store.commit(
            Commit(
                changes=[
                    Change(
                        NOW - 7000, "k", "held", "paused", "", "", "rule", "engine", 1, (("postfix", "4fV0Aa3333zB3"),)
                    ),
                    Change(NOW - 7000, "k", "opened", "paused", "why", "line 4fv0aa4444zb4", "rule", "engine", 0),
                    Change(
                        NOW - 7000, "k", "held", "paused", "", "", "rule", "engine", 1, (("other", "4fV0Aa4444zB4"),)
                    ),
                ]
            )
        )
    return path, request.param


def test_a_life_is_the_same(stored: tuple[Path, AddressForm], server: ClickHouse) -> None:
    path, form = stored
    sent(path, server)
    sent(path, server)
    events = ServerEvents(server)
    told = 0
    with closing(Database.open_read_only(path, SCHEMA)) as database:
        for query in QUERIES:
            wanted = search(database, query, addresses=form)
            assert tell(events, query, addresses=form) == wanted, query
            told += len(wanted)
            assert len(tell(events, query, addresses=form, limit=1)) <= len(wanted)
    assert told >= 5


@pytest.fixture
def two_hosts(tmp_path: Path, debian: PrivateServer) -> Config:
    """This host, with a message; and another one, whose store is on the server alone."""
    other, here = tmp_path / "mx2", tmp_path / "mx1"
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    for directory in (other, here):
        directory.mkdir()
        with closing(Store.open(directory / "core.db")) as store:
            store.commit(Commit(attempts=[attempt(host=directory.name, recipient="cy@example.com", time=NOW)]))
    with closing(debian.client()) as client:
        client.create()
        emptied(client)
        sent(other / "core.db", client, name="mx2")
        sent(here / "core.db", client, name="mx1")
    return Config(
        store=StoreConfig(path=str(here), clickhouse=debian.url),
        clickhouse=ClickHouseConfig(user="default", password_file=str(secret)),
    )


def on_the_page(config: Config) -> tuple[list[str], list[str]]:
    """Hosts of what was found, and what the page says is wrong."""
    with reading.opened(config) as stores:
        scene = Scene(config, stores, Picture(), "/search", {"q": "cy@example.com"}, "", NOW)
        return [each.life.host for each in view(scene).found], [
            said for said in stores.troubles if "outside.db" not in said
        ]


def test_the_page_finds_messages_of_all_hosts(two_hosts: Config) -> None:
    assert on_the_page(two_hosts) == (["mx1", "mx2"], [])


def test_the_page_finds_its_own_while_the_server_is_away(two_hosts: Config) -> None:
    away = replace(two_hosts, store=replace(two_hosts.store, clickhouse="http://127.0.0.1:9"))
    hosts, troubles = on_the_page(away)
    assert hosts == ["mx1"]
    assert "no answer" in troubles[0]
