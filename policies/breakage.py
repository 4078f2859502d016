"""When our own authentication is believed to be broken, and when to be well again: two looks in a row, either way.

Knows which requirement breaks whose mail. A look that was not answered says nothing, and one of a poller that has
stopped says nothing any more.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from parsers.observation import Outcome
from policies.fail_fast import LOOKS, PTR, TLS
from policies.key import EVERYWHERE, Key

_TYPES: Final[Mapping[str, str]] = {
    "requirement.SPF": "spf-domain",
    "dkim-key.": "dkim-domain",
    "requirement.DMARC_POLICY": "spf-domain",
}
"""Begin of a measure -> whose mail it breaks. Of alignment nothing can be seen while nothing leaves."""
MEASURES: Final[Mapping[str, str]] = {
    "SPF": "requirement.SPF",
    "DKIM": "dkim-key.",
    "DMARC_POLICY": "requirement.DMARC_POLICY",
}
"""Requirement -> begin of the measures that tell it."""


HOST_MEASURES: Final[Mapping[str, str]] = {PTR: "requirement.DNS_RECORDS", TLS: "smtp-tls"}
"""Leaf of the replies that want a repair of this host -> what is looked at: its addresses' names, its own Postfix."""
_WELL_AFTER: Final = {PTR: LOOKS, TLS: 5}
"""Looks in a row. Those at Postfix are half a minute apart: its smtp(8) processes of before live for 100 s (max_idle)."""

AT_ONCE: Final = 3
"""So many that nobody holds yet may be broken at once; more only while they are no more than half of all."""


class Look(NamedTuple):
    """The newest word of the authentication feed on one measure."""

    object: str
    measure: str
    outcome: Outcome
    value: float | None
    text: str
    polled_at: float


class Report(NamedTuple):
    """One key that is broken."""

    key: Key
    what: str
    """The requirement."""
    evidence: str
    looks: int
    new: bool
    """Nobody held it so far: it must have been well before, and be in use."""
    measures: tuple[tuple[str, str], ...]
    """(object, measure) of what is broken."""


class _Run(NamedTuple):
    """Looks in a row that said the same."""

    value: float
    looks: int
    polled_at: float
    text: str = ""


