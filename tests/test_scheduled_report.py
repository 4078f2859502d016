"""The daily and weekly report: due once, made of the store, sent by mail and over a channel, never twice."""

import asyncio
import email
import email.policy
import sqlite3
from datetime import UTC, datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.note import Note, NoteKind, headline
from policies.timetable import Schedule, clock, latest_due
from sidecar import history_mail
from sidecar.channels import Channel
from sidecar.config import ChannelConfig, ChannelKind, Config, ConfigError, ReportConfig, StoreConfig
from sidecar.history_mail import ScheduledReport, compose, handed_over, made_apart, note, render, scheduled
from sidecar.outside_store import OutsideStore
from tests.history_world import filled

BERLIN = ZoneInfo("Europe/Berlin")
DUE = 1_772_434_800.0 + 86_400.0
"""2026-03-03T07:00Z, the morning after the labelled log."""


def config(directory: Path, **settings: object) -> Config:
    wanted = ReportConfig(schedule=Schedule.DAILY, **settings)  # type: ignore[arg-type]  # by name
    return Config(store=StoreConfig(path=str(directory)), report=wanted)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    filled(tmp_path / "core.db").close()
    OutsideStore.open(tmp_path / "outside.db").close()
    return tmp_path


@pytest.mark.parametrize(
    ("schedule", "now", "wanted"),
    [
        (Schedule.DAILY, "2026-03-03T07:00", "2026-03-03T07:00"),
        (Schedule.DAILY, "2026-03-03T06:59", "2026-03-02T07:00"),
        (Schedule.WEEKLY, "2026-03-03T12:00", "2026-03-02T07:00"),
        (Schedule.WEEKLY, "2026-03-02T06:59", "2026-02-23T07:00"),
    ],
)
def test_when_it_is_due(schedule: Schedule, now: str, wanted: str) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=BERLIN).timestamp()
    found = latest_due(schedule, time(7), now=at, zone=BERLIN)
    assert datetime.fromtimestamp(found, BERLIN).strftime("%Y-%m-%dT%H:%M") == wanted


@given(
    st.integers(1_700_000_000, 1_800_000_000), st.sampled_from([Schedule.DAILY, Schedule.WEEKLY]), st.integers(0, 1439)
)
def test_it_is_due_once_a_day_or_week_whatever_the_clock_does(now: int, schedule: Schedule, minute: int) -> None:
    at = time(minute // 60, minute % 60)
    due = latest_due(schedule, at, now=now, zone=BERLIN)
    length = 86_400 * (7 if schedule is Schedule.WEEKLY else 1)
    assert now - length - 3600 < due <= now
    assert latest_due(schedule, at, now=due, zone=BERLIN) == due


@pytest.mark.parametrize("text", ["7:00", "24:00", "07:60", "", "noon", "٠٧:00"])
def test_a_time_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="as 07:30"):
        clock(text)


def test_never_is_never() -> None:
    assert latest_due(Schedule.NEVER, time(7), now=DUE, zone=UTC) == 0


def test_a_report_is_due_once_also_after_a_restart(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_mail, "local_zone", lambda: UTC)
    wanted = config(site, to=("a@example.com",))
    assert ScheduledReport(wanted, None).take_due(now=DUE - 10) == 0  # the first start
    assert ScheduledReport(wanted, None).take_due(now=DUE + 10) == DUE
    assert ScheduledReport(wanted, None).take_due(now=DUE + 20) == 0
    assert ScheduledReport(wanted, None).take_due(now=DUE + 2 * 86_400) == DUE + 2 * 86_400


def test_the_mail_has_the_numbers_as_text_and_as_a_page_without_scripts(site: Path) -> None:
    made = render(config(site, to=("a@example.com",)), DUE)
    message = email.message_from_bytes(
        compose(made, ("a@example.com",), "r@example.com", now=DUE), policy=email.policy.default
    )
    assert (message["To"], message["From"], message["Auto-Submitted"]) == (
        "a@example.com",
        "r@example.com",
        "auto-generated",
    )
    assert message["Subject"].startswith("daily mail report of ")
    assert "66.67 % accepted" in message["Subject"]
    text, page = (part.get_content() for part in message.iter_parts())
    assert "google" in text
    assert "yahoo" in page
    assert "<script" not in page
    assert "script-src 'none'" in page.replace("&#x27;", "'")


