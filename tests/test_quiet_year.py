"""A year in which much happens and nothing is the matter: no condition fires.

The year has days and nights, weekends, campaigns of random size at random hours, providers that put much off as they
always do, polls that fail, and single slips. Each look is judged as if it had been confirmed as often as is wanted,
except where slips are what is tested.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from parsers.observation import Outcome
from policies.conditions import CONDITIONS, Alert, Condition, Turn, begin, follow
from policies.figures import Figure, Kind
from policies.grades import State
from policies.mx_hosts import Answered, MxHost
from policies.queue_age import QueueAge, queue_figures
from policies.repeats import Repeated
from policies.reported import Sent, Sessions, dmarc, per_delivered, tls
from policies.seasons import WEEK, hours_like, steady_hours, surge, unusual
from policies.watched import figures as watched
from policies.windows import DAY, HOUR, WINDOWS, Counts, Object, expected, shares

BY_NAME = {condition.name: condition for condition in CONDITIONS}
START = 1_798_761_600  # Friday, 1 January 2027
HOURS = 365 * 24
Dice = np.random.Generator


class Rates(NamedTuple):
    """What becomes of mail that is well."""

    deferred: float
    bounced: float
    hard: float
    connect: float = 0.005
    tls: float = 0.001
    auth: float = 0.0005
    wobble: float = 60.0
    """Smaller is wilder: from hour to hour rates follow a beta distribution of so many messages."""


def counts(dice: Dice, messages: int, rates: Rates) -> Counts:
    def drawn(whole: int, rate: float, calm: float = 1.0) -> int:
        wild = dice.beta(rate * rates.wobble * calm + 1e-9, (1.0 - rate) * rates.wobble * calm)
        return int(dice.binomial(whole, min(wild, 4.0 * rate)))

    deferred = drawn(messages, rates.deferred)
    bounced = drawn(messages - deferred, rates.bounced, calm=20.0)
    return Counts(
        messages, messages - deferred - bounced, deferred, bounced, int(dice.binomial(bounced, rates.hard)),
        min(deferred, drawn(messages, rates.connect)), min(deferred, int(dice.binomial(messages, rates.tls))),
        int(dice.binomial(messages, rates.auth)),
    )  # fmt: skip


# How much each sends in an hour: (dice, hour of the day, day of the week, hours since the start).


def round_the_clock(dice: Dice, hour: int, _: int, __: int) -> int:
    return int(dice.poisson(400 + 300 * math.sin((hour - 9) / 24 * 2 * math.pi)))


def in_office_hours(dice: Dice, hour: int, day: int, _: int) -> int:
    return int(dice.poisson(350)) if day < 5 and 8 <= hour < 18 else int(dice.poisson(0.3))


@cache
def _campaigns(kind: str) -> dict[int, int]:
    """Hour since the start -> messages: a weekly one with its whims, and one that comes when it comes."""
    dice = np.random.default_rng(17 if kind == "weekly" else 18)
    if kind == "weekly":
        begins = [week * 168 + 106 + int(dice.integers(-3, 4)) for week in range(52)]
        return {begin: int(dice.lognormal(10.5, 0.3)) for begin in begins}
    return {int(dice.integers(0, HOURS)): int(dice.lognormal(9.5, 0.4)) for _ in range(40)}


def weekly(_: Dice, __: int, ___: int, at: int) -> int:
    return _campaigns("weekly").get(at, 0)


def now_and_then(_: Dice, __: int, ___: int, at: int) -> int:
    return _campaigns("any").get(at, 0)


def small(dice: Dice, _: int, __: int, ___: int) -> int:
    return int(dice.poisson(1.5))


SENDERS: Mapping[str, tuple[Callable[[Dice, int, int, int], int], Rates]] = {
    "steady.example": (round_the_clock, Rates(0.03, 0.006, 0.5)),
    "office.example": (in_office_hours, Rates(0.02, 0.004, 0.6)),
    "weekly.example": (weekly, Rates(0.05, 0.008, 0.7)),
    "seldom.example": (now_and_then, Rates(0.05, 0.008, 0.7)),
    "small.example": (small, Rates(0.10, 0.05, 0.8, wobble=5)),
}
GREY = Rates(0.18, 0.008, 0.5, connect=0.02)
"""A provider that greylists, as it always did."""


@cache
def year() -> list[dict[Object, Counts]]:
    """Counts of each hour, by domain, by provider and over all."""
    dice, found = np.random.default_rng(7), []
    for at in range(HOURS):
        hour, day = at % 24, (4 + at // 24) % 7
        row: dict[Object, Counts] = {}
        for name, (messages, rates) in SENDERS.items():
            number = messages(dice, hour, day, at)
            for provider, share in (("google", 0.6), ("grey", 0.1), ("yahoo", 0.3)):
                part = counts(dice, int(dice.binomial(number, share)), GREY if provider == "grey" else rates)
                for object_ in (("domain", name), ("provider", provider), ("host", "all mail")):
                    if part.attempts:
                        row[object_] = row.get(object_, Counts()).plus(part)
        found.append(row)
    return found


def added(hours: Iterable[Mapping[Object, Counts]]) -> dict[Object, Counts]:
    found: dict[Object, Counts] = {}
    for row in hours:
        for object_, each in row.items():
            found[object_] = found.get(object_, Counts()).plus(each)
    return found


def quarter(row: Mapping[Object, Counts], dice: Dice) -> dict[Object, Counts]:
    """A quarter of an hour of an hour."""
    return {object_: Counts(*(int(dice.binomial(number, 0.25)) for number in each)) for object_, each in row.items()}


def of_the_log() -> Iterator[Figure]:
    """All figures of the log, each hour of the year."""
    hours, dice = year(), np.random.default_rng(8)
    usual: dict[Object, Counts] = {}
    greatest: dict[Object, int] = {}
    day: dict[Object, Counts] = {}
    for at in range(HOURS):
        now = float(START + (at + 1) * HOUR)
        if at % 24 == 0:
            usual = added(hours[max(0, at - 168) : at])
            day = added(hours[max(0, at - 24) : at])
        by_name = {"15m": quarter(hours[at], dice), "1h": hours[at], "24h": day}
        for window in WINDOWS[:3]:
            if window.name != "24h" or at % 24 == 0:
                yield from shares(window, by_name[window.name], usual, (), now=now)
        yield from of_the_hour(at, greatest, now=now)
        for object_, each in hours[at].items():
            if object_[0] == "domain":
                greatest[object_] = max(greatest.get(object_, 0), each.attempts)


def of_the_hour(at: int, greatest: Mapping[Object, int], *, now: float) -> Iterator[Figure]:
    hours, first = year(), max(START, now - 31 * DAY)
    sent = {object_: each.attempts for object_, each in hours[at].items() if object_[0] == "domain"}
    steady = [
        {object_: each.attempts for object_, each in hours[int(since - START) // HOUR].items()}
        for since, _ in steady_hours(now, first=first) if since >= START
    ]  # fmt: skip
    if len(steady) >= 6:
        yield from expected(sent, steady, (), now=now)
    like: dict[Object, list[Counts]] = {}
    for hour in hours_like(now, first=first):
        for object_, each in hours[(hour - START) // HOUR].items():
            like.setdefault(object_, []).append(each)
    yield from unusual(hours[at], like, (), now=now)
    if at > WEEK // HOUR:
        yield from surge(sent, greatest, (), now=now)


def test_of_what_the_log_counts_nothing_is_ever_bad() -> None:
    looking = [condition for condition in CONDITIONS if condition.name in OF_THE_LOG]
    bad, looks = [], dict.fromkeys(OF_THE_LOG, 0)
    for figure in of_the_log():
        for condition in looking:
            if condition.looks_at(figure):
                looks[condition.name] += 1
                if condition.grade(figure).state is State.BAD:
                    bad.append(f"{condition.name}: {condition.say(figure)}")
    assert bad == []
    assert min(looks.values()) > 300


OF_THE_LOG = {
    "hard-bounces", "deferrals", "acceptance", "connections", "tls", "authentication-refused", "stream-stopped",
    "streams-stopped", "surge", "unusual",
}  # fmt: skip


# What is not counted from the log: (dice, day or look) -> figures.


def plain(name: str, value: float | None, *, text: str = "", volume: float = math.inf) -> Figure:
    """One look of what the condition of this name looks at."""
    condition = BY_NAME[name]
    outcome = Outcome.OK if value is not None else Outcome.UNKNOWN
    object_ = condition.objects[0] if condition.objects else "x.example"
    measure, feed = condition.measure.replace("*", "part"), condition.feed.replace("*", "")
    return Figure(feed, object_, condition.kind or Kind.DOMAIN, measure, outcome, value, text, 0.0, 0.0, volume)


Year = Callable[[Dice, str], Iterator[Figure]]


def values(draw: Callable[[Dice], float], *, looks: int = 365, silent: float = 0.1) -> Year:
    """One value a look; now and then none."""

    def made(dice: Dice, name: str) -> Iterator[Figure]:
        for _ in range(looks):
            yield plain(name, None if dice.random() < silent else draw(dice))

    return made


def slips(well: float, bad: float, *, longest: int, looks: int = 20_000, text: str = "") -> Year:
    """Well, but for slips of at most so many looks, each with as many good ones after it as there are in an hour."""

    def made(dice: Dice, name: str) -> Iterator[Figure]:
        left = looks
        while left > 0:
            calm, slip = int(dice.integers(60, 600)), int(dice.integers(1, longest + 1)) if longest else 0
            yield from (plain(name, None if dice.random() < 0.02 else well) for _ in range(calm))
            yield from (plain(name, bad, text=text) for _ in range(slip))
            left -= calm + slip

    return made


def complaints(measure: str, rate: float) -> Year:
    def made(dice: Dice, __: str) -> Iterator[Figure]:
        for _ in range(365 * 4):
            delivered = {("domain", str(number)): size for number, size in enumerate((80, 900, 5_000, 90_000))}
            counted = {
                object_: int(dice.poisson(size * rate * dice.uniform(0.3, 1.7))) for object_, size in delivered.items()
            }
            usual = dict.fromkeys(delivered, rate)
            yield from per_delivered(measure, counted, delivered, usual, (), outcome=Outcome.OK, now=0.0)

    return made


def dmarc_reports(dice: Dice, __: str) -> Iterator[Figure]:
    for _ in range(365):
        rows = [
            Sent(f"192.0.2.{number}", size, int(dice.binomial(size, 0.002)), int(dice.binomial(size, 0.01)), 0)
            for number, size in enumerate(map(int, dice.integers(1, 30_000, 4)))
        ]
        size = int(dice.integers(1, 4_000))
        strange = Sent("203.0.113.9", size, size, size, int(dice.binomial(size, 0.3)))
        yield from dmarc("x.example", [*rows, strange], {row.source_ip for row in rows}, stamp=0.0, at=0.0)


def tls_reports(dice: Dice, __: str) -> Iterator[Figure]:
    for _ in range(365):
        sizes = [int(size) for size in dice.integers(0, 9_000, 3)]
        rows = [Sessions(f"r{number}", size, int(dice.binomial(size, 0.0008))) for number, size in enumerate(sizes)]
        yield from tls("x.example", rows, (), stamp=0.0, at=0.0)


def noticed(dice: Dice, __: str) -> Iterator[Figure]:
    for _ in range(HOURS):
        hosts = []
        for number, (size, rate) in enumerate(((40, 0.05), (900, 0.01), (4_000, 0.12), (300, 0.9))):
            failed = int(dice.binomial(size, rate))
            before = Answered(size * 20 * (1 - rate), size * 20 * rate, size * 20 * 0.002)
            lately = Answered(size - failed, failed, int(dice.binomial(size, 0.003)))
            hosts.append(MxHost(f"mx{number}", lately, before))
        hosts.append(MxHost("mx.new.example", Answered(0, 500, 0), Answered()))
        delivered = int(dice.integers(1, 9_000))
        again = int(dice.binomial(delivered, 0.0004))
        repeated = [Repeated("x.example", delivered, again, "", int(dice.integers(1, 9)), "")]
        yield from watched(hosts, repeated, (), since=0.0, now=1e9)


def queue(dice: Dice, __: str) -> Iterator[Figure]:
    """A campaign at a random hour of each day, of random size; old mail that nobody will ever take."""
    daily: list[QueueAge] = []
    for _ in range(365):
        begin, size = int(dice.integers(0, 20)), int(dice.lognormal(10, 0.25))
        samples = []
        for hour in range(24):
            left = size * max(0.0, 1.0 - (hour - begin) / 4) if hour >= begin else 0.0
            junk = int(dice.integers(800, 2_500))
            samples.append(QueueAge(int(left) + junk, junk))
        for before, sample in zip([None, *samples], samples, strict=False):
            yield from queue_figures("mx", sample, before, daily[-31:], now=0.0)
        daily.append(QueueAge(max(each.live for each in samples), max(each.old for each in samples)))


def uniform(low: float, high: float) -> Callable[[Dice], float]:
    return lambda dice: float(dice.uniform(low, high))


NOISE: Mapping[str, Year] = {
    "complaints": complaints("complaints.24h", 0.0003),
    "complaints-raised": complaints("complaints.24h", 0.0003),
    "opt-outs": complaints("opt-outs.24h", 0.002),
    "unsubscribe-latency": values(uniform(0, 11 * HOUR)),
    "dmarc-failures": dmarc_reports,
    "dkim-failures": dmarc_reports,
    "dmarc-strangers": dmarc_reports,
    "tls-reports": tls_reports,
    "tls-reports-several": tls_reports,
    "mx-connections": noticed,
    "mx-tls": noticed,
    "repeated": noticed,
    "message-id-alike": noticed,
    "queue-growth": queue,
    "queue-age": queue,
    "subqueue-stuck": values(uniform(0, 3_500), looks=20_000),
    "log-lag": slips(0.2, 700.0, longest=3),
    "core-away": slips(0.0, 1.0, longest=7),
    "feed-blind": slips(0.0, 1.0, longest=39),
    "feed-refused": slips(0.0, 0.0, longest=0),
    "list-sick": slips(1.0, 0.0, longest=1),
    "channel-broken": slips(0.0, 0.0, longest=0),
    "listed": slips(0.0, 1.0, longest=1, text="critical: CSS"),
    "senderscore": values(uniform(82.5, 99)),
    "own-spf": slips(1.0, 0.0, longest=1),
    "own-dkim": slips(1.0, 0.0, longest=1),
    "own-dmarc-policy": slips(1.0, 0.0, longest=1),
    "own-dmarc-alignment": slips(1.0, 0.0, longest=1),
    "own-one-click": slips(1.0, 0.0, longest=1),
    "own-dns-records": slips(1.0, 0.0, longest=1),
    "own-helo": slips(1.0, 0.0, longest=1),
    "inbox-placement": slips(0.95, 0.6, longest=1),
    "seed-mailbox": slips(1.0, 0.0, longest=1),
    "own-key-age": values(uniform(0, 1e7)),
    "spam-rate": values(uniform(0, 0.0025)),
    "spam-rate-raised": slips(0.0004, 0.0015, longest=1),
    "loop-spam-rate": values(uniform(0, 0.0028)),
    "auth-success": values(uniform(0.982, 1.0)),
    "tls-rate": values(uniform(0.982, 1.0)),
    **{f"gmail-{reason}": values(uniform(0, 0.004)) for reason in (
        "low-ip-reputation", "low-domain-reputation", "ip-in-rbls", "bad-or-missing-ptr-record")},
    **{condition.name: values(lambda _: 1.0, silent=0.4) for condition in CONDITIONS
       if condition.name.startswith("compliance-")},
    "gmail-unverified": slips(1.0, 0.0, longest=1),
    "gmail-reputation": values(lambda dice: float(dice.integers(2, 4))),
    "snds-red": values(lambda dice: float(dice.integers(0, 2))),
    "snds-yellow": slips(0.0, 1.0, longest=1),
    "snds-complaints": values(uniform(0, 0.0009)),
    "snds-traps": values(lambda _: 0.0),
    "snds-blocked": slips(0.0, 0.0, longest=0),
    "snds-link-age": values(uniform(0, 24.9 * DAY)),
    "snds-attestation-age": values(uniform(0, 270 * DAY)),
}  # fmt: skip
SLIPS_ARE_TESTED = {
    "log-lag", "core-away", "feed-blind", "list-sick", "listed", "spam-rate-raised", "gmail-unverified", "snds-yellow",
    "inbox-placement", "seed-mailbox", *(name for name in BY_NAME if name.startswith("own-")),
}  # fmt: skip


def turns(condition: Condition, figures: Iterable[Figure]) -> list[str]:
    """What the condition makes of the year; the looks are one after the other of one object each."""
    alerts: dict[str, Alert] = {}
    fired = []
    for number, figure in enumerate(figures, start=1):
        if condition.looks_at(figure):
            seen = figure._replace(stamp=float(number), at=float(number))
            if condition.name not in SLIPS_ARE_TESTED and condition.grade(seen).state is State.BAD:
                fired.append(condition.say(seen))
            alert = alerts.get(seen.object) or begin(condition, seen)
            alerts[seen.object], turn = follow(alert, condition, seen, now=float(number))
            if turn is Turn.FIRED:
                fired.append(condition.say(seen))
    assert alerts, "nothing was looked at"
    return fired


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in OF_THE_LOG])
def test_a_quiet_year(name: str) -> None:
    assert turns(BY_NAME[name], NOISE[name](np.random.default_rng(23), name)) == []


def test_the_year_is_of_every_condition() -> None:
    assert {*NOISE, *OF_THE_LOG} == {*BY_NAME}


def test_a_year_that_is_not_quiet_is_heard() -> None:
    """The driver itself: what is twice as long as a slip fires."""
    assert turns(
        BY_NAME["listed"], slips(0.0, 1.0, longest=4, text="critical: CSS")(np.random.default_rng(1), "listed")
    )
    assert turns(BY_NAME["complaints"], complaints("complaints.24h", 0.002)(np.random.default_rng(1), "complaints"))