class Breakages:
    """The runs of looks, since we began to look."""

    def __init__(self, requirements: Iterable[str]) -> None:
        """Raises ValueError for what is none of MEASURES."""
        wanted = list(requirements)
        for name in wanted:
            if name not in MEASURES:
                raise ValueError(f"found {name!r}, wanted of {', '.join(MEASURES)}")
        self._names = {MEASURES[name]: name for name in wanted}
        self._runs: dict[tuple[str, str], _Run] = {}

    def seen(self, looks: Iterable[Look]) -> None:
        """Take the newest looks; the same ones may come again."""
        runs: dict[tuple[str, str], _Run] = {}
        for look in looks:
            if self._begin(look.measure):
                place = look.object, look.measure
                runs[place] = _follow(self._runs.get(place), look)
        self._runs = runs

    def broken(self, held: Iterable[Key], *, since: float) -> list[Report]:
        """List the keys that are broken by looks since a time; `held`: those that core holds."""
        known = set(held)
        by_key: dict[Key, list[tuple[tuple[str, str], _Run]]] = {}
        for place, run in self._runs.items():
            if run.value == 0.0 and run.polled_at >= since and (run.looks >= LOOKS or _key(place) in known):
                by_key.setdefault(_key(place), []).append((place, run))
        return [self._report(key, found, new=key not in known) for key, found in sorted(by_key.items())]

    def doubtful(self, new: int, *, since: float) -> bool:
        """Whether so many broke at once that it is our view of the DNS that broke."""
        looked_at = {_key(place) for place, run in self._runs.items() if run.polled_at >= since}
        return new > max(AT_ONCE, len(looked_at) // 2)

    def repaired(self, held: Iterable[Key], *, since: float) -> list[Key]:
        """List those of the held keys of which all that is looked at is well."""
        of_key: dict[Key, list[_Run]] = {}
        for place, run in self._runs.items():
            if run.polled_at >= since:
                of_key.setdefault(_key(place), []).append(run)
        return [
            key for key in held if of_key.get(key) and all(run.value > 0 and run.looks >= LOOKS for run in of_key[key])
        ]

    def _report(self, key: Key, found: list[tuple[tuple[str, str], _Run]], *, new: bool) -> Report:
        (object_, measure), run = found[0]
        # What core holds was seen twice before we began anew: one more look that says so is as good.
        looks = max(run.looks for _, run in found) if new else LOOKS
        evidence = f"{object_}, {measure}: {run.text}"
        return Report(key, self._names[self._begin(measure)], evidence, looks, new, tuple(place for place, _ in found))

    def _begin(self, measure: str) -> str:
        return next((begin for begin in self._names if _is(measure, begin)), "")


class Wanted(NamedTuple):
    """What a provider's replies want of this host."""

    leaf: str
    line: str
    """The log line of one."""


class HostRepairs:
    """Our own looks at what providers' replies say of this host, while mail waits for it.

    A provider may see more than we do: what we never found broken we do not find repaired.
    """

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], _Run] = {}
        self._was_broken: set[tuple[str, str]] = set()

    def seen(self, looks: Iterable[Look]) -> None:
        """Take the newest looks at HOST_MEASURES; the same ones may come again."""
        self._runs = {
            (look.object, look.measure): _follow(self._runs.get((look.object, look.measure)), look) for look in looks
        }
        self._was_broken |= {place for place, run in self._runs.items() if _is_broken(run)}

    def judged(self, waiting: Mapping[Key, Wanted], *, since: float) -> tuple[list[Key], list[Key]]:
        """Give those of the waiting keys that are broken still, and that are well again, by looks since a time."""
        still: list[Key] = []
        well: list[Key] = []
        told: set[tuple[str, str]] = set()
        for key, wanted in waiting.items():
            runs = {place: run for place, run in self._about(wanted).items() if run.polled_at >= since}
            if any(map(_is_broken, runs.values())):
                still.append(key)
            elif runs.keys() & self._was_broken and all(_is_well(wanted.leaf, run) for run in runs.values()):
                well.append(key)
                told |= runs.keys()
        self._was_broken -= told
        return still, well

    def _about(self, wanted: Wanted) -> dict[tuple[str, str], _Run]:
        """What is meant: the addresses that the line names, all where it names none of ours."""
        measure = HOST_MEASURES.get(wanted.leaf)
        found = {place: run for place, run in self._runs.items() if place[1] == measure}
        named = {word.strip(".:") for word in _ADDRESS.findall(wanted.line)}
        return {place: run for place, run in found.items() if place[0] in named} or found


_ADDRESS: Final = re.compile(r"[0-9A-Fa-f:.]+")


def _is_broken(run: _Run) -> bool:
    return run.value == 0.0 and run.looks >= LOOKS


def _is_well(leaf: str, run: _Run) -> bool:
    return run.value > 0 and run.looks >= _WELL_AFTER[leaf]


def _is(measure: str, begin: str) -> bool:
    return measure.startswith(begin) if begin.endswith(".") else measure == begin


def _key(place: tuple[str, str]) -> Key:
    object_, measure = place
    return Key(next(type_ for begin, type_ in _TYPES.items() if _is(measure, begin)), object_, EVERYWHERE)


def _follow(run: _Run | None, look: Look) -> _Run:
    if run is not None and look.polled_at <= run.polled_at:
        return run
    if look.outcome is not Outcome.OK or look.value is None:
        # Two looks in a row are two answers in a row; what was believed before is not forgotten for want of one.
        kept = run if run is not None and run.looks >= LOOKS else None
        return kept._replace(polled_at=look.polled_at) if kept else _Run(1.0, 0, look.polled_at)
    looks = run.looks + 1 if run is not None and run.value == look.value else 1
    return _Run(look.value, looks, look.polled_at, look.text)
