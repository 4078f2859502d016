"""Warm-up of an address: how much its transport may carry today, to each provider and altogether.

Knows that a provider judges the growth that it sees itself, so that each has a figure of its own; that the figure grows
from what was really sent; and which signals stop it, or take it back. Days are those of UTC.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final, NamedTuple

from policies.deliverability import Rate, wilson
from policies.key import EVERYWHERE

DAY: Final = 86_400.0
IDLE: Final = 7
"""Days for which a figure stands that is not made use of: a newsletter may leave once a week. After them it falls."""
DEFERRALS_MAX: Final = 0.10
"""Share of attempts that are put off, above which nothing grows ..."""
ACCEPTANCE_MIN: Final = 0.98
"""... and of recipients with a final outcome that are accepted, below which nothing grows; both if chance is no reason."""
FEWEST: Final = 5
"""Of which there must be so many: of fewer no share is sure."""
REFUSALS: Final = 3
"""Replies of a day against the address itself that take a figure back: one may be a slip of one server."""
GROWTH_MAX: Final = 4.0
MOST = 10_000
"""Figures, of all transports."""
KEPT: Final = 35
"""Days after which a provider that had no mail is forgotten: it begins anew then anyway."""

_EPOCH: Final = date(1970, 1, 1).toordinal()


class Plan(NamedTuple):
    """A [[warm_up]] of the configuration."""

    transport: str
    started: int
    """The first day, counted from 1970-01-01; before it the transport takes no mail."""
    start_per_day: int
    """Recipients on the first day."""
    growth: float
    """Factor from one good day to the next."""
    until_per_day: int
    """Recipients a day at which it is warm."""
    caps: Mapping[str, int] = {}
    """Provider -> recipients a day that it never gets more than while this lasts."""
    fleet: bool = False
    """All hosts of the fleet send it from one address, and have its figures together."""

    def first(self, provider: str) -> float:
        """Give the figure of the first day."""
        return float(min(self.start_per_day, self.caps.get(provider, self.start_per_day)))

    def most(self, provider: str) -> int:
        return min(self.until_per_day, self.caps.get(provider, self.until_per_day))


@dataclass(slots=True)
class Level:
    """How far it has come with one provider, or altogether, and the tally of one day. As the store keeps it."""

    transport: str
    provider: str
    """"*": all together."""
    day: int
    figure: float
    """Recipients that may go today."""
    promised: int = 0
    """Recipients sent over it today, whatever becomes of them."""
    turned_away: int = 0
    """Recipients that were too many for this figure today."""
    attempts: int = 0
    deferred: int = 0
    accepted: int = 0
    final: int = 0
    """Recipients of today with a final outcome."""
    refused: int = 0
    """Replies against the address itself."""
    stepped: bool = False
    """It was taken back today; once a day is enough."""
    held: str = ""
    """Why nothing grows out of today, as others told."""
    used_on: int = 0
    """The last day that made use of it; of a new one the first."""
    warm: bool = False
    """Its limit is over."""

    @property
    def poor(self) -> str:
        """Why nothing grows out of today; "" where it may."""
        if self.held:
            return self.held
        deferrals, acceptance = Rate(self.deferred, self.attempts), Rate(self.accepted, self.final)
        if self.deferred >= FEWEST and wilson(deferrals).low > DEFERRALS_MAX:
            return f"{deferrals.share:.0%} of {self.attempts} attempts were put off"
        if self.final - self.accepted >= FEWEST and wilson(acceptance).high < ACCEPTANCE_MIN:
            return f"{acceptance.share:.1%} of {self.final} recipients were accepted"
        return ""


def day_of(text: str) -> int:
    """Count a date, 2026-11-22, from 1970-01-01. Raises ValueError."""
    return date.fromisoformat(text).toordinal() - _EPOCH


class Outcome(NamedTuple):
    """An attempt at a provider over a transport, as far as it counts here."""

    accepted: bool = False
    deferred: bool = False
    final: bool = False
    against_us: bool = False
    """The reply was about the address that we send from."""


class Spent(NamedTuple):
    """Why mail does not go over a transport that warms up."""

    provider: str
    why: str


class WarmUps:
    def __init__(self, plans: Iterable[Plan], *, scale: float = 1.0) -> None:
        """`scale` divides the day, for labs. Raises ValueError for a plan that makes no sense."""
        self._day = DAY / scale
        self._levels: dict[tuple[str, str], Level] = {}
        self.paused: dict[str, str] = {}
        """Transport -> by whom."""
        self.changed_pauses: dict[str, str | None] = {}
        """To store since the last look; None for those that go on."""
        self.changed: dict[tuple[str, str], Level | None] = {}
        """To store since the last look; None for those that are forgotten."""
        self.alone: float | None = None
        """This host's part of a figure of the fleet that it has without asking; None: it shares nothing."""
        self.fleet: dict[tuple[str, str], Level] = {}
        """How far the fleet has come, as we know it, and what all its hosts counted; the figures of our own levels are parts of it."""
        self.configure(plans)

    def configure(self, plans: Iterable[Plan]) -> None:
        """Take other plans; how far each transport has come stays. Raises ValueError, and nothing has changed."""
        found: dict[str, Plan] = {}
        for plan in plans:
            _check(plan)
            if plan.transport in found:
                raise ValueError(f"warm_up {plan.transport}: there are two of it; wanted one")
            found[plan.transport] = plan
        self._plans = found

    @property
    def plans(self) -> tuple[Plan, ...]:
        return tuple(self._plans.values())

    def restore(self, level: Level) -> None:
        """Take back what the store kept."""
        self._levels[level.transport, level.provider] = level

    # Mail.

    def refuses(self, transport: str, counts: Mapping[str, int], *, now: float) -> Spent | None:
        """Say why a message with so many recipients by provider does not go over it; None where it may."""
        plan = self._plans.get(transport)
        if plan is None:
            return None
        if transport in self.paused:
            return Spent(EVERYWHERE, f"its warm-up is paused by {self.paused[transport]}")
        today = self.day(now)
        if today < plan.started:
            return Spent(EVERYWHERE, f"its warm-up begins {self.date(plan.started)}")
        for provider, number in (*counts.items(), (EVERYWHERE, sum(counts.values()))):
            level = self._own(plan, provider, today)
            if level and not level.warm and level.promised + number > level.figure:
                return Spent(provider, f"its {level.figure:.0f} of today {_at(provider)}are spent")
        return None

    def promise(self, transport: str, counts: Mapping[str, int], *, now: float) -> None:
        """Count a message that goes over it."""
        plan = self._plans.get(transport)
        if plan is None:
            return
        today = self.day(now)
        self._note(self._today(plan, EVERYWHERE, today), promised=sum(counts.values()))
        for provider, number in counts.items():
            level = self._own(plan, provider, today)
            if level:
                self._note(level, promised=number)

    def turned_away(self, transport: str, spent: Spent, number: int) -> None:
        """Count what was too much for a figure."""
        level = self._levels.get((transport, spent.provider))
        if level is not None:
            self._note(level, turned_away=number)

    # Signals.

    def attempted(self, transport: str, provider: str, outcome: Outcome, *, now: float) -> str:
        """Count what became of an attempt. Says what was taken back for it, "" where nothing was."""
        plan = self._plans.get(transport)
        if plan is None or (transport, provider) not in self._levels:
            return ""
        said = ""
        for each in (EVERYWHERE, provider):
            level = self._today(plan, each, self.day(now))
            self._note(level, attempts=1, deferred=outcome.deferred, accepted=outcome.accepted, final=outcome.final)
            if outcome.against_us and each == provider:
                level.refused += 1
                if level.refused >= REFUSALS and not self.shares(plan):
                    said = step_back(plan, level)
        return said

    def signal(self, transport: str, provider: str, why: str, *, now: float) -> None:
        """Hear from elsewhere (complaints, a listing) that nothing should grow out of today; "*": with nobody."""
        plan = self._plans.get(transport)
        if plan is None or self.day(now) < plan.started:
            return
        concerned = [level for level in self._levels.values() if level.transport == transport]
        names = {level.provider for level in concerned} if provider == EVERYWHERE else {provider}
        for name in {*names, *({EVERYWHERE} if provider == EVERYWHERE else ())}:
            level = self._today(plan, name, self.day(now))
            if not level.held:
                level.held = why[:200]
                self.changed[transport, name] = level

    def pause(self, transport: str, *, by_whom: str) -> None:
        """Let it carry nothing. Raises KeyError where nothing of this name warms up."""
        name = self._plans[transport].transport
        self.paused[name] = self.changed_pauses[name] = by_whom

    def resume(self, transport: str) -> bool:
        """Whether it was paused. Raises KeyError as `pause`."""
        name = self._plans[transport].transport
        self.changed_pauses[name] = None
        return self.paused.pop(name, None) is not None

    # Days.

    def day(self, now: float) -> int:
        return math.floor(now / self._day)

    def date(self, day: int) -> str:
        """Write a day for people; in a lab, whose days are short, its number."""
        return f"on {date.fromordinal(_EPOCH + day)}" if self._day == DAY else f"on day {day}"

    def look(self, *, now: float) -> None:
        """Begin the day where nobody has sent anything yet; forget providers that have had no mail for long."""
        today = self.day(now)
        for plan in self._plans.values():
            if today >= plan.started:
                self._today(plan, EVERYWHERE, today)
        for place, level in list(self._levels.items()):
            plan_of = self._plans.get(level.transport)
            if plan_of is None or level.provider == EVERYWHERE:
                continue
            self._today(plan_of, level.provider, today)
            if today - level.used_on > KEPT and not level.promised:
                del self._levels[place]
                self.changed[place] = None

    def levels(self, transport: str) -> list[Level]:
        """All that is known of one, the whole first, then the largest."""
        found = [level for level in self._levels.values() if level.transport == transport]
        return sorted(found, key=lambda level: (level.provider != EVERYWHERE, -level.figure, level.provider))

    def _own(self, plan: Plan, provider: str, today: int) -> Level | None:
        """Give a provider's own level; None where it has none, and the whole is its only limit.

        That is so where the provider is not known, and for those that come when there are a great many: what a list of
        dead domains makes up must not fill the memory.
        """
        if (plan.transport, provider) not in self._levels and (not provider or len(self._levels) >= MOST):
            return None
        return self._today(plan, provider, today)

    def _today(self, plan: Plan, provider: str, today: int) -> Level:
        place = (plan.transport, provider)
        level = self._levels.get(place)
        if level is None:
            figure = 0.0 if self.shares(plan) else plan.first(provider)  # nobody knows yet that we send there
            level = Level(plan.transport, provider, today, figure, used_on=today)
            self._levels[place] = self.changed[place] = level
        elif level.day < today:  # a clock that was set back does not give the day's figure twice
            if self.shares(plan):
                level.used_on = level.day if level.promised else level.used_on
                begin_day(level, today)
                level.figure = self._unasked(plan, provider, today)
            else:
                settle(plan, level, today, self._levels.get((plan.transport, EVERYWHERE)))
            self.changed[place] = level
        return level

    # A fleet's.

    def shares(self, plan: Plan) -> bool:
        """Whether other hosts have a part in its figures."""
        return plan.fleet and self.alone is not None

    def _unasked(self, plan: Plan, provider: str, today: int) -> float:
        """Give our part of a figure that nobody has told us yet: of the least that it can have come to."""
        figure, known = plan.first(provider), self.fleet.get((plan.transport, provider))
        if known is not None:
            steps = 2 * min(max(0, today - known.day), 200)  # a day takes one for refusals, and one for want of mail
            figure = max(figure, min(known.figure, plan.most(provider)) / plan.growth**steps)
        return figure * (self.alone or 0.0)

    def resize(self, level: Level, figure: float) -> None:
        """Let so many recipients go today, of those that the fleet may."""
        if level.figure != figure:
            level.figure = figure
            self.changed[level.transport, level.provider] = level

    def learn(self, fleet: Level) -> None:
        """Hear how far the fleet has come."""
        place = (fleet.transport, fleet.provider)
        self.fleet[place] = fleet
        level = self._levels.get(place)
        if level is not None and level.warm != fleet.warm:
            level.warm = fleet.warm
            self.changed[place] = level

    def recall(self, level: Level, promised: int) -> None:
        """We have said that so many were sent today; what we do not know of them any more is not sent again."""
        if promised > level.promised:
            level.promised = promised
            self.changed[level.transport, level.provider] = level

    def set_back(self, level: Level, day: int) -> None:
        """It was that day still, or again: a clock had gone ahead. What was sent meanwhile was sent on this day."""
        level.day, level.figure = day, float(level.promised)
        self.changed[level.transport, level.provider] = level

    def _note(self, level: Level, **more: int) -> None:
        for name, number in more.items():
            setattr(level, name, getattr(level, name) + number)
        self.changed[level.transport, level.provider] = level


