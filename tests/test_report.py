"""`sidecar report`: the numbers counted by hand, however they are asked for, and nothing in a page that a sender put there."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from policies.commands import Change
from policies.rollup import DAY, HOUR
from sidecar.cli import sidecar
from sidecar.outside_store import OutsideStore
from sidecar.report_store import EventRow, MailRow, ReportStore
from sidecar.store import Commit, Store
from tests.history_world import LOG, TOTALS, filled
from tests.test_rollup import attempt

NOW = 1_772_461_800.0
"""The labelled log's last line."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose store holds the labelled log, one complaint about it and one listing."""
    directory = tmp_path_factory.mktemp("site")
    filled(directory / "core.db").close()
    outside = OutsideStore.open(directory / "outside.db")
    complain(ReportStore(outside._database), "one", message_id="<4fv0aa1111zb1@shop.example>")
    outside.close()
    (directory / "sidecar.toml").write_text(f'[store]\npath = "{directory}"\n')
    return directory / "sidecar.toml"


def complain(store: ReportStore, key: str, **more: Any) -> None:
    row = EventRow(
        key, NOW, NOW - HOUR, "maildir", "complaint", "abuse", True, "google.com", "google", "", "gmail.com",
        "shop.example", "", "", "message-id", "", "", "", "", 1,
    )  # fmt: skip
    store.add(MailRow(key, NOW, "maildir", "complaint", "google.com", True, ""), [row._replace(**more)])


def run(*arguments: str, config: Path | None = None) -> Result:
    before = ["--config", str(config)] if config else []
    return CliRunner().invoke(sidecar, [*before, "report", *arguments], catch_exceptions=False)


def read(config: Path, *arguments: str) -> Any:
    done = run("--now", str(NOW), "--json", *arguments, config=config)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def keyed(report: Any, *names: str) -> dict[Any, Any]:
    return {tuple(row[name] for name in names) if len(names) > 1 else row[names[0]]: row for row in report["rows"]}


def test_the_totals_are_those_counted_by_hand(site: Path) -> None:
    total = read(site)["total"]
    assert {name: total[name] for name in TOTALS} == TOTALS
    assert total["complaints"] == 1
    assert total["rates"]["acceptance"] == {"share": 6 / 9, "mark": "missed"}
    assert total["rates"]["hard_bounces"]["share"] == 1 / 9
    assert total["rates"]["deferrals"]["share"] == 5 / 13


@pytest.mark.parametrize(
    ("by", "wanted"),
    [
        ("provider", {"google": (5, 3), "yahoo": (5, 1), "microsoft": (1, 0), "letters.example": (1, 1), "": (1, 1)}),
        ("domain", {"shop.example": (5, 3), "letters.example": (6, 1), "mx1.example": (1, 1), "": (1, 1)}),
        ("tenant", {"shop": (5, 3), "letters": (6, 1), "": (2, 2)}),
        ("campaign", {"spring": (4, 3), "autumn": (6, 1), "": (3, 2)}),
        ("segment", {"spring.shop.example": (4, 3), "": (9, 3)}),
        ("transport", {"lane-01": (5, 3), "smtp": (7, 2), "local": (1, 1), "": (0, 0)}),
        ("host", {"mx1": (13, 6)}),
        ("day", {"2026-03-02": (13, 6)}),
    ],
)
def test_each_dimension_is_as_counted_by_hand(site: Path, by: str, wanted: dict[str, tuple[int, int]]) -> None:
    rows = keyed(read(site, "--by", by), by)
    assert {key: (row["attempts"], row["sent"]) for key, row in rows.items()} == wanted
    busiest = [row["attempts"] + row["expired"] for row in rows.values()]
    assert busiest == sorted(busiest, reverse=True)


