"""Networks of the lab's hosts and of their Redis, and the cables between them; they vanish with the lab's processes.

Each host has one cable to the providers and senders, and one to Redis: either can be pulled by itself.
"""

import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import NamedTuple

from sidecar.lab import namespace
from sidecar.lab.namespace import NamespaceError

PROVIDERS = "10.79.0"
"""The network of the providers' addresses; they are the lab's own."""
RESOLVER = f"{PROVIDERS}.53"
ALL_STORES = "10.78.0.1"
"""Where every host finds the servers in the network of Redis, whichever cable it comes by."""


class Network(NamedTuple):
    """A network namespace; a process that sleeps keeps it."""

    keeper: "subprocess.Popen[bytes]"

    @property
    def within(self) -> tuple[str, ...]:
        """The command that starts another in it (nsenter(1))."""
        return ("nsenter", f"--net=/proc/{self.keeper.pid}/ns/net", "--")

    def ip(self, *arguments: str) -> None:
        ip(*arguments, within=self.within)

    def listen(self, port: int) -> socket.socket:
        """Give a socket that listens at all of its addresses, for this process to serve."""
        made: list[socket.socket] = []

        def inside() -> None:
            namespace.into_network(self.keeper.pid)
            made.append(socket.create_server(("0.0.0.0", port)))  # noqa: S104  # of that network

        thread = threading.Thread(target=inside)  # a thread moves alone; this one ends there
        thread.start()
        thread.join()
        if not made:
            raise NamespaceError(f"no socket could be had at port {port} of another network")
        return made[0]


def missing_programs() -> list[str]:
    """Programs that a fleet needs beside Postfix, and that are not installed."""
    return [name for name in ("ip", "nsenter", "redis-server") if shutil.which(name) is None]


def store_network(network: Network) -> None:
    """Give the network of Redis the address that all hosts know."""
    network.ip("address", "add", f"{ALL_STORES}/32", "dev", "lo")


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A new one, with its loopback up. Raises NamespaceError."""
    keeper = subprocess.Popen(
        ["sleep", "infinity"],
        preexec_fn=namespace.new_network,  # noqa: PLW1509  # one system call, and no other thread is in it
    )
    try:
        made = Network(keeper)
        made.ip("link", "set", "lo", "up")
        yield made
    finally:
        keeper.kill()
        keeper.wait()


def mail_address(number: int) -> str:
    """Where the senders find a host, and the providers see it come from."""
    return f"10.77.{number}.2"


def store_address(number: int) -> str:
    """Where a host finds Redis: at the end of its own cable."""
    return f"10.78.{number}.1"


def to_the_world(host: Network, number: int) -> None:
    """Lay the cable between a host and the lab, where senders and providers are."""
    ip("link", "add", f"mail{number}", "type", "veth", "peer", "name", "mail", "netns", str(host.keeper.pid))
    ip("address", "add", f"10.77.{number}.1/30", "dev", f"mail{number}")
    ip("link", "set", f"mail{number}", "up")
    host.ip("address", "add", f"{mail_address(number)}/30", "dev", "mail")
    host.ip("link", "set", "mail", "up")
    host.ip("route", "add", "default", "via", f"10.77.{number}.1")


def to_the_store(host: Network, store: Network, number: int) -> None:
    """Lay the cable between a host and Redis."""
    store.ip("link", "add", f"host{number}", "type", "veth", "peer", "name", "store", "netns", str(host.keeper.pid))
    store.ip("address", "add", f"{store_address(number)}/30", "dev", f"host{number}")
    store.ip("link", "set", f"host{number}", "up")
    host.ip("address", "add", f"10.78.{number}.2/30", "dev", "store")
    host.ip("link", "set", "store", "up")
    host.ip("route", "add", f"{ALL_STORES}/32", "via", store_address(number))


def pull(store: Network, number: int) -> None:
    """Take a host's link to Redis down: what is sent is lost, and nobody is told."""
    store.ip("link", "set", f"host{number}", "down")


def plug(store: Network, number: int) -> None:
    store.ip("link", "set", f"host{number}", "up")


def ip(*arguments: str, within: tuple[str, ...] = ()) -> None:
    """Have the program ip change or show something.

    Raises NamespaceError.
    """
    done = subprocess.run([*within, "ip", *arguments], capture_output=True, text=True, check=False, timeout=20)
    if done.returncode != 0:
        raise NamespaceError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
