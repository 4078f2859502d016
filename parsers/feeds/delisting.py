"""How one comes off a DNS list: which procedure belongs to a listing, and the words of a listing as the poller tells it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

PREFIX: Final = "listed."
"""Of the measure that says whether a list has something."""


@dataclass(frozen=True, slots=True)
class Procedure:
    list: str
    who: str
    how: str
    sublists: tuple[str, ...] = ()
    """Of these alone; empty: of all that no other procedure names."""
    takes: str = ""
    expires: str = ""
    by_itself: bool = False
    """There is nothing to ask for."""


class Listing(NamedTuple):
    """One listing, as it was told."""

    list: str
    sublists: tuple[str, ...] = ()
    reason: str = ""
    """The list's own words."""
    severity: str = ""


def listing(name: str, text: str) -> Listing:
    """Read the text of a `listed.LIST` figure: "critical: SBL, DROP: see https://..."."""
    severity, _, rest = text.partition(": ")
    sublists, _, reason = rest.partition(": ")
    return Listing(name, tuple(word for word in sublists.split(", ") if word), reason, severity)


def procedures_of(known: Iterable[Procedure], found: Listing) -> list[Procedure]:
    """Give what is to be done, one for each party that must ask; nothing where no procedure is known."""
    ours = [each for each in known if each.list == found.list]
    named = {name for each in ours for name in each.sublists}
    unnamed = not found.sublists or set(found.sublists) - named
    return [each for each in ours if set(each.sublists) & set(found.sublists) or (unnamed and not each.sublists)]