def test_several_dimensions_and_a_condition(site: Path) -> None:
    report = read(site, "--by", "provider,tenant", "--where", "tenant = letters and provider != microsoft")
    rows = keyed(report, "provider", "tenant")
    assert {key: (row["messages"], row["deferred"], row["expired"]) for key, row in rows.items()} == {
        ("yahoo", "letters"): (2, 4, 1)
    }
    assert report["total"]["attempts"] == 5
    assert read(site, "--by", "template", "--where", "sasl_username = letters and category = reputation")["rows"] == [
        {
            "template": "microsoft/block-list",
            "attempts": 1,
            "deferred": 0,
            "bounced": 1,
            "hard": 0,
            "block": 1,
            "expired": 0,
        }
    ]


def test_what_refused(site: Path) -> None:
    rows = keyed(read(site, "--by", "category", "--by", "bounce"), "category", "bounce")
    assert {key: row["attempts"] + row["expired"] for key, row in rows.items()} == {
        ("infrastructure", "transient"): 3,
        ("throttling", "transient"): 2,
        ("recipient", "hard"): 1,
        ("reputation", "block"): 1,
        ("", ""): 1,
    }


def test_a_complaint_finds_the_stream_of_its_message(site: Path) -> None:
    rows = keyed(read(site, "--by", "campaign,transport"), "campaign", "transport")
    assert {key: row["complaints"] for key, row in rows.items() if row["complaints"]} == {("spring", "lane-01"): 1}
    assert read(site, "--where", "campaign = autumn")["total"]["complaints"] == 0


def test_log_files_give_the_same_as_the_store(site: Path) -> None:
    stored = read(site, "--by", "provider,campaign,transport", "--last", "1d")
    done = run("--by", "provider,campaign,transport", "--last", "1d", "--json", "--tz", "UTC", str(LOG))
    of_log = json.loads(done.stdout)
    for row in (*stored["rows"], *of_log["rows"]):
        row.pop("complaints", None)
        row["rates"].pop("complaints", None)
    assert of_log["rows"] == stored["rows"]
    assert "71 lines (0 not understood)" in of_log["source"]


def test_the_hours_of_a_log_are_its_own() -> None:
    report = json.loads(run("--json", "--tz", "UTC", str(LOG)).stdout)
    assert (report["from"], report["to"]) == ("2026-03-02T08:00:00+00:00", "2026-03-02T15:00:00+00:00")
    assert {name: report["total"][name] for name in TOTALS} == TOTALS


