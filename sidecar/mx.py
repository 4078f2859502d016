"""MX look-ups in the background: which hosts take the mail of the domains that core does not know yet.

Knows the DNS and how long an answer or a failure holds; which provider a host belongs to is core's to say.
"""

import asyncio
import contextlib
import itertools
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import dns.asyncresolver
import dns.exception
import dns.inet
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from sidecar import own_log
from sidecar.control import CoreRefused, CoreUnreachable

Ask = Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]
"""Asks core; raises CoreUnreachable, CoreRefused."""

TTL_MIN, TTL_MAX = 300.0, 86_400.0
"""Seconds an answer holds, whatever its publisher says: providers change rarely, and some publish 0."""
NEGATIVE_TTL = 900.0
"""Seconds that "no such domain" holds where the answer carries no SOA (RFC 2308 section 5)."""
NEGATIVE_TTL_MAX = 10_800.0
"""Three hours, the longest that RFC 2308 section 5 calls sensible."""
RETRY_FIRST, RETRY_MAX = 30.0, 3600.0
"""Seconds until a failed look-up is tried again: doubles from the one to the other."""
RETRIES = 7
"""Failures in a row until we leave it to core to ask again: about an hour, when core does."""
CONCURRENT = 20
"""Look-ups at a time: quick enough for 10,000 domains in minutes, and no load for a small resolver."""
CONTROL_EVERY = 30.0
"""Seconds between two looks whether the resolver knows any domain."""
_UNDER_WAY_MAX = 1000
_HOSTS_MAX = 20  # a provider shows itself in the first few
_BATCH = 200  # answers a request: far below the longest line that core takes
_LOOKUP_MAX = 5.0  # seconds a query may take, over all name servers


class MxAnswer(NamedTuple):
    domain: str
    hosts: tuple[str, ...]
    """Lower case, without the final dot, best preference first. Empty: the domain takes no mail (null MX of
    RFC 7505, no such domain, no address) or, with `error`, nobody could say."""
    ttl: float
    """Seconds for which asking again is pointless."""
    error: str
    """"" for an answer, else why there is none."""
    null_mx: bool = False
    """No hosts, for the domain says that it takes no mail (RFC 7505)."""


async def look_up(domain: str, resolver: dns.asyncresolver.Resolver) -> MxAnswer:
    """Find the hosts that take mail for `domain` (RFC 5321 section 5.1); never raises for what the DNS does."""
    try:
        name = dns.name.from_text(domain)
    except (dns.exception.DNSException, UnicodeError):
        name = dns.name.root
    if name == dns.name.root or domain.startswith("["):  # no name at all, or an address literal
        return MxAnswer(domain, (), TTL_MAX, "")
    try:
        answer = await resolver.resolve(name, "MX", search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.YXDOMAIN) as error:
        return MxAnswer(domain, (), _negative_ttl(error), "")
    except dns.resolver.NoAnswer as error:
        return await _implicit(domain, name, resolver, _negative_ttl(error))
    except dns.exception.DNSException as error:
        return MxAnswer(domain, (), RETRY_FIRST, _said(error))
    exchanges = sorted((rdata.preference, _host(rdata.exchange)) for rdata in answer)
    hosts = tuple(dict.fromkeys(host for _, host in exchanges if host))[:_HOSTS_MAX]
    ttl = min(max(answer.chaining_result.minimum_ttl, TTL_MIN), TTL_MAX)
    return MxAnswer(domain, hosts, ttl, "", null_mx=not hosts)


