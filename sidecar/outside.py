"""The outside process: MX look-ups for core, feeds, alerts, the status page, /healthz and /metrics.

Knows what to do while core is away, which is to say so and to go on; core never waits for it.
"""

import asyncio
import contextlib
import functools
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click
from prometheus_client import Gauge
from starlette.routing import Router
from starlette.types import ASGIApp

from parsers.observation import Observation, Outcome
from policies.channels.receipt import Result
from policies.incidents import severities, times
from policies.note import Note
from policies.placement import DECIDED, Placement
from sidecar import channels, clickhouse, event_writer, history_mail, metrics, own_log, report_intake
from sidecar.config import Config, ConfigError
from sidecar.control import CoreRefused, CoreUnreachable, Handler, ask_core_async, serve_control
from sidecar.delisting_store import DelistingStore
from sidecar.fail_fast import FailFastWatch
from sidecar.feeds import FEEDS
from sidecar.feeds_command import asking
from sidecar.fleet import joining
from sidecar.history_mail import ScheduledReport
from sidecar.history_sender import HistorySender
from sidecar.hygiene import judges_hosts
from sidecar.incident_store import IncidentStore
from sidecar.ingest import ingest, listening
from sidecar.lookout import Lookout
from sidecar.metrics import Busiest, Figures, OutsideFigures
from sidecar.mx import MxLookups, resolver_at
from sidecar.outside_store import OutsideStore
from sidecar.page import access
from sidecar.page.app import StatusPage, names
from sidecar.page.gate import Gate
from sidecar.poller import Polled, Poller
from sidecar.react_watch import ReactWatch
from sidecar.report_store import MailRow
from sidecar.scope import find
from sidecar.seed_schedule import SeedSchedule
from sidecar.seed_store import SeedStore
from sidecar.seed_tests import checked
from sidecar.shipping import Sent
from sidecar.systemd import notify
from sidecar.web import Page, Routes, plain, serve_web, watched

LOG_LAG_MAX = 60.0
"""Seconds core may be behind the end of its log before /healthz says so."""
_CORE_SECONDS = 2.0  # to answer; far beyond its usual millisecond, and within a monitor's patience
_PATIENCE = 2.0  # until we say that core is away: it may only be starting
_PAGE_SECONDS = 1.0  # for which an answer to a page's question is used again: pages may be asked in floods


