"""The core process: log in, decisions out; policy sockets, control socket, and the only hand on core.db.

It builds its parts in order and runs their loops until it is told to stop. No network but inherited
sockets, and neither pandas nor an HTTP client: a slow answer of the outside world never delays a policy answer.
"""

import asyncio
import contextlib
import functools
import gc
import itertools
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

import parsers.expression_grammar  # noqa: F401  # now, and not while a reload brings the first condition
from parsers.log import LogReader
from parsers.postfix import compile_all
from policies import audit
from policies.access import Access
from policies.admission import Admission
from policies.engine import Engine
from policies.listing import Listing, Queued
from policies.sent_as import HOUR, KEPT
from policies.watching import Watching
from sidecar import mail_host, own_log, own_tables, pools, postfix, rules
from sidecar.answers import Answers
from sidecar.config import DEFAULT_PATH, NOWHERE, Config, Mode, StoreConfig
from sidecar.control import serve_control
from sidecar.core_parts import Lag, Parts
from sidecar.fleet import joining
from sidecar.hands import Hands
from sidecar.hygiene import open_hygiene
from sidecar.ledger import Ledger
from sidecar.local_time import local_zone
from sidecar.log_batch import BATCH_LINES, Batch
from sidecar.log_source import follow
from sidecar.policyd import serve
from sidecar.queue_client import HelperUnavailable, QueueClient
from sidecar.quota import QuotaBook, open_quotas, read_quotas
from sidecar.reload import Reload, Source
from sidecar.rerouting import Rerouting, lead_away
from sidecar.routes import routes_of, routing_of
from sidecar.rows import restore
from sidecar.site import check_strategies, engine_settings, listeners, wiring
from sidecar.store import Store, StoreUnavailable
from sidecar.suppression import Suppression, open_suppression
from sidecar.systemd import inherited_sockets, notify, watchdog_interval
from sidecar.transport_table import TransportTable

_LOG = logging.getLogger("sidecar.core")

COMMIT_EVERY = 0.5
"""Seconds of facts that a crash may make us read again."""
HEARTBEAT_EVERY = 2.0
FAR_HEARTBEAT_EVERY = 10.0
"""Seconds between two signs of life to another host."""
RECONCILE_EVERY = 60.0
PRUNE_EVERY = 600.0
TABLE_EVERY = 60.0
_HEAD = 400
"""Bytes of a line in which its host is named: a stamp stands before it, or an envelope of JSON."""
ANSWERS_TOLD_EVERY = 60.0
"""Seconds of routes and refusals in one row of the audit."""


COMPLAINTS_FOR = 60 * 86_400.0
"""Seconds after a delivery in which a complaint about it counts for its canary."""


async def run(config: Config, source: Source) -> None:
    """Serve until SIGTERM or SIGINT; on SIGHUP the configuration is read again from `source`.

    Raises ConfigError, PostfixError, RuleError or StoreError when it cannot begin.
    """
    async with _built(config, source.path or DEFAULT_PATH) as parts:
        stop, wake, lag = asyncio.Event(), asyncio.Event(), Lag()
        if parts.fleet is not None:
            parts.fleet.presences.describe = functools.partial(joining.presence, parts.fleet.host.name, parts, lag)
        reload = Reload(parts, source)
        answers = Answers(parts, lag, reload, wake.set)
        if parts.commands is not None:
            parts.commands.do = answers.from_fleet
            if parts.shared_suppressions is not None:
                parts.shared_suppressions.commands = parts.commands
        control = await serve_control(config.control_socket, answers.table())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.by_signal)
        own_log.listening(", ".join(map(str, parts.policy.addresses())), purpose="policy requests")
        spare_the_collector()
        notify("READY=1")
        loops = (
            _read(parts, lag, wake.set),
            _act(parts, wake),
            _commit(parts, wake.set),
            _reconcile(parts, wake.set),
            _heartbeat(config),
            *([_tell_far_host(config)] if mail_host.is_far(config) else []),
            _prune(parts),
            _tell_answers(parts),
            *([_keep_table(parts)] if config.postfix.transport_table else []),
            *([parts.suppression.run()] if parts.suppression else []),
            *(
                [own_tables.keep_up(parts.hygiene.strangers, parts.instances)]
                if parts.hygiene and _in_tables(parts)
                else []
            ),
            *([parts.quotas.run()] if parts.quotas else []),
            *([joining.keep_up(parts.fleet, wake.set)] if parts.fleet else []),
            *([parts.shared_suppressions.run()] if parts.shared_suppressions else []),
            *([parts.shared_quotas.run()] if parts.shared_quotas else []),
            *([parts.commands.run()] if parts.commands else []),
            *([parts.shared_warm_ups.run()] if parts.shared_warm_ups else []),
            *([parts.shared_maps.run()] if parts.shared_maps else []),
        )
        try:
            await _until(stop, loops)
        finally:
            notify("STOPPING=1")
            control.close()
            config.control_socket.unlink(missing_ok=True)


