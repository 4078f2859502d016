"""What the engine wants done to the queue, and what it tells about what it did.

The whole vocabulary towards Postfix: `Hold`, `Release`, and a verdict for an arriving message.
`Reload` is the exception for a queue manager that cannot otherwise be proved to have let go.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Hold(NamedTuple):
    """`postsuper -h` of these, oldest first."""

    instance: str
    keys: Mapping[str, str]
    """Queue id -> the sub-queue's key."""


class Release(NamedTuple):
    """File times set, `postsuper -H`, one kick."""

    instance: str
    ids: tuple[str, ...]
    key: str
    spread: float
    """Seconds over which the file times are staggered, 0 for now."""


class Leaving(NamedTuple):
    """One message that is to be requeued."""

    sending_domain: str
    recipients: tuple[str, ...]
    """Whom it is still to be delivered to, as Postfix logs them."""


class Requeue(NamedTuple):
    """`postsuper -r` of these, which are on hold: Postfix takes them in anew, under other ids and without their FILTER."""

    instance: str
    key: str
    source: str
    """The transport that they are not to go over again."""
    to: str
    """Transport or pool:NAME that they are to go over; "": as Postfix sends such mail."""
    mail: Mapping[str, Leaving]
    """By queue id."""

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.mail)


class Adopt(NamedTuple):
    """Postfix holds these by our HOLD answer: into the helper's record with them."""

    instance: str
    keys: Mapping[str, str]
    """Queue id -> the sub-queue's key."""


class Reload(NamedTuple):
    """`postfix reload` once: no proof can come that qmgr has let go of `waiting` held messages."""

    instance: str
    waiting: int


Command = Hold | Release | Requeue | Adopt | Reload


class Change(NamedTuple):
    """One thing that the engine did or noticed, for the audit log and for people."""

    time: float
    key: str
    kind: str
    """One of `policies.audit.KINDS`."""
    state: str
    why: str
    line: str
    """The log line that caused it, "" where none did."""
    rule: str
    by_whom: str
    """"engine", "policy" (what smtpd was answered), or who asked by hand."""
    messages: int
    ids: tuple[tuple[str, str], ...] = ()
    """Which ones, as (instance, queue id), of what was done to messages."""

    def told(self) -> dict[str, object]:
        """Give it without its messages, for people and for JSON."""
        return dict(zip(CHANGE_COLUMNS, self[:-1], strict=True))


CHANGE_COLUMNS = Change._fields[:-1]


class Attempt(NamedTuple):
    """One delivery attempt as classified, for the store and the counters."""

    time: float
    host: str
    instance: str
    queue_id: str
    sender_domain: str
    recipient_domain: str
    provider: str
    relay: str
    dsn: str
    status: str
    rule: str
    detail: str
    bounce: str
    scope: str
    delay: float
    key: str
    """The key the reply named, "" where it named none."""
    recipient: str = ""
    """As the site wants addresses kept."""
    service: str = ""
    """The transport as logged ("lane-01"), else the delivery agent ("smtp")."""
    tenant: str = ""
    """sasl_username of who submitted the message."""
    campaign: str = ""
    segment: str = ""
    reply: str = ""
    """What the remote server, or Postfix, said; cut."""
    passed_on: str = ""
    """Queue id under which the message goes on in this host, "-" where that was not said, "" for a real outcome."""
    first: int = 0
    """1: the message had no outcome before. Where it may have had one before its first line here: 2 for the first outcome that was, 3 for a
    later one.
    """


class Received(NamedTuple):
    """A message that entered the queue, when the queue manager first had it."""

    time: float
    host: str
    instance: str
    queue_id: str
    message_id: str
    sender: str
    """As the site wants addresses kept."""
    size: int
    nrcpt: int
    client: str
    """host[address] of who submitted it; "" for local mail."""
    tenant: str


class Removed(NamedTuple):
    """A message that left the queue."""

    time: float
    instance: str
    queue_id: str
