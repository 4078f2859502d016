"""How old the mail in the queue is, by a sample: a queue of a million is not to be walked through to be looked at.

Knows that what we hold ourselves is old on purpose and does not count.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from parsers.observation import Outcome
from policies.figures import Figure, Kind
from policies.messages import Message
from policies.seasons import peak

SAMPLE: Final = 2_000
OLD: Final = 3600.0
"""Seconds after which a message should have left, or have had its first retries."""


class QueueAge(NamedTuple):
    live: int
    """Messages in the queue, those that we hold left out."""
    old: int
    """Of these, as well as the sample tells, older than `OLD`."""


def queue_figures(
    host: str, sample: QueueAge, before: QueueAge | None, daily: Sequence[QueueAge], *, now: float
) -> Iterator[Figure]:
    """Compare the queue with an hour ago (`before`), and with the greatest values of days (`daily`).

    The baseline of growth is the growth to an ordinary peak, that of age the share of old messages at one.
    """
    usual_live, usual_old = peak([each.live for each in daily]), peak([each.old for each in daily])
    if before is not None:
        least = max(before.live, 1)
        usual = usual_live / least if usual_live is not None else None
        about = ("core", host, Kind.HOST, "queue-growth.1h", Outcome.OK)
        yield Figure(*about, round(sample.live / least, 2), "", now, now, float(sample.live), usual)
    live = max(sample.live, 1)
    usual = usual_old / live if usual_old is not None else None
    about = ("core", host, Kind.HOST, "queue-old", Outcome.OK)
    yield Figure(*about, sample.old / live, "", now, now, float(sample.live), usual)


def queue_age(messages: Iterable[Message], *, live: int, held: int, now: float) -> QueueAge:
    """Take about every n-th of `live` messages, of which we hold `held`."""
    step = max(1, live // SAMPLE)
    seen = [message for message in islice(messages, 0, None, step) if not message.on_hold]
    waiting = max(0, live - held)
    if not seen:
        return QueueAge(waiting, 0)
    old = sum(now - message.arrival > OLD for message in seen)
    return QueueAge(waiting, round(waiting * old / len(seen)))
