"""The oracle: from what was sent, accepted, refused and logged to the figures of one run.

It counts by (Message-ID, recipient). Nothing here waits or reads a file; what it is given was written down by others.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from sidecar.lab.fleet import Message, Submissions
from sidecar.lab.limits import model, optimum
from sidecar.lab.maillog import MailLog
from sidecar.lab.provider import Covered, Ledger
from sidecar.lab.scenario import By, Limit, Provider, Scenario

_CONCURRENCY = 20
"""Postfix's default_destination_concurrency_limit."""
_EPISODE_GAP_S = 1.0
"""Beside two transactions: so long without an attempt ends an episode."""
_LATE_S = 2.0
"""Mail of the last seconds of a run is not yet late."""
_FEW_REACTIONS = 200
"""With fewer the 99th percentile is the maximum."""
_GOOGLE_PAUSE_S, _PAUSE_S = 600.0, 300.0
"""First pause of the rules (Google asks for ten minutes)."""


class Pair(NamedTuple):
    """One recipient of one message: what the oracle counts."""

    message_id: str
    recipient: str


@dataclass(frozen=True, slots=True)
class Figures:
    """One run. Counts are of pairs, times in seconds; None where nothing was there to measure."""

    injected: int
    delivered: int
    bounced: int
    queued: int
    lost: int
    duplicated: int
    rejected: int
    deferrals: int
    deferrals_first_episode: int
    deferrals_per_delivered: float | None
    others_p50_s: float | None
    others_p95_s: float | None
    others_held: int
    throttled_delivered: int
    drain_ratio: float | None
    retriggers: int
    unheld_attempts: int
    reaction_p50_s: float | None
    reaction_p99_s: float | None

    def findings(self) -> list[str]:
        """What must never be: names of the figures that are not 0."""
        return [name for name in ("lost", "duplicated", "rejected", "others_held") if getattr(self, name)]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was written down in one run."""

    scenario: Scenario
    submissions: Submissions
    ledger: Ledger
    log: MailLog
    queued: frozenset[Pair]
    """Found in the queue after Postfix was stopped."""
    ended: float
    held_rightly: frozenset[str] = frozenset()
    """Signing domains whose own authentication was broken by the drill."""


def figures(evidence: Evidence) -> Figures:
    """Count one run."""
    return _Count(evidence).figures()


def percentile(values: Iterable[float], share: float) -> float | None:
    """Nearest rank: the smallest value that `share` of them do not exceed; None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


class Episode(NamedTuple):
    """Refusals of one identity without a pause between the attempts."""

    start: float
    end: float


def episodes(attempts: Iterable[tuple[float, bool]], gap: float) -> list[Episode]:
    """Group (time, accepted) attempts; an episode begins with a refusal and ends where no attempt follows for `gap`."""
    found: list[Episode] = []
    last = -math.inf
    open_now = False
    for time, accepted in sorted(attempts):
        if time - last > gap:
            open_now = False
        last = time
        if not accepted and not open_now:
            found.append(Episode(time, time))
            open_now = True
        elif not accepted:
            found[-1] = Episode(found[-1].start, time)
    return found


