# ruff: noqa: S608  # statements are put together from names in this module alone; values are always parameters
"""What the store keeps of warm-ups, reactions and canaries: between `Steering`'s values and rows, both ways.

The only SQL about their tables, which are explained in schema/0072-pools.sql and 0140-canary-complaints.sql.
"""

import dataclasses
import json
import sqlite3
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from policies.canary import Arm, Phase, Trial, nothing_counted
from policies.reacting import Reaction
from policies.steering import InArm, Steering
from policies.warm_up import Level
from sidecar.database import Database

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class PoolRows(NamedTuple):
    """What changed; None in the place of what is gone. Copies, for what is stored later must not change meanwhile."""

    levels: Mapping[tuple[str, str], Level | None] = {}
    pauses: Mapping[str, str | None] = {}
    reactions: Mapping[tuple[str, str, str], Reaction | None] = {}
    trials: Mapping[str, Trial | None] = {}
    restarted: Sequence[str] = ()
    """Canaries of which nothing earlier counts."""
    delivered: Sequence[InArm] = ()


def gather(steering: Steering) -> PoolRows | None:
    """Take what has changed since the last time; None where nothing has."""
    warm_ups, reactions = steering.warm_ups, steering.reactions
    rows = PoolRows(
        {place: level and dataclasses.replace(level) for place, level in warm_ups.changed.items()},
        dict(warm_ups.changed_pauses),
        {place: row and dataclasses.replace(row) for place, row in reactions.changed.items()},
        {name: trial and _copy(trial) for name, trial in steering.changed_trials.items()},
        steering.restarted,
        steering.delivered,
    )
    steering.restarted, steering.delivered = [], []
    warm_ups.changed, warm_ups.changed_pauses, reactions.changed, steering.changed_trials = {}, {}, {}, {}
    return rows if any(rows) else None


def merged(earlier: PoolRows | None, later: PoolRows | None) -> PoolRows | None:
    """Join what could not be stored with what came since; of two rows of one thing the later counts."""
    if earlier is None or later is None:
        return earlier or later
    return PoolRows(
        _joined(earlier.levels, later.levels),
        _joined(earlier.pauses, later.pauses),
        _joined(earlier.reactions, later.reactions),
        _joined(earlier.trials, later.trials),
        (*earlier.restarted, *later.restarted),
        (*(each for each in earlier.delivered if each.canary not in later.restarted), *later.delivered),
    )


def write(connection: sqlite3.Connection, rows: PoolRows) -> None:
    """Within a transaction."""
    many = connection.executemany
    many(_DROP_LEVEL, [place for place, level in rows.levels.items() if level is None])
    many(_PUT_LEVEL, [dataclasses.astuple(level) for level in rows.levels.values() if level])
    many(_DROP_PAUSE, [(transport,) for transport, by_whom in rows.pauses.items() if by_whom is None])
    many(_PUT_PAUSE, [(transport, by_whom) for transport, by_whom in rows.pauses.items() if by_whom is not None])
    many(_DROP_REACTION, [place for place, reaction in rows.reactions.items() if reaction is None])
    many(_PUT_REACTION, [dataclasses.astuple(reaction) for reaction in rows.reactions.values() if reaction])
    many(_DROP_TRIAL, [(name,) for name, trial in rows.trials.items() if trial is None])
    many(_PUT_TRIAL, [_trial_row(trial) for trial in rows.trials.values() if trial])
    many(_DROP_MESSAGES, [(name,) for name in rows.restarted])
    many(_PUT_MESSAGE, rows.delivered)


def restore(steering: Steering, database: Database) -> None:
    """Give back what the store kept."""
    for row in database.rows(f"SELECT {_LEVEL} FROM warm_up", ()):
        values = dict(zip(_LEVEL_COLUMNS, row, strict=True))
        values |= {name: bool(values[name]) for name in ("stepped", "warm")}  # SQLite has numbers alone
        steering.warm_ups.restore(Level(**values))
    for transport, by_whom in database.rows("SELECT transport, by_whom FROM warm_up_pause", ()):
        steering.warm_ups.paused[transport] = by_whom
    for row in database.rows(f"SELECT {_REACTION} FROM reaction", ()):
        steering.reactions.restore(Reaction(*row))
    for name, phase, since, why, by_whom, counts in database.rows(f"SELECT {_TRIAL} FROM canary", ()):
        read = {Arm(arm): nothing_counted() | numbers for arm, numbers in json.loads(counts).items()}
        steering.restore_trial(Trial(name, Phase(phase), since, why, by_whom, read))


def _copy(trial: Trial) -> Trial:
    return dataclasses.replace(trial, counts={arm: dict(counts) for arm, counts in trial.counts.items()})


def _trial_row(trial: Trial) -> tuple[object, ...]:
    return trial.name, trial.phase, trial.since, trial.why, trial.by_whom, json.dumps(trial.counts)


def _joined(earlier: Mapping[_K, _V], later: Mapping[_K, _V]) -> dict[_K, _V]:
    return {**earlier, **later}


def _columns(kind: type[Level] | type[Reaction]) -> str:
    return ", ".join(field.name for field in dataclasses.fields(kind))


def _put(table: str, columns: str) -> str:
    return f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({', '.join('?' * len(columns.split(', ')))})"


_LEVEL = _columns(Level)
_LEVEL_COLUMNS = _LEVEL.split(", ")
_REACTION = _columns(Reaction)
_TRIAL = "name, phase, since, why, by_whom, counts"
_PUT_LEVEL = _put("warm_up", _LEVEL)
_PUT_PAUSE = _put("warm_up_pause", "transport, by_whom")
_PUT_REACTION = _put("reaction", _REACTION)
_PUT_TRIAL = _put("canary", _TRIAL)
_PUT_MESSAGE = _put("canary_message", ", ".join(InArm._fields))
_DROP_MESSAGES = "DELETE FROM canary_message WHERE canary = ?"
_DROP_LEVEL = "DELETE FROM warm_up WHERE transport = ? AND provider = ?"
_DROP_PAUSE = "DELETE FROM warm_up_pause WHERE transport = ?"
_DROP_REACTION = "DELETE FROM reaction WHERE rule = ? AND object = ? AND provider = ?"
_DROP_TRIAL = "DELETE FROM canary WHERE name = ?"
