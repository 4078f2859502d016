"""What a fleet knows of one sub-queue: its state, its ceiling and its clock, and who says so, because of which line.

A row is one JSON object. Fields that a newer version added are ignored, so that hosts of two versions work together.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from policies.fleet import reading
from policies.fleet.terms import LONGEST_PAUSE
from policies.key import Key
from policies.subqueue import State

VERSION = 2
"""Of the fields. It grows when a field is added; none changes its meaning."""


class Row(NamedTuple):
    key: Key
    state: State
    ceiling: float
    """Messages/s that the fleet lets out while it ramps; while it is paused, with which the next ramp may begin."""
    era: int
    """The pauses so far: a refusal counts in the era in which its attempt began."""
    serial: int
    """The changes so far; the higher one is the later one."""
    since: float
    """When the state was entered, by the store's clock."""
    until: float
    """When the pause ends, by the store's clock."""
    rule: str
    line: str
    """The log line of that host that caused it."""
    host: str
    """Who changed it last."""
    version: int = VERSION
    exploring: bool = False
    """While it ramps: the ceiling is more than is known to be safe. Of version 2."""
    short: float = 0.0
    """While it is paused: seconds that the pause may come down to where the provider goes on accepting some; 0: it may
    not. Of version 2."""

    def changed(
        self,
        state: State,
        *,
        host: str,
        at: float,
        pause: float = 0.0,
        short: float = 0.0,
        ceiling: float = 0.0,
        exploring: bool = False,
    ) -> Self:
        """Give the row after a change at `at` (store's clock); `pause` seconds long; a `ceiling` of 0 leaves it."""
        return self._replace(
            state=state,
            ceiling=ceiling or self.ceiling,
            era=self.era + (state is State.PAUSED),
            serial=self.serial + 1,
            since=at
            if state is not self.state or state is State.PAUSED
            else self.since,  # each pause is one of its own
            until=at + min(pause, LONGEST_PAUSE) if state is State.PAUSED else self.until,
            host=host,
            version=VERSION,
            exploring=exploring,
            short=short,
        )

    def shortened(self, *, host: str, at: float) -> Self:
        """Give the row of a pause that comes down to its short one, at `at` of the store's clock."""
        until = max(at, min(self.until, self.since + self.short))
        return self._replace(until=until, serial=self.serial + 1, host=host, version=VERSION, short=0.0)

    def left(self, *, at: float) -> float:
        """Tell how many seconds of its pause are left at `at`: never more than all of it, for the store's clock may have been set back."""
        return max(0.0, min(self.until - at, self.until - self.since))

    def supersedes(self, other: Self) -> bool:
        """Whether this is the one to believe: the later one; of two as late (two stores were written) the careful one."""
        return self._rank() > other._rank()

    def _rank(self) -> tuple[int, int, float, int, str]:
        return (self.serial, -_CAUTION.index(self.state), -self.ceiling, self.era, self.host)

    def values(self) -> dict[str, Any]:
        """Give the fields in JSON's types."""
        return {**self._asdict(), "key": str(self.key), "state": str(self.state)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Take the fields that we know.

        Raises ValueError, naming the field that is missing or no good: another program wrote it.
        """
        values = {**cls._field_defaults, **values}
        missing = [name for name in cls._fields if name not in values]
        if missing:
            raise ValueError(f"a row of the fleet has no {', '.join(missing)}")
        for name in ("ceiling", "since", "until", "short"):
            if not _number(values[name]):
                raise ValueError(f"a row of the fleet has the {name} {values[name]!r}; wanted a number")
        for name in ("era", "serial", "version"):
            if not isinstance(values[name], int) or isinstance(values[name], bool) or values[name] < 0:
                raise ValueError(f"a row of the fleet has the {name} {values[name]!r}; wanted a whole number from 0 up")
        for name in ("key", "state", "rule", "line", "host"):
            if not isinstance(values[name], str):
                raise ValueError(f"a row of the fleet has the {name} {values[name]!r}; wanted a text")  # noqa: TRY004  # bad text
        if not isinstance(values["exploring"], bool):
            raise ValueError(f"a row of the fleet has exploring {values['exploring']!r}; wanted true or false")  # noqa: TRY004  # bad text
        if not values["ceiling"] > 0:
            raise ValueError(f"a row of the fleet has the ceiling {values['ceiling']!r}; wanted messages/s above 0")
        known = {name: values[name] for name in cls._fields}
        known["until"] = min(known["until"], known["since"] + LONGEST_PAUSE)
        return cls(**{**known, "key": Key.read(values["key"]), "state": State(values["state"])})

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a row as it was sent. Raises ValueError, as `of` does."""
        return reading.read(text, "row", cls.of)

    def text(self) -> str:
        return json.dumps(self.values(), separators=(",", ":"))


def pushed_text(row: Row, *, at: float) -> str:
    """Write a row as it is pushed to the others; `at`: by the store's clock."""
    return json.dumps({"at": at, "row": row.values()})


def read_pushed(text: str) -> tuple[float, Row]:
    """Read what `pushed_text` wrote. Raises ValueError."""
    return reading.read(text, "change", lambda values: (reading.number(values["at"]), Row.of(values["row"])))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_CAUTION = (State.PAUSED, State.PROBING, State.RAMPING, State.CLOSED)
"""The most careful first."""
