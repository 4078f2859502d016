"""What core's answer to "status" says of its sub-queues, as values.

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


def rows(answer: Mapping[str, Any]) -> list[Row]:
    """The sub-queues of a status answer, those that hold most first."""
    return sorted(map(Row.read, answer["subqueues"]), key=lambda row: (-row.held, row.key))
