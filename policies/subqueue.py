"""Provisional: a plain pause, probe and additive ramp, until the learned one lands here."""

from enum import StrEnum
from typing import Any, NamedTuple


class State(StrEnum):
    PAUSED = "paused"
    PROBING = "probing"
    RAMPING = "ramping"
    CLOSED = "closed"


class Pacing(NamedTuple):
    pause: float = 300.0
    pause_min: float = 30.0
    pause_max: float = 3600.0
    probe_timeout: float = 600.0
    close_after: float = 600.0
    full_pace: float = 50.0

    def scaled(self, by: float) -> "Pacing":
        return self._replace(
            **{n: getattr(self, n) / by for n in ("pause", "pause_min", "pause_max", "probe_timeout", "close_after")}
        )


class SubQueue:
    def __init__(self, pacing: Pacing, *, now: float) -> None:
        self.p = pacing
        self.state = State.PAUSED
        self.since = now
        self.length = pacing.pause
        self.pace = 0.5
        self.last = now
        self.tokens = 0.0
        self.out = False
        self.out_at = 0.0
        self.begun = now

    def reopen(self, *, now: float) -> None:
        self.state, self.since, self.begun = State.PAUSED, now, now

    def refused(self, *, began: float, now: float) -> None:
        if began <= self.begun or self.state in (State.PAUSED, State.CLOSED):
            return
        if self.state is State.PROBING:
            self.length = min(self.p.pause_max, self.length * 2)
        else:
            self.pace = max(0.02, self.pace / 2)
        self.state, self.since, self.begun, self.out = State.PAUSED, now, now, False

    def accepted(self, *, began: float, now: float) -> None:
        if self.state is State.PROBING and began > self.begun:
            self.state, self.since, self.last, self.tokens, self.out = State.RAMPING, now, now, 0.0, False

    talked = accepted

    def void(self, *, now: float) -> None:
        self.out = False

    def allowance(self, *, now: float, held: int) -> int:
        if self.state is State.PAUSED and now >= self.since + self.length:
            self.state, self.since, self.out = State.PROBING, now, False
        if self.state is State.PROBING:
            if self.out and now - self.out_at > self.p.probe_timeout:
                self.out = False
            return 0 if self.out else 1
        if self.state is State.RAMPING:
            dt = max(0.0, now - self.last)
            self.last = max(self.last, now)
            self.pace = min(self.p.full_pace, self.pace + dt * 0.02)
            self.tokens = min(max(1.0, self.pace), self.tokens + dt * self.pace)
            if held == 0 and now - self.since > self.p.close_after:
                self.state, self.since = State.CLOSED, now
            return int(self.tokens)
        return 0 if self.state is State.PAUSED else 1_000_000

    def spent(self, count: int, *, now: float) -> None:
        if self.state is State.PROBING:
            self.out, self.out_at = True, now
        self.tokens -= count

    def passes(self, *, now: float, held: int) -> bool:
        return held == 0 and self.allowance(now=now, held=held) >= 1

    def next_at(self, *, now: float, held: int) -> float:
        return max(now, self.since + self.length) if self.state is State.PAUSED else now + 1.0

    def pause(self, *, now: float, seconds: float | None = None) -> None:
        self.state, self.since, self.begun, self.length = State.PAUSED, now, now, seconds or self.p.pause

    def close(self, *, now: float) -> None:
        self.state, self.since = State.CLOSED, now

    @property
    def budget_per_s(self) -> float:
        return self.pace if self.state is State.RAMPING else 0.0

    @property
    def next_step_at(self) -> float:
        return self.since + self.length

    def snapshot(self) -> dict[str, Any]:
        return {k: (str(v) if k == "state" else v) for k, v in vars(self).items() if k != "p"}

    @classmethod
    def restore(cls, pacing: Pacing, snapshot: dict[str, Any]) -> "SubQueue":
        self = cls(pacing, now=0)
        vars(self).update(snapshot)
        self.state = State(snapshot["state"])
        return self
