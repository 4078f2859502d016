"""Which lines of a log belong to which message: facts in, finished messages out, exactly once and in bounded memory.

It knows what a syslog daemon does to the order of lines, that queue ids come again, and how a message goes on under
another queue id. Whom a reply concerns or what should be done about it is not its business.

    lifecycle = Lifecycle()
    for fact in facts:
        for due, message in lifecycle.see(fact):  # in the order of their stamps; what is known of the message by then
            ...
        for record in lifecycle.finished():
            ...
    for due, message in lifecycle.rest():  # the log is over
        ...
    for record in lifecycle.finished():
        ...
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from parsers.postfix.facts import (
    ClientDisconnected,
    ClientIdentified,
    ConnectionLost,
    DeliveryAttempt,
    DkimSigned,
    Fact,
    HeaderLogged,
    Held,
    MessageExpired,
    MessageIdentified,
    NonDeliveryNotification,
    PickedUp,
    QueueActive,
    QueueRemoved,
    Rejected,
    Released,
    Requeued,
)
from parsers.record import LogRecord
from policies.log_order import BACK, LogOrder
from policies.message_record import End, MessageRecord
from policies.open_message import OpenMessage, Recipient, is_local, line_hash, record_of

WINDOW: Final = 2.0
"""Seconds by which a syslog daemon may shuffle lines."""
PATIENCE: Final = 6 * 86400.0
"""Seconds without a line after which nothing more is expected; Postfix keeps mail for five days."""
MOST: Final = 500_000
"""Messages open at once, at about 1.4 kB each; above that the longest silent ones are closed."""
_REQUEUE: Final = 120.0
"""pickup(8) wakes up every minute."""
_ENDINGS: Final = 20_000
"""Messages that wait for late lines, and closed ones whose lines would be known if they came again."""
_SWEEP: Final = 100_000
"""Facts between two looks at everything that is open."""
_NAMED: Final = 4
"""Messages whose answers named the same next queue id, strangers' among them."""
_HOP: Final = 60.0
"""Seconds between a hop's answer and the first line of the next queue id, on machines whose clocks differ."""
_PROCESSES: Final = 20_000
_UNQUEUED: Final = frozenset({End.ABORTED, End.REJECTED, End.DISCARDED, End.CANCELED})
"""Ends that were concluded: a message that is queued all the same has not ended."""
_CONCLUDED: Final = _UNQUEUED | {End.UNFINISHED}


class _Place:
    """One Postfix instance on one host: its queue ids, its clock."""

    __slots__ = ("begun", "closed", "closing", "host", "instance", "now", "open")

    def __init__(self, host: str, instance: str) -> None:
        self.host = host
        self.instance = instance
        self.now = 0.0
        """Time of its latest line."""
        self.open: dict[str, OpenMessage] = {}
        self.closing: deque[tuple[float, OpenMessage]] = deque()
        """Messages whose last line was seen, and until when lines may still come."""
        self.closed: OrderedDict[str, float] = OrderedDict()
        """When the latest messages that are through had ended."""
        self.begun: dict[tuple[str, int], OpenMessage] = {}
        """The message that an smtpd process is receiving, by service and pid."""


