"""The running parts of a fleet in the lab: hosts with Postfix and sidecar, their Redis, the senders, the providers.

It puts them together, lets them run, stops them and hands the evidence to the oracle.
"""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any, NamedTuple

from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.lab.attachment import Attachment
from sidecar.lab.dns import NameServer, zone
from sidecar.lab.fleet import Fleet, Submissions
from sidecar.lab.hosts import links
from sidecar.lab.hosts.clock import in_another_time, library
from sidecar.lab.hosts.sentinels import NAME, PORTS, Sentinels
from sidecar.lab.hosts.shared_store import PORT, SLOW_PORT, SharedStore
from sidecar.lab.maillog import Follower, merged
from sidecar.lab.measure import Evidence
from sidecar.lab.patience import longer
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.lab.provider import Ledger, SimulatedProvider
from sidecar.lab.run import HEADER_CHECKS, SUBMISSION_PORT, main_cf_of, serve, still_queued
from sidecar.lab.scenario import Scenario, Sender

_ANSWERS_WITHIN_S = 2.0


class Way(StrEnum):
    """How the hosts reach their Redis."""

    DIRECT = "direct"
    PROXY = "proxy"
    """It delivers late."""
    SENTINELS = "sentinels"
    """They say where it is."""


class Setting(NamedTuple):
    """What is not as usual."""

    way: Way = Way.DIRECT
    ahead: Mapping[int, float] = MappingProxyType({})
    """Seconds by which the clocks of some hosts are ahead, by number."""


@dataclass(slots=True, eq=False)
class LabHost:
    name: str
    number: int
    postfix: PrivatePostfix
    sidecar: Attachment
    senders: Fleet
    follower: Follower
    ahead: float = 0.0
    """Seconds, of its clock."""
    alive: bool = True
    stopped: bool = False
    """Its sidecar is, by a signal."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def status(self) -> dict[str, Any] | None:
        """What its core says of itself; None where it says nothing."""
        if not self.alive or self.stopped:
            return None
        with contextlib.suppress(CoreUnreachable, CoreRefused, TimeoutError):
            return await asyncio.wait_for(self.sidecar.ask("status"), longer(_ANSWERS_WITHIN_S))
        return None

    async def die(self) -> None:
        """Its power is gone: sidecar, deliveries and all; what it holds is on its disk."""
        self.alive = False
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.sidecar.kill()
        await asyncio.to_thread(self.postfix.abort)


@dataclass(slots=True)
class HostsBench:
    scenario: Scenario
    store: SharedStore
    sentinels: Sentinels
    ledger: Ledger
    hosts: Sequence[LabHost]
    directory: Path
    started: float = 0.0
    times: dict[str, float] = field(default_factory=dict)
    """What a drill measured, seconds by name."""

    def here(self) -> list[LabHost]:
        return [host for host in self.hosts if host.alive]

    def cut(self, *hosts: LabHost) -> None:
        """Take the links of these hosts to Redis down."""
        for host in hosts:
            links.pull(self.store.network, host.number)

    def mend(self, *hosts: LabHost) -> None:
        for host in hosts:
            links.plug(self.store.network, host.number)

    @property
    def submitted(self) -> int:
        return sum(len(host.senders.submissions.accepted) for host in self.hosts)


@contextlib.asynccontextmanager
async def hosts_bench(scenario: Scenario, directory: Path, setting: Setting) -> AsyncIterator[HostsBench]:
    """Set up everything below `directory`, ready to send; all of it is gone afterwards."""
    directory.mkdir(mode=0o755)  # noqa: ASYNC240  # before anything runs
    ledger, random = Ledger(), Random(scenario.seed)
    providers = {
        provider.name: SimulatedProvider(provider, ledger, scale=scenario.scale, random=random)
        for provider in scenario.provider
    }
    names = NameServer(zone(scenario.provider, (sender.spf for sender in scenario.senders()), links.PROVIDERS))
    async with contextlib.AsyncExitStack() as open_now:
        for last in range(1, 64):
            links.ip("address", "add", f"{links.PROVIDERS}.{last}/32", "dev", "lo")
        await open_now.enter_async_context(names.serve([links.RESOLVER, "127.0.0.1"]))
        await serve(providers, scenario, open_now, links.PROVIDERS)
        network = open_now.enter_context(links.network())
        links.store_network(network)
        store, sentinels = SharedStore(network, directory), Sentinels(network, directory)
        open_now.callback(store.kill)
        open_now.callback(sentinels.kill)
        hosts = [_host(scenario, number, store, directory, open_now, setting=setting) for number in _numbers(scenario)]
        store.start()
        if setting.way is Way.PROXY:
            await open_now.enter_async_context(store.proxied())
        if setting.way is Way.SENTINELS:
            await asyncio.to_thread(sentinels.start)
        open_now.push_async_callback(_stop, hosts)
        await asyncio.gather(*(_start(host) for host in hosts))
        yield HostsBench(scenario, store, sentinels, ledger, hosts, directory, started=time.time())


async def _start(host: LabHost) -> None:
    await asyncio.to_thread(host.postfix.start)
    await host.sidecar.start()


async def _stop(hosts: Sequence[LabHost]) -> None:
    """Whatever still runs."""
    await asyncio.gather(*(host.sidecar.stop() for host in hosts))
    await asyncio.gather(*(asyncio.to_thread(host.postfix.abort) for host in hosts))


def _numbers(scenario: Scenario) -> range:
    return range(1, scenario.hosts + 1)


def _host(
    scenario: Scenario,
    number: int,
    store: SharedStore,
    directory: Path,
    open_now: contextlib.AsyncExitStack,
    *,
    setting: Setting,
) -> LabHost:
    name = f"mx{number}"
    network = open_now.enter_context(links.network())
    links.to_the_world(network, number)
    links.to_the_store(network, store.network, number)
    own = {
        "myhostname": f"{name}.sender-side.example",
        "mynetworks": "127.0.0.0/8 10.77.0.0/16",
        "inet_interfaces": "all",  # with one named, smtp(8) would send from that
    }
    (directory / name).mkdir(mode=0o755)
    ahead = setting.ahead.get(number, 0.0)
    within = network.within
    if ahead:
        time_of_its_own, imported = in_another_time(ahead, library(directory))
        within, own = (*within, *time_of_its_own), {**own, **imported}
    postfix = PrivatePostfix(
        directory / name / "postfix",
        address=links.mail_address(number),
        port=SUBMISSION_PORT,
        within=within,
        main_cf=own | main_cf_of(scenario, attached=True),
        master_cf="".join(f"{line}\n" for line in scenario.master_cf),
        header_checks=HEADER_CHECKS,
    )
    more = (f'store.redis = "{_url(number, setting.way)}"', f'fleet.host = "{name}"', *scenario.sidecar)
    follower = Follower(postfix.maillog)
    open_now.callback(follower.close)
    return LabHost(
        name,
        number,
        postfix,
        Attachment(directory / name / "sidecar", postfix, scenario.scale, more, within=within),
        Fleet(share_of(scenario, number), postfix),
        follower,
        ahead,
    )


def _url(number: int, way: Way) -> str:
    match way:
        case Way.DIRECT:
            return f"redis://{links.store_address(number)}:{PORT}/0"
        case Way.PROXY:
            return f"redis://{links.store_address(number)}:{SLOW_PORT}/0"
        case Way.SENTINELS:
            return f"sentinel://{','.join(f'{links.ALL_STORES}:{port}' for port in PORTS)}/{NAME}/0"


def share_of(scenario: Scenario, number: int) -> Scenario:
    """The senders' mail that goes through one host, with message ids of its own."""
    return dataclasses.replace(
        scenario,
        seed=1_000 * scenario.seed + number,
        sender=tuple(_share(scenario, number)),
    )