class _Count:
    """The working of `figures`: looks things up once, then one method a figure."""

    def __init__(self, evidence: Evidence) -> None:
        self.it = evidence
        self.provider_of = {domain: provider for provider in evidence.scenario.provider for domain in provider.domains}
        self.delivered_at: dict[Pair, float] = {}
        self.copies: Counter[Pair] = Counter()
        for accepted in evidence.ledger.accepted:
            pair = Pair(accepted.message_id, accepted.recipient)
            self.delivered_at.setdefault(pair, accepted.time)
            self.copies[pair] += 1
        self.bounced = {
            Pair(evidence.log.message_ids.get(queue_id, ""), recipient) for queue_id, recipient in evidence.log.bounced
        }
        seen = self.delivered_at.keys() | self.bounced | evidence.queued
        unsure = [message for message in evidence.submissions.unsure if any(pair in seen for pair in _pairs(message))]
        self.message_of = {
            pair: message for message in (*evidence.submissions.accepted, *unsure) for pair in _pairs(message)
        }
        self.by_id = {message.message_id: message for message in self.message_of.values()}
        fired = evidence.ledger.fired()
        self.cover = {
            pair: _covering(pair, message, self.provider_of, fired) for pair, message in self.message_of.items()
        }
        self.identities = sorted(
            {covered for covered in fired if covered.by is not By.RECIPIENT},
            key=lambda covered: tuple(map(str, covered)),
        )
        self.attempts = self._attempts()
        self.episodes = {
            covered: episodes(self.attempts.get(covered, []), self._gap(covered)) for covered in self.identities
        }

    def figures(self) -> Figures:
        injected = self.message_of.keys()
        delivered = injected & self.delivered_at.keys()
        bounced = (injected & self.bounced) - delivered
        queued = (injected & self.it.queued) - delivered - bounced
        deferrals = [time for time, pair in self._deferrals() if self.cover[pair]]
        throttled = [pair for pair in delivered if self.cover[pair]]
        reactions = list(self._reactions())
        others = list(self._others())
        return Figures(
            injected=len(injected),
            delivered=len(delivered),
            bounced=len(bounced),
            queued=len(queued),
            lost=len(injected - delivered - bounced - queued),
            duplicated=sum(count - 1 for pair, count in self.copies.items() if pair in injected),
            rejected=sum(len(message.recipients) for message, _ in self.it.submissions.rejected),
            deferrals=len(deferrals),
            deferrals_first_episode=self._first_episode(),
            deferrals_per_delivered=round(len(deferrals) / len(throttled), 5) if throttled else None,
            others_p50_s=_rounded(percentile(others, 0.5)),
            others_p95_s=_rounded(percentile(others, 0.95)),
            others_held=len(self._held_wrongly()),
            throttled_delivered=len(throttled),
            drain_ratio=_rounded(self._drain()),
            retriggers=sum(max(0, len(found) - 1) for found in self.episodes.values()),
            unheld_attempts=self._unheld(),
            reaction_p50_s=_rounded(percentile(reactions, 0.5)),
            reaction_p99_s=_rounded(percentile(reactions, 0.99 if len(reactions) >= _FEW_REACTIONS else 1.0)),
        )

    def _gap(self, covered: Covered) -> float:
        return _EPISODE_GAP_S + 2 * self.it.scenario.provider_named(covered.provider).transaction_s

    def _attempts(self) -> dict[Covered, list[tuple[float, bool]]]:
        """What the providers saw of each throttled identity: (time, accepted)."""
        seen: dict[Covered, list[tuple[float, bool]]] = {}
        for pair, time in self.delivered_at.items():
            for covered in self.cover.get(pair, ()):
                seen.setdefault(covered, []).append((time, True))
        for refused in self.it.ledger.refused:
            if refused.by is not None:
                covered = Covered(refused.provider, refused.by, refused.identity)
                seen.setdefault(covered, []).append((refused.time, False))
        return seen

    def _pairs_of(self, queue_id: str) -> list[Pair]:
        message = self.by_id.get(self.it.log.message_ids.get(queue_id, ""))
        return list(_pairs(message)) if message else []

    def _deferrals(self) -> Iterator[tuple[float, Pair]]:
        for line in self.it.log.deferred:
            pair = Pair(self.it.log.message_ids.get(line.queue_id, ""), line.recipient)
            if pair in self.cover:
                yield line.time, pair

    def _first_episode(self) -> int:
        """Deferrals of each identity from its first refusal to the first pause in its attempts."""
        ends = {covered: found[0].end + self._gap(covered) for covered, found in self.episodes.items() if found}
        return sum(
            1
            for time, pair in self._deferrals()
            if any(time <= ends[covered] for covered in self.cover[pair] if covered in ends)
        )

    def _others(self) -> Iterator[float]:
        """Time to delivery of the senders that no fired limit covers; mail still queued counts with its age so far."""
        throttled = {message.sender.domain for pair, message in self.message_of.items() if _by_sender(self.cover[pair])}
        for pair, message in self.message_of.items():
            rightly = message.sender.dkim in self.it.held_rightly
            if rightly or self.cover[pair] or message.sender.domain in throttled:
                continue
            if pair in self.delivered_at:
                yield self.delivered_at[pair] - message.submitted
            elif pair not in self.bounced and self.it.ended - message.submitted > _LATE_S:
                yield self.it.ended - message.submitted

    def _held_wrongly(self) -> set[Pair]:
        """Held before its delivery although no fired limit of a sender or an address covers it."""
        return {
            pair
            for moved in self.it.log.held
            for pair in self._pairs_of(moved.queue_id)
            if self.delivered_at.get(pair, math.inf) > moved.time
            and self.message_of[pair].sender.dkim not in self.it.held_rightly
            and all(covered.by is By.RECIPIENT for covered in self.cover[pair])
        }

    def _moves(self, moves: Iterable[tuple[float, str]]) -> dict[Covered, list[float]]:
        """Times of holds or releases of each throttled identity, in order."""
        times: dict[Covered, list[float]] = {}
        for time, queue_id in moves:
            for covered in {covered for pair in self._pairs_of(queue_id) for covered in self.cover[pair]}:
                times.setdefault(covered, []).append(time)
        return times

    def _reactions(self) -> Iterator[float]:
        """First refusal of an identity -> first hold of one of its messages."""
        held = self._moves(self.it.log.held)
        for covered, found in self.episodes.items():
            after = _after(held.get(covered, []), found[0].start) if found else None
            if after is not None:
                yield after - found[0].start

    def _unheld(self) -> int:
        """Attempts between the first hold of an episode and the next release, of messages that were not released."""
        held, released = self._moves(self.it.log.held), self._moves(self.it.log.released)
        return sum(
            1
            for covered, found in self.episodes.items()
            for episode in found
            if (hold := _after(held.get(covered, []), episode.start)) is not None
            for time, _ in self.attempts[covered]
            if hold + self._gap(covered) < time < (_after(released.get(covered, []), hold) or self.it.ended)
        )

    def _drain(self) -> float | None:
        """The worst of the identities with a burst; None when none drained."""
        ratios = [ratio for covered in self.identities if (ratio := self._drain_of(covered)) is not None]
        return max(ratios, default=None)

    def _drain_of(self, covered: Covered) -> float | None:
        backlog = [pair for pair, message in self.message_of.items() if message.burst and covered in self.cover[pair]]
        if not backlog or any(pair not in self.delivered_at for pair in backlog):
            return None
        start = min(self.message_of[pair].submitted for pair in backlog)
        end = max(self.delivered_at[pair] for pair in backlog)
        amount = sum(1 for time, accepted in self.attempts[covered] if accepted and start <= time <= end)
        provider = self.it.scenario.provider_named(covered.provider)
        best = max(self._optimum(provider, limit, amount) for limit in provider.limit if limit.by is covered.by)
        pause = _GOOGLE_PAUSE_S if provider.name == "google" else _PAUSE_S
        return (end - start) / (best + pause / self.it.scenario.scale)

    def _optimum(self, provider: Provider, limit: Limit, amount: int) -> float:
        """Seconds of one who knows the limit, with the delivery slots that Postfix gives the provider's domains."""
        capacity = _CONCURRENCY * len(provider.domains) / max(provider.transaction_s, 0.01)
        return optimum(model(limit, self.it.scenario.scale, Random(self.it.scenario.seed)), amount, capacity)


