"""When a refusal opens a sub-queue: `open_after = {recipients, within, ratio}`, counted per key."""

from collections import deque

from policies.key import Key
from policies.rules import Opening

_MOST = 20_000
"""Keys watched at a time; the one quiet for longest is forgotten first."""
_KEPT = 200
"""Refusals kept a key: more than any rule asks for."""


class _Watch:
    __slots__ = ("attempts", "refusals")

    def __init__(self) -> None:
        self.attempts: deque[float] = deque(maxlen=2_000)
        self.refusals: deque[tuple[float, str]] = deque(maxlen=_KEPT)


class Openings:
    """Refusals and attempts of keys that have no open sub-queue."""

    def __init__(self) -> None:
        self._watched: dict[Key, _Watch] = {}

    def attempted(self, key: Key, *, now: float) -> None:
        """An attempt under a key that has been refused lately: the ratio's other half.

        Keys without refusals are not watched: an attempt before the first refusal is not counted, which
        makes the ratio of a key's first minutes too high rather than too low for `recipients` refusals.
        """
        watch = self._watched.get(key)
        if watch is not None:
            watch.attempts.append(now)

    def refused(self, key: Key, recipient: str, opening: Opening, *, named: bool, now: float) -> bool:
        """Count a refusal; tell whether it opens the sub-queue."""
        watch = self._watch(key)
        watch.refusals.append((now, recipient))
        watch.attempts.append(now)
        since = now - opening.within
        recipients = {who for when, who in watch.refusals if when >= since}
        wanted = opening.recipients_named if named else opening.recipients
        if len(recipients) < wanted:
            return False
        refusals = sum(when >= since for when, _ in watch.refusals)
        attempts = sum(when >= since for when in watch.attempts)
        if wanted > 1 and refusals < opening.ratio * attempts:
            return False
        del self._watched[key]
        return True

    def _watch(self, key: Key) -> _Watch:
        watch = self._watched.pop(key, None)
        if watch is None:
            watch = _Watch()
            if len(self._watched) >= _MOST:
                del self._watched[next(iter(self._watched))]
        self._watched[key] = watch
        return watch
