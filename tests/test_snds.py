"""SNDS against a server of our own: both ways in, every shape of a table, and that no fault blocks or clears anybody."""

import asyncio
import contextlib
import ipaddress
import json
import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from parsers.feeds import snds, snds_rows
from parsers.feeds.asking import Answer, Ask, HttpAnswer, HttpAsk, Keep, Kept, Poll, Reading, Trouble
from parsers.feeds.oauth import Stored, read_stored, write_stored
from parsers.feeds.snds import Credential, Links, Login
from parsers.feeds.snds_rows import Complaints, FormatError, LoginPage
from parsers.observation import Outcome
from sidecar import mx
from sidecar.asking import Asking
from sidecar.cli import sidecar
from sidecar.config import Config, ConfigError, FeedsConfig, SndsConfig, StoreConfig
from sidecar.credentials import snds_ages, snds_networks, snds_way
from sidecar.feeds import FEEDS
from sidecar.login import challenge
from sidecar.outside_store import OutsideStore, RawAnswer
from sidecar.scope import Scope
from tests.outside_world import Request, Response, driven, http_server

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC).timestamp()
TODAY = date(2026, 11, 21)
YESTERDAY = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
ADDRESSES = ("192.0.2.10", "192.0.2.11", "192.0.2.12", "2001:db8::1")

HEADER = (
    "Ip Address,Activity period,RCPT commands,DATA commands,Message recipients,Filter result,Complaint rate,"
    "Trap message period,Trap hits,JMR P1 Sender,Comments"
)
NEW = [
    "192.0.2.10,11/20/2026 1:00 AM,10,8,7,GREEN,<0.1%,11/20/2026 2:00 AM,0,,",
    "192.0.2.11,11/20/2026 1:00 AM,400,300,200,YELLOW,0.2%,11/20/2026 2:00 AM,1,,",
    '192.0.2.11,11/20/2026 3:00 AM,40,30,20,RED,< 0.1%,11/20/2026 4:00 AM,2,,"a, comment"',
]
LEGACY = [
    "192.0.2.10,11/20/2026 1:00 AM,11/20/2026 11:00 PM,10,8,7,GREEN,< 0.1%,,,0,mx.example,a@example.com,",
    "192.0.2.11,11/20/2026 1:00 AM,11/20/2026 2:00 AM,400,300,200,YELLOW,0.2%,,,1,,,",
    '192.0.2.11,11/20/2026 3:00 AM,11/20/2026 4:00 AM,40,30,20,RED,< 0.1%,,,2,mx,"b@x, y",',
]


def as_json(keys: Callable[[str], str]) -> list[dict[str, Any]]:
    names = [keys(name) for name in HEADER.split(",")]
    cells = [line.split(",", 10) for line in NEW]
    return [dict(zip(names, line, strict=True)) for line in cells]


def camel(name: str) -> str:
    words = name.split()
    return words[0].lower() + "".join(word.title() for word in words[1:])


ROWS = as_json(camel)
BODIES = {
    "new CSV with a header": "\r\n".join([HEADER, *NEW]),
    "new CSV without": "\r\n".join(NEW) + "\r\n",
    "new CSV with a mark": "\ufeff" + "\n".join([HEADER, *NEW]),
    "a header with other words": "\n".join([HEADER.replace("Ip Address", "IP_address").upper(), *NEW]),
    "old CSV": "\r\n".join(LEGACY) + "\r\n",
    "JSON": json.dumps(ROWS),
    "JSON, pretty": "\n\n " + json.dumps(ROWS, indent=2),
    "JSON in value": json.dumps({"@odata.context": "x", "value": ROWS}),
    "JSON in items": json.dumps({"items": ROWS, "count": 3}),
    "JSON in data": json.dumps({"data": ROWS}),
    "JSON in results": json.dumps({"Results": ROWS}),
    "JSON with other keys": json.dumps(as_json(lambda name: name.upper().replace(" ", "_"))),
    "JSON with numbers": json.dumps([{**row, "trapHits": int(row["trapHits"])} for row in ROWS]),
}
BLOCKED = [
    {"beginningIpAddress": "192.0.2.11", "endingIpAddress": "192.0.2.12", "blocked": "true", "reason": "complaints"},
    {"beginningIpAddress": "192.0.2.10", "endingIpAddress": "192.0.2.10", "blocked": "false", "reason": ""},
]
STATUSES = {
    "JSON": json.dumps(BLOCKED),
    "JSON in value": json.dumps({"value": BLOCKED}),
    "JSON with true": json.dumps([{**row, "blocked": row["blocked"] == "true"} for row in BLOCKED]),
    "new CSV": "192.0.2.11,192.0.2.12,True,complaints\n192.0.2.10,192.0.2.10,False,\n",
    "old CSV": "192.0.2.11,192.0.2.12,Yes,complaints\r\n192.0.2.10,192.0.2.10,No,\r\n",
    "CSV with a header": "First IP,Last IP,Blocked,Reason\n192.0.2.11,192.0.2.12,Yes,complaints\n192.0.2.10,192.0.2.10,No,\n",
}


