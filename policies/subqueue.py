"""One sub-queue's states: paused, probing, ramping, closed; who may leave, and when to ask again.

The pace of a ramp is learned elsewhere (`policies.pace`); here it is decided how long to pause, when a
probe goes out, and what an outcome means in the state it comes in. Time is an argument and never runs back.
"""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from policies.pace import Pace, Pacing

__all__ = ["Pacing", "State", "SubQueue"]


class State(StrEnum):
    PAUSED = "paused"
    """Nothing leaves."""
    PROBING = "probing"
    """One message is out, or may go."""
    RAMPING = "ramping"
    """Mail leaves at a learned pace."""
    CLOSED = "closed"
    """Mail passes as if there were no sub-queue."""


_BURST_SECONDS = 3.0
"""Budget that was not used is kept for so long, for releases are made once a second or later."""


class SubQueue:
    """Made when it opens: paused. `now` and `began` are seconds on one clock; a `now` that runs back stands still."""

    def __init__(self, pacing: Pacing, *, now: float) -> None:
        self.state = State.PAUSED
        self.since = now
        """When this state began."""
        self._pacing = pacing
        self._pace = Pace(pacing)
        self._pace.stop(now=now)
        self._now = now
        self._length = pacing.pause
        """Of the pause, seconds."""
        self._until = now + pacing.pause
        self._paused_at = now
        self._refused_at = now
        """When the attempt began that ended the last ramp."""
        self._failed = 0.0
        """The longest pause after which a probe failed: none may be shorter than twice that."""
        self._failures = 0
        """Probes that failed since the last ramp."""
        self._failed_after = 0.0
        """Seconds from the refusal that ended the last ramp to the last probe that failed."""
        self._planned = True
        """The refusal that ended the last ramp was the price of trying more."""
        self._probe_at: float | None = None
        """When the probe went out."""
        self._probe_not_before = now
        self._credit = 0.0
        """Messages that may leave; whole ones do."""
        self._credited_at = now
        self._busy_at = now
        """When mail last waited, or left at less than full pace."""

    def reopen(self, *, now: float) -> None:
        """Pause again after having been closed; what was learned of the limit is kept."""
        now = self._clock(now)
        self._failed = self._failed_after = 0.0
        self._failures = 0
        self._refused_at = now
        self._length = self._pacing.pause
        self._pace.stop(now=now)
        self._pause(now)

    @property
    def budget_per_s(self) -> float:
        """Messages a second that may leave now, 0 while paused or probing."""
        return self._pace.rate if self.state is State.RAMPING else 0.0

    @property
    def next_step_at(self) -> float:
        """When the state or the pace changes next, if nothing else happens; infinite where only outcomes count."""
        match self.state:
            case State.PAUSED:
                return self._until
            case State.PROBING:
                return self._until if self._probe_at is None else self._probe_at + self._pacing.probe_timeout
            case State.RAMPING:
                return self._pace.next_step_at
            case State.CLOSED:
                return math.inf

    # Outcomes of attempts.

    def refused(self, *, began: float, now: float) -> None:
        """A matching refusal. What began before the pause is told to the pace, and changes no state."""
        now = self._clock(now)
        limited = self._pace.refused(began=began, now=now)
        if self.state is State.PROBING and began >= self.since:
            self._probe_failed(began, now)
        elif self.state is State.PAUSED and began > self._paused_at:
            # Mail that we do not hold was tried and refused: a provider that counts attempts begins anew.
            again = began + self._until - self._paused_at
            self._until = max(self._until, min(again, self._paused_at + 2 * self._length))
        elif self.state is State.RAMPING and began >= self._paused_at and limited:
            self._ramp_ended(began, now)

    def accepted(self, *, began: float, now: float) -> None:
        """A 2xx."""
        now = self._clock(now)
        self._pace.accepted(began=began, now=now)
        if self.state is State.PAUSED and self._pace.soft and not self._failures and self._planned:
            self._shorten()
        elif self.state is State.PROBING and began >= self.since:
            self._ramp(now)

    def talked(self, *, began: float, now: float) -> None:
        """A refusal of recipient or message scope: they talk to us, which is all that a probe asks."""
        now = self._clock(now)
        if self.state is State.PROBING and began >= self.since:
            self._ramp(now)

    def void(self, *, now: float) -> None:
        """The probe ended without a reply; the next may go after a little while."""
        now = self._clock(now)
        if self.state is State.PROBING and self._probe_at is not None:
            self._probe_at = None
            self._probe_not_before = now + self._pacing.void_delay

    # What may leave.

    def allowance(self, *, now: float, held: int) -> int:
        """Tell how many messages may leave now. `held`: how many wait."""
        now = self._clock(now)
        self._advance(now, held)
        match self.state:
            case State.PAUSED:
                return 0
            case State.PROBING:
                return int(self._probe_at is None and now >= self._probe_not_before)
            case State.RAMPING:
                return int(self._credit + 1e-9)
            case State.CLOSED:
                return max(1, held)

    def passes(self, *, now: float, held: int) -> bool:
        """Whether an arriving message may go straight on: only where none waits before it."""
        return self.allowance(now=now, held=held) > 0 and (not held or self.state is State.CLOSED)

    def spent(self, count: int, *, now: float) -> None:
        """So many were let out."""
        now = self._clock(now)
        if self.state is State.PROBING:
            self._probe_at = now
        elif self.state is State.RAMPING:
            self._credit -= count

    def next_at(self, *, now: float, held: int) -> float:
        """Tell when to ask for the allowance again at the latest; infinite where only an outcome changes it."""
        match self.state:
            case State.PAUSED:
                return self._until
            case State.PROBING if self._probe_at is not None:
                return self._probe_at + self._pacing.probe_timeout
            case State.PROBING:
                patience = self.since + self._pacing.forget_after
                return max(now, self._probe_not_before) if held else max(now, patience)
            case State.RAMPING if held:
                wait = max(0.0, 1.0 - self._credit) / max(self._pace.rate, 1e-9)
                return min(max(now, self._credited_at + wait), max(now, self._pace.next_step_at))
            case State.RAMPING:
                return max(now, self._pace.next_step_at)
            case State.CLOSED:
                return math.inf

    # By hand.

    def pause(self, *, now: float, seconds: float | None = None) -> None:
        """Pause, for `seconds` or for as long as the last pause was."""
        now = self._clock(now)
        self._length = self._pacing.pause if seconds is None else seconds
        self._pace.stop(now=now)
        self._pause(now)

    def close(self, *, now: float) -> None:
        self._close(self._clock(now))

    # Transitions.

    def _clock(self, now: float) -> float:
        self._now = max(self._now, now)
        return self._now

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        self.since = now

    def _pause(self, now: float) -> None:
        self._enter(State.PAUSED, now)
        self._paused_at = now
        self._until = now + self._length
        self._probe_at = None

    def _probe_failed(self, began: float, now: float) -> None:
        self._failed = max(self._failed, self._length)
        self._failures += 1
        self._failed_after = began - self._refused_at
        self._length = min(self._pacing.pause_max, 2 * self._length)
        self._pause(now)

    def _ramp_ended(self, began: float, now: float) -> None:
        """Pause for less where the refusal was foreseen, for more where refusals come again and again unforeseen."""
        self._planned = self._pace.planned
        again = self._pace.limit.upsets >= 1
        self._pace.stop(now=now)
        factor = 0.5 if self._planned else 2.0 if again else 1.0
        wanted = min(self._length * factor, max(self._length, self._pacing.pause))
        self._length = min(self._pacing.pause_max, max(self._pacing.pause_min, 2 * self._failed, wanted))
        self._failures = 0
        self._failed_after = 0.0
        self._refused_at = began
        self._pause(now)

    def _shorten(self) -> None:
        """The provider still accepts some of what is under way: it has not shut the key out."""
        shorter = max(self._pacing.pause_min, min(2 * self._failed, self._pacing.pause_max))
        if shorter < self._length:
            self._length = shorter
            self._until = self._paused_at + shorter

    def _ramp(self, now: float) -> None:
        self._enter(State.RAMPING, now)
        self._pace.resume(now=now, failed=self._failed_after if self._failures else 0.0)
        self._probe_at = None
        self._credit = 0.0
        self._credited_at = self._busy_at = now
        if self._pace.by_chance:
            self._close(now)

    def _close(self, now: float) -> None:
        self._enter(State.CLOSED, now)
        self._pace.close()

    def _advance(self, now: float, held: int) -> None:
        """Let time pass."""
        if self.state is State.PAUSED and now >= self._until:
            self._enter(State.PROBING, now)
            self._probe_at = None
            self._probe_not_before = now
        if self.state is State.PROBING:
            self._wait_for_probe(now, held)
        elif self.state is State.RAMPING:
            self._earn(now, held)

    def _wait_for_probe(self, now: float, held: int) -> None:
        if self._probe_at is not None and now >= self._probe_at + self._pacing.probe_timeout:
            self._probe_at = None
        if self._probe_at is None and not held and now >= self.since + self._pacing.forget_after:
            self._close(now)

    def _earn(self, now: float, held: int) -> None:
        rate = self._pace.rate
        earned = self._credit + rate * (now - self._credited_at)
        self._credit = min(max(1.0 + rate, _BURST_SECONDS * rate), earned)
        self._credited_at = now
        if held or rate < self._pacing.full_pace:
            self._busy_at = now
        self._pace.advance(now=now, held=held)
        if now >= self._busy_at + self._pacing.close_after:
            self._close(now)

    # The store's side.

    def snapshot(self) -> dict[str, Any]:
        """All that `restore` needs, as JSON."""
        return {
            "state": str(self.state),
            "pace": self._pace.snapshot(),
            **{name: getattr(self, attribute) for name, attribute in _KEPT.items()},
        }

    @classmethod
    def restore(cls, pacing: Pacing, snapshot: Mapping[str, Any]) -> Self:
        """Go on as if never stopped."""
        restored = cls(pacing, now=0.0)
        restored.state = State(snapshot["state"])
        restored._pace = Pace.restore(pacing, snapshot["pace"])
        for name, attribute in _KEPT.items():
            setattr(restored, attribute, snapshot[name])
        return restored


_KEPT = {
    "since": "since",
    "now": "_now",
    "length": "_length",
    "until": "_until",
    "paused_at": "_paused_at",
    "refused_at": "_refused_at",
    "failed": "_failed",
    "failures": "_failures",
    "failed_after": "_failed_after",
    "planned": "_planned",
    "probe_at": "_probe_at",
    "probe_not_before": "_probe_not_before",
    "credit": "_credit",
    "credited_at": "_credited_at",
    "busy_at": "_busy_at",
}
"""Name in a snapshot -> attribute; all finite numbers, switches or None."""