def _pairs(message: Message) -> Iterator[Pair]:
    return (Pair(message.message_id, recipient) for recipient in message.recipients)


def _covering(
    pair: Pair, message: Message, provider_of: Mapping[str, Provider], fired: set[Covered]
) -> frozenset[Covered]:
    """Which of the fired limits count this recipient of this message."""
    provider = provider_of[pair.recipient.rpartition("@")[2]].name
    return frozenset(
        covered for covered in fired if covered.provider == provider and counts(covered, message, pair.recipient)
    )


def _by_sender(cover: Iterable[Covered]) -> bool:
    return any(covered.by not in {By.IP, By.RECIPIENT} for covered in cover)


def counts(covered: Covered, message: Message, recipient: str) -> bool:
    """Whether what a fired limit counts at its provider includes this recipient of this message."""
    return _COUNTS[covered.by](covered.identity, message, recipient)


_COUNTS: dict[By, Callable[[str, Message, str], bool]] = {
    By.DKIM: lambda identity, message, _: identity == message.sender.dkim,
    By.SPF: lambda identity, message, _: identity == message.sender.spf,
    By.ENVELOPE: lambda identity, message, _: identity == message.sender.spf,
    By.IP: lambda _, __, ___: True,
    By.RECIPIENT: lambda identity, _, recipient: identity == recipient,
}


def _after(times: Sequence[float], time: float) -> float | None:
    """The first of the ordered `times` after `time`."""
    place = bisect_right(times, time)
    return times[place] if place < len(times) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
