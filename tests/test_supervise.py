"""`sidecar run`: what is looked at before anything starts, and the whole on a Postfix configuration of its own."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar import supervise
from sidecar.config import Config, ConfigError, LogConfig, PolicyConfig, PostfixConfig, StoreConfig, WebConfig
from sidecar.control import ask_core
from sidecar.lab.ports import free_port
from sidecar.postfix import PostfixError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def site(tmp_path: Path) -> Config:
    """A site whose Postfix is only a configuration: nothing of it runs."""
    for name in ("etc", "queue/private", "data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "mail.log").touch()
    (tmp_path / "etc/master.cf").touch()
    (tmp_path / "etc/main.cf").write_text(
        f"compatibility_level = 3.6\nqueue_directory = {tmp_path}/queue\ndata_directory = {tmp_path}/data\n"
        "enable_long_queue_ids = yes\n"
    )
    os.utime(
        tmp_path / "etc/main.cf", (1e9, 1e9)
    )  # Postfix waits for two seconds with a file that has just been changed
    return Config(
        runtime_directory=str(tmp_path / "run"),
        log=LogConfig(source=str(tmp_path / "mail.log")),
        store=StoreConfig(path=str(tmp_path / "store/of/mine")),
        postfix=PostfixConfig(config_directory=str(tmp_path / "etc")),
        web=WebConfig(listen=f"127.0.0.1:{free_port()}"),
    )


def test_directories_and_listening_sockets_are_made(site: Config, tmp_path: Path) -> None:
    listening = supervise.prepare(site)

    assert [each.socket.getsockname() for each in listening] == [f"{tmp_path}/queue/private/sidecar"]
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "store/of/mine").stat().st_mode) == 0o750
    with socket.socket(socket.AF_UNIX) as smtpd:
        smtpd.connect(f"{tmp_path}/queue/private/sidecar")
    for each in listening:
        each.close()
    assert not (tmp_path / "queue/private/sidecar").exists()


def test_directories_that_are_there_are_left_as_they_are(site: Config, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    for each in supervise.prepare(site):
        each.close()
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


def log_at(source: str) -> Callable[[Config, Path], Config]:
    return lambda site, directory: replace(site, log=LogConfig(source=source.format(directory=directory)))


def listening_at(*addresses: str) -> Callable[[Config, Path], Config]:
    return lambda site, _: replace(site, policy=PolicyConfig(listen=addresses))


WRONG: list[tuple[Callable[[Config, Path], Config], type[Exception], str]] = [
    (log_at("{directory}/none.log"), ConfigError, "none.log: No such file or directory; wanted the file that Postfix"),
    (log_at("{directory}"), ConfigError, "log.source: .*: Is a directory"),
    (lambda site, _: replace(site, web=WebConfig(listen="localhost:8025")), ConfigError, "web.listen: found 'localhost"),
    (lambda site, at: replace(site, runtime_directory=f"{at}/mail.log"), ConfigError, "runtime_directory: .*cannot be"),
    (lambda site, at: replace(site, store=StoreConfig(f"{at}/mail.log/x")), ConfigError, "store.path: .*cannot be made"),
    (lambda site, at: replace(site, postfix=PostfixConfig(f"{at}/none")), PostfixError, "none"),
    (listening_at("private/sidecar"), ConfigError, "policy.listen: found 'private/sidecar', wanted unix:PATH or inet"),
    (listening_at("unix:private/sidecar", "inet:127.0.0.1:1:1"), ConfigError, "policy.listen: found 'inet:127.0.0.1:1:1'"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "error", "says"), WRONG, ids=[says for _, _, says in WRONG])
def test_what_is_wrong_is_said_before_anything_starts(
    site: Config,
    tmp_path: Path,
    wrong: Callable[[Config, Path], Config],
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        supervise.prepare(wrong(site, tmp_path))
    assert not (tmp_path / "queue/private/sidecar").exists()


@pytest.mark.parametrize("which", ["run/control", "queue/private/sidecar"])
def test_a_socket_in_use_is_said_before_anything_starts(site: Config, tmp_path: Path, which: str) -> None:
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(tmp_path / which))
        taken.listen()
        with pytest.raises(ConfigError, match=f"{which}.*in use"):
            supervise.prepare(site)
        assert (tmp_path / which).exists()


def test_a_named_pipe_may_be_the_log(site: Config, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for each in supervise.prepare(replace(site, log=LogConfig(source=str(tmp_path / "pipe")))):
        each.close()


@pytest.mark.parametrize(("act", "mode"), [(None, ()), (True, ("--act",)), (False, ("--observe",))])
def test_core_is_told_the_mode(site: Config, act: bool | None, mode: tuple[str, ...]) -> None:  # noqa: FBT001  # a column
    core = next(each for each in supervise.children(site, Path("/etc/x.toml"), [5, 6], act=act) if each.name == "core")

    assert core.command[2:] == ("-m", "sidecar", "--config", "/etc/x.toml", "core", *mode)
    assert core.sockets == (5, 6)
    assert not core.reads_standard_input


@pytest.mark.parametrize(("uid", "names"), [(0, ["queue-helper", "core", "outside"]), (1000, ["core", "outside"])])
def test_the_queue_helper_is_for_root(
    site: Config, monkeypatch: pytest.MonkeyPatch, uid: int, names: list[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    found = supervise.children(site, None, [5], act=None)

    assert [each.name for each in found] == names
    assert [each.name for each in found if each.sockets] == ["core"]
    assert all(each.command[2:4] == ("-m", "sidecar") and "--config" not in each.command for each in found)


def test_standard_input_goes_to_core_where_it_is_the_log(site: Config) -> None:
    found = supervise.children(replace(site, log=LogConfig(source="-")), None, [], act=None)
    assert [each.name for each in found if each.reads_standard_input] == ["core"]


def written(site: Config, path: Path) -> Path:
    path.write_text(
        f'runtime_directory = "{site.runtime_directory}"\n'
        f'[log]\nsource = "{site.log.source}"\n'
        f'[store]\npath = "{site.store.path}"\n'
        f'[postfix]\nconfig_directory = "{site.postfix.config_directory}"\n'
        f'[web]\nlisten = "{site.web.listen}"\n'
    )
    return path


@contextmanager
def running(config: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`sidecar run`, its standard error to be read; started elsewhere than in the code's directory."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sidecar", "--config", str(config), "run", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=config.parent, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str], words: str) -> str:
    """Wait for the next line that has these words."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return line
    raise AssertionError(f"ended with {process.wait()} without {words!r}; wrote {''.join(lines)}")


