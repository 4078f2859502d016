"""The ramp under a lab's conditions: a scenario file in seconds instead of minutes, without Postfix.

    python benchmarks/ramp_lab.py [--scenario NAME|FILE] [--seeds N] [--seconds S] [--plain]

A lab divides windows, penalties and pauses by its scale, and nothing else: a transaction takes 0.3 s, the log is read
a little later, twenty deliveries a destination are under way at once, releases go once a second, all together. So an
outcome comes back thirty times later, as the policy's own times go, than on a host. What is kept of Postfix: slots by
destination, the next MX host after a 4xx, the kick that a release waits for, and for `--plain` its back-off; the figures
are those of `sidecar/lab/measure.py`.
"""

import argparse
import heapq
import json
import math
import random
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from policies.releasing import MIN_HOLD, TICK  # after the path
from policies.subqueue import Pacing, State, SubQueue  # as above
from sidecar.lab import scenario as scenarios  # as above
from sidecar.lab.limits import model, optimum  # as above
from sidecar.lab.measure import episodes  # as above
from sidecar.lab.scenario import Limit, Provider, Scenario, Sender  # as above


@dataclass(frozen=True, slots=True)
class Host:
    """What lies between a decision and the provider, in seconds where nothing else is said; none of it is scaled."""

    slots: int = 20
    """Deliveries at the same time, by destination (default_destination_concurrency_limit)."""
    intake: float = 1100.0
    """Messages a second that smtpd takes of a burst."""
    read: float = 0.03
    """From a log line to its fact, at most three times as long."""
    hold: float = 0.12
    """`postsuper -h` of what is queued."""
    release: float = 0.05
    """`postsuper -H`."""
    scan: float = 0.03
    """From a kick to the delivery agent."""
    margin: float = 1.0
    """What is taken off the beginning of an attempt, for the log's coarse stamps (policies.outcomes) ..."""
    rounded: float = 0.1
    """... and of one that was under way at the opening, this part of what it took, beside `read`."""


class Told(NamedTuple):
    """One run, in the words of the lab's figures."""

    delivered: int
    deferrals: int
    first_episode: int
    beyond_per_1000: float
    per_delivered: float
    retriggers: int
    drain_ratio: float | None
    per_retrigger: float


@dataclass(slots=True)
class _Mail:
    """One message of the throttled sender."""

    number: int
    domain: int
    let_out: float = 0.0
    held_since: float = 0.0
    told: bool = False
    """The first MX host's refusal was seen; the outcome's own line says nothing new."""


