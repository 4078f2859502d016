"""`sidecar replay`: files in, a table or JSON out, and the exit status."""

import gzip
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sidecar.cli import sidecar
from sidecar.config import Config, RulesConfig
from tests.backtest_log import LogText
from tests.test_backtest import DEAF

REFUSED = "451 zork flurb of the moon (in reply to RCPT TO command)"


def story(host: str = "mx1") -> list[str]:
    """A sub-queue opens, mail waits in it, another sender waits beside it, and somebody says what no rule knows."""
    log = LogText(host)
    log.message(0.0, "deferred")
    log.message(100.0, "deferred")
    log.message(100.0, "sent")
    log.message(120.0, "sent", sender="n@calm.example", waited=8.0)
    queue_id = log.arrives(130.0)
    log.outcome(
        131.0, queue_id, "deferred", to="u@comcast.net", reason=f"host mx1a1.comcast.net[192.0.2.1] said: {REFUSED}"
    )
    log.message(800.0, "sent")
    return log.lines


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def run(*arguments: str | Path, config: Config | None = None, given: str = "") -> Result:
    return CliRunner().invoke(
        sidecar, ["replay", "--tz", "UTC", *map(str, arguments)], obj=config or Config(), input=given
    )


def told(*arguments: str | Path, status: int = 0, **options: Any) -> dict[str, Any]:
    result = run("--json", *arguments, **options)
    assert result.exit_code == status, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_what_is_told(tmp_path: Path) -> None:
    log = written(tmp_path / "mail.log", story())
    found = told(log)
    assert found["files"] == [str(log)]
    assert (found["lines"], found["unknown_lines"], found["hosts"]) == (len(story()), 0, ["mx1"])
    assert (found["from"], found["to"]) == ("2025-11-21T10:00:00+00:00", "2025-11-21T10:13:20.600000+00:00")
    assert found["outcomes"] == {"deferred": 3, "sent": 3}
    assert (found["parked"], found["deferrals_avoided"], found["delivered_late"], found["others_sent"]) == (2, 1, 1, 1)
    (opened,) = found["subqueues"]
    assert opened["opened"] == "2025-11-21T10:00:00.500000+00:00"
    assert opened["closed"] is None
    assert opened["opened_by"]["rule"] == "google/rate-dkim-domain"
    assert opened["opened_by"]["line"] in story()[2]
    assert found["categories"] == {"throttling": 2, "unknown": 1}
    assert [(one["provider"], one["count"]) for one in found["unknown"]] == [("comcast", 1)]
    assert "zork" in found["unknown"][0]["sample"]


def test_tables(tmp_path: Path) -> None:
    said = run(written(tmp_path / "mail.log", story()))
    assert said.exit_code == 0
    for words in (
        "deferrals avoided      1 of 3 (33.3 %)",
        "dkim-domain:burst.example@google",
        "google/rate-dkim-domain",
        "zork flurb",
        "1 messages waited 8.0 s in the active queue",
    ):
        assert words in said.output
    assert all(len(line) <= 160 for line in said.output.splitlines())


@pytest.mark.parametrize(
    "order", [("mail.log", "mail.log.1.gz", "mail.log.2.xz"), ("mail.log.1.gz", "mail.log.2.xz", "mail.log")]
)
def test_rotated_files_in_any_order(tmp_path: Path, order: tuple[str, ...]) -> None:
    lines = story()
    whole = told(written(tmp_path / "whole", lines))
    (tmp_path / "mail.log.2.xz").write_bytes(lzma.compress("".join(f"{line}\n" for line in lines[:4]).encode()))
    (tmp_path / "mail.log.1.gz").write_bytes(gzip.compress("".join(f"{line}\n" for line in lines[4:9]).encode()))
    written(tmp_path / "mail.log", lines[9:])
    found = told(*(tmp_path / name for name in order))
    assert [Path(path).name for path in found.pop("files")] == ["mail.log.2.xz", "mail.log.1.gz", "mail.log"]
    del whole["files"]
    assert found == whole


def test_files_that_overlap_are_merged(tmp_path: Path) -> None:
    lines = story()
    odd, even = written(tmp_path / "odd", lines[1::2]), written(tmp_path / "even", lines[::2])
    whole, found = told(written(tmp_path / "whole", lines)), told(odd, even)
    del whole["files"], found["files"]
    assert found == whole


def test_several_hosts(tmp_path: Path) -> None:
    found = told(written(tmp_path / "a", story("mx1")), written(tmp_path / "b", story("mx2")))
    assert [opened["host"] for opened in found["subqueues"]] == ["mx1", "mx2"]
    assert found["parked"] == 4
    assert "mx2" in run(tmp_path / "a", tmp_path / "b").output


