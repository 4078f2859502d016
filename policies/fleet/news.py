"""What hosts tell each other about the suppression list: one change an entry, numbered by who made it, in one order for all.

Whoever does all entries in that order has the list that all have. What is changed here counts at once, and goes before what
is read until it is read back itself: its place is after that.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from policies.fleet import reading
from policies.suppression import Add, Change, End, Erase, Listed, Reason, read_list

_END: Final = 253_402_300_800.0
EVIDENCE_MOST: Final = 1_000
"""Letters of a log line that others are told."""

Register = tuple[bytes, Listed]
"""What two changes can be at odds about."""


class Entry(NamedTuple):
    origin: str
    """The store of the host that says so: a host with a new store counts from 1 again."""
    number: int
    host: str
    key: str
    """Fingerprint of the key that its digests are made with."""
    change: Change

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> "Entry":
        """Read an entry. Raises ValueError."""
        try:
            number = reading.counted(fields["number"])
            return cls(fields["origin"], number, fields["host"], fields["key"], read_change(fields["change"]))
        except KeyError as error:
            raise ValueError(f"an entry of the fleet's changes has no {error}") from error

    def fields(self) -> dict[str, str]:
        return {
            "origin": self.origin,
            "number": str(self.number),
            "host": self.host,
            "key": self.key,
            "change": change_text(self.change),
        }


class Hearing:
    """How far one host has heard the others, and what it has said that it has not read back."""

    def __init__(self, origin: str, heard: Mapping[str, int], unheard: Iterable[Change]) -> None:
        """`unheard`: our own changes that we have not read back."""
        self.origin = origin
        self.heard = dict(heard)
        """By origin, the number of the last change."""
        self.missed: set[str] = set()
        """Origins of which changes were dropped before we read them."""
        self._unheard: Counter[Register] = Counter()
        for change in unheard:
            self.told(change)
        self._from_before = Counter(self._unheard)

    def is_now(self, origin: str, upto: int) -> None:
        """We go by another name from now on, and say nothing up to that number under it, so nothing from before we began."""
        self._unheard -= self._from_before
        self.heard[origin] = upto
        self.origin = origin

    def told(self, change: Change) -> None:
        """We have made a change, to be told."""
        register = _register(change)
        if register is not None:
            self._unheard[register] += 1

    def untold(self, change: Change) -> None:
        """A change that we have made will never be told: what others say of the same goes from now on."""
        self._read_back(_register(change))

    def take(self, entry: Entry) -> Change | None:
        """Give what is to be done here of an entry, in the order of all; None: nothing."""
        known = self.heard.get(entry.origin, 0)
        if entry.number <= known:
            return None
        if known and entry.number > known + 1 and entry.origin != self.origin:  # of ours we know what was never told
            self.missed.add(entry.origin)
        self.heard[entry.origin] = entry.number
        register = _register(entry.change)
        if entry.origin == self.origin:
            self._read_back(register)
            return None
        return None if register is not None and self._unheard[register] else entry.change

    def _read_back(self, register: Register | None) -> None:
        if register is not None and self._unheard[register] > 1:
            self._unheard[register] -= 1
        elif register is not None:
            del self._unheard[register]

    def ended(self, upto: Mapping[str, int]) -> None:
        """All that is kept has been read; `upto`: how far each has told."""
        self.missed.update(origin for origin, known in self.heard.items() if upto.get(origin, 0) > known)


def _register(change: Change) -> Register | None:
    return None if isinstance(change, Erase) else (change.who, change.listed)


def by_host(change: Add | End, host: str) -> Add | End:
    """Say whose change it was."""
    return change._replace(by_whom=f"host {host} ({change.by_whom})")


def change_text(change: Change) -> str:
    """Write a change as JSON."""
    values: dict[str, Any] = {"kind": _KINDS[type(change)], **change._asdict(), "who": change.who.hex()}
    if isinstance(change, Add):
        values["evidence"] = change.evidence[:EVIDENCE_MOST]
    return json.dumps(values, separators=(",", ":"))


def read_change(text: str) -> Change:
    """Read what `change_text` wrote, by this version or a newer one. Raises ValueError."""
    return reading.read(text, "change of a suppression list", _change)


def _change(values: Mapping[str, Any]) -> Change:
    kind = next((each for each, name in _KINDS.items() if name == values["kind"]), None)
    if kind is None:
        raise ValueError(f"the kind {values['kind']!r:.40}, of another version than ours")
    return kind(**{name: _READS[name](values[name]) for name in kind._fields})


def read_copied(values: Mapping[str, Any]) -> Add:
    """Read a row of a copy of another host's list. Raises ValueError."""
    return reading.made(values, "entry of a copied list", _copied)


def read_place(values: Mapping[str, Any]) -> int:
    """Tell after which row of the other's list a copy goes on. Raises ValueError."""
    return reading.made(values, "entry of a copied list", lambda found: reading.whole(found["id"], least=1))


def _copied(values: Mapping[str, Any]) -> Add:
    listed = _listed((values["list"], values["reason"]))
    rest = {name: _READS[name](values[name]) for name in Add._fields if name not in {"who", "listed"}}
    return Add(who=_who(values["digest"]), listed=listed, **rest)


def _who(value: object) -> bytes:
    who = bytes.fromhex(reading.text(value))
    if len(who) != WHO_BYTES:
        raise ValueError(f"{len(who)} bytes of a digest; wanted {WHO_BYTES}")
    return who


def _listed(value: Sequence[Any]) -> Listed:
    name, reason = value
    return Listed(read_list(reading.text(name)), Reason(reason))


def _seconds(value: object) -> float:
    """Since the epoch, of a year that can be written."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < _END:
        raise ValueError(f"{value!r:.40}; wanted seconds since the epoch, before the year 10000")
    return float(value)


WHO_BYTES: Final = 16
_KINDS: Final[Mapping[type[Change], str]] = {Add: "add", End: "end", Erase: "erase"}
_READS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "who": _who,
    "listed": _listed,
    "forget": reading.flag,
    **dict.fromkeys(("since", "until", "provisional_until", "at"), _seconds),
    **dict.fromkeys(("address", "evidence", "by_whom", "provider", "why"), reading.text),
}