@dataclass
class Microsoft:
    """The token endpoint and the portal. Each refresh token is good once."""

    refresh: str = "r0"
    access: str = ""
    uses: int = 10**9
    """Requests after which an access token is refused."""
    published: int = 1
    """Days back that the newest data is of."""
    slash: bool = False
    """Days are there only with a slash at the end."""
    data: str = BODIES["JSON"]
    status: str = STATUSES["JSON"]
    fault: Callable[[Request], Response | None] = lambda _: None
    asked: list[str] = field(default_factory=list)
    left: int = 0
    issued: int = 0

    def answer(self, request: Request) -> Response | None:
        if (wrong := self.fault(request)) is not None:
            return None if wrong.status == 0 else wrong
        path = urlsplit(request.path).path
        self.asked.append(path)
        if path == "/token":
            return self._token(dict(parse_qsl(request.body.decode())))
        if request.headers.get("authorization") != f"Bearer {self.access}" or not self.access or self.left <= 0:
            return Response(401)
        self.left -= 1
        if path == "/snds/api/report/status/ip":
            return table(self.status)
        back = (TODAY - date.fromisoformat(path.rstrip("/").rpartition("/")[2])).days
        there = back == self.published and (path.endswith("/") or not self.slash)
        return table(self.data) if there else Response(404)

    def _token(self, form: dict[str, str]) -> Response:
        known = {"refresh_token": self.refresh, "authorization_code": "the code"}
        given = form.get("refresh_token") or form.get("code")
        if form["client_id"] != "ours" or "client_secret" in form or known[form["grant_type"]] != given:
            return json_answer(400, {"error": "invalid_grant", "error_description": "AADSTS70000: used already"})
        self.issued += 1
        self.refresh, self.access, self.left = f"r{self.issued}", f"a{self.issued}", self.uses
        told = {"token_type": "Bearer", "expires_in": 3600, "access_token": self.access, "refresh_token": self.refresh}
        return json_answer(200, told)


def json_answer(status: int, told: Any) -> Response:
    return Response(status, json.dumps(told).encode(), (("Content-Type", "application/json"),))


def table(text: str) -> Response:
    kind = "application/json" if text.lstrip("\ufeff \n")[:1] in {"[", "{"} else "text/csv"
    return Response(200, text.encode(), (("Content-Type", f"{kind}; charset=utf-8"),))


@dataclass
class Disk:
    """What `Keep` writes to; with the order of everything that was asked."""

    server: Callable[[Request], Response | None]
    text: str = ""
    full_from: int = 10**9
    """Writes that still succeed."""
    log: list[str] = field(default_factory=list)

    def give(self, ask: Ask) -> Answer:
        if isinstance(ask, Keep):
            if self.full_from <= 0:
                return Kept(f"{ask.path}: cannot be written: No space left on device")
            self.full_from -= 1
            self.text = ask.text
            self.log.append("keep")
            return Kept()
        assert isinstance(ask, HttpAsk)
        url = urlsplit(ask.url)
        self.log.append(url.path)
        headers = {name.lower(): value for name, value in ask.headers}
        got = self.server(Request(ask.method, f"{url.path}?{url.query}", headers, ask.body))
        if got is None:
            return HttpAnswer(0, error="ConnectionError: closed")
        return HttpAnswer(got.status, tuple((name.lower(), value) for name, value in got.headers), got.body)


def login(stored: Stored = Stored("r0", logged_in_at=NOW - 86400)) -> Login:  # noqa: B008  # a constant
    return Login(stored, "/nowhere/token", *_ENDPOINTS)


_ENDPOINTS = ("http://ms.example/token", "ours", "ours/.default offline_access", "http://ms.example/snds")


def polled(microsoft: Microsoft, way: Login | Links | None = None, **settings: Any) -> tuple[Reading, Disk]:
    disk = Disk(microsoft.answer)
    return driven(snds.poll(way or login(), ADDRESSES, now=NOW, **settings), disk.give), disk


def told(reading: Reading) -> dict[tuple[str, str], tuple[str, float | None]]:
    return {(seen.object, seen.measure): (seen.outcome.value, seen.value) for seen in reading.observations}


# What is told.

