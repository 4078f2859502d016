"""The lookout: from rows of the log and answers of feeds to incidents, messages and commands, also across restarts."""

import asyncio
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from parsers.feeds.asking import Trouble
from parsers.feeds.dnsbl import Severity
from parsers.observation import Observation, Outcome
from policies.cadence import Standing
from policies.conditions import CONDITIONS
from policies.incidents import CALM, Phase
from sidecar import channels, outside
from sidecar.cli import sidecar
from sidecar.config import (
    AlertsConfig,
    ChannelConfig,
    ChannelKind,
    ConditionConfig,
    Config,
    ConfigError,
)
from sidecar.control import serve_control
from sidecar.database import StoreUnavailable
from sidecar.log_tally import LogTally
from sidecar.lookout import Lookout, conditions_of, runbook
from sidecar.metrics import OutsideFigures
from sidecar.outside_store import OutsideStore
from tests.alert_world import TOKEN, PagerDuty, Slack
from tests.lookout_world import CHANGE, NOW, World, sound_world
from tests.outside_world import http_server


@pytest.fixture(name="world")
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from sound_world(tmp_path, monkeypatch)


def test_a_deferral_spike_from_the_log_to_the_end(world: World) -> None:
    world.attempts(600, ago=600)
    world.attempts(600, "deferred", detail="throttling.domain")
    line = "postfix/smtp[7]: 4Z: to=<x@gmail.com>, relay=gmail ... 421 4.7.28"
    with world.core.transaction():
        world.core.connection.execute(CHANGE, (world.now - 5, "dkim-domain:a.example@google", "opened", line))
    world.look(2)
    (incident,) = world.incidents
    assert (incident.title, incident.severity) == ("google puts off 50.00% of 1200 attempts", Severity.WARNING)
    assert line in incident.around.evidence
    assert "600 x deferred, dsn=4.7.28, throttling.domain (google/rate), as Q1" in incident.around.evidence
    assert incident.around.victims == ("a.example: 600 of 1200 attempts put off or refused",)
    assert "opened dkim-domain:a.example@google, 1 messages: why" in incident.around.actions[0]
    assert world.said == []  # a pager is not for warnings

    world.attempts(3000, "deferred", detail="throttling.domain")
    world.look(2)
    assert world.said == ["worse"]
    assert world.store.posted()[0].note.owner == "postmaster"
    assert world.store.posted()[0].note.link == "https://sidecar.example/incident/1"

    world.now += 1800
    world.attempts(1000)
    world.look(4)
    assert [incident.phase for incident in world.incidents] == [Phase.CALM]
    world.now += CALM
    world.look()
    assert [incident.phase for incident in world.incidents] == [Phase.RESOLVED]
    assert world.said == ["worse", "resolved"]


def test_a_listing_fires_at_the_second_poll_and_survives_restarts(world: World) -> None:
    listed = Observation("dnsbl-15", "192.0.2.10", "listed.spamhaus_zen", Outcome.OK, 1.0, "critical: CSS: see there")
    silent = listed._replace(outcome=Outcome.UNKNOWN, value=None, text="TIMEOUT")
    for seen, fires in ((listed, 0), (silent, 0), (listed, 1), (silent, 1), (listed, 1)):
        world.told("dnsbl-15", seen)
        world.look(3)
        world.restart()
        assert len(world.incidents) == fires
    assert world.said == ["opened"]
    (incident,) = world.incidents
    assert incident.dedup_key == "pf-rep:dnsbl:192.0.2.10:spamhaus_zen"

    clean = listed._replace(value=0.0, text="")
    for seen, phase in ((clean, Phase.OPEN), (silent, Phase.OPEN), (clean, Phase.CALM)):
        world.now += 900
        world.told("dnsbl-15", seen)
        world.look(3)
        world.restart()
        assert world.incidents[0].phase is phase


def test_a_quiet_list_is_never_an_alert(world: World) -> None:
    for _ in range(3):
        world.told("dnsbl-15", Observation("dnsbl-15", "192.0.2.1", "listed.uceprotect3", Outcome.OK, 1.0, "info: L3"))
        world.look()
    assert world.incidents == []


