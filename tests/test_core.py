"""The core process by itself: what keeps it from running is said in a line."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.store import Store

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.postfix


@pytest.fixture(scope="module")
def postfix(tmp_path_factory: pytest.TempPathFactory) -> PrivatePostfix:
    directory = tmp_path_factory.mktemp("core")
    instance = PrivatePostfix(directory / "postfix", main_cf={"enable_long_queue_ids": "yes"})
    os.utime(instance.config_directory / "main.cf", (1, 1))  # Postfix waits for a main.cf that was just written
    return instance


@pytest.fixture
def config(tmp_path: Path, postfix: PrivatePostfix) -> Path:
    (tmp_path / "mail.log").touch()
    path = tmp_path / "sidecar.toml"
    path.write_text(
        f'runtime_directory = "{tmp_path}"\n'
        f'[log]\nsource = "{tmp_path}/mail.log"\n'
        f'[policy]\nlisten = ["unix:{tmp_path}/policy"]\n'
        f'[store]\npath = "{tmp_path}"\n'
        f'[postfix]\nconfig_directory = "{postfix.config_directory}"\n'
    )
    return path


def core(config: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sidecar", "--config", str(config), "core"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def ends_saying(config: Path, words: str) -> None:
    process = core(config)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert words in said
    assert "Traceback" not in said


def runs_saying(config: Path, words: str) -> None:
    process = core(config)
    assert process.stderr is not None
    try:
        said = ""
        for line in process.stderr:
            said += line
            if "listening on" in line:
                break
        assert words in said
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_it_listens_and_stops_when_told(config: Path) -> None:
    runs_saying(config, "listening on")


def test_a_log_that_cannot_be_read(config: Path, tmp_path: Path) -> None:
    config.write_text(config.read_text().replace("mail.log", "logs"))
    (tmp_path / "logs").mkdir()
    ends_saying(config, f"{tmp_path}/logs")


def test_a_policy_socket_in_use(config: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "policy"))
        other.listen()
        ends_saying(config, "socket in use")


def test_a_control_socket_in_use(config: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "control"))
        other.listen()
        ends_saying(config, "socket in use")


def test_a_damaged_store_is_set_aside(config: Path, tmp_path: Path) -> None:
    (tmp_path / "core.db").write_bytes(b"not a database" * 1_000)
    runs_saying(config, "set aside")
    Store.open_read_only(tmp_path / "core.db").close()


def test_a_store_of_a_later_version(config: Path, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "core.db")
    store.connection.execute("PRAGMA user_version = 999")
    store.close()
    ends_saying(config, "core.db")


def test_a_broken_rule_of_the_admin(config: Path, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "mine.toml").write_text("[[rule]]\nname = 1\n")
    config.write_text(config.read_text() + f'[rules]\ndirectory = "{tmp_path}/rules"\n')
    ends_saying(config, "mine.toml")


def test_a_postfix_that_is_not_there(config: Path, tmp_path: Path) -> None:
    config.write_text(
        "\n".join(line for line in config.read_text().splitlines() if "config_directory" not in line)
        + f'\nconfig_directory = "{tmp_path}/nowhere"\n'
    )
    ends_saying(config, "nowhere")
