"""`sidecar rules lint`: faults have their file and line, and files are looked at together as core would ask them."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from policies.rule_lines import line_of
from policies.rules import FaultKind
from sidecar.config import Config, RulesConfig
from sidecar.rule_commands import lint_command
from sidecar.rules import lint_files, load, packaged

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


def kinds(texts: dict[str, str], *, ours: bool = False) -> list[tuple[str, str, int]]:
    _, faults = lint_files(texts, packaged() if ours else ())
    return [(fault.kind, fault.file, fault.line) for fault in faults]


def test_every_rule_that_cannot_be_read_is_told() -> None:
    text = 'mx = [".example.net"]' + RATE.replace("throttling.ip", "throttling.ips") + RATE.replace('"ip"', '"host"')
    assert kinds({"mine.toml": text}) == [(FaultKind.LABEL, "mine.toml", 5), (FaultKind.LABEL, "mine.toml", 15)]


def test_a_host_that_another_provider_has_already() -> None:
    one, two = f'mx = [".a.example"]{RATE}', f'mx = [".b.example",\n ".a.example"]{RATE}'
    assert kinds({"one.toml": one, "two.toml": two}) == [(FaultKind.UNREACHABLE, "two.toml", 2)]


def test_a_host_of_ours_hides_our_rules_unless_they_are_asked_too() -> None:
    taken = f'mx = [".google.com"]{RATE}'
    assert kinds({"gmail.toml": taken}, ours=True) == [(FaultKind.UNREACHABLE, "gmail.toml", 1)]
    assert kinds({"gmail.toml": f'then = ["google"]\n{taken}'}, ours=True) == []
    assert kinds({"google.toml": taken}, ours=True) == []


def test_a_rule_for_any_server_whose_example_a_provider_takes() -> None:
    text = f'said_by = "any"{RATE}'.replace("Slow down", "Slow down. RL000010 at postmaster.comcast.net")
    assert kinds({"mine.toml": text}, ours=True) == [(FaultKind.UNREACHABLE, "mine.toml", 9)]


def test_an_earlier_rule_that_covers_a_later_one_in_every_way() -> None:
    narrow = RATE.replace('"rate"', '"narrow"').replace('any = "slow down"', 'code = "421"\nany = ["slow down now"]')
    wide = RATE.replace("any =", 'code = "4xx"\nany =')
    _, faults = lint_files({"x.toml": f'mx = [".example.net"]{wide}{narrow}'})
    assert [(fault.kind, fault.line) for fault in faults] == [(FaultKind.SHADOWED, 12)]
    for otherwise in (
        'none = ["now"]',
        'reply = "slow down$"',
        'all = ["please"]',
        'command = "RCPT TO"',
        'enhanced = "4.7.0"',
    ):
        text = f'mx = [".example.net"]{wide.replace("detail", otherwise + chr(10) + "detail")}{narrow}'
        assert "everything" not in "".join(map(str, lint_files({"x.toml": text})[1])), otherwise


@pytest.mark.parametrize(
    ("key", "said", "line"),
    [("any", "", 5), ("examples", "two", 9), ("examples", "gone", 7), ("scope", "", 3), ("", "", 3)],
)
def test_the_line_of_a_key(key: str, said: str, line: int) -> None:
    text = '''mx = ["""
[[rule]]"""]
 [[ rule ]]  # any = 1
name = "[[rule]]"
any = """
scope = 1"""
examples = [
 "one",
 "two"]
[[rule]]
scope = "ip"
'''
    assert line_of(text, 1, key, said) == line
    assert line_of(text, 2, "scope") == 11
    assert line_of(text, 3, "scope") == 0
    assert line_of(text, 0, "mx") == 1


@given(st.text(alphabet="[]rule= \n\"'#a\\", max_size=80), st.integers(0, 3))
def test_any_text_has_lines(text: str, number: int) -> None:
    assert 0 <= line_of(text, number, "a", "r") <= text.count("\n") + 1


def test_the_command_on_what_comes_with_the_package() -> None:
    result = CliRunner().invoke(lint_command, [], obj=Config())
    assert (result.exit_code, result.output) == (0, f"{len(packaged())} files: no fault\n")


def test_the_command_on_the_admins_own_directory(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(f'mx = [".example.net"]{RATE}'.replace("4.7.0 Slow down", "4.7.0 Go away"))
    config = Config(rules=RulesConfig(directory=str(tmp_path)))
    shown = f"{mine}:9: rule 1 \"rate\": examples: does not match '421 4.7.0 Go away'; correct the rule, or the example"

    for words, files in ([], len(packaged()) + 1), ([str(tmp_path)], 1), ([str(mine)], 1):
        result = CliRunner().invoke(lint_command, words, obj=config)
        assert result.output == f"{shown}\n{files} file{'s' * (files > 1)}: 1 fault\n"
        assert result.exit_code == 1

    result = CliRunner().invoke(lint_command, ["--json", str(mine)], obj=config)
    assert json.loads(result.output) == [
        {
            "file": str(mine),
            "line": 9,
            "rule": 'rule 1 "rate"',
            "key": "examples",
            "kind": "example",
            "problem": "does not match '421 4.7.0 Go away'",
            "remedy": "correct the rule, or the example",
        }
    ]
    mine.write_text(f'mx = [".example.net"]{RATE}')
    assert CliRunner().invoke(lint_command, [], obj=config).exit_code == 0


def test_the_documented_rule_is_sound() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (Path(__file__).parents[1] / "docs" / "rules.md").read_text(), re.DOTALL)
    assert lint_files({"example-net.toml": text}, packaged())[1] == []


def test_core_refuses_at_its_start_what_lint_finds(tmp_path: Path) -> None:
    (tmp_path / "gmail.toml").write_text(f'mx = [".google.com"]{RATE}')
    with pytest.raises(Exception, match=r"gmail\.toml:1: mx: '\.google\.com' is google's"):
        load(str(tmp_path))