def settle(plan: Plan, level: Level, today: int, whole: Level | None) -> None:
    """Close the day that was, and all days without mail since. `whole`: of all providers together."""
    if level.promised * plan.growth >= level.figure:
        level.used_on = level.day
    ended = level.warm or _is_warm(plan, level, whole)
    if not level.poor and not level.stepped:
        level.figure = max(level.figure, level.promised * plan.growth)
    unused = today - 1 - max(level.day - 1, level.used_on + IDLE)
    if unused > 0:
        level.figure /= plan.growth ** min(unused, 400)
        ended = ended and level.figure >= plan.until_per_day
    cap = plan.most(level.provider)
    level.figure = max(min(plan.start_per_day, cap), min(level.figure, cap))
    level.warm = ended
    begin_day(level, today)


def begin_day(level: Level, today: int) -> None:
    level.day = today
    level.promised = level.turned_away = level.attempts = level.deferred = level.accepted = level.final = 0
    level.refused, level.stepped, level.held = 0, False, ""


def _is_warm(plan: Plan, level: Level, whole: Level | None) -> bool:
    """Whether a good day showed that its limit is no longer needed: the last figure was reached and made use of.

    With a provider it is enough that the whole is warm, and that its own limit kept nothing back.
    """
    if level.poor or level.stepped:
        return False
    if level.figure >= plan.until_per_day and level.promised * plan.growth >= level.figure:
        return True
    return bool(whole and whole is not level and whole.warm and not level.turned_away)


