"""Mail whose authentication is broken waits until it is repaired, where the site wants that.

Knows whom the site wants held and what it takes to believe that something is broken; who looks at the DNS is told by
`broken` and `repaired` alone, and where nobody says either any more, what is held leaves by way of a probe.
"""

from collections.abc import Collection
from typing import Final, NamedTuple, Protocol

from policies.key import EVERYWHERE, Key

LEASE: Final = 1800.0
"""Seconds that one word of a breakage holds for; without another word mail is tried again."""
LOOKS: Final = 2
"""Looks in a row that must have found it broken."""
RULE: Final = "authentication/"
"""Stands before what is broken, in the place of a rule."""
_EVIDENCE_MAX: Final = 500
_MOST: Final = 10_000


class HoldBroken(NamedTuple):
    """Whose mail the site wants held."""

    everybody: bool = False
    domains: frozenset[str] = frozenset()
    """These, and all below them."""

    def wants(self, domain: str) -> bool:
        labels = domain.split(".")
        return self.everybody or any(".".join(labels[start:]) in self.domains for start in range(len(labels)))


class Broken(NamedTuple):
    """One key that is broken, as the store keeps it."""

    key: Key
    rule: str
    evidence: str
    since: float
    let_go_by: str = ""
    """Who would rather have it sent, until it was repaired once; "" while it is held."""


class Holder(Protocol):
    """The engine, as far as it is needed here."""

    def hold(self, key: Key, seconds: float, *, rule: str, line: str, by_whom: str, now: float) -> object: ...

    def resume(self, key: Key, *, by_whom: str, now: float) -> bool: ...

    def open_keys(self) -> Collection[Key]: ...


class FailFast:
    def __init__(self, holder: Holder, wanted: HoldBroken) -> None:
        self._holder = holder
        self._wanted = wanted
        self._broken: dict[Key, Broken] = {}
        self.changed: dict[Key, Broken | None] = {}
        """To store since the last look; None for those that are repaired."""

    def known(self) -> list[Broken]:
        return list(self._broken.values())

    def restore(self, row: Broken) -> None:
        """Take back what the store kept; what the site no longer wants held is forgotten."""
        if self.wants(row.key.value):
            self._broken[row.key] = row
        else:
            self.changed[row.key] = None

    def wants(self, domain: str) -> bool:
        return self._wanted.wants(domain)

    def broken(self, key: Key, what: str, evidence: str, *, looks: int, now: float) -> str:
        """Somebody found it broken so many times in a row, and still: hold it. Why it is not held, "" where it is.

        `what` names what is broken ("DKIM"). Raises ValueError for what nobody may ask for.
        """
        if key.provider != EVERYWHERE:
            raise ValueError(f"{key}: wanted @{EVERYWHERE}, for what is broken is broken at every provider")
        if key.type not in _TYPES:
            raise ValueError(f"{key}: wanted one of {', '.join(sorted(_TYPES))}")
        if looks < LOOKS:
            return f"found {looks} time(s), wanted {LOOKS} looks in a row"
        if not self.wants(key.value):
            return "not held: authentication.hold is off for it"
        known = self._broken.get(key)
        if known is None and len(self._broken) >= _MOST:
            return f"not held: {_MOST} others are"
        if known is not None and known.let_go_by:
            return f"let go by {known.let_go_by} until it is repaired"
        rule = f"{RULE}{what.lower()}"
        row = Broken(key, rule, evidence[:_EVIDENCE_MAX], known.since if known else now)
        if row != known:
            self._broken[key] = self.changed[key] = row
        self._holder.hold(key, LEASE, rule=rule, line=row.evidence, by_whom="authentication", now=now)
        return ""

    def repaired(self, key: Key, *, now: float) -> bool:
        """Somebody found it well again: one message is tried, then the rest follows by the ramp. Whether it was held."""
        known = self._broken.pop(key, None)
        if known is None:
            return False
        self.changed[key] = None
        alike = [other for other in self._holder.open_keys() if other[:2] == key[:2]]  # those that replies have opened
        held = [self._holder.resume(each, by_whom="authentication", now=now) for each in alike]
        return any(held) and not known.let_go_by

    def let_go(self, key: Key | None, *, by_whom: str) -> list[Key]:
        """Hold nothing more under a key (under any where None) until it was repaired; the keys that this was news for."""
        known = self.known() if key is None else [row for row in self.known() if row.key == key]
        found = [row._replace(let_go_by=by_whom) for row in known if not row.let_go_by]
        for row in found:
            self._broken[row.key] = self.changed[row.key] = row
        return [row.key for row in found]


_TYPES: Final = frozenset({"spf-domain", "dkim-domain"})
