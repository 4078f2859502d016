"""Signs: which alerts are some, whom they are about, and that core hears of all of them at each look."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from parsers.feeds.dnsbl import Severity
from policies.conditions import CONDITIONS, Alert
from policies.figures import Kind
from policies.reacting import Do, Signal
from policies.signs import SIGNALS, Sign, signs_of
from sidecar.config import AlertsConfig, Config, ReactConfig, StoreConfig
from sidecar.control import CoreUnreachable
from sidecar.incident_store import IncidentStore, Looked
from sidecar.react_watch import ReactWatch
from sidecar.rules import organizational_domain


def alert(
    condition: str, feed: str, object_: str, kind: Kind, severity: Severity = Severity.ERROR, **more: Any
) -> Alert:
    key = f"pf-rep:{feed}:{object_}:{condition}"
    made = Alert(key, condition, feed, object_, kind, "m", firing=True, severity=severity, said=f"{object_} said")
    return made._replace(**more)


LISTED = alert("listed", "dnsbl", "192.0.2.7", Kind.ADDRESS)


@pytest.mark.parametrize(
    ("firing", "found"),
    [
        (LISTED, (Signal.LISTED, Kind.ADDRESS, "192.0.2.7", "*")),
        (alert("listed", "dnsbl", "Mail.Shop.Example", Kind.DOMAIN), (Signal.LISTED, Kind.DOMAIN, "shop.example", "*")),
        (
            alert("snds-red", "snds", "192.0.2.7", Kind.ADDRESS),
            (Signal.REPUTATION, Kind.ADDRESS, "192.0.2.7", "microsoft"),
        ),
        (
            alert("gmail-reputation", "google-postmaster-v1", "shop.example", Kind.DOMAIN),
            (Signal.REPUTATION, Kind.DOMAIN, "shop.example", "google"),
        ),
        (
            alert("complaints", "report-mail", "m.shop.example@yahoo", Kind.STREAM, Severity.CRITICAL),
            (Signal.COMPLAINTS, Kind.DOMAIN, "shop.example", "yahoo"),
        ),
        (
            alert("own-dkim", "authentication", "shop.example", Kind.DOMAIN),
            (Signal.AUTHENTICATION, Kind.DOMAIN, "shop.example", "*"),
        ),
    ],
)
def test_an_alert_is_a_sign(firing: Alert, found: tuple[Signal, Kind, str, str]) -> None:
    assert signs_of([firing], organizational_domain) == [Sign(*found, firing.said)]


@pytest.mark.parametrize(
    "other",
    [
        LISTED._replace(firing=False),
        LISTED._replace(severity=Severity.WARNING),
        alert("hard-bounces", "log", "shop.example", Kind.DOMAIN),
        alert("complaints", "report-mail", "google", Kind.PROVIDER),
    ],
)
def test_other_alerts_are_none(other: Alert) -> None:
    assert signs_of([other], organizational_domain) == []


def test_two_lists_are_one_sign() -> None:
    assert len(signs_of([LISTED, LISTED._replace(key="another list")], organizational_domain)) == 1


def test_every_condition_of_the_table_is_there() -> None:
    assert set(SIGNALS) <= {condition.name for condition in CONDITIONS}
    assert set(Signal) - set(SIGNALS.values()) == {Signal.IP_BLOCKED}  # that one is read from replies


def test_core_hears_of_all_signs_at_each_look(tmp_path: Path) -> None:
    config = Config(store=StoreConfig(path=str(tmp_path)), react=(ReactConfig("out", Signal.LISTED, Do.LEAVE_POOL),))
    asked: list[dict[str, Any]] = []

    async def core(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {}

    watch = ReactWatch(config, core)
    assert watch.wanted
    asyncio.run(watch.look())  # no store yet
    assert asked == []
    store = IncidentStore.open(config.outside_database)
    store.looked(Looked(alerts=[LISTED]), now=1.0)
    asyncio.run(watch.look())
    store.looked(Looked(alerts_gone=[LISTED.key]), now=2.0)
    asyncio.run(watch.look())
    store.close()
    sign = {"signal": "listed", "kind": "address", "object": "192.0.2.7", "provider": "*", "evidence": "192.0.2.7 said"}
    assert asked == [{"command": "react", "do": "signs", "signs": told} for told in ([sign], [])]


def test_while_core_is_away_nothing_fails(tmp_path: Path) -> None:
    config = Config(store=StoreConfig(path=str(tmp_path)))
    IncidentStore.open(config.outside_database).close()

    async def away(request: dict[str, Any]) -> dict[str, Any]:
        raise CoreUnreachable(str(request))

    asyncio.run(ReactWatch(config, away).look())


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(react=(ReactConfig("blocked", Signal.IP_BLOCKED, Do.LEAVE_POOL),)),
        Config(react=(ReactConfig("out", Signal.LISTED, Do.LEAVE_POOL),), alerts=AlertsConfig(enabled=False)),
    ],
)
def test_it_does_not_run_for_nothing(config: Config) -> None:
    async def nobody(request: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError(request)

    assert not ReactWatch(config, nobody).wanted
