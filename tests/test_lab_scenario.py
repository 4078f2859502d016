import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from sidecar.config import ConfigError
from sidecar.lab import drills, scenario
from sidecar.lab.command import lab
from sidecar.lab.scenario import Kind, Scenario

BAD = sorted((Path(__file__).parent / "badscenario").glob("*.toml"))


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_a_mistake_is_named_with_file_and_key(file: Path) -> None:
    wanted = re.match(r"# wants: (.*)", file.read_text())
    assert wanted is not None
    with pytest.raises(ConfigError) as told:
        scenario.load(file)
    assert str(told.value).startswith(f"{file}: ")
    assert wanted[1] in str(told.value)


@pytest.mark.parametrize("name", scenario.names())
def test_a_shipped_scenario_is_sound_and_called_as_its_file(name: str) -> None:
    loaded = scenario.load(scenario.find(name))
    assert loaded.name == name
    assert loaded.senders()


@pytest.mark.parametrize("name", sorted(drills.DRILLS))
def test_a_drills_scenario_is_sound_and_called_as_the_drill(name: str) -> None:
    assert drills.find(name).scenario().name == name


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"stroy: no such scenario; wanted a TOML file or one of .*story"):
        scenario.find("stroy")
    with pytest.raises(ConfigError, match="--drill nothing: no such drill; there are "):
        drills.find("nothing")


@pytest.mark.parametrize(
    "arguments", [["--scenario", "stroy"], ["--drill", "nothing"], ["--scenario", str(BAD[0])], ["--seconds", "0"]]
)
def test_a_mistake_in_what_was_asked_ends_with_status_two(arguments: list[str]) -> None:
    asked = CliRunner().invoke(lab, arguments)
    assert asked.exit_code == 2
    assert arguments[1] in asked.output


def test_copies_of_a_sender_are_numbered_in_all_its_domains() -> None:
    senders = _read('domain = "shop-{n}.example"\nspf = "bounce-{n}.example"\nrate = 1\ncount = 2').senders()
    assert [(each.domain, each.spf, each.dkim) for each in senders] == [
        ("shop-001.example", "bounce-001.example", "shop-001.example"),
        ("shop-002.example", "bounce-002.example", "shop-002.example"),
    ]


def test_the_quiet_run_keeps_the_steady_senders_only() -> None:
    loud = scenario.load(scenario.find("story"))
    quiet = scenario.without_bursts(loud)
    assert any(sender.burst for sender in loud.senders())
    assert not any(sender.burst for sender in quiet.senders())
    assert [sender.domain for sender in quiet.senders()] == [
        sender.domain for sender in loud.senders() if sender.rate > 0
    ]


def test_every_kind_says_what_it_needs() -> None:
    assert set(scenario.NEEDS) == set(Kind)


def _read(sender: str) -> Scenario:
    text = f"""
name = "x"
seconds = 10
[[sender]]
to = ["google"]
{sender}
[[provider]]
name = "google"
domains = ["gmail.com"]
mx = ["mx.google.example"]
"""
    return scenario.read(text, file=Path("here.toml"))
