"""MX look-ups against a name server of our own: what each kind of answer means, and for how long."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import dns.asyncresolver
import dns.flags
import dns.message
import dns.nameserver
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import mx
from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.mx import MxAnswer, MxLookups, MxMemory

SOA = "example. {ttl} IN SOA ns.example. admin.example. 1 7200 900 1209600 {minimum}"

# What the name server says: (name, type) -> records of the answer, or the name of an rcode; a type of "*" is any.
# What is not here does not exist.
ZONE: Mapping[tuple[str, str], list[str] | str] = {
    ("google.example.", "MX"): [
        "google.example. 3600 IN MX 20 ALT1.aspmx.l.google.com.",
        "google.example. 3600 IN MX 5 aspmx.l.google.com.",
        "google.example. 3600 IN MX 20 alt1.aspmx.L.google.com.",
    ],
    ("alias.example.", "MX"): [
        "alias.example. 60 IN CNAME google.example.",
        "google.example. 900 IN MX 5 aspmx.l.google.com.",
    ],
    ("null.example.", "MX"): ["null.example. 7200 IN MX 0 ."],
    ("short.example.", "MX"): ["short.example. 1 IN MX 10 mx.short.example."],
    ("long.example.", "MX"): ["long.example. 2000000 IN MX 10 mx.long.example."],
    ("many.example.", "MX"): [
        f"many.example. 3600 IN MX {number} mx{number}.many.example." for number in range(10, 40)
    ],
    ("xn--bcher-kva.example.", "MX"): ["xn--bcher-kva.example. 3600 IN MX 10 mx.xn--bcher-kva.example."],
    ("implicit.example.", "*"): [],
    ("implicit.example.", "A"): ["implicit.example. 3600 IN A 192.0.2.1"],
    ("implicit6.example.", "*"): [],
    ("implicit6.example.", "AAAA"): ["implicit6.example. 3600 IN AAAA 2001:db8::1"],
    ("addressless.example.", "*"): [],
    ("half.example.", "*"): [],
    ("half.example.", "A"): "SERVFAIL",
    ("broken.example.", "*"): "SERVFAIL",
    ("refused.example.", "*"): "REFUSED",
    ("silent.example.", "*"): "",
}


class NameServer(asyncio.DatagramProtocol):
    """Answers from ZONE, and remembers what it was asked."""

    def __init__(self, soa: str) -> None:
        self.soa = soa
        self.asked: Counter[str] = Counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        query = dns.message.from_wire(data)
        name, kind = query.question[0].name.to_text().lower(), dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked[f"{name} {kind}"] += 1
        records = ZONE.get((name, kind), ZONE.get((name, "*"), "NXDOMAIN"))
        if records == "":
            return
        response = dns.message.make_response(query, recursion_available=True)
        if isinstance(records, str):
            response.set_rcode(dns.rcode.from_text(records))
        else:
            for record in records:
                owner, ttl, _, rdtype, rdata = record.split(" ", 4)
                rrset = dns.rrset.from_text(owner, int(ttl), "IN", rdtype, rdata)
                found = response.find_rrset(response.answer, rrset.name, rrset.rdclass, rrset.rdtype, create=True)
                found.update(rrset)  # type: ignore[no-untyped-call]  # dnspython leaves it untyped
        if self.soa and not response.answer:
            owner, ttl, _, rdtype, rdata = self.soa.split(" ", 4)
            response.authority.append(dns.rrset.from_text(owner, int(ttl), "IN", rdtype, rdata))
        self.transport.sendto(response.to_wire(), addr)


@asynccontextmanager
async def name_server(soa: str = "") -> AsyncIterator[tuple[NameServer, dns.asyncresolver.Resolver]]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: NameServer(soa), local_addr=("127.0.0.1", 0)
    )
    host, port = transport.get_extra_info("sockname")
    resolver = mx.resolver_at((f"{host}:{port}",))()
    resolver.lifetime = 0.3
    try:
        yield server, resolver
    finally:
        transport.close()


def looked_up(domain: str, soa: str = "") -> MxAnswer:
    async def ask() -> MxAnswer:
        async with name_server(soa) as (_, resolver):
            return await mx.look_up(domain, resolver)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("domain", "hosts", "ttl"),
    [
        ("google.example", ("aspmx.l.google.com", "alt1.aspmx.l.google.com"), 3600),
        ("GOOGLE.example.", ("aspmx.l.google.com", "alt1.aspmx.l.google.com"), 3600),
        ("alias.example", ("aspmx.l.google.com",), mx.TTL_MIN),
        ("null.example", (), 7200),
        ("short.example", ("mx.short.example",), mx.TTL_MIN),
        ("long.example", ("mx.long.example",), mx.TTL_MAX),
        ("many.example", tuple(f"mx{number}.many.example" for number in range(10, 30)), 3600),
        ("bücher.example", ("mx.xn--bcher-kva.example",), 3600),
        ("implicit.example", ("implicit.example",), mx.NEGATIVE_TTL),
        ("implicit6.example", ("implicit6.example",), mx.NEGATIVE_TTL),
        ("addressless.example", (), mx.NEGATIVE_TTL),
        ("nowhere.example", (), mx.NEGATIVE_TTL),
        ("[192.0.2.1]", (), mx.TTL_MAX),
        ("", (), mx.TTL_MAX),
        (".", (), mx.TTL_MAX),
        ("a..b", (), mx.TTL_MAX),
        ("x" * 64 + ".example", (), mx.TTL_MAX),
        ("lone\udc80.example", (), mx.TTL_MAX),
    ],
)
def test_answer(domain: str, hosts: tuple[str, ...], ttl: float) -> None:
    assert looked_up(domain) == MxAnswer(domain, hosts, ttl, "", null_mx=domain == "null.example")


@pytest.mark.parametrize(
    ("domain", "says"),
    [
        ("broken.example", "SERVFAIL"),
        ("refused.example", "REFUSED"),
        ("half.example", "SERVFAIL"),
        ("silent.example", "timeout"),
    ],
)
def test_no_answer_is_not_an_answer(domain: str, says: str) -> None:
    answer = looked_up(domain)

    assert answer.hosts == ()
    assert says in answer.error


@pytest.mark.parametrize(
    ("ttl", "minimum", "held"),
    [
        (3600, 7200, 3600),
        (7200, 3600, 3600),
        (86_400, 86_400, mx.NEGATIVE_TTL_MAX),
        (5, 3600, mx.TTL_MIN),
    ],
)
@pytest.mark.parametrize("domain", ["nowhere.example", "addressless.example"])
def test_the_soa_says_how_long_nothing_holds(domain: str, ttl: int, minimum: int, held: float) -> None:
    assert looked_up(domain, SOA.format(ttl=ttl, minimum=minimum)).ttl == held


FAILED = MxAnswer("broken.example", (), mx.RETRY_FIRST, "SERVFAIL")
FOUND = MxAnswer("google.example", ("aspmx.l.google.com",), 3600, "")


def test_an_answer_holds_for_its_ttl() -> None:
    memory = MxMemory()
    assert memory.recall("google.example", now=0) is None
    memory.learn(FOUND, now=1000)

    assert memory.recall("google.example", now=1000) == FOUND
    assert memory.recall("google.example", now=4500) == FOUND._replace(ttl=100)
    assert memory.recall("google.example", now=4600) is None


def test_failures_are_kept_twice_as_long_each_time_until_an_answer_comes() -> None:
    memory, now, waits = MxMemory(), 0.0, []
    for _ in range(10):
        memory.learn(FAILED, now=now)
        kept = memory.recall(FAILED.domain, now=now)
        assert kept is not None
        waits.append(kept.ttl)
        now += kept.ttl
    assert waits == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]

    memory.learn(FOUND._replace(domain=FAILED.domain), now=now)
    memory.learn(FAILED, now=now + 3600)
    assert memory.recall(FAILED.domain, now=now + 3600) == FAILED._replace(ttl=30)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=60))
def test_memory_is_bounded_and_keeps_the_newest(learned: list[tuple[int, bool]]) -> None:
    memory = MxMemory(size=5)
    for number, failed in learned:
        memory.learn(MxAnswer(f"d{number}.example", (), 3600, "timeout" if failed else ""), now=0)

    newest = list(dict.fromkeys(f"d{number}.example" for number, _ in reversed(learned)))[:5]
    kept = [f"d{number}.example" for number in range(21) if memory.recall(f"d{number}.example", now=1)]
    assert sorted(kept) == sorted(newest)


class Core:
    """A core that wants `domains` and writes down what it is told; it names each domain once, as the real one does.

    `away` is raised once for each of its entries.
    """

    def __init__(self, domains: list[str], *, away: list[Exception] | None = None, enough: int = 0) -> None:
        self.wanted = domains
        self.away = away or []
        self.enough = enough or len(domains)
        self.told: list[dict[str, Any]] = []
        self.told_enough = asyncio.Event()

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.away:
            raise self.away.pop(0)
        if request["command"] == "wanted-domains":
            named, self.wanted = self.wanted[: request["limit"]], self.wanted[request["limit"] :]
            return {"ok": True, "domains": named}
        assert request["command"] == "learned-mx"
        self.told += request["answers"]
        if len(self.told) >= self.enough:
            self.told_enough.set()
        return {"ok": True}


async def lookups_until_told(
    core: Core, *, lifetime: float = 0.3, controls: tuple[str, ...] = ()
) -> tuple[Counter[str], NameServer]:
    """Run the look-ups until core has been told enough."""
    counts: Counter[str] = Counter()
    async with name_server() as (server, resolver), asyncio.timeout(60):
        resolver.lifetime = lifetime
        lookups = MxLookups(
            core.answer, lambda: resolver, count=lambda kind: counts.update([kind]), controls=controls, every=0.02
        )
        running = asyncio.create_task(lookups.run())
        await core.told_enough.wait()
        running.cancel()
        await asyncio.wait([running])
    return counts, server


def test_core_is_told_what_it_wants_to_know() -> None:
    async def tell() -> None:
        core = Core(["google.example", "nowhere.example", "broken.example"])
        counts, _ = await lookups_until_told(core)

        told = {answer["domain"]: answer for answer in core.told}
        assert told["google.example"]["hosts"] == ("aspmx.l.google.com", "alt1.aspmx.l.google.com")
        assert told["google.example"]["error"] == ""
        assert told["nowhere.example"]["hosts"] == ()
        assert "SERVFAIL" in told["broken.example"]["error"]
        assert counts == {"hosts": 1, "none": 1, "error": 1}

    asyncio.run(tell())


@pytest.mark.parametrize(
    ("controls", "denied"),
    [(("away.example", "google.example"), False), (("away.example", "broken.example"), True), ((), False)],
)
def test_what_a_resolver_denies_counts_if_it_knows_a_domain_that_is_there(
    controls: tuple[str, ...], caplog: pytest.LogCaptureFixture, *, denied: bool
) -> None:
    async def tell() -> None:
        core = Core(["nowhere.example", "addressless.example", "null.example", "google.example"])
        _, server = await lookups_until_told(core, controls=controls)
        told = {answer["domain"]: answer for answer in core.told}
        for domain in ("nowhere.example", "addressless.example"):
            assert told[domain]["hosts"] == ()
            assert bool(told[domain]["error"]) is denied
        assert told["null.example"]["null_mx"]
        assert not told["null.example"]["error"], "its own word"
        assert told["google.example"]["hosts"]
        assert server.asked["away.example. MX"] == len(controls[:1]), "asked for once"

    asyncio.run(tell())
    assert ("denies away.example, broken.example" in caplog.text) is denied


def test_a_core_that_asks_again_is_told_without_asking_the_dns() -> None:
    class Forgetful(Core):
        async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
            if request["command"] == "learned-mx":
                self.wanted += [answer["domain"] for answer in request["answers"]]
            return await super().answer(request)

    async def tell() -> None:
        core = Forgetful(["google.example", "broken.example"], enough=10)
        _, server = await lookups_until_told(core)

        assert server.asked["google.example. MX"] == 1
        assert server.asked["broken.example. MX"] == 1
        assert all(0 < answer["ttl"] <= 3600 for answer in core.told)

    asyncio.run(tell())


def test_what_core_could_not_be_told_is_told_later() -> None:
    class GoesAway(Core):
        async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
            if request["command"] == "learned-mx" and not self.told and not self.away:
                self.away = [CoreUnreachable("away") for _ in range(3)]
                self.enough, self.told = 2, [{"domain": "not told"}]
            return await super().answer(request)

    async def tell() -> None:
        core = GoesAway(["google.example"])
        _, server = await lookups_until_told(core)

        assert [answer["domain"] for answer in core.told] == ["not told", "google.example"]
        assert server.asked["google.example. MX"] == 1

    asyncio.run(tell())


def test_what_core_refuses_is_not_told_for_ever() -> None:
    class Refuses(Core):
        async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
            if request["command"] == "learned-mx" and request["answers"][0]["domain"] == "google.example":
                self.wanted = ["nowhere.example"]
                raise CoreRefused("not that")
            return await super().answer(request)

    async def tell() -> None:
        core = Refuses(["google.example"], enough=1)
        await lookups_until_told(core)
        assert [answer["domain"] for answer in core.told] == ["nowhere.example"]

    asyncio.run(tell())


def test_a_failed_look_up_is_repeated_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "RETRY_FIRST", 0.01)

    async def tell() -> None:
        core = Core(["broken.example"], enough=4)
        _, server = await lookups_until_told(core)
        assert server.asked["broken.example. MX"] >= 4

    asyncio.run(tell())


def test_a_failure_is_repeated_a_few_times_and_then_left_to_core() -> None:
    memory, now, repeated = MxMemory(), 0.0, 0
    memory.learn(FAILED, now=now)
    while repeated < 100:
        kept = memory.recall(FAILED.domain, now=now)
        assert kept is not None
        assert memory.to_retry(now=now + kept.ttl - 1) == []
        now += kept.ttl
        if memory.to_retry(now=now) != [FAILED.domain]:
            break
        repeated += 1
        memory.learn(FAILED, now=now)
    assert repeated == mx.RETRIES - 1


def test_what_was_answered_is_not_repeated() -> None:
    memory = MxMemory()
    memory.learn(FAILED, now=0)
    memory.learn(FOUND._replace(domain=FAILED.domain), now=10)
    assert memory.to_retry(now=1000) == []


def test_a_core_that_is_away_is_asked_again() -> None:
    async def tell() -> None:
        core = Core(["google.example"], away=[CoreUnreachable("away"), CoreRefused("not yet"), CoreUnreachable("away")])
        await lookups_until_told(core)
        assert [answer["domain"] for answer in core.told] == ["google.example"]

    asyncio.run(tell())


def test_one_silent_name_server_keeps_nobody_else_waiting() -> None:
    async def tell() -> None:
        core = Core(["silent.example", *[f"d{number}.google.example" for number in range(300)]], enough=300)
        await lookups_until_told(core, lifetime=60)
        assert "silent.example" not in [answer["domain"] for answer in core.told]

    asyncio.run(tell())


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("192.0.2.53", "192.0.2.53", 53),
        ("127.0.0.1:5353", "127.0.0.1", 5353),
        ("2001:db8::53", "2001:db8::53", 53),
        ("[2001:db8::53]:5353", "2001:db8::53", 5353),
    ],
)
def test_name_servers_by_address(address: str, host: str, port: int) -> None:
    server = mx.resolver_at((address,))().nameservers[0]

    assert isinstance(server, dns.nameserver.Do53Nameserver)
    assert (server.address, server.port) == (host, port)


@pytest.mark.parametrize("address", ["", "ns.example", "127.0.0.1:", "127.0.0.1:dns", "[::1", "::1:x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no name server; wanted ADDRESS or ADDRESS:PORT"):
        mx.resolver_at((address,))


def test_without_addresses_the_system_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def unconfigured(*, configure: bool = True) -> dns.asyncresolver.Resolver:
        if configure:
            raise dns.resolver.NoResolverConfiguration
        return resolver_of_dnspython(configure=False)

    assert mx.resolver_at(()) is mx.system_resolver
    resolver_of_dnspython = dns.asyncresolver.Resolver
    monkeypatch.setattr(dns.asyncresolver, "Resolver", unconfigured)
    assert mx.system_resolver().nameservers == ["127.0.0.1"]
