"""How fast a host takes in what nobody waits for, so that its event loop stays free for those who do wait.

It goes by what it measures: for how long a slice held the loop, how late the loop woke it, how long the other host took.
"""

from typing import Final, NamedTuple

SLICE: Final = 0.004
"""Seconds for which the loop is to be held at a time; a policy answer may wait for 20 ms."""
LATE: Final = 0.005
"""Seconds after its time at which a loop with something else to do wakes us."""
SLOW: Final = 0.25
"""Seconds after which another host answers that has something else to do; one that has not takes a twentieth."""
_MOST_AT_ONCE: Final = 500
_LEAST_PAUSE, _MOST_PAUSE = 0.01, 0.5
"""Seconds."""


class Pace(NamedTuple):
    """At first a slow one."""

    at_once: int = 20
    """Entries in a slice."""
    pause: float = _MOST_PAUSE
    """Seconds between two parts."""

    def held(self, entries: int, seconds: float) -> "Pace":
        """A slice of so many entries held the loop for so many seconds: the next one is to hold it for SLICE.

        It is at most twice as large, for one may have been quick by chance, and small at once.
        """
        fits = entries * SLICE / max(seconds, 1e-6)
        return self._replace(at_once=max(1, min(int(fits), 2 * self.at_once, _MOST_AT_ONCE)))

    def went(self, *, late: float, answered: float) -> "Pace":
        """The last pause ended so late, and the part before it was there after `answered` seconds."""
        factor = 2.0 if late > LATE or answered > SLOW else 0.5
        return self._replace(pause=max(_LEAST_PAUSE, min(factor * self.pause, _MOST_PAUSE)))
