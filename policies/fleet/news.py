"""What hosts tell each other about the suppression list: one change an entry, numbered by who made it, in one order for all.

Whoever does all entries in that order has the list that all have. What is changed here counts at once, and goes before what
is read until it is read back itself: its place is after that.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from policies.suppression import Add, Change, End, Erase, Listed, Reason, read_list

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
            return cls(
                fields["origin"], int(fields["number"]), fields["host"], fields["key"], read_change(fields["change"])
            )
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
    try:
        values = json.loads(text)
        kind = next(each for each, name in _KINDS.items() if name == values["kind"])
        known = {name: values[name] for name in kind._fields}
        known["who"] = bytes.fromhex(known["who"])
        if len(known["who"]) != WHO_BYTES:
            raise ValueError(f"{len(known['who'])} bytes of a digest; wanted {WHO_BYTES}")
        if kind is not Erase:
            name, reason = known["listed"]
            known["listed"] = Listed(read_list(name), Reason(reason))
        for name, value in known.items():
            if name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"{name} {value!r}; wanted seconds")
            if name in _TEXTS and not isinstance(value, str):
                raise ValueError(f"{name} {value!r}; wanted a text")
        return kind(**known)
    except StopIteration:
        raise ValueError(f"a change of the kind {values['kind']!r}, of another version than ours") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{text[:40]!r} is no change of a suppression list: {error!r}") from error


WHO_BYTES: Final = 16
_KINDS: Final[Mapping[type[Change], str]] = {Add: "add", End: "end", Erase: "erase"}
_NUMBERS: Final = frozenset({"since", "until", "provisional_until", "at"})
_TEXTS: Final = frozenset({"address", "evidence", "by_whom", "provider", "why"})
