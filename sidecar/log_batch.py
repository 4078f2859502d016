"""What every source of log lines hands on: a batch of lines and the position after them.

A position is kept in the store beside what was learned from the lines, and is opaque to all but its source.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Position(NamedTuple):
    """A place in a log, between two lines."""

    source: str
    """As in `log.source`: a path, "journal", "journal:DIRECTORY" or "-"."""
    token: str
    """Where, in the source's own words; "" where it cannot be found again (standard input)."""


class Batch(NamedTuple):
    """Lines in the order of the log; either `lines` or `entries`.

    May be empty: the first batch says where reading begins, and a gap is told at once.
    """

    lines: Sequence[bytes]
    """Without their ends. From files and standard input."""
    position: Position
    """After these lines."""
    reference: float
    """Seconds since the epoch, UTC: no line is later. Modification time of the file, or the present."""
    gap: bool
    """Lines before these may be missing: what was known of messages under way is no longer sure."""
    entries: Sequence[Mapping[str, str]] = ()
    """Fields by name. From the journal; bytes that are not UTF-8 stand as lone surrogates (surrogateescape)."""


BATCH_LINES = 1000
"""At most so many lines a batch, so that whoever works them off on an event loop soon gives way to others."""

READ_SIZE = 1 << 20
"""Bytes asked for at a time; and the longest line: a longer one is cut."""