async def _implicit(domain: str, name: dns.name.Name, resolver: dns.asyncresolver.Resolver, ttl: float) -> MxAnswer:
    """No MX: the domain's own host takes its mail, if it has an address (RFC 5321 section 5.1)."""
    try:
        addresses = await resolver.resolve_name(name, lifetime=_LOOKUP_MAX, search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return MxAnswer(domain, (), ttl, "")
    except dns.exception.DNSException as error:
        return MxAnswer(domain, (), RETRY_FIRST, _said(error))
    return MxAnswer(domain, (_host(name),) if any(addresses.addresses()) else (), ttl, "")


def _host(name: dns.name.Name) -> str:
    """Write a name as core knows hosts; the root, which a null MX names (RFC 7505 section 3), becomes ""."""
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


def _negative_ttl(error: dns.exception.DNSException) -> float:
    """The lesser of the SOA's own TTL and its minimum field (RFC 2308 section 5), within our limits."""
    for response in _responses(error):
        for rrset in response.authority:
            if rrset.rdtype == dns.rdatatype.SOA:
                ttl: int = min(rrset.ttl, rrset[0].minimum)
                return min(max(ttl, TTL_MIN), NEGATIVE_TTL_MAX)
    return NEGATIVE_TTL


def _responses(error: dns.exception.DNSException) -> list[dns.message.Message]:
    match error:
        case dns.resolver.NXDOMAIN():
            return list(error.responses().values())  # type: ignore[no-untyped-call]  # dnspython leaves it untyped
        case dns.resolver.NoAnswer():
            return [error.response()]  # type: ignore[no-untyped-call]  # as above
        case _:
            return []


def _said(error: dns.exception.DNSException) -> str:
    return "timeout" if isinstance(error, dns.exception.Timeout) else f"{type(error).__name__}: {error}"[:200]


class _Kept(NamedTuple):
    answer: MxAnswer
    until: float
    failures: int


class Sound(NamedTuple):
    """Whether the resolver is to be believed, and until when that need not be asked again."""

    sound: bool
    until: float


class MxMemory:
    """What was answered, for as long as it holds; forgets what was learned longest ago beyond `size` domains."""

    def __init__(self, size: int = 50_000) -> None:
        self._size = size
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._failed: dict[str, float] = {}
        """Domains to look up again, and when."""

    def recall(self, domain: str, *, now: float) -> MxAnswer | None:
        """The answer that still holds, its `ttl` being what is left of it."""
        kept = self._kept.get(domain)
        return kept.answer._replace(ttl=kept.until - now) if kept and now < kept.until else None

    def learn(self, answer: MxAnswer, *, now: float) -> None:
        """Keep an answer; a failure that follows a failure is kept twice as long."""
        before = self._kept.pop(answer.domain, None)
        failures = (before.failures if before else 0) + 1 if answer.error else 0
        ttl = min(RETRY_FIRST * 2 ** min(failures - 1, 20), RETRY_MAX) if answer.error else answer.ttl
        self._kept[answer.domain] = _Kept(answer, now + ttl, failures)
        self._failed.pop(answer.domain, None)
        if 0 < failures < RETRIES and len(self._failed) < _UNDER_WAY_MAX:
            self._failed[answer.domain] = now + ttl
        if len(self._kept) > self._size:
            forgotten, _ = self._kept.popitem(last=False)
            self._failed.pop(forgotten, None)

    def to_retry(self, *, now: float) -> list[str]:
        """Failed domains whose time has come; each is named once."""
        due = [domain for domain, at in self._failed.items() if at <= now]
        for domain in due:
            del self._failed[domain]
        return due


class MxLookups:
    """Asks core what it wants to know, looks it up, and tells core; for ever.

    Core names a domain once and relies on us from then on: what it could not be told is told later, and a
    failed look-up is repeated, until core may be trusted to ask again itself.
    """

    def __init__(
        self,
        ask: Ask,
        resolver: Callable[[], dns.asyncresolver.Resolver],
        *,
        count: Callable[[str], None],
        controls: tuple[str, ...] = (),
        every: float = 1.0,
    ) -> None:
        """`resolver` makes one, anew for each round, so that a changed resolv.conf is followed; `count` is told
        how each look-up ended: "hosts", "none", "error"; `controls`: domains of which one at least takes mail, or else
        what the resolver denies is no answer; `every`: seconds between two questions to core.
        """
        self._ask = ask
        self._resolver = resolver
        self._count = count
        self._every = every
        self._controls = controls
        self._sound = Sound(sound=True, until=0.0)
        self._asking_controls = asyncio.Lock()
        self._memory = MxMemory()
        self._places = asyncio.Semaphore(CONCURRENT)
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._to_tell: dict[str, MxAnswer] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                with contextlib.suppress(CoreUnreachable, CoreRefused):  # `ask` has said so; it will come back
                    await self._round(tasks)
                await self._pause()

    async def _pause(self) -> None:
        """Wait for the next round: sooner when all that was started is done, for core waits for it."""
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=self._every)
            await asyncio.sleep(self._every / 20)  # were core to ask for ever what it was told, we do not spin
        else:
            await asyncio.sleep(self._every)

    async def _round(self, tasks: asyncio.TaskGroup) -> None:
        await self._tell()
        room = _UNDER_WAY_MAX - len(self._under_way)
        wanted = (await self._ask({"command": "wanted-domains", "limit": room}))["domains"]
        now = time.time()
        recalled = {domain: self._memory.recall(domain, now=now) for domain in wanted}
        self._to_tell.update((domain, answer) for domain, answer in recalled.items() if answer)
        unknown = [domain for domain, answer in recalled.items() if not answer]
        self._start([*unknown, *self._memory.to_retry(now=now)], tasks)
        await self._tell()

    def _start(self, domains: list[str], tasks: asyncio.TaskGroup) -> None:
        if domains:
            resolver = self._resolver()
            for domain in domains:
                if domain not in self._under_way:
                    self._under_way[domain] = tasks.create_task(self._look_up(domain, resolver))

    async def _tell(self) -> None:
        while self._to_tell:
            batch = list(itertools.islice(self._to_tell.values(), _BATCH))
            with contextlib.suppress(CoreRefused):  # it would refuse these again
                await self._ask({"command": "learned-mx", "answers": [answer._asdict() for answer in batch]})
            for answer in batch:
                if self._to_tell.get(answer.domain) is answer:
                    del self._to_tell[answer.domain]

    async def _is_sound(self, resolver: dns.asyncresolver.Resolver) -> bool:
        """Whether a resolver that denies a domain knows any that is there: one that is cut off, or filters, may know none."""
        async with self._asking_controls:  # the others wait for the same answer
            if self._controls and time.time() >= self._sound.until:
                answers = [await look_up(control, resolver) for control in self._controls]
                sound = any(answer.hosts for answer in answers)
                if sound is not self._sound.sound:
                    own_log.resolver_judged(self._controls, sound=sound)
                self._sound = Sound(sound, time.time() + CONTROL_EVERY)
        return self._sound.sound

    async def _look_up(self, domain: str, resolver: dns.asyncresolver.Resolver) -> None:
        try:
            async with self._places:
                answer = await look_up(domain, resolver)
                if not (answer.hosts or answer.error or answer.null_mx) and not await self._is_sound(resolver):
                    answer = MxAnswer(domain, (), RETRY_FIRST, f"denied, as {', '.join(self._controls)} are")
            self._memory.learn(answer, now=time.time())
            self._to_tell[domain] = answer
            self._count("error" if answer.error else "hosts" if answer.hosts else "none")
            own_log.looked_up(domain, hosts=answer.hosts, error=answer.error)
        finally:
            del self._under_way[domain]


