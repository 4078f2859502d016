"""What a reply means: the closed vocabularies of classification and the verdict built of them."""

from enum import StrEnum
from typing import NamedTuple


class Bounce(StrEnum):
    HARD = "hard"
    """This recipient, for good."""
    SOFT = "soft"
    """This recipient, may pass."""
    BLOCK = "block"
    """A permanent code that is not the recipient's fault; it never suppresses the recipient."""
    TRANSIENT = "transient"


class Scope(StrEnum):
    """Whom a reply is about; asked before anything is done about it."""

    RECIPIENT = "recipient"
    RECIPIENT_DOMAIN = "recipient-domain"
    MESSAGE = "message"
    SENDER_DOMAIN = "sender-domain"
    IP = "ip"
    URL = "url"
    REMOTE = "remote"
    LOCAL = "local"


class Reaction(StrEnum):
    SUPPRESS = "suppress"
    PAUSE_DOMAIN = "pause-domain"
    SLOW_IP = "slow-ip"
    ALERT_AUTH = "alert-auth"
    ALERT_CONTENT = "alert-content"
    ALERT_TLS = "alert-tls"
    ALERT_LOCAL = "alert-local"
    NOTHING = "nothing"


class IdentityType(StrEnum):
    DKIM_DOMAIN = "dkim-domain"
    SPF_DOMAIN = "spf-domain"
    FROM_DOMAIN = "from-domain"
    URL_DOMAIN = "url-domain"
    IP = "ip"
    NETBLOCK = "netblock"
    MESSAGE_ID = "message-id"


class Identity(NamedTuple):
    type: IdentityType
    value: str


class Verdict(NamedTuple):
    """One classified reply."""

    provider: str | None
    rule: str
    """"google/rate-dkim-domain"; "unknown" where none matched."""
    category: str
    """authentication | content | recipient | throttling | reputation | infrastructure | policy | unknown."""
    detail: str
    """Category and leaf: "throttling.domain"; "unknown"."""
    bounce: Bounce
    scope: Scope
    identity: Identity | None
    blocklists: tuple[str, ...]
    reaction: Reaction
    code: str
    enhanced: str
