"""Refusals that come by chance, whatever the pace: receiver load, not a limit.
They are told by what they lack: the attempts around them are accepted, and a lower pace does not make them rarer."""

from dataclasses import dataclass, field

from policies.limit import Overrun

_FEWEST = 8
"""Attempts under way at the opening that tell chance from a limit."""
_SHARE = 0.7
"""Share of these that is accepted where there is no limit."""
_LOW, _HIGH = 0.03, 0.25
"""Share of refusals that is taken for chance."""
_EPISODES = 3
"""Episodes in a row, each at a lower pace, that look like chance."""


@dataclass(slots=True)
class Chance:
    ratio: float = 0.0
    """The share of refusals that is tolerated; 0: each one is taken for a limit."""
    attempts: int = 0
    """Since the ramp began."""
    refused: int = 0
    lone: list[list[int]] = field(default_factory=list)
    """[refused, attempts] of the latest episodes that looked like chance."""
    tried: bool = False
    """It was taken for chance once and turned out a limit; that is not tried again."""

    def opened(self, over: Overrun) -> None:
        """Judge by the attempts that were under way at full speed when the first refusal came."""
        attempts = over.accepted + over.refused
        if over.accepted >= _FEWEST and over.accepted >= _SHARE * attempts:
            self.ratio = (over.refused + 1) / attempts

    def ramp(self) -> None:
        """A ramp begins; its probe was accepted."""
        self.attempts, self.refused = 1, 0

    def accept(self) -> None:
        self.attempts += 1
        if self.refused == 0 and self.attempts * self.ratio > 3:
            self.ratio = 0.0  # at chance, three would have been refused by now: a limit it was, and we are below it

    def refuse(self) -> bool:
        """Whether this refusal is tolerated."""
        self.attempts += 1
        self.refused += 1
        return self.ratio > 0 and self.refused <= 2 + 2 * self.ratio * self.attempts

    def ended(self, over: Overrun, *, planned: bool) -> None:
        """A refusal ended the ramp; `planned`: it came while a higher pace was being tried."""
        self.ratio = 0.0
        alone = over.accepted >= 2 * over.refused or (over.refused == 1 and over.accepted <= 2)
        if planned or not alone:
            self.lone = []
            return
        self.lone.append([self.refused, self.attempts])
        if len(self.lone) < _EPISODES:
            return
        ratio = sum(refused for refused, _ in self.lone) / sum(attempts for _, attempts in self.lone)
        self.lone = []
        if _LOW <= ratio <= _HIGH and not self.tried:
            self.ratio, self.tried = ratio, True
