"""Which providers the configuration names, and which of these names nobody has."""

import pytest

from parsers.expression import parse
from policies.provider_names import named, nobody
from policies.reacting import Do, Signal
from policies.routing import FIELDS
from sidecar.config import CanaryConfig, Config, ReactConfig, Route, WarmUpCap, WarmUpConfig
from sidecar.provider_names import misspelt
from tests.world import RULES


@pytest.mark.parametrize(
    ("when", "names"),
    [
        ("provider = Google", ["google"]),
        ("provider != google and (tenant = news or provider in (yahoo, a.example))", ["google", "yahoo", "a.example"]),
        ("not provider = gogle", ["gogle"]),
        ('recipient_domain = gmail.com and provider ~ "goo"', []),
    ],
)
def test_names_in_a_condition(when: str, names: list[str]) -> None:
    assert list(named(parse(when, FIELDS))) == names


@pytest.mark.parametrize(
    ("name", "near"),
    [("google", None), ("mail.example", None), ("gogle", "google"), ("microsoft365", "microsoft-365"), ("zzzzzz", "")],
)
def test_a_name_that_nobody_has(name: str, near: str | None) -> None:
    assert nobody(name, RULES.providers.names()) == near


def test_where_they_stand() -> None:
    config = Config(
        route=(Route("out", provider="gogle"), Route("out", when="provider = yahooo"), Route("out", when="provider =")),
        canary=(CanaryConfig("c", "provider = gmx", "out"),),
        warm_up=(WarmUpConfig("ip-1", "2026-11-22", 100, until_per_day=1_000, caps=(WarmUpCap("comcas", 5),)),),
        react=(ReactConfig("r", Signal.LISTED, Do.LEAVE_POOL, providers=("*", "aple")),),
    )
    assert [(key, found, near) for key, found, near in misspelt(config)] == [
        ("route[0].provider", "gogle", "google"),
        ("route[1].when", "yahooo", "yahoo"),
        ("warm_up[0].caps", "comcas", "comcast"),
        ("react[0].providers", "aple", "apple"),
    ]
