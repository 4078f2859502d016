"""One key's sub-queue: paused, probing, ramping, closed. Knows when its mail may leave, and learns the pace from what
comes of it; which messages leave, and how, is the engine's."""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Protocol, Self

from policies.limit import Aftermath, finite, or_infinite
from policies.pace import Pace, Pacing

__all__ = ["Fleet", "Pacing", "State", "SubQueue"]

_LOOK_AGAIN: Final = 1.0
"""Seconds between two looks at what a fleet lets us do."""
_CATCH_UP: Final = 1.5
"""Seconds' worth of unspent budget that is kept: releases go about once a second, and now and then one is late. What holds up
a host (Postfix, a log server), or all hosts of a fleet (a store), ends for all that is behind at once, and a limit meets that."""
_EVEN: Final = 1e-9
"""A budget that is whole but for rounding is whole."""


class State(StrEnum):
    PAUSED = "paused"
    """Nothing leaves."""
    PROBING = "probing"
    """One message at a time."""
    RAMPING = "ramping"
    """Mail leaves at the learned pace."""
    CLOSED = "closed"
    """No limit is felt any more."""


_PAUSED, _PROBING, _RAMPING, _CLOSED = State
"""In Python 3.11 a member costs a call each time that one asks its class for it."""


class Fleet(Protocol):
    """What the hosts of a fleet let this one do with a key, at this moment."""

    def may_probe(self) -> bool:
        """Whether the probe is ours to send."""

    def leads(self) -> bool:
        """Whether our pace is the fleet's: we take its steps, and close when it is full."""

    def rate(self, own: float) -> float:
        """Messages/s that may leave from here; `own`: what may where nobody shares the key."""

    def elsewhere(self) -> int:
        """Messages that other hosts hold."""


