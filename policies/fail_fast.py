"""Mail whose authentication is broken waits until it is repaired, where the site wants that.

Knows whom the site wants held and what it takes to believe that something is broken; who looks at the DNS is told by
`broken` and `repaired` alone, and where nobody says either any more, what is held leaves by way of a probe.
"""

from collections.abc import Callable, Collection
from typing import Final, NamedTuple, Protocol

from policies.key import EVERYWHERE, Key

LEASE: Final = 1800.0
"""Seconds that one word of a breakage holds for; without another word mail is tried again."""
LOOKS: Final = 2
"""Looks in a row that must have found it broken."""
EPISODE: Final = 3600.0
"""Seconds without a reply that wants the repair after which an accepted message means that it was made."""
PTR: Final = "authentication.ptr"
TLS: Final = "infrastructure.tls"
"""Leaves of the replies that want a repair of this host's own."""
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
    """One key that is broken, as the store keeps it: everywhere, by our own looks; or at one provider, by its replies,
    from when somebody let it go.
    """

    key: Key
    rule: str
    evidence: str
    since: float
    let_go_by: str = ""
    """Who would rather have it sent, until it was repaired once; "" while it is held."""


class Holder(Protocol):
    """`policies.orders`, as far as it is needed here."""

    def hold(self, key: Key, seconds: float, *, rule: str, line: str, by_whom: str, now: float) -> object: ...

    def resume(self, key: Key, *, by_whom: str, now: float) -> bool: ...

    def open_keys(self) -> Collection[Key]: ...


class FailFast:
    def __init__(self, holder: Holder, wanted: HoldBroken) -> None:
        self._holder = holder
        self._wanted = wanted
        self._broken: dict[Key, Broken] = {}
        self._let_go: dict[str, dict[Key, float]] = {}
        """Provider -> what was let go there, and when it last wanted the repair; 0: that is not known."""
        self.changed: dict[Key, Broken | None] = {}
        """To store since the last look; None for those that are repaired."""

    def known(self) -> list[Broken]:
        return list(self._broken.values())

    def restore(self, row: Broken) -> None:
        """Take back what the store kept; what the site no longer wants held is forgotten."""
        if self.wants(row.key.value):
            self._broken[row.key] = row
            if row.key.provider != EVERYWHERE:
                self._let_go.setdefault(row.key.provider, {})[row.key] = 0.0
        else:
            self.changed[row.key] = None

    @property
    def held(self) -> list[Key]:
        """What is broken by our own looks, let go or not."""
        return [key for key in self._broken if key.provider == EVERYWHERE]

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
        for row in [other for other in self._broken if other.provider != EVERYWHERE and _alike(other, key)]:
            self._forget(row)
        opened = self._holder.open_keys()
        alike = [other for other in opened if other == key or (other.provider != EVERYWHERE and _alike(other, key))]
        held = [self._holder.resume(each, by_whom="authentication", now=now) for each in alike]
        return any(held) and not known.let_go_by

    def let_go(self, key: Key | None, *, by_whom: str) -> list[Key]:
        """Hold nothing more under a key (under any where None) until it was repaired; the keys that this was news for."""
        known = self.known() if key is None else [row for row in self.known() if row.key == key]
        found = [row._replace(let_go_by=by_whom) for row in known if not row.let_go_by]
        for row in found:
            self._broken[row.key] = self.changed[row.key] = row
        return [row.key for row in found]

    # What a provider's replies say of it.

    def let_go_at(self, key: Key, rule: str, evidence: str, *, since: float, by_whom: str) -> None:
        """Hold nothing more under a key that a provider's replies have opened until that provider is content."""
        if key in self._broken or len(self._broken) < _MOST:
            self._broken[key] = self.changed[key] = Broken(key, rule, evidence[:_EVIDENCE_MAX], since, by_whom)
            self._let_go.setdefault(key.provider, {})[key] = 0.0

    def passes(self, key: Key, *, now: float) -> bool:
        """Whether somebody has let go what a provider's reply would have held now; notes when that was."""
        there = self._let_go.get(key.provider, {})
        if key in there:
            there[key] = now
            return True
        everywhere = (self._broken.get(Key(type_, key.value, EVERYWHERE)) for type_ in _DOMAINS if key.type in _DOMAINS)
        return any(row is not None and row.let_go_by for row in everywhere)

    def accepted(self, provider: str, covers: Callable[[Key], bool], *, now: float) -> None:
        """Take that a provider took a message: the episodes of its keys that cover it are over, if they were quiet."""
        there = self._let_go.get(provider)
        if not there:  # nearly always
            return
        for key in [key for key in there if covers(key)]:
            there[key] = there[key] or now
            if now - there[key] >= EPISODE:
                self._forget(key)

    def _forget(self, key: Key) -> None:
        del self._broken[key]
        del self._let_go[key.provider][key]
        self.changed[key] = None


def _alike(one: Key, other: Key) -> bool:
    """Whether both are of one domain: replies about its DKIM key often name nobody, and so mean the envelope's."""
    return one.value == other.value and {one.type, other.type} <= _DOMAINS


_TYPES: Final = frozenset({"spf-domain", "dkim-domain"})
_DOMAINS: Final = _TYPES | {"from-domain"}
