# ruff: noqa: S608  # statements are put together from names in this project alone; values are always parameters
"""The whole life of a message, from the events that core's store still has: found by queue id, Message-ID or address.

Knows how a message goes on under another queue id, and that short queue ids are used again.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from policies.commands import CHANGE_COLUMNS, Attempt, Change
from policies.stored_address import AddressForm, hash_of
from sidecar.database import Database

LIMIT: Final = 50
_QUEUE_ID: Final = re.compile(r"[0-9A-Za-z]{5,64}", re.ASCII)
_SLACK: Final = 2.0
"""Seconds by which lines of a log are out of order."""
_HOPS: Final = 10
CHANGES: Final = 100
_LATE: Final = 6 * 86_400.0
"""Seconds after its last event in which something may still have been done about a message that has not left."""


class Life(NamedTuple):
    """One message under one queue id. What is not known is "" or 0."""

    host: str
    instance: str
    queue_id: str
    received: float
    """Seconds since the epoch, UTC; 0 where its begin was not seen, or is not kept any more."""
    removed: float
    """0: it is still in the queue, as far as is known."""
    message_id: str
    sender: str
    size: int
    nrcpt: int
    client: str
    tenant: str
    attempts: tuple[Attempt, ...] = ()
    """By time. Of an attempt before it `passed_on` names the queue id under which it goes on."""
    changes: tuple[Change, ...] = ()
    """What the sidecar did to the message, or for a log line that names it."""
    held_under: tuple[str, ...] = ()
    """Keys of the sub-queues that it waits in now."""

    @property
    def latest(self) -> float:
        return max((self.received, self.removed, *(attempt.time for attempt in self.attempts)))


class Name(Enum):
    """What a message can be found by."""

    QUEUE_ID = "queue_id"
    MESSAGE_ID = "message_id"
    SENDER = "sender"
    RECIPIENT = "recipient"
    PASSED_ON = "passed_on"
    """The queue id under which it goes on."""


Place = tuple[str, str, str]
"""Host, instance, queue id."""


class Events(Protocol):
    """Where the events of messages are. All of it raises StoreError, or ServerError."""

    def places(self, name: Name, value: str, limit: int) -> list[Place]:
        """The newest first, where that is known."""

    def attempts(self, place: Place) -> list[Attempt]:
        """In the order in which they were read."""

    def messages(self, place: Place) -> list[tuple[Any, ...]]:
        """Of each message that had the queue id, by time: what stands in Life from `received` to `tenant`."""

    def held_under(self, instance: str, queue_id: str) -> tuple[str, ...]:
        """Keys of the sub-queues in which it waits now."""

    def changes(self, place: Place, since: float, until: float) -> list[Change]:
        """What was done to it, or for a log line that names it; the first CHANGES of them."""


class StoredEvents:
    """Those of core's store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def places(self, name: Name, value: str, limit: int) -> list[Place]:
        return [(row[0], row[1], row[2]) for row in self._database.rows(_BY[name], (value, limit))]

    def attempts(self, place: Place) -> list[Attempt]:
        return [Attempt(*row) for row in self._database.rows(_ATTEMPTS, place)]

    def messages(self, place: Place) -> list[tuple[Any, ...]]:
        return self._database.rows(_MESSAGES, place)

    def held_under(self, instance: str, queue_id: str) -> tuple[str, ...]:
        held = self._database.rows(_HELD, (instance, queue_id))
        return tuple(json.loads(held[0][0])) if held else ()

    def changes(self, place: Place, since: float, until: float) -> list[Change]:
        _host, instance, queue_id = place
        parameters = (since, until, f"%{queue_id}%", CHANGES, queue_id, instance)
        return [Change(*row) for row in self._database.rows(_CHANGES_NAMING, parameters)]


def search(database: Database, query: str, *, addresses: AddressForm, limit: int = LIMIT) -> list[Life]:
    """As `tell`, of core's store. Raises StoreError."""
    return tell(StoredEvents(database), query, addresses=addresses, limit=limit)


def tell(events: Events, query: str, *, addresses: AddressForm, limit: int = LIMIT) -> list[Life]:
    """Find messages, the newest first, each followed by what it goes on as.

    `query`: a queue id, a Message-ID with or without <>, or an address of a sender or recipient, which is found as
    `addresses` has it stored. At most `limit` messages. Raises what `events` raises.
    """
    query = query.strip()
    found: dict[Place, None] = {}
    for name, value in _questions(query, addresses):
        found.update(dict.fromkeys(events.places(name, value, limit)))
    lives = [life for place in list(found)[:limit] for life in _lives(events, place)]
    if "@" in query and not _QUEUE_ID.fullmatch(query):
        lives = [life for life in lives if _has(life, query, addresses)]
    lives.sort(key=lambda life: life.latest, reverse=True)
    return list(_with_hops(events, lives[:limit]))


def _questions(query: str, addresses: AddressForm) -> Iterator[tuple[Name, str]]:
    if _QUEUE_ID.fullmatch(query):
        yield Name.QUEUE_ID, query
    elif "@" in query or query.startswith("<"):
        bare = query.strip("<>")
        yield Name.MESSAGE_ID, f"<{bare}>"
        yield Name.MESSAGE_ID, bare
        if addresses is not AddressForm.NONE:
            for form in _stored(bare, addresses):
                yield Name.RECIPIENT, form
                yield Name.SENDER, form


def _stored(address: str, form: AddressForm) -> Sequence[str]:
    """How it may stand in the store: domains are the same in any case, and most local parts are written small."""
    if form is AddressForm.HASH:
        return (hash_of(address),)
    local, _, domain = address.rpartition("@")
    return tuple(dict.fromkeys((address, f"{local}@{domain.lower()}", address.lower())))


