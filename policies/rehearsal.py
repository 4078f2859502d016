"""The engine at a log of the past: in observe mode, its clock the log's own, one engine a host.

What waits for nothing but time (a pause that ends, a sub-queue that closes) happens between two lines, when it would have.
"""

import math
from collections.abc import Callable, Sequence

from parsers.postfix import facts
from policies.classify import RuleSet
from policies.commands import Attempt, Change, Command, Release
from policies.engine import Engine
from policies.site import Settings

OBSERVED: frozenset[type[facts.Fact]] = frozenset(
    {
        facts.ClientIdentified,
        facts.DeliveryAttempt,
        facts.Diagnostic,
        facts.DkimSigned,
        facts.HeaderLogged,
        facts.Held,
        facts.PickedUp,
        facts.QueueActive,
        facts.QueueRemoved,
        facts.Rejected,
        facts.Released,
        facts.RemoteReply,
        facts.Requeued,
    }
)
"""What the engine learns from; a reader may pass over the rest."""

_OBSERVE = Settings(act=False)
_OUTCOMES = frozenset({facts.DeliveryAttempt, facts.RemoteReply})
"""Facts that move a sub-queue on."""
_QUIET = 2 * 86_400.0
"""Seconds without a line after which the rest of a silence is passed in one step: longer than a sub-queue without mail
is remembered, and archives have gaps of months."""
_FORGET_EVERY = 600.0
"""Seconds of the log between two looks for messages whose end it does not tell."""


class Rehearsal:
    """One host's. Messages that the log says we held are taken for released when the engine would release them."""

    def __init__(
        self, rules: RuleSet, organizational: Callable[[str], str], *, host: str, settings: Settings = _OBSERVE
    ) -> None:
        self.engine = Engine(rules, organizational, settings._replace(host=host))
        self._telling = self.engine.telling
        self.forgets = 0
        """How often it was looked for messages whose end the log does not tell."""
        self._clock = 0.0
        """Never goes back, as lines that a syslog daemon wrote out of order do."""
        self._at = 0.0
        """Up to when all that was due is done."""
        self._due = math.inf
        """When something happens by itself; infinite while nothing is open."""
        self._forget_at = 0.0

    def observe(self, fact: facts.Fact) -> None:
        """Let time pass until the fact's, then tell the engine of it."""
        engine = self.engine
        now = self._clock = max(self._clock, fact.record.time)
        if now >= self._due:
            self.wait(until=now)
        if now >= self._forget_at:
            self._forget(now)
        engine.observe(fact, now=now)
        if self._telling.changes:
            self._obey(engine.step(now=now), now=now)
            self._look_ahead(now)
        elif self._due < math.inf and type(fact) in _OUTCOMES:
            self._look_ahead(now)

    def wait(self, *, until: float) -> None:
        """Do all that is due by then, each thing at its time."""
        engine = self.engine
        at, quiet = self._at, self._at + _QUIET
        while engine.subqueues and (due := engine.next_step(now=at)) <= until:
            at = max(at, due) if at < quiet else until
            self._obey(engine.step(now=at), now=at)
        self._look_ahead(until)

    def _look_ahead(self, now: float) -> None:
        self._at = now
        self._due = self.engine.next_step(now=now) if self.engine.subqueues else math.inf

    def changes(self) -> Sequence[Change]:
        """Take what was changed since the last look."""
        telling = self._telling
        if not telling.changes:
            return ()
        return telling.take_changes()

    def attempts(self) -> Sequence[Attempt]:
        """Take the attempts of the facts since the last look."""
        telling = self._telling
        if not telling.attempts:
            return ()
        attempts, telling.attempts = telling.attempts, []
        return attempts

    def _obey(self, commands: Sequence[Command], *, now: float) -> None:
        """Of mail that a sidecar held when this log was written; the log itself says when that left."""
        for command in commands:
            if isinstance(command, Release):
                self.engine.books.released(command.instance, command.ids, (), (), now=now)

    def _forget(self, now: float) -> None:
        """Bound the memory: messages without an end, and what only a store would want to know."""
        engine = self.engine
        self._forget_at = now + _FORGET_EVERY
        self.forgets += 1
        engine.forget_old(now=now)
        engine.books.changed.clear()
        engine.subqueues.gone.clear()
        engine.recipients.fresh.clear()
        engine.habits.learned.clear()
        self._telling.received.clear()
        self._telling.removed.clear()