def all_said(process: subprocess.Popen[str], *words: str) -> list[str]:
    """Wait for the lines that have these words, in whatever order they come."""
    assert process.stderr is not None
    found: dict[str, str] = {}
    for line in process.stderr:
        found |= {each: line for each in words if each in line}
        if len(found) == len(words):
            return [found[each] for each in words]
    raise AssertionError(f"ended with {process.wait()}; of {words} it said {found}")


def policy_answer(path: Path) -> str:
    """What smtpd would be told; waits as smtpd does, but longer."""
    with socket.socket(socket.AF_UNIX) as smtpd:
        smtpd.settimeout(60)
        smtpd.connect(str(path))
        smtpd.sendall(
            b"request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\ninstance=1.2.3\n"
            b"sender=news@example.com\nrecipient=ann@example.net\n\n"
        )
        return smtpd.recv(1000).decode()


@pytest.mark.postfix
def test_the_whole(site: Config, tmp_path: Path) -> None:
    path = tmp_path / "queue/private/sidecar"
    with running(written(site, tmp_path / "sidecar.toml"), "--observe") as process:
        begun = all_said(
            process, "core: started, pid ", " for the queue", " for the status page", " for policy requests"
        )
        core = int(begun[0].rpartition(" ")[2])
        assert policy_answer(path) == "action=DUNNO\n\n"
        assert ask_core(site.control_socket, {"command": "health"}, timeout=60.0)["pid"] == core

        os.kill(core, signal.SIGKILL)
        assert policy_answer(path) == "action=DUNNO\n\n"
        assert ask_core(site.control_socket, {"command": "health"}, timeout=60.0)["pid"] != core

        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        rest = process.stderr.read()
        assert process.wait(60) == 0
    order = re.findall(r"(\S+): pid \d+ stopped \(exit status 0\)", rest)
    assert order == ["outside", "core", "queue-helper"]
    assert "Traceback" not in rest
    assert not path.exists()
    assert list((tmp_path / "run").glob("[ch]*l*")) == []


def test_a_configuration_error_ends_it_before_anything_starts(site: Config, tmp_path: Path) -> None:
    (tmp_path / "mail.log").unlink()
    with running(written(site, tmp_path / "sidecar.toml")) as process:
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait(60) == 2
    assert told.startswith(f"sidecar: log.source: {tmp_path}/mail.log: No such file or directory")
    assert told.count("\n") == 1
