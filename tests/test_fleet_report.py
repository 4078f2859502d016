"""A report out of ClickHouse against the same events in core's store: every word, condition and time, equal rows."""

import json
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from policies.commands import Attempt, Change
from policies.rollup import DAY, HOUR, MEASURES
from sidecar.cli import sidecar
from sidecar.clickhouse import ClickHouse
from sidecar.database import Database
from sidecar.history_read import ALIASES, DIMENSIONS, REFUSAL_COLUMNS, Selection, StoredHistory, where
from sidecar.history_server import ServerHistory
from sidecar.outside_store import OutsideStore
from sidecar.report_store import ReportStore
from sidecar.statements import SCHEMA
from sidecar.store import Commit
from tests.clickhouse_world import PASSWORD, PrivateServer, current, debian, server
from tests.history_world import filled
from tests.test_report import complain
from tests.test_rollup import attempt
from tests.test_shipping import sent

__all__ = ["current", "debian", "server"]

NOW = 1_772_461_800.0
"""The labelled log's last line."""
CONDITIONS = [
    "provider = google",
    "tenant = shop and campaign != autumn",
    "campaign ~ 'day-.*' or segment = vip",
    "not sasl_username = letters",
    "host = mx2",
    "category = recipient and provider = google",
    "status = deferred or bounce = block",
    'domain = "it\'s.example"',
    "provider = nobody",
]


def fleet() -> list[Attempt]:
    """Six weeks of two hosts: an hour that stands out, values that must be quoted, times in every bucket."""
    found = []
    for day, hour in product(range(42), (1, 9, 22)):
        at = NOW // DAY * DAY - day * DAY + hour * HOUR
        for number in range(6):
            more: dict[str, Any] = [
                {"first": 1, "delay": 0.4 * 3 ** (day % 12)},
                {"status": "deferred", "provider": "yahoo", "rule": "yahoo/rate", "detail": "throttling.ip"},
                {"status": "bounced", "bounce": "hard", "campaign": f"day-{day % 5}", "detail": "recipient"},
                {"status": "expired", "service": "", "sender_domain": "it's.example"},
                {"status": "bounced", "bounce": "block", "tenant": "O'Brien", "segment": "x" * 150, "detail": ""},
                {"passed_on": "4next", "provider": "nowhere"},
            ][number]
            found.append(attempt(**{"host": f"mx{day % 2 + 1}", "time": at + number * 60, **more}))
    loud = attempt("deferred", campaign="loud")._replace(time=NOW // DAY * DAY + 2 * HOUR)
    usual = [attempt()._replace(time=NOW // DAY * DAY + hour * HOUR) for hour in range(12) for _ in range(60)]
    return [*found, *[loud] * 200, *usual]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Core's store and that of the outside process, with the labelled log, a complaint about it and a fleet's mail."""
    directory = tmp_path_factory.mktemp("site")
    store = filled(directory / "core.db")
    opened = Change(NOW // DAY * DAY + 7000, "k@google", "opened", "paused", "refused", "", "rule", "engine", 1)
    store.commit(Commit(attempts=fleet(), changes=[opened]))
    store.close()
    outside = OutsideStore.open(directory / "outside.db")
    complain(ReportStore(outside._database), "one", message_id="<4fv0aa1111zb1@shop.example>")
    outside.close()
    return directory


def rows_of(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in frame.to_numpy().tolist()]


def test_every_word_condition_and_time_gives_the_rows_of_core(stored: Path, server: ClickHouse) -> None:
    sent(stored / "core.db", server)
    words: list[tuple[str, ...]] = [(), *((name,) for name in (*DIMENSIONS, *ALIASES)), ("rule", "domain", "day")]
    asked = [*product(words, [None]), *product([("provider", "tenant"), ("hour",)], map(where, CONDITIONS))]
    until = int(NOW // HOUR + 1) * HOUR
    compared = 0
    with closing(Database.open_read_only(stored / "core.db", SCHEMA)) as database:
        ours, theirs = StoredHistory(database), ServerHistory(server)
        for by, condition in asked:
            plain = Selection(until - DAY, until, by, condition)
            longer = plain._replace(since=until - 30 * DAY)
            for selection in (plain, longer) if {"hour", "day"} & set(by) else (plain, longer._replace(whole=True)):
                wanted, found = ours.sums(selection), theirs.sums(selection)
                assert list(found.columns) == list(wanted.columns), selection
                assert sorted(rows_of(found)) == sorted(rows_of(wanted)), selection
                compared += len(found)
    assert compared > 1_000


def test_there_are_conditions_on_what_refused_and_on_mail() -> None:
    fields = [set(Selection(0, 1, (), where(text)).fields) for text in CONDITIONS]
    assert sum(bool(each & REFUSAL_COLUMNS.keys()) for each in fields) == 2
    assert len(MEASURES) == 24


@pytest.fixture
def configuration(stored: Path, debian: PrivateServer, tmp_path: Path) -> Path:
    with closing(debian.client()) as client:
        client.create()
        sent(stored / "core.db", client)
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    path = tmp_path / "sidecar.toml"
    path.write_text(
        f'[store]\npath = "{stored}"\nclickhouse = "{debian.url}"\n[clickhouse]\npassword_file = "{secret}"\nuser = "default"\n'
    )
    return path


def said(config: Path, *arguments: str) -> Any:
    done = CliRunner().invoke(
        sidecar, ["--config", str(config), "report", "--now", str(NOW), "--json", *arguments], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--last", "24h"],
        ["--last", "7d", "--by", "campaign,transport"],
        ["--last", "30d", "--by", "tenant", "--where", "provider = google"],
        ["--last", "30d", "--by", "category,bounce"],
        ["--last", "14d", "--by", "day"],
        ["--last", "30d", "--by", "host", "--compare", "mx1", "mx2"],
        ["--last", "30d", "--cohort", "campaign"],
        ["--last", "30d", "--warm-up"],
    ],
    ids=" ".join,
)
def test_the_command_says_the_same(configuration: Path, arguments: list[str]) -> None:
    """Percentiles, trends, spikes, what happened around them and complaints too."""
    fleet, here = said(configuration, *arguments), said(configuration, "--here", *arguments)
    if isinstance(fleet, dict):
        assert fleet.pop("source") != here.pop("source")
    assert fleet == here


def test_spikes_and_complaints_are_among_what_is_compared(configuration: Path) -> None:
    report = said(configuration, "--last", "24h", "--by", "campaign,transport")
    assert [each["what"] for each in report["spikes"][0]["events"]] == ["sub-queue opened: k@google"]
    assert {row["campaign"] for row in report["rows"] if row["complaints"]} == {"spring"}


def test_a_server_that_is_away_is_told_in_a_line(stored: Path, tmp_path: Path) -> None:
    path = tmp_path / "sidecar.toml"
    path.write_text(f'[store]\npath = "{stored}"\nclickhouse = "http://127.0.0.1:9"\n')
    done = CliRunner().invoke(sidecar, ["--config", str(path), "report"])
    assert done.exit_code == 2
    assert "http://127.0.0.1:9/sidecar: no answer" in done.output


@pytest.mark.parametrize("url", ["clickhouse.example", "http://me:secret@clickhouse.example:8123", "tcp://x:9000"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    path = tmp_path / "sidecar.toml"
    path.write_text(f'[store]\nclickhouse = "{url}"\n')
    done = CliRunner().invoke(sidecar, ["--config", str(path), "report"])
    assert done.exit_code == 2
    assert "wanted http://HOST:8123" in done.output
