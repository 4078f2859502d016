"""What the engine tells: changes for the audit log and attempts for the store, until somebody takes them."""

from collections import Counter
from collections.abc import Iterable, Sequence

from policies.access import Parked
from policies.commands import Attempt, Change, Received, Removed
from policies.outcome_counts import OutcomeCounts

ENGINE = "engine"
"""By whom a change is that nobody asked for by hand."""

_RARE = ("unaccounted", "hold-failed", "release-failed")
"""Kinds of changes that are counted from 0 on: the first one must be seen to be one more."""


class Telling:
    """Collects what happened; the shell stores it."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._answered: dict[tuple[str, str, str], tuple[Change, dict[tuple[str, str], None]]] = {}
        self.attempts: list[Attempt] = []
        self.received: list[Received] = []
        self.removed: list[Removed] = []
        self.change_counts: Counter[str] = Counter(dict.fromkeys(_RARE, 0))
        self.outcomes = OutcomeCounts()
        self.unheld_attempts = 0
        """Attempts of a key's mail during its pause that we did not let out."""

    def tell(
        self,
        kind: str,
        why: str,
        *,
        now: float,
        key: str = "",
        state: str = "",
        line: str = "",
        rule: str = "",
        by_whom: str = ENGINE,
        messages: int = 0,
        ids: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Add a change: `kind` as in `Change.kind`."""
        self.change_counts[kind] += 1
        if key and by_whom == ENGINE:
            self.outcomes.stepped(key.rpartition("@")[2], kind)
        self.changes.append(Change(now, key, kind, state, why, line, rule, by_whom, messages, tuple(ids)))

    def add(self, changes: Sequence[Change]) -> None:
        """Add changes that were summed up elsewhere."""
        self.change_counts.update(change.kind for change in changes)
        self.changes += changes

    def answered(self, message: tuple[str, str], parked: Parked, *, state: str, now: float) -> None:
        """Smtpd is told to hold a message, which is (instance, queue id); those of one key become one change."""
        known = self._answered.get((parked.key, parked.rule, state))
        if known is None:
            self.change_counts["answered"] += 1
            known = Change(now, parked.key, "answered", state, parked.why, "", parked.rule, ENGINE, 0), {}
            self._answered[parked.key, parked.rule, state] = known
        known[1][message] = None

    def take_changes(self) -> list[Change]:
        """Give what has changed since the last time."""
        changes, self.changes = self.changes, []
        for change, messages in self._answered.values():
            changes.append(change._replace(messages=len(messages), ids=tuple(messages)))
        self._answered.clear()
        return changes

    def attempted(self, attempt: Attempt) -> None:
        self.outcomes.attempted(attempt)
        self.attempts.append(attempt)