def _in_tables(parts: Parts) -> bool:
    """Whether an instance knows own domains by a table."""
    wired = (parts.access.wiring(instance.syslog_name) for instance in parts.instances)
    return any(each.own_tables for each in wired if each is not None)


def spare_the_collector() -> None:
    """Rules and books live as long as we do: a full collection over a million objects would cost an answer 50 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1_000)


@contextlib.asynccontextmanager
async def _built(config: Config, file: Path) -> AsyncIterator[Parts]:
    """Build the parts in order, and at the end put away in reverse what must be. `file`: for what is wrong in it."""
    mail_host.check(config)
    wanted, hygiene = read_quotas(config, file=file), open_hygiene(config.hygiene, file=file)
    instances = mail_host.instances(config)
    if config.postfix.reach == NOWHERE:
        _LOG.warning("%s: there is no way to its queue: it is only observed", config.log.host)
    thread = ThreadPoolExecutor(1, thread_name_prefix="store")
    store = await asyncio.get_running_loop().run_in_executor(thread, Store.open, config.core_database)
    if store.recovered:
        _LOG.error("%s", store.recovered)
    opened = await asyncio.get_running_loop().run_in_executor(thread, open_suppression, config, store, thread)
    read = rules.load(config.rules.directory)
    check_strategies(config, read)
    wired = wiring(config, instances)
    engine = Engine(
        read,
        rules.organizational_domain,
        engine_settings(config, instances, wired),
        suppressing=opened.suppressing if opened else None,
    )
    await asyncio.get_running_loop().run_in_executor(thread, restore, engine, store)
    fleet = joining.exchange(config, engine) if config.store.redis else None
    steered = pools.wanted(config, instances)
    steering = pools.steering_of(steered, engine, scale=config.subqueues.scale)
    await asyncio.get_running_loop().run_in_executor(thread, store.restore_steering, steering)
    ledger = Ledger(engine, store, thread, steering)
    warmed, maps = await asyncio.get_running_loop().run_in_executor(
        thread,
        functools.partial(joining.learning, config, fleet, steering, store=store, engine=engine, thread=thread),
    )
    quotas = None
    if wanted:
        opening = functools.partial(open_quotas, wanted, store.quotas, engine.provider_of, now=time.time())
        quotas = await asyncio.get_running_loop().run_in_executor(thread, opening)
    book = QuotaBook(quotas, store.quotas, thread, engine.telling) if quotas else None
    access = Access(
        engine,
        routing=routing_of(routes_of(config, pools.names(config))),
        milters_quarantine=config.policy.milters_quarantine,
        act=config.mode is Mode.ACT,
        wiring=wired,
        refusing=opened.refusals if opened else None,
        admitting=Admission(hygiene, quotas, provider_of=engine.provider_of) if hygiene or quotas else None,
        steering=steering if steered.anything else None,
    )
    compile_all()
    passed = inherited_sockets(os.environ, pid=os.getpid())
    owner = instances[0].parameters["mail_owner"]
    suppression = shared = None
    if opened:
        suppression = Suppression(config, opened, store, thread=thread, ledger=ledger, engine=engine, steering=steering)
    if suppression and fleet:
        joined = functools.partial(joining.suppressions, config, fleet, suppression, store, thread)
        shared = await asyncio.get_running_loop().run_in_executor(thread, joined)
    policy = await serve(access, listeners(config, instances), inherited=passed, owner=owner)
    hands = Hands(engine, mail_host.client(config), Rerouting(engine, steering, transport_table_of(config)))
    try:
        yield Parts(
            config=config,
            instances=instances,
            engine=engine,
            reader=LogReader(zone=local_zone(), reference=time.time(), syslog_names=config.log.syslog_names),
            store=store,
            store_thread=thread,
            ledger=ledger,
            hands=hands,
            access=access,
            policy=policy,
            watching=Watching(since=time.time()),
            steering=steering,
            suppression=suppression,
            quotas=book,
            hygiene=hygiene,
            fleet=fleet,
            shared_suppressions=shared,
            shared_quotas=joining.quotas(config, fleet, quotas, store=store, thread=thread),
            commands=joining.commands(config, fleet),
            shared_warm_ups=warmed,
            shared_maps=maps,
        )
    finally:
        await hands.close()
        await policy.close()
        if book is not None:
            await book.store()
        await ledger.commit()
        await asyncio.get_running_loop().run_in_executor(thread, store.close)
        thread.shutdown()


async def _until(stop: asyncio.Event, loops: tuple[Coroutine[Any, Any, None], ...]) -> None:
    """Run the loops until `stop`. One that fails ends the process: somebody starts it again, from the checkpoint."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop) for loop in loops]
            await stop.wait()
            own_log.stopping("asked to")
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed  # the first says why; the others were only cancelled with it


