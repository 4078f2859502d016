"""When a feed is asked again, and from when on it is blind.

Knows the times of a feed's polls and how they ended; dice and clock are arguments.
"""

from typing import NamedTuple

from parsers.feeds.asking import Reading, Trouble

BLIND_AFTER = 2.5
"""Cadences without a reading after which a feed is called blind: two missed polls and a late one."""


class Cadence(NamedTuple):
    every: float
    """Seconds between two polls."""
    retry_first: float = 60.0
    """Seconds until a failed poll is repeated; doubles to `every`."""
    jitter: float = 0.1
    """Share of the interval by which it varies, so that a fleet does not ask in one moment."""


class Standing(NamedTuple):
    """Where a feed stands; stored, so that a restart neither asks too early nor forgets that it is blind."""

    asked_at: float = 0.0
    told_at: float = 0.0
    """Of the last poll without trouble."""
    next_at: float = 0.0
    failures: int = 0
    """Polls with trouble in a row."""
    trouble: Trouble | None = None
    why: str = ""
    since: float = 0.0
    """When it was first asked: a feed that never told anything is blind some cadences after this."""

    def after(self, reading: Reading, cadence: Cadence, *, now: float, dice: float) -> "Standing":
        """Tell where it stands after a poll; `dice` is a number from 0 to 1."""
        troubled = reading.trouble is not None
        failures = self.failures + 1 if troubled else 0
        wait = cadence.every
        if troubled and reading.trouble not in _NO_USE:
            wait = min(cadence.retry_first * 2.0 ** min(failures - 1, 30), cadence.every)
        wait = max(wait * (1.0 + cadence.jitter * (2.0 * dice - 1.0)), reading.retry_after)
        return Standing(
            asked_at=now,
            told_at=self.told_at if troubled else now,
            next_at=now + wait,
            failures=failures,
            trouble=reading.trouble,
            why=reading.why,
            since=self.since or now,
        )

    def blind(self, cadence: Cadence, *, now: float) -> bool:
        """Whether nothing was told for so long that silence is news of its own."""
        since = self.told_at or self.since
        return since > 0 and now - since > BLIND_AFTER * cadence.every

    def first_poll(self, cadence: Cadence, *, now: float, dice: float) -> float:
        """Tell when to ask after a start: as planned; what is new or overdue within a tenth of its cadence."""
        soon = now + dice * min(cadence.jitter * cadence.every, 30.0)
        return min(max(self.next_at, soon), now + cadence.every) if self.next_at else soon


_NO_USE = frozenset({Trouble.AUTHENTICATION, Trouble.REFUSED, Trouble.CONFIGURATION})
"""Troubles that asking sooner does not mend, and may make worse."""
