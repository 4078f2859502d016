"""A lookout with a store of core, one of its own, and a clock: for stories of alerts."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from parsers.feeds.asking import Trouble
from parsers.observation import Observation
from policies.cadence import Standing
from policies.incidents import Incident
from sidecar import channels, own_log
from sidecar.config import (
    AlertsConfig,
    ChannelConfig,
    ChannelKind,
    Config,
    FeedsConfig,
    GooglePostmasterConfig,
    SndsConfig,
    StoreConfig,
)
from sidecar.control import CoreUnreachable
from sidecar.database import Database
from sidecar.incident_store import IncidentStore
from sidecar.lookout import Lookout
from sidecar.outside_store import OutsideStore
from sidecar.statements import SCHEMA
from tests.alert_world import KEY

NOW = 1_800_000_000.0

ATTEMPT = """
    INSERT INTO attempt (time, host, instance, queue_id, sender_domain, recipient_domain, provider, relay, dsn, status,
        rule, detail, bounce, scope, delay, key) VALUES (?, 'mx', 'postfix', 'Q1', ?, 'd', ?, 'r', ?, ?, ?, ?, ?, 's', 1.0, '')
"""
CHANGE = "INSERT INTO change (time, key, kind, state, why, line, rule, by_whom, messages) VALUES (?, ?, ?, 's', 'why', ?, '', 'engine', 1)"


@dataclass
class World:
    """A store of core, one of ours, and a clock."""

    directory: Path
    now: float = NOW
    health: dict[str, Any] | None = field(default_factory=lambda: {"log_lag_s": 0.1})
    messages_live: int = 10
    messages_old: int = 0
    noticed: dict[str, Any] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    config: Config = field(init=False)

    def __post_init__(self) -> None:
        alerts = AlertsConfig(owner="postmaster", host="mx7", page="https://sidecar.example")
        key = self.directory / "key"
        key.write_text(KEY)
        pager = ChannelConfig("pager", ChannelKind.PAGERDUTY, routing_key_file=str(key), url="http://127.0.0.1:1")
        store = StoreConfig(path=str(self.directory))
        feeds = FeedsConfig(google_postmaster=GooglePostmasterConfig(enabled=True), snds=SndsConfig(enabled=True))
        self.config = Config(
            runtime_directory=str(self.directory), store=store, alerts=alerts, feeds=feeds, channel=(pager,)
        )
        self.core = Database.open(self.config.core_database, SCHEMA)
        self.started = self.start()

    def start(self) -> Lookout:
        """Begin anew, as after a restart."""
        self.store = IncidentStore.open(self.config.outside_database)
        listed = channels.configured(self.config)
        self.started = Lookout(self.config, self.store, listed, ask_core=self.ask, clock=lambda: self.now,
                               addresses=lambda: self.addresses)  # fmt: skip
        return self.started

    def restart(self) -> None:
        self.store.close()
        self.start()

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.health is None:
            raise CoreUnreachable("core does not run here")
        if request["command"] == "noticed":
            return self.noticed
        queue = {"live": self.messages_live, "old": self.messages_old}
        return self.health if request["command"] == "health" else queue

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += 15.0
            asyncio.run(self.started.look())

    def attempts(self, number: int, status: str = "sent", *, domain: str = "a.example", provider: str = "google",
                 detail: str = "", bounce: str = "", ago: float = 1.0) -> None:  # fmt: skip
        row = (self.now - ago, domain, provider, "4.7.28", status, "google/rate", detail, bounce)
        with self.core.transaction():
            self.core.connection.executemany(ATTEMPT, [row] * number)

    def told(self, feed: str, *seen: Observation) -> None:
        polls = OutsideStore.open(self.config.outside_database)
        polls.polled(feed, Standing(asked_at=self.now, told_at=self.now, since=NOW), seen, (), now=self.now)
        polls.close()

    def trouble(self, feed: str) -> None:
        """A feed, or report mail, cannot be read."""
        polls = OutsideStore.open(self.config.outside_database)
        standing = Standing(asked_at=self.now, told_at=self.now, since=NOW, trouble=Trouble.NETWORK, why="TIMEOUT")
        polls.polled(feed, standing, (), (), now=self.now)
        polls.close()

    @property
    def incidents(self) -> list[Incident]:
        return self.store.incidents(since=0.0)

    @property
    def said(self) -> list[str]:
        return [str(each.kind) for each in reversed(self.store.posted())]

    def close(self) -> None:
        self.store.close()
        self.core.close()


def sound_world(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world for one test, in which no look may fail: what a fixture yields."""
    broken: list[Exception] = []
    monkeypatch.setattr(own_log, "look_failed", broken.append)
    world = World(directory)
    yield world
    world.close()
    assert broken == []
