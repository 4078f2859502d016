"""The lab's Redis with a replica and three real Sentinels, which make that the primary when the first one dies.

All stand in the network of the lab's Redis, at one address that every host has a way to.
"""

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from sidecar.lab.hosts.links import ALL_STORES, Network
from sidecar.lab.hosts.shared_store import PORT, StoreError
from sidecar.lab.patience import longer

NAME = "fleet"
REPLICA_PORT = 6381
PORTS = (26_379, 26_380, 26_381)
_DOWN_AFTER_MS = 2_000
_READY_S = 30.0
_CONFIGURATION = """\
port {port}
bind 0.0.0.0
protected-mode no
unixsocket {socket}
dir {directory}
logfile {directory}/sentinel-{port}.log
sentinel monitor {name} {address} {primary} 2
sentinel down-after-milliseconds {name} {down_after}
sentinel failover-timeout {name} 10000
sentinel parallel-syncs {name} 1
"""


class Sentinels:
    """Three, so that two agree when one is wrong."""

    def __init__(self, network: Network, directory: Path) -> None:
        self._network = network
        self._directory = directory
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the replica and those who watch; the primary runs. Raises StoreError."""
        where = ("--port", str(REPLICA_PORT), "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "")  # noqa: S104
        follows = (
            "--replicaof",
            ALL_STORES,
            str(PORT),
            "--replica-announce-ip",
            ALL_STORES,
            "--repl-diskless-sync-delay",
            "0",
        )
        files = ("--unixsocket", str(self._socket(REPLICA_PORT)), "--dir", str(self._directory))
        self._run("redis-server", *where, *follows, *files, "--logfile", str(self._directory / "replica.log"))
        for port in PORTS:
            file = self._directory / f"sentinel-{port}.conf"
            file.write_text(
                _CONFIGURATION.format(
                    port=port,
                    socket=self._socket(port),
                    directory=self._directory,
                    name=NAME,
                    address=ALL_STORES,
                    primary=PORT,
                    down_after=_DOWN_AFTER_MS,
                )
            )
            self._run("redis-server", str(file), "--sentinel")
        self._until(self._all_see_each_other, "the Sentinels do not see each other and the replica")

    def wait_for_the_replica(self) -> None:
        """Return when it is the primary, and all Sentinels say so. Raises StoreError."""
        self._until(self._replica_leads, "the replica is not made the primary")

    def kill(self) -> None:
        for each in self._running:
            each.kill()
            each.wait()
        self._running.clear()

    def _run(self, *command: str) -> None:
        self._running.append(subprocess.Popen([*self._network.within, *command], stdout=subprocess.DEVNULL))

    def _socket(self, port: int) -> Path:
        return self._directory / f"redis-{port}.sock"

    def _until(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + longer(_READY_S)
        while time.monotonic() < deadline:
            with contextlib.suppress(redis.RedisError, OSError):
                if true():
                    return
            time.sleep(0.05)
        raise StoreError(f"{what} within {longer(_READY_S):g} s; see {self._directory}/sentinel-*.log")

    def _asked(self, port: int, *question: str) -> Any:
        with redis.Redis(unix_socket_path=str(self._socket(port)), decode_responses=True, socket_timeout=1.0) as server:
            return server.execute_command(*question)

    def _all_see_each_other(self) -> bool:
        said = [self._asked(port, "SENTINEL MASTER", NAME) for port in PORTS]
        return all((int(each["num-other-sentinels"]), int(each["num-slaves"])) == (len(PORTS) - 1, 1) for each in said)

    def _replica_leads(self) -> bool:
        ports = {int(self._asked(port, "SENTINEL GET-MASTER-ADDR-BY-NAME", NAME)[1]) for port in PORTS}
        return ports == {REPLICA_PORT} and self._asked(REPLICA_PORT, "ROLE")[0] == "master"
