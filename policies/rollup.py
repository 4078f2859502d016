"""Delivery attempts summed up by the hour: by flow, which is all that tells one stream of mail from another, by each
dimension alone, and by what refused them.

Knows what is counted and as what; where the sums are kept is not known here. Days and hours are those of UTC.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Self

from policies.commands import Attempt
from policies.naming import OTHER, Naming
from policies.time_to_delivery import BUCKETS, bucket_of

HOUR: Final = 3600
DAY: Final = 86_400


class Flow(NamedTuple):
    """What mail has in common that is summed up in one row; "" where it is not known."""

    provider: str
    sending_domain: str
    transport: str
    """The delivery agent's service as logged ("lane-01"), else the agent ("smtp")."""
    host: str
    tenant: str
    campaign: str
    segment: str


class Refusal(NamedTuple):
    """What attempts that were not accepted have in common."""

    rule: str
    detail: str
    bounce: str
    status: str


ALL: Final = "all"
"""Dimension of all mail; its only value is ""."""

MEASURES: Final = (
    "messages", "attempts", "sent", "deferred", "bounced", "hard", "block", "expired",
    *(f"within_{number}" for number in range(BUCKETS)),
)  # fmt: skip
"""What is counted: messages by their first outcome; attempts by theirs; bounced ones by the class that the rules give
(soft: those that are neither hard nor block); recipients that expired in the queue; deliveries by their time."""

_MESSAGES, _ATTEMPTS, _SENT, _DEFERRED, _BOUNCED, _HARD, _BLOCK, _EXPIRED, _WITHIN = range(9)

PLACES: Final[Mapping[str, int]] = {
    "provider": 300,
    "sending_domain": 1000,
    "transport": 100,
    "host": 100,
    "tenant": 500,
    "campaign": 500,
    "segment": 200,
}
"""Values of a dimension that have a name at once on a day."""
FLOWS: Final = 10_000
"""Flows of their own on a day; further ones are joined first without tenant, campaign and segment, then by provider."""
_LONGEST: Final = 100

Sums = list[int]


class Rolled(NamedTuple):
    """What some attempts add to the sums, by the hour that begins at (seconds since the epoch)."""

    flows: dict[tuple[int, Flow], Sums]
    values: dict[tuple[int, str, str], Sums]
    """By dimension and value, and of all mail: what most reports ask for, without the flows."""
    refusals: dict[tuple[int, Flow, Refusal], int]

    @classmethod
    def empty(cls) -> Self:
        return cls({}, {}, {})


class Names:
    """Which values and flows have rows of their own on one day."""

    def __init__(self) -> None:
        self.values = [Naming[str](PLACES[dimension]) for dimension in Flow._fields]
        self.flows = Naming[Flow](FLOWS)

    def restore(self, flow: Flow, attempts: int) -> None:
        """Take a flow that has a row already."""
        for naming, value in zip(self.values, flow, strict=True):
            if value != OTHER:
                naming.restore(value, attempts)
        self.flows.restore(flow, attempts)

    def knows(self, dimension: str, value: str) -> bool:
        """Whether a value has a name; one that has none gets it if there is room."""
        return self.values[Flow._fields.index(dimension)].has(value, 0)

    def named(self, flow: Flow, number: int = 1) -> Flow:
        """Give a flow with OTHER for the values that have no name, and count it once, or so many times."""
        pairs = zip(self.values, flow, strict=True)
        return Flow(*[value if value == OTHER or naming.has(value, number) else OTHER for naming, value in pairs])

    def row(self, named: Flow, number: int = 1) -> Flow:
        """Give the flow in whose row a named one is counted."""
        if self.flows.has(named, number):
            return named
        coarse = named._replace(tenant=OTHER, campaign=OTHER, segment=OTHER)
        if self.flows.has(coarse, number):
            return coarse
        return Flow(named.provider, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER)


def day_of(begin: int) -> int:
    return begin // DAY * DAY


def flow_of(attempt: Attempt) -> Flow:
    """Tell the flow of an attempt, before any name is left out."""
    return Flow(
        attempt.provider[:_LONGEST],
        attempt.sender_domain[:_LONGEST],
        attempt.service[:_LONGEST],
        attempt.host[:_LONGEST],
        attempt.tenant[:_LONGEST],
        attempt.campaign[:_LONGEST],
        attempt.segment[:_LONGEST],
    )


def counts(attempt: Attempt) -> bool:
    """Whether an attempt is an outcome of mail: one that only handed it on within the host, to a content filter or an
    alias, is not, for the next queue id has its outcome.
    """
    return not attempt.passed_on


def roll(attempts: Iterable[Attempt], names: Mapping[int, Names]) -> Rolled:
    """Sum attempts up. `names`: by the day that begins at; a mapping that makes those it lacks."""
    rolled = Rolled.empty()
    by_name: dict[tuple[int, Flow], tuple[Sums, Flow]] = {}
    for attempt in attempts:
        if not counts(attempt):
            continue
        begin = int(attempt.time // HOUR) * HOUR
        of_day = names[day_of(begin)]
        named = of_day.named(flow_of(attempt))
        row = of_day.row(named)
        sums, flow = by_name.setdefault((begin, named), (_zeros(), row))
        _add(sums, attempt)
        if attempt.status != "sent":
            cell = begin, flow, Refusal(attempt.rule, attempt.detail, attempt.bounce, attempt.status)
            rolled.refusals[cell] = rolled.refusals.get(cell, 0) + 1
    for (begin, named), (sums, flow) in by_name.items():
        _join(rolled.flows.setdefault((begin, flow), _zeros()), sums)
        for dimension, value in ((ALL, ""), *zip(Flow._fields, named, strict=True)):
            _join(rolled.values.setdefault((begin, dimension, value), _zeros()), sums)
    return rolled


def _zeros() -> Sums:
    return [0] * len(MEASURES)


def join(parts: Iterable[Rolled], names: Mapping[int, Names]) -> Rolled:
    """Join sums that were made apart under names of their own."""
    joined = Rolled.empty()
    for part in parts:
        found: dict[tuple[int, Flow], Flow] = {}
        for (begin, flow), sums in part.flows.items():
            number = sums[_ATTEMPTS] + sums[_EXPIRED]
            of_day = names[day_of(begin)]
            row = found[begin, flow] = of_day.row(of_day.named(flow, number), number)
            _join(joined.flows.setdefault((begin, row), _zeros()), sums)
        for (begin, dimension, value), sums in part.values.items():
            known = dimension == ALL or value == OTHER or names[day_of(begin)].knows(dimension, value)
            place = begin, dimension, value if known else OTHER
            _join(joined.values.setdefault(place, _zeros()), sums)
        for (begin, flow, refusal), count in part.refusals.items():
            cell = begin, found[begin, flow], refusal
            joined.refusals[cell] = joined.refusals.get(cell, 0) + count
    return joined


def _join(sums: Sums, more: Sums) -> None:
    for measure, number in enumerate(more):
        sums[measure] += number


def _add(sums: Sums, attempt: Attempt) -> None:
    if attempt.status == "expired":
        sums[_EXPIRED] += 1
        return
    sums[_MESSAGES] += attempt.first == 1
    sums[_ATTEMPTS] += 1
    match attempt.status:
        case "sent":
            sums[_SENT] += 1
            sums[_WITHIN + bucket_of(attempt.delay)] += 1
        case "deferred" | "SOFTBOUNCE":
            sums[_DEFERRED] += 1
        case "bounced":
            sums[_BOUNCED] += 1
            sums[_HARD] += attempt.bounce == "hard"
            sums[_BLOCK] += attempt.bounce == "block"