class SubQueue:
    """Times are seconds since the epoch. Time may stand still; a time before the latest one known counts as that."""

    def __init__(self, pacing: Pacing, *, now: float, accepted: int = 0, during: float = 0.0) -> None:
        """Open it: paused. `accepted`: messages that the provider took in the `during` seconds before; 0: not known."""
        self.state = State.PAUSED
        self.since = now
        self.fleet: Fleet | None = None
        """None: the key is this host's alone."""
        self.taken = 0
        """Messages that the provider took, for those we share the key with; not stored."""
        self.under_way = 0
        """Messages that were let out and are still to be tried, as they are counted for us; not stored."""
        self.before = (accepted, during)
        """As given, for the same; not stored."""
        self._pacing = pacing
        self._pace = Pace(pacing, accepted=accepted, during=during)
        self._now = now
        self._until = now
        """End of the pause."""
        self._length = pacing.pause
        """What a pause takes, for the time being."""
        self._pausing = 0.0
        """What this one takes."""
        self._longest_failed = 0.0
        """The longest pause whose probe failed; no pause is as short again."""
        self._paused_at = now
        self._refused_at = now
        """When the attempt began whose refusal led to this pause, or to the first of this chain of pauses."""
        self._failed_after = 0.0
        """Seconds from there to the last probe that failed; 0: none did."""
        self._may_shorten = False
        self._probe_at = math.inf
        """When the probe was let out; infinite: none is out."""
        self._retry_at = now
        """No probe before this."""
        self._budget = 0.0
        self._budget_at = now
        self._busy_at = now
        """The last time that mail was held, or the pace was below the full one."""
        self._pause(now, pacing.pause)

    @property
    def budget_per_s(self) -> float:
        """Messages a second that may leave now; 0 while paused or probing."""
        return self._pacing.full_pace if self.state is _CLOSED else self._rate

    @property
    def pace(self) -> float:
        """Messages/s that we would let out were the key ours alone, and that all hosts of a fleet do while we lead it."""
        return self._pacing.full_pace if self.state is _CLOSED else self._pace.rate

    @property
    def exploring(self) -> bool:
        """Whether the pace is above what is known to be safe: a refusal is the price of that."""
        return self._pace.exploring

    @property
    def pause_ends(self) -> float:
        return self._until

    def pauses_longer_than(self, pause: float) -> bool:
        """Whether this pause takes more than a fleet's of so many seconds, and that is enough by all that we know."""
        return self._pausing > max(pause, self._shortest)

    @property
    def short_pause(self) -> float:
        """Seconds that this pause may come down to where the provider goes on accepting some; 0: it may not."""
        return self._shortest if self._may_shorten else 0.0

    @property
    def aftermath(self) -> Aftermath:
        """What became of what was under way when the first refusal came, until mail leaves again."""
        return self._pace.aftermath

    @property
    def _rate(self) -> float:
        own = self._pace.rate
        return own if self.fleet is None else min(self.fleet.rate(own), self._pacing.full_pace)

    @property
    def next_step_at(self) -> float:
        """When something changes by itself: the pause or the wait for a probe ends, the pace changes.

        A closed one tells when it closed.
        """
        match self.state:
            case State.PAUSED:
                return self._until
            case State.PROBING:
                return self._probe_ends
            case State.RAMPING:
                return self._pace.next_step_at
            case State.CLOSED:
                return self.since

    @property
    def _probe_ends(self) -> float:
        if self._probe_at < math.inf:
            return self._probe_at + self._pacing.probe_timeout
        return max(self._retry_at, self._now)

    def reopen(self, *, now: float) -> None:
        """Open a closed one again: paused as at first, knowing what was learned before."""
        now = self._clock(now)
        self._length = self._pacing.pause
        self._refused_at, self._failed_after, self._may_shorten = now, 0.0, False
        self._pause(now, self._length)

    # What became of attempts.

    def accepted(self, *, began: float, now: float) -> None:
        """The provider took a message (2xx); `began`: when the connection for it was begun."""
        now = self._clock(now)
        self._pace.accepted(began=began, now=now)
        self.taken += 1
        if self.state is _PROBING and began >= self.since:
            self._probed(now)
        elif self.state is _PAUSED and self._may_shorten and self._pace.soft:
            self._length = self._pausing = min(self._pausing, self._shortest)
            self._until = min(self._until, self._paused_at + self._pausing)

    def refused(self, *, began: float, now: float) -> None:
        """A matching refusal. One of an attempt from before the pause tells where the limit was, and no more."""
        now = self._clock(now)
        if self.state is _CLOSED:
            return
        counts = self._pace.refused(began=began, now=now)
        if began < self._paused_at:
            return
        if self.state is _PAUSED:
            self._leaked(began)
        elif self.state is _PROBING:
            self._probe_failed(began, now)
        elif counts:
            self._stop(began, now)

    def talked(self, *, began: float, now: float) -> None:
        """A refusal of recipient or message scope: as a probe it is as good as an acceptance."""
        now = self._clock(now)
        if self.state is _PROBING and began >= self.since:
            self._probed(now)

    def void(self, *, now: float) -> None:
        """The probe ended without a reply, or never left; it is replaced a little later than `now`."""
        self._probe_at = math.inf
        self._retry_at = max(self._now, now) + self._pacing.void_delay

    # What may leave.

    def allowance(self, *, now: float, held: int) -> int:
        """How many messages may leave now, with `held` waiting; moves on to the state that the time brings."""
        now = self._clock(now)
        self._move_on(now, held)
        match self.state:
            case State.PAUSED:
                return 0
            case State.PROBING:
                ours = self.fleet is None or self.fleet.may_probe()
                return int(ours and self._probe_at == math.inf and now >= self._retry_at)
            case State.RAMPING:
                return max(0, math.floor(self._budget + _EVEN)) if self._rate > 0 else 0
            case State.CLOSED:
                return max(1, held)

    def passes(self, *, now: float, held: int) -> bool:
        """Whether an arriving message may go straight through: nothing older waits, and one may leave."""
        may_leave = self.allowance(now=now, held=held) > 0
        return self.state is _CLOSED or (may_leave and held == 0)

    def spent(self, count: int, *, now: float) -> None:
        """So many were let out: released, or passed as they arrived."""
        now = self._clock(now)
        if count <= 0:
            return
        if self.state is _PROBING:
            self._probe_at = now
        elif self.state is _RAMPING:
            self._budget -= count

    def next_at(self, *, now: float, held: int) -> float:
        """When to ask for the allowance again at the latest; infinite: not before something happens."""
        now = self._clock(now)
        match self.state:
            case State.PAUSED:
                return max(now, self._until)
            case State.PROBING:
                idle = not held and self._probe_at == math.inf
                return max(now, self.since + self._pacing.forget_after if idle else self._probe_ends)
            case State.RAMPING:
                return max(now, self._next_release() if held else self._next_quiet_change())
            case State.CLOSED:
                return now if held else math.inf

    def _next_release(self) -> float:
        """When the budget reaches one message, or the pace has changed twice before that."""
        rate = self._rate
        whole = self._budget_at + max(0.0, 1 - self._budget) / rate if rate > 0 else math.inf
        look = math.inf if self.fleet is None else self._now + _LOOK_AGAIN
        return min(whole + _EVEN, self._pace.next_step_at + self._pacing.step, look)

    def _next_quiet_change(self) -> float:
        closes = self._busy_at + self._pacing.close_after
        return closes if self._pace.rate >= self._pacing.full_pace else self._pace.next_step_at

    # By hand.

    def pause(self, *, now: float, seconds: float | None = None) -> None:
        """Pause for so long (the first pause where None), then probe."""
        now = self._clock(now)
        self._failed_after, self._may_shorten = 0.0, False
        self._pause(now, self._pacing.pause if seconds is None else seconds)

    def hold(self, *, now: float, seconds: float) -> None:
        """Let nothing out for so long from now on, in whatever state it is; a pause that is longer stays."""
        now = self._clock(now)
        if self.state is not State.PAUSED:
            self._failed_after = 0.0
            self._pause(now, seconds)
        self._may_shorten = False
        self._until = max(self._until, now + seconds)

    def resume(self, *, now: float) -> None:
        """End the pause now: what paused it is known to be over, as far as one can see from here."""
        now = self._clock(now)
        if self.state is State.PAUSED:
            self._until = now
            self._move_on(now, 0)

    def close(self, *, now: float) -> None:
        """Let everything go; what was learned is kept for `reopen`."""
        self._close(self._clock(now))

    # What other hosts of a fleet make known.

    def follow(self, state: State, *, pace: float, exploring: bool, pause: float, left: float, now: float) -> None:
        """Enter the state that another host told of. `pause`: the seconds that it pauses for, of which `left` are left.

        `pace` is that of all hosts together, messages/s; `exploring`: it is more than is known to be safe.
        """
        now = self._clock(now)
        match state:
            case State.PAUSED:
                self._paused_elsewhere(pause, left, now)
            case State.PROBING if self.state is _PAUSED:
                self._until = min(self._until, now)
                self._move_on(now, 0)
            case State.RAMPING:
                if self.state is not _RAMPING:
                    self._ramp(now)
                self._pace.led(pace, exploring=exploring, now=now)
            case State.CLOSED:
                self._close(now)

    def taken_elsewhere(self, count: int, *, now: float) -> None:
        """The provider took so many messages that other hosts sent."""
        self._pace.accepted_elsewhere(count, now=self._clock(now))

    def taken_before(self, count: int, during: float, *, now: float) -> None:
        """All hosts of a fleet, this one too, had so many accepted in the `during` seconds before the first refusal."""
        leads = self.fleet is not None and self.fleet.leads()
        self._pace.accepted_before(count, during, leads=leads, now=self._clock(now))

    def had_aftermath(self, others: Aftermath) -> None:
        """What became of what other hosts had under way when the first refusal came."""
        self._pace.had_aftermath(others)

    def _paused_elsewhere(self, pause: float, left: float, now: float) -> None:
        self._pace.refused_elsewhere(now=now)
        if self.state is _PAUSED:
            self._until = max(self._until, now + left)
            if pause < self._pausing:  # that much was enough, for all: not more is to be feared next time
                self._length = self._pausing = max(pause, self._shortest)
            return
        if self.state is _PROBING:
            self._longest_failed = max(self._longest_failed, self._pausing)
            self._failed_after = now - self._refused_at
        else:
            self._refused_at, self._failed_after = now, 0.0
        self._length = min(self._pacing.pause_max, max(pause, self._shortest))
        self._may_shorten = False
        self._pause(now, left)

    # Between the states.

    def _clock(self, now: float) -> float:
        self._now = max(self._now, now)
        return self._now

    def _enter(self, state: State, now: float) -> None:
        self.state, self.since = state, now

    def _move_on(self, now: float, held: int) -> None:
        if self.state is _PAUSED and now >= self._until:
            self._enter(State.PROBING, now)
            self._probe_at, self._retry_at = math.inf, now
        if self.state is _PROBING:
            if now >= self._probe_at + self._pacing.probe_timeout:
                self._probe_at = math.inf
            if held:
                self._busy_at = now
            elif self._probe_at == math.inf and now >= max(self._busy_at, self.since) + self._pacing.forget_after:
                self._close_if_leading(now)
        if self.state is _RAMPING:
            self._earn(now)
            if self.fleet is not None:
                held += self.fleet.elsewhere()
            if self.fleet is None or self.fleet.leads():
                self._pace.advance(now=now, held=held)
            else:
                self._pace.led(self._pace.rate, exploring=self._pace.exploring, now=now)
            if held or self._pace.rate < self._pacing.full_pace:
                self._busy_at = now
            elif now >= self._busy_at + self._pacing.close_after:
                self._close_if_leading(now)

    def _close_if_leading(self, now: float) -> None:
        if self.fleet is None or self.fleet.leads():
            self._close(now)

    def _probed(self, now: float) -> None:
        """A probe went well; in a fleet only the word of one that was to be sent counts."""
        if self.fleet is None or self.fleet.may_probe():
            self._ramp(now)
        else:
            self._probe_at = math.inf

    def _earn(self, now: float) -> None:
        """Earn budget for the time since the last look, at the pace of that time.

        Mail that stands behind other mail in Postfix, or behind a provider that has become slow, is tried all at once when
        that is over: what is under way for longer than usual counts as unspent. In a fleet each host counts its own by its part
        of the pace, so all together let out no more than one host would.
        """
        rate = self._rate
        unspent = self.under_way - rate * self._pace.lag
        most = max(1 + rate, rate * _CATCH_UP) - max(0.0, unspent)
        self._budget = min(max(0.0, most), self._budget + rate * (now - self._budget_at))
        self._budget_at = now

    def _ramp(self, now: float) -> None:
        self._enter(State.RAMPING, now)
        self._pace.resume(now=now, failed=self._failed_after)
        self._failed_after = 0.0
        self._probe_at = math.inf
        self._budget, self._budget_at, self._busy_at = 0.0, now, now
        if self._pace.by_chance:
            self._close_if_leading(now)

    def _stop(self, began: float, now: float) -> None:
        """A refusal ends the ramp; how long to pause depends on whether more was being tried."""
        self._may_shorten = self._pace.planned
        if self._may_shorten:
            self._length = max(self._shortest, self._length / 2)
        elif self._pace.limit.upsets:
            self._length = max(self._length, min(2 * self._length, self._pacing.pause))
        self._length = min(self._pacing.pause_max, max(self._length, self._shortest))
        self._refused_at, self._failed_after = began, 0.0
        self._pause(now, self._length)

    @property
    def _shortest(self) -> float:
        return min(self._pacing.pause_max, max(self._pacing.pause_min, 2 * self._longest_failed))

    def _probe_failed(self, began: float, now: float) -> None:
        if began >= self.since:
            self._longest_failed = max(self._longest_failed, self._length)
            self._failed_after = began - self._refused_at
            self._length = min(self._pacing.pause_max, 2 * self._length)
        self._may_shorten = False
        self._pause(now, self._length)

    def _leaked(self, began: float) -> None:
        """An attempt that we did not stop began in the pause and was refused: count the pause from it.

        A provider that starts its penalty anew for each attempt does the same. At most twice the pause, so that
        mail which we cannot hold does not keep the rest waiting for ever.
        """
        self._until = max(self._until, min(began, self._paused_at + self._pausing) + self._pausing)

    def _pause(self, now: float, seconds: float) -> None:
        self._enter(State.PAUSED, now)
        self._pace.stop(now=now)
        self._paused_at, self._pausing, self._until = now, seconds, now + seconds
        self._probe_at = math.inf

    def _close(self, now: float) -> None:
        self._enter(State.CLOSED, now)
        self._pace.stop(now=now)
        self._pace.close()

    # The store's side.

    def snapshot(self) -> dict[str, Any]:
        """Everything, in JSON's types."""
        return {
            "state": str(self.state),
            "since": self.since,
            "now": self._now,
            "until": self._until,
            "length": self._length,
            "pausing": self._pausing,
            "longest_failed": self._longest_failed,
            "paused_at": self._paused_at,
            "refused_at": self._refused_at,
            "failed_after": self._failed_after,
            "may_shorten": self._may_shorten,
            "probe_at": finite(self._probe_at),
            "retry_at": self._retry_at,
            "budget": self._budget,
            "budget_at": self._budget_at,
            "busy_at": self._busy_at,
            "pace": self._pace.snapshot(),
        }

    @classmethod
    def restore(cls, pacing: Pacing, snapshot: Mapping[str, Any]) -> Self:
        """Take up where a snapshot was made, as if nothing had been between."""
        restored = cls(pacing, now=snapshot["now"])
        for name in _PLAIN:
            setattr(restored, f"_{name}", snapshot[name])
        restored.state, restored.since = State(snapshot["state"]), snapshot["since"]
        restored._probe_at = or_infinite(snapshot["probe_at"])
        restored._pace = Pace.restore(pacing, snapshot["pace"])
        return restored


_PLAIN: Final = (
    "now",
    "until",
    "length",
    "pausing",
    "longest_failed",
    "paused_at",
    "refused_at",
    "failed_after",
    "may_shorten",
    "retry_at",
    "budget",
    "budget_at",
    "busy_at",
)
