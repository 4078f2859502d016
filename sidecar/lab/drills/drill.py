"""What a drill is made of, and the words its coroutine uses: waiting for something to be true, with a limit."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.patience import longer
from sidecar.lab.run import Bench
from sidecar.lab.scenario import Scenario, read

_LOOK_EVERY_S = 0.1


class DrillError(Exception):
    """What the drill waited for did not come: says what, and how long."""


def _nothing(evidence: Evidence, figures: Figures) -> Iterable[str]:
    del evidence, figures
    return ()


@dataclass(frozen=True, slots=True)
class Drill:
    """`act` runs while the fleet sends, at most for the scenario's `seconds`; the run ends when it returns."""

    name: str
    proves: str
    """One sentence: the rule that is broken when this drill fails."""
    toml: str
    """The scenario, with its own main_cf where it needs one."""
    act: Callable[[Bench], Coroutine[Any, Any, None]]
    expects: Callable[[Evidence, Figures], Iterable[str]] = _nothing
    """Complaints beyond those that every drill has."""

    def scenario(self) -> Scenario:
        return read(self.toml, file=Path(f"drill {self.name}"))

    def complaints(self, evidence: Evidence, figures: Figures) -> list[str]:
        """What is wrong, one line each. Lost, duplicated, rejected and wrongly held mail is found for every run."""
        if not figures.injected:
            return [f"{self.name}: nothing was sent, so nothing is proved"]
        silent = [
            f"{self.name}: {queue_id} was removed without a final delivery line for each recipient"
            for queue_id in evidence.log.removed_silently
        ]
        return silent + [f"{self.name}: {complaint}" for complaint in self.expects(evidence, figures)]


async def until(true: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until `true()`.

    Raises DrillError after `seconds`, or longer with more patience.
    """
    limit = longer(seconds)
    deadline = time.monotonic() + limit
    while not true():
        if time.monotonic() > deadline:
            raise DrillError(f"{what}: not within {limit:g} s")
        await asyncio.sleep(_LOOK_EVERY_S)


async def all_delivered(bench: Bench, seconds: float) -> None:
    """Wait until all bursts were sent, and every message handed over was accepted by a provider, or bounced.

    Raises DrillError after `seconds`.
    """
    bursts = sum(sender.burst for sender in bench.scenario.senders())

    def settled() -> bool:
        submissions = bench.fleet.submissions
        if len(submissions.accepted) + len(submissions.rejected) + len(submissions.unsure) < bursts:
            return False
        wanted = sum(len(message.recipients) for message in submissions.accepted)
        there = len({(it.message_id, it.recipient) for it in bench.ledger.accepted})
        return there + len(bench.follower.log.bounced) >= wanted

    await until(settled, "everything delivered", seconds)
