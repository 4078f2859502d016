"""What must hold before any test says something about the sources, and that a test does today what it did yesterday."""

import os
import random

import hypothesis
import pytest

from hatch_build import ROOT, SUFFIX, modules
from sidecar.fleet import redis_store
from tests import redis_world


def pytest_configure(config: pytest.Config) -> None:
    """Python takes what was compiled, though the source beside it be newer; and chance is for `make soak`."""
    sources = [ROOT / module for module in modules()]
    old = [
        path
        for path in sources
        if (made := path.with_suffix(SUFFIX)).exists() and made.stat().st_mtime < path.stat().st_mtime
    ]
    if old:
        pytest.exit(f"{old[0].relative_to(ROOT)} has changed since it was compiled: run make venv", returncode=4)
    hypothesis.settings.register_profile(
        "suite",
        derandomize="SOAK" not in os.environ,
        deadline=None,  # how long an example takes is the machine's business, and what it has to do beside
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("suite")
    config.option.randomly_reset_seed = False  # it would be another one in each run; the order stays random


@pytest.fixture(autouse=True)
def _dice(request: pytest.FixtureRequest) -> None:
    """Each test has its own, whatever ran before it."""
    if "SOAK" not in os.environ:
        random.seed(request.node.nodeid)


@pytest.fixture(params=["redis-server", "valkey-server"])
def each_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test it with Redis and with Valkey: for tests of what a server must do."""
    if request.param == "valkey-server":
        monkeypatch.setattr(redis_world, "PROGRAM", redis_world.valkey())


@pytest.fixture
def patient_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fleet's store is not given up on after a second: for tests in which it is well and the machine may be busy."""
    monkeypatch.setattr(redis_store, "ANSWER_WITHIN", 30.0)
