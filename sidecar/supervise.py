"""`sidecar run`: all processes of one host as children of one, for a small site or a lab.

Knows what must be in order before they start, and holds the policy sockets for core, so that no smtpd meets a
closed door while core is started again; where systemd starts each process, it does the same.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from sidecar import own_log, postfix
from sidecar.children import Child, supervise
from sidecar.config import Config, ConfigError
from sidecar.control import unlink_stale
from sidecar.page import access
from sidecar.policy_sockets import Listening, listen
from sidecar.site import listeners
from sidecar.systemd import inherited_sockets

# -P: a root process must not import what lies in the directory it was started in; so we name ours.
_PYTHON = (sys.executable, "-P")
_OWN_CODE = str(Path(__file__).resolve().parents[1])


def prepare(config: Config) -> list[Listening]:
    """Look for what would keep the children from working; make directories and the policy sockets.

    Raises ConfigError or PostfixError: nothing has been started by then.
    """
    _check_log(config.log.source)
    access.rules(config)
    instances = postfix.instances(Path(config.postfix.config_directory))
    _make_directory(Path(config.runtime_directory), key="runtime_directory")
    _make_directory(Path(config.store.path), key="store.path")
    unlink_stale(config.control_socket)
    if os.geteuid() == 0:
        unlink_stale(config.helper_socket)
    passed = inherited_sockets(os.environ, pid=os.getpid())
    with ExitStack() as undo:
        made = []
        for listener in listeners(config, instances):
            made.append(listen(listener, inherited=passed, owner=instances[0].parameters["mail_owner"]))
            undo.callback(made[-1].close)
        undo.pop_all()
    return made


def _check_log(source: str) -> None:
    if source == "-":
        return
    if source == "journal":
        if shutil.which("journalctl") is None:
            raise ConfigError('log.source: found "journal", but there is no journalctl here; wanted the path of a file')
        return
    try:
        log = os.open(source, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe without a writer must not stop us here
        try:
            os.read(log, 0)  # what a directory refuses
        finally:
            os.close(log)
    except OSError as error:
        raise ConfigError(
            f'log.source: {source}: {error.strerror}; wanted the file that Postfix logs to, "journal" or "-"'
        ) from error


def _make_directory(path: Path, *, key: str) -> None:
    try:
        if not path.is_dir():
            path.mkdir(mode=0o750, parents=True)
    except OSError as error:
        raise ConfigError(f"{key}: {path}: cannot be made: {error.strerror}") from error


def children(config: Config, config_path: Path | None, sockets: Sequence[int], *, act: bool | None) -> list[Child]:
    """Who is started, in this order."""
    program = (*_PYTHON, "-m", "sidecar", *(("--config", str(config_path)) if config_path else ()))
    mode = () if act is None else ("--act",) if act else ("--observe",)
    core = Child(
        "core",
        (*program, "core", *mode),
        sockets=tuple(sockets),
        reads_standard_input=config.log.source == "-",
        reloads=True,
    )
    helper = [Child("queue-helper", (*program, "queue-helper"))] if os.geteuid() == 0 else []
    return [*helper, core, Child("outside", (*program, "outside"))]


@click.command(epilog="Example: sidecar --config /etc/sidecar/sidecar.toml run --observe")
@click.option("--act/--observe", default=None, help="Override `mode` of the configuration.")
@click.pass_context
def run(context: click.Context, *, act: bool | None) -> None:
    """Start and watch all processes on this host, as one program in the foreground.

    As root with the queue helper; without, nothing can be held unless one runs already.
    """
    config: Config = context.obj
    own_log.start("run")
    listening = prepare(config)
    try:
        for each in listening:
            own_log.listening(str(each.socket.getsockname()), purpose="policy requests")
        sockets = [each.socket.fileno() for each in listening]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_OWN_CODE, os.environ.get("PYTHONPATH"))))
        supervise(children(config, context.find_root().params["config_path"], sockets, act=act))
    finally:
        for each in listening:
            each.close()
        config.control_socket.unlink(missing_ok=True)
        if os.geteuid() == 0:
            config.helper_socket.unlink(missing_ok=True)
