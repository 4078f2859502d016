"""Quotas: how many messages or recipients a tenant, a domain, a client or a sender may hand in.

Knows what a quota is and what smtpd is told about it; how full its buckets are stands in `policies.buckets`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Final, NamedTuple

from parsers.policy_protocol import Action, DeferIfPermit, Info, PolicyRequest

ALMOST: Final = 1e-6
"""Of one message: sums of floats are this exact over a day, and more."""


class Per(StrEnum):
    """Whose bucket it is."""

    TENANT = "tenant"
    """sasl_username, as written."""
    SENDING_DOMAIN = "sending-domain"
    """Organizational domain of the envelope sender."""
    CLIENT = "client"
    """client_address; of IPv6 its /64, for whoever has one address has all of those."""
    SENDER = "sender"
    """Envelope sender, in lower case."""
    TENANT_PROVIDER = "tenant-provider"
    """sasl_username and the mailbox provider behind the recipient's domain."""


class Counted(StrEnum):
    MESSAGES = "messages"
    RECIPIENTS = "recipients"


class Within(StrEnum):
    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


SECONDS: Final[Mapping[Within, float]] = {
    Within.SECOND: 1.0,
    Within.MINUTE: 60.0,
    Within.HOUR: 3_600.0,
    Within.DAY: 86_400.0,
}


class Asked(NamedTuple):
    """A question at RCPT, as conditions see it."""

    request: PolicyRequest
    provider: str
    """Behind the recipient's domain; "" where it is not known (yet), or no quota asks for it."""
    sending_domain: str


_SAID: Final[Mapping[Per, str]] = {
    Per.TENANT: "this login",
    Per.SENDING_DOMAIN: "this sending domain",
    Per.CLIENT: "this client",
    Per.SENDER: "this sender",
    Per.TENANT_PROVIDER: "this login and mailbox provider",
}


@dataclass(frozen=True, slots=True)
class Quota:
    """A row of the configuration, checked."""

    name: str
    per: Per
    counted: Counted
    limit: int
    within: Within
    burst: int
    """At once; and in any `within` at most limit + burst."""
    warn: float = 0.0
    """Share of the burst that is in use when it is said; 0: never."""
    defers: bool = True
    """False: what is beyond is only said."""
    where: Callable[[Asked], bool] | None = None
    """None: all mail."""
    by_provider: bool = False
    """The condition names the provider."""
    keys: int = 10_000
    """Buckets at most; beyond it one that was not asked about for long begins anew, full of room."""
    fleet: bool = False
    """All hosts of the fleet have one bucket together, and this host a part of it."""
    part: float = 1.0
    """Of the quota, that this bucket may use."""

    capacity: float = field(init=False)
    """That part of the burst."""
    rate: float = field(init=False)
    """What comes back, a second."""
    full: float = field(init=False)
    """With more in use there is no room for one more."""
    warn_at: float = field(init=False)
    easy: float = field(init=False)
    """With more in use there is no room, or something is to be said."""
    by_message: bool = field(init=False)

    def __post_init__(self) -> None:
        made = object.__setattr__  # the class is frozen; these follow from the rest, and are read for each recipient
        made(self, "capacity", self.burst * self.part)
        made(self, "rate", self.limit * self.part / SECONDS[self.within])
        made(self, "full", self.capacity - 1 + ALMOST)
        made(self, "warn_at", self.warn * self.capacity or inf)
        made(self, "easy", min(self.full, self.warn_at - 1 - ALMOST, self.capacity / 2 if self.fleet else inf))
        made(self, "by_message", self.counted is Counted.MESSAGES)


class Limited(NamedTuple):
    """What a quota says to a question."""

    action: Action
    """DeferIfPermit, or Info where it is only said."""
    quota: str
    why: str


def deferring(quota: Quota, key: str, level: float, wait: float) -> Limited:
    """Have a recipient come again: `level` of the burst is in use, and there is room in `wait` seconds."""
    text = f"Quota reached: {_limit(quota)} for {_SAID[quota.per]}; there is room again in about {_rounded(wait)}"
    return Limited(DeferIfPermit("4.7.1", text), quota.name, _why(quota, key, level))


def warning(quota: Quota, key: str, level: float) -> Limited:
    """Let it in, and say how much is in use."""
    share = int(level / quota.burst * 100 + ALMOST)
    text = f"quota {quota.name}: {share} % of {_limit(quota)} in use for {_SAID[quota.per]}"
    return Limited(Info(text), quota.name, _why(quota, key, level))


def _why(quota: Quota, key: str, level: float) -> str:
    return f"quota {quota.name}, {quota.per} {key[:100]!a}: {level:.1f} of {quota.burst} in use, {_limit(quota)}"


def _limit(quota: Quota) -> str:
    return f"{quota.limit} {quota.counted} {'an' if quota.within is Within.HOUR else 'a'} {quota.within}"


_ROUNDED: Final = (
    (1, "a second"), (2, "2 seconds"), (5, "5 seconds"), (10, "10 seconds"), (30, "30 seconds"), (60, "a minute"),
    (120, "2 minutes"), (300, "5 minutes"), (600, "10 minutes"), (1_200, "20 minutes"), (1_800, "half an hour"),
    (3_600, "an hour"), (7_200, "2 hours"), (14_400, "4 hours"), (28_800, "8 hours"), (43_200, "12 hours"),
)  # fmt: skip
"""Few texts, so that the bytes of an answer are found where they were made."""


def _rounded(seconds: float) -> str:
    return next((text for most, text in _ROUNDED if seconds <= most), "a day")