def _has(life: Life, query: str, addresses: AddressForm) -> bool:
    """Whether this use of the queue id is the message that was asked for."""
    bare = query.strip("<>")
    forms = {*_stored(bare, addresses)} if addresses is not AddressForm.NONE else set()
    named = {life.sender, *(attempt.recipient for attempt in life.attempts)}
    return bool(forms & named) or life.message_id in {bare, f"<{bare}>"}


def _with_hops(events: Events, lives: Iterable[Life]) -> Iterator[Life]:
    """Each with the hops before and after it, in their order, none twice."""
    given: set[tuple[str, str, str, float]] = set()
    for life in lives:
        for each in (*_before(events, life), life, *_after(events, life)):
            mark = (*each[:3], each.latest)
            if mark not in given:
                given.add(mark)
                yield each


def _before(events: Events, life: Life) -> list[Life]:
    found: list[Life] = []
    at = life
    for _ in range(_HOPS):
        places = events.places(Name.PASSED_ON, at.queue_id, LIMIT)
        named = [each for place in places if place[0] == at.host for each in _lives(events, place)]
        earlier = [each for each in named if any(a.passed_on == at.queue_id for a in each.attempts)]
        near = [each for each in earlier if each.received <= at.latest + _SLACK]
        if not near or near[-1][:3] in {each[:3] for each in found}:
            break
        at = near[-1]
        found.insert(0, at)
    return found


def _after(events: Events, life: Life) -> list[Life]:
    found: list[Life] = []
    waiting = [life]
    while waiting and len(found) < _HOPS:
        at = waiting.pop(0)
        for attempt in at.attempts:
            places = events.places(Name.QUEUE_ID, attempt.passed_on, LIMIT) if attempt.passed_on else ()
            for place in places:
                if place[0] != at.host:
                    continue
                lives = [each for each in _lives(events, place) if each.latest >= at.received]
                fresh = [each for each in lives if each[:3] not in {old[:3] for old in (life, *found)}]
                found += fresh
                waiting += fresh
    return found


def _lives(events: Events, place: Place) -> list[Life]:
    """Each use of a queue id, by time."""
    host, instance, queue_id = place
    attempts = events.attempts(place)
    entries = [Life(host, instance, queue_id, *row) for row in events.messages(place)]
    if not entries or (attempts and attempts[0].time < entries[0].received - _SLACK):
        entries.insert(0, Life(host, instance, queue_id, 0.0, 0.0, "", "", 0, 0, "", ""))
    held = events.held_under(instance, queue_id)
    lives = []
    for number, life in enumerate(entries):
        until = entries[number + 1].received - _SLACK if number + 1 < len(entries) else float("inf")
        own = tuple(each for each in attempts if life.received - _SLACK <= each.time < until)
        with_own = life._replace(attempts=own)
        last = number + 1 == len(entries)
        lives.append(
            with_own._replace(
                changes=_changes(events, with_own, until),
                held_under=held if last else (),
            )
        )
    return lives


def _changes(events: Events, life: Life, until: float) -> tuple[Change, ...]:
    since = life.received or (life.attempts[0].time if life.attempts else 0.0)
    if not since:
        return ()
    end = min(until, life.removed or life.latest + _LATE)
    return tuple(events.changes(life[:3], since - _SLACK, end + _SLACK))


_PLACE = "host, instance, queue_id"
_BY_QUEUE_ID = f"""
    SELECT {_PLACE} FROM message WHERE queue_id = ?1 UNION SELECT {_PLACE} FROM attempt WHERE queue_id = ?1 LIMIT ?2
"""
_BY_MESSAGE_ID = f"SELECT {_PLACE} FROM message WHERE message_id = ? AND message_id != '' ORDER BY id DESC LIMIT ?"
_BY_SENDER = f"SELECT {_PLACE} FROM message WHERE sender = ? AND sender != '' ORDER BY id DESC LIMIT ?"
_BY_RECIPIENT = f"""
    SELECT {_PLACE} FROM attempt WHERE recipient = ? AND recipient != ''
    GROUP BY {_PLACE} ORDER BY max(id) DESC LIMIT ?
"""
_PASSED_ON = f"SELECT DISTINCT {_PLACE} FROM attempt WHERE passed_on = ? AND passed_on NOT IN ('', '-') LIMIT ?"
_BY: Final = {
    Name.QUEUE_ID: _BY_QUEUE_ID,
    Name.MESSAGE_ID: _BY_MESSAGE_ID,
    Name.SENDER: _BY_SENDER,
    Name.RECIPIENT: _BY_RECIPIENT,
    Name.PASSED_ON: _PASSED_ON,
}
_ATTEMPTS = (
    f"SELECT {', '.join(Attempt._fields)} FROM attempt WHERE host = ? AND instance = ? AND queue_id = ? ORDER BY id"
)
_MESSAGES = """
    SELECT time, removed, message_id, sender, size, nrcpt, client, tenant FROM message
    WHERE host = ? AND instance = ? AND queue_id = ? ORDER BY time, id
"""
_HELD = "SELECT keys FROM hold WHERE instance = ? AND queue_id = ?"
_CHANGES_NAMING = f"""
    SELECT {", ".join(CHANGE_COLUMNS)} FROM change WHERE time BETWEEN ?1 AND ?2 AND (
        line LIKE ?3 OR why LIKE ?3
        OR id IN (SELECT change FROM change_message WHERE queue_id = ?5 AND instance = ?6)
    ) ORDER BY id LIMIT ?4
"""