def step_back(plan: Plan, level: Level) -> str:
    """Take back a provider's figure by a step, once a day; what goes there already is not recalled. Says what was done."""
    if level.stepped:
        return ""
    before, level.figure = level.figure, max(float(plan.start_per_day), level.figure / plan.growth)
    level.stepped, level.warm = True, False
    level.held = f"{level.provider} refused the address {level.refused} times"
    return f"{level.transport} {_at(level.provider)}steps back from {before:.0f} to {level.figure:.0f} a day"


def _at(provider: str) -> str:
    return "" if provider == EVERYWHERE else f"at {provider} "


def _check(plan: Plan) -> None:
    """Raises ValueError."""
    name = f"warm_up {plan.transport}"
    if plan.start_per_day < 1:
        raise ValueError(f"{name}: start_per_day {plan.start_per_day}, wanted 1 or more")
    if not 1.0 < plan.growth <= GROWTH_MAX:
        raise ValueError(f"{name}: growth {plan.growth:g}, wanted above 1, at most {GROWTH_MAX:g} (1.3 is usual)")
    if plan.until_per_day < plan.start_per_day:
        raise ValueError(f"{name}: until_per_day {plan.until_per_day}, wanted start_per_day or more")
    low = next((provider for provider, most in plan.caps.items() if most < 1), None)
    if low is not None:
        raise ValueError(f"{name}: caps.{low}: {plan.caps[low]}, wanted 1 or more")
