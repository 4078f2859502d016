"""How the hosts of a fleet share what one key may use of a quota: a part for each without asking, the rest lent by need.

A host gives back only room that is empty, so that what all hosts have in use together is never more than one bucket holds.
Who hears nothing for long goes over to an equal part, as fast as a bucket drains: what some have less then, others have
more. Parts are of 1, the whole quota. Times are the store's.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from policies.fleet import reading
from policies.fleet.terms import REDUCED

HOLDS: Final = 1_800.0
"""Seconds for which a host keeps what it was lent without hearing of the store; then it has less of it, by and by."""
RENEWED: Final = 60.0
"""Seconds after which it asks anew for what it has, and gives back what it does not need."""
AWAY: Final = 300.0
"""Seconds after which others leave its equal part to a host of which nothing is heard."""
APART: Final = HOLDS + AWAY + 5 * RENEWED
"""Seconds after which a host that has heard of no majority begins to take its equal part: those who hear, or heard a little
longer, have left it that by then."""
UNASKED: Final = 0.5
"""Of what a host may take of any budget when it is on its own, so much is its part of a quota: a quarter for all together."""
WHOLE: Final = 1.05
"""What all parts come to: who sends through one host alone has not all of it, and so that it is nearly all a little is added."""
LEAST: Final = 0.001
"""A smaller part is none."""
_NEARLY_ALL: Final = 2.0
"""So many more times a quota drains until of what a store forgot a twentieth is in use."""


_LONGEST_DRAIN: Final = 86_400.0
"""Seconds: a quota of a day."""


class Loan(NamedTuple):
    part: float
    want: float
    """What it would have."""
    until: float
    """Then the host has given up on the store, and what it let in with it has drained for as long as a whole quota does."""


class Wish(NamedTuple):
    host: str
    held: float
    """What it goes on with, of what it was lent or at least for what is in use there."""
    want: float
    drain: float
    """Seconds in which the whole quota comes back."""


@dataclass(frozen=True, slots=True)
class Allowance:
    server: str
    """The life of the store that lent."""
    settled: float
    """Until then there may be loans that the store knows nothing of."""
    loans: Mapping[str, Loan]

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `text` wrote. Raises ValueError."""
        return reading.read(text, "allowance", cls._of)

    @classmethod
    def _of(cls, values: Any) -> Self:
        loans = {host: _loan(loan) for host, loan in values["loans"].items()}
        return cls(reading.text(values["server"]), reading.number(values["settled"]), loans)

    def text(self) -> str:
        values = {"server": self.server, "settled": self.settled, "loans": self.loans}
        return json.dumps(values, separators=(",", ":"), sort_keys=True)

    def part(self, host: str) -> float:
        loan = self.loans.get(host)
        return loan.part if loan is not None else 0.0


def _loan(values: Any) -> Loan:
    part, want, until, *_ = values
    return Loan(reading.number(part, least=0.0), reading.number(want, least=0.0), reading.number(until))


def lend(
    allowance: Allowance | None, wish: Wish, pool: float, *, may_grow: bool, all_declared: bool, server: str, at: float
) -> Allowance:
    """Give the allowance after a host came to it.

    `pool`: what no host may use without asking. `may_grow`: a majority of the hosts is here. `all_declared`: every host has
    told this life of the store what it holds.
    """
    reserved = HOLDS + wish.drain
    if allowance is None or allowance.server != server:
        before = allowance.loans if allowance is not None else {}
        kept = {host: loan._replace(until=at + reserved) for host, loan in before.items()}
        allowance = Allowance(server, at + reserved + _NEARLY_ALL * wish.drain, kept)
    # Its clock may have been set back. But other hosts' quotas may drain longer, as long as a changed config has not come to all.
    longest = max(wish.drain, _LONGEST_DRAIN)
    settled = min(allowance.settled, at + HOLDS + (1 + _NEARLY_ALL) * longest)
    known = {host: loan._replace(until=min(loan.until, at + HOLDS + longest)) for host, loan in allowance.loans.items()}
    rest = {host: left(loan, at=at, drain=wish.drain) for host, loan in known.items() if host != wish.host}
    others = {host: loan for host, loan in rest.items() if loan.part >= LEAST or loan.want >= LEAST}
    part = wish.held
    if may_grow and (all_declared or at >= settled):
        free = pool - part - sum(loan.part for loan in others.values())
        part += max(0.0, min(fair(others, wish.want, pool) - part, free))
    loans: Mapping[str, Loan] = others
    if part >= LEAST or wish.want >= LEAST:
        loans = {**others, wish.host: Loan(part, wish.want, at + reserved)}
    return Allowance(server, settled, loans)


def faded(seconds: float, drain: float) -> float:
    """Tell what is left of 1 so long after a host has given up on the store.

    A part that goes over from p to q as e**(-t/drain) lets in what it held and q a second, never more: so all parts together
    let in no more than before while they go over to equal ones.
    """
    return math.exp(-max(0.0, seconds) / drain)


def left(loan: Loan, *, at: float, drain: float) -> Loan:
    """Give what is left of a loan beyond its host's equal part, once the host has given up on the store."""
    over = at - (loan.until - drain)
    if over <= 0.0:
        return loan
    part = loan.part * faded(over, drain)
    return Loan(part, min(loan.want, part), at + drain)


def equal(alone: Mapping[str, float], host: str) -> float:
    """Tell a host's part when all are on their own, from what each may take of any budget then."""
    others = sum(part for name, part in alone.items() if name != host)
    return max(UNASKED * alone[host], min(alone[host], REDUCED - others) / REDUCED)


def unlent(alone: Mapping[str, float], away: Collection[str]) -> float:
    """Tell what there is to lend: not what hosts have without asking, nor the equal part of those who are away."""
    return WHOLE - sum(part / REDUCED if host in away else UNASKED * part for host, part in alone.items())


def fair(others: Mapping[str, Loan], want: float, pool: float) -> float:
    """Tell how much of what it wants a host may have: all of it while there is enough for all, else in proportion.

    A host that has more makes its own bucket smaller before it says so: what it has let in by then is then known.
    """
    wanted = want + sum(loan.want for loan in others.values())
    return want if wanted <= pool else pool * want / wanted
