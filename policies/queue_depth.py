"""How deep the queue is and how old its mail, by Postfix's queues and by destination, as well as the log tells.

Knows in which of Postfix's queues a live message is. Of a long queue it looks at a sample: a million messages are not
to be walked through to be looked at.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from policies.messages import Message, Place
from policies.outcome_counts import NONE, OTHER

SAMPLE: Final = 2_000
"""Messages that are looked at; in a shorter queue the numbers are exact."""
DESTINATIONS: Final = 20
"""Providers that are named: those with the most messages."""


class Queue(StrEnum):
    """Postfix's queue directories; maildrop is not in the log."""

    INCOMING = "incoming"
    ACTIVE = "active"
    DEFERRED = "deferred"
    HOLD = "hold"


class Depth(NamedTuple):
    """Of one queue, or one destination in it."""

    messages: float
    median_age: float
    """Seconds since arrival; of the sample, as are the next two."""
    p95_age: float
    oldest_age: float


class Depths(NamedTuple):
    queues: dict[Queue, Depth]
    """All four; ages 0 where there is no message."""
    destinations: dict[tuple[str, Queue], Depth]
    """By (provider, queue). A message to two providers counts at both."""


def queue_of(message: Message) -> Queue | None:
    """Tell where Postfix has a message; None for one that is still being received, or never was to its end.

    What was in the queue before our log begins shows itself with its next attempt.
    """
    if message.place in _HOLD:
        return Queue.HOLD
    if message.in_core or message.finished:
        return Queue.ACTIVE
    if message.activation or message.attempts:
        return Queue.DEFERRED
    return Queue.INCOMING if message.entry is not None and message.entry[1] else None


_HOLD = frozenset({Place.PROMISED, Place.HELD, Place.RELEASING, Place.FOREIGN})


def depths(sample: Sequence[Message], provider_of: Callable[[str], str | None], *, live: int, now: float) -> Depths:
    """Measure a sample of `live` messages. `provider_of`: the provider behind a recipient's domain."""
    each = live / len(sample) if sample else 1.0
    ages: defaultdict[Queue, list[float]] = defaultdict(list)
    to: defaultdict[str, list[tuple[Queue, float]]] = defaultdict(list)
    for message in sample:
        queue, age = queue_of(message), max(0.0, now - message.arrival)
        if queue is None:
            continue
        ages[queue].append(age)
        domains = {recipient.domain for recipient in message.open_recipients}
        for provider in {provider_of(domain) or NONE for domain in domains} or {NONE}:
            to[provider].append((queue, age))
    named = sorted(to, key=lambda provider: (-len(to[provider]), provider))[:DESTINATIONS]
    there: defaultdict[tuple[str, Queue], list[float]] = defaultdict(list)
    for provider, found in to.items():
        for queue, age in found:
            there[provider if provider in named else OTHER, queue].append(age)
    return Depths(
        {queue: _depth(ages[queue], each) for queue in Queue},
        {place: _depth(found, each) for place, found in there.items()},
    )


def _depth(ages: list[float], each: float) -> Depth:
    if not ages:
        return Depth(0.0, 0.0, 0.0, 0.0)
    ages.sort()
    median, p95 = (ages[math.ceil(share * len(ages)) - 1] for share in (0.5, 0.95))
    return Depth(float(round(len(ages) * each)), median, p95, ages[-1])
