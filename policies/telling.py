"""What the engine tells: changes for the audit log and attempts for the store, until somebody takes them."""

from collections import Counter

from policies.commands import Attempt, Change, Received, Removed


class Telling:
    """Collects what happened; the shell stores it."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.attempts: list[Attempt] = []
        self.received: list[Received] = []
        self.removed: list[Removed] = []
        self.change_counts: Counter[str] = Counter()
        self.attempt_counts: Counter[tuple[str, str]] = Counter()
        """By (provider, status)."""
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
        by_whom: str = "engine",
        messages: int = 0,
    ) -> None:
        """Add a change: `kind` as in `Change.kind`."""
        self.change_counts[kind] += 1
        self.changes.append(Change(now, key, kind, state, why, line, rule, by_whom, messages))

    def attempted(self, attempt: Attempt) -> None:
        self.attempt_counts[attempt.provider or "none", attempt.status] += 1
        self.attempts.append(attempt)
