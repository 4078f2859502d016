"""One sub-queue: where it stands, the log line that opened it, and everything that was done about it.

Reads core's audit log; a sub-queue that is closed has its story still.
"""

from typing import NamedTuple

from sidecar.page import subqueues
from sidecar.page.audit import Deed, deed
from sidecar.page.scene import Scene
from sidecar.page.subqueues import Shown

DEEDS = 200


class OneSubQueue(NamedTuple):
    key: str
    shown: Shown | None
    """None where it is not open."""
    as_of: float
    deeds: list[Deed]
    """Newest first."""
    more: bool
    """There are older ones."""
    messages: list[tuple[str, str, float]]
    """(queue id, sender, arrival) of the oldest that wait."""


def view(scene: Scene) -> OneSubQueue:
    rows, as_of = scene.picture.subqueues, scene.picture.taken_at
    if not as_of:
        as_of, rows = subqueues.last_known(scene.stores.core)
    found = next((subqueues.shown(row) for row in rows if row.key == scene.about), None)
    deeds = [deed(row) for row in scene.stores.core.rows(_CHANGES, (scene.about, DEEDS + 1))]
    waiting = scene.stores.core.rows(_WAITING, (scene.about,))
    return OneSubQueue(scene.about, found, as_of, deeds[:DEEDS], len(deeds) > DEEDS, [(*row,) for row in waiting])


_CHANGES = (
    "SELECT id, time, key, kind, state, why, line, rule, by_whom, messages FROM change WHERE key = ?"
    " ORDER BY id DESC LIMIT ?"
)
_WAITING = (
    "SELECT queue_id, sender, arrival FROM hold WHERE EXISTS (SELECT 1 FROM json_each(hold.keys) WHERE value = ?)"
    " ORDER BY arrival LIMIT 20"
)
