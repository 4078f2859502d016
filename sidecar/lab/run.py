"""One leg of the lab: name server, providers, a private Postfix, the fleet, with or without the sidecar.

It puts the parts together, lets them run for the scenario's time, stops them and hands the evidence to the oracle.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from random import Random

from sidecar.lab.attachment import Attachment
from sidecar.lab.dns import SINK_HOST, NameServer, addresses, sink_address, zone
from sidecar.lab.faults import happen
from sidecar.lab.fleet import Fleet
from sidecar.lab.maillog import Follower, MailLog
from sidecar.lab.measure import Evidence, Pair
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.lab.provider import Ledger, SimulatedProvider
from sidecar.lab.scenario import NULL_SENDER, Provider, Scenario

RESOLVER = "127.0.0.53"
SUBMISSION_PORT = 2525

HEADER_CHECKS = """\
/^From:/ INFO
/^DKIM-Signature:/ INFO
/^(List-Id|Feedback-ID|X-Campaign(-ID)?|X-Segment):/ INFO
/^(List-Unsubscribe|List-Unsubscribe-Post):/ INFO
"""

_SINK = Provider(name="sender-side", domains=(), mx=(SINK_HOST,), transaction_s=0.0)


class Leg(StrEnum):
    PLAIN = "plain"
    """Postfix alone."""
    SIDECAR = "sidecar"
    QUIET = "quiet"
    """Postfix alone, nobody bursts."""


@dataclass(slots=True)
class Bench:
    """The running parts of one leg."""

    scenario: Scenario
    leg: Leg
    postfix: PrivatePostfix
    names: NameServer
    providers: dict[str, SimulatedProvider]
    ledger: Ledger
    fleet: Fleet
    follower: Follower
    attachment: Attachment | None
    started: float
    """When the fleet began."""
    beside: list[PrivatePostfix] = field(default_factory=list)
    """More instances that a drill has started: their mail counts as well."""
    held_rightly: set[str] = field(default_factory=set)
    """Signing domains that a drill broke itself: no limit fires, and their mail is to be held."""
    times: dict[str, float] = field(default_factory=dict)
    """What a drill measured, seconds by name."""


@contextlib.asynccontextmanager
async def bench(scenario: Scenario, leg: Leg, directory: Path) -> AsyncIterator[Bench]:
    """Set up everything below `directory`, ready to send; all of it is gone afterwards."""
    directory.mkdir(mode=0o755)  # noqa: ASYNC240  # before anything runs
    ledger = Ledger()
    random = Random(scenario.seed)
    providers = {
        provider.name: SimulatedProvider(provider, ledger, scale=scenario.scale, random=random)
        for provider in scenario.provider
    }
    names = NameServer(
        zone(scenario.provider, (sender.spf for sender in scenario.senders() if sender.spf != NULL_SENDER))
    )
    postfix = PrivatePostfix(
        directory / "postfix",
        port=SUBMISSION_PORT,
        main_cf=main_cf_of(scenario, attached=leg is Leg.SIDECAR),
        master_cf="".join(f"{line}\n" for line in scenario.master_cf),
        header_checks=HEADER_CHECKS,
    )
    async with contextlib.AsyncExitStack() as open_now:
        await open_now.enter_async_context(names.serve([RESOLVER, "127.0.0.1"]))
        await serve(providers, scenario, open_now)
        await asyncio.to_thread(postfix.start)
        open_now.push_async_callback(asyncio.to_thread, postfix.abort)
        attachment = None
        if leg is Leg.SIDECAR:
            attachment = Attachment(directory / "sidecar", postfix, scenario.scale, scenario.sidecar)
            open_now.push_async_callback(attachment.stop)
            await attachment.start()
        follower = Follower(postfix.maillog)
        open_now.callback(follower.close)
        yield Bench(
            scenario=scenario,
            leg=leg,
            postfix=postfix,
            names=names,
            providers=providers,
            ledger=ledger,
            fleet=Fleet(scenario, postfix),
            follower=follower,
            attachment=attachment,
            started=time.time(),
        )


async def serve(
    providers: dict[str, SimulatedProvider],
    scenario: Scenario,
    open_now: contextlib.AsyncExitStack,
    network: str = "127.0.0",
) -> None:
    """Have the providers listen at their addresses, and one that takes bounces."""
    address_of = addresses(scenario.provider, network)
    for provider in providers.values():
        hosts = [(host, address_of[host]) for host in provider.provider.mx]
        await open_now.enter_async_context(provider.serve(hosts))
    sink = SimulatedProvider(_SINK, Ledger(), scale=1.0, random=Random(0))
    await open_now.enter_async_context(sink.serve([(SINK_HOST, sink_address(network))]))


@contextlib.asynccontextmanager
async def sending(bench: Bench) -> AsyncIterator[None]:
    """The fleet sends, faults happen, the log is followed, as long as the context lasts."""
    tasks = [asyncio.create_task(bench.follower.run()), asyncio.create_task(bench.fleet.run())]
    tasks += [asyncio.create_task(happen(fault, bench)) for fault in bench.scenario.fault]
    bench.started = time.time()
    try:
        yield
    finally:
        # The fleet's own end first: it writes down what was under way.
        for task in reversed(tasks):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await bench.fleet.stop()
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result


async def conclude(bench: Bench) -> Evidence:
    """Stop the sidecar, then Postfix, and look where every message is."""
    ended = time.time()
    if bench.attachment is not None:
        await bench.attachment.stop()
    for postfix in (bench.postfix, *bench.beside):
        await asyncio.to_thread(postfix.stop)
    bench.follower.catch_up()
    queued = await asyncio.to_thread(still_queued, (bench.postfix, *bench.beside), bench.follower.log)
    return Evidence(
        scenario=bench.scenario,
        submissions=bench.fleet.submissions,
        ledger=bench.ledger,
        log=bench.follower.log,
        queued=queued,
        ended=ended,
        held_rightly=frozenset(bench.held_rightly),
    )


def still_queued(instances: Iterable[PrivatePostfix], log: MailLog) -> frozenset[Pair]:
    """Every recipient that still waits in a queue; also in maildrop, where no log line has named it yet."""
    known = log.message_ids
    pairs = set()
    for postfix in instances:
        for entry in postfix.postqueue():
            message_id = known.get(entry.queue_id) or postfix.message_id(entry.queue_id) or ""
            pairs |= {Pair(message_id.strip("<>"), recipient) for recipient in entry.recipients}
    return frozenset(pairs)


def main_cf_of(scenario: Scenario, *, attached: bool) -> dict[str, str]:
    """The lab's settings: real SMTP by DNS, Postfix's default back-off times divided by the scale."""
    scale = scenario.scale
    settings = {
        "default_transport": "smtp",
        "relay_transport": "relay",
        "minimal_backoff_time": f"{max(1, round(300 / scale))}s",
        "maximal_backoff_time": f"{max(2, round(4000 / scale))}s",
        "queue_run_delay": f"{max(1, round(300 / scale))}s",
        "smtp_host_lookup": "dns",
        "disable_dns_lookups": "no",
    }
    if attached:
        service = "check_policy_service { unix:private/sidecar, timeout=3s, default_action=DUNNO }"
        settings |= {
            "smtpd_recipient_restrictions": f"{service}, permit_mynetworks, reject",
            "smtpd_end_of_data_restrictions": service,
        }
    return settings | {
        name.strip(): value.strip() for name, _, value in (setting.partition("=") for setting in scenario.main_cf)
    }
