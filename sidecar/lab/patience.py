"""How patient the lab is: on a machine that does other things beside, all that a bar of time is set for takes longer.

It stretches what is waited for and what is complained of, and nothing else: not what is sent, nor the sidecar's times.
"""

from contextvars import ContextVar

patience: ContextVar[float] = ContextVar("patience", default=1.0)
"""Set once, by the command."""


def longer(seconds: float) -> float:
    """Give the limit for something that takes `seconds` at most on a machine of its own."""
    return seconds * patience.get()
