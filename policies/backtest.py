"""What a set of rules would have done to the mail of a log: sub-queues, what would have waited, what replies meant.

The engine decides, in observe mode; this adds up.
"""

import re
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Final, NamedTuple

from parsers.postfix import facts
from policies.classify import RuleSet, Said
from policies.commands import Attempt
from policies.said import normalise
from policies.verdict import Verdict
from policies.waiting import SAMPLE, SUSPENDED, Counts, Opened, Waiting

UNKNOWN_KINDS: Final = 10_000
"""Kinds of unknown replies told apart."""
OTHER_KINDS: Final = "(other kinds)"


@dataclass(frozen=True, slots=True)
class Replies:
    """Attempts that were refused, as one rule reads them."""

    rule: str
    category: str
    detail: str
    bounce: str
    scope: str
    reaction: str
    count: int
    providers: int
    """How many mailbox providers said it."""
    sample: str
    """The first one."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Replies that no rule reads, alike but for numbers, addresses and ids."""

    provider: str
    count: int
    sample: str


class Report(NamedTuple):
    began: float | None
    """Time of the first fact, None where there was none."""
    ended: float | None
    hosts: tuple[str, ...]
    outcomes: tuple[tuple[str, int], ...]
    """Status as logged -> recipients."""
    suspended: int
    """Of the deferrals, those without an attempt of their own."""
    opened: int
    """Sub-queues in all."""
    totals: Counts
    subqueues: tuple[Opened, ...]
    """In the order in which they open; at most LISTED a host."""
    replies: tuple[Replies, ...]
    """The most frequent first."""
    unknown: tuple[Unknown, ...]
    """The most frequent first."""


class Judged(NamedTuple):
    """A refused attempt with what the rules make of it."""

    verdict: Verdict
    sample: str


class _Seen:
    """Replies of one kind in the making."""

    __slots__ = ("count", "providers", "sample")

    def __init__(self, sample: str) -> None:
        self.count = 0
        self.providers: set[str] = set()
        self.sample = sample[:SAMPLE]


_Kind = tuple[str, ...]


class Backtest:
    """One set of rules at a log. Feed it the facts in the order of the log; of several hosts in any order."""

    def __init__(self, rules: RuleSet, organizational: Callable[[str], str]) -> None:
        self._rules = rules
        self._organizational = organizational
        self._hosts: dict[str, Waiting] = {}
        self._outcomes: dict[str, int] = {}
        self._suspended = 0
        self._replies: dict[_Kind, _Seen] = {}
        self._unknown: dict[_Kind, _Seen] = {}
        self._began: float | None = None
        self._ended: float | None = None

    def take(self, fact: facts.Fact) -> Judged | None:
        """Take a fact; for a refused attempt tell what the rules make of it."""
        record = fact.record
        if self._ended is None or record.time > self._ended:
            self._began = record.time if self._began is None else self._began
            self._ended = record.time
        host = self._hosts.get(record.host)
        if host is None:
            host = self._hosts[record.host] = Waiting(self._rules, self._organizational, record.host)
        attempt = host.take(fact)
        if attempt is None:
            return None
        self._outcomes[attempt.status] = self._outcomes.get(attempt.status, 0) + 1
        if attempt.status == "sent":
            return None
        return self._refused(fact, attempt)  # type: ignore[arg-type]  # only DeliveryAttempts state attempts

    def report(self) -> Report:
        """Give what came of it. Call it once, at the end of the log."""
        totals = Counts()
        for host in self._hosts.values():
            host.finish(now=self._ended or 0.0)
            totals.add(host.totals)
        found = [sub for host in self._hosts.values() for sub in host.listed]
        return Report(
            began=self._began,
            ended=self._ended,
            hosts=tuple(sorted(self._hosts)),
            outcomes=tuple(sorted(self._outcomes.items())),
            suspended=self._suspended,
            opened=sum(host.opened for host in self._hosts.values()),
            totals=totals,
            subqueues=tuple(sorted(found, key=lambda sub: (sub.opened, sub.host, sub.key))),
            replies=_ranked_replies(self._replies),
            unknown=_ranked_unknown(self._unknown),
        )

    def _refused(self, fact: facts.DeliveryAttempt, attempt: Attempt) -> Judged | None:
        if fact.reason.startswith(SUSPENDED):
            self._suspended += 1
            return None
        host = fact.relay_host if attempt.provider else ""
        verdict = self._rules.classify(Said(fact.reason, host, attempt.recipient_domain))
        labels = (
            verdict.rule,
            verdict.category,
            verdict.detail,
            str(verdict.bounce),
            str(verdict.scope),
            str(verdict.reaction),
        )
        _see(self._replies, labels, fact.reason, attempt.provider)
        if verdict.rule == "unknown":
            kind = attempt.provider, f"{fact.dsn} {kind_of(fact.reason)}"
            if kind not in self._unknown and len(self._unknown) >= UNKNOWN_KINDS:
                kind = "", OTHER_KINDS
            _see(self._unknown, kind, fact.reason, attempt.provider)
        return Judged(verdict, fact.reason)


def _see(seen: dict[_Kind, _Seen], kind: _Kind, sample: str, provider: str) -> None:
    one = seen.get(kind)
    if one is None:
        one = seen[kind] = _Seen(sample)
    one.count += 1
    one.providers.add(provider)


def _ranked_replies(seen: dict[_Kind, _Seen]) -> tuple[Replies, ...]:
    rows = []
    for (rule, category, detail, bounce, scope, reaction), one in seen.items():
        providers = len(one.providers - {""})
        rows.append(Replies(rule, category, detail, bounce, scope, reaction, one.count, providers, one.sample))
    return tuple(sorted(rows, key=lambda row: (-row.count, astuple(row))))


def _ranked_unknown(seen: dict[_Kind, _Seen]) -> tuple[Unknown, ...]:
    rows = [Unknown(provider, one.count, one.sample) for (provider, _), one in seen.items()]
    return tuple(sorted(rows, key=lambda row: (-row.count, astuple(row))))


_CHANGING: Final = re.compile(r"\S*@\S*|\S*\d\S*|\[[^\]]*\]")
"""Addresses, bracketed names, and any word with a digit: codes, IPs, ids, times."""
_KIND: Final = 160
"""Characters of a reply by which kinds are told apart."""


def kind_of(reason: str) -> str:
    """What stays the same from one reply of a kind to the next."""
    return _CHANGING.sub("#", normalise(reason[: 4 * _KIND]))[:_KIND]
