"""What the drills of incidents are made of: services of others as local servers, and settings that the sidecar takes."""

import asyncio
import contextvars
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import dns.flags
import dns.message
import dns.rdatatype
import pytest

from parsers.feeds import google_postmaster
from parsers.feeds.asking import Answer, Ask, DnsAnswer, DnsAsk, Reading
from sidecar import blocklists, mx
from sidecar.asking import Asking
from sidecar.config import Config, ReportMailConfig, load
from sidecar.database import Database
from sidecar.feeds import FEEDS
from sidecar.lab.attachment import lab_config, with_settings
from sidecar.lab.dns import NameServer, Record
from sidecar.lab.drills import complaint_spike, dkim_key_broken, identities, ip_listed
from sidecar.lab.drills.hearing import Heard, listening
from sidecar.lab.http_server import http_server
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.patience import patience
from sidecar.lab.postmaster import CREDENTIALS, Day, Postmaster
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.outside_store import SCHEMA
from sidecar.report_intake import Intake
from sidecar.report_store import ReportStore
from sidecar.scope import Scope
from tests.outside_world import driven
from tests.world import RULES

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
WAITED = SimpleNamespace(others_p95_s=4.8)


@pytest.mark.parametrize(("times", "complaints"), [(1.0, 1), (5.0, 0)])
def test_patience_stretches_a_limit_of_time(times: float, complaints: int) -> None:
    """A run in which the others waited 4.8 s, where 3 s is the bar."""

    def complained() -> int:
        patience.set(times)
        return len(list(identities.expects(cast("Evidence", None), cast("Figures", WAITED))))

    assert contextvars.copy_context().run(complained) == complaints


class _Postfix:
    maillog = "/lab/mail.log"
    config_directory = "/lab/etc"


def configured(directory: Path, lines: tuple[str, ...], *, without: str = "") -> Config:
    """As a drill has the sidecar read it."""
    base = lab_config(directory, cast("PrivatePostfix", _Postfix()), 60.0)
    file = directory / "sidecar.toml"
    file.write_text(with_settings(base, lines, without=without))
    return load(file)