async def _read(parts: Parts, lag: Lag, wake: Callable[[], None]) -> None:
    """Follow the log. A log that ends (standard input) leaves the rest running."""
    source = parts.config.log.source
    start = await asyncio.get_running_loop().run_in_executor(parts.store_thread, parts.store.checkpoint, source)
    from_end = start is None and not parts.store.recovered
    lag.followed = not from_end
    async with contextlib.aclosing(follow(source, start=start, from_end=from_end)) as batches:
        async for batch in batches:
            lag.followed = True
            if batch.gap:
                _LOG.warning("%s: lines may be missing before %s", source, batch.position.token)
                parts.engine.gap(now=time.time())
                parts.hands.wants_listing = True
            _take(batch, parts, lag)
            parts.ledger.position = batch.position
            parts.engine.behind = len(batch.lines) + len(batch.entries) >= BATCH_LINES
            wake()


def _take(batch: Batch, parts: Parts, lag: Lag) -> None:
    """Give the facts of a batch to the engine, each with the time it was written, as well as that is known.

    A line of the last second was written now. Of an older one the stamp is the best we have; classic stamps
    have no fractions, so it may be up to a second later than it says.
    """
    now = time.time()
    parts.reader.refer_to(batch.reference)
    host = parts.config.log.host
    wanted = _of_host(batch.lines, host) if host else batch.lines
    lines = parts.reader.block_facts(b"\n".join(wanted)) if wanted else ()
    entries = itertools.chain.from_iterable(map(parts.reader.journal_facts, batch.entries))
    misread = 0
    for fact in itertools.chain(lines, entries):
        if host and fact.record.host != host:
            continue
        lag.log_time, lag.read_at = fact.record.time, now
        written = min(now, fact.record.time + 1.0)
        try:
            parts.engine.observe(fact, now=written)
            parts.watching.observe(fact, now=written)
        except Exception:  # noqa: BLE001  # an error of ours at one line: a restart would meet that line again, and again
            if not misread:
                _LOG.exception("an error of ours: a line counts as missing: %s", fact.record.text)
            misread += 1
            parts.engine.misread(fact)
    if misread:
        _LOG.error("%d lines of %d were not taken", misread, len(batch.lines) + len(batch.entries))
        parts.engine.gap(now=now)
        parts.hands.wants_listing = True


