"""Who is of the fleet, who has been heard of lately, and what each may take of any budget if it is cut off.

A host proves with each request which answer it had last; that one arrived is known, and not hoped. Times are the
store's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from policies.fleet import reading
from policies.fleet.terms import FORGOTTEN_AFTER, GRACE, NEVER, REDUCED, SILENT_AFTER


class Member(NamedTuple):
    met: float
    """When the latest answer was given that this host is known to have had."""
    agreed: float
    """As `met`, of the answers that told of a majority."""
    alone: float
    """The part of each budget that it takes when it is on its own; what it was told last, or more."""


class Standing(NamedTuple):
    """What the roll says about lending."""

    quorate: bool
    """More than half of the hosts are here, so nowhere else are as many."""
    reserved: float
    """The part of each budget that hosts on their own may be taking."""


class Asking(NamedTuple):
    """What a host says of itself when it asks."""

    host: str
    server: str
    """The store that gave the last answer, "" where there was none."""
    met: float
    agreed: float
    alone: float
    known: Mapping[str, Member]
    """The members as it heard of them last."""


@dataclass(frozen=True, slots=True)
class Roll:
    server: str
    """The life of the store: another one after each restart and failover."""
    settled: float
    """Until then hosts tell a store that is new who else there is."""
    members: Mapping[str, Member]

    def standing(self, *, at: float) -> Standing:
        here = sum(_is_lately(member.met, at) for member in self.members.values())
        cut_off = sum(member.alone for member in self.members.values() if not _is_lately(member.agreed, at))
        return standing_of(here, len(self.members), cut_off)

    def without(self, host: str) -> Self:
        """Give the roll after a host has left for good."""
        return type(self)(self.server, self.settled, {k: v for k, v in self.members.items() if k != host})

    def forgetting(self, host: str, *, at: float) -> Self:
        """As `without`, of a host that others say is gone. Raises ValueError where that is not so, or cannot be known yet."""
        member = self.members.get(host)
        if member is None:
            raise ValueError(f"{host} is no host of the fleet; known are {', '.join(sorted(self.members))}")
        if _is_before(at, self.settled):
            raise ValueError(
                f"the store began anew: who is there is known in {self.settled - at:.0f} s; wanted after that"
            )
        if _is_lately(member.met, at):
            raise ValueError(
                f"{host} was there {at - member.met:.0f} s ago; wanted one that is gone: stop its core first"
            )
        return self.without(host)

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `text` wrote. Raises ValueError."""
        return reading.read(text, "roll", cls._of)

    @classmethod
    def _of(cls, values: Any) -> Self:
        members = {host: _member(member) for host, member in values["members"].items()}
        return cls(reading.text(values["server"]), reading.number(values["settled"]), members)

    def text(self) -> str:
        values = {"server": self.server, "settled": self.settled, "members": self.members}
        return json.dumps(values, separators=(",", ":"), sort_keys=True)


def _member(values: Any) -> Member:
    met, agreed, alone, *_ = values
    return Member(reading.number(met), reading.number(agreed), reading.number(alone, least=0.0))


def enrol(roll: Roll | None, asking: Asking, *, server: str, at: float) -> Roll:
    """Give the roll after a host asked, at `at` of the clock of `server`.

    A store that lost its memory learns from those who come who else there was: those count as on their own. Where none is
    missing, `sidecar.fleet.roll_store` has Redis do the same to the one entry.
    """
    if roll is None or roll.server != server:
        roll = Roll(server, at + GRACE, _unheard(roll.members if roll else {}))
    members = dict(roll.members)
    if _is_before(at, roll.settled):
        members = {**_unheard(asking.known), **members}
    members = {host: it for host, it in members.items() if at - max(it.met, roll.settled) < FORGOTTEN_AFTER}
    mine = members.pop(asking.host, Member(NEVER, NEVER, 0.0))
    mine = mine._replace(met=_said(mine.met, at), agreed=_said(mine.agreed, at))
    same = asking.server == server
    share = max(0.0, min(REDUCED / (len(members) + 1), 1 - sum(other.alone for other in members.values())))
    members[asking.host] = Member(
        max(mine.met, asking.met) if same else NEVER,
        max(mine.agreed, asking.agreed) if same else NEVER,
        max(share, asking.alone),  # should the answer be lost, it goes on with what it has
    )
    return Roll(server, roll.settled, members)


def _is_lately(time: float, at: float) -> bool:
    """Whether it is hardly before `at`, and not far ahead of it: the store's clock may have been set back since."""
    return abs(at - time) < SILENT_AFTER


def _is_before(at: float, settled: float) -> bool:
    """Whether a store began anew so lately that not all hosts need have come; a time far ahead was written by a clock that was set back."""
    return at < settled <= at + 2 * GRACE


def _said(time: float, at: float) -> float:
    """Take a time that may have been written by `at`; one far ahead says nothing."""
    return time if time < at + SILENT_AFTER else NEVER


def concerns_one(roll: Roll, asking: Asking, *, server: str, at: float) -> bool:
    """Whether `enrol` would leave who is on the roll as it is, but for the host that asks."""
    if roll.server != server or (
        _is_before(at, roll.settled) and not asking.known.keys() <= roll.members.keys() | {asking.host}
    ):
        return False
    if at - roll.settled < FORGOTTEN_AFTER:
        return True
    return all(at - member.met < FORGOTTEN_AFTER for host, member in roll.members.items() if host != asking.host)


def offered(roll: Roll, host: str) -> float:
    """Tell which part of a budget a host may take on its own, from the answer that says so."""
    others = sum(member.alone for name, member in roll.members.items() if name != host)
    return max(0.0, min(REDUCED / len(roll.members), 1 - others))


def standing_of(here: int, members: int, cut_off: float) -> Standing:
    """`here` of so many members have proved lately that they are; `cut_off`: the parts of those that may be on their own."""
    return Standing(2 * here > members, min(1.0, cut_off))


def _unheard(members: Mapping[str, Member]) -> dict[str, Member]:
    """Take those whom another store, by another clock, had answered."""
    return {host: Member(NEVER, NEVER, member.alone) for host, member in members.items()}
