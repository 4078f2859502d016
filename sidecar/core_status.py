"""What core's answer to "status" says of its sub-queues and of the fleet, as values.

Knows the answer's fields; shown they are by `sidecar status` and the status page.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from sidecar.own_log import printable


class Row(NamedTuple):
    """One sub-queue, as core describes it."""

    key: str
    state: str
    since: float
    held: int
    let_out: int
    budget_per_s: float | None
    next_step_at: float | None
    line: str
    """The log line that opened it; empty when it was opened by hand."""
    rule: str
    unheld_attempts: int

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        opened_by = said.get("opened_by") or {}
        return cls(
            key=printable(str(said["key"])),
            state=str(said["state"]),
            since=float(said.get("since") or 0.0),
            held=int(said.get("held") or 0),
            let_out=int(said.get("let_out") or 0),
            budget_per_s=said.get("budget_per_s"),
            next_step_at=said.get("next_step_at"),
            line=printable(str(opened_by.get("line", ""))),
            rule=str(opened_by.get("rule", "")),
            unheld_attempts=int(said.get("unheld_attempts") or 0),
        )


class Host(NamedTuple):
    """One host of the fleet, as the one that was asked knows it; None and "" where it does not."""

    name: str
    silent: bool
    """Not heard of lately."""
    heard: float | None
    """Seconds since the store last answered it."""
    version: str
    mode: str
    held: int | None
    subqueues: int | None
    lag: float | None
    helper: bool | None
    said: float | None
    """Seconds since it said what stands here after `heard`."""

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        return cls(
            name=printable(str(said["host"])),
            silent=bool(said["silent"]),
            heard=said.get("heard_s"),
            version=printable(str(said.get("sidecar") or "")),
            mode=printable(str(said.get("mode") or "")),
            held=said.get("held"),
            subqueues=said.get("subqueues"),
            lag=said.get("lag_s"),
            helper=said.get("helper"),
            said=said.get("said_s"),
        )


class Fleet(NamedTuple):
    host: str
    """The one that was asked."""
    takes_part: bool
    hosts: tuple[Host, ...]
    shared: int
    silent: str
    """Why the store does not answer; "" where it does."""
    alone: bool
    alone_part: float
    twin: bool = False
    """Another host has the same name."""
    suppressions_missed: int = 0
    """Hosts of whose changes to the suppression list some were missed."""
    other_key: str = ""
    """A host whose suppression list is made with another key."""

    @property
    def heard(self) -> int:
        """How many hosts were heard of lately."""
        return sum(not host.silent for host in self.hosts)

    @property
    def held(self) -> int:
        """Messages that the hosts hold, as far as they said."""
        return sum(host.held or 0 for host in self.hosts)

    @property
    def versions(self) -> list[str]:
        return sorted({host.version for host in self.hosts if host.version})

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Self | None:
        """Read what a status answer says of the fleet; None where the host is by itself."""
        said = answer.get("fleet")
        if not said:
            return None
        return cls(
            host=printable(str(said["host"])),
            takes_part=bool(said["takes_part"]),
            hosts=tuple(map(Host.read, said["hosts"])),
            shared=int(said["shared"]),
            silent=printable(str(said["silent"])),
            alone=bool(said["alone"]),
            alone_part=float(said["alone_part"]),
            twin=bool(said.get("twin")),
            suppressions_missed=int((said.get("suppressions") or {}).get("missed_of", 0)),
            other_key=printable(str((said.get("suppressions") or {}).get("other_key", ""))),
        )


def rows(answer: Mapping[str, Any]) -> list[Row]:
    """The sub-queues of a status answer, those that hold most first."""
    return sorted(map(Row.read, answer["subqueues"]), key=lambda row: (-row.held, row.key))