class Core:
    """Core as seen from outside: asks it, and says once when it stays away and once when it is back."""

    def __init__(self, path: Path, *, seen: Callable[[bool], None], patience: float = _PATIENCE) -> None:
        """`seen` is told, each time, whether there was an answer."""
        self._path = path
        self._seen = seen
        self._patience = patience
        self._away_since: float | None = None
        self._said = False
        self._refusals: dict[str, str] = {}

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises CoreUnreachable, CoreRefused."""
        try:
            answer = await ask_core_async(self._path, request, timeout=_CORE_SECONDS)
        except CoreUnreachable as error:
            self._is_away(str(error))
            raise
        except CoreRefused as error:
            self._is_there()
            self._refused(request["command"], str(error))
            raise
        self._is_there()
        return answer

    def _is_away(self, why: str) -> None:
        self._seen(False)
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        if not self._said and now - self._away_since >= self._patience:
            self._said = True
            own_log.core_away(why)

    def _is_there(self) -> None:
        self._seen(True)
        if self._said and self._away_since is not None:
            own_log.core_back(after=time.monotonic() - self._away_since)
        self._away_since, self._said = None, False

    def _refused(self, command: str, why: str) -> None:
        """Said when it is news: the same question is asked every second."""
        if self._refusals.get(command) != why:
            self._refusals[command] = why
            own_log.core_refused(command, why)


def at_most_every(seconds: float, make: Callable[[], Awaitable[Page]]) -> Callable[[], Awaitable[Page]]:
    """Make a page once for all who ask for it within `seconds`: a flood of requests must not reach core."""
    making = asyncio.Lock()
    made: Page | None = None
    until = 0.0

    async def page() -> Page:
        nonlocal made, until
        async with making:
            if made is None or time.monotonic() >= until:
                made = await make()
                until = time.monotonic() + seconds
            return made

    return page


def routes(core: Core, own: OutsideFigures) -> Routes:
    """The pages for machines: path -> function."""
    busiest = Busiest()

    async def healthz() -> Page:
        try:
            health = await core.ask({"command": "health"})
        except (CoreUnreachable, CoreRefused) as error:
            return _unwell(str(error))
        lag = health.get("log_lag_s") or 0.0
        if lag > LOG_LAG_MAX:
            return _unwell(f"core is {lag:.0f} s behind its log (at most {LOG_LAG_MAX:.0f} s is well)")
        return Page(b"ok\n")

    async def figures() -> Page:
        try:
            known = metrics.read_figures(await core.ask({"command": "metrics"}))
        except (CoreUnreachable, CoreRefused):
            known = Figures()  # sidecar_core_up says it
        return Page(metrics.exposition(own, known, busiest), content_type=metrics.CONTENT_TYPE)

    return {
        "/healthz": at_most_every(_PAGE_SECONDS, healthz),
        "/metrics": at_most_every(_PAGE_SECONDS, figures),
    }


def application(core: Core, own: OutsideFigures, page: StatusPage, rules: access.Rules) -> ASGIApp:
    """All that the port answers: the status page, and what machines ask for."""
    known = [*plain(routes(core, own)), *page.routes()]
    guarded = Gate(Router(known, redirect_slashes=False, default=page.not_found), rules, page.threads)
    return watched(guarded, names(known), count=lambda path, status: own.web_requests.labels(path, str(status)).inc())


def _unwell(why: str) -> Page:
    return Page(f"{why}\n".encode(errors="backslashreplace"), HTTPStatus.SERVICE_UNAVAILABLE)


async def run(config: Config) -> None:
    """Look up, and serve the page, until SIGTERM or SIGINT.

    Raises ConfigError when it cannot begin.
    """
    own = OutsideFigures(fleet=bool(config.store.redis))
    core = Core(config.control_socket, seen=own.core_up.set)
    for name, path in (("core", config.core_database), ("outside", config.outside_database)):
        own.store_bytes.labels(name).set_function(functools.partial(_size, path))
    checked(config)
    try:
        resolver = resolver_at(config.dns.resolvers)
    except ValueError as error:
        raise ConfigError(f"dns.resolvers: {error}") from error
    lookups = MxLookups(
        core.ask,
        resolver,
        count=lambda outcome: own.mx_lookups.labels(outcome).inc(),
        controls=config.hygiene.control_domains if judges_hosts(config.hygiene) else (),
    )
    rules = access.rules(config)
    page = StatusPage(config)
    async with contextlib.AsyncExitStack() as undo:
        undo.callback(page.close)
        await undo.enter_async_context(serve_web(config.web.listen, application(core, own, page, rules)))
        own_log.listening(config.web.listen, purpose="the status page, /healthz and /metrics")
        notify("READY=1")
        await _work(config, core, own, lookups)


async def _work(config: Config, core: Core, own: OutsideFigures, lookups: MxLookups) -> None:
    """All but the port, until SIGTERM or SIGINT.

    Raises ConfigError, StoreError.
    """
    store = OutsideStore.open(config.outside_database)
    if store.recovered:
        own_log.store_recovered(store.recovered)
    reports = report_intake.report_mail(config, functools.partial(_taken, own))
    poller = _poller(config, store, own)
    events = ingest(config, core.ask)
    alerts = _alerts(config, core, own) if config.alerts.enabled else None
    seed_store = SeedStore.open(config.outside_database)
    seeds = SeedSchedule(config, seed_store, told=functools.partial(_placed, own))
    delistings = DelistingStore.open(config.outside_database)
    server = clickhouse.configured(config)
    sender = HistorySender(config, server, told=functools.partial(_sent, own)) if server else None
    own_commands = {**seeds.commands(), **delistings.commands(time.time), "erase": events.erase}
    if sender is not None:
        own_commands["erase-history"] = sender.erase
    commands = {**(alerts[0].commands() if alerts else {}), **own_commands}
    fail_fast = FailFastWatch(config, core.ask)
    reacting = ReactWatch(config, core.ask)
    report = _report(config, alerts)
    writer = event_writer.configured(config)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with listening(config, events), asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(lookups.run()),
                tasks.create_task(poller.run()),
                tasks.create_task(reports.run()),
                tasks.create_task(events.run()),
                tasks.create_task(seeds.run()),
                tasks.create_task(_answer(config, commands)),
            ]
            if fail_fast.wanted:
                running.append(tasks.create_task(fail_fast.run()))
            if reacting.wanted:
                running.append(tasks.create_task(reacting.run()))
            if alerts is not None:
                running.append(tasks.create_task(alerts[0].run()))
            if report is not None:
                running.append(tasks.create_task(report.run()))
            if sender is not None:
                running.append(tasks.create_task(sender.run()))
            if writer is not None:
                running.append(tasks.create_task(writer.run()))
            await stop.wait()
            own_log.stopping("asked to")
            for task in running:
                task.cancel()
    finally:
        also = (*((alerts[1],) if alerts else ()), *filter(None, (server, writer)))
        for opened in (reports, events, store, seed_store, delistings, *also):
            opened.close()


def _poller(config: Config, store: OutsideStore, own: OutsideFigures) -> Poller:
    """Make the poller, and show what the feeds told before we were started."""
    for known in store.known():
        own.feed_series.told([Observation(*known[:3], Outcome.OK, known.value, "", known.at)], told_at=known.told_at)
    poller = Poller(config, FEEDS, store, asking(config), find_scope=find, told=functools.partial(_count, own))
    for name, feed in FEEDS.items():
        if feed.wanted(config):  # with a series from the start on, a feed that never tells anything can be alerted on
            own.polls.labels(name)
            own.feed_told.labels(name).set(store.standing(name).told_at)
            own.feed_interval.labels(name).set(feed.cadence(config).every)
    return poller


def _alerts(config: Config, core: Core, own: OutsideFigures) -> tuple[Lookout, IncidentStore]:
    """Raises ConfigError, StoreError."""
    listed = channels.configured(config)
    for channel in listed:
        own.channel_broken.labels(channel.name).set(0)
        for result in Result:
            own.notes.labels(channel.name, result)
    store = IncidentStore.open(config.outside_database)
    seen = functools.partial(_measure, own)
    told = functools.partial(_told, own)

    def addresses() -> Sequence[str]:
        return find(config).addresses

    pages = joining.pages(config, store, listed)
    return Lookout(
        config, store, listed, ask_core=core.ask, addresses=addresses, seen=seen, told=told, pages=pages
    ), store


def _report(config: Config, alerts: tuple[Lookout, IncidentStore] | None) -> ScheduledReport | None:
    """Raises ConfigError."""

    def post(note: Note, channel: str) -> None:
        assert alerts is not None
        now = time.time()
        alerts[1].post_later(note, channel, now=now, at=now)
        alerts[0].outbox.wake_from_thread()

    return history_mail.scheduled(config, channels.configured(config), post if alerts is not None else None)


async def _answer(config: Config, commands: Mapping[str, Handler]) -> None:
    """Answer on the control socket until cancelled."""
    async with await serve_control(config.outside_socket, commands) as server:
        try:
            await server.serve_forever()
        finally:
            config.outside_socket.unlink(missing_ok=True)


def _placed(own: OutsideFigures, found: Sequence[Placement]) -> None:
    """Show a seed test; a provider of which it says nothing stays as it was."""
    for each in found:
        if each.decided:
            for place in DECIDED:
                number = getattr(each, place)
                own.seed_placement.labels(each.provider, each.transport, place).set(number / each.decided)
            own.seed_tested.labels(each.provider, each.transport).set_to_current_time()


def _sent(own: OutsideFigures, sent: Sent | None) -> None:
    if sent is None:
        own.history_failures.inc()
        return
    own.history_sent.inc(sent.rows)
    own.history_waiting.set(sent.waiting)
    own.history_sent_up_to.set(time.time() - sent.behind)


def _size(database: Path) -> float:
    """Bytes on disk; 0 for one that is not there yet."""
    size = 0
    for path in (database, database.with_name(f"{database.name}-wal")):
        with contextlib.suppress(OSError):
            size += path.stat().st_size
    return float(size)


def _told(own: OutsideFigures, channel: str, result: Result) -> None:
    own.notes.labels(channel, result).inc()


def _measure(own: OutsideFigures, lookout: Lookout) -> None:
    firing = Counter(alert.severity for alert in lookout.firing())
    found = lookout.incidents()
    for severity, number in severities(found).items():
        own.alerts_firing.labels(severity).set(firing[severity])
        own.incidents_open.labels(severity).set(number)
    if lookout.pages is not None:
        own.pages_alone.set(lookout.pages.alone())
        own.pages_unreadable.set(lookout.pages.bad)
    if taken := times(found):
        own.incident_detect.labels("median").set(taken.detect_median)
        own.incident_detect.labels("worst").set(taken.detect_worst)
        own.incident_recover.labels("median").set(taken.recover_median)
        own.incident_recover.labels("worst").set(taken.recover_worst)
    for name, broken in lookout.broken_channels().items():
        own.channel_broken.labels(name).set(float(broken))
    if (reported := lookout.reported()) is not None:
        _show(own.dmarc, ("yes", "no"), reported.dmarc)
        _show(own.dmarc_passes, ("dkim", "spf"), reported.aligned)
        _show(own.tls_sessions, ("success", "failure"), reported.tls)
    own.looked.set_to_current_time()


def _show(gauge: Gauge, labels: tuple[str, str], rows: Iterable[tuple[str, int, int]]) -> None:
    """Show two numbers of each domain, and none of a domain that is not there any more."""
    gauge.clear()
    for domain, *numbers in rows:
        for label, number in zip(labels, numbers, strict=True):
            gauge.labels(domain, label).set(number)


def _taken(own: OutsideFigures, mail: MailRow) -> None:
    own.report_mails.labels(mail.kind, "yes" if mail.trusted else "no").inc()
    if mail.kind == "complaint" and mail.trusted:
        own.complaints.labels(mail.reporter).inc()


def _count(own: OutsideFigures, feed: str, polled: Polled) -> None:
    own.polls.labels(feed).inc()
    own.feed_told.labels(feed).set(polled.standing.told_at)
    own.feed_series.told(polled.reading.observations, told_at=polled.standing.asked_at)
    if polled.reading.trouble is not None:
        own.poll_errors.labels(feed, polled.reading.trouble).inc()


@click.command(epilog="Example: sidecar --config /etc/sidecar/sidecar.toml outside")
@click.option("--verbose", is_flag=True, help="Log each look-up.")
@click.pass_obj
def outside(config: Config, *, verbose: bool) -> None:
    """Look up MX hosts for core; poll the feeds; take in report mail; alert; serve the status page and /metrics.

    Lives on while core is away.
    """
    own_log.start("outside", verbose=verbose)
    asyncio.run(run(config))