def test_it_is_made_in_a_process_of_its_own(site: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = made_apart(config(site, to=("a@example.com",)), DUE)
    assert made is not None
    assert "66.67 % accepted" in made.title
    assert made_apart(config(tmp_path / "elsewhere", to=("a@example.com",)), DUE) is None
    assert "there is no store yet" in caplog.text


def test_a_channel_gets_the_main_table(site: Path) -> None:
    made = render(config(site, channel="ops"), DUE)
    told = note(made, now=DUE)
    assert headline(told).startswith("[REPORT] info: daily mail report of ")
    assert any("google" in line for line in told.evidence)
    assert (told.kind, told.is_open, len(told.evidence) <= 25) == (NoteKind.REPORT, False, True)


def sendmail(directory: Path, *, status: int) -> str:
    path = directory / "sendmail"
    path.write_text(f'#!/bin/sh\ncat > {directory}/mail\necho "$@" > {directory}/arguments\nexit {status}\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(("status", "again"), [(0, "no"), (75, "yes"), (64, "no")])
def test_only_what_postfix_certainly_did_not_take_is_tried_again(tmp_path: Path, status: int, again: str) -> None:
    program = sendmail(tmp_path, status=status)
    why = handed_over(b"Subject: x\n\nbody\n", ("-a@example.com",), "r@example.com", sendmail=program)
    assert (why is not None) is (again == "yes")
    assert (tmp_path / "mail").read_bytes() == b"Subject: x\n\nbody\n"
    assert (tmp_path / "arguments").read_text() == "-i -f r@example.com -- -a@example.com\n"


def test_it_goes_out_when_it_is_due(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One turn of the loop: the mail is handed over, and the note posted."""
    posted: list[tuple[Note, str]] = []
    mails: list[bytes] = []

    def taken(message: bytes, *_: object) -> None:
        mails.append(message)

    monkeypatch.setattr(history_mail, "handed_over", taken)
    monkeypatch.setattr(history_mail, "local_zone", lambda: UTC)
    monkeypatch.setattr("sidecar.history_mail.time.time", lambda: DUE + 5)
    wanted = config(site, to=("a@example.com",), channel="ops")
    with sqlite3.connect(site / "outside.db") as outside:
        outside.execute("INSERT INTO mark VALUES ('report', ?)", (int(DUE - 86_400),))
    outside.close()
    done = asyncio.Event()

    def post(said: Note, channel: str) -> None:
        posted.append((said, channel))
        loop.call_soon_threadsafe(done.set)

    async def story() -> None:
        running = asyncio.create_task(ScheduledReport(wanted, post).run())
        async with asyncio.timeout(60):
            await done.wait()
        running.cancel()

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        runner.run(story())
    assert [channel for _, channel in posted] == ["ops"]
    assert len(mails) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "report.schedule: nobody gets the report"),
        ({"channel": "opps"}, "'opps' is no [[channel]] of slack, webhook or mail; there is ops"),
        ({"channel": "pager"}, "'pager' is no [[channel]]"),
        ({"channel": "ops"}, "alerts.enabled"),
        ({"to": ("a@example.com",), "at": "7am"}, "report.at: found '7am', wanted a time of day"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, settings: dict[str, object], said: str) -> None:
    channels = [
        Channel(ChannelConfig(name="ops", kind=ChannelKind.SLACK), "mx1"),
        Channel(ChannelConfig(name="pager", kind=ChannelKind.PAGERDUTY), "mx1"),
    ]
    with pytest.raises(ConfigError) as refused:
        scheduled(config(tmp_path, **settings), channels, None)
    assert said in str(refused.value)


def test_nothing_is_scheduled_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert scheduled(Config(store=StoreConfig(path=str(tmp_path))), [], None) is None