def test_a_stamp_of_the_far_future_is_left_out(tmp_path: Path) -> None:
    damaged = "9998-12-31T23:00:00+00:00 mx1 postfix/qmgr[11]: 4jX2kbQQQQQzBrk: removed"
    whole = told(written(tmp_path / "whole", story()))
    lines = story()
    found = told(written(tmp_path / "damaged", [*lines[:3], damaged, *lines[3:]]))
    assert found.pop("lines") == whole.pop("lines") + 1
    del whole["files"], found["files"]
    assert found == whole


def test_standard_input(tmp_path: Path) -> None:
    whole = told(written(tmp_path / "mail.log", story()))
    found = told("-", given="".join(f"{line}\n" for line in story()))
    assert found.pop("files") == ["-"]
    del whole["files"]
    assert found == whole


@pytest.mark.parametrize("contents", [b"", b"\0\xff\xfe\n" * 50, b"no log\nat all", b"x" * 3_000_000])
def test_what_is_no_log(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(contents)
    assert told(path)["hosts"] == []
    assert "no mail in it" in run(path).output


def test_two_runs_are_the_same_to_the_byte(tmp_path: Path) -> None:
    log = written(tmp_path / "mail.log", story())
    outputs = set()
    for seed in ("1", "2"):
        for option in ("--json", "--top=0"):
            command = [sys.executable, "-m", "sidecar", "replay", "--tz", "UTC", option, str(log)]
            environment = os.environ | {"PYTHONHASHSEED": seed}
            outputs.add(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    assert len(outputs) == 2


def own_rules(directory: Path, text: str = "") -> Path:
    directory.mkdir()
    if text:
        (directory / "google.toml").write_text(text)
    return directory


def test_own_rules_go_first(tmp_path: Path) -> None:
    log = written(tmp_path / "mail.log", story())
    deaf = own_rules(tmp_path / "deaf", DEAF)
    assert told(log, "--rules", deaf)["opened"] == 0
    assert told(log, config=Config(rules=RulesConfig(directory=str(deaf))))["opened"] == 0


@pytest.mark.parametrize("form", ["against the package", "two sets"])
def test_a_difference(tmp_path: Path, form: str) -> None:
    log = written(tmp_path / "mail.log", story())
    deaf, empty = own_rules(tmp_path / "deaf", DEAF), own_rules(tmp_path / "empty")
    options: list[str | Path] = (
        ["--diff", deaf] if form == "against the package" else ["--diff", "--rules", empty, "--rules", deaf]
    )
    found = told(log, *options, status=1)
    (difference,) = found["replies"]
    assert (difference["count"], difference["fields"]) == (2, ["identity", "reaction"])
    assert difference["a"]["identity"] == {"type": "dkim-domain", "value": "burst.example"}
    assert [opened["key"] for opened in found["only_a"]] == ["dkim-domain:burst.example@google"]
    assert found["only_b"] == []
    assert (found["a"]["parked"], found["b"]["parked"], found["b"]["rules"]) == (2, 0, str(deaf))
    said = run(log, *options)
    assert said.exit_code == 1
    assert "reaction=pause-domain" in said.output
    assert "sub-queues that only A would open" in said.output


def test_no_difference(tmp_path: Path) -> None:
    log, empty = written(tmp_path / "mail.log", story()), own_rules(tmp_path / "empty")
    found = told(log, "--diff", empty)
    assert (found["replies"], found["only_a"], found["only_b"]) == ([], [], [])
    assert "no difference at this log" in run(log, "--diff", empty).output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument 'FILES...'"),
        (["LOG", "--diff"], "wanted --rules A --rules B"),
        (["LOG", "--diff", "--rules", "."], "wanted --rules A --rules B"),
        (["--diff", "LOG"], "Missing argument"),
        (["--diff", "LOG", "LOG"], "is no directory"),
        (["LOG", "--rules", ".", "--rules", "."], "given twice"),
        (["LOG", "--diff", ".", "--rules", ".", "--rules", "."], "at most once"),
        (["LOG", "--rules", "nowhere"], "'nowhere' does not exist"),
        (["nowhere.log"], "'nowhere.log' does not exist"),
        (["LOG", "--tz", "Nowhere/Town"], "is no time zone"),
    ],
)
def test_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    log = written(tmp_path / "mail.log", story())
    result = run(*(str(log) if argument == "LOG" else argument for argument in arguments))
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "mail.log.gz"
    path.write_bytes(gzip.compress(b"".join(os.urandom(100) for _ in range(5_000)))[:-1_000])
    result = run(path)
    assert result.exit_code == 2
    assert f"{path}: cannot be read" in result.output
