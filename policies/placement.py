"""Where test mail landed: one value a seed, and what a test as a whole says of a provider.

Knows that a mailbox that could not be looked into, or mail that never left, says nothing about placement.
"""

import statistics
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from parsers.observation import Observation, Outcome

FEED: Final = "seedtest"


class Place(StrEnum):
    WAITING = "waiting"
    """Sent, and not found yet."""
    INBOX = "inbox"
    SPAM = "spam"
    ELSEWHERE = "elsewhere"
    """In another folder: archived, or sorted by a rule of the mailbox."""
    MISSING = "missing"
    """Nowhere in the mailbox at the deadline."""
    UNSENT = "unsent"
    """It did not leave us: not taken by our Postfix, or still in its queue."""
    UNSEEN = "unseen"
    """Nobody could look."""


DECIDED: Final = frozenset({Place.INBOX, Place.SPAM, Place.ELSEWHERE, Place.MISSING})
FOUND: Final = DECIDED - {Place.MISSING}


class SeedMail(NamedTuple):
    """One test mail to one seed."""

    tag: str
    """In X-Sidecar-Seed and Message-ID; nobody can guess it."""
    address: str
    provider: str
    transport: str
    """"" where Postfix chose."""
    sent_at: float
    place: Place = Place.WAITING
    folder: str = ""
    arrived_at: float = 0.0
    """As the mailbox says, in its clock."""
    looked_at: float = 0.0
    removed: bool = False
    """We took it out of the mailbox again; or marked it as deleted, where the server can do no more."""
    why: str = ""
    """Of UNSENT and UNSEEN."""

    @property
    def latency(self) -> float:
        """Seconds from sending to arrival; 0 where the two clocks disagree about the order."""
        return max(self.arrived_at - self.sent_at, 0.0)


class Placement(NamedTuple):
    """Of several mails to one provider."""

    provider: str
    transport: str
    sent: int
    decided: int
    inbox: int
    spam: int
    elsewhere: int
    missing: int
    latency: float | None
    """Median seconds of those found; None where none was."""
    why: str = ""
    """The first reason of those that say nothing."""

    def __str__(self) -> str:
        way = f" over {self.transport}" if self.transport else ""
        return f"{self.provider}{way}: {self.inbox} inbox, {self.spam} spam, {self.elsewhere} elsewhere, {self.missing} missing of {self.sent}"

    @property
    def share(self) -> float | None:
        """Of what says something, what reached the inbox."""
        return self.inbox / self.decided if self.decided else None


def placements(mails: Iterable[SeedMail]) -> list[Placement]:
    """Count by provider and transport, in the order of their names."""
    groups: dict[tuple[str, str], list[SeedMail]] = {}
    for mail in mails:
        groups.setdefault((mail.provider, mail.transport), []).append(mail)
    return [_placement(*key, groups[key]) for key in sorted(groups)]


def _placement(provider: str, transport: str, mails: Sequence[SeedMail]) -> Placement:
    places = [mail.place for mail in mails]
    found = [mail.latency for mail in mails if mail.place in FOUND]
    return Placement(
        provider,
        transport,
        sent=len(mails),
        decided=sum(place in DECIDED for place in places),
        inbox=places.count(Place.INBOX),
        spam=places.count(Place.SPAM),
        elsewhere=places.count(Place.ELSEWHERE),
        missing=places.count(Place.MISSING),
        latency=statistics.median(found) if found else None,
        why=next((mail.why for mail in mails if mail.place not in DECIDED and mail.why), ""),
    )


def observations(mails: Sequence[SeedMail]) -> list[Observation]:
    """Tell what a test, ended, says of each provider and of each mailbox."""
    told = [each for placement in placements(mails) for each in _of_provider(placement)]
    return told + [_of_mailbox(mail) for mail in mails if mail.place is not Place.UNSENT]


def _of_provider(placement: Placement) -> Iterable[Observation]:
    part = f".{placement.transport}" if placement.transport else ""
    said = (
        f"{placement.inbox} inbox, {placement.spam} spam, {placement.elsewhere} elsewhere, {placement.missing} missing"
    )
    for name, number in (("inbox", placement.inbox), ("spam", placement.spam), ("missing", placement.missing)):
        about = (FEED, placement.provider, f"placement.{name}{part}")
        if placement.decided:
            yield Observation(*about, Outcome.OK, number / placement.decided, said)
        else:
            yield Observation(*about, Outcome.UNKNOWN, text=placement.why or "no test mail says anything")
    about = (FEED, placement.provider, f"placement.latency{part}")
    if placement.latency is None:
        yield Observation(*about, Outcome.NO_DATA, text="no test mail was found")
    else:
        yield Observation(*about, Outcome.OK, placement.latency)


def _of_mailbox(mail: SeedMail) -> Observation:
    seen = mail.place is not Place.UNSEEN
    return Observation(FEED, mail.address, "seed-mailbox", Outcome.OK, float(seen), mail.why if not seen else "")
