"""Figures of report mail: what complaints, opt-outs, DMARC and TLS reports come to, from the store to the incident."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from parsers.feeds.dnsbl import Severity
from policies import reported
from policies.incidents import Phase
from policies.reported import Sent, Sessions
from sidecar import outside
from sidecar.metrics import OutsideFigures
from sidecar.report_store import EventRow, MailRow, ReportStore
from tests.lookout_world import World, sound_world

DAY = 86_400.0
OURS, NAT, STRANGER = "192.0.2.10", "198.51.100.7", "203.0.113.9"


@pytest.fixture(name="world")
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from sound_world(tmp_path, monkeypatch)


def event(number: int, kind: str = "complaint", *, time: float, trusted: bool = True, provider: str = "yahoo",
          domain: str = "a.example") -> tuple[MailRow, list[EventRow]]:  # fmt: skip
    mail = MailRow(f"{kind}{number}{domain}{time}", time, "pipe", kind, "yahoo.com", trusted, "")
    row = EventRow(f"{kind}{number}{domain}{time}", time, time, "pipe", kind, "abuse", trusted, "yahoo.com", provider,
                   "", "", domain, "", "", "own-header", "", "", "", "", 1)  # fmt: skip
    return mail, [row]


def reports(world: World, number: int, kind: str = "complaint", *, trusted: bool = True, provider: str = "yahoo",
            ago: float = 60.0) -> None:  # fmt: skip
    store = ReportStore(world.store.database)
    for each in range(number):
        store.add(*event(each, kind, time=world.now - ago, trusted=trusted, provider=provider))


def titles(world: World) -> list[str]:
    return sorted(member.said for incident in world.incidents for member in incident.members if member.firing)


def phases(world: World) -> list[Phase]:
    return [incident.phase for incident in world.incidents]


def test_complaints_over_what_was_delivered(world: World) -> None:
    world.attempts(4_000, provider="yahoo")
    world.attempts(50_000, provider="google")
    reports(world, 20)
    for _ in range(2):
        world.look()
        world.now += 900
    # Of all mail of the domain it is 0.04 %; of what went where people can complain, 0.5 %.
    assert titles(world) == [
        "0.50% of 4000 messages of a.example@yahoo were called spam by those who got them",
        "0.50% of 4000 messages of yahoo were called spam by those who got them",
    ]
    (incident,) = world.incidents
    assert (incident.severity, incident.category) == (Severity.ERROR, "complaints")
    assert set(incident.about) == {"domain:a.example", "provider:yahoo"}
    world.now += 2 * DAY
    for _ in range(4):
        world.look()
        world.now += 900
    assert world.incidents[0].phase is Phase.CALM


def test_what_nobody_trusts_and_few_complaints_are_nothing(world: World) -> None:
    world.attempts(600, provider="yahoo")
    reports(world, 50, trusted=False)
    reports(world, 2)
    for _ in range(4):
        world.look()
        world.now += 900
    assert world.incidents == []


def test_a_quiet_day_after_a_campaign_is_set_against_the_campaign(world: World) -> None:
    world.attempts(30_000, provider="yahoo", ago=2 * DAY)
    world.attempts(600, provider="yahoo")
    reports(world, 15)
    for _ in range(4):
        world.look()
        world.now += 900
    assert world.incidents == []


def test_complaints_far_above_their_own_baseline(world: World) -> None:
    for day in range(2, 10):
        world.attempts(5_000, provider="yahoo", ago=day * DAY)
    reports(world, 2, ago=5 * DAY)  # 0.006 %
    world.attempts(10_000, provider="yahoo")
    reports(world, 7)
    for _ in range(2):
        world.look()
        world.now += 900
    assert "a.example@yahoo has far more complaints than it used to: 0.07% of 10000 messages" in titles(world)
    assert "complaints" not in {member.condition for each in world.incidents for member in each.members}


def test_while_report_mail_cannot_be_read_no_complaint_is_no_answer(world: World) -> None:
    world.attempts(4_000, provider="yahoo")
    reports(world, 20)
    for _ in range(2):
        world.look()
        world.now += 900
    assert titles(world)
    world.now += 2 * DAY
    world.trouble(reported.FEED)
    for _ in range(6):
        world.look()
        world.now += 900
    assert len(titles(world)) >= 2


def test_people_leave_a_list(world: World) -> None:
    world.attempts(5_000, provider="yahoo")
    reports(world, 200, "opt-out")
    for _ in range(2):
        world.look()
        world.now += 900
    assert "4.00% of 5000 messages of a.example made people leave the list" in titles(world)


INGEST = """
    CREATE TABLE IF NOT EXISTS ingest_event (
        id INTEGER PRIMARY KEY, key TEXT, time REAL, at REAL, kind TEXT, recipient TEXT, recipient_domain TEXT,
        sending_domain TEXT, campaign TEXT, reply TEXT
    )
