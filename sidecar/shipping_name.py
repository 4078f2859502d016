"""Whether a host has its name on the ClickHouse server for itself: each says now and then that it sends under it.

Knows no events. Times are the server's, so that no two hosts' clocks are compared.
"""

import hashlib
import socket
from pathlib import Path
from typing import Final

from sidecar.clickhouse import ClickHouse, ServerError

SAY_EVERY: Final = 60.0
"""Seconds."""
SILENT_AFTER: Final = 300.0
"""A host that has not said so for this long is believed to send no more: its name may be taken over."""
_MACHINE_ID: Final = Path("/etc/machine-id")
_OTHERS: Final = (
    "SELECT host, max(begun), max(seen) FROM sender WHERE name = ? AND host != ? GROUP BY host ORDER BY host"
)
_NOW: Final = "SELECT toFloat64(toUnixTimestamp(now()))"


class NameTaken(ServerError):  # noqa: N818  # named for the situation
    """Another host sends under our name, and did so before us."""


def this_host() -> str:
    """Give what tells this host from others, also from one of the same name; of the machine id only a digest."""
    try:
        machine = hashlib.sha256(_MACHINE_ID.read_bytes()).hexdigest()[:12]
    except OSError:
        machine = ""
    return f"{socket.gethostname()} {machine}".strip()


class Claim:
    def __init__(self, name: str, host: str) -> None:
        self._name = name
        self._host = host
        self._begun = 0.0
        """By the server's clock; 0: not yet."""
        self._next = 0.0
        """When to say it again, by ours."""

    def hold(self, server: ClickHouse, *, now: float) -> None:
        """Say, where it is time to, that we send under this name. Raises NameTaken, ServerError.

        Of two that began to at the same time the later one gives way, at the latest when it says so again.
        """
        if self._begun and now < self._next:
            return
        at = float(server.rows(_NOW)[0][0])
        mine = self._begun or at, self._host
        for host, begun, seen in server.rows(_OTHERS, (self._name, self._host)):
            if at - seen < SILENT_AFTER and (begun, host) < mine:
                raise NameTaken(
                    f"{server.name}: the host {host!r} sends under the name {self._name!r} as well, last {at - seen:.0f} s ago; "
                    f"nothing is sent from here: give each host a clickhouse.name of its own"
                )
        server.insert("sender", ("name", "host", "begun", "seen"), [(self._name, self._host, mine[0], at)])
        self._begun, self._next = mine[0], now + SAY_EVERY