TRUTH = {
    ("192.0.2.10", "blocked"): ("ok", 0.0),
    ("192.0.2.11", "blocked"): ("ok", 1.0),
    ("192.0.2.12", "blocked"): ("ok", 1.0),
    ("account", "blocked-addresses"): ("ok", 2.0),
    ("192.0.2.10", "filter-result"): ("ok", 0.0),
    ("192.0.2.10", "complaints"): ("ok", 0.0),
    ("192.0.2.10", "trap-hits"): ("ok", 0.0),
    ("192.0.2.10", "recipients"): ("ok", 7.0),
    ("192.0.2.10", "rcpt-commands"): ("ok", 10.0),
    ("192.0.2.10", "data-commands"): ("ok", 8.0),
    ("192.0.2.11", "filter-result"): ("ok", 2.0),
    ("192.0.2.11", "complaints"): ("ok", 0.002),
    ("192.0.2.11", "trap-hits"): ("ok", 3.0),
    ("192.0.2.11", "recipients"): ("ok", 220.0),
    ("192.0.2.11", "rcpt-commands"): ("ok", 440.0),
    ("192.0.2.11", "data-commands"): ("ok", 330.0),
    **{("192.0.2.12", measure): ("no_data", None) for measure in snds.MEASURES},
}


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
def test_the_shapes_of_daily_data(body: str) -> None:
    reading, _ = polled(Microsoft(data=body))
    assert reading.trouble is None
    assert told(reading) == TRUTH
    texts = {(seen.object, seen.measure): seen.text for seen in reading.observations}
    assert texts["192.0.2.10", "complaints"] == "below 0.001"
    assert texts["192.0.2.11", "filter-result"] == "RED"
    assert texts["192.0.2.11", "blocked"] == "complaints"
    assert {seen.at for seen in reading.observations if seen.measure == "filter-result" and seen.value is not None} == {
        YESTERDAY
    }


@pytest.mark.parametrize("status", STATUSES.values(), ids=list(STATUSES))
def test_the_shapes_of_states(status: str) -> None:
    reading, _ = polled(Microsoft(status=status))
    assert told(reading) == TRUTH


@pytest.mark.parametrize("slash", [True, False])
@pytest.mark.parametrize("published", [1, 2, 3])
def test_a_day_that_is_not_yet_there_is_looked_for_further_back(published: int, *, slash: bool) -> None:
    reading, _ = polled(Microsoft(published=published, slash=slash))
    assert told(reading) == TRUTH
    at = {seen.at for seen in reading.observations if seen.measure == "complaints" and seen.value is not None}
    assert at == {YESTERDAY - (published - 1) * 86400}


def test_without_any_day_there_is_no_data() -> None:
    reading, _ = polled(Microsoft(published=4))
    assert reading.trouble is None
    assert told(reading)["192.0.2.11", "filter-result"] == ("no_data", None)
    assert told(reading)["192.0.2.11", "blocked"] == ("ok", 1.0)


def test_where_nothing_at_all_is_there_it_has_moved() -> None:
    reading, _ = polled(Microsoft(fault=lambda request: Response(404) if "/snds/" in request.path else None))
    assert reading.trouble is Trouble.FORMAT
    assert {outcome for outcome, _ in told(reading).values()} == {"unknown"}


@pytest.mark.parametrize(
    ("status", "data", "networks", "state"),
    [
        ("[]", BODIES["JSON"], (), {"10": ("ok", 0.0), "11": ("ok", 0.0), "12": ("no_data", None)}),
        ("", BODIES["old CSV"], (), {"10": ("ok", 0.0), "11": ("ok", 0.0), "12": ("no_data", None)}),
        ("[]", BODIES["JSON"], ("192.0.2.0/24",), {"10": ("ok", 0.0), "11": ("ok", 0.0), "12": ("ok", 0.0)}),
        ("[]", "[]", ("192.0.2.12/32",), {"10": ("no_data", None), "11": ("no_data", None), "12": ("ok", 0.0)}),
    ],
)
def test_no_mention_clears_only_what_the_account_sees(
    status: str, data: str, networks: tuple[str, ...], state: dict[str, tuple[str, float | None]]
) -> None:
    granted = [ipaddress.IPv4Network(network) for network in networks]
    reading, _ = polled(Microsoft(status=status, data=data), networks=granted)
    assert {last: told(reading)[f"192.0.2.{last}", "blocked"] for last in state} == state


def test_a_word_that_we_do_not_know_neither_blocks_nor_clears() -> None:
    status = "192.0.2.10,192.0.2.10,Perhaps,why\n192.0.2.11,192.0.2.11,True,why\n"
    reading, _ = polled(Microsoft(status=status))
    assert told(reading)["192.0.2.10", "blocked"] == ("unknown", None)
    assert told(reading)["192.0.2.11", "blocked"] == ("ok", 1.0)
    assert told(reading)["account", "blocked-addresses"] == ("unknown", None)


def test_the_other_addresses_of_the_account_are_told_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snds, "OTHERS_MAX", 1)
    more = ["198.51.100.1,x,1,1,5,GREEN,0.0%,,0,,", "198.51.100.2,x,1,1,50,RED,0.0%,,0,,"]
    reading, _ = polled(Microsoft(data="\n".join([HEADER, *NEW, *more])))
    assert told(reading)["198.51.100.2", "filter-result"] == ("ok", 2.0)
    assert not any(seen.object == "198.51.100.1" for seen in reading.observations)


