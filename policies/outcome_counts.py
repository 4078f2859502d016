"""Delivery attempts and sub-queues' steps counted for ever, by few names: what a monitoring system adds up.

Knows what is counted as what, and that a value without a fair share of the mail has no name of its own: the number
of counters is bounded, whatever the mail. What is counted is what `policies/rollup.py` sums up.
"""

from collections import Counter
from typing import Final

from policies.commands import Attempt
from policies.naming import Naming
from policies.rollup import counts
from policies.time_to_delivery import BUCKETS, bucket_of

OTHER: Final = "other"
NONE: Final = "none"
"""Provider of mail whose outcome is no mailbox provider's: local delivery, a relay of our own, or not yet known."""
PROVIDERS: Final = 40
TRANSPORTS: Final = 50
"""Names that are given at once; see `Naming` for how a later one earns its own."""
STATUSES: Final = {
    "sent": "sent",
    "deferred": "deferred",
    "bounced": "bounced",
    "SOFTBOUNCE": "deferred",
    "deliverable": "deliverable",
    "undeliverable": "undeliverable",
}
"""Status as logged -> as counted; with `soft_bounce = yes` nothing bounces."""
STEPS: Final = frozenset({"opened", "paused", "probing", "ramping", "closed"})


class Times:
    """Times to delivery at one provider."""

    __slots__ = ("seconds", "within")

    def __init__(self) -> None:
        self.within = [0] * BUCKETS
        """Deliveries by `time_to_delivery.BOUNDS`, not cumulated."""
        self.seconds = 0.0


class OutcomeCounts:
    """Counters since core was started; none ever falls."""

    def __init__(self, *, providers: int = PROVIDERS, transports: int = TRANSPORTS) -> None:
        self._providers = Naming[str](providers)
        self._transports = Naming[str](transports)
        self.attempts: Counter[tuple[str, str]] = Counter()
        """By (provider, status)."""
        self.by_transport: Counter[tuple[str, str]] = Counter()
        """By (transport, status)."""
        self.refused: Counter[tuple[str, str, str]] = Counter()
        """Attempts that were not accepted, by (provider, category, bounce) of their classification."""
        self.expired: Counter[str] = Counter()
        """Recipients returned to the sender because their time in the queue was over, by provider."""
        self.times: dict[str, Times] = {}
        """Of what was delivered, by provider."""
        self.steps: Counter[tuple[str, str]] = Counter()
        """By (provider, step) of a sub-queue; "paused" is a pause after the first one: a re-trigger."""

    def attempted(self, attempt: Attempt) -> None:
        """Count one attempt, or a recipient that expired; not one that only handed mail on within the host."""
        if not counts(attempt):
            return
        provider = self._provider(attempt.provider)
        if attempt.status == "expired":
            self.expired[provider] += 1
            return
        status = STATUSES.get(attempt.status, OTHER)
        self.attempts[provider, status] += 1
        transport = attempt.service or NONE
        self.by_transport[transport if self._transports.has(transport) else OTHER, status] += 1
        if attempt.status == "sent":
            times = self.times.get(provider) or self.times.setdefault(provider, Times())
            times.within[bucket_of(attempt.delay)] += 1
            times.seconds += max(0.0, attempt.delay)
        else:
            self.refused[provider, attempt.detail.partition(".")[0] or "unknown", attempt.bounce or NONE] += 1

    def stepped(self, provider: str, step: str) -> None:
        """Count a sub-queue that opened or changed its state; other kinds of changes are none of these."""
        if step in STEPS:
            self.steps[self._provider(provider), step] += 1

    def _provider(self, provider: str) -> str:
        named = provider or NONE
        return named if self._providers.has(named) else OTHER
