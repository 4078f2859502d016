"""What is known of one message when it is through: who sent it, where it went, how it ended for each recipient.

A message that a content filter, an alias or a requeue gave new queue ids is one record.
"""

from enum import StrEnum
from typing import NamedTuple


class End(StrEnum):
    """How a message left the queue."""

    REMOVED = "removed"
    """qmgr: every recipient has its final outcome."""
    EXPIRED = "expired"
    """The same, after `status=expired`: recipients without a final outcome were returned to the sender."""
    DELETED = "deleted"
    """An admin: `postsuper -d`."""
    REQUEUED = "requeued"
    """`postsuper -r`, and the log does not show under which new id."""
    REJECTED = "rejected"
    """After it had its queue id: by a milter, a header check, a policy at DATA or at the end of it."""
    DISCARDED = "discarded"
    CANCELED = "canceled"
    """cleanup closed the transaction (Postfix 3.10 says so)."""
    ABORTED = "aborted"
    """The client left before the end of the message."""
    UNFINISHED = "unfinished"
    """The log ends before the message does, or has nothing more of it."""


class Hop(NamedTuple):
    """One queue that the message was in."""

    host: str
    instance: str
    queue_id: str


class RecipientOutcome(NamedTuple):
    """One recipient, and the outcome of its last attempt."""

    recipient: str
    orig_to: str
    status: str
    """sent, bounced, deferred, …, as logged; "deferred" in an expired message means returned to sender."""
    dsn: str
    reason: str
    """`parsers.smtp.read_reply` takes it apart."""
    relay_host: str
    relay_address: str
    service: str
    """Of the agent's tag: "lane-01", "" for plain `postfix/smtp`."""
    daemon: str
    hop: Hop
    """The last queue, where this outcome was logged."""
    attempts: int
    first_attempt: float
    last_attempt: float
    """Seconds since the epoch; `last_attempt` minus the record's `arrival` is the time to delivery."""


class Notification(NamedTuple):
    """A bounce or delay notification that was sent about the message."""

    kind: str
    """"sender non-delivery", "postmaster delay", …"""
    queue_id: str


class MessageRecord(NamedTuple):
    """One message from its first line to its last."""

    hops: tuple[Hop, ...]
    """In the order in which the message entered them; never empty."""
    begun: bool
    """Its first line was seen; otherwise `arrival` is reckoned from `delay=`, and what came before is unknown."""
    end: End
    arrival: float
    ended: float
    sender: str | None
    """None while unknown; "" is the null sender."""
    message_id: str
    """As logged, with its `<>`."""
    client_host: str
    client_address: str
    """"" for local submission."""
    sasl_username: str
    size: int
    """Bytes; 0 while unknown."""
    recipients: tuple[RecipientOutcome, ...]
    """Recipients that a hop passed on stand here once, with the last hop's outcome."""
    headers: tuple[tuple[str, str], ...]
    """What header checks logged of it."""
    dkim_domains: tuple[str, ...]
    notifications: tuple[Notification, ...]
    notification_of: str
    """Queue id of the message that this one is a notification about, "" for others."""

    @property
    def host(self) -> str:
        """Where it entered."""
        return self.hops[0].host

    @property
    def instance(self) -> str:
        """Where it entered."""
        return self.hops[0].instance

    @property
    def queue_ids(self) -> tuple[str, ...]:
        """All of its queue ids, the first one first."""
        return tuple(hop.queue_id for hop in self.hops)
