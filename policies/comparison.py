"""Two sets of rules at one log: the replies that they read differently, and the sub-queues that only one would open."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from parsers.postfix import facts
from policies.backtest import Backtest, Report
from policies.classify import RuleSet
from policies.verdict import Verdict
from policies.waiting import SAMPLE, Opened


@dataclass(frozen=True, slots=True)
class Difference:
    """Replies that two sets of rules read differently, in the same way."""

    count: int
    fields: tuple[str, ...]
    """Of the verdict: in what they differ."""
    a: Verdict
    """Of the sample."""
    b: Verdict
    sample: str


class Comparison(NamedTuple):
    a: Report
    b: Report
    replies: tuple[Difference, ...]
    """The most frequent first."""
    only_a: tuple[Opened, ...]
    """Sub-queues of the first set that have no counterpart (host, key, a time in common) in the second."""
    only_b: tuple[Opened, ...]

    @property
    def differ(self) -> bool:
        """Whether a reply or a sub-queue tells the sets apart."""
        return bool(self.replies or self.only_a or self.only_b)


class Contest:
    """Feed it the facts as a `Backtest`."""

    def __init__(self, a: RuleSet, b: RuleSet, organizational: Callable[[str], str]) -> None:
        self._a = Backtest(a, organizational)
        self._b = Backtest(b, organizational)
        self._different: dict[tuple[object, ...], tuple[int, Difference]] = {}

    def take(self, fact: facts.Fact) -> None:
        a, b = self._a.take(fact), self._b.take(fact)
        if a is None or b is None or a.verdict == b.verdict:
            return
        fields = tuple(name for name, x, y in zip(Verdict._fields, a.verdict, b.verdict, strict=True) if x != y)
        kind = (_labels(a.verdict), _labels(b.verdict), fields)
        count, first = self._different.get(kind) or (0, Difference(0, fields, a.verdict, b.verdict, a.sample[:SAMPLE]))
        self._different[kind] = count + 1, first

    def comparison(self) -> Comparison:
        """Give what came of it. Call it once, at the end of the log."""
        a, b = self._a.report(), self._b.report()
        differences = [replace(first, count=count) for count, first in self._different.values()]
        return Comparison(
            a,
            b,
            tuple(sorted(differences, key=lambda one: (-one.count, one.a.rule, one.b.rule, one.sample))),
            tuple(_without_counterpart(a.subqueues, b.subqueues)),
            tuple(_without_counterpart(b.subqueues, a.subqueues)),
        )


def _labels(verdict: Verdict) -> tuple[object, ...]:
    """A verdict without what a reply alone decides."""
    identity = verdict.identity.type if verdict.identity else None
    return (*verdict._replace(identity=None, code="", enhanced=""), identity)


def _without_counterpart(subqueues: Iterable[Opened], others: Iterable[Opened]) -> list[Opened]:
    """Those that no other of the same host and key was open beside, at any moment."""
    beside: dict[tuple[str, str], list[Opened]] = {}
    for other in others:
        beside.setdefault((other.host, other.key), []).append(other)
    return [sub for sub in subqueues if not any(_overlap(sub, other) for other in beside.get((sub.host, sub.key), ()))]


def _overlap(one: Opened, other: Opened) -> bool:
    one_ends = float("inf") if one.closed is None else one.closed
    other_ends = float("inf") if other.closed is None else other.closed
    return one.opened <= other_ends and other.opened <= one_ends
