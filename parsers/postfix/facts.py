"""The facts that a Postfix log states, one type a kind of line, in Postfix's own words.

Every fact carries the record it was read from (time, host, instance, service, daemon, pid, and the
line's text as evidence) and the queue id it speaks of, "" where the line names none. Optional texts
are "" and optional numbers None when the line does not carry them, never a guess.
"""

from typing import Final, NamedTuple

from parsers.record import LogRecord
from parsers.smtp import Reply, read_reply

_REMOTE: Final = (
    "host ",
    "TLS is required, but host ",
    "SASL authentication failed; ",
    "SASL [CACHED] authentication failed; ",
)
_TELLS: Final = (*_REMOTE, *(f"delivery temporarily suspended: {words}" for words in _REMOTE))
"""How a reason begins that tells of a remote server's reply."""


class Delays(NamedTuple):
    """`delays=a/b/c/d` in seconds (log_adhoc.c)."""

    before_queue_manager: float
    in_queue_manager: float
    connection_setup: float
    transmission: float


class DeliveryAttempt(NamedTuple):
    """One recipient's outcome, by any delivery agent (log_adhoc.c)."""

    record: LogRecord
    queue_id: str
    recipient: str
    """As between `<>`: external form where Postfix logs that, quotes included."""
    orig_to: str
    relay_host: str
    """Host name, or "none", "local", a pipe's name."""
    relay_address: str
    """IP address, or the path of a unix socket; "" where none is logged."""
    relay_port: int | None
    conn_use: int | None
    delay: float
    delays: Delays
    tls: str
    """Postfix 3.11's `tls=`, "" before."""
    dsn: str
    status: str
    """sent, deferred, bounced, SOFTBOUNCE, deliverable, undeliverable, ... : the word after `status=`."""
    reason: str
    """Everything between `status=S (` and the line's final `)`."""
    extra: tuple[tuple[str, str], ...] = ()
    """Keys between relay and dsn that this version does not know, as logged."""

    @property
    def reply(self) -> Reply | None:
        """What a remote server said; None where Postfix itself speaks.

        Read when it is asked for: most deliveries are `sent`, and nobody asks what with. Without a remote server's
        address a code alone is not its reply; a reason may still tell of one.
        """
        if self.relay_address or self.reason.startswith(_TELLS):
            return read_reply(self.reason)
        return None


class ClientIdentified(NamedTuple):
    """smtpd: a message has begun (smtpd.c)."""

    record: LogRecord
    queue_id: str
    client_host: str
    client_address: str
    sasl_method: str
    sasl_username: str
    orig_queue_id: str


class MessageIdentified(NamedTuple):
    """cleanup: `message-id=`."""

    record: LogRecord
    queue_id: str
    message_id: str
    """As logged, with `<>` where they stand."""
    resent: bool


class HeaderLogged(NamedTuple):
    """cleanup: a header_checks (or body_checks, milter_header_checks) action on a line of the message."""

    record: LogRecord
    queue_id: str
    header: str
    """Name of the header, "" for a body line."""
    value: str
    action: str
    """info, warning, hold, filter, reject, ... as logged."""
    sender: str
    recipient: str


class QueueActive(NamedTuple):
    """qmgr: the message is in its memory now."""

    record: LogRecord
    queue_id: str
    sender: str
    size: int
    nrcpt: int


class QueueRemoved(NamedTuple):
    record: LogRecord
    queue_id: str
    detail: str
    """"canceled" or "discarded" where cleanup closes a transaction (3.10), else ""."""


class MessageExpired(NamedTuple):
    record: LogRecord
    queue_id: str
    sender: str
    forced: bool


class MessageSkipped(NamedTuple):
    """qmgr: `skipped, still being delivered`: the file goes to incoming, its time a minute ahead."""

    record: LogRecord
    queue_id: str


class PickedUp(NamedTuple):
    """pickup: local submission, or a requeued message (`orig_id=`)."""

    record: LogRecord
    queue_id: str
    uid: int
    sender: str
    orig_id: str


class NonDeliveryNotification(NamedTuple):
    record: LogRecord
    queue_id: str
    kind: str
    """"sender non-delivery", "postmaster non-delivery", "sender delay", "sender delivery status", ..."""
    notification_id: str


class Held(NamedTuple):
    """The message goes, or went, to the hold queue."""

    record: LogRecord
    queue_id: str
    by: str
    """"policy": an access map or policy service in smtpd answered HOLD. "cleanup": header or body
    checks. "milter": quarantine. "admin": postsuper, whoever called it."""
    stage: str
    """smtpd's stage ("END-OF-MESSAGE"), "" elsewhere."""
    text: str
    """The reason given with the action; ours carries the key."""
    sender: str
    recipient: str


