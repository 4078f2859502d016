"""An event loop whose clock leaps to whatever is due next: hours of waiting pass in no time, the same way each time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class _Leaping(selectors.SelectSelector):
    def __init__(self, began: float) -> None:
        super().__init__()
        self.now = began

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing is due")
        self.now += max(0.0, timeout)
        return super().select(0)


class LeapingLoop(asyncio.SelectorEventLoop):
    """`time` is the only clock; what is to wait must wait on this loop."""

    def __init__(self, began: float) -> None:
        self._leaping = _Leaping(began)
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.now


def leap(coroutine: Coroutine[Any, Any, _T], *, began: float = 1_000_000.0) -> _T:
    """Run to its end in a loop of that kind."""
    with asyncio.Runner(loop_factory=lambda: LeapingLoop(began)) as runner:
        return runner.run(coroutine)
