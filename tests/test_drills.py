"""A few of the drills, each on a real Postfix with the sidecar attached; `make soak` runs them all."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.lab.drills import DRILLS

pytestmark = pytest.mark.postfix

ROOT = Path(__file__).parents[1]
PATIENCE = ("--patience", "10")
"""How quick the machine is says nothing here; `make soak` has the bars."""
SHORT = (
    "in-delivery-accepted",
    "admin-deletes",
    "null-sender",
    "promise-broken",
    "master-killed",
    "disk-full-while-held",
    "lane",
)
"""A quarter of a minute each."""
_ROW = re.compile(r"^\| [^|]+ \| `([a-z0-9-]+)` \| ", re.MULTILINE)


@pytest.mark.timeout(1_100)
@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_lost_doubled_or_rejected(name: str) -> None:
    command = [sys.executable, "-m", "sidecar", "lab", "--drill", name, *PATIENCE, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1_000)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    figures = json.loads(done.stdout.splitlines()[-1])["sidecar"]
    assert figures["injected"] == figures["delivered"] + figures["bounced"] + figures["queued"] + figures["lost"]
    assert (figures["lost"], figures["duplicated"], figures["rejected"]) == (0, 0, 0)


INCIDENTS = (
    "domain-throttled",
    "ip-listed",
    "dkim-key-broken",
    "complaint-spike",
    "provider-outage",
    "sidecar-dead",
    "store-lost",
)
"""What a fleet must be ready for; each prints how long it took to notice and to recover."""


@pytest.mark.timeout(1_100)
@pytest.mark.parametrize("name", INCIDENTS)
def test_an_incident_is_noticed_and_over(name: str) -> None:
    command = [sys.executable, "-m", "sidecar", "lab", "--drill", name, *PATIENCE, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1_000)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["findings"] == []
    assert 0 < told["times"]["detect_s"] < told["times"]["recover_s"]


@pytest.mark.parametrize("name", DRILLS)
def test_every_drill_says_what_it_proves(name: str) -> None:
    assert len(DRILLS[name].proves) > 20
    assert DRILLS[name].scenario().name == name


def test_the_table_of_the_documents_names_each_drill() -> None:
    named = _ROW.findall((ROOT / "docs" / "safety.md").read_text())
    assert sorted(named) == sorted(DRILLS)
