"""How the hosts of a fleet share what one address may carry today, where they all send from it: a day's figure, lent by need.

What is lent is a number of recipients of that day and comes back only from who has it: whatever host dies, or is cut off, all
together never send more than the figure. The next one grows from what all of them sent. Days are those of the store's clock.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, NamedTuple, Self, get_type_hints

from policies.fleet import reading
from policies.fleet.reading import number, whole
from policies.warm_up import REFUSALS, Level, Plan, settle, step_back


class Share(NamedTuple):
    """What one host has of a day, and its tally."""

    lent: float
    """Recipients that it may send."""
    want: float
    """... and that it would."""
    promised: int = 0
    turned_away: int = 0
    attempts: int = 0
    deferred: int = 0
    accepted: int = 0
    final: int = 0
    refused: int = 0


TALLY: Final = Share._fields[2:]
"""Counts of a `Level`, too."""


class Wish(NamedTuple):
    host: str
    day: int
    """Of which it speaks, by its own clock."""
    share: Share
    """`lent`: what it goes on with."""
    held: str
    """Why nothing should grow out of the day, as others told it."""
    known: Level | None
    """How far the fleet had come when it heard last."""


class Terms(NamedTuple):
    """Under what a wish is heard."""

    plan: Plan
    whole: Level | None
    """Of all providers together, None for that itself."""
    alone: Mapping[str, float]
    """What each host that sends there has of a new day without asking, as a part of the figure."""
    may_grow: bool
    """A majority of the hosts is here."""
    all_declared: bool
    """Every host has told this life of the store what it has."""
    server: str
    today: int


@dataclass(frozen=True, slots=True)
class Budget:
    server: str
    """The life of the store that lent."""
    unsure: int
    """Until the end of that day there may be loans that the store knows nothing of."""
    heard_of: int
    """The day of what the figure was reckoned from; -1: of nothing."""
    level: Level
    """Without what `shares` count."""
    stepped_by: str
    """The host whose word took the figure back."""
    shares: Mapping[str, Share]
    before: tuple[str, ...] = ()
    """Hosts that had a share of the day before: who has not come today has its part of today without asking."""

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `text` wrote, by this version or a newer one. Raises ValueError."""
        return reading.read(text, "budget", cls._of)

    @classmethod
    def _of(cls, values: Any) -> Self:
        shares = {host: _share(each) for host, each in values["shares"].items()}
        return cls(
            reading.text(values["server"]), whole(values["unsure"]), whole(values["heard_of"], least=-1),
            _level(values["level"]), reading.text(values["stepped_by"]), shares, tuple(map(reading.text, values["before"])),
        )  # fmt: skip

    def text(self) -> str:
        values = {name: getattr(self, name) for name in self.__slots__} | {"level": asdict(self.level)}
        return json.dumps(values, separators=(",", ":"), sort_keys=True)

    def total(self) -> Level:
        """Give the level with what all hosts counted."""
        counts: dict[str, Any] = {
            name: getattr(self.level, name) + sum(getattr(share, name) for share in self.shares.values())
            for name in TALLY
        }
        return replace(self.level, **counts)


def attend(budget: Budget | None, wish: Wish, terms: Terms, *, provider: str) -> Budget:
    """Give the budget after a host came to it."""
    plan, today = terms.plan, terms.today
    if budget is None:
        new = Level(plan.transport, provider, today, plan.first(provider), used_on=today)
        budget = Budget(terms.server, today + 1, -1, new, "", {})
    elif budget.server != terms.server:
        budget = replace(budget, server=terms.server, unsure=today + 1)
    unsure = not terms.all_declared and today <= budget.unsure
    if wish.known is not None and wish.known.day > budget.heard_of:
        budget = _reminded(budget, wish.known, terms)
    if budget.level.day < today:
        level = budget.total()
        settle(plan, level, today, terms.whole)
        heard_of = budget.heard_of if unsure else today
        before = tuple(budget.shares)
        budget = replace(budget, heard_of=heard_of, level=level, stepped_by="", shares={}, before=before)
    level = replace(budget.level)
    if wish.held and not level.held:
        level.held = wish.held
    budget = replace(budget, level=level)
    if wish.day == level.day:
        share = _lent(budget, wish, terms, may_grow=terms.may_grow and not unsure)
        budget = replace(budget, shares={**budget.shares, wish.host: share})
    if budget.total().refused >= REFUSALS and not level.stepped:
        level.refused = budget.total().refused
        step_back(plan, level)
        level.refused = 0
        budget = replace(budget, stepped_by=wish.host)
    return budget


def _reminded(budget: Budget, known: Level, terms: Terms) -> Budget:
    """Take what a host knew of the figure later than what it was reckoned from, for the store has forgotten it."""
    level = replace(known)
    if level.day < terms.today:
        settle(terms.plan, level, terms.today, terms.whole)
    else:
        level = uncounted(level)  # each host tells its own
    shares = budget.shares if budget.level.day == level.day else {}
    return replace(budget, heard_of=known.day, level=level, shares=shares)


def _lent(budget: Budget, wish: Wish, terms: Terms, *, may_grow: bool) -> Share:
    figure, mine = budget.level.figure, wish.share
    others = {host: share for host, share in budget.shares.items() if host != wish.host}
    if not may_grow:
        return mine
    unasked = sum(terms.alone.get(host, 0.0) for host in {*budget.before} - {wish.host, *others})
    free = figure * (1.0 - unasked) - mine.lent - sum(share.lent for share in others.values())
    return mine._replace(lent=mine.lent + max(0.0, min(fair(budget, wish) - mine.lent, free)))


def fair(budget: Budget, wish: Wish) -> float:
    """Tell how much of what it wants a host may have: all of it while there is enough for all, else in proportion."""
    figure, want = budget.level.figure, wish.share.want
    wanted = want + sum(share.want for host, share in budget.shares.items() if host != wish.host)
    return want if wanted <= figure else figure * want / wanted


def uncounted(level: Level) -> Level:
    nothing: dict[str, Any] = dict.fromkeys(TALLY, 0)
    return replace(level, **nothing)


def read_level(text: str) -> Level:
    """Read a level from JSON. Raises ValueError."""
    return reading.read(text, "level", _level)


def _level(values: Any) -> Level:
    level = Level(**{field.name: _KINDS[field.name](values[field.name]) for field in fields(Level)})
    if level.figure < 0.0:
        raise ValueError(f"the figure {level.figure!r}; wanted recipients a day")
    return level


def _share(values: Any) -> Share:
    lent, want, *counts = values
    return Share(number(lent, least=0.0), number(want, least=0.0), *map(whole, counts[: len(TALLY)]))


_READS: Final[Mapping[Any, Callable[[object], Any]]] = {
    str: reading.text,
    int: whole,
    float: number,
    bool: reading.flag,
}
_KINDS: Final = {name: _READS[kind] for name, kind in get_type_hints(Level).items()}
