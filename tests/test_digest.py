"""The daily digest: what is in it, that it leaves once a day, and over which channels."""

import dataclasses
import email
import email.policy
from collections.abc import Iterator
from pathlib import Path

import pytest

from parsers.feeds.dnsbl import Severity
from parsers.observation import Observation, Outcome
from policies.channels import mail, slack
from policies.digest import LINES, day_of, digest, due
from policies.figures import Kind
from policies.incidents import Incident, Phase
from policies.note import Note, NoteKind, headline, paragraphs
from policies.windows import Counts
from sidecar.channels import KINDS, Channel
from sidecar.config import ChannelConfig, ChannelKind, Config, ConfigError
from sidecar.database import StoreUnavailable
from sidecar.lookout import digest_at
from tests.alert_world import slack_fault
from tests.lookout_world import World, sound_world

NOW = 1_800_000_000.0
DAY = 86_400.0


def incident(number: int, *, ago: float, over: bool = True) -> Incident:
    phase = Phase.RESOLVED if over else Phase.OPEN
    opened = NOW - ago
    made = Incident(number, "k", phase, f"trouble {number}", "queue", Severity.ERROR, "", "", opened - 120, opened)
    return made._replace(calm_since=opened + 480, ended_at=opened + 900) if over else made


def made(*incidents: Incident, **counted: Counts) -> Note:
    mail = {(str(Kind.DOMAIN), f"{name}.example"): counts for name, counts in counted.items()}
    everything = {(str(Kind.HOST), "all mail"): Counts(1000, 900, 90, 10, 8)} if counted else {}
    return digest(incidents, {**mail, **everything}, key="pf-rep:sidecar:mx7:digest", link="", now=NOW)


def test_what_is_in_it() -> None:
    note = made(
        incident(3, ago=3600), incident(2, ago=7200, over=False), incident(1, ago=5 * DAY),
        big=Counts(800, 790, 0, 10, 8), small=Counts(200, 110, 90, 0, 0),
    )  # fmt: skip
    assert headline(note) == (
        "[DIGEST] info: 2 incidents in 24 hours, 1 open now;"
        " 98.90% of 910 accepted, 9.00% of attempts put off, 8 hard bounces"
    )
    assert paragraphs(note) == [
        ("Incidents", (
            "#3 error: trouble 3 (noticed after 2 min, over after 10 min)",
            "#2 error: trouble 2 (noticed after 2 min, still open)",
        )),
        ("How fast", (
            "24 hours: noticed after 2 min (median), 2 of 2 within 15 min",
            "24 hours: over after 10 min (median), 1 of 1 within 60 min",
            "7 days: noticed after 2 min (median), 3 of 3 within 15 min",
            "7 days: over after 10 min (median), 2 of 2 within 60 min",
        )),
        ("Sending domains", (
            "big.example: 98.75% of 800 accepted, 0.00% of attempts put off, 8 hard bounces",
            "small.example: 100.00% of 110 accepted, 45.00% of attempts put off, 0 hard bounces",
        )),
    ]  # fmt: skip


def test_a_day_without_anything() -> None:
    note = made()
    assert note.title == "0 incidents in 24 hours, 0 open now; no mail was sent"
    assert paragraphs(note) == [("Incidents", ("none",))]


def test_many_incidents_are_cut() -> None:
    lines = made(*(incident(number, ago=60) for number in range(40))).alerts
    assert (len(lines), lines[-1]) == (LINES + 1, "and 28 more")


def test_it_fits_slack_and_mail() -> None:
    note = made(*(incident(number, ago=60)._replace(title="<!channel> " * 99) for number in range(40)))
    assert (
        slack_fault({"text": headline(note).translate(str.maketrans("<>", "[]")), "blocks": slack.blocks(note)}) == ""
    )
    data = mail.compose(note, to=["ops@example.com"], sender="", host="mx7", delivery="d1")
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert "Incidents:" in message.get_content()
    assert "incident 0" not in message.get_content()


@pytest.mark.parametrize("kind", ChannelKind)
def test_who_is_told(kind: ChannelKind) -> None:
    channel = Channel(ChannelConfig("c", kind), "mx7")
    assert channel.wants(made()) == (kind not in {ChannelKind.PAGERDUTY, ChannelKind.ALERTMANAGER})
    assert NoteKind.OPENED in KINDS[kind].told


@pytest.mark.parametrize(("at", "minutes"), [("07:00", 420), ("00:00", 0), ("23:59", 1439), ("", None)])
def test_when(at: str, minutes: int | None) -> None:
    config = Config()
    assert digest_at(dataclasses.replace(config, alerts=dataclasses.replace(config.alerts, digest=at))) == minutes


@pytest.mark.parametrize("at", ["7:00", "24:00", "07:60", "noon", "07.00", "-1:00"])
def test_no_time_of_day(at: str) -> None:
    config = Config()
    with pytest.raises(ConfigError, match=r"alerts\.digest: found .*, wanted a time of day in UTC, as 07:00"):
        digest_at(dataclasses.replace(config, alerts=dataclasses.replace(config.alerts, digest=at)))


def test_a_day_begins_at_its_minute() -> None:
    assert due("07:00") == 420
    seven = 20_000 * DAY + 7 * 3600
    assert day_of(seven, 420) == day_of(seven - 1, 420) + 1


@pytest.fixture(name="world")
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from sound_world(tmp_path, monkeypatch)


def test_it_leaves_once_a_day_also_across_restarts(world: World) -> None:
    world.config = dataclasses.replace(
        world.config,
        alerts=dataclasses.replace(world.config.alerts, digest="07:00"),
        channel=(ChannelConfig("post", ChannelKind.MAIL, to=("ops@example.com",)),),
    )
    world.restart()
    world.attempts(900, domain="big.example")
    blocked = Observation("snds", "192.0.2.10", "blocked", Outcome.OK, 1.0, "complaints")
    world.told("snds", blocked)
    for _ in range(3 * 24):
        world.look()
        world.restart()
        world.now += 3600
    digests = [posted.note for posted in world.store.posted() if posted.kind is NoteKind.DIGEST]
    assert len(digests) == 3
    assert {int(note.at) // 3600 % 24 for note in digests} == {7}
    oldest = digests[-1]
    assert oldest.title == (
        "1 incident in 24 hours, 1 open now; 100.00% of 900 accepted, 0.00% of attempts put off, 0 hard bounces"
    )
    assert "big.example: 100.00% of 900 accepted" in oldest.victims[0]


def test_a_digest_that_cannot_be_made_keeps_back_no_alert(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.config = dataclasses.replace(world.config, alerts=dataclasses.replace(world.config.alerts, digest="07:00"))
    world.restart()
    world.look()
    world.now += DAY

    def busy(**_: object) -> None:
        raise StoreUnavailable("locked")

    with monkeypatch.context() as patched:
        patched.setattr(world.started._tally, "last_day", busy)
        world.told("snds", Observation("snds", "192.0.2.10", "blocked", Outcome.OK, 1.0, "complaints"))
        world.look()
    assert [each.title for each in world.incidents] == ["Outlook.com blocks 192.0.2.10: complaints"]
    assert world.store.mark("digest") == digest_day(world) - 1
    world.look()
    assert world.store.mark("digest") == digest_day(world)


def digest_day(world: World) -> int:
    return day_of(world.now, due("07:00"))
