"""Sparklines: a few values as lines of an inline SVG, and in words for who does not see it.

Knows geometry; what the values are, the view knows.
"""

from collections.abc import Sequence
from typing import NamedTuple

WIDTH, HEIGHT, EDGE = 120, 28, 3


class Spark(NamedTuple):
    """None stands for a time of which nothing is known: the line has a gap there."""

    lines: tuple[str, ...]
    """Points of polylines."""
    dots: tuple[tuple[float, float], ...]
    """Values with a gap on both sides, and the newest one."""
    words: str


def spark(values: Sequence[float | None], *, words: str, low: float = 0.0, high: float = 1.0) -> Spark:
    """Draw `values` from left to right between `low`, at the bottom, and `high`."""
    step = (WIDTH - 2 * EDGE) / max(1, len(values) - 1)
    reach = (high - low) or 1.0
    runs: list[list[tuple[float, float]]] = [[]]
    for number, value in enumerate(values):
        if value is None:
            runs.append([])
            continue
        share = min(1.0, max(0.0, (value - low) / reach))
        runs[-1].append((round(EDGE + number * step, 1), round(HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE), 1)))
    runs = [run for run in runs if run]
    lines = tuple(" ".join(f"{x:g},{y:g}" for x, y in run) for run in runs if len(run) > 1)
    dots = tuple(run[0] for run in runs[:-1] if len(run) == 1) + tuple(run[-1] for run in runs[-1:])
    return Spark(lines, dots, words)


def share_words(values: Sequence[float | None]) -> str:
    """Say a line of shares in words: how low it was, and where it is."""
    known = [value for value in values if value is not None]
    if not known:
        return "nothing in this time"
    return f"lowest {min(known):.0%}, newest {known[-1]:.0%}"
