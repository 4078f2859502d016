"""The units, by systemd's own judgement, and the few words that we exchange with it."""

import configparser
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar import systemd
from sidecar.cli import COMMANDS
from sidecar.config import Config, PolicyConfig

UNITS = Path(__file__).parent.parent / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
SOCKETS = sorted(path.name for path in UNITS.glob("*.socket"))

EXPOSURE = {
    "sidecar-core.service": 15,
    "sidecar-core@.service": 15,
    "sidecar-outside.service": 15,
    "sidecar-queue-helper.service": 30,
    "sidecar-failsafe.service": 30,
}
"""Tenths of a point of `systemd-analyze security` that a unit may have; postsuper needs root's rights."""


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys of units have capitals
    parser.read(UNITS / name)
    return parser


def test_systemd_has_nothing_to_say_of_the_units(tmp_path: Path) -> None:
    for path in UNITS.glob("sidecar*"):
        if path.suffix in {".service", ".socket", ".timer"}:
            (tmp_path / path.name).write_text(path.read_text().replace("/usr/bin/sidecar", "/bin/true"))
    names = [f"{path.stem}one{path.suffix}" if path.stem.endswith("@") else path.name for path in tmp_path.iterdir()]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_exposure(name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE[name]}", str(UNITS / name)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", SERVICES)
def test_services_run_commands_that_there_are(name: str) -> None:
    said = unit(name)["Service"]["ExecStart"].replace(" --config /etc/sidecar/hosts/%i.toml", "")
    program, command, *rest = shlex.split(said)
    assert (program, rest) == ("/usr/bin/sidecar", [])
    assert command in COMMANDS


def test_core_has_no_rights_and_outlives_an_answer_late() -> None:
    core = unit("sidecar-core.service")["Service"]
    assert (core["User"], core["CapabilityBoundingSet"], core["NoNewPrivileges"]) == ("sidecar", "", "yes")
    assert {"adm", "postdrop"} <= set(core["SupplementaryGroups"].split())
    assert (core["Type"], core["Restart"]) == ("notify", "always")
    assert int(core["WatchdogSec"]) > 2


@pytest.mark.parametrize("name", [name for name in SOCKETS if "policy" in name])
def test_policy_sockets(name: str) -> None:
    """Postfix's alone, deep enough for every smtpd, and where the wiring says."""
    section = unit(name)["Socket"]
    assert (section["SocketUser"], section["SocketMode"]) == ("postfix", "0600")
    assert int(section["Backlog"]) >= 1024
    assert section["Service"] == "sidecar-core.service"
    place = section["ListenStream"].replace("%i", "postfix").removeprefix("/var/spool/postfix/")
    assert (f"unix:{place}",) == PolicyConfig().listen


def test_the_helpers_socket() -> None:
    section = unit("sidecar-queue-helper.socket")["Socket"]
    assert section["ListenStream"] == str(Config().helper_socket)
    assert (section["SocketGroup"], section["SocketMode"]) == ("sidecar", "0660")
    assert section["FileDescriptorName"] == "helper"


def test_the_failsafe_looks_often_enough() -> None:
    timer = unit("sidecar-failsafe.timer")["Timer"]
    assert timer["OnUnitInactiveSec"] == "1min"
    assert unit("sidecar-failsafe.service")["Service"]["SuccessExitStatus"] == "1"


def test_user_and_directories_are_made(tmp_path: Path) -> None:
    """By systemd's own tools, below another root."""
    for directory in ("etc", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d"):
        (tmp_path / directory).mkdir(parents=True)
    shutil.copy(UNITS / "sidecar.sysusers.conf", tmp_path / "usr/lib/sysusers.d/sidecar.conf")
    shutil.copy(UNITS / "sidecar.tmpfiles.conf", tmp_path / "usr/lib/tmpfiles.d/sidecar.conf")
    for command in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
        done = subprocess.run([*command, f"--root={tmp_path}"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    user = next(line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("sidecar:"))
    _, _, uid, gid, _, home, shell = user.split(":")
    assert (home, shell) == ("/var/lib/sidecar", "/usr/sbin/nologin")
    for directory, mode in (("run/sidecar", 0o755), ("var/lib/sidecar", 0o750)):
        status = (tmp_path / directory).stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (mode, int(uid), int(gid))


@pytest.mark.parametrize("kind", ["path", "abstract", "nobody there", "not asked for"])
def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    address = f"@sidecar-test-{os.getpid()}" if kind == "abstract" else str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", "" if kind == "not asked for" else address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        if kind != "nobody there":
            listener.bind(address.replace("@", "\0") if kind == "abstract" else address)
            listener.setblocking(False)
        systemd.notify("READY=1")
        if kind in {"path", "abstract"}:
            assert listener.recv(100) == b"READY=1"
        elif kind == "not asked for":
            with pytest.raises(BlockingIOError):
                listener.recv(100)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_signs_of_life_come_twice_in_the_time_allowed(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], wanted: float | None
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert systemd.watchdog_interval() == wanted


INHERIT = """
import json, os, sys
from sidecar.systemd import inherited_sockets
handles = [int(one) for one in sys.argv[1].split(",")]
if handles != [3, 4]:
    moved = [os.dup(one) for one in handles]
    for to, one in enumerate(moved, 3):
        os.dup2(one, to)
if sys.argv[2] == "ours":
    os.environ["LISTEN_PID"] = str(os.getpid())
found = {}
for one in inherited_sockets(os.environ, pid=os.getpid()):
    found.setdefault(one.name, []).append(one.socket.getsockname())
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("whose", "names", "wanted"),
    [
        ("ours", "policy:helper", {"policy": ["a"], "helper": ["b"]}),
        ("ours", "policy:policy", {"policy": ["a", "b"]}),
        ("ours", "", {"": ["a", "b"]}),
        ("another's", "policy:helper", {}),
    ],
)
def test_sockets_that_systemd_holds(tmp_path: Path, whose: str, names: str, wanted: dict[str, list[str]]) -> None:
    with socket.socket(socket.AF_UNIX) as a, socket.socket(socket.AF_UNIX) as b:
        a.bind(str(tmp_path / "a"))
        b.bind(str(tmp_path / "b"))
        done = subprocess.run(
            [sys.executable, "-c", INHERIT, f"{a.fileno()},{b.fileno()}", whose],
            pass_fds=(a.fileno(), b.fileno()), capture_output=True, text=True, check=True,
            env=os.environ | {"LISTEN_FDS": "2", "LISTEN_FDNAMES": names, "LISTEN_PID": "1", "PYTHONPATH": str(UNITS.parent)},
        )  # fmt: skip
    found = {name: [str(tmp_path / one) for one in each] for name, each in wanted.items()}
    assert done.stdout.strip() == json.dumps(found)
