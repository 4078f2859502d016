"""A listing of the whole queue (`postqueue -j`), and what is learned from it at start or after a gap."""

from collections.abc import Mapping
from typing import NamedTuple

from policies.messages import Message, Messages, Place, Recipient


class Queued(NamedTuple):
    """One message of a listing."""

    queue_name: str
    queue_id: str
    arrival_time: float
    sender: str
    recipients: tuple[str, ...]
    """Undelivered recipients."""


class Listing(NamedTuple):
    instance: str
    time: float
    """When the listing began."""
    messages: tuple[Queued, ...]
    ours: Mapping[str, str]
    """Queue id -> key of what the helper's record says we hold."""
    since: Mapping[str, float] = {}
    """Queue id -> when the record was told so."""


_SETTLED = 2.0
"""Seconds without a line after which a deferred message is believed to be out of core."""
_UNSEEN = 60.0
"""Seconds without a line after which a message that the listing lacks is believed to be gone."""


def learn(messages: Messages, listing: Listing, *, now: float) -> None:
    """Learn senders, recipients and places of messages that the log has told us too little of."""
    for queued in listing.messages:
        known = messages.get(listing.instance, queued.queue_id)
        message = known or messages.obtain(listing.instance, queued.queue_id, now=now)
        if message.sender is None:
            messages.sent_by(message, queued.sender)
        if not message.activation or not message.recipients:
            _fill(message, queued)
        if queued.queue_name == "deferred" and message.last_line < listing.time - _SETTLED:
            message.left_core()


def finished(messages: Messages, listing: Listing) -> list[Message]:
    """List messages that we hold and that have no recipient left: delivered while we were down."""
    ended = (queued.queue_id for queued in listing.messages if queued.queue_name == "hold" and not queued.recipients)
    known = (messages.get(listing.instance, queue_id) for queue_id in ended)
    return [message for message in known if message is not None and message.on_hold]


def absent(messages: Messages, listing: Listing) -> list[Message]:
    """List messages that we believed live and the listing lacks."""
    there = {queued.queue_id for queued in listing.messages}
    return [
        message
        for message in messages.of_instance(listing.instance)
        if message.queue_id not in there and not message.on_hold and message.last_line < listing.time - _UNSEEN
    ]


def _fill(message: Message, queued: Queued) -> None:
    message.arrival = queued.arrival_time
    message.recipients = message.recipients or tuple(map(Recipient, queued.recipients))
    message.nrcpt = max(message.nrcpt, len(queued.recipients))
    message.attempts = max(message.attempts, 1)  # it is queued whole
    if queued.queue_name == "active" and not message.activation and message.place is Place.QUEUED:
        message.pending = max(message.pending, len(queued.recipients))
