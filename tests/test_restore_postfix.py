"""A host burns down: its backup and its spool go to another one, which takes over what was held there and lets it go."""

import json
import shutil
import smtplib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from policies.access import hold_text
from sidecar.control import CoreUnreachable, ask_core
from sidecar.lab.private_postfix import PrivatePostfix

ROOT = Path(__file__).parents[1]
KEY = "sender-domain:snd.example@google"
OURS = hold_text(KEY, "google/rate")
pytestmark = pytest.mark.postfix


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="restore-"))  # pytest's own may not be entered by user postfix
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def host(directory: Path) -> tuple[PrivatePostfix, Path]:
    """Postfix, which holds what news@snd.example sends as if we had said so, and a configuration for it."""
    answers = f"{{{{news@snd.example=HOLD {OURS}}}, {{admin@snd.example=HOLD}}}}"
    mail = PrivatePostfix(
        directory / "postfix",
        main_cf={
            "enable_long_queue_ids": "yes",
            "smtpd_end_of_data_restrictions": f"check_sender_access inline:{answers}",
        },
    )
    path = directory / "sidecar.toml"
    path.write_text(
        f'mode = "act"\nruntime_directory = "{directory}/run"\n'
        f'[log]\nsource = "{mail.maillog}"\n'
        f'[policy]\nlisten = ["unix:{directory}/policy"]\n'
        f'[store]\npath = "{directory}/store"\n'
        f'[postfix]\nconfig_directory = "{mail.config_directory}"\n'
        '[web]\nlisten = "127.0.0.1:0"\n'
        "[feeds.blocklists]\nenabled = false\n[feeds.authentication]\nenabled = false\n"
    )
    return mail, path


def sidecar(configuration: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "sidecar", "--config", str(configuration), *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@contextmanager
def running(configuration: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "sidecar", "--config", str(configuration), "run"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


def until(condition: Callable[[], object], *, within: float = 60.0) -> None:
    """Wait for what other processes do."""
    deadline = time.monotonic() + within
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        pause.wait(0.05)


def status(configuration: Path) -> dict[str, Any]:
    try:
        return ask_core(configuration.parent / "run" / "control", {"command": "status"}, timeout=60.0)
    except CoreUnreachable:
        return {"held_total": -1, "log": {"followed": False}, "helper": {"reachable": False}}


def submit(mail: PrivatePostfix, sender: str, count: int) -> set[str]:
    ids = set()
    with smtplib.SMTP("127.0.0.1", mail.port) as session:
        for number in range(count):
            session.mail(sender)
            session.rcpt(f"u{number}@gmail.com")
            _, said = session.data(b"Subject: test\r\n\r\ntext\r\n")
            ids.add(said.rpartition(b" ")[2].decode())
    return ids


def on_hold(mail: PrivatePostfix) -> set[str]:
    return {path.name for path in mail.queue_files("hold")}


def test_another_host_adopts_what_was_held_and_releases_it(place: Path) -> None:
    one, configuration = host(place / "one")
    with one, running(configuration):
        until(lambda: status(configuration)["log"]["followed"])
        sidecar(configuration, "subqueue", "pause", KEY, "--seconds", "3600")
        ours, admins = submit(one, "news@snd.example", 4), submit(one, "admin@snd.example", 1)
        until(lambda: status(configuration)["held_total"] == 4)
        record = place / "one" / "store" / "held.record"
        until(lambda: record.exists() and all(each in record.read_text() for each in ours))
        until(lambda: on_hold(one) == ours | admins)
        backup = sidecar(configuration, "backup", str(place))["file"]
        one.abort()

    two, configuration = host(place / "two")
    (two.queue_directory / "hold").mkdir()
    subprocess.run(["cp", "-a", f"{one.queue_directory}/hold", str(two.queue_directory)], check=True)
    shutil.rmtree(place / "one")
    sidecar(configuration, "restore", backup)
    with two, running(configuration):
        until(lambda: status(configuration)["held_total"] == 4)
        (sub,) = status(configuration)["subqueues"]
        assert (sub["key"], sub["held"]) == (KEY, 4)
        assert on_hold(two) == ours | admins
        assert sidecar(configuration, "subqueue", "close", KEY)["state"] == "closed"
        until(lambda: on_hold(two) == admins)
        until(lambda: {each.queue_id for each in two.postqueue()} == admins)
        until(lambda: status(configuration)["held_total"] == 0)
        told = [sidecar(configuration, "audit", "show", queue_id) for queue_id in ours]
    log = two.maillog.read_text()
    for queue_id in ours:
        assert sum(f" {queue_id}: to=" in line and "status=sent" in line for line in log.splitlines()) == 1
    for story in told:  # what was done on either host
        kinds = [row["kind"] for row in story["done"]]
        assert kinds[0] == "adopted"
        assert kinds[-1] == "released"
