"""When a refusal opens a sub-queue: `open_after = {recipients, within, ratio}`, counted per key."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from policies.key import EVERYWHERE, Key
from policies.rules import Opening

_MOST = 20_000
"""Keys watched at a time; the one quiet for longest is forgotten first."""
_KEPT = 200
"""Refusals kept a key: more than any rule asks for."""


class _Watch:
    __slots__ = ("attempts", "foreseen", "refusals")

    def __init__(self) -> None:
        self.attempts: deque[float] = deque(maxlen=2_000)
        self.refusals: deque[tuple[float, str]] = deque(maxlen=_KEPT)
        self.foreseen: dict[str, float] = {}
        """Recipients refused by one MX host while the next is being asked, and when."""


class Openings:
    """Refusals and attempts of keys that have no open sub-queue."""

    def __init__(self) -> None:
        self._watched: dict[Key, _Watch] = {}

    def attempted(self, key: Key, recipient: str, *, now: float) -> None:
        """An attempt under a key that has been refused lately: the ratio's other half.

        Keys without refusals are not watched: an attempt before the first refusal is not counted, which
        makes the ratio of a key's first minutes too high rather than too low for `recipients` refusals.
        """
        watch = self._watched.get(key)
        if watch is not None:
            watch.attempts.append(now)
            watch.foreseen.pop(recipient, None)

    def refused(self, key: Key, recipient: str, opening: Opening, *, named: bool, now: float) -> bool:
        """Count a refusal; tell whether it opens the sub-queue."""
        watch = self._watch(key)
        watch.refusals.append((now, recipient))
        watch.attempts.append(now)
        watch.foreseen.pop(recipient, None)
        return self._opens(key, watch, opening, named=named, now=now)

    def foreseen(self, key: Key, recipients: Iterable[str], opening: Opening, *, named: bool, now: float) -> bool:
        """Count refusals whose outcomes are still to come, and once with them; tell whether they open it already."""
        watch = self._watch(key)
        for recipient in recipients:
            if len(watch.foreseen) < _KEPT:
                watch.foreseen[recipient] = now
        return self._opens(key, watch, opening, named=named, now=now)

    def _opens(self, key: Key, watch: _Watch, opening: Opening, *, named: bool, now: float) -> bool:
        since = now - opening.within
        watch.foreseen = {who: when for who, when in watch.foreseen.items() if when >= since}
        recipients = {who for when, who in watch.refusals if when >= since} | watch.foreseen.keys()
        wanted = opening.recipients_named if named else opening.recipients
        if len(recipients) < wanted:
            return False
        refusals = sum(when >= since for when, _ in watch.refusals) + len(watch.foreseen)
        attempts = sum(when >= since for when in watch.attempts) + len(watch.foreseen)
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


class Accepted(NamedTuple):
    """What a provider accepted of a key shortly before it refused."""

    messages: int = 0
    seconds: float = 0.0
    """Between the first of them and now."""


class Acceptances:
    """Deliveries of the last minutes, by provider and envelope domain, counted in small bins."""

    def __init__(self, *, within: float) -> None:
        self._within = within
        self._bin = within / _BINS
        self._counts: dict[tuple[str, str], deque[list[float]]] = {}

    def accepted(self, provider: str, domain: str, *, now: float) -> None:
        """One message of this envelope domain was accepted."""
        bins = self._counts.get((provider, domain))
        if bins is None:
            if len(self._counts) >= _MOST:
                del self._counts[next(iter(self._counts))]
            bins = self._counts[provider, domain] = deque(maxlen=_BINS)
        if bins and now < bins[-1][0] + self._bin:
            bins[-1][1] += 1
        else:
            bins.append([now, 1])

    def lately(self, provider: str, domains: Iterable[str] | None, *, now: float) -> Accepted:
        """Sum up what was accepted of these domains, of all where None; at all providers where it is EVERYWHERE."""
        if domains is None:
            chosen = [bins for (at, _), bins in self._counts.items() if at == provider]
        elif provider == EVERYWHERE:
            of = set(domains)
            chosen = [bins for (_, domain), bins in self._counts.items() if domain in of]
        else:
            chosen = [self._counts.get((provider, domain), deque()) for domain in domains]
        recent = [each for bins in chosen for each in bins if each[0] >= now - self._within]
        if not recent:
            return Accepted()
        return Accepted(int(sum(count for _, count in recent)), now - min(start for start, _ in recent))


_BINS = 30