"""
INGESTED = """
    INSERT INTO ingest_event (key, time, at, kind, recipient, recipient_domain, sending_domain, campaign, reply)
    VALUES (?, ?, ?, ?, ?, 'yahoo.com', 'a.example', '', '')
"""


def ingested(world: World, number: int, kind: str, *, late: float = 60.0, recipient: str = "u{}") -> None:
    rows = [
        (f"{kind} {recipient.format(each)}", world.now - 60, world.now - 60 - late, kind, recipient.format(each))
        for each in range(number)
    ]
    with world.store.database.transaction():
        world.store.database.connection.execute(INGEST)
        world.store.database.connection.executemany(INGESTED, rows)


def test_unsubscriptions_that_other_programs_tell(world: World) -> None:
    world.attempts(5_000, provider="yahoo")
    ingested(world, 100, "unsubscribe", late=30 * 3600.0)
    for _ in range(2):
        world.look()
        world.now += 900
    assert titles(world) == [
        "2.00% of 5000 messages of a.example made people leave the list",
        "it took 30.0 hours until we heard that people had left lists of a.example (100 in a day)",
    ]
    world.now += 2 * DAY
    for _ in range(4):
        world.look()
        world.now += 900
    assert titles(world) == []


def test_a_complaint_that_is_told_twice_counts_once(world: World) -> None:
    world.attempts(20_000, provider="yahoo")
    reports(world, 16)
    ingested(world, 16, "complaint")
    with world.store.database.transaction():
        world.store.database.connection.execute("UPDATE report_event SET recipient = 'u' || (id - 1)")
    for _ in range(2):
        world.look()
        world.now += 900
    assert world.incidents == []  # 16 of 20,000; 32 would be bad enough
    ingested(world, 34, "complaint", recipient="other{}")
    for _ in range(2):
        world.look()
        world.now += 900
    assert "0.25% of 20000 messages of a.example were called spam by those who got them" in titles(world)


def test_latency_is_of_most_and_not_of_the_worst() -> None:
    heard = {"a.example": [float(each) for each in range(1, 101)], "b.example": [7.0]}
    found = {each.object: each for each in reported.latencies(heard, [("domain", "c.example")], now=1.0)}
    assert {name: (each.value, each.volume) for name, each in found.items()} == {
        "a.example": (95.0, 100.0), "b.example": (7.0, 1.0), "c.example": (0.0, 0.0),
    }  # fmt: skip


DMARC = "INSERT INTO dmarc_report VALUES (?, 'google.com', ?, 'a.example', ?, ?, '7489', '{}', ?, ?, 'google.com', 0)"
DMARC_ROW = "INSERT INTO dmarc_row VALUES (?, ?, ?, ?, ?, ?, ?, 'a.example', 'a.example', '{}', '[]')"
Row = tuple[str, int, str, str, str]
"""(address, messages, disposition, dkim, spf)"""


def dmarc(world: World, number: int, rows: list[Row], *, ago: float = DAY, trusted: bool = True) -> None:
    with world.store.database.transaction():
        write = world.store.database.connection.execute
        end = world.now - ago
        write(DMARC, (number, f"r{number}", end - DAY, end, world.now, trusted))
        for place, row in enumerate(rows):
            write(DMARC_ROW, (number, place, *row))


@pytest.mark.parametrize(
    ("rows", "fires"),
    [
        ([(OURS, 5_000, "none", "pass", "pass"), (OURS, 10, "none", "fail", "fail")], {}),
        ([(OURS, 5_000, "none", "pass", "pass"), (OURS, 200, "none", "fail", "fail")], {"dmarc-failures": "warning"}),
        ([(OURS, 1_000, "none", "pass", "pass"), (OURS, 900, "none", "fail", "fail")],
         {"dmarc-failures": "error", "dkim-failures": "warning"}),
        ([(OURS, 5_000, "none", "fail", "pass")], {"dkim-failures": "error"}),
        ([(OURS, 3, "none", "fail", "fail")], {}),
        ([(OURS, 5_000, "none", "pass", "pass"), (STRANGER, 4_000, "none", "fail", "fail")],
         {"dmarc-strangers": "warning"}),
        ([(OURS, 5_000, "none", "pass", "pass"), (STRANGER, 4_000, "reject", "fail", "fail")], {}),
        ([(NAT, 5_000, "none", "fail", "fail")], {"dmarc-failures": "error", "dkim-failures": "error"}),
    ],
    ids=["some", "two-percent", "half", "key-broken", "few", "strangers", "strangers-refused", "behind-nat"],
)  # fmt: skip
def test_dmarc_reports(world: World, rows: list[Row], fires: dict[str, str]) -> None:
    world.config = dataclasses.replace(world.config)
    world.addresses = (OURS,)
    world.restart()
    dmarc(world, 1, [(NAT, 9_000, "none", "pass", "pass")], ago=10 * DAY)
    dmarc(world, 2, rows)
    dmarc(world, 3, [(OURS, 90_000, "none", "fail", "fail")], trusted=False)
    world.look(2)
    found = {member.condition: str(member.severity) for each in world.incidents for member in each.members}
    assert found == fires


def test_dmarc_gets_well_with_the_next_reports_and_not_without(world: World) -> None:
    world.addresses = (OURS,)
    world.restart()
    dmarc(world, 1, [(OURS, 5_000, "none", "fail", "fail")])
    world.look(2)
    world.now += 10 * DAY
    world.look(30)
    assert phases(world) == [Phase.OPEN]
    dmarc(world, 2, [(OURS, 5_000, "none", "pass", "pass")])
    world.now += 300
    world.look()
    assert phases(world) == [Phase.CALM]


def test_strangers_are_named() -> None:
    rows = [Sent(OURS, 10, 0, 0, 0), Sent(STRANGER, 5, 5, 5, 4), Sent("203.0.113.1", 50, 50, 50, 3)]
    found = {each.measure: each for each in reported.dmarc("a.example", rows, {OURS}, stamp=2.0, at=1.0)}
    assert (found["dmarc-strangers"].value, found["dmarc-strangers"].text) == (7 / 65, f"most of them from {STRANGER}")
    assert (found["dmarc-failures"].value, found["dmarc-failures"].volume) == (0.0, 10.0)


TLS = "INSERT INTO tls_report VALUES (?, ?, 'x', 1.0, ?, ?, 1, 'google.com')"
TLS_ROW = "INSERT INTO tls_row VALUES (?, ?, 'a.example', 'sts', ?, ?, ?, '', '', '', '')"


@pytest.mark.parametrize(
    ("told", "fires"),
    [
        ([("google", 10_000, 2)], set()),
        ([("google", 10_000, 300)], {"tls-reports"}),
        ([("google", 100_000, 3_000), ("microsoft", 400, 0)], {"tls-reports"}),
        ([("google", 5_000, 100), ("microsoft", 400, 100)], {"tls-reports", "tls-reports-several"}),
        ([("google", 4, 1)], set()),
    ],
)
def test_tls_reports(world: World, told: list[tuple[str, int, int]], fires: set[str]) -> None:
    with world.store.database.transaction():
        write = world.store.database.connection.execute
        for number, (organization, successes, failures) in enumerate(told, start=1):
            write(TLS, (number, organization, world.now - DAY, world.now))
            write(TLS_ROW, (number, 0, "", successes, failures))
            write(TLS_ROW, (number, 1, "certificate-expired", 0, failures))
    world.look(2)
    assert {member.condition for each in world.incidents for member in each.members} == fires
    if fires:
        assert "certificate-expired" in world.incidents[0].members[0].said


def test_one_reporter_is_not_several() -> None:
    figures = reported.tls("a.example", [Sessions("google", 0, 900)], (), stamp=1.0, at=1.0)
    assert [each.value for each in figures] == [1.0, 0.0]


def test_metrics_of_reports(world: World) -> None:
    own = OutsideFigures()
    dmarc(world, 1, [(OURS, 50, "none", "pass", "fail"), (STRANGER, 7, "none", "fail", "fail")])
    with world.store.database.transaction():
        write = world.store.database.connection.execute
        write(TLS, (1, "google", world.now - DAY, world.now))
        write(TLS_ROW, (1, 0, "", 90, 3))
    world.look()
    outside._measure(own, world.started)
    value = own.registry.get_sample_value
    assert value("sidecar_dmarc_reported_messages", {"domain": "a.example", "aligned": "yes"}) == 50
    assert value("sidecar_dmarc_reported_messages", {"domain": "a.example", "aligned": "no"}) == 7
    assert value("sidecar_dmarc_reported_passes", {"domain": "a.example", "method": "dkim"}) == 50
    assert value("sidecar_dmarc_reported_passes", {"domain": "a.example", "method": "spf"}) == 0
    assert value("sidecar_tls_reported_sessions", {"domain": "a.example", "result": "failure"}) == 3
    world.now += 10 * DAY
    world.look()
    outside._measure(own, world.started)
    assert value("sidecar_dmarc_reported_messages", {"domain": "a.example", "aligned": "yes"}) is None