def test_days_of_a_link_come_in_order() -> None:
    older = [line.replace("11/20/2026 1:00", "11/19/2026 1:00").replace("GREEN", "RED") for line in LEGACY[:1]]
    links = Links("http://ms.example/data.aspx?key=0123456789abcdef", "")
    reading, _ = polled(Microsoft(fault=lambda _: table("\n".join([*LEGACY, *older]))), links)
    days = [
        (seen.at, seen.text)
        for seen in reading.observations
        if seen.object == "192.0.2.10" and seen.measure == "filter-result"
    ]
    assert days == [(YESTERDAY - 86400, "RED"), (YESTERDAY, "GREEN")]
    assert not any(seen.measure == "blocked" for seen in reading.observations)


# Cells.


@pytest.mark.parametrize(
    ("cell", "read"),
    [
        ("<0.1%", Complaints(0.001, True)),
        ("< 0.1%", Complaints(0.001, True)),
        (" < 0.1 % ", Complaints(0.001, True)),
        ("0.2%", Complaints(0.002, False)),
        ("0%", Complaints(0.0, False)),
        ("100%", Complaints(1.0, False)),
        ("101%", None),
        ("0.2", None),
        (0.2, None),
        ("", None),
        (None, None),
        ("-1%", None),
        (">0.1%", None),
        ("n/a", None),
    ],
)
def test_complaint_rates(cell: Any, read: Complaints | None) -> None:
    assert snds_rows.complaints(cell) == read


@pytest.mark.parametrize(
    ("cell", "read"),
    [("12/31/2019 10:00 AM", date(2019, 12, 31)), ("6/1/2026 1:00 AM", date(2026, 6, 1)),
     ("6/1/2026 1:00:59 PM", date(2026, 6, 1)), ("2026-06-01T01:00:00Z", date(2026, 6, 1)), ("2026-06-01", date(2026, 6, 1))],
)  # fmt: skip
def test_days(cell: str, read: date) -> None:
    assert snds_rows.day(cell) == read


@pytest.mark.parametrize("cell", ["31/12/2019 10:00 AM", "", "yesterday", None, "6/1/2026 13:00 AM"])
def test_days_that_are_none(cell: Any) -> None:
    with pytest.raises(FormatError, match="a row of no day"):
        snds_rows.day(cell)


@pytest.mark.parametrize(("cell", "read"), [("7", 7), (7, 7), ("1,024", None), ("-1", None), ("", None), (True, None)])
def test_counts(cell: Any, read: int | None) -> None:
    assert snds_rows.count(cell) == read


@pytest.mark.parametrize(
    ("line", "measure", "outcome", "value"),
    [
        (NEW[0].replace("GREEN", "green"), "filter-result", "ok", 0.0),
        (NEW[0].replace("GREEN", "BLUE"), "filter-result", "unknown", None),
        (NEW[0].replace("<0.1%", "<1%"), "complaints", "unknown", None),
        (NEW[0].replace("<0.1%", "0.3"), "complaints", "unknown", None),
        (NEW[0].replace("<0.1%", "0.3%"), "complaints", "ok", 0.003),
        (NEW[0].replace(",0,,", ",many,,"), "trap-hits", "unknown", None),
        (NEW[0].replace(",7,", ",,"), "recipients", "unknown", None),
    ],
)
def test_one_odd_cell_costs_no_other_one(line: str, measure: str, outcome: str, value: float | None) -> None:
    reading, _ = polled(Microsoft(data=f"{HEADER}\n{line}\n{NEW[1]}"))
    assert told(reading)["192.0.2.10", measure] == (outcome, value)
    others = [("192.0.2.10", each) for each in snds.MEASURES if each != measure]
    assert {key: told(reading)[key] for key in others} == {key: TRUTH[key] for key in others}


BAD_TABLES = {
    "13 columns": LEGACY[0].rpartition(",")[0],
    "one word": "Service Unavailable",
    "a line cut": BODIES["new CSV without"][:-40],
    "no address": NEW[0].replace("192.0.2.10", "192.0.2"),
    "header without colours": "\n".join([HEADER.replace("Filter result", "Verdict"), *NEW]),
    "JSON cut": BODIES["JSON"][:-40],
    "JSON without rows": '{"error": {"code": "InternalError"}}',
    "JSON of words": '["a", "b"]',
    "JSON that goes on": json.dumps({"value": ROWS, "@odata.nextLink": "https://substrate.example/next"}),
    "JSON of something else": json.dumps([{"name": "x"}]),
    "deep JSON": "[" * 100_000,
    "a quote that never ends": HEADER + '\n192.0.2.10,"',
    "states": STATUSES["new CSV"],
}


