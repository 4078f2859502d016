"""What a host says of itself to the others: for the eyes of people, nothing is decided by it.

It is one JSON object. Fields that a newer version added are passed over, and those that an older one lacks are unknown.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from policies.fleet import reading

VERSION = 1
"""Of the fields. It grows when a field is added; none changes its meaning."""


class Presence(NamedTuple):
    host: str
    at: float
    """When it said so, by the store's clock."""
    sidecar: str = ""
    """Version of the program; "" for unknown, as None below."""
    mode: str = ""
    held: int | None = None
    """Messages that it holds."""
    live: int | None = None
    """Messages that it knows to be in its queue."""
    subqueues: int | None = None
    """Open ones, its own and shared."""
    lag: float | None = None
    """Seconds that it is behind its log."""
    helper: bool | None = None
    """Whether its queue helper answers."""
    version: int = VERSION

    @classmethod
    def read(cls, text: str) -> Self:
        """Take the fields that we know. Raises ValueError, naming the one that is no good."""
        return reading.read(text, "word of a host", cls._of)

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> Self:
        for name in ("host", "at"):
            if name not in values:
                raise ValueError(f"what a host says of itself has no {name}")
        known = {name: values[name] for name in cls._fields if values.get(name) is not None}
        for name, value in known.items():
            if not _IS[name](value):
                raise ValueError(f"what a host says of itself has the {name} {value!r}; wanted {_WANTED[_IS[name]]}")
        return cls(**known)

    def text(self) -> str:
        return json.dumps(self._asdict(), separators=(",", ":"))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _yes_or_no(value: Any) -> bool:
    return isinstance(value, bool)


_WANTED = {_text: "a text", _seconds: "seconds", _whole: "a whole number from 0 up", _yes_or_no: "true or false"}
_IS = {
    "host": _text,
    "at": _seconds,
    "sidecar": _text,
    "mode": _text,
    "held": _whole,
    "live": _whole,
    "subqueues": _whole,
    "lag": _seconds,
    "helper": _yes_or_no,
    "version": _whole,
}
