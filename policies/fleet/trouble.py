"""Which page of the fleet an incident belongs to: that of the trouble, whichever alert was the first to show it on whichever host.

Hosts enter in one list what their incidents are about. Who has a new one looks there for what belongs with it; in doubt it is a
page of its own, for two pages are better than none.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

from policies.figures import Kind
from policies.fleet import reading
from policies.fleet.page import OWN_KINDS, Page
from policies.incidents import Incident, Symptom, alike, share

ENTERED: Final = 300.0
"""Seconds after which a host enters again what still goes on."""
KEPT: Final = 4 * ENTERED
"""Seconds for which an entry counts that nobody has entered again."""
SOON: Final = 10.0
"""Seconds within which who has entered something says that it sees it."""
SIGNS_MAX: Final = 10
"""Alerts of one page that are entered."""
PAGES_MAX: Final = 200


class Sign(NamedTuple):
    """An alert, as far as what it belongs with goes."""

    key: str
    condition: str
    object: str
    kind: Kind
    fired_at: float
    """By the clock of its host."""


class Entry(NamedTuple):
    until: float
    """By the store's clock."""
    signs: tuple[Sign, ...]


class Troubles(NamedTuple):
    entries: Mapping[str, Entry] = {}
    """By page."""

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `text` wrote. Raises ValueError."""
        return reading.read(
            text, "list of troubles", lambda found: cls({reading.plain(key): _entry(it) for key, it in found.items()})
        )

    def text(self) -> str:
        return json.dumps(self.entries, separators=(",", ":"), sort_keys=True)

    def candidates(self, incident: Incident, *, at: float) -> list[str]:
        """List the pages that an incident may belong to, the likeliest first: its own, as hosts of older versions have."""
        ours = _signs(incident)
        keys = {sign.key for sign in ours}
        live = [
            (not any(sign.key in keys for sign in entry.signs), page)
            for page, entry in self.entries.items()
            if _is_live(entry, at) and page != incident.dedup_key and _belong(entry.signs, ours)
        ]
        return [incident.dedup_key, *(page for _, page in sorted(live))]

    def goes_on(self, name: str, page: Page, *, at: float) -> bool:
        """Whether somebody sees it, or has just entered it and not yet said so."""
        entry = self.entries.get(name)
        young = entry is not None and _is_live(entry, at) and entry.until > at + KEPT - SOON
        return bool(page.seen(at=at)) or (young and not page.sights)

    def entered(self, page: str, incident: Incident, *, at: float) -> Self:
        """Enter what an incident is about, unless that stands there for long enough."""
        was = self.entries.get(page, Entry(0.0, ()))
        known = {sign.key: sign for sign in was.signs} if _is_live(was, at) else {}
        new = [sign for sign in _signs(incident) if sign.key not in known]
        if _is_live(was, at) and was.until >= at + KEPT - ENTERED and (not new or len(known) >= SIGNS_MAX):
            return self
        signs = (*known.values(), *new)[:SIGNS_MAX]
        live = sorted((entry.until, key) for key, entry in self.entries.items() if _is_live(entry, at) and key != page)
        kept = {key: self.entries[key] for _, key in live[-(PAGES_MAX - 1) :]}
        return type(self)({**kept, page: Entry(at + KEPT, signs)})


def _is_live(entry: Entry, at: float) -> bool:
    """Whether it counts; one that was written by a clock which was ahead does not for longer than any other."""
    return at < entry.until <= at + KEPT + SOON


def _belong(theirs: Sequence[Sign], ours: Sequence[Sign]) -> bool:
    """Whether two hosts see one trouble.

    What has nothing in common and merely comes at the same time has one cause on one host, whose lines it is all about. On two hosts
    it has where it is of different kinds, as a sender's refusals and a provider's share; two providers are two troubles.
    """
    if share(theirs, ours):
        return True
    kinds = {sign.kind for sign in theirs} & {sign.kind for sign in ours}
    return not kinds and any(alike(one, other) for one in theirs for other in ours)


def _signs(incident: Incident) -> list[Sign]:
    """Of what is about this host alone there is nothing to compare."""
    return [_taken(member) for member in incident.members if member.kind not in OWN_KINDS]


def _taken(alert: Symptom) -> Sign:
    return Sign(alert.key, alert.condition, alert.object, alert.kind, alert.fired_at)


def _entry(values: Any) -> Entry:
    until, signs, *_ = values
    return Entry(reading.number(until), tuple(map(_sign, signs)))


def _sign(values: Any) -> Sign:
    key, condition, what, kind, fired_at, *_ = values
    text = reading.text
    return Sign(text(key), text(condition), text(what), Kind(text(kind)), reading.number(fired_at))