def system_resolver() -> dns.asyncresolver.Resolver:
    """The resolver of resolv.conf(5); where that is missing or names none, the one on this host, as in libc."""
    try:
        resolver = dns.asyncresolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
    resolver.lifetime = _LOOKUP_MAX
    return resolver


def resolver_at(addresses: tuple[str, ...]) -> Callable[[], dns.asyncresolver.Resolver]:
    """Make resolvers that ask `addresses` ("192.0.2.53" or "127.0.0.1:5353"); none: those of the system.

    Raises ValueError for what is no address.
    """
    if not addresses:
        return system_resolver
    servers = [_name_server(address) for address in addresses]

    def configured() -> dns.asyncresolver.Resolver:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = servers
        resolver.lifetime = _LOOKUP_MAX
        return resolver

    return configured


def _name_server(address: str) -> dns.nameserver.Nameserver:
    host, colon, port = address.rpartition(":")
    if not colon or dns.inet.is_address(address):  # no port; an IPv6 address has colons of its own
        host, port = address, "53"
    host = host.removeprefix("[").removesuffix("]")
    if not dns.inet.is_address(host) or not port.isdecimal():
        raise ValueError(f"{address!r} is no name server; wanted ADDRESS or ADDRESS:PORT, as 127.0.0.1:5353")
    return dns.nameserver.Do53Nameserver(host, int(port))
