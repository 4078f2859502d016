"""The buckets of all quotas: who has taken how much, and which of them go when there are too many.

Knows when a recipient is charged and what is given back. Nothing is ever waited for.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv6Network
from operator import attrgetter
from typing import Final, TypeAlias

from parsers.address import domain_of
from parsers.policy_protocol import PolicyRequest
from policies.bucket import Bucket, Buckets, Group, One, Open, Taken
from policies.quota import Asked, Limited, Per, Quota, deferring

MAX_MESSAGES = 50_000
MAX_AGE: Final = 1_200.0
"""Messages between their first RCPT and their end: beyond so many, or after so many seconds (or half as many), what they
took is given back. One that ends later all the same is charged then."""


@lru_cache(maxsize=8_192)
def client_network(address: str) -> str:
    """An IPv4 address itself, of an IPv6 address its /64; what is neither as it is."""
    if ":" not in address:
        return address
    try:
        return str(IPv6Network((address, 64), strict=False))
    except ValueError:
        return address


_LEAST_PART: Final = 1e-6
"""A bucket of nothing would never have room again, and of that no time can be told."""

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
        self._organizational_of = lru_cache(maxsize=8_192)(lambda domain: organizational(domain.lower().rstrip(".")))
        self._provider_of = provider_of
        keys: Mapping[Per, Callable[[PolicyRequest], str]] = {
            Per.TENANT: attrgetter("sasl_username"),
            Per.SENDING_DOMAIN: self._sending_domain,
            Per.CLIENT: lambda request: client_network(request.client_address),
            Per.SENDER: lambda request: request.sender.lower(),
            Per.TENANT_PROVIDER: self._tenant_provider,
        }
        grouped: dict[tuple[object, ...], list[Quota]] = {}
        for quota in quotas:
            grouped.setdefault((quota.per, quota.keys, quota.name if quota.where else ""), []).append(quota)
        groups = [Group(tuple(each), keys[each[0].per]) for each in grouped.values()]
        self._group_of = {quota.name: group for group in groups for quota in group.quotas}
        self._plain = [group for group in groups if not _asks_for_recipient(group.quotas[0])]
        self._of_recipient = [group for group in groups if _asks_for_recipient(group.quotas[0])]
        self._by_provider = any(quota.by_provider for quota in quotas)
        self._open: dict[Message, One | Open] = {}
        """Messages that have not ended."""
        self._given_up: list[Open] = []
        """Before they ended; given back when next somebody asks, who knows what time it is."""
        self._old: list[Message] = []
        """Those that were open when it was swept last."""
        self._swept = 0.0
        self._settled: list[Buckets] = []
        self._changed: dict[Bucket, None] = {}
        self._dropped: dict[tuple[str, str], None] = {}
        self.pressed: dict[Bucket, None] = {}
        """Those of fleet quotas that may need a larger part, since somebody looked."""
        self.beyond = dict.fromkeys(self.quotas, 0)
        """Recipients, by quota, that it had no room for, since the start; deferred or only said."""

    # Questions of smtpd. What nearly all mail goes through is written out: a call costs as much as two buckets.

    def take(self, request: PolicyRequest, message: Message, acting: bool, now: float) -> Limited | None:  # noqa: FBT001  # by name it takes longer
        """Charge a recipient that this message has not named before; or say why it is not to be taken now.

        One that is deferred takes nothing. Nor does one that would be and is taken all the same (`acting` is false, or
        the quota only warns): so what is said is what would have been done.
        """
        if self._given_up:
            self._give_back_given_up(now)
        opened = self._open.get(message)
        if opened is None:
            if len(self._open) >= MAX_MESSAGES or not 0 <= now - self._swept < MAX_AGE / 2:
                self._sweep(now)
            buckets: Buckets = ()
            for group in self._plain:
                key = group.key_of(request)
                if key:
                    buckets += group.buckets.get(key) or self._new(group, key, now)
        else:
            if isinstance(opened, tuple):
                opened = self._open[message] = Open(*opened, recipients=1)
            buckets = opened.further if opened.begun else opened.first
        if self._of_recipient:
            return self._take_with_care(request, message, opened or Open(now, buckets), acting=acting, now=now)
        for bucket in buckets:
            past = now - bucket.at
            left = bucket.taken - past * bucket.rate if past > 0.0 else bucket.taken  # as level_at()
            if left > bucket.easy:
                break
            bucket.taken = left + 1.0 if left > 0.0 else 1.0
            bucket.at = now
            bucket.unsettled += 1
        else:
            if opened is None:
                self._open[message] = now, buckets
            else:
                opened.whole = opened.whole or not opened.begun
                opened.more += opened.begun
                opened.begun = True
                opened.asked += 1
            return None
        for each in buckets:
            if each is bucket:
                break
            each.taken -= 1.0
            each.unsettled -= 1
        return self._take_with_care(request, message, opened or Open(now, buckets), acting=acting, now=now)

    def settle(self, request: PolicyRequest, message: Message, now: float) -> None:
        """The message has ended with so many recipients: give back what was refused later, charge what was not asked.

        To be told once a message. Nothing is refused here: a message that was let in is let in.
        """
        opened = self._open.pop(message, None)
        if not isinstance(opened, tuple) or request.recipient_count != 1:
            self._settle_with_care(request, opened, now)
            return
        _, buckets = opened
        for bucket in buckets:
            bucket.unsettled -= 1
        self._settled.append(buckets)

    def forget(self, message: Message) -> None:
        """It was given up before its end: it takes nothing."""
        opened = self._open.pop(message, None)
        if opened is not None:
            self._given_up.append(Open(*opened, recipients=1) if isinstance(opened, tuple) else opened)

    def explain(self, request: PolicyRequest, *, now: float) -> Limited | None:
        """Say whether one more recipient would be deferred now; nothing is changed."""
        limited, longest = None, 0.0
        for group in (*self._plain, *self._concerning(request)):
            for bucket in group.buckets.get(group.key_of(request), ()):
                level = bucket.level_at(now)
                wait = bucket.wait(level)
                if bucket.quota.defers and level > bucket.quota.full and (limited is None or wait > longest):
                    limited, longest = deferring(bucket.quota, bucket.key, level, wait), wait
        return limited

    def _take_with_care(
        self, request: PolicyRequest, message: Message, opened: Open, *, acting: bool, now: float
    ) -> Limited | None:
        """Look at each bucket: some may be nearly full, or warn, or ask who the recipient is."""
        limited, longest = None, 0.0
        charge, over = [], []
        for bucket in self._buckets_of(request, opened, now):
            bucket.drain(now)
            level = bucket.taken
            if bucket.quota.fleet:
                self.pressed[bucket] = None
            if level <= bucket.quota.full:
                charge.append(bucket)
            elif not bucket.quota.defers:
                over.append(bucket)
            elif limited is None or bucket.wait(level) > longest:
                limited, longest = bucket, bucket.wait(level)
        if limited is None or not acting:
            opened.asked += 1
            self._open[message] = opened
        if limited is not None:
            self._count_beyond(limited)
            return deferring(limited.quota, limited.key, limited.taken, longest)
        opened.begun = True
        said = None
        for bucket in charge:
            opened.others[bucket] += 1
            said = bucket.charge() or said
        for bucket in over:
            self._count_beyond(bucket)
            said = bucket.say_beyond() or said
        return said

    def _buckets_of(self, request: PolicyRequest, opened: Open, now: float) -> list[Bucket]:
        """All that a recipient concerns, but those that count messages and have this one already."""
        found = list(opened.further if opened.begun else opened.first)
        for group in self._concerning(request):
            key = group.key_of(request)
            buckets = group.buckets.get(key) or self._new(group, key, now) if key else ()
            found += [bucket for bucket in buckets if not bucket.quota.by_message or bucket not in opened.others]
        return found

    def _count_beyond(self, bucket: Bucket) -> None:
        bucket.beyond += 1
        self.beyond[bucket.quota.name] += 1

    def _settle_with_care(self, request: PolicyRequest, opened: One | Open | None, now: float) -> None:
        """Of more recipients than one, or of some that nobody asked about."""
        if opened is None:
            opened = Open(now, ())
        elif isinstance(opened, tuple):
            opened = Open(*opened, recipients=1)
        count = request.recipient_count
        charged = opened.charged()
        for bucket, taken in charged.items():
            bucket.unsettled -= taken
            if taken > count and not bucket.quota.by_message:
                bucket.give_back(taken - count, since=opened.since, now=now)
            self._changed[bucket] = None
        if count > opened.asked:
            self._charge_unasked(request, count - opened.asked, charged, now)

    def _charge_unasked(self, request: PolicyRequest, count: int, charged: Mapping[Bucket, int], now: float) -> None:
        """Recipients whom nobody asked about at RCPT: after a restart of ours, or a bare <postmaster>."""
        keyed = [(group, group.key_of(request)) for group in (*self._plain, *self._concerning(request))]
        found = [group.buckets.get(key) or self._new(group, key, now) for group, key in keyed if key]
        for bucket in itertools.chain.from_iterable(found):
            by_message = bucket.quota.by_message
            if by_message and bucket in charged:
                continue
            bucket.drain(now)
            room = max(0.0, bucket.quota.capacity - bucket.taken)
            bucket.taken += min(1 if by_message else count, room)
            self._changed[bucket] = None

    def _give_back_given_up(self, now: float) -> None:
        for opened in self._given_up:
            for bucket, taken in opened.charged().items():
                bucket.unsettled -= taken
                bucket.give_back(taken, since=opened.since, now=now)
        self._given_up.clear()

    # Who is meant.

    def _sending_domain(self, request: PolicyRequest) -> str:
        _, at, domain = request.sender.rpartition("@")
        return self._organizational_of(domain) if at else ""

    def _provider(self, request: PolicyRequest) -> str:
        return self._provider_of(domain_of(request.recipient)) or ""

    def _tenant_provider(self, request: PolicyRequest) -> str:
        provider = self._provider(request) if request.sasl_username else ""
        return f"{request.sasl_username}@{provider}" if provider else ""

    def _concerning(self, request: PolicyRequest) -> list[Group]:
        """Groups that are asked for each recipient, and count this one."""
        if not self._of_recipient:
            return []
        provider = self._provider(request) if self._by_provider else ""
        asked = Asked(request, provider, self._sending_domain(request))
        return [group for group in self._of_recipient if group.where is None or group.where(asked)]

    def _new(self, group: Group, key: str, now: float) -> Buckets:
        if len(group.buckets) >= group.keys:
            for bucket in group.buckets.pop(group.unused()):
                self._drop(bucket)
        buckets = group.buckets[key] = tuple(Bucket(quota, key, now=now) for quota in group.quotas)
        return buckets

    def _drop(self, bucket: Bucket) -> None:
        bucket.gone = True
        self._dropped[bucket.quota.name, bucket.key] = None

    def _sweep(self, now: float) -> None:
        """Give up on messages of which nobody has heard the end: those that were open at the last time already."""
        full = len(self._open) >= MAX_MESSAGES
        for message in list(self._open)[: MAX_MESSAGES // 2] if full else self._old:
            self.forget(message)
        self._give_back_given_up(now)
        self._old, self._swept = list(self._open), now

    # The store, and people.

    def restore(self, row: Taken, *, now: float) -> None:
        """Take a bucket back as it was stored, full at most; of a quota that there is no more, nothing."""
        group = self._group_of.get(row.quota)
        if group is None:
            self._dropped[row.quota, row.key] = None
            return
        for bucket in group.buckets.get(row.key) or self._new(group, row.key, row.at):
            if bucket.quota.name == row.quota:
                bucket.taken, bucket.at = min(row.taken, bucket.quota.burst), row.at
                bucket.drain(now)

    def changed(self) -> list[Taken]:
        """Give what has changed since this was asked last, by messages that ended; and what is gone."""
        settled, self._settled = self._settled, []
        changed, self._changed = self._changed, {}
        dropped, self._dropped = self._dropped, {}
        changed.update(dict.fromkeys(itertools.chain.from_iterable(settled)))
        return [
            *(Taken(quota, key, 0.0, 0.0) for quota, key in dropped),
            *(
                Taken(bucket.quota.name, bucket.key, max(0.0, bucket.taken - bucket.unsettled), bucket.at)
                for bucket in changed
                if not bucket.gone
            ),
        ]

    def buckets(self, quota: str = "", *, now: float) -> list[Bucket]:
        """All buckets that are in use, drained, the fullest first. Raises KeyError for a quota that there is not."""
        groups = [self._group_of[quota]] if quota else dict.fromkeys(self._group_of.values())
        found = [bucket for group in groups for buckets in group.buckets.values() for bucket in buckets]
        if quota:
            found = [bucket for bucket in found if bucket.quota.name == quota]
        for bucket in found:
            bucket.drain(now)
        in_use = [bucket for bucket in found if bucket.taken > 0 or bucket.beyond]
        return sorted(in_use, key=lambda bucket: bucket.taken / bucket.quota.burst, reverse=True)

    def reset(self, quota: str, key: str, *, now: float) -> float:
        """Begin a bucket anew, also for messages under way; gives what was in use. Raises KeyError where there is none."""
        group = self._group_of[quota]
        buckets = group.buckets[key]
        (bucket,) = (each for each in buckets if each.quota.name == quota)
        bucket.gone = True
        fresh = Bucket(bucket.quota, key, now=now)
        group.buckets[key] = tuple(fresh if each is bucket else each for each in buckets)
        self._changed[fresh] = None
        return bucket.level_at(now)

    # A fleet's.

    def take_part(self, parts: Mapping[str, float], *, now: float) -> None:
        """Have each bucket of fleet quotas be that part of the whole, but those that `resize` gave another one."""
        for group in dict.fromkeys(self._group_of[name] for name in parts):
            before = group.quotas
            group.quotas = tuple(
                replace(quota, part=max(parts[quota.name], _LEAST_PART)) if quota.name in parts else quota
                for quota in before
            )
            self.quotas.update((quota.name, quota) for quota in group.quotas)
            for buckets in group.buckets.values():
                for bucket, old, new in zip(buckets, before, group.quotas, strict=True):
                    if bucket.quota is old:
                        bucket.resize(new, now=now)

    def resize(self, quota: str, key: str, part: float | None, *, now: float) -> None:
        """Give one bucket a part of its own; None: that of all others. Nothing where it is gone."""
        group = self._group_of[quota]
        for bucket in group.buckets.get(key, ()):
            if bucket.quota.name == quota:
                common = self.quotas[quota]
                bucket.resize(common if part is None else replace(common, part=max(part, _LEAST_PART)), now=now)

    def bucket(self, quota: str, key: str) -> Bucket | None:
        group = self._group_of[quota]
        return next((bucket for bucket in group.buckets.get(key, ()) if bucket.quota.name == quota), None)

    def keys(self) -> dict[str, int]:
        """Buckets by quota."""
        return {name: len(group.buckets) for name, group in self._group_of.items()}


def _asks_for_recipient(quota: Quota) -> bool:
    """Whose bucket it is, or whether it counts at all, may be another answer for each recipient."""
    return quota.where is not None or quota.per is Per.TENANT_PROVIDER
