"""Sub-queues as the page shows them, and the last ones known from the store while core was never seen.

Knows words and signs for states; what a state is, the engine knows.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

from policies.subqueue import State
from sidecar.core_status import Row
from sidecar.own_log import printable
from sidecar.page.reading import Store
from sidecar.page.words import Mark

STATES: Mapping[str, Mark] = {
    State.PAUSED: Mark("■", "paused", "bad", "nothing leaves"),
    State.PROBING: Mark("◆", "probing", "warn", "one message is tried"),
    State.RAMPING: Mark("▲", "ramping", "calm", "mail leaves at the learned pace"),
    State.CLOSED: Mark("●", "closed", "good", "no limit is felt any more"),
}


class Shown(NamedTuple):
    """One sub-queue."""

    row: Row
    identity: str
    """As dkim-domain:example.com"""
    provider: str
    mark: Mark
    url: str

    @property
    def due(self) -> float:
        return due(self.row)


def due(row: Row) -> float:
    """When its next step is; 0 where none is due, or not known. A closed one tells when it closed."""
    return 0.0 if row.state == State.CLOSED else row.next_step_at or 0.0


def url_of(key: str) -> str:
    """Where a sub-queue's page is; "" for no key."""
    return f"/subqueue/{quote(key, safe='', errors='backslashreplace')}" if key else ""


def shown(row: Row) -> Shown:
    identity, _, provider = row.key.rpartition("@")
    mark = STATES.get(row.state, Mark("?", row.state, "calm"))
    return Shown(row, identity, provider, mark, url_of(row.key))


def last_known(store: Store) -> tuple[float, tuple[Row, ...]]:
    """Read from core's store what core had written down last: when, and the open sub-queues."""
    held = dict(store.rows(_HELD))
    found = store.rows(_SUBQUEUES)
    rows = (
        _row(key, snapshot, held=int(held.get(key, 0)), line=line, rule=rule) for key, snapshot, line, rule, _ in found
    )
    return max((at for *_, at in found), default=0.0), tuple(sorted(rows, key=lambda row: (-row.held, row.key)))


def _row(key: str, snapshot: str, *, held: int, line: str, rule: str) -> Row:
    try:
        said = json.loads(snapshot)
    except ValueError:
        said = {}
    state = str(said.get("state", "?"))
    until = said.get("until") if state == State.PAUSED else None
    since = float(said.get("since") or 0.0)
    return Row(printable(key), state, since, held, 0, None, until, printable(line), rule, 0)


_SUBQUEUES = "SELECT key, snapshot, opened_line, opened_rule, updated_at FROM subqueue WHERE opened_at > 0"
_HELD = "SELECT json_each.value, count(*) FROM hold, json_each(hold.keys) GROUP BY 1"
