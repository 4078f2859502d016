"""One log of two hosts, each with a real Postfix, whose queues two cores elsewhere work on over a real sshd."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sidecar import mail_host
from sidecar.config import Config, ConfigError, LogConfig, Mode, PostfixConfig, Route, StoreConfig
from sidecar.control import CoreRefused, CoreUnreachable, ask_core
from sidecar.lab.ports import free_port
from sidecar.postfix import PostfixError
from sidecar.queue_gate import QueueGate
from tests.mail_host_world import MailHost, mail_host_of, running, submit, until
from tests.test_queue_helper import Exchanger

pytestmark = pytest.mark.postfix

ROOT = Path(__file__).parents[1]
KEY = "sender-domain:snd.example@google"
NAMES = ("mx1", "mx2")
LOOKS_OFTEN = """
from sidecar import core
from sidecar.cli import main

core.RECONCILE_EVERY = 5.0
main()
"""
"""A core that compares its books with the queue more often than once a minute."""


class World(NamedTuple):
    directory: Path
    hosts: tuple[MailHost, ...]
    log: Path

    def core(self, number: int) -> "Core":
        return Core(self, self.hosts[number])


class Core:
    """The core of one of them, on the host that has the log."""

    def __init__(self, world: World, host: MailHost) -> None:
        self.directory = world.directory / f"core-{host.name}"
        self.config = self.directory / "sidecar.toml"
        self._world, self._host = world, host

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.directory.mkdir(exist_ok=True)
        self.config.write_text(
            f'mode = "act"\nruntime_directory = "{self.directory}"\n'
            f'[log]\nsource = "{self._world.log}"\nhost = "{self._host.name}"\n[store]\npath = "{self.directory}"\n'
            f'[postfix]\nreach = "{self._host.name}"\nssh_config = "{self._world.directory}/ssh_config"\n'
        )
        with running(self.config, "core", program=("-c", LOOKS_OFTEN)) as process:
            until(lambda: self.answers(process))
            yield

    def answers(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, (self.directory / "said").read_text()
        with contextlib.suppress(CoreUnreachable):
            return bool(self.status()["log"]["followed"])
        return False

    def status(self) -> dict[str, Any]:
        return ask_core(self.directory / "control", {"command": "status"}, timeout=60.0)

    def do(self, what: str, **more: Any) -> None:
        asked = {"command": "subqueue", "do": what, "key": KEY, "who": "test", **more}
        ask_core(self.directory / "control", asked, timeout=60.0)


class Sshd:
    """A real one on loopback, with its own configuration and keys; its key may run the gate of one host and nothing else."""

    def __init__(self, directory: Path, host: MailHost) -> None:
        self.port = free_port()
        self.directory = directory / f"sshd-{host.name}"
        self.directory.mkdir()
        key(self.directory / "host_key")
        gate = f"cd {ROOT} && exec {sys.executable} -m sidecar --config {host.config} queue-gate"
        public = (directory / "key.pub").read_text()
        (self.directory / "authorized_keys").write_text(f'restrict,command="{gate}" {public}')
        (self.directory / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.directory}/host_key\n"
            f"AuthorizedKeysFile {self.directory}/authorized_keys\nPidFile none\nUsePAM no\nStrictModes no\n"
            "PasswordAuthentication no\nPermitRootLogin forced-commands-only\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def known(self) -> str:
        return f"[127.0.0.1]:{self.port} {(self.directory / 'host_key.pub').read_text()}"

    def start(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)
        command = [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", str(self.directory / "sshd_config")]
        with (self.directory / "said").open("ab") as said:
            self._process = subprocess.Popen(command, stderr=said, start_new_session=True)

    def freeze(self) -> None:
        """Have its sessions do nothing any more, with their connections open; new ones are answered."""
        assert self._process is not None
        for child in children(self._process.pid):
            send(child, signal.SIGSTOP)

    def cut(self) -> None:
        """End it with all sessions that it has."""
        assert self._process is not None
        for child in children(self._process.pid):
            send(child, signal.SIGKILL)
        self._process.kill()
        self._process.wait()


def children(pid: int) -> list[int]:
    """All below it; any of them may end at this very moment, as a session's short commands do."""
    try:
        found = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return found + [each for child in found for each in children(child)]


