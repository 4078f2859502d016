"""The books: which messages are on hold by us, or promised to be, and which by somebody else.

A HOLD answer is a promise and not a fact (design, rule 3): a message stays on the books until it is seen
on hold, or ended. What somebody else holds is never released.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from policies.key import Key
from policies.messages import Message, Messages, Place
from policies.subqueues import SubQueues
from policies.telling import Telling

PROMISE_KEPT: Final = 600.0
"""Seconds after which a promised message that never showed up on hold is forgotten."""
OWN_LINE_WITHIN: Final = 60.0
"""Seconds within which our own `hold:` line must follow our answer."""
LISTING_MARGIN: Final = 5.0
"""Seconds that a hold must be older than a listing in which it is missed."""
RECORD_MARGIN: Final = 5.0
"""Seconds within which `placed on hold` follows what the helper writes into its record; a later one is an admin's."""
TRY_AGAIN: Final = 5.0
"""Seconds until a release that did not come about is asked for again."""


class Books:
    def __init__(self, messages: Messages, subqueues: SubQueues, telling: Telling) -> None:
        self._messages = messages
        self._subqueues = subqueues
        self._telling = telling
        self.ours: dict[Message, None] = {}
        """Every message that we hold or have asked to be held."""
        self.free: dict[Message, None] = {}
        """Ours, but under no open sub-queue, or let go by hand: to leave at the bulk rate."""
        self.done: dict[Message, None] = {}
        """Ours with no recipient left: to be released at once, so that Postfix removes the file."""
        self.changed: dict[tuple[str, str], Message | None] = {}
        """Entries to store since the last look, by (instance, queue id); None for those that are gone."""
        self._foreign: dict[Message, float] = {}
        """On hold by somebody else, with the time of the line that says so. 0 where none does, and only our own is
        missing: it may yet be read."""

    def park(self, message: Message, keys: Iterable[Key], place: Place, *, now: float) -> None:
        """Write a message into the books."""
        message.place = place
        message.held_under = tuple(keys)
        message.held_since = now
        message.let_out = 0.0
        message.seen_on_hold = False
        self.ours[message] = None
        self._queue_up(message, now=now)
        self.note(message)

    def restore(self, message: Message) -> None:
        """Take back an entry as stored; call after its sub-queues are restored."""
        self._messages.adopt(message)
        self.ours[message] = None
        self._queue_up(message, now=0.0)

    def unpark(self, message: Message) -> None:
        """Strike a message from the books: it is in Postfix's hands, or gone."""
        for key in message.held_under:
            sub = self._subqueues.get(key)
            if sub is not None:
                sub.left()
                sub.dirty = True
        message.place = Place.QUEUED
        message.held_under = ()
        message.own_line = False
        message.seen_on_hold = False
        message.retry_at = 0.0
        for book in (self.free, self.done, self.ours):
            book.pop(message, None)
        self.changed[message.instance, message.queue_id] = None

    def left_core(self, message: Message) -> None:
        """Proof that the queue manager has it no longer; of a held one the store must know, or it would be lost."""
        if message.in_core:
            message.left_core()
            if message.on_hold:
                self.note(message)

    def note(self, message: Message) -> None:
        """An entry changed."""
        self.changed[message.instance, message.queue_id] = message

    def gone(self, message: Message) -> None:
        """The message has left the queue."""
        if message.on_hold:
            self.unpark(message)
        self._foreign.pop(message, None)
        if message.probing:
            for sub in self._subqueues.all():
                sub.settled(message)
        self._messages.remove(message)

    def also_under(self, message: Message, key: Key) -> None:
        """A held message waits in one more sub-queue."""
        sub = self._subqueues.get(key)
        if sub is not None and key not in message.held_under:
            message.held_under = (*message.held_under, key)
            sub.park(message)
            self.free.pop(message, None)
            self.note(message)

    def no_longer_under(self, message: Message, key: Key) -> None:
        """A sub-queue that it waited in has closed; with none left it is free to go."""
        message.held_under = tuple(other for other in message.held_under if other != key)
        if not message.held_under:
            self.free[message] = None
        self.note(message)

    # What the log and the helper say.

    def promised_line(self, message: Message, key: Key, *, line: str, now: float) -> bool:
        """Our own `hold:` line: the promise is on record, also if we were killed after giving it.

        False where somebody else's hold came first: releasing "ours" would release theirs.
        """
        if self._foreign.get(message):
            return False
        self._foreign.pop(message, None)
        if message.place in {Place.QUEUED, Place.FOREIGN}:
            self.park(message, [key], Place.PROMISED, now=now)
            self._tell("adopted", "our HOLD stands in the log", of=[message], key=str(key), line=line, now=now)
        message.own_line = True
        self.note(message)
        return True

    def held_by_other(self, message: Message, *, by_line: bool = True, now: float) -> None:
        """Somebody else holds it, by a line or for want of ours; what we thought of it is forgotten."""
        if message.on_hold:
            self.unpark(message)
            self._tell("forgotten", f"{message.queue_id} is held by somebody else as well", of=[message], now=now)
        message.place = Place.FOREIGN
        self._foreign[message] = now if by_line else 0.0

    def released_line(self, message: Message, *, now: float) -> None:
        """`released from hold`: by us (the helper's answer settles that), or by an admin, whose word counts."""
        if message.place is Place.RELEASING:
            return
        if message.on_hold:
            self.unpark(message)
            self._tell("forgotten", f"{message.queue_id} was released by an admin", of=[message], now=now)
        self._foreign.pop(message, None)
        message.place = Place.QUEUED
        message.exempt = True

    def held(self, instance: str, held: Iterable[str], missing: Iterable[str], *, now: float) -> None:
        """The helper's answer to `Hold`."""
        taken: dict[Key, list[Message]] = {}
        for message in self._known(instance, held, Place.TAKING):
            message.place = Place.HELD
            message.held_since = now
            message.own_line = message.seen_on_hold = True
            self.note(message)
            if message.finished:
                self.done[message] = None
            for key in message.held_under:
                taken.setdefault(key, []).append(message)
        for message in self._known(instance, missing, Place.TAKING):
            self.unpark(message)
        for key, messages in taken.items():
            self._tell_of("held", "taken from the queue", key, messages, now=now)

    def not_taken(self, instance: str, ids: Iterable[str]) -> None:
        """A `Hold` was not carried out."""
        for message in self._known(instance, ids, Place.TAKING):
            self.unpark(message)

    def released(
        self, instance: str, released: Iterable[str], missing: Iterable[str], busy: Iterable[str], *, now: float
    ) -> None:
        """The helper's answer to `Release`."""
        let_out: dict[Key | None, list[Message]] = {}
        for message in self._known(instance, released, Place.RELEASING):
            for key in message.held_under or (None,):
                let_out.setdefault(key, []).append(message)
            self.unpark(message)
            message.let_out = now
            message.paid = True
        for message in self._known(instance, busy, Place.RELEASING):
            self._back(message, retry_at=now + TRY_AGAIN, now=now)
        for message in self._known(instance, missing, Place.RELEASING):
            self._missing(message, now=now)
        for under, messages in let_out.items():
            self._tell_of("released", "let out", under, messages, now=now)

    def requeued(
        self, instance: str, done: Iterable[str], missing: Iterable[str], busy: Iterable[str], *, why: str, now: float
    ) -> None:
        """The helper's answer to `Requeue`: what is done has another queue id from now on."""
        gone: dict[Key | None, list[Message]] = {}
        for message in self._known(instance, done, Place.RELEASING):
            gone.setdefault(next(iter(message.held_under), None), []).append(message)
        for under, messages in gone.items():
            self._tell_of("requeued", why, under, messages, now=now)
            for message in messages:
                self.gone(message)
        self.released(instance, (), missing, busy, now=now)

    def not_released(self, instance: str, ids: Iterable[str], why: str, *, now: float) -> None:
        """A `Release` or a `Requeue` was not carried out, as far as is known."""
        for message in self._known(instance, ids, Place.RELEASING):
            self._back(message, retry_at=now + TRY_AGAIN, now=now)
        self._tell("release-failed", why, now=now)

    def _known(self, instance: str, ids: Iterable[str], place: Place) -> list[Message]:
        found = (self._messages.get(instance, queue_id) for queue_id in ids)
        return [message for message in found if message is not None and message.place is place]

    def _back(self, message: Message, *, retry_at: float, now: float) -> None:
        message.place = Place.HELD if message.own_line else Place.PROMISED
        message.retry_at = retry_at
        if not message.probing:
            return
        for sub in self._subqueues.all():
            if sub.probe is message:
                sub.settled(message)
                sub.machine.void(now=now)
                self._subqueues.schedule(sub, now=now)

    def _missing(self, message: Message, *, now: float) -> None:
        """Not on hold: a promise not yet kept is asked for again; else it left by another hand."""
        if not message.seen_on_hold and now - message.held_since < PROMISE_KEPT:
            self._back(message, retry_at=now + 2 * TRY_AGAIN, now=now)
            return
        self._back(message, retry_at=now, now=now)
        self.unpark(message)
        self._tell("forgotten", f"{message.queue_id} is not on hold any more", of=[message], now=now)

    # What the hold queue shows.

    def compare(
        self,
        instance: str,
        there: Collection[str],
        ours: Mapping[str, str],
        *,
        since: Mapping[str, float],
        listed_at: float,
        now: float,
    ) -> bool:
        """Compare what is on hold with the books; tell whether mail of ours is there that we know nothing of.

        `ours`: queue id -> key, by the helper's record; `since`: queue id -> when that was written.
        """
        strangers = False
        for queue_id in there:
            message = self._messages.get(instance, queue_id)
            if message is None:
                strangers = strangers or queue_id in ours
            else:
                self._found(message, ours.get(queue_id), since=since.get(queue_id, 0.0), now=now)
        for message in [message for message in self.ours if message.instance == instance]:
            if message.held_since < listed_at - LISTING_MARGIN and message.queue_id not in there:
                self._not_found(message, now=now)
        for message in [message for message in self._foreign if message.instance == instance]:
            if message.last_line < listed_at - LISTING_MARGIN and message.queue_id not in there:
                self._foreign.pop(message)
                message.place = Place.QUEUED
        return strangers

    def _found(self, message: Message, ours: str | None, *, since: float, now: float) -> None:
        if message.on_hold:
            message.seen_on_hold = True
            if message.place in {Place.PROMISED, Place.TAKING} and (message.own_line or ours is not None):
                message.place = Place.HELD
                message.own_line = True
                self.note(message)
            elif message.place is Place.PROMISED and now - message.held_since > OWN_LINE_WITHIN:
                self.held_by_other(message, by_line=False, now=now)  # our line never came: the hold is another's
        elif ours is not None and (
            message.place is Place.QUEUED or self._foreign.get(message, 0.0) <= since + RECORD_MARGIN
        ):
            self._adopt(message, ours, now=now)
        elif message.place is Place.QUEUED:
            self.held_by_other(message, by_line=False, now=now)

    def _adopt(self, message: Message, ours: str, *, now: float) -> None:
        """On hold by the record, though the books do not say so: core was down, or its store is gone.

        A line `placed on hold` is then the helper's own. Of a message that no line has spoken of nobody knows whether
        the queue manager had it in memory when it was taken.
        """
        self._foreign.pop(message, None)
        if not message.activation:
            message.pending = max(1, message.pending)
        self.park(message, [Key.read(ours)], Place.HELD, now=now)
        message.own_line = message.seen_on_hold = True
        self._tell("adopted", "on hold by our record", of=[message], key=ours, now=now)

    def _not_found(self, message: Message, *, now: float) -> None:
        if message.place is Place.RELEASING:
            return
        if message.place is Place.PROMISED and now - message.held_since < PROMISE_KEPT:
            return
        self.unpark(message)
        self._tell("forgotten", f"{message.queue_id} is not on hold any more", of=[message], now=now)

    def _queue_up(self, message: Message, *, now: float) -> None:
        """Let it wait in those of its sub-queues that are open; one that opens later finds it by itself."""
        subs = [sub for key in message.held_under if (sub := self._subqueues.get(key)) is not None]
        message.held_under = tuple(sub.key for sub in subs)
        for sub in subs:
            sub.park(message)
            sub.dirty = True
            if sub.held == 1:  # the first: before it nothing was to be let out
                self._subqueues.schedule(sub, now=now)
        if not subs:
            self.free[message] = None

    def _tell_of(self, kind: str, why: str, key: Key | None, messages: Sequence[Message], *, now: float) -> None:
        """What was done to messages of a sub-queue, with its state and the rule that opened it."""
        sub = self._subqueues.get(key) if key is not None else None
        told = {"state": str(sub.machine.state), "rule": sub.rule} if sub else {}
        self._telling.tell(
            kind, why, now=now, key=str(key or ""), messages=len(messages), ids=_places(messages), **told
        )

    def _tell(
        self, kind: str, why: str, *, now: float, key: str = "", line: str = "", of: Sequence[Message] = ()
    ) -> None:
        self._telling.tell(kind, why, now=now, key=key, line=line, messages=len(of), ids=_places(of))


def _places(messages: Iterable[Message]) -> list[tuple[str, str]]:
    return [(message.instance, message.queue_id) for message in messages]
