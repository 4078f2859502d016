"""What is wrong with an HTTP answer that is none: whose fault it is, and when to ask again.

Knows status codes and the two usual shapes of an error in JSON; nothing of any one service.
"""

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from parsers.feeds.asking import HttpAnswer, Trouble

_SAID_MAX = 200
_DATE = "%a, %d %b %Y %H:%M:%S GMT"


class Failure(NamedTuple):
    trouble: Trouble
    why: str
    status: int = 0
    """Of HTTP; 0 where there was no answer."""
    retry_after: float = 0.0
    """Seconds."""


def failure(answer: HttpAnswer, *, now: float) -> Failure | None:
    """Tell what is wrong with an answer; None for a 2xx."""
    if 200 <= answer.status < 300:
        return None
    said = answer.error or error_text(answer)
    why = f"HTTP {answer.status}{said and f': {said}'}" if answer.status else said or "no answer"
    return Failure(_trouble(answer.status), why, answer.status, retry_after(answer, now=now))


def _trouble(status: int) -> Trouble:
    """A redirect is never an answer of an interface: it leads to a page where a person logs in."""
    match status:
        case 401 | 403:
            return Trouble.AUTHENTICATION
        case 429:
            return Trouble.REFUSED
        case 0 | 408:
            return Trouble.NETWORK
        case _ if 300 <= status < 400:
            return Trouble.AUTHENTICATION
        case _:
            return Trouble.NETWORK if status >= 500 else Trouble.FORMAT


def retry_after(answer: HttpAnswer, *, now: float) -> float:
    """Seconds (RFC 9110 section 10.2.3: a number, or a date); 0 where they say none."""
    said = answer.header("retry-after").strip()
    if said.isascii() and said.isdecimal():
        return float(said[:9])
    try:
        return max(0.0, datetime.strptime(said, _DATE).replace(tzinfo=UTC).timestamp() - now)
    except ValueError:
        return 0.0


def error_text(answer: HttpAnswer) -> str:
    """Give the words of an error: Google's {"error": {"message"}}, or OAuth's {"error", "error_description"}."""
    told = json_value(answer)
    if not isinstance(told, dict):
        return ""
    error = told.get("error")
    words = [error.get("message")] if isinstance(error, dict) else [error, told.get("error_description")]
    return ": ".join(str(word) for word in (*words, told.get("message")) if word)[:_SAID_MAX]


def json_value(answer: HttpAnswer) -> Any:
    """The body as JSON; None where it is none, however it is broken."""
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
