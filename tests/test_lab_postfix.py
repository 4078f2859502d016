"""The private Postfix for real, and the lab without the sidecar: it counts right and leaves nothing behind."""

import contextlib
import json
import os
import shutil
import signal
import smtplib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sidecar.lab import namespace
from sidecar.lab.private_postfix import PostfixError, PrivatePostfix
from tests.mail_host_world import until

REPOSITORY = Path(__file__).parents[1]

pytestmark = pytest.mark.postfix

_SHORT = """
name = "short"
seconds = 5
scale = 60
[[sender]]
domain = "shop-{n}.example"
count = 3
rate = 4
to = ["google"]
[[sender]]
domain = "sale.example"
burst = 60
at = 1
to = ["google"]
[[sender]]
domain = "cron.example"
rate = 2
via = "pickup"
to = ["google"]
[[provider]]
name = "google"
domains = ["gmail.com"]
mx = ["gmail-smtp-in.l.google.com", "alt1.gmail-smtp-in.l.google.com"]
transaction_s = 0.05
[[provider.limit]]
by = "dkim"
kind = "window"
n = 20
per = 3600
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that user postfix can enter; those of pytest are closed to it."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture
def scenario(open_directory: Path) -> Path:
    file = open_directory / "short.toml"
    file.write_text(_SHORT)
    return file


def test_a_private_postfix_holds_releases_and_discards(open_directory: Path) -> None:
    settings = {"default_transport": "hold-me", "smtpd_end_of_data_restrictions": "check_client_access static:HOLD"}
    with PrivatePostfix(open_directory, main_cf=settings, master_cf="hold-me unix - - n - - discard\n") as postfix:
        with smtplib.SMTP("127.0.0.1", postfix.port) as client:
            client.sendmail("a@shop.example", ["u@gmail.com"], "Message-ID: <1@shop.example>\r\n\r\nhi\r\n")
        (held,) = postfix.postqueue()
        assert (held.queue_name, held.sender, held.recipients) == ("hold", "a@shop.example", ("u@gmail.com",))
        assert [file.name for file in postfix.queue_files("hold")] == [held.queue_id]
        assert postfix.message_id(held.queue_id) == "<1@shop.example>"
        assert "Released from hold: 1 message" in postfix.postsuper("-H", [held.queue_id])
        postfix.reload()
        assert postfix.postconf("-h", "default_transport") == "hold-me\n"
        assert postfix.running()
        postfix.rotate_log()
    assert not postfix.running()
    assert len(list(open_directory.glob("mail.log.*"))) == 1


def test_a_log_is_compressed_once_postlogd_has_left_it(open_directory: Path) -> None:
    with PrivatePostfix(open_directory) as postfix, ThreadPoolExecutor(1) as beside:
        until(lambda: _postlogd(postfix) is not None)
        busy = _postlogd(postfix)
        assert busy is not None
        os.kill(busy, signal.SIGSTOP)
        try:
            rotated = beside.submit(postfix.rotate_log)
            until(lambda: rotated.done() or any("/compressor" in said for said in _processes_below(open_directory)))
            assert not postfix.maillog.exists()
            assert not list(open_directory.glob("mail.log.*.gz"))
        finally:
            os.kill(busy, signal.SIGCONT)
        rotated.result()
        assert postfix.maillog.exists()
        assert len(list(open_directory.glob("mail.log.*.gz"))) == 1


def _postlogd(postfix: PrivatePostfix) -> int | None:
    master = postfix.master_pid()
    for child in Path(f"/proc/{master}/task/{master}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{child}/comm").read_text().strip() == "postlogd":
                return int(child)
    return None


def test_a_postfix_that_cannot_start_says_why(open_directory: Path) -> None:
    broken = PrivatePostfix(open_directory, master_cf="nonsense\n")
    with pytest.raises(PostfixError, match=r"(?s)postfix .* start: status 1: .*master\.cf"):
        broken.start()


def test_the_plain_lab_counts_every_message_and_leaves_nothing_behind(scenario: Path, open_directory: Path) -> None:
    done = subprocess.run(
        _lab(scenario, "--json"), capture_output=True, text=True, env=_own_tmp(open_directory), check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    plain = said["plain"]
    assert said["scenario"] == "short"
    assert plain["injected"] == plain["delivered"] + plain["bounced"] + plain["queued"]
    assert (plain["lost"], plain["duplicated"], plain["rejected"]) == (0, 0, 0)
    assert plain["throttled_delivered"] == 20
    assert plain["deferrals"] >= 40
    assert 0 < plain["others_p50_s"] < 60
    _nothing_left(open_directory)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_lab_with_its_figures_and_nothing_left(
    number: signal.Signals, scenario: Path, open_directory: Path
) -> None:
    lab = subprocess.Popen(
        _lab(scenario, "--json", "--seconds", "100"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_own_tmp(open_directory),
    )
    assert lab.stdout is not None
    assert lab.stderr is not None
    for line in lab.stderr:
        if "throttles" in line:
            break
    lab.send_signal(number)
    said, _ = lab.communicate(timeout=60)
    assert json.loads(said.splitlines()[-1])["plain"]["lost"] == 0
    assert lab.returncode == 0
    _nothing_left(open_directory)


def test_a_killed_lab_ends_its_processes_and_the_next_one_takes_its_directory_away(
    scenario: Path, open_directory: Path
) -> None:
    lab = subprocess.Popen(
        _lab(scenario, "--seconds", "100"), stdout=subprocess.PIPE, text=True, env=_own_tmp(open_directory)
    )
    assert lab.stdout is not None
    lab.stdout.readline()  # it begins to tell: everything runs
    lab.kill()
    lab.wait()
    lab.stdout.close()
    deadline = time.monotonic() + 60
    while _processes_below(open_directory):  # the kernel ends them, one by one
        assert time.monotonic() < deadline
    assert len(list((open_directory / "tmp").iterdir())) == 1
    subprocess.run(_lab(scenario, "--seconds", "1"), capture_output=True, env=_own_tmp(open_directory), check=True)
    _nothing_left(open_directory)


def test_without_the_right_to_make_namespaces_the_lab_says_so(scenario: Path, open_directory: Path) -> None:
    setpriv = [shutil.which("setpriv") or "setpriv", "--bounding-set", "-sys_admin"]
    done = subprocess.run(
        [*setpriv, *_lab(scenario)], capture_output=True, text=True, env=_own_tmp(open_directory), check=False
    )
    assert done.returncode == 2
    assert "a namespace is refused" in done.stderr
    _nothing_left(open_directory)


def test_the_lab_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(namespace.NamespaceError, match="needs root"):
        namespace.run("sidecar.lab", [], resolver="127.0.0.53")


def _lab(scenario: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "sidecar.lab", "--plain", "--scenario", str(scenario), *options]


def _own_tmp(open_directory: Path) -> dict[str, str]:
    """So that what the lab leaves can be told from what others do at the same time."""
    own = open_directory / "tmp"
    own.mkdir(exist_ok=True)
    return os.environ | {"TMPDIR": str(own), "PYTHONPATH": str(REPOSITORY)}


def _nothing_left(open_directory: Path) -> None:
    assert not list((open_directory / "tmp").iterdir())
    assert not _processes_below(open_directory)
    assert not any("sidecar-lab" in line for line in Path("/proc/mounts").read_text().splitlines())


def _processes_below(open_directory: Path) -> list[str]:
    """Command lines that name the directory; Postfix's daemons get it in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # gone, or the first process of a container
        if str(open_directory).encode() in said and process.name != str(os.getpid()):
            found.append(said.decode(errors="replace"))
    return found