class Released(NamedTuple):
    """postsuper: `released from hold`."""

    record: LogRecord
    queue_id: str


class Requeued(NamedTuple):
    """postsuper: `requeued`; the message comes back under a new id (PickedUp.orig_id)."""

    record: LogRecord
    queue_id: str


class Filtered(NamedTuple):
    """FILTER was answered by an access map, a policy service (smtpd) or header checks (cleanup)."""

    record: LogRecord
    queue_id: str
    stage: str
    destination: str
    """"lane-01:" as in access(5)."""
    sender: str
    recipient: str


class Rejected(NamedTuple):
    """smtpd or a milter: reject, reject_warning, discard, redirect, bcc, warn, info, delay, ..."""

    record: LogRecord
    queue_id: str
    """"" for NOQUEUE."""
    action: str
    stage: str
    code: str
    enhanced: str
    text: str
    sender: str
    recipient: str
    client_host: str
    client_address: str
    helo: str
    sasl_username: str


class ConnectionFailed(NamedTuple):
    """`connect to H[I]:p: reason`."""

    record: LogRecord
    queue_id: str
    relay_host: str
    relay_address: str
    relay_port: int | None
    reason: str


class RemoteReply(NamedTuple):
    """An agent's side line about a reply or a broken conversation, without `to=`: no outcome yet."""

    record: LogRecord
    queue_id: str
    relay_host: str
    relay_address: str
    reason: str
    reply: Reply | None


class TlsEstablished(NamedTuple):
    record: LogRecord
    queue_id: str
    role: str
    """client or server."""
    level: str
    """Anonymous, Untrusted, Trusted, Verified."""
    protocol: str
    cipher: str
    bits: int
    peer_host: str
    peer_address: str
    peer_port: int | None


class TlsFailed(NamedTuple):
    record: LogRecord
    queue_id: str
    role: str
    peer_host: str
    peer_address: str
    reason: str


class ClientConnected(NamedTuple):
    record: LogRecord
    queue_id: str
    client_host: str
    client_address: str


class ClientDisconnected(NamedTuple):
    record: LogRecord
    queue_id: str
    client_host: str
    client_address: str
    counts: tuple[tuple[str, int, int], ...]
    """(command, succeeded, total) in the order logged."""


class ConnectionLost(NamedTuple):
    """smtpd: `lost connection|timeout|too many errors after STAGE from H[I]`: a message begun may be gone."""

    record: LogRecord
    queue_id: str
    kind: str
    stage: str
    client_host: str
    client_address: str


class SaslFailed(NamedTuple):
    record: LogRecord
    queue_id: str
    client_host: str
    client_address: str
    mechanism: str
    sasl_username: str
    reason: str


class PostscreenVerdict(NamedTuple):
    record: LogRecord
    queue_id: str
    verdict: str
    client_address: str
    client_port: int | None
    detail: str


class DnsblHit(NamedTuple):
    record: LogRecord
    queue_id: str
    client_address: str
    domain: str
    answer: str


class RateStatistic(NamedTuple):
    """anvil."""

    record: LogRecord
    queue_id: str
    kind: str
    value: int
    period: str
    service: str
    client: str


class CacheStatistic(NamedTuple):
    """scache, verify, postscreen's cache."""

    record: LogRecord
    queue_id: str
    text: str


class DkimSigned(NamedTuple):
    """OpenDKIM or rspamd: the message carries a signature of this domain."""

    record: LogRecord
    queue_id: str
    domain: str
    selector: str


class ProcessEvent(NamedTuple):
    """master and postfix-script: started, reload, terminating, a process that died."""

    record: LogRecord
    queue_id: str
    text: str


class Diagnostic(NamedTuple):
    """warning, error, fatal or panic of any daemon that no other fact takes.

    `open active QID: No such file or directory` (deliver_request.c) is one, with its queue id: the
    delivery agent's word that a message taken from the active queue has left qmgr's memory.
    """

    record: LogRecord
    queue_id: str
    severity: str
    text: str


Fact = (
    DeliveryAttempt
    | ClientIdentified
    | MessageIdentified
    | HeaderLogged
    | QueueActive
    | QueueRemoved
    | MessageExpired
    | MessageSkipped
    | PickedUp
    | NonDeliveryNotification
    | Held
    | Released
    | Requeued
    | Filtered
    | Rejected
    | ConnectionFailed
    | RemoteReply
    | TlsEstablished
    | TlsFailed
    | ClientConnected
    | ClientDisconnected
    | ConnectionLost
    | SaslFailed
    | PostscreenVerdict
    | DnsblHit
    | RateStatistic
    | CacheStatistic
    | DkimSigned
    | ProcessEvent
    | Diagnostic
)
