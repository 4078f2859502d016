"""What hosts of a fleet tell each other about names: whose provider a recipient domain is, what an envelope domain signs as.

It knows what such a fact looks like and which of two counts: what a host sees itself, and of what others saw the latest.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from policies.fleet import reading
from policies.recipients import RecipientProviders
from policies.senders import Habit, SenderHabits

PROVIDER: Final = "provider"
"""Of a recipient domain; the other kinds are those of `Habit`."""
HABITS: Final = frozenset({"dkim-domain", "from-domain"})
"""A key of a signer is not told: whether a host signs with it is that host's own affair."""
AT_ONCE: Final = 25
"""Facts in one text."""
LONGEST: Final = 255
"""Characters of a name (RFC 1035 section 2.3.4)."""
_LONGEST_TEXT: Final = AT_ONCE * (6 * 2 * LONGEST + 64)
"""Where every letter is escaped."""
_KINDS: Final = [PROVIDER, *sorted(HABITS)]


class Fact(NamedTuple):
    kind: str
    name: str
    """A recipient domain, or an envelope domain."""
    value: str
    """Its provider, or what its mail is signed by or from."""


def texts(facts: Iterable[Fact]) -> list[str]:
    """Write them as JSON, some in each text; what is no name is nobody else's business."""
    told = [fact for fact in facts if _is_name(fact.name) and _is_name(fact.value)]
    return [json.dumps(told[at : at + AT_ONCE], separators=(",", ":")) for at in range(0, len(told), AT_ONCE)]


def read(text: str) -> list[Fact]:
    """Read what `texts` wrote; kinds of a newer version are passed over. Raises ValueError for what is no fact."""
    return reading.read(text, "list of facts", _facts, kind=list, longest=_LONGEST_TEXT)


def _facts(rows: Sequence[object]) -> list[Fact]:
    if len(rows) > AT_ONCE:
        raise ValueError(f"{len(rows)} facts; wanted at most {AT_ONCE}")
    return [fact for row in rows if (fact := _fact(row)) is not None]


def _fact(row: object) -> Fact | None:
    if not isinstance(row, list) or len(row) < len(Fact._fields):
        raise ValueError(f"{row!r:.40} is no fact; wanted kind, name, value")
    kind, name, value = row[: len(Fact._fields)]
    if kind not in _KINDS:
        return None
    for each in (name, value):
        if not _is_name(each):
            raise ValueError(f"{each!r:.40} in a fact; wanted a name of at most {LONGEST} characters")
    return Fact(str(kind), name, value)


def _is_name(text: object) -> bool:
    """Whether it may be a name: a policy client or a log may have sent anything."""
    return isinstance(text, str) and 0 < len(text) <= LONGEST and text.isprintable() and " " not in text


def hear(fact: Fact, recipients: RecipientProviders, habits: SenderHabits, *, at: float, now: float) -> bool:
    """Take what another host saw at `at`. Whether it counts here."""
    if fact.kind == PROVIDER:
        return recipients.hear(fact.name, fact.value, at=min(at, now), now=now)
    return habits.hear(Habit(*fact))


def news(recipients: RecipientProviders, habits: SenderHabits, *, most: int) -> list[Fact]:
    """Take what was learned here since the last time, to be told; all of it, at most so much, where some was lost."""
    new, seen = recipients.news or [], habits.news or []
    recipients.news, habits.news = [], []
    if len(new) > most or len(seen) > most:
        return everything(recipients, habits, most=most)
    return [*(Fact(PROVIDER, *row) for row in new), *(Fact(*row) for row in seen)]


def everything(recipients: RecipientProviders, habits: SenderHabits, *, most: int) -> list[Fact]:
    """Give what was seen here, of each kind the latest."""
    told = [Fact(*habit) for habit in habits.seen(most) if habit.kind in HABITS]
    return [*(Fact(PROVIDER, *row) for row in recipients.seen(most)), *told]


def here(kind: str, name: str, recipients: RecipientProviders, habits: SenderHabits) -> tuple[tuple[str, ...], bool]:
    """Tell what counts here, and whether it was seen here."""
    if kind != PROVIDER:
        return habits.here(kind, name)
    found = recipients.here(name)
    return ((found[0],), found[1]) if found is not None else ((), False)