SETTINGS: dict[str, Callable[[Path], tuple[tuple[str, ...], str]]] = {
    "dkim-key-broken": lambda _: (dkim_key_broken.SETTINGS, "feeds.authentication."),
    "ip-listed": lambda directory: (ip_listed.settings(directory), "feeds.blocklists."),
    "complaint-spike": lambda directory: (complaint_spike.settings(directory), ""),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_the_sidecar_takes(name: str, tmp_path: Path) -> None:
    lines, without = SETTINGS[name](tmp_path)
    with listening(tmp_path) as (_, channels):
        config = configured(tmp_path, (*lines, *channels), without=without)
    assert [channel.name for channel in config.channel] == ["chat", "pager"]
    wanted = {"dkim-key-broken": "authentication", "ip-listed": "dnsbl-15min", "complaint-spike": "google-postmaster"}
    assert FEEDS[wanted[name]].wanted(config)


def test_google_tells_a_bad_day_when_it_is_published(tmp_path: Path) -> None:
    yesterday = NOW.date() - timedelta(days=1)
    google = Postmaster("shop.example", {yesterday - timedelta(days=1): Day(0.0004)})
    (tmp_path / "google.json").write_text(json.dumps(CREDENTIALS))

    def poll() -> Reading:
        with http_server(google) as server:
            lines = (
                "feeds.google_postmaster.enabled = true",
                f'feeds.google_postmaster.base_url = "{server.url}"',
                f'feeds.google_postmaster.token_endpoint = "{server.url}/token"',
                f'feeds.google_postmaster.credentials = "{tmp_path}/google.json"',
            )
            feed = FEEDS["google-postmaster"]
            asking = Asking(mx.resolver_at(("127.0.0.1:1",)))
            config = configured(tmp_path, lines)
            reading, _ = asyncio.run(asking.poll(feed.poll(config, Scope((), ("shop.example",)), NOW.timestamp())))
        return reading

    assert [(seen.value, seen.text) for seen in poll().observations if seen.measure == "spam"] == [(0.0004, "")]
    google.days[yesterday] = Day(0.006, refused=0.03)
    reading = poll()
    assert reading.trouble is None
    seen = {each.measure: each.value for each in reading.observations if each.object == "shop.example"}
    assert (seen["spam"], seen["delivery-error.reject.low_domain_reputation"]) == (0.006, 0.03)
    assert seen["verified"] == 1.0
    assert google_postmaster.FEED == "google-postmaster"


def test_a_complaint_of_the_drill_is_believed(tmp_path: Path) -> None:
    intake = Intake(ReportMailConfig(authserv_ids=("mx.sender-side.example",)), RULES)
    database = Database.open(tmp_path / "outside.db", SCHEMA)
    for number in (1, 2):
        intake.take(ReportStore(database), complaint_spike.complaint(number).encode(), source="lab", now=1e9)
    rows = database.rows("SELECT kind, trusted, sending_domain FROM report_event")
    assert rows == [("complaint", 1, "shop.example")] * 2
    database.close()


def answered(names: NameServer) -> Callable[[Ask], Answer]:
    def answer(ask: Ask) -> Answer:
        assert isinstance(ask, DnsAsk)
        query = dns.message.make_query(ask.name, ask.type)
        said = dns.message.from_wire(names.answer(query.to_wire()) or b"")
        records = [str(record) for found in said.answer for record in found]
        return DnsAnswer(dns.rcode.to_text(said.rcode()), tuple(record.replace('"', "") for record in records))

    return answer


def test_the_list_of_the_drill_is_believed_and_lists_the_address(tmp_path: Path) -> None:
    config = configured(tmp_path, ip_listed.settings(tmp_path), without="feeds.blocklists.")
    assert [asked.list.id for asked in blocklists.in_force(config)] == ["lab"]
    names = NameServer([ip_listed.POINT])
    scope = Scope((ip_listed.ADDRESS,), ())
    for listed in (0.0, 1.0, 0.0):
        poll = FEEDS["dnsbl-15min"].poll(config, scope, NOW.timestamp())
        seen = {(each.object, each.measure): each.value for each in driven(poll, answered(names)).observations}
        assert seen[ip_listed.ADDRESS, "listed.lab"] == listed
        assert seen["lab", "zone-healthy"] == 1.0
        names.change(*[ip_listed.LISTED] * (not listed), without=[ip_listed.LISTED[:2]])


def test_the_keys_of_the_drill_are_good_ones(tmp_path: Path) -> None:
    config = configured(tmp_path, dkim_key_broken.SETTINGS, without="feeds.authentication.")
    names = NameServer([*dkim_key_broken.records("shop.example"), Record("shop.example", "TXT", '"v=spf1 -all"')])
    scope = Scope((), ("shop.example",), ("shop.example",))
    key = ("shop.example", "dkim-key.lab")
    for lost in (False, True):
        if lost:
            names.change(without=[("lab._domainkey.shop.example", "TXT")])
        poll = FEEDS["authentication-active"].poll(config, scope, NOW.timestamp())
        seen = {(each.object, each.measure): each.value for each in driven(poll, answered(names)).observations}
        assert seen[key] == float(not lost)
        assert seen["shop.example", "requirement.DMARC_POLICY"] == 1.0


HEARD: dict[str, tuple[list[dict[str, str]], int, str]] = {
    "as it should be": ([{"text": "a"}, {"text": "b", "thread_ts": "1.1"}], 1, ""),
    "two pages": ([{"text": "a"}, {"text": "b", "thread_ts": "1.1"}], 2, "the pager opened 2 incidents, wanted 1"),
    "no end": ([{"text": "a"}], 1, "the chat heard 1 messages, wanted 2 to 3"),
    "too many": ([{"text": "a"}, *[{"text": "b", "thread_ts": "1.1"}] * 3], 1, "the chat heard 4 messages"),
    "not one thread": ([{"text": "a"}, {"text": "b"}], 1, "the chat heard it in several threads"),
}


@pytest.mark.parametrize("name", HEARD)
def test_what_an_incident_must_sound_like(name: str) -> None:
    messages, pages, complaint = HEARD[name]
    heard = Heard()
    heard.chat.taken[:] = messages
    heard.pager.pages = pages
    assert next(heard.complaints(), "").startswith(complaint)
    assert bool(complaint) == bool(list(heard.complaints()))