@pytest.mark.parametrize("body", BAD_TABLES.values(), ids=list(BAD_TABLES))
def test_a_bad_table_tells_nothing(body: str) -> None:
    reading, _ = polled(Microsoft(data=body))
    assert reading.trouble is Trouble.FORMAT
    assert reading.why.startswith("daily data: ")
    daily = {key: value for key, value in told(reading).items() if key[1] in snds.MEASURES}
    assert set(daily.values()) == {("unknown", None)}
    assert told(reading)["192.0.2.11", "blocked"] == ("ok", 1.0)


BAD_STATES = {
    "data": BODIES["new CSV without"],
    "no range": "192.0.2.10,192.0.2,True,why",
    "backwards": "192.0.2.10,192.0.2.1,True,why",
    "of two kinds": "192.0.2.10,::1,True,why",
    "a word": "Error",
    "JSON of one": json.dumps(BLOCKED[0]),
    "null": "null",
}


@pytest.mark.parametrize("body", BAD_STATES.values(), ids=list(BAD_STATES))
def test_bad_states_neither_block_nor_clear(body: str) -> None:
    reading, _ = polled(Microsoft(status=body))
    assert reading.trouble is Trouble.FORMAT
    assert {told(reading)[each, "blocked"] for each in ADDRESSES[:3]} == {("unknown", None)}
    assert told(reading)["192.0.2.11", "trap-hits"] == ("ok", 3.0)


def test_a_table_without_end_is_refused() -> None:
    with pytest.raises(FormatError, match="more than 200000 rows"):
        snds_rows.read(b"192.0.2.1,192.0.2.1,Yes,\n" * 200_001, wanted=snds_rows.STATUS)


@pytest.mark.parametrize("body", [b"<html>", b"\xef\xbb\xbf  <!DOCTYPE html>", b"\n<?xml version='1.0'?>"])
def test_a_page_is_no_table(body: bytes) -> None:
    with pytest.raises(LoginPage):
        snds_rows.read(body, wanted=snds_rows.DATA)


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_any_bytes_are_a_table_or_refused(body: bytes) -> None:
    for wanted in (snds_rows.DATA, snds_rows.STATUS):
        with contextlib.suppress(FormatError, LoginPage):
            rows = snds_rows.read(body, wanted=wanted)
            list(snds_rows.by_address(rows) if wanted == snds_rows.DATA else snds_rows.ranges(rows))


CELLS = st.sampled_from(
    ["192.0.2.10", "192.0.2.11", "GREEN", "0.2%", "7", "true", "", "<0.1%", "::1", "11/20/2026 1:00 AM"]
)
ANYTHING = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | CELLS, st.lists, max_leaves=3)


@given(st.lists(st.fixed_dictionaries({camel(name): ANYTHING for name in HEADER.split(",")}), max_size=3))
def test_any_rows_are_read_or_refused(rows: list[dict[str, Any]]) -> None:
    for seen in polled(Microsoft(data=json.dumps(rows)))[0].observations:
        assert (seen.outcome is Outcome.OK) == (seen.value is not None)


# The login.


def test_the_new_login_is_kept_before_it_is_used() -> None:
    microsoft = Microsoft()
    reading, disk = polled(microsoft)
    assert reading.trouble is None
    assert disk.log[:4] == ["keep", "/token", "keep", "/snds/api/report/status/ip"]
    kept = read_stored(disk.text)
    assert kept == Stored("r1", "a1", NOW + 3600, NOW - 86400)


def test_a_token_that_is_still_good_is_used_again() -> None:
    microsoft = Microsoft()
    _, disk = polled(microsoft)
    kept = read_stored(disk.text)
    assert kept is not None
    reading, disk = polled(microsoft, login(kept))
    assert told(reading) == TRUTH
    assert "/token" not in disk.log


def test_logins_go_on_from_poll_to_poll() -> None:
    """Each refresh token is good once; a week of polls every four hours."""
    microsoft, stored = Microsoft(uses=2), Stored("r0", logged_in_at=1.0)
    for _ in range(42):
        reading, disk = polled(microsoft, login(stored._replace(expires_at=0.0)))
        assert told(reading) == TRUTH
        kept = read_stored(disk.text)
        assert kept is not None
        stored = kept
    assert (stored.refresh, stored.logged_in_at) == ("r42", 1.0)


def test_a_refused_token_is_renewed_once() -> None:
    microsoft = Microsoft()
    reading, disk = polled(microsoft, login(Stored("r0", "stale", NOW + 3000)))
    assert told(reading) == TRUTH
    assert disk.log.count("/token") == 1

    reading, disk = polled(Microsoft(uses=0))
    assert reading.trouble is Trouble.AUTHENTICATION
    assert disk.log.count("/token") == 1


