"""Quotas: how many messages or recipients a tenant, a domain, a client or a sender may hand in, by token buckets.

Knows what is charged, when, and what is given back; what smtpd is told about it is here too. Nothing is ever waited for.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv6Network
from math import inf
from operator import attrgetter
from typing import Final, NamedTuple, TypeAlias

from parsers.address import domain_of
from parsers.policy_protocol import Action, DeferIfPermit, Info, PolicyRequest

MAX_MESSAGES: Final = 50_000
MAX_AGE: Final = 1_200.0
"""Messages between their first RCPT and the next message on their connection: beyond so many, or after so many
seconds, what they took is given back. One that ends later all the same is charged then."""
_ALMOST: Final = 1e-6
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


@lru_cache(maxsize=8_192)
def client_network(address: str) -> str:
    """An IPv4 address itself, of an IPv6 address its /64; what is neither as it is."""
    if ":" not in address:
        return address
    try:
        return str(IPv6Network((address, 64), strict=False))
    except ValueError:
        return address


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
    """Buckets at most; beyond it the one that was asked about longest ago begins anew, full of room."""

    rate: float = field(init=False)
    """What comes back, a second."""
    full: float = field(init=False)
    """With more taken there is no room for one more."""
    warn_at: float = field(init=False)
    by_message: bool = field(init=False)

    def __post_init__(self) -> None:
        made = object.__setattr__  # the class is frozen; these follow from the rest, and are read for each recipient
        made(self, "rate", self.limit / SECONDS[self.within])
        made(self, "full", self.burst - 1 + _ALMOST)
        made(self, "warn_at", self.warn * self.burst or inf)
        made(self, "by_message", self.counted is Counted.MESSAGES)


class Bucket:
    """What one key has taken of a quota and what has not come back yet."""

    __slots__ = ("at", "beyond", "key", "quota", "stage", "taken", "unsettled")

    def __init__(self, quota: Quota, key: str, *, now: float, taken: float = 0.0) -> None:
        self.quota = quota
        self.key = key
        self.taken = taken
        self.at = now
        """When `taken` was true."""
        self.unsettled = 0
        """Of that, by messages that have not ended."""
        self.beyond = 0
        """Recipients that it had no room for, since the start or a reset."""
        self.stage = _BELOW

    def drain(self, now: float) -> None:
        """Let come back what has; a clock set back takes nothing away and gives nothing."""
        if now > self.at:
            left = self.taken - (now - self.at) * self.quota.rate
            self.taken = max(left, 0.0)
        self.at = now

    def wait(self) -> float:
        """Seconds until there is room for one more, after `drain`."""
        return max(0.0, (self.taken + 1.0 - self.quota.burst) / self.quota.rate)


_BELOW, _WARNED, _OVER = range(3)


class Taken(NamedTuple):
    """A bucket as the store keeps it: only what messages took that have ended."""

    quota: str
    key: str
    taken: float
    at: float


class Limited(NamedTuple):
    """What a quota says to a question."""

    action: Action
    """DeferIfPermit, or Info where it is only said."""
    quota: str
    why: str


class _Message:
    """What one SMTP transaction has taken so far."""

    __slots__ = ("asked", "charged", "settled", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self.asked = 0
        """Recipients that we let through, charged or not."""
        self.charged: dict[Bucket, int] = {}
        self.settled = False


Message: TypeAlias = tuple[str, str]
"""(Postfix instance, `instance` of the policy protocol)."""


class Quotas:
    """All buckets. A recipient is charged when we let it through at RCPT, and settled when its message has ended."""

    def __init__(
        self,
        quotas: tuple[Quota, ...],
        *,
        organizational: Callable[[str], str],
        provider_of: Callable[[str], str | None],
    ) -> None:
        self.quotas = {quota.name: quota for quota in quotas}
        self._buckets = {quota.name: OrderedDict[str, Bucket]() for quota in quotas}
        self._organizational = organizational
        self._provider_of = provider_of
        keys: Mapping[Per, Callable[[PolicyRequest], str]] = {
            Per.TENANT: attrgetter("sasl_username"),
            Per.SENDING_DOMAIN: self._sending_domain,
            Per.CLIENT: lambda request: client_network(request.client_address),
            Per.SENDER: lambda request: request.sender.lower(),
            Per.TENANT_PROVIDER: self._tenant_provider,
        }
        """Whose bucket a question concerns; "" is nobody's: mail without a login has no tenant, a bounce no sender."""
        self._rows = [
            (quota, quota.where, keys[quota.per], self._buckets[quota.name], quota.keys // 2) for quota in quotas
        ]
        self._where = any(quota.where is not None for quota in quotas)
        self._by_provider = any(quota.by_provider for quota in quotas)
        self._open: OrderedDict[Message, _Message] = OrderedDict()
        self._given_up: list[_Message] = []
        """Forgotten before they ended; given back when next somebody asks, who knows what time it is."""
        self._changed: dict[Bucket, None] = {}
        self.beyond = dict.fromkeys(self.quotas, 0)
        """Recipients, by quota, that it had no room for, since the start; deferred or only said."""

    # Questions of smtpd.

    def take(self, request: PolicyRequest, message: Message, *, acting: bool, now: float) -> Limited | None:
        """Charge a recipient that this message has not named before; or say why it is not to be taken now.

        One that is deferred takes nothing. Nor does one that would be and is taken all the same (`acting` is false, or
        the quota only warns): so what is said is what would have been done.
        """
        if self._given_up:
            self._give_back_forgotten(now)
        buckets = self._concerned(request, now)
        if not buckets:
            return None
        opened = self._open.get(message) or self._begin(message, now)
        if opened.settled:
            return None
        charged = opened.charged
        limited, worst = None, 0.0
        charge, over = [], []
        for bucket in buckets:
            if charged and bucket.quota.by_message and bucket in charged:
                continue
            if now > bucket.at:  # as drain() does, which is a call
                left = bucket.taken - (now - bucket.at) * bucket.quota.rate
                bucket.taken = max(0.0, left)
            bucket.at = now
            if bucket.taken <= bucket.quota.full:
                charge.append(bucket)
            elif not bucket.quota.defers:
                over.append(bucket)
            elif limited is None or bucket.wait() > worst:
                limited, worst = bucket, bucket.wait()
        if limited is not None:
            opened.asked += not acting
            limited.beyond += 1
            self.beyond[limited.quota.name] += 1
            return _deferring(limited, worst)
        opened.asked += 1
        said = None
        for bucket in charge:
            bucket.taken += 1.0
            bucket.unsettled += 1
            charged[bucket] = charged.get(bucket, 0) + 1
            if bucket.taken >= bucket.quota.warn_at:
                said = _said_once(bucket, _WARNED) or said
            elif bucket.stage and bucket.taken < bucket.quota.burst * (bucket.quota.warn or 1.0) / 2:
                bucket.stage = _BELOW
        for bucket in over:
            bucket.beyond += 1
            self.beyond[bucket.quota.name] += 1
            said = _said_once(bucket, _OVER) or said
        return said

    def settle(self, request: PolicyRequest, message: Message, *, now: float) -> None:
        """The message has ended with so many recipients: give back what was refused later, charge what was not asked.

        Once a message, however often smtpd asks. Nothing is refused here: a message that was let in is let in.
        """
        if self._given_up:
            self._give_back_forgotten(now)
        if not message[1]:
            return
        opened = self._open.get(message) or self._begin(message, now)
        if opened.settled:
            return
        opened.settled = True
        count = request.recipient_count
        for bucket, charged in opened.charged.items():
            bucket.unsettled -= charged
            if charged > count and not bucket.quota.by_message:
                _give_back(bucket, charged - count, since=opened.since, now=now)
            self._changed[bucket] = None
        if count > opened.asked:
            self._charge_unasked(request, count - opened.asked, opened, now)
        opened.charged.clear()

    def forget(self, message: Message) -> None:
        """Its smtpd asks about another message: unless it has ended it was given up, and took nothing."""
        opened = self._open.pop(message, None)
        if opened is not None and not opened.settled:
            self._given_up.append(opened)

    def explain(self, request: PolicyRequest, *, now: float) -> Limited | None:
        """Say whether one more recipient would be deferred now; nothing is changed."""
        limited, worst = None, 0.0
        for bucket in self._concerned(request, now, peek=True):
            seen = Bucket(bucket.quota, bucket.key, now=bucket.at, taken=bucket.taken)
            seen.drain(now)
            if (
                seen.wait() > _ALMOST / seen.quota.rate
                and seen.quota.defers
                and (limited is None or seen.wait() > worst)
            ):
                limited, worst = seen, seen.wait()
        return None if limited is None else _deferring(limited, worst)

    def _sending_domain(self, request: PolicyRequest) -> str:
        return self._organizational(domain_of(request.sender)) if request.sender else ""

    def _provider(self, request: PolicyRequest) -> str:
        return self._provider_of(domain_of(request.recipient)) or ""

    def _tenant_provider(self, request: PolicyRequest) -> str:
        provider = self._provider(request) if request.sasl_username else ""
        return f"{request.sasl_username}@{provider}" if provider else ""

    def _asked(self, request: PolicyRequest) -> Asked:
        return Asked(request, self._provider(request) if self._by_provider else "", self._sending_domain(request))

    def _concerned(self, request: PolicyRequest, now: float, *, peek: bool = False) -> list[Bucket]:
        """The buckets of a question; `peek`: those that there are not are made for the moment alone.

        Which one was asked about last is kept of tables that are half full: in others none is dropped soon.
        """
        asked = self._asked(request) if self._where else None
        found = []
        for quota, where, key_of, buckets, half in self._rows:
            if where is not None and asked is not None and not where(asked):
                continue
            key = key_of(request)
            if not key:
                continue
            bucket = buckets.get(key)
            if bucket is None:
                bucket = Bucket(quota, key, now=now) if peek else self._new(quota, key, now=now)
            elif not peek and len(buckets) > half:
                buckets.move_to_end(key)
            found.append(bucket)
        return found

    def _new(self, quota: Quota, key: str, *, now: float, taken: float = 0.0) -> Bucket:
        buckets = self._buckets[quota.name]
        if len(buckets) >= quota.keys:
            buckets.popitem(last=False)
        bucket = buckets[key] = Bucket(quota, key, now=now, taken=taken)
        return bucket

    def _begin(self, message: Message, now: float) -> _Message:
        while self._open:
            oldest = next(iter(self._open.values()))
            if len(self._open) < MAX_MESSAGES and now - oldest.since < MAX_AGE:
                break
            self._open.popitem(last=False)
            if not oldest.settled:
                self._given_up.append(oldest)
        opened = self._open[message] = _Message(now)
        return opened

    def _charge_unasked(self, request: PolicyRequest, count: int, opened: _Message, now: float) -> None:
        """Recipients whom nobody asked about at RCPT: after a restart of ours, or a bare <postmaster>."""
        for bucket in self._concerned(request, now):
            if bucket.quota.by_message and bucket in opened.charged:
                continue
            bucket.drain(now)
            bucket.taken = max(
                bucket.taken, min(bucket.taken + (1 if bucket.quota.by_message else count), bucket.quota.burst)
            )
            self._changed[bucket] = None

    def _give_back_forgotten(self, now: float) -> None:
        for opened in self._given_up:
            for bucket, charged in opened.charged.items():
                bucket.unsettled -= charged
                _give_back(bucket, charged, since=opened.since, now=now)
        self._given_up.clear()

    # The store, and people.

    def restore(self, row: Taken, *, now: float) -> None:
        """Take a bucket back as it was stored; of a quota that there is no more, nothing."""
        quota = self.quotas.get(row.quota)
        if quota is not None:
            bucket = self._new(quota, row.key, now=row.at, taken=row.taken)
            bucket.drain(now)

    def changed(self) -> list[Taken]:
        """Give what has changed by messages that ended since this was asked last."""
        changed, self._changed = self._changed, {}
        return [
            Taken(bucket.quota.name, bucket.key, max(0.0, bucket.taken - bucket.unsettled), bucket.at)
            for bucket in changed
            if self._buckets[bucket.quota.name].get(bucket.key) is bucket
        ]

    def buckets(self, quota: str = "", *, now: float) -> list[Bucket]:
        """All buckets that are in use, drained, the fullest first. Raises KeyError for a quota that there is not."""
        chosen = [self._buckets[quota]] if quota else self._buckets.values()
        found = [bucket for buckets in chosen for bucket in buckets.values()]
        for bucket in found:
            bucket.drain(now)
        in_use = [bucket for bucket in found if bucket.taken > 0 or bucket.beyond]
        return sorted(in_use, key=lambda bucket: bucket.taken / bucket.quota.burst, reverse=True)

    def reset(self, quota: str, key: str, *, now: float) -> float:
        """Empty a bucket; gives what had been taken. Raises KeyError where there is none."""
        bucket = self._buckets[quota][key]
        bucket.drain(now)
        taken, bucket.taken = bucket.taken, 0.0
        bucket.beyond, bucket.stage = 0, _BELOW
        self._changed[bucket] = None
        return taken

    def keys(self) -> dict[str, int]:
        """Buckets by quota."""
        return {name: len(buckets) for name, buckets in self._buckets.items()}


def _give_back(bucket: Bucket, count: int, *, since: float, now: float) -> None:
    """Give back what a message took at `since` and later, less what would have come back by itself until now.

    Without that share two messages could use the same room: one that is given up after an hour gives back an hour less.
    So never more is let in than the limit says, and sometimes a little less.
    """
    if count > 0:
        bucket.drain(now)
        back = count - max(0.0, now - since) * bucket.quota.rate
        bucket.taken = max(0.0, bucket.taken - max(0.0, back))


def _deferring(bucket: Bucket, wait: float) -> Limited:
    quota = bucket.quota
    text = f"Quota reached: {_limit(quota)} for {_SAID[quota.per]}; there is room again in about {_rounded(wait)}"
    return Limited(DeferIfPermit("4.7.1", text), quota.name, _why(bucket))


def _said_once(bucket: Bucket, stage: int) -> Limited | None:
    """Say that a bucket has got so full, once; again when it was half as full in between."""
    quota = bucket.quota
    share = bucket.taken / quota.burst
    if stage <= bucket.stage or share < quota.warn:
        return None
    bucket.stage = stage
    text = f"quota {quota.name}: {int(share * 100)} % of {_limit(quota)} in use for {_SAID[quota.per]}"
    return Limited(Info(text), quota.name, _why(bucket))


def _why(bucket: Bucket) -> str:
    quota = bucket.quota
    key = ascii(bucket.key[:100])
    return f"quota {quota.name}, {quota.per} {key}: {bucket.taken:.1f} of {quota.burst} in use, {_limit(quota)}"


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
