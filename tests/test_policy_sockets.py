"""Where smtpd reaches us: addresses, owners, stale and inherited sockets."""

import os
import pwd
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.config import ConfigError
from sidecar.policy_sockets import (
    Listener,
    Listening,
    connections_within_limits,
    listen,
)
from sidecar.systemd import Inherited, inherited_sockets

ROOT = Path(__file__).parent.parent


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    (tmp_path / "private").mkdir()
    return tmp_path


@pytest.fixture
def opened() -> Iterator[list[Listening]]:
    listening: list[Listening] = []
    yield listening
    for each in listening:
        each.close()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "policy.listen: found '', wanted unix:PATH or inet:ADDRESS:PORT"),
        ("unix:", "found 'unix:', wanted unix:PATH"),
        ("private/sidecar", "found 'private/sidecar', wanted unix:PATH"),
        ("inet:10040", "with a numeric address"),
        ("inet:localhost:10040", "with a numeric address, as unix:private/sidecar or inet:127.0.0.1:10040"),
        ("inet:127.0.0.1:smtp", "wanted unix:PATH or inet:ADDRESS:PORT"),
        ("inet:127.0.0.1:65536", "wanted unix:PATH or inet:ADDRESS:PORT"),
        ("tcp:127.0.0.1:10040", "wanted unix:PATH or inet:ADDRESS:PORT"),
        ("unix:" + "x" * 120, "longer than the 107 bytes"),
        ("unix:no/such/directory", "cannot listen there: No such file or directory"),
        ("inet:192.0.2.1:10040", "192.0.2.1:10040: cannot listen there: Cannot assign requested address"),
    ],
)
def test_addresses_that_are_none(address: str, message: str, queue: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        listen(Listener(address, Path("/q") if "107" in message else queue))
    assert message in str(refused.value)
    assert str(refused.value).startswith("policy.listen: ")


@pytest.mark.parametrize("address", ["unix:private/sidecar", "unix:{queue}/private/sidecar"])
def test_a_unix_socket_is_for_smtpd_alone(address: str, queue: Path, opened: list[Listening]) -> None:
    umask = os.umask(0)
    try:
        opened.append(listen(Listener(address.format(queue=queue), queue, "postfix-out")))
        assert os.umask(0) == 0, "the umask is as it was"
    finally:
        os.umask(umask)
    path = queue.resolve() / "private/sidecar"
    assert opened[0].path == path
    assert opened[0].postfix_instance == "postfix-out"
    status = path.stat()
    assert stat.S_ISSOCK(status.st_mode)
    mail_owner = pwd.getpwnam("postfix").pw_uid
    if os.geteuid() in {0, mail_owner}:
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (mail_owner, 0o600)
    else:
        assert stat.S_IMODE(status.st_mode) == 0o666
    opened.pop().close()
    assert not path.exists()


def test_without_the_mail_owner(queue: Path) -> None:
    with pytest.raises(ConfigError, match="no user 'no-such-user' \\(Postfix's mail_owner\\) on this host"):
        listen(Listener("unix:private/sidecar", queue), owner="no-such-user")
    assert not (queue / "private/sidecar").exists()


def test_a_stale_socket_is_replaced(queue: Path, opened: list[Listening]) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(queue / "private/sidecar"))
        dead.listen()
    opened.append(listen(Listener("unix:private/sidecar", queue)))


def test_a_socket_in_use_is_not(queue: Path, opened: list[Listening]) -> None:
    opened.append(listen(Listener("unix:private/sidecar", queue)))
    with pytest.raises(ConfigError, match="private/sidecar: socket in use"):
        listen(Listener("unix:private/sidecar", queue))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(queue / "private/sidecar"))


def test_what_is_no_socket_stays(queue: Path) -> None:
    (queue / "private/sidecar").write_text("precious")
    with pytest.raises(ConfigError, match="is not a socket"):
        listen(Listener("unix:private/sidecar", queue))
    assert (queue / "private/sidecar").read_text() == "precious"


def test_a_tcp_port_in_use(opened: list[Listening]) -> None:
    opened.append(listen(Listener("inet:127.0.0.1:0")))
    port = opened[0].socket.getsockname()[1]
    with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: cannot listen there: Address already in use"):
        listen(Listener(f"inet:127.0.0.1:{port}"))


def test_ipv6(opened: list[Listening]) -> None:
    opened.append(listen(Listener("inet:[::1]:0")))
    assert opened[0].socket.family == socket.AF_INET6


def test_an_address_that_others_reach_is_told(caplog: pytest.LogCaptureFixture, opened: list[Listening]) -> None:
    opened.append(listen(Listener("inet:0.0.0.0:0")))
    assert "whoever reaches this address learns our answers" in caplog.text


def test_an_inherited_socket_is_known_by_its_address(queue: Path, opened: list[Listening]) -> None:
    path = queue / "private/sidecar"
    with socket.socket(socket.AF_UNIX) as kept, socket.socket(socket.AF_UNIX) as other, socket.socket() as tcp:
        kept.bind(str(path))
        other.bind(str(queue / "control"))
        tcp.bind(("127.0.0.1", 0))
        inherited = [Inherited("control", other), Inherited("policy", kept), Inherited("", tcp)]
        port = tcp.getsockname()[1]
        for address, passed in ((f"unix:{path}", kept), (f"inet:127.0.0.1:{port}", tcp)):
            listening = listen(Listener(address), inherited=inherited)
            assert listening.socket is passed
            assert listening.path is None, "systemd's to remove"
            assert listening.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        opened.append(listen(Listener("unix:private/another", queue), inherited=inherited))
        assert opened[0].path


def test_a_link_to_the_queue_directory_makes_no_difference(queue: Path) -> None:
    (queue / "link").symlink_to(queue / "private")
    with socket.socket(socket.AF_UNIX) as kept:
        kept.bind(str(queue / "private/sidecar"))
        listening = listen(Listener("unix:link/sidecar", queue), inherited=[Inherited("", kept)])
        assert listening.socket is kept


TAKES_OVER = """
import os, socket, sys
from sidecar.systemd import inherited_sockets
first, second = socket.socket(socket.AF_UNIX), socket.socket()
first.bind(sys.argv[1])
os.dup2(first.fileno(), 20); os.dup2(second.fileno(), 21)
os.dup2(20, 3); os.dup2(21, 4)
passed = inherited_sockets(
    {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "policy:other"}, pid=os.getpid()
)
print([(each.name, each.socket.family.name, each.socket.fileno(), os.get_inheritable(each.socket.fileno()))
       for each in passed])
"""


def test_sockets_that_systemd_passes(tmp_path: Path) -> None:
    """Their numbers begin at 3, so that it takes a process of its own."""
    command = [sys.executable, "-c", TAKES_OVER, str(tmp_path / "socket")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert printed.strip() == str([("policy", "AF_UNIX", 3, False), ("other", "AF_INET", 4, False)])


@pytest.mark.parametrize("environ", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}])
def test_sockets_that_are_not_for_us(environ: dict[str, str]) -> None:
    assert inherited_sockets(environ, pid=2) == []


def test_descriptors_are_spared_for_the_rest_of_the_process(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"limit": (1024, 1024)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["limit"])
    assert connections_within_limits(100) == 100
    assert not caplog.records
    assert connections_within_limits(2000) == 768
    assert "at most 768 connections, for the limit of open files is 1024; wanted 2000" in caplog.text
    limits["limit"] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert connections_within_limits(2000) == 2000
