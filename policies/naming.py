"""Which values of a dimension have rows of their own on a day; the rest of the day's mail is summed up as OTHER.

Knows how to keep the number of names bounded while the mail goes by: a value with a fair share of it gets a name,
whenever it comes, and totals stay exact.
"""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

OTHER: Final = "(other)"

V = TypeVar("V", bound=Hashable)


class Naming(Generic[V]):
    """Of one dimension on one day.

    The first `places` values have a name at once. A later one gets it when it has brought more than a `places`-th of
    all that came; at most `2 * places` have one. What came of it before stays in OTHER.
    """

    __slots__ = ("_named", "_places", "_total", "_waiting")

    def __init__(self, places: int) -> None:
        self._places = places
        self._named: set[V] = set()
        self._waiting: dict[V, int] = {}
        self._total = 0

    def restore(self, value: V, number: int) -> None:
        """Take a value that has a name already, with what it has brought."""
        self._named.add(value)
        self._total += number

    def has(self, value: V, number: int = 1) -> bool:
        """Count a value once more, or so many times; whether it has a name."""
        self._total += number
        if value in self._named:
            return True
        if len(self._named) < self._places or self._earned(value, number):
            self._named.add(value)
            self._waiting.pop(value, None)
            return True
        return False

    def _earned(self, value: V, more: int) -> bool:
        count = self._waiting[value] = self._waiting.get(value, 0) + more
        if len(self._waiting) > 4 * self._places:
            # Lossy counting: a value that would have earned its name by now has more than this.
            least = self._total // (8 * self._places) + 1
            self._waiting = {each: number for each, number in self._waiting.items() if number > least}
            if len(self._waiting) > 4 * self._places:
                self._waiting = {}
        return count * self._places > self._total and len(self._named) < 2 * self._places
