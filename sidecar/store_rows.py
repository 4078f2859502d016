"""What the store of core keeps beside attempts and changes, one type a row, and the commit that brings such rows together.

The columns and their meaning stand in schema/; optional texts are "".
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from policies.commands import Attempt, Change, Received, Removed
from policies.sent_as import SentAs
from policies.suppression import Move
from sidecar.log_batch import Position
from sidecar.pool_rows import PoolRows


class HeldBy(StrEnum):
    ANSWER = "answer"
    """The policy service answered HOLD: a promise until the message is seen on hold or ended."""
    TAKEN = "taken"
    """Taken out of the queue by the helper."""


class SubQueueRow(NamedTuple):
    key: str
    snapshot: str
    """JSON of the engine's own."""
    opened_rule: str
    opened_line: str
    opened_at: float
    updated_at: float


class HoldRow(NamedTuple):
    """One message on our books."""

    instance: str
    queue_id: str
    keys: tuple[str, ...]
    since: float
    by: HeldBy
    confirmed: bool
    """Seen on hold."""
    in_core: bool
    """The queue manager may still have it in memory."""
    sender: str
    recipients: tuple[str, ...]
    arrival: float


class LearnedRow(NamedTuple):
    """`value` was seen to belong to `name`: as kind "provider", a recipient domain's provider."""

    kind: str
    name: str
    value: str
    last_seen: float


class BrokenRow(NamedTuple):
    """A key whose mail is held because its authentication is broken."""

    key: str
    rule: str
    evidence: str
    since: float
    let_go_by: str


class Commit(NamedTuple):
    """What was learned and decided since the last one: kept whole or not at all.

    Attempts, changes and messages received are added, counts of `sent_as` added up; of the others a row takes the place
    of the one with its key.
    """

    checkpoint: Position | None = None
    attempts: Sequence[Attempt] = ()
    changes: Sequence[Change] = ()
    subqueues: Sequence[SubQueueRow] = ()
    subqueues_gone: Sequence[str] = ()
    """Keys."""
    holds: Sequence[HoldRow] = ()
    holds_gone: Sequence[tuple[str, str]] = ()
    """(instance, queue id)."""
    learned: Sequence[LearnedRow] = ()
    sent_as: Sequence[SentAs] = ()
    broken: Sequence[BrokenRow] = ()
    repaired: Sequence[str] = ()
    """Keys."""
    received: Sequence[Received] = ()
    removed: Sequence[Removed] = ()
    suppression: Sequence[Move] = ()
    """In order."""
    pools: PoolRows | None = None
    """Of warm-ups, reactions and canaries."""