class Lab:
    """One throttled sender at one provider; the steady ones only take their slots."""

    def __init__(self, scenario: Scenario, *, host: Host = Host(), seed: int = 1, plain: bool = False) -> None:
        """`plain`: without a sub-queue, as Postfix alone does it."""
        self.scenario, self.host, self.plain = scenario, host, plain
        self.random = random.Random(seed)
        self.sender, self.provider, self.limit = _throttled(scenario)
        self.account = model(self.limit, scenario.scale, self.random)
        pause = 600.0 if self.provider.name == "google" else 300.0
        self.pacing = Pacing(pause=pause).scaled(scenario.scale)
        self.machine: SubQueue | None = None
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = count()
        self.queues: list[deque[_Mail | None]] = [deque() for _ in self.provider.domains]
        """Waiting for a slot, by destination; None is another sender's."""
        self.busy = [0] * len(self.provider.domains)
        self.held: list[tuple[int, _Mail]] = []
        self.kicked = -math.inf
        self.accepted: list[float] = []
        """Begins of what was accepted before the opening."""
        self.attempts: list[tuple[float, bool]] = []
        self.deferred: list[float] = []
        self.delivered: list[float] = []
        self.due = math.inf
        self.tick_at = 0.0

    def run(self) -> Told:
        for sender in self.scenario.senders():
            if sender is not self.sender and sender.rate and self.provider.name in sender.to:
                self._at(self.random.random() / sender.rate, partial(self._steady, sender))
        for number in range(self.sender.burst):
            mail = _Mail(number, number % len(self.queues))
            self._at(self.sender.at + number / self.host.intake, partial(self._arrives, mail))
        while self.events and self.events[0][0] <= self.scenario.seconds:
            self.now, _, event = heapq.heappop(self.events)
            event()
        return self._told()

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self.events, (time, next(self.order), event))

    # Postfix.

    def _steady(self, sender: Sender) -> None:
        self._enqueue(None, self.random.randrange(len(self.queues)))
        self._at(self.now + self.random.uniform(0.5, 1.5) / sender.rate, partial(self._steady, sender))

    def _enqueue(self, mail: _Mail | None, domain: int) -> None:
        self.queues[domain].append(mail)
        self._begin(domain)

    def _begin(self, domain: int) -> None:
        while self.queues[domain] and self.busy[domain] < self.host.slots:
            mail = self.queues[domain].popleft()
            self.busy[domain] += 1
            if mail is None:
                self._at(self.now + self.provider.transaction_s, lambda: self._slot_free(domain))
            else:
                self._try(mail, self.now, hosts=len(self.provider.mx))

    def _slot_free(self, domain: int) -> None:
        self.busy[domain] -= 1
        self._begin(domain)

    def _try(self, mail: _Mail, began: float, *, hosts: int) -> None:
        accepted = self.account.offer(self.now)
        self._at(
            self.now + self.provider.transaction_s + self.random.uniform(0.002, 0.02),
            lambda: self._said(mail, began, accepted=accepted, hosts=hosts),
        )

    def _said(self, mail: _Mail, began: float, *, accepted: bool, hosts: int) -> None:
        self.attempts.append((self.now, accepted))
        seen = self.now + self.host.read * self.random.uniform(1, 3)
        if not accepted and hosts > 1:
            self._at(seen, lambda: self._refused_early(mail, began))
            self._try(mail, began, hosts=hosts - 1)
            return
        (self.delivered if accepted else self.deferred).append(self.now)
        self._at(seen, lambda: self._outcome(mail, began, accepted=accepted))
        self._slot_free(mail.domain)

    def _tried_again(self, mail: _Mail) -> float:
        """The queue run after the back-off, which is the message's age within its bounds (qmgr_active.c)."""
        scale = self.scenario.scale
        age = self.now - (self.sender.at + mail.number / self.host.intake)
        due = self.now + min(max(age, 300 / scale), 4000 / scale)
        return math.ceil(due * scale / 300) * 300 / scale

    # The sidecar.

    def _refused_early(self, mail: _Mail, began: float) -> None:
        if self.plain:
            return
        if self.machine is None:
            self._open(began)
        elif self.machine.state is State.RAMPING and mail.let_out:
            mail.told = True
            self._tell(mail.let_out, accepted=False)

    def _open(self, began: float) -> None:
        since = self.now - 300.0 / self.scenario.scale
        lately = [at for at in self.accepted if at >= since]
        during = self.now - lately[0] if lately else 0.0
        self.machine = SubQueue(self.pacing, now=self.now, accepted=len(lately), during=during)
        self.machine.refused(began=min(began, self.now), now=self.now)
        self._paused()

    def _outcome(self, mail: _Mail, began: float, *, accepted: bool) -> None:
        if self.plain:
            if not accepted:
                self._at(self._tried_again(mail), partial(self._enqueue, mail, mail.domain))
            return
        if self.machine is None:
            if accepted:
                self.accepted.append(self.now)
                return
            self._open(began)
            self._park(mail)
            return
        told, mail.told = mail.told, False
        if accepted or not told:
            self._tell(self._logged(mail, began), accepted=accepted)
        if not accepted:
            self._park(mail)
        self._schedule()

    def _logged(self, mail: _Mail, began: float) -> float:
        """When the attempt began, as it is reckoned from its line."""
        if mail.let_out:
            return max(began - self.host.margin, mail.let_out)
        return began - self.host.read - self.host.rounded * (self.now - began)

    def _tell(self, began: float, *, accepted: bool) -> None:
        assert self.machine is not None
        was = self.machine.state
        (self.machine.accepted if accepted else self.machine.refused)(began=began, now=self.now)
        if self.machine.state is State.PAUSED and was is not State.PAUSED:
            self._paused()
        self._schedule()

    def _paused(self) -> None:
        """What is queued is taken, a moment later."""
        self._at(self.now + self.host.hold, self._take)
        self._schedule()

    def _take(self) -> None:
        assert self.machine is not None
        if self.machine.state not in {State.PAUSED, State.PROBING}:
            return
        for domain, queue in enumerate(self.queues):
            for mail in queue:
                if mail is not None and not mail.let_out > self.machine.since:
                    self._park(mail)
            self.queues[domain] = deque(mail for mail in queue if mail is None or mail.let_out > self.machine.since)

    def _park(self, mail: _Mail) -> None:
        mail.held_since, mail.let_out = self.now, 0.0
        heapq.heappush(self.held, (mail.number, mail))
        self._schedule()

    def _arrives(self, mail: _Mail) -> None:
        machine = self.machine
        if machine is None or machine.passes(now=self.now, held=len(self.held)):
            if machine is not None:
                machine.spent(1, now=self.now)
                mail.let_out = self.now
            self._enqueue(mail, mail.domain)
        else:
            self._park(mail)

    def _schedule(self, *, not_before: float = 0.0) -> None:
        assert self.machine is not None
        at = max(self.machine.next_at(now=self.now, held=len(self.held)), not_before, self.now + 0.001)
        if at < self.due:
            self.due = at
            self._at(at, lambda: self._step(at))

    def _step(self, at: float) -> None:
        if at != self.due:
            return
        self.due = math.inf
        assert self.machine is not None
        self.machine.allowance(now=self.now, held=len(self.held))
        if self.now < self.tick_at:
            self._schedule(not_before=self.tick_at)
            return
        self.tick_at = self.now + TICK
        self._release()
        self._schedule(not_before=self.tick_at)

    def _release(self) -> None:
        assert self.machine is not None
        budget = self.machine.allowance(now=self.now, held=len(self.held))
        late: list[tuple[int, _Mail]] = []
        chosen: list[_Mail] = []
        while self.held and len(chosen) < budget:
            entry = heapq.heappop(self.held)
            if self.now - entry[1].held_since < MIN_HOLD:
                late.append(entry)
            else:
                chosen.append(entry[1])
        for entry in late:
            heapq.heappush(self.held, entry)
        if not chosen:
            return
        self.machine.spent(len(chosen), now=self.now)
        done = self.now + self.host.release
        kick = max(done, self.kicked + 1.0)
        self.kicked = kick
        for mail in chosen:
            mail.let_out = done
            self._at(kick + self.host.scan, partial(self._enqueue, mail, mail.domain))

    # The figures.

    def _told(self) -> Told:
        gap = 1.0 + 2 * self.provider.transaction_s
        found = episodes(self.attempts, gap)
        first_ends = found[0].end + gap if found else 0.0
        first = sum(at <= first_ends for at in self.deferred)
        delivered = len(self.delivered)
        beyond = len(self.deferred) - first
        retriggers = max(0, len(found) - 1)
        drained = None
        if delivered == self.sender.burst:
            fresh = model(self.limit, self.scenario.scale, random.Random(1))
            capacity = self.host.slots * len(self.queues) / self.provider.transaction_s
            base = optimum(fresh, delivered, capacity) + self.pacing.pause
            drained = round((max(self.delivered) - self.sender.at) / base, 3)
        return Told(
            delivered,
            len(self.deferred),
            first,
            round(1000 * beyond / max(1, delivered), 2),
            round(len(self.deferred) / max(1, delivered), 4),
            retriggers,
            drained,
            round(beyond / max(1, retriggers), 1),
        )


def _throttled(scenario: Scenario) -> tuple[Sender, Provider, Limit]:
    """The sender with the burst, and the first limit that it meets."""
    sender = next(sender for sender in scenario.senders() if sender.burst)
    provider = next(it for name in sender.to if (it := scenario.provider_named(name)).limit)
    return sender, provider, provider.limit[0]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="The ramp under a lab's conditions.")
    parser.add_argument("--scenario", default="story")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--plain", action="store_true", help="Postfix alone")
    asked = parser.parse_args(arguments)
    chosen = scenarios.load(scenarios.find(asked.scenario))
    if asked.seconds:
        chosen = replace(chosen, seconds=asked.seconds)
    for seed in range(1, asked.seeds + 1):
        print(json.dumps(Lab(chosen, seed=seed, plain=asked.plain).run()._asdict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
