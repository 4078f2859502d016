"""A canary: a share of some mail goes another way first, and what became of it decides whether the rest follows.

Knows how mail is chosen (by its queue id, so the same for ever), and when a comparison says enough: to look often is to
be fooled sooner, so that an early stop wants stronger evidence than the last word.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from policies.deliverability import Interval, Rate, Z, newcombe, rates
from policies.pools import lots

EARLY: Final = 3.29
"""Standard deviations that stop it before its time: 99.9 %, for it is looked at again and again."""
FEWEST: Final = 50
"""Final outcomes, or attempts, of an arm before which nothing is judged."""
FEWEST_COMPLAINTS: Final = 5
"""Of the canary before complaints are judged: two angry people are no difference between two mails."""
BY_ITSELF: Final = "canary"
"""Stands for who decided, where its comparison did."""


class Arm(StrEnum):
    CANARY = "canary"
    CONTROL = "control"
    """Mail that might have been chosen and was not: it went as ever, at the same time."""


class Phase(StrEnum):
    RUNNING = "running"
    PROMOTED = "promoted"
    """All such mail goes the new way."""
    STOPPED = "stopped"
    """None does."""


class Canary(NamedTuple):
    """A [[canary]] of the configuration, but for its expression."""

    name: str
    share: float
    """Of the mail, above 0 and below 1."""
    transport: str
    """Or pool:NAME."""
    until: int
    """Deliveries of the canary after which it is decided."""
    loss: float = 0.02
    """Acceptance that it may at most have lost, surely, to be promoted by itself."""


_COUNTED: Final = ("attempts", "sent", "bounced", "hard", "block", "expired", "deferred", "complaints")


class Compared(NamedTuple):
    name: str
    """acceptance, deferrals or complaints."""
    canary: Rate
    control: Rate
    difference: Interval
    """Of canary minus control, 95 %."""
    worse: bool
    """Surely, at the certainty that is wanted now."""
    too_few: str
    """Why it is not judged yet; "" where it is."""


class Judgement(NamedTuple):
    phase: Phase
    why: str


def nothing_counted() -> dict[str, int]:
    return dict.fromkeys(_COUNTED, 0)


@dataclass(slots=True)
class Trial:
    """How a canary stands. As the store keeps it."""

    name: str
    phase: Phase = Phase.RUNNING
    since: float = 0.0
    """When it came to that phase."""
    why: str = ""
    by_whom: str = ""
    counts: dict[Arm, dict[str, int]] = field(default_factory=lambda: {arm: nothing_counted() for arm in Arm})

    def count(self, arm: Arm, **more: int) -> None:
        for name, number in more.items():
            self.counts[arm][name] += number


def chosen(canary: Canary, trial: Trial, queue_id: str) -> bool:
    """Whether a message goes the canary's way."""
    match trial.phase:
        case Phase.PROMOTED:
            return True
        case Phase.STOPPED:
            return False
        case Phase.RUNNING:
            return lots(f"canary/{canary.name}", queue_id)[0] < canary.share


def compared(trial: Trial, z: float = Z) -> tuple[Compared, ...]:
    """Set the rates side by side; `z`: standard deviations that `worse` wants."""
    canary, control = (rates(trial.counts[arm]) for arm in Arm)
    return tuple(
        Compared(
            name,
            canary[name],
            control[name],
            newcombe(canary[name], control[name]),
            _worse(name, canary[name], control[name], z),
            _too_few(name, canary[name], control[name]),
        )
        for name in ("acceptance", "deferrals", "complaints")
    )


def judged(canary: Canary, trial: Trial) -> Judgement:
    """Say what is to become of it now."""
    if trial.phase is not Phase.RUNNING:
        return _late(trial) or Judgement(trial.phase, trial.why)
    delivered = trial.counts[Arm.CANARY]["sent"]
    done = delivered >= canary.until
    worse = [each for each in compared(trial, Z if done else EARLY) if each.worse]
    if worse:
        return Judgement(Phase.STOPPED, "; ".join(map(_said, worse)))
    if not done:
        return Judgement(Phase.RUNNING, f"{delivered} of {canary.until} delivered")
    acceptance = compared(trial)[0]
    if acceptance.difference.low < -canary.loss:
        return Judgement(
            Phase.RUNNING,
            f"{delivered} delivered, but a loss of {-acceptance.difference.low:.1%} in acceptance is not ruled out",
        )
    return Judgement(Phase.PROMOTED, f"after {delivered} deliveries no worse: {_said(acceptance)}")


def _late(trial: Trial) -> Judgement | None:
    """Take back what was promoted by itself, where complaints that came in since are worse beyond chance."""
    if trial.phase is not Phase.PROMOTED or trial.by_whom != BY_ITSELF:
        return None
    complaints = next(each for each in compared(trial, EARLY) if each.name == "complaints")
    return Judgement(Phase.STOPPED, f"after it was promoted: {_said(complaints)}") if complaints.worse else None


def _worse(name: str, canary: Rate, control: Rate, z: float) -> bool:
    if _too_few(name, canary, control):
        return False
    low, high = newcombe(canary, control, z)
    return high < 0 if name == "acceptance" else low > 0


def _too_few(name: str, canary: Rate, control: Rate) -> str:
    if min(canary.of, control.of) < FEWEST:
        return f"judged from {FEWEST} of each on"
    if name == "complaints" and canary.hits < FEWEST_COMPLAINTS:
        return f"{canary.hits:.0f} of the canary; judged from {FEWEST_COMPLAINTS} on"
    return ""


def _said(each: Compared) -> str:
    return f"{each.name} {_percent(each.canary)} against {_percent(each.control)} of control"


def _percent(rate: Rate) -> str:
    return "none" if rate.share is None else f"{rate.share:.2%} of {rate.of:.0f}"


def check(canary: Canary) -> None:
    """Raises ValueError."""
    name = f"canary {canary.name}"
    if not 0.0 < canary.share < 1.0:
        raise ValueError(f"{name}: share {canary.share:g}, wanted above 0 and below 1, as 0.05")
    if canary.until < FEWEST:
        raise ValueError(f"{name}: until {canary.until}, wanted {FEWEST} deliveries or more: fewer say nothing")
    if not 0.0 < canary.loss < 1.0:
        raise ValueError(f"{name}: loss {canary.loss:g}, wanted above 0 and below 1, as 0.02")


def outcome(status: str, bounce: str) -> Mapping[str, int]:
    """Tell what an attempt adds to the counts, by its status in the log and what its reply was taken for."""
    added = {"attempts": 1} if status != "expired" else {}
    match status:
        case "sent" | "deferred" | "expired":
            return added | {status: 1}
        case "bounced":
            return added | {"bounced": 1} | ({bounce: 1} if bounce in {"hard", "block"} else {})
        case _:
            return {}
