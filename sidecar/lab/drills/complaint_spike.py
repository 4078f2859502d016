"""The example incident: a campaign draws complaints, the domain's reputation dips, and Gmail throttles it.

Google says so by Postmaster v2 and in its replies, a feedback loop by mail; one incident comes of it, and the throttle.
"""

import asyncio
import contextlib
import dataclasses
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from sidecar.lab.drills.drill import Drill, until
from sidecar.lab.drills.hearing import listening, others_wait, over, rest_let_go, until_told
from sidecar.lab.drills.levers import PATIENCE_S, on_hold, sidecar_of
from sidecar.lab.drills.witness import delivered, until_state
from sidecar.lab.http_server import http_server
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.postmaster import CREDENTIALS, Day, Postmaster
from sidecar.lab.run import Bench
from sidecar.outside_store import Known

_DOMAIN, _PROVIDER_KEY = "shop.example", "dkim-domain:shop.example@google"
_GOOGLE = 8081
_CAMPAIGN, _COMPLAINTS = 120, 10
_WELL, _BAD = Day(0.0004), Day(0.006, refused=0.03)
"""Google wants less than 0.001 and never 0.003."""


def throttled(name: str) -> str:
    """A scenario: a domain that Google takes eight messages a second of, and another that sends steadily.

    So little that the limit stays far off where the machine stands still for some seconds, and all of it is tried at once.
    """
    return f"""
name = "{name}"
seconds = 240
scale = 60
main_cf = ["initial_destination_concurrency = 20"]
[[sender]]
domain = "shop.example"
rate = 1
to = ["google"]
[[sender]]
domain = "steady.example"
rate = 1
to = ["google"]
[[provider]]
name = "google"
domains = ["gmail.com"]
mx = ["gmail-smtp-in.l.google.com"]
transaction_s = 0.3
[[provider.limit]]
by = "dkim"
kind = "bucket"
rate = 8
burst = 20
"""


def settings(directory: Path) -> tuple[str, ...]:
    """What the sidecar is told; dotted keys, as the lab's own."""
    return (
        "feeds.google_postmaster.enabled = true",
        "feeds.google_postmaster.every_hours = 0.0008",
        f'feeds.google_postmaster.base_url = "http://127.0.0.1:{_GOOGLE}"',
        f'feeds.google_postmaster.token_endpoint = "http://127.0.0.1:{_GOOGLE}/token"',
        f'feeds.google_postmaster.credentials = "{directory}/google.json"',
        f'outside.domains = ["{_DOMAIN}"]',
        f'report_mail.maildir = ["{directory}/complaints"]',
        'report_mail.authserv_ids = ["mx.sender-side.example"]',
    )


def complaint(number: int) -> str:
    """As Yahoo's feedback loop sends it (RFC 5965)."""
    return f"""\
Return-Path: <feedback@arf.mail.yahoo.com>
Authentication-Results: mx.sender-side.example; dkim=pass header.d=arf.mail.yahoo.com
From: feedback@arf.mail.yahoo.com
To: fbl@{_DOMAIN}
Subject: FW: News
Message-ID: <{number}@arf.mail.yahoo.com>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="part"

--part
Content-Type: text/plain

This is an email abuse report.

--part
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: Lab/1.0
Version: 1
Original-Rcpt-To: user{number}@yahoo.com
Reported-Domain: {_DOMAIN}

--part
Content-Type: message/rfc822

DKIM-Signature: v=1; a=rsa-sha256; d={_DOMAIN}; s=lab; h=from; bh=bGFi; b=bGFi
From: News <news@{_DOMAIN}>
To: user{number}@yahoo.com
Message-ID: <{number}.campaign@{_DOMAIN}>
Subject: News

Hello.

--part--
"""


def _prepare(directory: Path) -> None:
    (directory / "google.json").write_text(json.dumps(CREDENTIALS))
    for part in ("cur", "new", "tmp"):
        (directory / "complaints" / part).mkdir(parents=True)


def _complain(directory: Path) -> None:
    for number in range(_COMPLAINTS):
        (directory / "complaints" / "new" / f"{number}.lab").write_text(complaint(number))


def _of(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _tells(day: date) -> Callable[[Known], bool]:
    return lambda known: known.at >= _of(day)


def _counted(bench: Bench) -> int:
    """Complaints that the outside process took in and believed."""
    store = sidecar_of(bench).directory / "store" / "outside.db"
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        counted = "SELECT count(*) FROM report_event WHERE kind = 'complaint' AND trusted AND sending_domain = ?"
        return int(connection.execute(counted, (_DOMAIN,)).fetchone()[0])


async def act(bench: Bench) -> None:
    """Play it: a quiet day, the campaign, the bad day, and the two good days that Google wants to see."""
    sidecar = sidecar_of(bench)
    directory = sidecar.directory
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    quiet, bad, better, good = (yesterday - timedelta(days=back) for back in (3, 2, 1, 0))
    google = Postmaster(_DOMAIN, {quiet: _WELL})
    about = (_DOMAIN, "spam")
    await asyncio.to_thread(_prepare, directory)
    with ExitStack() as open_now:
        heard, channels = open_now.enter_context(listening(directory))
        open_now.enter_context(http_server(google, port=_GOOGLE))
        await sidecar.configured_anew(*settings(directory), *channels)
        await until_told(bench, "google-postmaster", about, _tells(quiet))
        began = time.time()
        sender = dataclasses.replace(bench.scenario.senders()[0], burst=_CAMPAIGN)
        campaign = asyncio.create_task(bench.fleet.burst(sender))
        await asyncio.to_thread(_complain, directory)
        google.days[bad] = _BAD
        await on_hold(bench, 10)
        bench.times["throttled_s"] = round(time.time() - began, 1)
        await until(lambda: heard.paged, "paged", PATIENCE_S)
        await campaign
        await until_state(bench, _PROVIDER_KEY, {"ramping", ""}, PATIENCE_S)
        await delivered(bench, lambda it: it.burst, 90)
        bench.times["drained_s"] = round(time.time() - began, 1)
        await until(lambda: _counted(bench) == _COMPLAINTS, f"{_COMPLAINTS} complaints counted", PATIENCE_S)
        repaired = time.time()
        for day in (better, good):
            google.days[day] = _WELL
            await until_told(bench, "google-postmaster", about, _tells(day))
            await asyncio.sleep(3)  # one look at each day
        await over(bench, heard, began, repaired)
        others_wait(bench, "steady.example", began)
        await rest_let_go(bench, _PROVIDER_KEY)


def expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """The throttle was applied."""
    del figures
    if len(evidence.log.held) < _CAMPAIGN // 4:
        yield f"only {len(evidence.log.held)} messages were held; the throttle was not applied"


DRILLS = (
    Drill(
        "complaint-spike",
        "complaints with a dip in reputation are one incident, told once, throttled, ramped and resolved",
        throttled("complaint-spike"),
        act,
        expects,
    ),
)