def test_csv_is_what_a_spreadsheet_reads(site: Path) -> None:
    done = run("--now", str(NOW), "--by", "provider", "--format", "csv", config=site)
    rows = {row["provider"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert (rows["google"]["sent"], rows["google"]["acceptance_rate"]) == ("3", "0.750000")
    assert rows["microsoft"]["p50_s"] == ""


def test_a_formula_in_a_campaign_is_text(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "core.db")
    store.commit(Commit(attempts=[attempt(campaign="=HYPERLINK(0)")]))
    store.close()
    config = configured(tmp_path)
    done = run("--now", str(attempt().time), "--by", "campaign", "--format", "csv", config=config)
    assert "'=HYPERLINK(0)" in done.stdout


def configured(directory: Path) -> Path:
    path = directory / "sidecar.toml"
    path.write_text(f'[store]\npath = "{directory}"\n')
    return path


# Pages.


class Tags(HTMLParser):
    """All tags and their attributes, and text outside scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_a_page_needs_nothing_else_and_runs_only_its_own_scripts(tmp_path: Path) -> None:
    evil = '"></script><script>alert(1)</script><img src=x onerror=alert(1)>'
    store = Store.open(tmp_path / "core.db")
    store.commit(Commit(attempts=[attempt(campaign=evil, provider=evil) for _ in range(3)]))
    store.close()
    path = tmp_path / "page.html"
    done = run(
        "--now",
        str(attempt().time),
        "--by",
        "campaign",
        "--format",
        "html",
        "-o",
        str(path),
        config=configured(tmp_path),
    )
    assert done.exit_code == 0
    tags = Tags()
    tags.feed(path.read_text())
    assert [tag for tag, _ in tags.tags].count("script") == 2
    assert "img" not in {tag for tag, _ in tags.tags}
    assert not [attributes for _, attributes in tags.tags if {"src", "href", "onerror"} & attributes.keys()]
    policy = next(each["content"] for tag, each in tags.tags if each.get("http-equiv") == "Content-Security-Policy")
    assert policy
    assert policy.count("'sha256-") == 2
    assert "'unsafe-inline'" not in policy.partition("script-src")[2]


def test_a_page_can_be_read_without_seeing_it(site: Path) -> None:
    text = run("--now", str(NOW), "--format", "html", config=site).stdout
    tags = Tags()
    tags.feed(text)
    names = [tag for tag, _ in tags.tags]
    assert ("html", {"lang": "en"}) in tags.tags
    assert names.count("h1") == names.count("main") == 1
    assert all(each.get("scope") in {"col", "row"} for tag, each in tags.tags if tag == "th")
    assert all(each.get("aria-label") for tag, each in tags.tags if each.get("role") == "img")
    labelled = {each["aria-labelledby"] for _, each in tags.tags if "aria-labelledby" in each}
    assert labelled <= {each["id"] for _, each in tags.tags if "id" in each}
    assert "66.67 % !" in text


# Side by side, cohorts, warm-up.


@pytest.fixture(scope="module")
def fortnight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lanes over two weeks; the new one doubles each day. One hour in which Google refuses one campaign."""
    directory = tmp_path_factory.mktemp("fortnight")
    store = Store.open(directory / "core.db")
    begin = NOW // DAY * DAY - 13 * DAY
    for day in range(14):
        at = begin + day * DAY + 10 * HOUR
        old = [attempt(service="old", campaign="spring", first=1)._replace(time=at) for _ in range(200)]
        fresh = [
            attempt(service="new", campaign=f"day-{day}", first=1)._replace(time=at) for _ in range(min(2**day, 400))
        ]
        refused = [
            attempt("bounced", service="new", campaign=f"day-{day}", bounce="block")._replace(time=at)
            for _ in range(min(2**day, 400) // 4)
        ]
        store.commit(Commit(attempts=[*old, *fresh, *refused]))
    at = begin + 13 * DAY + 14 * HOUR
    spike = [attempt("deferred", campaign="loud", sender_domain="loud.example")._replace(time=at) for _ in range(300)]
    quiet = [attempt()._replace(time=at + hour * HOUR) for hour in (-3, -2, -1, 0, 1) for _ in range(100)]
    opened = Change(at - 60, "dkim-domain:loud.example@google", "opened", "paused", "refused", "", "rule", "engine", 1)
    elsewhere = opened._replace(key="dkim-domain:a.example@yahoo")
    reload = Change(at - 300, "", "postfix", "", "reload -- version 3.7.11", "", "", "engine", 0)
    store.commit(Commit(attempts=[*spike, *quiet], changes=[elsewhere, opened, reload]))
    store.close()
    outside = OutsideStore.open(directory / "outside.db")
    outside._database.connection.execute(
        "INSERT INTO history VALUES ('blocklists', '192.0.2.7', 'listed.zen', ?, 1.0, '')", (at - 600,)
    )
    outside.close()
    return configured(directory)


def test_two_lanes_side_by_side(fortnight: Path) -> None:
    found = {
        each["rate"]: each for each in read(fortnight, "--last", "14d", "--by", "transport", "--compare", "old", "new")
    }
    assert found["acceptance"]["differ"] is True
    assert found["acceptance"]["one"] == {"hits": 2800, "of": 2800}
    assert found["acceptance"]["interval"][0] > 0
    assert found["hard_bounces"]["differ"] is False


def test_a_lane_without_mail_cannot_be_compared(fortnight: Path) -> None:
    done = run("--now", str(NOW), "--by", "transport", "--compare", "old", "nwe", config=fortnight)
    assert done.exit_code == 2
    assert "no mail of transport 'nwe' in this time; there is " in done.output


def test_what_looks_like_markup_is_text(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "core.db")
    store.commit(Commit(attempts=[attempt(service="[/x]", campaign="[red]", sender_domain="[/y]") for _ in range(2)]))
    store.close()
    config, now = configured(tmp_path), str(attempt().time)
    for arguments in (["--by", "campaign,domain"], ["--warm-up"], ["--by", "transport", "--compare", "[/x]", "[/x]"]):
        done = run("--now", now, *arguments, config=config)
        assert done.exit_code == 0
        assert "[/" in done.stdout


def test_cohorts_by_the_day_they_begin(fortnight: Path) -> None:
    rows = read(fortnight, "--last", "14d", "--cohort", "transport")
    assert len(rows) == 2  # the lane of the last day's quiet mail, and those that were there on the first day
    assert [row["transport first seen"].startswith("<= ") for row in rows] == [True, False]
    assert rows[0]["0"] > rows[0]["13"]


def test_warm_up_by_day(fortnight: Path) -> None:
    rows = [row for row in read(fortnight, "--last", "14d", "--warm-up") if row["transport"] == "new"]
    assert [row["number"] for row in rows] == list(range(1, 15))
    assert [row["sent"] for row in rows[:5]] == [1, 2, 4, 8, 16]
    assert [row["growth"] for row in rows[:4]] == [None, 2.0, 2.0, 2.0]
    assert rows[8]["acceptance"] == 0.8


def test_a_spike_is_told_with_what_happened_around_it(fortnight: Path) -> None:
    spike, _of_the_new_lane = read(fortnight, "--last", "24h")["spikes"]
    assert (spike["provider"], spike["refused"], spike["attempts"]) == ("google", 300, 400)
    assert spike["streams"][0] == {"stream": "loud (loud.example)", "share": 1.0}
    assert [event["what"] for event in spike["events"]] == [
        "listed: 192.0.2.7 on zen",
        "Postfix: reload -- version 3.7.11",
        "sub-queue opened: dkim-domain:loud.example@google",
    ]
    said = run("--now", str(NOW), "--last", "24h", config=fortnight).stdout
    assert re.search(r"spike: google, .* 75.00 % of 400 attempts deferred or bounced, usually 0.00 %", said)


def test_trends_look_at_the_time_before(fortnight: Path) -> None:
    trends = {each["window"]: each for each in read(fortnight, "--last", "24h")["trends"]}
    assert trends["7 d"]["before"]["sent"] == 7 * 200 + 127
    assert trends["7 d"]["now"]["sent"] == 7 * 200 + 128 + 256 + 5 * 400 + 500
    assert trends["30 d"]["before"]["sent"] == 0


# Wrong usage.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--by", "providr"], "'providr' is no dimension; wanted provider, domain"),
        (["--last", "soon"], "'soon' is no length of time; wanted a number of hours, days or weeks"),
        (["--last", "0d"], "'0d' is no length of time"),
        (["--where", "providr = google"], "did you mean provider?"),
        (["--cohort", "day"], "is not one of"),
        (["--warm-up", "--format", "html"], "come as table and json"),
    ],
)
def test_wrong_usage_says_what_would_be_right(site: Path, arguments: list[str], said: str) -> None:
    done = run(*arguments, config=site)
    assert done.exit_code == 2
    assert said in done.output


def test_without_a_store_it_says_who_makes_one(tmp_path: Path) -> None:
    done = run(config=configured(tmp_path))
    assert done.exit_code == 2
    assert "there is no store yet; core makes it" in done.output


def test_an_empty_store_is_an_empty_report(tmp_path: Path) -> None:
    Store.open(tmp_path / "core.db").close()
    for form in ("table", "json", "csv", "html"):
        done = run("--format", form, config=configured(tmp_path))
        assert done.exit_code == 0, done.output
    for special in (["--cohort", "campaign"], ["--warm-up"]):
        assert run(*special, config=configured(tmp_path)).exit_code == 0