def test_while_core_is_away_or_behind_the_log_counts_nothing(world: World) -> None:
    world.attempts(1000, "deferred")
    world.health = {"log_lag_s": 600.0}
    world.look(3)
    assert world.incidents == []
    world.look()
    assert [incident.title for incident in world.incidents] == ["core is 600 s behind its log"]
    world.health = None
    world.look(8)
    assert len(world.incidents) == 1  # core that is away belongs to it
    assert {member.condition for member in world.incidents[0].members} == {"log-lag", "core-away"}
    world.health = {"log_lag_s": 0.1}
    world.look(4)
    assert not any(member.firing for member in world.incidents[0].members)


def test_a_blind_feed_is_an_incident_of_its_own(world: World) -> None:
    polls = OutsideStore.open(world.config.outside_database)
    standing = Standing(asked_at=NOW, since=1.0, trouble=Trouble.NETWORK, why="TIMEOUT", failures=9)
    name = next(iter(world.started._feeds))
    polls.polled(name, standing, (), (), now=NOW)
    polls.close()
    world.look(39)  # ten minutes: after a start of ours, what is overdue is asked within some
    assert world.incidents == []
    world.look()
    assert [incident.title for incident in world.incidents] == [f"feed {name} tells nothing: TIMEOUT"]


def test_a_subqueue_that_gets_nowhere(world: World) -> None:
    key = "dkim-domain:a.example@google"
    with world.core.transaction():
        world.core.connection.execute(
            "INSERT INTO subqueue VALUES (?, '{}', 'r', 'line', ?, ?)", (key, NOW - 7 * 3600, NOW)
        )
        world.core.connection.execute(
            "INSERT INTO hold VALUES ('postfix', 'Q1', ?, 1.0, 'taken', 1, 0, 's', '[]', 1.0)", (json.dumps([key]),)
        )
    world.look()
    (incident,) = world.incidents
    assert (incident.title, incident.severity) == (
        f"{key} has held mail for 7.0 hours without getting on",
        Severity.ERROR,
    )
    assert "1 messages on hold" in incident.around.victims
    with world.core.transaction():
        world.core.connection.execute("DELETE FROM hold")
    world.look(5)
    assert world.incidents[0].phase is Phase.CALM


def test_a_growing_queue(world: World) -> None:
    samples(world, 3, 1000, 0)
    for minute in range(0, 125, 5):
        world.messages_live = 1000 + 100 * minute
        world.now += 285
        world.look()
    assert [incident.title.partition("-fold")[0][:19] for incident in world.incidents] == ["the queue has grown"]


def test_a_stream_that_stopped(world: World) -> None:
    for hours in range(26):
        world.attempts(100, ago=hours * 3600.0 + 1800.0, domain="steady.example")
    world.look(1)
    assert world.incidents == []
    world.now += 3600
    world.attempts(300, domain="other.example")
    for _ in range(8):
        world.now += 60
        world.look()
    assert [incident.title for incident in world.incidents] == [
        "steady.example sent 0.00% of the 100 messages that it sends in such an hour"
    ]


def test_counts_go_on_where_they_were_and_begin_anew_with_a_new_store(world: World) -> None:
    world.attempts(100)
    tally = LogTally(world.store, world.config.core_database)
    assert tally.count(now=world.now)
    assert tally.count(now=world.now)
    world.attempts(50, "deferred")
    assert LogTally(world.store, world.config.core_database).count(now=world.now)
    rows = "SELECT attempts, deferred FROM tally WHERE width = 3600 AND kind = 'provider'"
    assert world.store.database.rows(rows) == [(150, 50)]
    with world.core.transaction():
        world.core.connection.execute("DELETE FROM attempt")
        world.core.connection.execute("DELETE FROM sqlite_sequence")
    world.attempts(7)
    assert LogTally(world.store, world.config.core_database).count(now=world.now)
    assert world.store.database.rows(rows) == [(7, 0)]


