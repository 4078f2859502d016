"""Runs many small questionings side by side, so that their questions go out at once and none is asked twice.

Knows nothing of what they ask; one that ends early waits for no other one's result, only for its round of answers.
"""

from collections.abc import Sequence
from typing import TypeVar

from parsers.feeds.asking import Answer, Ask, Asked, DnsAsk

T = TypeVar("T")


def together(parts: Sequence[Asked[T]], known: dict[Ask, Answer] | None = None) -> Asked[list[T]]:
    """Drive all parts to their ends and give their results in the same order.

    `known`: answers of before, used again and added to.
    """
    known = {} if known is None else known
    results: dict[int, T] = {}
    waiting: dict[int, tuple[Ask, ...]] = {}
    for number, part in enumerate(parts):
        _advance(part, number, None, waiting, results)
    while waiting:
        wanted = {_question(ask): ask for asks in waiting.values() for ask in asks if _question(ask) not in known}
        if wanted:
            answers = yield tuple(wanted.values())
            known |= dict(zip(wanted, answers, strict=True))
        for number, asks in list(waiting.items()):
            _advance(parts[number], number, tuple(known[_question(ask)] for ask in asks), waiting, results)
    return [results[number] for number in range(len(parts))]


def _question(ask: Ask) -> Ask:
    """What makes two asks the same; whose servers they are counted for does not."""
    return ask._replace(zone="") if isinstance(ask, DnsAsk) else ask


def _advance(
    part: Asked[T],
    number: int,
    answers: tuple[Answer, ...] | None,
    waiting: dict[int, tuple[Ask, ...]],
    results: dict[int, T],
) -> None:
    try:
        waiting[number] = next(part) if answers is None else part.send(answers)
    except StopIteration as end:
        waiting.pop(number, None)
        results[number] = end.value
