"""A place of the lab's own: network, mounts and processes that vanish with the lab, and one directory.

The processes inside are a PID namespace: when its first one ends, by whatever signal, the kernel ends the rest.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

_PREFIX = "sidecar-lab-"
# sched.h, sys/mount.h, linux/if.h, linux/prctl.h: Python 3.11 has no names for them.
_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_PR_SET_PDEATHSIG = 1

_GRACE_S = 30.0
"""So long the lab has to end by itself after a signal."""


class NamespaceError(Exception):
    """No namespace: says what was refused and why."""


def run(module: str, arguments: Sequence[str], *, resolver: str, sockets: Sequence[int] = ()) -> int:
    """Run `python -m MODULE ARGUMENTS --inside DIRECTORY` in namespaces of its own; its exit status.

    The calling process moves into the new network and mount namespaces; `sockets` are descriptors that the other
    inherits. SIGINT and SIGTERM are passed on; the directory is removed at the end. Raises NamespaceError.
    """
    if os.geteuid() != 0:
        raise NamespaceError("the lab needs root: it makes a network namespace and starts a Postfix of its own")
    _sweep()
    with _directory() as directory:
        _enter(directory, resolver)
        command = [sys.executable, "-m", module, *arguments, "--inside", str(directory)]
        environment = os.environ | {"PYTHONPATH": _import_path()}
        # fork without exec in between only calls prctl; this process has one thread.
        inner = subprocess.Popen(
            command,
            env=environment,
            pass_fds=sockets,
            preexec_fn=_end_with_parent,  # noqa: PLW1509  # see above
            start_new_session=True,
        )
        return _watch(inner)


def mount_proc() -> None:
    """First thing inside: /proc must show the new processes, not the host's."""
    _mount("proc", "/proc", "proc", 0)


def _watch(inner: "subprocess.Popen[bytes]") -> int:
    """Wait for the lab; pass signals on, the third one ends it for good."""
    received: list[int] = []

    def passed_on(number: int, _: FrameType | None) -> None:
        received.append(number)
        inner.send_signal(signal.SIGKILL if len(received) > 2 else number)
        signal.setitimer(signal.ITIMER_REAL, _GRACE_S)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, passed_on)
    signal.signal(signal.SIGALRM, lambda *_: inner.kill())
    status = inner.wait()
    signal.setitimer(signal.ITIMER_REAL, 0)
    return status if status >= 0 else 128 - status


def _enter(directory: Path, resolver: str) -> None:
    _unshare(_CLONE_NEWNET | _CLONE_NEWNS)
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _loopback_up()
    resolv_conf = directory / "resolv.conf"
    resolv_conf.write_text(f"nameserver {resolver}\n")
    if Path("/etc/resolv.conf").exists():
        _mount(str(resolv_conf), "/etc/resolv.conf", None, _MS_BIND)
    # From here on the next child is the first process of a new PID namespace.
    _unshare(_CLONE_NEWPID)


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """A fresh directory that user postfix can enter, named after this process."""
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _sweep() -> None:
    """Remove directories whose lab was killed before it could."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = directory.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(directory, ignore_errors=True)


def _import_path() -> str:
    """This program's own packages first, wherever it was started from."""
    own = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")])])


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


_LIBC = ctypes.CDLL(None, use_errno=True)


def _unshare(flags: int) -> None:
    if _LIBC.unshare(flags) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise NamespaceError(
            f"a namespace is refused: {reason}; the lab needs CAP_SYS_ADMIN (in a container: --privileged)"
        )


def new_network() -> None:
    """Move this process into a network of its own, in which nothing is up.

    Raises NamespaceError.
    """
    _unshare(_CLONE_NEWNET)


def into_network(pid: int) -> None:
    """Move this thread into the network of a process.

    Raises NamespaceError.
    """
    with Path(f"/proc/{pid}/ns/net").open("rb") as network:
        if _LIBC.setns(network.fileno(), _CLONE_NEWNET) != 0:
            raise NamespaceError(f"the network of process {pid} is refused: {os.strerror(ctypes.get_errno())}")


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    encoded = kind.encode() if kind else None
    if _LIBC.mount(source.encode(), target.encode(), encoded, ctypes.c_ulong(flags), None) != 0:
        raise NamespaceError(f"mount {source} on {target} is refused: {os.strerror(ctypes.get_errno())}")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))