def _share(scenario: Scenario, number: int) -> Iterator[Sender]:
    for sender in scenario.sender:
        burst = (sender.burst + number - 1) // scenario.hosts  # whatever is over goes to the last ones
        if burst or sender.rate:
            yield dataclasses.replace(sender, rate=sender.rate / scenario.hosts, burst=burst)


@contextlib.asynccontextmanager
async def sending(bench: HostsBench) -> AsyncIterator[None]:
    """All senders send and all logs are followed, as long as the context lasts."""
    following = [asyncio.create_task(host.follower.run()) for host in bench.hosts]
    for host in bench.hosts:
        host.tasks.append(asyncio.create_task(host.senders.run()))
    bench.started = time.time()
    try:
        yield
    finally:
        tasks = [task for host in bench.hosts for task in host.tasks] + following
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(host.senders.stop() for host in bench.hosts))
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result


async def conclude(bench: HostsBench) -> Evidence:
    """Stop the sidecars, then each Postfix, and look where every message is."""
    ended = time.time()
    await asyncio.gather(*(host.sidecar.stop() for host in bench.here()))
    await asyncio.gather(*(asyncio.to_thread(host.postfix.stop) for host in bench.here()))
    for host in bench.hosts:
        host.follower.catch_up()
    log = merged(host.follower.log for host in bench.hosts)
    queued = await asyncio.to_thread(still_queued, [host.postfix for host in bench.hosts], log)
    return Evidence(bench.scenario, _all_submissions(bench), bench.ledger, log, queued, ended)


def _all_submissions(bench: HostsBench) -> Submissions:
    whole = Submissions()
    for host in bench.hosts:
        whole.accepted += host.senders.submissions.accepted
        whole.unsure += host.senders.submissions.unsure
        whole.rejected += host.senders.submissions.rejected
    return whole