def test_a_login_that_cannot_be_kept_is_not_spent() -> None:
    microsoft = Microsoft()
    disk = Disk(microsoft.answer, full_from=0)
    reading = driven(snds.poll(login(), ADDRESSES, now=NOW), disk.give)
    assert (reading.trouble, "No space left" in reading.why) == (Trouble.CONFIGURATION, True)
    assert microsoft.refresh == "r0"

    disk = Disk(microsoft.answer, full_from=1)  # between the two writes
    assert driven(snds.poll(login(), ADDRESSES, now=NOW), disk.give).trouble is Trouble.CONFIGURATION
    assert all("/snds/" not in line for line in disk.log)


def test_a_spent_login_needs_a_person() -> None:
    reading, _ = polled(Microsoft(refresh="another"))
    assert reading.trouble is Trouble.AUTHENTICATION
    assert "sidecar login snds" in reading.why
    assert {outcome for outcome, _ in told(reading).values()} == {"unknown"}


# Polls that fail.

HTML = Response(200, b"<!DOCTYPE html><title>Sign in to your account</title>", (("Content-Type", "text/html"),))
FAULTS = {
    "a page to log in": (HTML, Trouble.AUTHENTICATION),
    "the same as CSV": (HTML._replace(headers=(("Content-Type", "text/csv"),)), Trouble.AUTHENTICATION),
    "empty HTML": (Response(200, b"", (("Content-Type", "text/html"),)), Trouble.AUTHENTICATION),
    "empty JSON": (Response(200, b"", (("Content-Type", "application/json"),)), Trouble.FORMAT),
    "empty, of no kind": (Response(200, b""), Trouble.FORMAT),
    "elsewhere": (Response(302, b"", (("Location", "https://login.live.example"),)), Trouble.AUTHENTICATION),
    "401": (Response(401), Trouble.AUTHENTICATION),
    "403": (Response(403), Trouble.AUTHENTICATION),
    "410": (Response(410), Trouble.FORMAT),
    "429": (Response(429, b"", (("Retry-After", "Sat, 21 Nov 2026 11:00:00 GMT"),)), Trouble.REFUSED),
    "500": (Response(500, b"{}"), Trouble.NETWORK),
    "503": (Response(503), Trouble.NETWORK),
    "silent": (Response(0), Trouble.NETWORK),
    "bytes": (Response(200, bytes(range(256))), Trouble.FORMAT),
}
LINKS = Links(
    "http://ms.example/SNDS/DataKey?Key=0123456789abcdef", "http://ms.example/ipStatus.aspx?key=0123456789abcdef"
)


