"""The audit: what was done to the queue, when, why, by whom, and the log line that led to it.

Goes back from the newest by number, so that a page costs the same in a store of millions.
"""

from typing import Any, NamedTuple

from policies.audit import KINDS
from sidecar.own_log import printable
from sidecar.page.listing import PER_PAGE, Wish
from sidecar.page.scene import Scene
from sidecar.page.subqueues import url_of


class Deed(NamedTuple):
    id: int
    time: float
    key: str
    kind: str
    state: str
    why: str
    line: str
    rule: str
    by_whom: str
    messages: int

    @property
    def url(self) -> str:
        return url_of(self.key)

    @property
    def by_hand(self) -> bool:
        return self.by_whom not in {"engine", "policy"}


def deed(row: tuple[Any, ...]) -> Deed:
    id_, time, *texts, messages = row
    key, kind, state, why, line, rule, by_whom = (printable(str(text)) for text in texts)
    return Deed(id_, time, key, kind, state, why, line, rule, by_whom, messages)


class Audit(NamedTuple):
    wish: Wish
    deeds: list[Deed]
    kinds: tuple[str, ...]
    older: str
    """Address of the page before in time; "" where there is none."""
    newest: str
    """Address of the newest, where this page does not begin with it."""


def view(scene: Scene) -> Audit:
    wish = Wish.read(scene.path, scene.query, (), filters=("q", "kind", "by", "before"))
    before = wish.filter("before")
    upto = int(before) if before.isascii() and before.isdecimal() and len(before) < 18 else 1 << 62
    where, parameters = ["id < ?"], list[object]([upto])
    if wish.filter("kind"):
        where.append("kind = ?")
        parameters.append(wish.filter("kind"))
    if wish.filter("by") == "hand":
        where.append("by_whom NOT IN ('engine', 'policy')")
    if wish.filter("q"):
        where.append("(instr(lower(key), lower(?)) > 0 OR instr(line, ?) > 0)")
        parameters += [wish.filter("q"), wish.filter("q")]
    rows = scene.stores.core.rows(_DEEDS.format(where=" AND ".join(where)), (*parameters, PER_PAGE + 1))
    deeds = [deed(row) for row in rows]
    kept = tuple((name, value) for name, value in wish.others if name != "before")
    older = wish.url(others=(*kept, ("before", str(deeds[PER_PAGE - 1].id)))) if len(deeds) > PER_PAGE else ""
    return Audit(wish, deeds[:PER_PAGE], KINDS, older, wish.url(others=kept) if upto < 1 << 62 else "")


_DEEDS = (
    "SELECT id, time, key, kind, state, why, line, rule, by_whom, messages FROM change"
    " WHERE {where} ORDER BY id DESC LIMIT ?"
)
