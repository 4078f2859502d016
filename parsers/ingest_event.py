"""Events that other programs tell us: what a recipient did with a mail, one JSON object each.

Knows their fields and what makes one of no use; every refusal says the field and what would be right.
"""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple


class EventKind(StrEnum):
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    OPEN = "open"
    CLICK = "click"
    BOUNCE = "bounce"


class IngestEvent(NamedTuple):
    id: str
    """The client's own: an event that comes again under the same id is the same."""
    kind: EventKind
    recipient: str
    at: float
    """Seconds since the epoch, UTC."""
    sending_domain: str
    """Lower case."""
    campaign: str
    reply: str
    """What the server said, of a bounce."""


_TEXTS: Final = {"id": 200, "recipient": 320, "sending_domain": 255, "campaign": 200, "reply": 2_000}
"""Field -> the longest that is taken, in characters."""
_FIELDS: Final = (*_TEXTS, "kind", "time")
_NEEDED: Final = ("id", "recipient", "sending_domain")
_OLDEST: Final = 400 * 86_400.0
_AHEAD: Final = 3_600.0


def read_event(item: Any, *, now: float) -> IngestEvent:
    """Read one event. Raises ValueError."""
    if not isinstance(item, dict):
        raise ValueError(f"found {_shown(item)}, wanted an object")  # noqa: TRY004  # one kind of refusal for all
    unknown = [name for name in item if name not in _FIELDS]
    if unknown:
        raise ValueError(f"{_shown(unknown[0])}: unknown field; known are {', '.join(_FIELDS)}")
    text = {name: _text(item, name) for name in _TEXTS}
    for name in _NEEDED:
        if not text[name]:
            raise ValueError(f"{name}: missing")
    kind = item.get("kind")
    if kind not in list(EventKind):
        raise ValueError(f"kind: found {_shown(kind)}, wanted one of {', '.join(EventKind)}")
    local, at_sign, domain = text["recipient"].rpartition("@")
    if not (at_sign and local and domain) or " " in domain:
        raise ValueError(f"recipient: found {_shown(text['recipient'])}, wanted an address")
    if kind == EventKind.BOUNCE and not text["reply"]:
        raise ValueError("reply: missing; a bounce is judged by what the server said")
    sending = text["sending_domain"].lower().rstrip(".")
    return IngestEvent(
        text["id"], EventKind(kind), text["recipient"], _time(item, now=now), sending, text["campaign"], text["reply"]
    )


def read_items(body: bytes) -> list[Any]:
    """Split a body into its items: a JSON array, or one JSON value a line. Raises ValueError."""
    try:
        text = body.decode()
        if text.lstrip()[:1] == "[":
            items = json.loads(text)
            assert isinstance(items, list)
            return items
    except (ValueError, RecursionError) as error:
        raise ValueError(f"neither a JSON array nor JSON lines: {error}") from error
    return [_line(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _line(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"line {number}: not JSON: {error}") from error


def _text(item: dict[str, Any], name: str) -> str:
    value = item.get(name, "")
    if not isinstance(value, str) or len(value) > _TEXTS[name] or not value.isprintable():
        raise ValueError(f"{name}: found {_shown(value)}, wanted a text of at most {_TEXTS[name]} printable characters")
    return value.strip()


def _time(item: dict[str, Any], *, now: float) -> float:
    value = item.get("time", now)
    try:
        at = _iso(value) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        at = -1.0
    if not now - _OLDEST < at < now + _AHEAD:
        raise ValueError(
            f"time: found {_shown(value)}, wanted ISO 8601 or seconds since the epoch, of the last 400 days"
        )
    return at


def _iso(text: str) -> float:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _shown(value: Any) -> str:
    return ascii(value)[:60]
