"""Between the engine's values and the store's rows, both ways."""

import json

from policies import audit
from policies.engine import Engine
from policies.fail_fast import Broken
from policies.key import Key
from policies.messages import Message, Place, Recipient
from policies.senders import Habit
from policies.sent_as import SentAs
from policies.steering import Steering
from policies.suppression import Move
from sidecar import pool_rows
from sidecar.log_batch import Position
from sidecar.store import Store
from sidecar.store_rows import BrokenRow, Commit, HeldBy, HoldRow, LearnedRow, SubQueueRow

_HABITS = ("dkim-domain", "from-domain")
_PROVIDER = "provider"


def gather(
    engine: Engine, checkpoint: Position | None, steering: Steering | None = None, *, now: float
) -> Commit | None:
    """Take all that the engine has to store since the last time; None where there is nothing.

    `steering` hears of the attempts first, for what they set off is stored with them.
    """
    telling, subqueues = engine.telling, engine.subqueues
    attempts, telling.attempts = telling.attempts, []
    if steering is not None:
        for attempt in attempts:
            steering.attempted(attempt, now=now)
        steering.look(now=now)
    received, telling.received = telling.received, []
    removed, telling.removed = telling.removed, []
    books, engine.books.changed = engine.books.changed, {}
    gone, subqueues.gone = subqueues.gone, []
    broken, engine.fail_fast.changed = engine.fail_fast.changed, {}
    moves: list[Move] = []
    if engine.suppressing is not None:
        moves, engine.suppressing.moves = engine.suppressing.moves, moves
    changes = [*telling.take_changes(), *audit.of_moves(moves, now=now)]
    commit = Commit(
        checkpoint=checkpoint,
        attempts=attempts,
        changes=changes,
        subqueues=_subqueues(engine, gone, now=now),
        subqueues_gone=[str(key) for key in gone if subqueues.closed(key) is None and subqueues.get(key) is None],
        holds=[_hold_row(message) for message in books.values() if message is not None and message.on_hold],
        holds_gone=[place for place, message in books.items() if message is None or not message.on_hold],
        learned=_learned(engine, now=now),
        sent_as=engine.sent_mail.take(),
        broken=[BrokenRow(str(key), *row[1:]) for key, row in broken.items() if row is not None],
        repaired=[str(key) for key, row in broken.items() if row is None],
        received=received,
        removed=removed,
        suppression=moves,
        pools=pool_rows.gather(steering) if steering is not None else None,
    )
    return commit if any(commit) else None


def merged(earlier: Commit | None, later: Commit | None) -> Commit | None:
    """Join what could not be stored with what came since; of two rows of one thing the later counts."""
    if earlier is None or later is None:
        return earlier or later
    holds = {(row.instance, row.queue_id): row for row in (*earlier.holds, *later.holds)}
    for place in later.holds_gone:
        holds.pop(place, None)
    again = {(row.instance, row.queue_id) for row in later.holds}
    reopened = {row.key for row in later.subqueues}
    broken = {row.key: row for row in (*earlier.broken, *later.broken)}
    for key in later.repaired:
        broken.pop(key, None)
    return Commit(
        checkpoint=later.checkpoint or earlier.checkpoint,
        attempts=[*earlier.attempts, *later.attempts],
        changes=[*earlier.changes, *later.changes],
        subqueues=list({row.key: row for row in (*earlier.subqueues, *later.subqueues)}.values()),
        subqueues_gone=[key for key in (*earlier.subqueues_gone, *later.subqueues_gone) if key not in reopened],
        holds=list(holds.values()),
        holds_gone=[place for place in (*earlier.holds_gone, *later.holds_gone) if place not in again],
        learned=list({(row.kind, row.name, row.value): row for row in (*earlier.learned, *later.learned)}.values()),
        sent_as=_summed(*earlier.sent_as, *later.sent_as),
        broken=list(broken.values()),
        repaired=[key for key in (*earlier.repaired, *later.repaired) if key not in broken],
        received=[*earlier.received, *later.received],
        removed=[*earlier.removed, *later.removed],
        suppression=[*earlier.suppression, *later.suppression],
        pools=pool_rows.merged(earlier.pools, later.pools),
    )


def _summed(*rows: SentAs) -> list[SentAs]:
    """Add up the counts of one combination in one hour, so that a long time without a store costs no more than a short one."""
    sums: dict[tuple[object, ...], SentAs] = {}
    for row in rows:
        before = sums.get(row[:4])
        counts = row[4:] if before is None else tuple(map(sum, zip(before[4:], row[4:], strict=True)))
        sums[row[:4]] = SentAs(*row[:4], *counts)
    return list(sums.values())


def restore(engine: Engine, store: Store) -> None:
    """Give the engine back what the store kept: what was learned, the sub-queues, the books."""
    for row in store.learned():
        if row.kind == _PROVIDER:
            engine.recipients.restore(row.name, row.value, row.last_seen)
        elif row.kind in _HABITS:
            engine.habits.restore(Habit(row.kind, row.name, row.value))
    for sub in store.subqueues():
        engine.subqueues.restore(
            Key.read(sub.key),
            json.loads(sub.snapshot),
            rule=sub.opened_rule,
            line=sub.opened_line,
            opened=sub.opened_at,
        )
    for broken in store.broken():
        engine.fail_fast.restore(Broken(Key.read(broken.key), *broken[1:]))
    for hold in store.holds():
        engine.books.restore(_message(hold))


def _subqueues(engine: Engine, gone: list[Key], *, now: float) -> list[SubQueueRow]:
    rows = [
        SubQueueRow(str(sub.key), json.dumps(snapshot), sub.rule, sub.line, sub.opened_at, now)
        for sub, snapshot in engine.subqueues.dirty()
    ]
    for key in gone:
        snapshot = engine.subqueues.closed(key)
        if snapshot is not None:
            rows.append(SubQueueRow(str(key), json.dumps(snapshot), "", "", 0.0, now))
    return rows


def _learned(engine: Engine, *, now: float) -> list[LearnedRow]:
    fresh, engine.recipients.fresh = engine.recipients.fresh, []
    habits, engine.habits.learned = engine.habits.learned, []
    rows = [LearnedRow(_PROVIDER, domain, provider, time) for domain, provider, time in fresh]
    return rows + [LearnedRow(habit.kind, habit.envelope_domain, habit.domain, now) for habit in habits]


def _hold_row(message: Message) -> HoldRow:
    return HoldRow(
        instance=message.instance,
        queue_id=message.queue_id,
        keys=tuple(map(str, message.held_under)),
        since=message.held_since,
        by=HeldBy.ANSWER if message.place is Place.PROMISED else HeldBy.TAKEN,
        confirmed=message.own_line,
        in_core=message.in_core,
        sender=message.sender or "",
        recipients=tuple(recipient.address for recipient in message.recipients if not recipient.done),
        arrival=message.arrival,
    )


def _message(row: HoldRow) -> Message:
    """Make a held message of its book entry; whether it is really on hold, the next listing tells."""
    message = Message(row.instance, row.queue_id, now=row.since)
    message.sender = row.sender
    message.recipients = tuple(map(Recipient, row.recipients))
    message.nrcpt = len(message.recipients)
    message.arrival = row.arrival
    taken = Place.HELD if row.confirmed else Place.TAKING
    message.place = Place.PROMISED if row.by is HeldBy.ANSWER else taken
    message.held_under = tuple(map(Key.read, row.keys))
    message.held_since = row.since
    message.own_line = row.confirmed
    message.pending = int(row.in_core)
    message.activation = int(row.in_core)  # so that the outcome which core did not live to read counts
    return message
