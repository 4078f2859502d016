"""What became of a message that was handed to a channel.

Knows which answers of a web service mean that trying again may help, and which that a person must act.
"""

from enum import StrEnum
from typing import NamedTuple

from parsers.feeds.asking import HttpAnswer


class Result(StrEnum):
    SENT = "sent"
    LATER = "later"
    """Certainly not taken; it may be tried again."""
    BROKEN = "broken"
    """Certainly not taken, and trying again does not help: the channel's setting is wrong, or ours."""
    UNSURE = "unsure"
    """No answer to a request that was sent: it may have been taken."""


class Receipt(NamedTuple):
    result: Result
    why: str = ""
    """"" when it was sent."""
    thread: str = ""
    """What later notes of the incident refer to, where a channel has such a thing."""


def by_status(answer: HttpAnswer) -> Receipt:
    """Read an answer by its status alone: 2xx is taken, 408, 429 and 5xx may pass."""
    if 200 <= answer.status < 300:
        return Receipt(Result.SENT)
    why = f"answers {answer.status} {said(answer)}".rstrip()
    if answer.status in {408, 429} or answer.status >= 500:
        return Receipt(Result.LATER, why)
    return Receipt(Result.BROKEN, why)


def said(answer: HttpAnswer) -> str:
    """Give the begin of the answer's text, in one line."""
    return " ".join(answer.body[:200].decode("utf-8", "replace").split())
