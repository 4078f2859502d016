"""The rules that come with the package hold what they promise, and bad ones are refused with a message that helps."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.classify import RuleSet, Said
from policies.lint import lint
from policies.rule import Strategy
from policies.rules import DETAILS, Opening, RuleError, parse_provider
from policies.verdict import Bounce, Reaction
from sidecar.config import ConfigError
from sidecar.rules import GENERIC, lint_files, load, organizational_domain, packaged_files

HERE = Path(__file__).parent
PACKAGED = {name: parse_provider(name, text) for name, text in packaged_files()}
ALL = RuleSet(PACKAGED.values(), organizational=organizational_domain)
BAD = sorted((HERE / "badrules").glob("*.toml"))

RATE = """
[[rule]]
name = "rate"
any = "slow down"
detail = "throttling.ip"
scope = "ip"
bounce = "transient"
reaction = "slow-ip"
examples = ["421 4.7.0 Slow down"]
"""


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_file_is_clean(name: str) -> None:
    assert [str(fault) for fault in lint(PACKAGED[name])] == []


@pytest.mark.parametrize("name", PACKAGED)
def test_each_example_comes_to_its_rule_through_all_rules(name: str) -> None:
    file = PACKAGED[name]
    host = f"mx1{file.mx[0]}" if file.mx and file.mx[0].startswith(".") else "".join(file.mx[:1])
    wrong = [
        (rule.id, verdict.rule, text)
        for rule in file.rules
        for text in rule.examples
        if (verdict := ALL.classify(Said(text, host))).rule != rule.id
    ]
    assert wrong == []


def test_files_cover_the_providers() -> None:
    providers = [file for file in PACKAGED.values() if file.said_by == "provider"]
    assert len(providers) >= 25
    assert {"google", "microsoft", "microsoft-365", "yahoo", "apple", "comcast", "gmx", "qq"} <= {
        file.name for file in providers
    }
    for names in ("mx", "domains"):
        claimed = [name for file in providers for name in getattr(file, names)]
        assert len(claimed) == len(set(claimed)), f"two providers claim the same of {names}"


def test_every_generic_file_is_in_the_order_of_asking() -> None:
    files = {file.name.removesuffix(".toml") for file in (HERE.parent / "policies" / "generic").iterdir()}
    assert files == set(GENERIC)


def test_only_what_names_a_recipient_suppresses_and_only_for_good() -> None:
    for rule in ALL.rules:
        assert (rule.reaction is Reaction.SUPPRESS) == (rule.bounce_permanent is Bounce.HARD), rule.id
        assert rule.detail in DETAILS


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_bad_rules_are_refused(file: Path) -> None:
    case = tomllib.loads(file.read_text())
    with pytest.raises(RuleError) as caught:
        _use("rules/example.toml", case["rules"])
    message = str(caught.value)
    assert message == case["error"] if not case["error"].endswith(" ") else message.startswith(case["error"])


def _use(name: str, text: str) -> None:
    _, faults = lint_files({name: text})
    if faults:
        raise faults[0]


def test_a_file_name_that_is_no_id_is_refused() -> None:
    with pytest.raises(RuleError, match="name it in"):
        parse_provider("rules/My Provider.toml", 'mx = ["a.example"]')


@settings(deadline=None)
@given(st.text(alphabet='abc=[]"{}.\n# 0123456789-', max_size=200))
def test_any_text_gives_rules_or_a_rule_error(text: str) -> None:
    assert _outcome(text).startswith("x")


def _outcome(text: str) -> str:
    try:
        return parse_provider("x", text).name
    except RuleError as error:
        return str(error)


def test_opening_is_read_and_defaults_follow_the_scope() -> None:
    text = (
        RATE
        + """
pause = "10m"
pause_min = "1m"
pause_max = "2h"
recipients_named = 2
strategy = "lane"
open_after = { recipients = 5, within = "2m", ratio = 0.5 }
"""
    )
    rules = RuleSet.read([("example", 'mx = [".example.net"]\n' + text)])
    assert rules.opening("example/rate") == Opening(
        recipients=5,
        recipients_named=2,
        within=120,
        ratio=0.5,
        pause=600,
        pause_min=60,
        pause_max=7200,
        default_identity="host",
        strategy=Strategy.LANE,
    )
    assert rules.opening("gone/rule") == Opening()


def test_google_asks_for_ten_minutes_and_a_repair_is_configuration() -> None:
    assert ALL.opening("google/rate-dkim-domain").pause == 600
    assert ALL.opening("google/rate-dkim-domain").default_identity == "sender-domain"
    assert ALL.opening("google/rate-ip").default_identity == "host"
    assert ALL.opening("google/spf-failed").configuration
    assert not ALL.opening("google/rate-ip").configuration


def test_an_admin_file_goes_first_and_replaces_rules_by_name(tmp_path: Path) -> None:
    mine = 'mx = [".customer.example"]\n' + RATE.replace('"rate"', '"rate-ip"').replace("slow down", "go away")
    (tmp_path / "google.toml").write_text(mine.replace("4.7.0 Slow down", "4.7.0 Go away"))
    rules = load(str(tmp_path))
    assert rules.providers.of_host("mx1.customer.example") == "google"
    assert rules.classify(Said("421 4.7.0 Go away", "aspmx.l.google.com")).rule == "google/rate-ip"
    replaced = rules.classify(
        Said("421 4.7.28 unusual rate of mail from your IP address - gsmtp", "aspmx.l.google.com")
    )
    assert replaced.rule == "google/rate"


def test_an_admin_rule_for_any_server_goes_before_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('said_by = "any"\n' + RATE.replace("throttling.ip", "throttling.generic"))
    assert load(str(tmp_path)).classify(Said("421 4.7.0 Slow down", "mx.example.net")).rule == "mine/rate"
    assert load().classify(Said("421 4.7.0 Slow down", "mx.example.net")).rule == "texts/rate"


def test_faults_in_the_admin_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no directory"):
        load(str(tmp_path / "none"))
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b"mx = ['\xff']")
    with pytest.raises(ConfigError, match=r"bad\.toml: byte 7 is not UTF-8"):
        load(str(tmp_path))
    bad.write_text('mx = [".example.net"]' + RATE.replace("4.7.0 Slow down", "4.7.0 Go"))
    with pytest.raises(RuleError, match=r"bad\.toml:9: rule 1 .rate.: examples: does not match"):
        load(str(tmp_path))
