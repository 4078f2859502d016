"""How the hosts of a fleet share what one key may use of a quota: a part for each without asking, the rest lent by need.

A host gives back only room that is empty, so that what all hosts have in use together is never more than one bucket holds.
Parts are of 1, the whole quota. Times are the store's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

HOLDS: Final = 1_800.0
"""Seconds for which a host keeps what it was lent without hearing of the store."""
RENEWED: Final = 60.0
"""Seconds after which it asks anew for what it has, and gives back what it does not need."""
UNASKED: Final = 0.5
"""Of what a host may take of any budget when it is on its own, so much is its part of a quota: a quarter for all together."""
WHOLE: Final = 1.05
"""What all parts come to: who sends through one host alone has not all of it, and so that it is nearly all a little is added."""
LEAST: Final = 0.001
"""A smaller part is none."""


class Loan(NamedTuple):
    part: float
    want: float
    """What it would have."""
    until: float
    """It may be in use until then: the host held it, and what it let in with it has drained since."""


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
        try:
            values = json.loads(text)
            loans = {str(host): Loan(*map(float, loan[:3])) for host, loan in values["loans"].items()}
            return cls(str(values["server"]), float(values["settled"]), loans)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{text[:40]!r} is no allowance of the fleet: {error!r}") from error

    def text(self) -> str:
        values = {"server": self.server, "settled": self.settled, "loans": self.loans}
        return json.dumps(values, separators=(",", ":"), sort_keys=True)

    def part(self, host: str) -> float:
        loan = self.loans.get(host)
        return loan.part if loan is not None else 0.0


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
        allowance = Allowance(server, at + reserved, kept)
    others = {host: loan for host, loan in allowance.loans.items() if host != wish.host and loan.until > at}
    part = wish.held
    if may_grow and (all_declared or at >= allowance.settled):
        free = pool - part - sum(loan.part for loan in others.values())
        part += max(0.0, min(fair(others, wish.want, pool) - part, free))
    loans: Mapping[str, Loan] = others
    if part >= LEAST or wish.want >= LEAST:
        loans = {**others, wish.host: Loan(part, wish.want, at + reserved)}
    return Allowance(server, allowance.settled, loans)


def fair(others: Mapping[str, Loan], want: float, pool: float) -> float:
    """Tell how much of what it wants a host may have: all of it while there is enough for all, else in proportion.

    A host that has more makes its own bucket smaller before it says so: what it has let in by then is then known.
    """
    wanted = want + sum(loan.want for loan in others.values())
    return want if wanted <= pool else pool * want / wanted
