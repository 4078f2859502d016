"""How a figure is graded: bad, well, something between, or silent.

Knows that only an `ok` value says anything, and that a share of few messages is a guess: of a share it can be asked
that chance alone does not explain it.
"""

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

from parsers.feeds.dnsbl import Severity
from parsers.observation import Outcome
from policies.figures import Figure

EVENTS_MIN: Final = 5
"""Messages that must have met with it: of fewer no share is sure."""
SIGMAS: Final = 3.0
"""Standard deviations by which chance may be wrong; one look in some 740 is beyond."""


class State(StrEnum):
    """What one look says."""

    BAD = "bad"
    BETWEEN = "between"
    """No longer bad enough to fire, not yet good enough to resolve."""
    WELL = "well"
    SILENT = "silent"
    """It says nothing: no value, or too few messages."""


class Grade(NamedTuple):
    state: State
    severity: Severity | None = None
    """Of BAD alone."""


SILENT: Final = Grade(State.SILENT)
WELL: Final = Grade(State.WELL)
BETWEEN: Final = Grade(State.BETWEEN)

Grader = Callable[[Figure], Grade]


def bounds(share: float, volume: float) -> tuple[float, float]:
    """Between which shares the true one lies, of which `share` was seen in `volume` messages (Wilson's interval)."""
    if not 0.0 <= share <= 1.0 or volume <= 0.0 or math.isinf(volume):
        return share, share
    square = SIGMAS * SIGMAS / volume
    middle = (share + square / 2.0) / (1.0 + square)
    half = math.sqrt(square * (share * (1.0 - share) + square / 4.0)) / (1.0 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def at_least(
    *levels: tuple[Severity, float],
    over: float,
    volume: float = 0.0,
    times: float = 0.0,
    sure: bool = False,
    known: bool = False,
) -> Grader:
    """Bad at or above a level, well at or below `over`; the worst level counts.

    `volume`: messages below which it is never bad. `times`: only when as many times its own baseline, where
    there is one; `known`: and only where there is one. `sure`: only when chance does not explain that the share is
    above `over`, or above `times` its baseline.
    """

    def grade(figure: Figure) -> Grade:
        value, usual = figure.value, figure.baseline
        if figure.outcome is not Outcome.OK or value is None:
            return SILENT
        if value <= over:
            return WELL
        lowest = bounds(value, figure.volume)[0] if sure else value
        few = sure and value * figure.volume < EVENTS_MIN
        plain = few or lowest <= over or (known if usual is None else lowest < times * usual)
        if figure.volume < volume or plain:
            return BETWEEN
        return next((Grade(State.BAD, severity) for severity, limit in levels if value >= limit), BETWEEN)

    return grade


def at_most(*levels: tuple[Severity, float], over: float, volume: float = 0.0, sure: bool = False) -> Grader:
    """Bad at or below a level, well at or above `over`; `volume` and `sure` as in `at_least`."""

    def grade(figure: Figure) -> Grade:
        value = figure.value
        if figure.outcome is not Outcome.OK or value is None:
            return SILENT
        if value >= over:
            return WELL
        if figure.volume < volume or (sure and bounds(value, figure.volume)[1] >= over):
            return BETWEEN
        return next((Grade(State.BAD, severity) for severity, limit in levels if value <= limit), BETWEEN)

    return grade


def listing(figure: Figure) -> Grade:
    """Grade a listing as the text of the figure says ("critical: CSS: ...")."""
    if figure.outcome is not Outcome.OK or figure.value is None:
        return SILENT
    if figure.value <= 0:
        return WELL
    word = figure.text.partition(":")[0].strip().lower()
    return Grade(State.BAD, Severity(word) if word in set(Severity) else Severity.WARNING)


def reminder(figure: Figure) -> Grade:
    """Grade what its own text says is due."""
    if figure.outcome is not Outcome.OK:
        return SILENT
    return Grade(State.BAD, Severity.INFO) if figure.text else WELL