def test_a_store_that_takes_no_writes_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = world.store.looked
    listed = Observation("dnsbl-15", "192.0.2.10", "listed.spamhaus_zen", Outcome.OK, 1.0, "critical: CSS")

    def full(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(world.store, "looked", full)
    for _ in range(2):
        world.told("dnsbl-15", listed)
        world.look()
    assert world.incidents == []
    monkeypatch.setattr(world.store, "looked", whole)
    world.look()
    assert world.said == ["opened"]


# The site's own.


def test_an_own_condition_and_one_that_is_not_wanted(world: World) -> None:
    own = ConditionConfig("any-bounce", "measure = hard-bounces.1h and kind = domain and value > 0", severity="error")
    world.config = Config(
        runtime_directory=str(world.directory), store=world.config.store, condition=(own,),
        alerts=AlertsConfig(without=("hard-bounces", "acceptance")),
    )  # fmt: skip
    world.restart()
    world.attempts(9)
    world.attempts(1, "bounced", bounce="hard")
    world.look()
    assert [incident.title for incident in world.incidents] == ["a.example: hard-bounces.1h is 0.1 "]
    world.config = Config(runtime_directory=str(world.directory), store=world.config.store)
    world.restart()
    world.look()
    assert world.incidents[0].phase is Phase.CALM  # a condition that is wanted no more is over


@pytest.mark.parametrize(
    ("alerts", "own", "says"),
    [
        (AlertsConfig(without=("hard-bounce",)), None, "'hard-bounce' is no condition"),
        (AlertsConfig(), ConditionConfig("tls", "value > 0"), "there is a condition of this name"),
        (AlertsConfig(), ConditionConfig("x", "value > 0", severity="bad"), "found 'bad', wanted one of critical"),
        (AlertsConfig(), ConditionConfig("x", "valu > 0"), "did you mean value"),
        (AlertsConfig(), ConditionConfig("x", "value > 0", until="value <"), "condition\\[0\\] \\(x\\): column"),
    ],
)
def test_conditions_that_cannot_be(alerts: AlertsConfig, own: ConditionConfig | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        conditions_of(Config(alerts=alerts, condition=(own,) if own else ()))


@pytest.mark.parametrize(
    ("base", "name", "found"),
    [
        ("", "ip-listed", "docs/runbooks/ip-listed.md"),
        ("https://wiki.example/x/", "ip-listed", "https://wiki.example/x/ip-listed"),
        ("https://wiki.example/x/", "https://own.example/y", "https://own.example/y"),
        ("", "", ""),
    ],
)
def test_where_a_runbook_is(base: str, name: str, found: str) -> None:
    assert runbook(base, name) == found


def test_every_runbook_that_is_named_is_there_and_no_other() -> None:
    root = Path(__file__).parents[1]
    names = {condition.runbook for condition in CONDITIONS} - {""}
    names.update(re.findall(r"docs/runbooks/([\w-]+)\.md", (root / "monitoring" / "alerts.yml").read_text()))
    assert names == {path.stem for path in (root / "docs" / "runbooks").glob("*.md")}


# By hand.


def run(world: World, *arguments: str) -> Any:
    config = world.directory / "sidecar.toml"
    config.write_text(f'runtime_directory = "{world.directory}"\n[store]\npath = "{world.directory}"\n')
    return CliRunner().invoke(sidecar, ["--config", str(config), *arguments])


def with_socket(world: World, do: Callable[[], Any]) -> Any:
    async def story() -> Any:
        server = await serve_control(world.config.outside_socket, world.started.commands())
        async with server:
            return await asyncio.to_thread(do)

    return asyncio.run(story())


def test_commands(world: World) -> None:
    assert run(world, "incident", "list").output == "no incident is open\n"
    listed = Observation("dnsbl-15", "192.0.2.10", "listed.spamhaus_zen", Outcome.OK, 1.0, "critical: CSS")
    for _ in range(2):
        world.told("dnsbl-15", listed)
        world.look()
    (row,) = json.loads(run(world, "incident", "list", "--json").output)
    assert (row["id"], row["state"], row["severity"]) == (1, "open", "critical")
    assert "192.0.2.10 is listed" in run(world, "incident", "list").output

    away = run(world, "incident", "ack", "1")
    assert away.exit_code == 3
    assert "the outside process does not run here" in away.output

    acked = with_socket(world, lambda: run(world, "incident", "ack", "1", "--json"))
    assert json.loads(acked.output)["acked_by"]
    refused = with_socket(world, lambda: run(world, "incident", "ack", "7"))
    assert refused.exit_code == 2
    assert "incident 7 is not open" in refused.output

    shown = json.loads(run(world, "incident", "show", "1", "--json").output)
    assert [each["kind"] for each in shown["messages"]] == ["opened", "acked"]
    assert shown["runbook"] == "docs/runbooks/ip-listed.md"
    assert shown["page"] is None  # there is no fleet
    assert "is listed by spamhaus_zen" in run(world, "incident", "show", "1").output
    assert run(world, "incident", "show", "7").exit_code == 1

    alerts = json.loads(run(world, "alert", "list", "--json").output)
    assert [each["key"] for each in alerts["alerts"]] == ["pf-rep:dnsbl:192.0.2.10:spamhaus_zen"]
    assert {each["state"] for each in alerts["messages"]} == {"queued"}
    assert "critical: 192.0.2.10 is listed" in run(world, "alert", "list").output
    assert len(json.loads(run(world, "alert", "list", "--conditions", "--json").output)) == len(CONDITIONS)
    assert "hard-bounces" in run(world, "alert", "list", "--conditions").output

    closed = with_socket(world, lambda: run(world, "incident", "close", "1"))
    assert closed.output.startswith("incident 1: closed, acknowledged by ")
    assert "closed" in run(world, "incident", "list", "--all").output
    assert "1 over in 30 days" in run(world, "incident", "list").output
    assert "no incident" not in run(world, "incident", "list", "--stats").output
    told = json.loads(run(world, "incident", "list", "--stats", "--json").output)
    assert (told["detect_goal_s"], told["recover_goal_s"], len(told["weeks"])) == (900.0, 3600.0, 13)


def test_metrics(world: World) -> None:
    own = OutsideFigures()
    listed = Observation("dnsbl-15", "192.0.2.10", "listed.spamhaus_zen", Outcome.OK, 1.0, "critical: CSS")
    for _ in range(2):
        world.told("dnsbl-15", listed)
        world.look()
    outside._measure(own, world.started)
    value = own.registry.get_sample_value
    assert value("sidecar_alerts_firing", {"severity": "critical"}) == 1
    assert value("sidecar_incidents_open", {"severity": "critical"}) == 1
    assert value("sidecar_incidents_open", {"severity": "info"}) == 0
    assert value("sidecar_channel_broken", {"channel": "pager"}) == 0


def test_what_is_seen_in_one_look_is_told_once_by_its_worst(world: World) -> None:
    refused = "delivery-error.reject.low_domain_reputation"
    world.told(
        "google-postmaster",
        Observation("google-postmaster", "a.example", refused, Outcome.OK, 0.03, at=world.now - 86_400),
        Observation("google-postmaster", "a.example", "spam", Outcome.OK, 0.006, at=world.now - 86_400),
    )
    world.look()
    assert world.said == ["opened"]
    assert [(each.severity, len(each.members)) for each in world.incidents] == [(Severity.CRITICAL, 2)]


def test_a_complaint_spike_with_a_dip_in_reputation(tmp_path: Path) -> None:
    """One thread, one page, three messages; with a restart before each look."""
    pager, chat = PagerDuty(), Slack()
    with ExitStack() as stack:
        duty, slack = stack.enter_context(http_server(pager)), stack.enter_context(http_server(chat))
        world = World(tmp_path)
        (tmp_path / "token").write_text(TOKEN)
        bot = ChannelConfig("chat", ChannelKind.SLACK, token_file=str(tmp_path / "token"), channel="C0123456789",
                            url=f"{slack.url}/api")  # fmt: skip
        page = ChannelConfig("pager", ChannelKind.PAGERDUTY, routing_key_file=str(tmp_path / "key"), url=duty.url)
        world.config = dataclasses.replace(world.config, channel=(bot, page))

        def look(times: int) -> None:
            for _ in range(times):
                world.restart()
                world.look()
                for channel in channels.configured(world.config):
                    while world.started.outbox.send_next(channel) is None:
                        pass

        world.attempts(600, ago=30)
        world.attempts(900, "deferred", detail="throttling.domain")
        look(3)
        world.attempts(200, "bounced", bounce="hard", detail="recipient.unknown")
        look(3)
        world.now += 6 * 3600
        spam = Observation("google-postmaster", "a.example", "spam", Outcome.OK, 0.004, at=world.now - 30 * 3600)
        world.told("google-postmaster", spam)
        world.attempts(5000, ago=60)
        look(3)
        assert pager.open == {world.incidents[0].dedup_key: "triggered"}
        for day in (1, 2):
            world.now += 86_400
            world.told("google-postmaster", spam._replace(value=0.0005, at=spam.at + day * 86_400))
            look(2)
        world.now += CALM * 64
        look(2)
        assert [str(incident.phase) for incident in world.incidents] == ["resolved"]
        world.close()
    assert (pager.pages, pager.open) == (1, {})
    assert [body["text"].partition("]")[0] for body in chat.taken] == ["[FIRING", "[WORSE", "[RESOLVED"]
    assert [body.get("thread_ts") for body in chat.taken] == [None, "1.1", "1.1"]


def test_the_whole_of_it_with_a_pager(tmp_path: Path) -> None:
    """Look, send and stop as the outside process does it."""
    pager = PagerDuty()

    async def story(url: str) -> None:
        world = World(tmp_path)
        config = ChannelConfig("pager", ChannelKind.PAGERDUTY, routing_key_file=str(tmp_path / "key"), url=url)
        listed = [channels.Channel(config, "mx7")]
        rang = asyncio.Event()
        loop = asyncio.get_running_loop()

        def told(*_: object) -> None:
            loop.call_soon_threadsafe(rang.set)

        started = Lookout(
            world.config, world.store, listed, ask_core=world.ask,
            told=told,
        )  # fmt: skip
        world.told("snds", Observation("snds", "192.0.2.10", "blocked", Outcome.OK, 1.0, "complaints"))
        running = asyncio.create_task(started.run())
        await asyncio.wait_for(rang.wait(), 60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert [each.state for each in world.store.posted()] == ["sent"]
        world.close()

    with http_server(pager) as server:
        asyncio.run(story(server.url))
    assert pager.open == {"pf-rep:snds:192.0.2.10:snds-blocked": "triggered"}


def samples(world: World, days: int, live: int, old: int) -> None:
    rows = [(world.now - hour * 3600.0, live, old) for hour in range(1, days * 24)]
    with world.store.database.transaction():
        world.store.database.connection.executemany("INSERT INTO queue_sample VALUES (?, ?, ?)", rows)


def test_a_growth_to_an_ordinary_peak_is_none(world: World) -> None:
    samples(world, 10, 60_000, 10)
    world.store._write("UPDATE queue_sample SET messages = 100 WHERE time > ?", (world.now - 7200,))
    for _ in range(20):
        world.messages_live = min(world.messages_live + 20_000, 60_000)
        world.now += 285
        world.look()
    assert world.incidents == []


def test_mail_that_does_not_leave_grows_old(world: World) -> None:
    samples(world, 10, 5_000, 200)
    world.messages_live, world.messages_old = 5_000, 4_500
    for _ in range(7):
        world.now += 285
        world.look()
    assert [incident.title for incident in world.incidents] == [
        "90.00% of the 5000 messages in the queue are older than an hour"
    ]
    world.messages_old = 100
    for _ in range(7):
        world.now += 285
        world.look()
    assert world.incidents[0].phase is Phase.CALM


def test_every_condition_has_a_runbook_that_names_it() -> None:
    for condition in CONDITIONS:
        text = (Path(__file__).parents[1] / "docs" / "runbooks" / f"{condition.runbook}.md").read_text()
        names = (condition.name, f"{condition.name.partition('-')[0]}-…")
        assert any(f"`{name}`" in text for name in names), condition.name