def _of_host(lines: Sequence[bytes], host: str) -> list[bytes]:
    """Leave out the lines that cannot be the host's; of those that stay, the record says whose they are.

    One that repeats the line before ("last message repeated") names its host as well.
    """
    name = host.encode()
    return [line for line in lines if name in line[:_HEAD]]


async def _act(parts: Parts, wake: asyncio.Event) -> None:
    """Do what the engine wants done. Intent to hold is stored first; what only lets go never waits for the store."""
    engine = parts.engine
    while True:
        commands = engine.step(now=time.time())
        if commands and not await parts.ledger.commit():
            commands = engine.without_holds(commands)
        if commands:
            await parts.hands.do(commands)
            continue
        pause = min(max(engine.next_step(now=time.time()) - time.time(), 0.02), 1.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await wake.wait()
        wake.clear()


async def _commit(parts: Parts, wake: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(COMMIT_EVERY)
        await parts.ledger.commit()
        if parts.steering is not None and parts.steering.away:
            await lead_away(parts.engine, parts.steering, parts.instances, parts.config.postfix.transport_table)
            wake()


async def _reconcile(parts: Parts, wake: Callable[[], None]) -> None:
    """Compare hold with the books every minute, and the whole queue where we have lost the thread."""
    if parts.config.postfix.reach == NOWHERE:
        return
    client = mail_host.client(parts.config)  # its own, for a listing may take long
    hands = parts.hands
    try:
        while True:
            full, hands.wants_listing = hands.wants_listing, False
            for instance in parts.instances:
                try:
                    await _compare(parts, client, instance, full=full)
                except (HelperUnavailable, postfix.PostfixError) as error:
                    _LOG.warning(
                        "%s: the hold queue cannot be compared with the books: %s", instance.syslog_name, error
                    )
                    hands.wants_listing = hands.wants_listing or full
            wake()
            for _ in range(int(RECONCILE_EVERY)):
                await asyncio.sleep(1.0)
                if hands.wants_listing:
                    break
    finally:
        await client.close()


async def _compare(parts: Parts, client: QueueClient, instance: postfix.Instance, *, full: bool) -> None:
    began = time.time()
    name = instance.syslog_name
    files = await client.held(name)
    if full:
        far = mail_host.is_far(parts.config)
        messages = await client.queue(name) if far else await asyncio.to_thread(list, postfix.queued(instance))
        listing = Listing(name, began, _queued(messages), files.ours, files.since)
        parts.engine.listed(listing, now=time.time())
    elif parts.engine.hold_queue(name, files.there, files.ours, since=files.since, listed_at=began, now=time.time()):
        parts.hands.wants_listing = True


def _queued(messages: Iterable[postfix.QueuedMessage]) -> tuple[Queued, ...]:
    return tuple(
        Queued(
            message.queue_name,
            message.queue_id,
            message.arrival_time,
            "" if message.sender == "MAILER-DAEMON" else message.sender,
            tuple(address for address, _ in message.recipients),
        )
        for message in messages
    )


async def _tell_far_host(config: Config) -> None:
    """Have the mail host's failsafe know that we live. Of a host that is away the hands tell."""
    client = mail_host.client(config)
    try:
        while True:
            with contextlib.suppress(HelperUnavailable):
                await client.alive()
            await asyncio.sleep(FAR_HEARTBEAT_EVERY)
    finally:
        await client.close()


async def _heartbeat(config: Config) -> None:
    """Touch the file whose age tells the failsafe whether we live, and tell systemd."""
    path = Path(config.runtime_directory) / "heartbeat"
    interval = min(HEARTBEAT_EVERY, watchdog_interval() or HEARTBEAT_EVERY)
    while True:
        with contextlib.suppress(OSError):  # a full disk must not end core; the failsafe then does its work
            path.touch()
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)


async def _tell_answers(parts: Parts) -> None:
    """Have what smtpd was answered in the last minute in the audit; at a stop, too, but not after kill -9."""
    try:
        while True:
            await asyncio.sleep(ANSWERS_TOLD_EVERY)
            tell_answers(parts, now=time.time())
    finally:
        tell_answers(parts, now=time.time())


def tell_answers(parts: Parts, *, now: float) -> None:
    parts.engine.telling.add(audit.of_answers(parts.access.take_acted(), now=now))


async def _keep_table(parts: Parts) -> None:
    """Have the table of transports say what the routes and the domains known by now come to."""
    rerouting = parts.hands.rerouting
    table = rerouting.table
    assert table is not None
    while True:
        try:
            await rerouting.tidy()
            changes = await asyncio.to_thread(table.update, await asyncio.to_thread(transports_by_domain, parts))
            if any(changes):
                _LOG.info("%s: %d domains written, %d taken out", table.table, *changes)
        except (postfix.PostfixError, OSError, ValueError) as error:
            _LOG.warning("the table of transports stays as it is: %s", error)
        await asyncio.sleep(TABLE_EVERY)


def transport_table_of(config: Config) -> TransportTable | None:
    named = config.postfix.transport_table
    return TransportTable(named, Path(config.postfix.config_directory)) if named else None


def transports_by_domain(parts: Parts) -> dict[str, str]:
    """Give what the table shall say: nothing while observing, nor where no FILTER would be answered (design, rule 7)."""
    wired = parts.access.wiring(parts.instances[0].syslog_name)
    if parts.config.mode is not Mode.ACT or wired is None or not wired.filter_allowed:
        return {}
    found = parts.access.routing.table(parts.engine.recipients.known())
    return {domain: transport for domain, transport in found.items() if domain not in wired.own_domains}


async def _prune(parts: Parts) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(PRUNE_EVERY)
        parts.engine.forget_old(now=time.time())
        await loop.run_in_executor(parts.store_thread, _prune_store, parts.store, parts.config.store)


def _prune_store(store: Store, kept: StoreConfig) -> None:
    now = time.time()
    hours, days = now - kept.hourly_days * 86_400, now - kept.daily_days * 86_400
    with contextlib.suppress(StoreUnavailable):  # a full disk; commits say so already
        while store.prune(before=now - kept.retention_days * 86_400, limit=5_000):
            pass
        audit_before = now - max(kept.audit_days, 2) * 86_400
        while store.prune_audit(before=audit_before, limit=5_000):
            pass
        while store.prune_history(hours_before=hours, days_before=days, limit=5_000):
            pass
        store.forget_canary_messages(before=now - COMPLAINTS_FOR)
        store.forget_sent_as(before_hour=int((time.time() - KEPT) // HOUR))


@click.command(epilog="Example: sidecar --config /etc/sidecar/sidecar.toml core --observe")
@click.option("--act/--observe", default=None, help="Override `mode` of the configuration.")
@click.pass_context
def core(context: click.Context, *, act: bool | None) -> None:
    """Follow the log, decide, answer Postfix. systemd starts this; `sidecar run` starts it on a small site.

    SIGHUP has configuration and rules read again, as `sidecar reload` does.
    """
    own_log.start("core")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until we serve; everything is being read anyway
    mode = None if act is None else Mode.ACT if act else Mode.OBSERVE
    source = Source(context.find_root().params["config_path"], mode)
    asyncio.run(run(source.applied(context.obj), source))