class Lifecycle:
    """The messages of one log, of any number of hosts and instances."""

    def __init__(self, *, window: float = WINDOW, patience: float = PATIENCE, most: int = MOST) -> None:
        """`window`: seconds by which lines may be out of order. `patience`: seconds without a line after which a
        message is given up. `most`: messages kept open at once. What is given up ends as `End.UNFINISHED`.
        """
        self._window = window
        self._patience = patience
        self._most = most
        self._places: dict[tuple[str, str], _Place] = {}
        self._order = LogOrder(window)
        self._awaited: OrderedDict[str, tuple[tuple[float, OpenMessage, bool], ...]] = OrderedDict()
        """Next queue ids that were named before their own first line: until when, by whom, and whether for certain."""
        self._notified: OrderedDict[str, OpenMessage] = OrderedDict()
        """Notifications that were named before their own first line."""
        self._finished: list[MessageRecord] = []
        self._since = 0
        self._swept_every = min(_SWEEP, most // 8 + 1)
        self.late = 0
        """Lines of messages that were already through: copies, or later than the window allows."""
        self._handlers: Final[Mapping[type, Callable[[_Place, Any], OpenMessage | None]]] = {
            ClientIdentified: self._client,
            PickedUp: self._picked_up,
            MessageIdentified: self._identified,
            QueueActive: self._active,
            DeliveryAttempt: self._attempted,
            QueueRemoved: self._removed,
            MessageExpired: self._expired,
            Requeued: self._requeued,
            NonDeliveryNotification: self._notification,
            HeaderLogged: self._header,
            Rejected: self._refused,
            ConnectionLost: self._connection_lost,
            ClientDisconnected: self._disconnected,
            DkimSigned: self._signed_by,
            Held: self._mentioned,
            Released: self._mentioned,
        }
        """What is done with each kind of fact; the others speak of no message."""

    def see(self, fact: Fact) -> list[tuple[Fact, OpenMessage | None]]:
        """Take one fact, in the order of the log.

        Gives the facts that no earlier one can overtake any more, by time, each with its message as it is known at
        that point; None where the message is through. Facts that speak of no message are not given.
        """
        if type(fact) not in self._handlers:
            return []
        return [(due, self._tell(due)) for due in self._order.put(fact)]

    def _tell(self, fact: Fact) -> OpenMessage | None:
        record = fact.record
        time = record.time
        key = record.host, record.instance
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place(*key)
        if time > place.now:
            place.now = time
            if place.closing and place.closing[0][0] < time:
                self._close_due(place)
        elif time < place.now - BACK:
            self._close_all(place)
            place.now = time
        self._since += 1
        if self._since >= self._swept_every:
            self._sweep(time)
        return self._handlers[type(fact)](place, fact)

    def finished(self) -> list[MessageRecord]:
        """The messages that came through since the last call, in the order of their ends."""
        finished, self._finished = self._finished, []
        return finished

    def rest(self) -> list[tuple[Fact, OpenMessage | None]]:
        """At the end of the log: what still waited. Messages that have not ended come through as `End.UNFINISHED`."""
        due = self.settle()
        for place in self._places.values():
            for message in list(place.open.values()):
                self._give_up(place, message)
        return due

    def settle(self) -> list[tuple[Fact, OpenMessage | None]]:
        """No line that has yet to come belongs to what was seen: what still waited, and what has ended is through."""
        due = [(fact, self._tell(fact)) for fact in self._order.rest()]
        for place in self._places.values():
            self._close_all(place)
        return due

    @property
    def open_messages(self) -> int:
        """Queue ids in use by now, as far as the log tells."""
        return sum(len(place.open) for place in self._places.values())

    # Which message a line belongs to.

    def _of(self, place: _Place, record: LogRecord, queue_id: str) -> OpenMessage | None:
        """The message of a line that is no message's first; None where it is through."""
        message = place.open.get(queue_id)
        if message is None:
            return self._begin(place, record, queue_id)
        if message.previous is not None and self._overtaken(message, record):
            message = message.previous
        if message.begun_at is not None and record.time < message.begun_at:
            self.late += 1
            return None
        message.last_line = max(message.last_line, record.time)
        return message

    def _overtaken(self, message: OpenMessage, record: LogRecord) -> bool:
        """The queue id is in use again, and the line is still the one before's."""
        if record.time != message.arrival:
            return record.time < message.arrival
        # Stamps of whole seconds: cleanup's lines come first, the queue manager's next, the agents' last.
        before = message.previous
        if record.daemon == "cleanup" or before is None:
            return False
        return not (before if record.text.endswith(" (queue active)") else message).activations

    def _begin(self, place: _Place, record: LogRecord, queue_id: str) -> OpenMessage | None:
        """A message of which this is the first line that we see."""
        ended = place.closed.get(queue_id)
        if ended is not None and record.time <= ended + self._window:
            self.late += 1
            return None
        message = OpenMessage(place.host, place.instance, queue_id, time=record.time)
        self._enter(place, message)
        return message

    def _enter(self, place: _Place, message: OpenMessage) -> None:
        place.open[message.queue_id] = message
        if (named := self._notified.pop(message.queue_id, None)) and named.host == place.host:
            message.notification_of = named.queue_id
        self._expected(message)

    def _first_line(self, place: _Place, record: LogRecord, queue_id: str) -> OpenMessage | None:
        """The message that begins with this line: a new one, or one whose later lines overtook it."""
        message = place.open.get(queue_id)
        if message is None:
            message = self._begin(place, record, queue_id)
        elif message.first_line == hash(record):
            return message  # the same line again
        elif not message.first_line and record.time <= message.arrival + self._window:
            message.arrival = min(message.arrival, record.time)
        elif record.time < message.arrival:
            self.late += 1
            return None
        else:
            message = self._again(place, message, record)
        if message is not None:
            message.begun_at = record.time
            message.first_line = hash(record)
            message.last_line = max(message.last_line, record.time)
        return message

    def _again(self, place: _Place, old: OpenMessage, record: LogRecord) -> OpenMessage:
        """The queue id is used for another message; of the old one lines may still come."""
        if old.end is None:
            self._ended(place, old, record.time, End.UNFINISHED)
        message = OpenMessage(place.host, place.instance, old.queue_id, time=record.time)
        message.previous = old
        self._enter(place, message)
        return message

    # What the lines say.

    def _client(self, place: _Place, fact: ClientIdentified) -> OpenMessage | None:
        if not fact.queue_id:
            return None
        message = self._first_line(place, fact.record, fact.queue_id)
        if message is None or message.client_host:
            return message
        message.client_host, message.client_address = fact.client_host, fact.client_address
        message.sasl_username = fact.sasl_username
        process = fact.record.service, fact.record.pid
        if before := place.begun.get(process):
            self._left(place, before, fact.record)
        if len(place.begun) >= _PROCESSES:
            place.begun.clear()
        place.begun[process] = message
        if fact.orig_queue_id and (parent := self._hop_before(place, message, fact.orig_queue_id)):
            self._join(parent, message)
        return message

    def _hop_before(self, place: _Place, message: OpenMessage, queue_id: str) -> OpenMessage | None:
        """In the same instance, else on the same host, else anywhere if only one can be meant."""
        found = [other for other in self._named(queue_id) if other is not message]
        near = [other for other in found if other.host == place.host]
        same = [other for other in near if other.instance == place.instance]
        return next((some[0] for some in (same, near, found) if len(some) == 1), None)

    def _picked_up(self, place: _Place, fact: PickedUp) -> OpenMessage | None:
        message = self._first_line(place, fact.record, fact.queue_id)
        if message is not None and message.sender is None:
            message.sender = fact.sender
            parent = place.open.get(fact.orig_id) if fact.orig_id else None
            if parent is not None and parent is not message:
                if parent.end is not End.REQUEUED:  # the line of postsuper was overtaken, or lost
                    self._ended(place, parent, fact.record.time, End.REQUEUED)
                self._join(parent, message)
        return message

    def _identified(self, place: _Place, fact: MessageIdentified) -> OpenMessage | None:
        record = fact.record
        message = place.open.get(fact.queue_id)
        known = message is not None and message.identified_at is not None
        if message is not None and known and self._another_message(message, fact):
            message = self._again(place, message, record)
            message.begun_at = record.time
        else:
            fresh = message is None
            message = self._of(place, record, fact.queue_id)
            if message is not None and fresh:
                # Mail from within (bounces, forwards) begins so; where smtpd or pickup were overtaken, their line
                # will say more.
                message.begun_at = record.time
        if message is not None and message.identified_at is None:
            message.identified_at = record.time
            message.message_id = fact.message_id
            self._expected(message)
        return message

    def _another_message(self, message: OpenMessage, fact: MessageIdentified) -> bool:
        """Whether a second message-id line begins another message under the same queue id."""
        time = fact.record.time
        if message.end is not None and message.end not in _UNQUEUED:
            return time >= message.ended and (time, fact.message_id) != (message.identified_at, message.message_id)
        return message.activations > 0 and time > message.last_line + self._window

    def _active(self, place: _Place, fact: QueueActive) -> OpenMessage | None:
        message = self._of(place, fact.record, fact.queue_id)
        if message is None:
            return None
        if message.end in _UNQUEUED:
            message.end = None
        if not message.activations:
            message.sender, message.size, message.nrcpt = fact.sender, fact.size, fact.nrcpt
        message.activations += 1
        return message

    def _attempted(self, place: _Place, fact: DeliveryAttempt) -> OpenMessage | None:
        message = self._of(place, fact.record, fact.queue_id)
        if message is None:
            return None
        if message.begun_at is None:
            message.arrival = min(message.arrival, fact.record.time - fact.delay)
        recipient = message.recipient(fact.recipient, fact.orig_to)
        if recipient is None:
            recipient = Recipient(fact)
            message.add(recipient)
        elif fact.record.time < recipient.last - self._window or line_hash(fact) in {
            recipient.line,
            recipient.line_before,
        }:
            self.late += 1
            return message
        else:
            recipient.seen(fact)
        if recipient.next_id:
            self._passed_on(place, message, fact, recipient.next_id)
        return message

    def _passed_on(self, place: _Place, message: OpenMessage, fact: DeliveryAttempt, queue_id: str) -> None:
        """A server on this machine is believed; a stranger's only if the message-id is the same."""
        certain = not fact.relay_address or is_local(fact.relay_address)
        for other in self._named(queue_id):
            if other is not message and _fits(message, other, certain=certain and other.host == place.host):
                self._join(message, other)
                return
        named = (place.now + _HOP, message, certain), *self._awaited.get(queue_id, ())
        self._awaited[queue_id] = named[:_NAMED]
        self._awaited.move_to_end(queue_id)
        if len(self._awaited) > _ENDINGS:
            self._awaited.popitem(last=False)

    def _expected(self, message: OpenMessage) -> None:
        """Whether the hop before has already named this one."""
        for until, parent, certain in self._awaited.get(message.queue_id, ()):
            sure = certain and parent.host == message.host
            if message.arrival <= until and parent is not message and _fits(parent, message, certain=sure):
                self._join(parent, message)

    def _removed(self, place: _Place, fact: QueueRemoved) -> OpenMessage | None:
        if fact.queue_id not in place.open:
            self.late += fact.queue_id in place.closed
            return None
        message = self._of(place, fact.record, fact.queue_id)
        if message is not None and (message.end is None or message.end in _CONCLUDED):
            self._ended(place, message, fact.record.time, _end_of(message, fact))
        return message

    def _expired(self, place: _Place, fact: MessageExpired) -> OpenMessage | None:
        message = self._of(place, fact.record, fact.queue_id)
        if message is not None and fact.record.daemon != "postsuper":  # that one only asks for it
            message.expired = True
        return message

    def _requeued(self, place: _Place, fact: Requeued) -> OpenMessage | None:
        message = self._of(place, fact.record, fact.queue_id)
        if message is not None and message.end is None:
            self._ended(place, message, fact.record.time, End.REQUEUED)
        return message

    def _notification(self, place: _Place, fact: NonDeliveryNotification) -> OpenMessage | None:
        """Since 3.11 this comes before the notification's own lines, until then after them."""
        message = self._of(place, fact.record, fact.queue_id)
        if message is None:
            return None
        message.notified(fact.kind, fact.notification_id)
        if notification := place.open.get(fact.notification_id):
            notification.notification_of = message.queue_id
        else:
            self._notified[fact.notification_id] = message
            if len(self._notified) > _ENDINGS:
                self._notified.popitem(last=False)
        return message

    def _header(self, place: _Place, fact: HeaderLogged) -> OpenMessage | None:
        message = self._of(place, fact.record, fact.queue_id)
        if message is None:
            return None
        message.header_logged(fact.header, fact.value)
        if message.end is None and not message.activations and (end := _VERDICTS.get(fact.action.rpartition("-")[2])):
            self._ended(place, message, fact.record.time, end)
        return message

    def _refused(self, place: _Place, fact: Rejected) -> OpenMessage | None:
        """At RCPT one recipient is refused; later, or by DISCARD, the message."""
        if not fact.queue_id:
            return None
        message = self._of(place, fact.record, fact.queue_id)
        end = _VERDICTS.get(fact.action.rpartition("-")[2])
        if message is None or end is None or message.activations or message.end is not None:
            return message
        if fact.stage in {"END-OF-MESSAGE", "DATA", "BDAT"}:
            self._ended(place, message, fact.record.time, end)
        elif end is End.DISCARDED:
            message.fate = end
        return message

    def _connection_lost(self, place: _Place, fact: ConnectionLost) -> OpenMessage | None:
        message = place.begun.get((fact.record.service, fact.record.pid))
        in_data = fact.stage in {"DATA", "BDAT"}
        if message is None or message.activations or message.end is not None or not in_data:
            return None
        self._ended(place, message, fact.record.time, message.fate or End.ABORTED)
        return message

    def _disconnected(self, place: _Place, fact: ClientDisconnected) -> OpenMessage | None:
        message = place.begun.pop((fact.record.service, fact.record.pid), None)
        if message is not None:
            self._left(place, message, fact.record)
        return None

    def _left(self, place: _Place, message: OpenMessage, record: LogRecord) -> None:
        """Its smtpd has gone on: what has no message-id by now was not received."""
        never = message.fate or (End.ABORTED if message.identified_at is None else None)
        if never is not None and message.end is None and not message.activations:
            self._ended(place, message, record.time, never)

    def _signed_by(self, place: _Place, fact: DkimSigned) -> OpenMessage | None:
        """A milter's line: its program is no instance of Postfix, so any on its host may be meant."""
        found = [other for other in self._named(fact.queue_id) if other.host == place.host]
        if len(found) != 1:
            return None
        found[0].signed(fact.domain)
        return found[0]

    def _mentioned(self, place: _Place, fact: Held | Released) -> OpenMessage | None:
        return self._of(place, fact.record, fact.queue_id) if fact.queue_id else None

    # Joining and ending.

    def _named(self, queue_id: str) -> Iterator[OpenMessage]:
        return (message for place in self._places.values() if (message := place.open.get(queue_id)))

    def _join(self, parent: OpenMessage, message: OpenMessage) -> None:
        if parent.root is not message.root and message.parent is None and not parent.told and not message.told:
            message.follows(parent)

    def _ended(self, place: _Place, message: OpenMessage, time: float, end: End) -> None:
        """Its last line; it stays for as long as others may come that were overtaken."""
        message.end = end
        message.ended = max(time, message.last_line)
        place.closing.append((place.now + 3 * self._window, message))
        if len(place.closing) > _ENDINGS:
            self._close(place, place.closing.popleft()[1])

    def _close_due(self, place: _Place) -> None:
        while place.closing and place.closing[0][0] < place.now:
            _, message = place.closing.popleft()
            if message.end is End.REQUEUED and message.root.parts is None and place.now - message.ended < _REQUEUE:
                place.closing.append((place.now + self._window, message))
                break  # what is behind it is not much later
            self._close(place, message)

    def _close_all(self, place: _Place) -> None:
        while place.closing:
            self._close(place, place.closing.popleft()[1])

    def _close(self, place: _Place, message: OpenMessage) -> None:
        """Nothing more comes of this queue id; the record is made when that holds for all hops."""
        if message.end is None or message.closed:
            return  # it went on after all
        message.closed = True
        if place.open.get(message.queue_id) is message:
            del place.open[message.queue_id]
            place.closed[message.queue_id] = message.ended
            place.closed.move_to_end(message.queue_id)
            if len(place.closed) > _ENDINGS:
                place.closed.popitem(last=False)
        elif (next_message := place.open.get(message.queue_id)) and next_message.previous is message:
            next_message.previous = None
        root = message.root
        if root.parts is None or all(part.closed for part in root.parts):
            for part in root.parts or [root]:
                part.told = True
            self._finished.append(record_of(root))

    def _give_up(self, place: _Place, message: OpenMessage) -> None:
        if message.end is None:
            message.end, message.ended = End.UNFINISHED, message.last_line
        self._close(place, message)

    def _sweep(self, now: float) -> None:
        """Give up what is silent for too long, and the longest silent where there are too many."""
        self._since = 0
        for key, place in list(self._places.items()):
            for message in [one for one in place.open.values() if one.last_line < now - self._patience]:
                self._give_up(place, message)
            if not place.open and not place.closing and place.now < now - self._patience:
                del self._places[key]
                if not any(name == place.host for name, _ in self._places):
                    self._order.forget(place.host)
        surplus = self.open_messages - self._most * 7 // 8
        if surplus > self._most // 8:
            everything = [(one.last_line, place, one) for place in self._places.values() for one in place.open.values()]
            for _, place, message in islice(sorted(everything, key=lambda entry: entry[0]), surplus):
                self._give_up(place, message)


def _fits(parent: OpenMessage, message: OpenMessage, *, certain: bool) -> bool:
    """Whether the message may be the next hop of the other."""
    if message.parent is not None or message.arrival < parent.arrival - _HOP:
        return False
    return certain or (parent.message_id != "" and parent.message_id == message.message_id)


_VERDICTS: Final = {"reject": End.REJECTED, "discard": End.DISCARDED}


def _end_of(message: OpenMessage, fact: QueueRemoved) -> End:
    if fact.detail:
        return End.DISCARDED if fact.detail == "discarded" else End.CANCELED
    if fact.record.daemon == "postsuper":
        return End.DELETED
    return End.EXPIRED if message.expired else End.REMOVED
