"""The lab's fleet: real Postfix hosts in networks of their own, one Redis, and what is left of them afterwards."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.lab import scenario
from sidecar.lab.hosts.bench import share_of
from sidecar.lab.hosts.drills import FLEET_DRILLS

ROOT = Path(__file__).parents[1]
PATIENCE = ("--patience", "10")
"""How quick the machine is says nothing here; `make soak` has the bars."""


def lab(*arguments: str) -> dict[str, Any]:
    """Run it; what it prints. Nothing may be left behind."""
    command = [sys.executable, "-m", "sidecar", "lab", *arguments, *PATIENCE, "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        printed, said = running.communicate(timeout=1_000)
    assert running.returncode == 0, printed[-2_000:] + said[-2_000:]
    assert not list(left_of(running.pid))
    told: dict[str, Any] = json.loads(printed.splitlines()[-1])
    figures = told["sidecar"]
    assert figures["injected"] == figures["delivered"] + figures["bounced"] + figures["queued"] + figures["lost"]
    assert (figures["lost"], figures["duplicated"], figures["rejected"], figures["others_held"]) == (0, 0, 0, 0)
    assert told["findings"] == []
    return told


def left_of(pid: int) -> Iterator[str]:
    """Processes and files that name the lab's directory."""
    name = f"sidecar-lab-{pid}-"
    yield from (str(path) for path in Path("/tmp").glob(f"{name}*"))  # noqa: S108  # where the lab makes it
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes()
        except OSError:  # it has just ended
            continue
        if name.encode() in command:
            yield command.decode(errors="replace")


@pytest.mark.postfix
@pytest.mark.timeout(1_100)
def test_a_refusal_on_one_host_pauses_all() -> None:
    told = lab("--drill", "fleet-short-refused")
    fleet = told["fleet"]
    assert (fleet["hosts"], fleet["openings"], fleet["contained"]) == (3, 1, 1)
    assert fleet["containment_p99_s"] > 0.0
    assert fleet["over_budget"] <= 1.1


@pytest.mark.postfix
@pytest.mark.timeout(1_100)
@pytest.mark.parametrize("name", ["fleet-short-redis-killed", "fleet-short-host-paused", "fleet-short-failover"])
def test_a_failure_costs_no_mail_and_is_soon_over(name: str) -> None:
    told = lab("--drill", name)
    assert told["times"]["converged_s"] > 0.0
    assert told["fleet"]["contained"] == told["fleet"]["openings"] == 1


@pytest.mark.parametrize("name", FLEET_DRILLS)
def test_every_drill_of_a_fleet_says_what_it_proves(name: str) -> None:
    drill = FLEET_DRILLS[name]
    assert drill.scenario().name == name
    assert drill.scenario().hosts == drill.hosts
    assert len(drill.proves) > 20


def test_the_document_names_each_drill_of_a_fleet() -> None:
    text = (ROOT / "docs" / "fleet.md").read_text()
    assert [name for name in FLEET_DRILLS if f"`{name}`" not in text] == []


def test_the_hosts_share_the_senders_mail_and_no_message_has_another_s_id() -> None:
    whole = scenario.load(scenario.find("fleet"))
    shares = [share_of(whole, number) for number in range(1, whole.hosts + 1)]
    for place, sender in enumerate(whole.sender):
        assert sum(share.sender[place].burst for share in shares) == sender.burst
        assert sum(share.sender[place].rate for share in shares) == pytest.approx(sender.rate)
    assert len({share.seed for share in shares}) == whole.hosts


def test_what_is_not_installed_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sidecar", "lab", "--scenario", "fleet"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert (done.returncode, "apt-get install iproute2 redis-server" in done.stderr) == (2, True)


def test_one_host_s_drills_are_not_for_a_fleet() -> None:
    command = [sys.executable, "-m", "sidecar", "lab", "--drill", "admin-deletes", "--hosts", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "--hosts" in done.stderr) == (2, True)