@pytest.mark.parametrize("way", [None, LINKS], ids=["login", "links"])
@pytest.mark.parametrize(("response", "trouble"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_tells_nothing(response: Response, trouble: Trouble, way: Links | None) -> None:
    def fault(request: Request) -> Response | None:
        return None if request.path.startswith("/token") else response

    ages = [Credential("data-link", NOW - 26 * 86400, "renew it")]
    reading, _ = polled(Microsoft(fault=fault), way, credentials=ages)
    assert reading.trouble is trouble
    assert reading.why
    assert reading.retry_after == (3600 if trouble is Trouble.REFUSED else 0)
    assert {key: each for key, each in told(reading).items() if each[0] != "unknown"} == {
        ("data-link", "credential-age"): ("ok", 26 * 86400.0)
    }


def test_links() -> None:
    def answer(request: Request) -> Response:
        return table(STATUSES["old CSV"] if request.path.startswith("/ipStatus") else BODIES["old CSV"])

    reading, disk = polled(Microsoft(fault=answer), LINKS)
    assert told(reading) == TRUTH
    assert "/token" not in disk.log


WORSE = [
    *(response for response, _ in FAULTS.values()),
    Response(404),
    Response(200, b"Service Unavailable"),
    *(table(body) for body in BAD_TABLES.values()),
    table(BODIES["JSON in value"][:-2]),
    json_answer(400, {"error": "invalid_grant"}),
    json_answer(200, {"error": "nothing"}),
]


def test_no_fault_blocks_or_clears_anybody() -> None:
    """A thousand polls, any request of which may fail in any way: what is told is true, or nothing is told."""
    dice = random.Random(5)
    values = 0
    for number in range(1000):
        share = dice.random() ** 2

        def fault(request: Request, share: float = share) -> Response | None:
            if dice.random() >= share:
                return None
            wrong = dice.choice(WORSE)
            # The table of the other kind is no fault that a table could show.
            return None if wrong.body == STATUSES["new CSV"].encode() and "status" in request.path else wrong

        data, status = dice.choice(list(BODIES.values())), dice.choice(list(STATUSES.values()))
        way = login(Stored("r0", "stale", NOW + 3000)) if number % 3 == 0 else None
        reading, _ = polled(Microsoft(data=data, status=status, fault=fault), way)
        for seen in reading.observations:
            if seen.outcome is Outcome.OK:
                values += 1
                assert (seen.outcome.value, seen.value) == TRUTH[seen.object, seen.measure]
    assert values > 5000


# Over real HTTP, with files.


def configured(tmp_path: Path, **settings: Any) -> Config:
    ours = SndsConfig(client_id="ours", **settings)
    return Config(store=StoreConfig(path=str(tmp_path)), feeds=FeedsConfig(snds=ours))


def ask(poll: Poll) -> tuple[Reading, list[RawAnswer]]:
    async def run() -> tuple[Reading, list[RawAnswer]]:
        return await Asking(mx.system_resolver, backoff=0.01).poll(poll)

    return asyncio.run(run())


def test_from_the_login_to_the_second_poll(tmp_path: Path) -> None:
    microsoft = Microsoft()
    scope = Scope(ADDRESSES, ())
    with http_server(microsoft.answer) as server:
        endpoints = {"token_endpoint": f"{server.url}/token", "base_url": f"{server.url}/snds"}
        endpoints["authorize_endpoint"] = f"{server.url}/authorize"
        config = configured(tmp_path, **endpoints)
        with pytest.raises(ConfigError, match="nobody has logged in yet: sidecar login snds"):
            FEEDS["snds"].poll(config, scope, NOW)

        file = tmp_path / "sidecar.toml"
        lines = [f'{name} = "{value}"' for name, value in {**endpoints, "client_id": "ours"}.items()]
        file.write_text(f'[store]\npath = "{tmp_path}"\n[feeds.snds]\n' + "\n".join(lines))
        assert log_in(file, "http://localhost:8400/?code=the+code&state=the+state").exit_code == 0
        path = tmp_path / "snds.token"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        (exchange,) = (request for request in server.requests if request.path == "/token")
        form = dict(parse_qsl(exchange.body.decode()))
        assert (form["redirect_uri"], form["grant_type"]) == ("http://localhost:8400", "authorization_code")

        for _ in range(2):
            path.write_text(write_stored(_stored(path)._replace(expires_at=0.0)))
            reading, raw = ask(FEEDS["snds"].poll(config, scope, NOW))
            assert {key: value for key, value in told(reading).items() if key[1] != "credential-age"} == TRUTH
    assert microsoft.issued == 3
    assert _stored(path).refresh == "r3"
    assert "r3" not in repr(raw)
    assert '"a3"' not in repr(raw)
    assert ("login", "credential-age") in told(reading)


def _stored(path: Path) -> Stored:
    stored = read_stored(path.read_text())
    assert stored is not None
    return stored


STATE = "the state"


@pytest.fixture(autouse=True)
def _known_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_urlsafe", lambda size: STATE if size == 24 else "the-verifier" * 4)


def log_in(config: Path, pasted: str, feed: str = "snds") -> Any:
    return CliRunner().invoke(sidecar, ["--config", str(config), "login", feed], input=pasted + "\n")


def test_the_page_of_a_login(tmp_path: Path) -> None:
    file = tmp_path / "sidecar.toml"
    file.write_text(f'[store]\npath = "{tmp_path}"\n')
    result = log_in(file, "http://localhost:8400/?error=access_denied&error_description=no")
    assert (result.exit_code, "access_denied: no" in result.output) == (1, True)
    (page,) = (line for line in result.output.splitlines() if line.startswith("https://login.microsoftonline.com/"))
    fields = {name: values[0] for name, values in parse_qs(urlsplit(page).query).items()}
    assert fields["scope"].endswith("/.default offline_access openid profile")
    assert (fields["response_type"], fields["code_challenge_method"]) == ("code", "S256")
    assert (fields["code_challenge"], fields["state"]) == (challenge("the-verifier" * 4), STATE)
    assert not (tmp_path / "snds.token").exists()


def test_the_challenge_is_that_of_the_standard() -> None:
    """RFC 7636 appendix B."""
    assert challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


REFUSED = {
    "": "no code in it",
    "nonsense": "no code in it",
    "http://localhost:8400/": "no code in it",
    "http://localhost:8400/?code=x": "its state is another one",
    "http://localhost:8400/?code=x&state=y": "its state is another one",
    "http://localhost:8400/?code=wrong&state=the+state": "invalid_grant",
    "http://localhost:8400/?code=\x1b[2Jx&error=\x1b[2J": r"\x1b[2J",
}


@pytest.mark.parametrize(("pasted", "says"), REFUSED.items())
def test_a_login_that_is_none(tmp_path: Path, pasted: str, says: str) -> None:
    with http_server(Microsoft().answer) as server:
        file = tmp_path / "sidecar.toml"
        settings = f'token_endpoint = "{server.url}/token"\nclient_id = "ours"\n'
        file.write_text(f'[store]\npath = "{tmp_path}"\n[feeds.snds]\n{settings}')
        result = log_in(file, pasted)
    assert result.exit_code == 1
    assert f"no login: {says}" in result.output or (f"no login: no access token: HTTP 400: {says}" in result.output)
    assert not (tmp_path / "snds.token").exists()


def test_a_login_without_a_refresh_token_is_none(tmp_path: Path) -> None:
    with http_server(lambda _: json_answer(200, {"access_token": "a"})) as server:
        file = tmp_path / "sidecar.toml"
        file.write_text(f'[store]\npath = "{tmp_path}"\n[feeds.snds]\ntoken_endpoint = "{server.url}/token"\n')
        result = log_in(file, "http://localhost:8400/?code=x&state=the+state")
    assert (result.exit_code, "no refresh token" in result.output) == (1, True)


def test_a_login_at_google(tmp_path: Path) -> None:
    """The same command writes the file that the feed of Google reads."""
    (tmp_path / "client.json").write_text(json.dumps({"installed": {"client_id": "id", "client_secret": "sec"}}))
    forms: list[dict[str, str]] = []

    def answer(request: Request) -> Response:
        forms.append(dict(parse_qsl(request.body.decode())))
        return json_answer(200, {"access_token": "a", "refresh_token": "1//r", "expires_in": 3599})

    with http_server(answer) as server:
        file = tmp_path / "sidecar.toml"
        settings = f'client = "{tmp_path}/client.json"\ntoken_endpoint = "{server.url}/token"\n'
        file.write_text(f'[store]\npath = "{tmp_path}"\n[feeds.google_postmaster]\n{settings}')
        result = log_in(file, "http://127.0.0.1:8401/?state=the+state&code=4/0A&scope=x", "google-postmaster")
    assert result.exit_code == 0
    assert "access_type=offline" in result.output
    assert (forms[0]["client_secret"], forms[0]["code"], forms[0]["code_verifier"]) == (
        "sec",
        "4/0A",
        "the-verifier" * 4,
    )
    written = json.loads((tmp_path / "google-postmaster.json").read_text())
    assert (written["type"], written["refresh_token"]) == ("authorized_user", "1//r")


# Settings.


def test_links_are_as_old_as_their_files(tmp_path: Path) -> None:
    for name, days in (("data", 26), ("status", 3)):
        (tmp_path / name).write_text("http://127.0.0.1:9/?Key=0123456789abcdef\n")
        os.utime(tmp_path / name, (NOW - days * 86400,) * 2)
    links = {"data_link": str(tmp_path / "data"), "status_link": str(tmp_path / "status")}
    config = configured(tmp_path, **links, attested="2026-06-20")
    way = snds_way(config)
    assert isinstance(way, Links)
    ages = {each.name: NOW - each.since for each in snds_ages(config, way)}
    assert ages == {"data-link": 26 * 86400, "status-link": 3 * 86400, "attestation": 154 * 86400 + 36000}
    reading, raw = ask(FEEDS["snds"].poll(config, Scope(ADDRESSES, ()), NOW))
    assert reading.trouble is Trouble.NETWORK
    assert told(reading)["data-link", "credential-age"] == ("ok", 26 * 86400)
    assert "0123456789abcdef" not in repr((reading, raw))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"data_link": "/nowhere/link"}, "feeds.snds.data_link: /nowhere/link: cannot be read"),
        ({"networks": ("192.0.2.1/24",)}, "feeds.snds.networks: .* wanted an IPv4 network, as 192.0.2.0/24"),
        ({"attested": "June"}, "feeds.snds.attested: found 'June', wanted a day, as 2026-06-20"),
        ({"token_file": "/nowhere/token"}, "/nowhere/token: nobody has logged in yet: sidecar login snds"),
        ({"token_file": "/dev/null"}, "/dev/null: not a login"),
        ({"token_file": "/"}, "/: cannot be read"),
    ],
)
def test_bad_settings(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    config = configured(tmp_path, **settings)
    with pytest.raises(ConfigError, match=says):
        (snds_networks(config), list(snds_ages(config, Links("", ""))), snds_way(config))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"refresh": ""}', "[" * 100_000])
def test_a_file_that_is_no_login(text: str) -> None:
    assert read_stored(text) is None


def test_the_last_value_outlives_a_fault(tmp_path: Path) -> None:
    """What the store keeps when a poll tells nothing: the value of before, and that nobody could say."""
    store = OutsideStore.open(tmp_path / "outside.db")
    for microsoft in (Microsoft(), Microsoft(fault=lambda _: Response(503))):
        reading, _ = polled(microsoft)
        store.polled("snds", store.standing("snds"), reading.observations, (), now=NOW)
    (known,) = (each for each in store.known("snds") if (each.object, each.measure) == ("192.0.2.11", "blocked"))
    store.close()
    assert (known.outcome, known.value, known.text) == (Outcome.UNKNOWN, 1.0, "complaints")