def send(pid: int, number: signal.Signals) -> None:
    """As `kill` does; who has ended needs none."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that user postfix may enter, which pytest's own is not."""
    made = Path(tempfile.mkdtemp(prefix="mail-host-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def world(directory: Path) -> Iterator[World]:
    log = directory / "all.log"
    log.touch()
    with Exchanger() as exchanger, contextlib.ExitStack() as stack:
        threading.Thread(target=exchanger.serve_forever, daemon=True).start()
        stack.callback(exchanger.shutdown)
        hosts = tuple(
            stack.enter_context(mail_host_of(directory / name, exchanger.server_address[1])) for name in NAMES
        )
        stop = threading.Event()
        collector = threading.Thread(target=collect, args=(hosts, log, stop))
        collector.start()
        stack.callback(collector.join)
        stack.callback(stop.set)
        yield World(directory, hosts, log)


def collect(hosts: tuple[MailHost, ...], log: Path, stop: threading.Event) -> None:
    """As rsyslog does: the lines of all hosts into one file, each with its host's name."""
    with contextlib.ExitStack() as stack:
        sources = [(host.name, stack.enter_context(host.mail.maillog.open())) for host in hosts]
        target = stack.enter_context(log.open("a", buffering=1))
        while not stop.wait(0.05):
            for name, source in sources:
                for line in source.readlines():
                    stamp, _, rest = line.partition(" postfix/")
                    words = stamp.split(" ")
                    target.write(" ".join([*words[:-1], name]) + " postfix/" + rest if rest else line)


@pytest.fixture
def links(world: World) -> Iterator[dict[str, Sshd]]:
    """The way to each host."""
    key(world.directory / "key")
    found = {host.name: Sshd(world.directory, host) for host in world.hosts}
    (world.directory / "known_hosts").write_text("".join(each.known() for each in found.values()))
    (world.directory / "ssh_config").write_text(
        f"IdentityFile {world.directory}/key\nIdentitiesOnly yes\nUserKnownHostsFile {world.directory}/known_hosts\nUser root\n"
        + "".join(f"Host {name}\n  HostName 127.0.0.1\n  Port {each.port}\n" for name, each in found.items())
    )
    for each in found.values():
        each.start()
    yield found
    for each in found.values():
        each.cut()
        shutil.rmtree(each.directory)
    for name in ("key", "key.pub"):
        (world.directory / name).unlink()


def test_each_host_s_mail_is_held_and_let_go_on_that_host(world: World, links: dict[str, Sshd]) -> None:
    one, two = world.hosts
    with world.core(0).running() as _, world.core(1).running() as _:
        cores = world.core(0), world.core(1)
        for host, count in ((one, 3), (two, 2)):
            submit(host, count)
            until(lambda host=host, count=count: host.deferred() == count)  # type: ignore[misc]
        until(lambda: [core.status()["messages_live"] for core in cores] == [3, 2])  # each knows its own alone

        cores[0].do("pause", seconds=600)
        until(lambda: one.on_hold() == 3)
        assert two.on_hold() == 0
        cores[1].do("pause", seconds=600)
        until(lambda: two.on_hold() == 2)
        until((one.directory / "heartbeat").exists)

        links["mx1"].cut()
        cores[0].do("close")
        until(lambda: not cores[0].status()["helper"]["reachable"])
        assert cores[0].status()["held_total"] == 3  # known, and let go as soon as the host is there again
        assert one.on_hold() == 3
        cores[1].do("close")
        until(lambda: two.on_hold() == 0)

        links["mx1"].start()
        until(lambda: one.on_hold() == 0)
        until(lambda: cores[0].status()["held_total"] == 0)

        cores[0].do("pause", seconds=600)
        until(lambda: one.on_hold() == 3)
        links["mx1"].cut()
        os.utime(one.directory / "heartbeat", (1, 1))  # as if the link were away for long
        failsafe = [sys.executable, "-m", "sidecar", "--config", str(one.config), "failsafe", "--json"]
        told = json.loads(subprocess.run(failsafe, capture_output=True, check=True, cwd=ROOT).stdout)
        assert told["state"] == "released"
        assert one.on_hold() == 0
        cores[0].do("close")  # else it takes them again
        links["mx1"].start()
        until(lambda: cores[0].status()["held_total"] == 0, within=90)


@pytest.mark.usefixtures("links")
def test_mail_of_the_other_host_is_requeued_there_after_that_host_s_own_checks(world: World) -> None:
    host, core = world.hosts[1], world.core(1)
    before = {each.queue_id for each in host.mail.postqueue()}
    with core.running():
        control = core.directory / "control"
        for wanted, why in (
            ({"transport": "smtp", "to": "relay"}, "leave --to out"),
            ({"transport": "lane-07"}, "the log names none lane-07"),
        ):
            with pytest.raises(CoreRefused, match=why):
                ask_core(control, {"command": "requeue", **wanted}, timeout=60.0)
        submit(host, 2)
        until(lambda: host.deferred() == len(before) + 2)
        until(lambda: core.status()["messages_live"] == len(before) + 2)
        queued = {each.queue_id for each in host.mail.postqueue()} - before
        ask_core(control, {"command": "requeue", "transport": "smtp", "rate": 10.0}, timeout=60.0)
        until(lambda: not queued & {each.queue_id for each in host.mail.postqueue()})
        until(lambda: host.deferred() == len(before) + 2)  # each once, under another id


@pytest.mark.timeout(300)
def test_a_link_that_hangs_stalls_no_other_host_and_is_given_up(world: World, links: dict[str, Sshd]) -> None:
    one, two = world.hosts
    cores = world.core(0), world.core(1)
    with cores[0].running(), cores[1].running():
        for host, core in zip((one, two), cores, strict=True):
            mail = host.deferred()
            submit(host, 1)
            until(lambda host=host, mail=mail: host.deferred() == mail + 1)  # type: ignore[misc]
            until(lambda core=core, host=host: core.status()["messages_live"] == host.deferred())  # type: ignore[misc]
            core.do("pause", seconds=600)
        until(lambda: bool(one.on_hold() and two.on_hold()))
        asked = time.monotonic()
        links["mx1"].freeze()
        cores[0].do("close")
        cores[1].do("close")
        until(lambda: two.on_hold() == 0)
        assert cores[0].status()["held_total"] == one.on_hold()  # it is answered while its commands hang
        until(lambda: one.on_hold() == 0, within=120)  # over another connection, as soon as ssh gives up the first
        assert time.monotonic() - asked >= 10.0


@pytest.mark.parametrize("trouble", ["no answer to a SYN", "no word of SSH"])
def test_an_address_that_does_not_answer_is_given_up_in_time(world: World, trouble: str) -> None:
    """A port whose queue of connections is full is as silent as an address behind which nothing is."""
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        for _ in range(3 if trouble == "no answer to a SYN" else 0):
            full = stack.enter_context(socket.socket())
            full.setblocking(False)
            full.connect_ex(silent.getsockname())
        file = world.directory / "ssh_config_of_silence"
        file.write_text(f"Host mx9\n  HostName 127.0.0.1\n  Port {silent.getsockname()[1]}\n")
        config = dataclasses.replace(far(world, "mx1"), postfix=PostfixConfig(reach="mx9", ssh_config=str(file)))
        asked = time.monotonic()
        with pytest.raises(PostfixError, match=r"mx9: .*(timed out|timeout)"):
            mail_host.instances(config)
        assert time.monotonic() - asked < mail_host.WITHIN


@pytest.mark.usefixtures("links")
def test_the_key_runs_the_gate_and_nothing_else(world: World) -> None:
    until(lambda: reaches(world))
    config = far(world, "mx1")
    command = (*mail_host.command(config)[:-2], "touch", str(world.directory / "touched"))
    asked = b'{"command": "instances"}\n{"command": ["list"]}\n{"command": "hold", "instance": "postfix", "ids": ["../x"]}\nno\n'
    said = subprocess.run(command, input=asked, capture_output=True, check=True, timeout=60).stdout.splitlines()
    answers = [json.loads(line) for line in said]
    assert [answer["ok"] for answer in answers] == [True, False, False, False]
    assert "is no queue id" in answers[2]["error"]
    assert not (world.directory / "touched").exists()


def reaches(world: World) -> bool:
    with contextlib.suppress(PostfixError):
        return bool(mail_host.instances(far(world, "mx1")))
    return False


def far(world: World, name: str) -> Config:
    reach = PostfixConfig(reach=name, ssh_config=str(world.directory / "ssh_config"))
    return Config(log=LogConfig(host=name), postfix=reach, store=StoreConfig(path=str(world.directory)))


def test_a_host_that_is_away_is_as_it_last_said_and_an_unknown_one_is_no_beginning(
    world: World, links: dict[str, Sshd]
) -> None:
    until(lambda: reaches(world))
    known = mail_host.instances(far(world, "mx1"))
    assert known[0].queue_directory == world.hosts[0].mail.queue_directory
    links["mx1"].cut()
    assert mail_host.instances(far(world, "mx1")) == known
    (world.directory / mail_host.KNOWN).unlink()
    with pytest.raises(PostfixError, match=r"mx1: .*Connection refused.*; does ssh reach it"):
        mail_host.instances(far(world, "mx1"))
    links["mx1"].start()


def test_a_gate_without_a_helper_says_so(tmp_path: Path) -> None:
    gate = QueueGate(Config(runtime_directory=str(tmp_path)))
    answer = json.loads(gate.answer(b'{"command": "held", "instance": "postfix"}\n'))
    assert answer == {"ok": False, "error": "No such file or directory; does sidecar-queue-helper run on this host?"}
    assert json.loads(gate.answer(b'{"command": "alive"}')) == {"ok": True}
    assert (tmp_path / "heartbeat").exists()
    gate.close()


FAR = Config(mode=Mode.ACT, log=LogConfig(host="mx1"), postfix=PostfixConfig(reach="mx1"))


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (dataclasses.replace(FAR, log=LogConfig()), "log.host: empty, with postfix.reach"),
        (dataclasses.replace(FAR, postfix=PostfixConfig(reach="nowhere")), 'wanted mode = "observe"'),
        (dataclasses.replace(FAR, postfix=PostfixConfig(reach="-oProxyCommand=x")), "wanted .USER@.HOST"),
        (dataclasses.replace(FAR, route=(Route("lane-01", "google"),)), "route: set, with postfix.reach"),
        (
            dataclasses.replace(FAR, postfix=PostfixConfig(reach="mx1", transport_table="lmdb:x")),
            "postfix.transport_table",
        ),
    ],
)
def test_what_cannot_go_together_is_refused(config: Config, wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        mail_host.check(config)


def test_a_host_without_a_way_to_it_is_observed() -> None:
    config = dataclasses.replace(FAR, mode=Mode.OBSERVE, postfix=PostfixConfig(reach="nowhere"))
    mail_host.check(config)
    assert [each.syslog_name for each in mail_host.instances(config)] == ["postfix"]
    assert not mail_host.is_far(config)
