"""The lookout: looks at every figure that there is, every few seconds, and keeps alerts, incidents and outbox.

Knows where figures come from; what is bad, and when people hear of it, is decided in policies. Runs in threads of the
outside process, so that a slow disk makes nobody wait.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from parsers.expression import ExpressionError
from parsers.feeds.asking import Trouble
from parsers.feeds.dnsbl import Severity
from parsers.observation import Observation, Outcome
from policies import conditions, digest, reported, timeliness
from policies.channels.receipt import Result
from policies.conditions import CONDITIONS, Alert, Condition, Turn
from policies.figures import Figure, Kind, told
from policies.fleet.page import of_fleet
from policies.incidents import REOPEN, Incident, Incidents
from policies.mx_hosts import Answered, MxHost
from policies.note import Note, NoteKind, headline
from policies.queue_age import QueueAge, queue_figures
from policies.repeats import Repeated
from policies.watched import figures as watched_figures
from policies.windows import FEED as LOG
from policies.windows import Object
from sidecar import blocklists, own_log, surroundings
from sidecar.channels import Channel
from sidecar.config import Config, ConfigError
from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.database import StoreError, StoreUnavailable
from sidecar.feeds import FEEDS, Feed, watched
from sidecar.incident_store import IncidentStore, Looked
from sidecar.log_tally import LogTally
from sidecar.outbox import Outbox
from sidecar.report_figures import Reported, ReportFigures
from sidecar.threads import in_thread

if TYPE_CHECKING:
    from sidecar.fleet.pages import SharedPages

EVERY: Final = 15.0
LAG_MAX: Final = 120.0
"""Seconds that core may be behind its log for what the log counts to be believed."""
NOTICED_EVERY: Final = 60.0
QUEUE_EVERY: Final = 300.0
SUBQUEUES_EVERY: Final = 60.0
ANSWERS_EVERY: Final = 900.0
REPORTS_EVERY: Final = 300.0
TOTALS_EVERY: Final = 3600.0
PRUNE_EVERY: Final = 6 * 3600.0
LOOKUPS: Final = 10
"""Alerts of one look whose surroundings are looked up; each costs a walk through a quarter of an hour of the log."""


class Turned(NamedTuple):
    """An alert that fired, got worse or was resolved in this look."""

    alert: Alert
    turn: Turn
    condition: Condition


Ask = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def conditions_of(config: Config) -> list[Condition]:
    """Give ours without those that the site does not want, and the site's own. Raises ConfigError."""
    names = {condition.name for condition in CONDITIONS}
    for name in config.alerts.without:
        if name not in names:
            raise ConfigError(f"alerts.without: {name!r} is no condition; `sidecar alert list --conditions` has them")
    found = [condition for condition in CONDITIONS if condition.name not in config.alerts.without]
    for number, own in enumerate(config.condition):
        key = f"condition[{number}] ({own.name})"
        if own.name in names:
            raise ConfigError(f"{key}: there is a condition of this name; wanted one of its own")
        if own.severity not in set(Severity):
            raise ConfigError(f"{key}: severity: found {own.severity!r}, wanted one of {', '.join(Severity)}")
        names.add(own.name)
        try:
            severity, looks = Severity(own.severity), {"confirm": own.confirm, "clear": own.clear}
            found.append(
                conditions.own(own.name, own.when, until=own.until, severity=severity, **looks,
                               runbook=own.runbook, owner=own.owner)
            )  # fmt: skip
        except ExpressionError as error:
            raise ConfigError(f"{key}: {error}") from error
    return found


class Lookout:
    def __init__(
        self,
        config: Config,
        store: IncidentStore,
        channels: Sequence[Channel],
        *,
        ask_core: Ask,
        feeds: Mapping[str, Feed] = FEEDS,
        clock: Callable[[], float] = time.time,
        addresses: Callable[[], Sequence[str]] = tuple,
        seen: Callable[["Lookout"], None] = lambda _: None,
        told: Callable[[str, Result], None] = lambda _, __: None,
        pages: "SharedPages | None" = None,
    ) -> None:
        """`addresses`: those that our mail leaves from. `seen` hears of each look that ended, `told` what became of each
        message; `pages` tells what all hosts of a fleet see. Raises ConfigError, StoreError.
        """
        self._addresses = addresses
        self._config = config
        self._store = store
        self._ask_core = ask_core
        self._watched_feeds = [each for each in watched(config, feeds) if each.wanted]
        self._feeds = {each.name for each in self._watched_feeds}
        self._clock = clock
        self._seen = seen
        self._conditions = {condition.name: condition for condition in conditions_of(config)}
        self._by_measure: dict[tuple[str, str, Kind], list[Condition]] = {}
        self._tally = LogTally(store, config.core_database)
        self._reports = ReportFigures(store, self._tally)
        self._reported: Reported | None = None
        self._turn = threading.RLock()
        """Held while alerts and incidents are read or changed: looks, commands and the outbox come from threads."""
        self._alerts = {alert.key: alert for alert in store.alerts()}
        known = store.incidents(since=clock() - 2 * REOPEN)
        self._incidents = Incidents(known, last_id=store.last_incident(), scale=config.subqueues.scale)
        self._changed: dict[str, Alert] = {}
        self._pending: list[Looked] = []
        """What could not be stored yet."""
        self._lookups = 0
        self._quiet = frozenset(f"listed.{spec.id}" for spec in blocklists.packaged() if spec.quiet)
        self._polled_upto: float | None = None
        self._at: defaultdict[str, float] = defaultdict(float)
        self.pages = pages
        self.outbox = Outbox(store, channels, incidents=self.incidents, unsure=self._unsure, told=told, fleet=pages)
        self._channels = [channel.name for channel in channels]
        self._host = config.alerts.host or socket.gethostname()
        self._digest_at = digest_at(config)
        self._digested = store.mark("digest")

    async def run(self) -> None:
        """Look for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.outbox.run())
            if self.pages is not None:
                tasks.create_task(self.pages.run(self))
            while True:
                await self.look()
                await asyncio.sleep(max(1.0, EVERY / self._config.subqueues.scale))

    def incidents(self) -> list[Incident]:
        with self._turn:
            return self._incidents.all()

    def broken_channels(self) -> dict[str, bool]:
        """Tell of each channel whether it is broken."""
        return {name: self._store.channel(name).broken_since > 0 for name in self._channels}

    def reported(self) -> Reported | None:
        """Tell what receivers reported of our domains lately; None before the first look."""
        return self._reported

    def firing(self) -> list[Alert]:
        with self._turn:
            return [alert for alert in self._alerts.values() if alert.firing]

    async def look(self) -> None:
        """Look once at everything; never raises for what cannot be read."""
        try:
            said = await self._core_says()
            await in_thread(lambda: self._look(said))
            self._seen(self)
        except Exception as error:  # noqa: BLE001  # one broken figure must not end the alerts of all the others
            own_log.look_failed(error)

    def _look(self, core: Sequence[Figure]) -> None:
        now = self._clock()
        self.take_in(self._figures(core, now=now), now=now)

    def take_in(self, figures: Iterable[Figure], *, now: float) -> None:
        """Judge figures, let time pass, and store what came of it."""
        with self._turn:
            self._lookups = LOOKUPS
            self._drop_unknown(now=now)
            turned: list[Turned] = []
            for figure in figures:
                for condition in self._looking(figure):
                    turned += self._judge(condition, figure, now=now)
            self._tell_incidents(turned, now=now)
            self._incidents.tick(now=now)
            with self._said_if_unread():
                self._sum_up(now=now)
            self._store_changes(now=now)
            self._incidents.forget(now=now)
        self.wake_outbox()
        if self.pages is not None:
            self.pages.happened()

    def _drop_unknown(self, *, now: float) -> None:
        """Alerts of conditions that the site wants no more are over: there will be no look that says so."""
        for key in [key for key, alert in self._alerts.items() if alert.condition not in self._conditions]:
            over = self._alerts.pop(key)._replace(firing=False, bad=0, resolved_at=now, said="not looked at any more")
            self._changed[key] = over
            self._incidents.turned(over, Turn.RESOLVED, CONDITIONS[0], now=now)

    def _looking(self, figure: Figure) -> list[Condition]:
        place = (figure.feed, figure.measure, figure.kind)
        found = self._by_measure.get(place)
        if found is None:
            found = [condition for condition in self._conditions.values() if condition.may_look_at(figure)]
            self._by_measure[place] = found
        return [condition for condition in found if condition.looks_at(figure)]

    def _judge(self, condition: Condition, figure: Figure, *, now: float) -> list[Turned]:
        """Follow one alert; how it turned, if it did."""
        key = condition.dedup_key(figure)
        before = self._alerts.get(key)
        alert, turn = conditions.follow(before or conditions.begin(condition, figure), condition, figure, now=now)
        if before is None and alert.idle:
            return []
        if alert != before:
            self._changed[key] = self._alerts[key] = alert
        if alert.idle:
            del self._alerts[key]
        return [] if turn is None else [Turned(alert, turn, condition)]

    def _tell_incidents(self, turned: list[Turned], *, now: float) -> None:
        """The worst of one look first, so that an incident is told once and not once more as worse; an alert's turns in order."""
        rank = list(Severity).index
        worst: dict[str, int] = {}
        for alert, _, _ in turned:
            worst[alert.key] = min(rank(alert.severity), worst.get(alert.key, len(Severity)))
        for alert, turn, condition in sorted(turned, key=lambda each: worst[each.alert.key]):
            around = None
            if turn is not Turn.RESOLVED and self._lookups > 0:
                self._lookups -= 1
                around = surroundings.around(self._config.core_database, alert, now=now)
            self._incidents.turned(alert, turn, condition, now=now, around=around)

    def _store_changes(self, *, now: float) -> None:
        """Store what changed, whole; where that fails now, the next look does it, in the same order."""
        moved, notes, events = self._incidents.take()
        for note in notes:
            if note.kind is not NoteKind.AGAIN:
                own_log.incident(f"incident {note.incident}: {headline(note)}", severity=str(note.severity))
        alerts, self._changed = self._changed, {}
        gone = [key for key, alert in alerts.items() if alert.idle]
        kept = [alert for alert in alerts.values() if not alert.idle]
        looked = Looked(kept, gone, moved, events, [(self._dressed(note), ()) for note in notes])
        self._pending += [looked] if any(looked) else []
        try:
            while self._pending:
                first = self._pending[0]
                posts = [(note, self._channels_for(note)) for note, _ in first.posts]
                self._store.looked(first._replace(posts=posts), now=now)
                del self._pending[0]
        except StoreUnavailable as error:
            own_log.look_incomplete(str(error))

    def _sum_up(self, *, now: float) -> None:
        """Have the daily digest leave when it is due; the first one a day after it was asked for, at the latest."""
        if self._digest_at is None:
            return
        day, last = digest.day_of(now, self._digest_at), self._digested
        if last is None or last > day:
            self._pending.append(Looked(marks=[("digest", day)]))
        elif last < day:
            known = self._store.incidents(since=now - 2 * timeliness.WEEK)
            page = self._config.alerts.page.rstrip("/")
            key = f"pf-rep:sidecar:{self._host}:digest"
            note = digest.digest(known, self._tally.last_day(now=now), key=key, link=page, now=now)
            self._pending.append(Looked(posts=[(note, ())], marks=[("digest", day)]))
        self._digested = day

    def _channels_for(self, note: Note) -> list[str]:
        wanting = self.outbox.wanting(note)
        incident = self._incidents.get(note.incident)
        if self.pages is not None and incident is not None:
            wanting = [name for name in wanting if not self.pages.speaks_for(incident, name)]
        if note.kind is NoteKind.AGAIN:  # a pager that takes nothing need not hear it twice
            return [name for name in wanting if not self._store.waiting(name)]
        return wanting

    def _dressed(self, note: Note) -> Note:
        """Add what the configuration knows."""
        alerts = self._config.alerts
        page = alerts.page.rstrip("/")
        return note._replace(
            owner=note.owner or alerts.owner,
            runbook=runbook(alerts.runbooks, note.runbook),
            link=f"{page}/incident/{note.incident}" if page else "",
        )

    def _unsure(self, number: int) -> Note | None:
        with self._turn:
            now = self._clock()
            note = self._incidents.unsure(number, now=now)
            if note is None:
                return None
            self._store_changes(now=now)
            return self._dressed(note)

    # For the fleet.

    def page_note(self, number: int, kind: NoteKind) -> Note | None:
        """Give what there is to say of an incident; None where it is not known any more."""
        with self._turn:
            note = self._incidents.note(number, kind, now=self._clock())
        return None if note is None else self._dressed(note)

    def follow(self, number: int, *, closed: bool, who: str) -> None:
        """Somebody on another host took an incident on, or closed it. Raises ValueError where it is over."""
        with self._turn:
            now = self._clock()
            (self._incidents.close if closed else self._incidents.ack)(number, who=who, now=now)
            self._store_changes(now=now)

    def happened(self, number: int, what: str) -> None:
        """Write it in the history of an incident."""
        with contextlib.suppress(StoreUnavailable):  # people lose a line of what another host knows as well
            self._store.looked(Looked(events=[(number, self._clock(), what)]), now=self._clock())

    def wake_outbox(self) -> None:
        self.outbox.wake_from_thread()

    # By hand.

    def commands(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]]]:
        """Give what the control socket answers."""

        async def ack(request: dict[str, Any]) -> Mapping[str, Any]:
            return await in_thread(lambda: self._by_hand(request, self._incidents.ack))

        async def close(request: dict[str, Any]) -> Mapping[str, Any]:
            return await in_thread(lambda: self._by_hand(request, self._incidents.close))

        async def channel_works(request: dict[str, Any]) -> Mapping[str, Any]:
            return await in_thread(lambda: self._works(request))

        return {"incident-ack": ack, "incident-close": close, "channel-works": channel_works}

    def _by_hand(self, request: Mapping[str, Any], do: Callable[..., Incident]) -> Mapping[str, Any]:
        number, who = request.get("incident"), request.get("who")
        if not isinstance(number, int) or not isinstance(who, str) or not who:
            raise ValueError('wanted {"incident": NUMBER, "who": "NAME"}')
        with self._turn:
            now = self._clock()
            incident = do(number, who=who[:100], now=now)
            self._store_changes(now=now)
        said: dict[str, Any] = {"incident": incident.id, "phase": str(incident.phase), "acked_by": incident.acked_by}
        if self.pages is not None and of_fleet(incident):
            said["hosts"] = self.pages.by_hand(incident, closed=not incident.live, who=who[:100])
        self.outbox.wake_from_thread()
        return said

    def _works(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        name = str(request.get("channel"))
        if name not in self._channels:
            raise ValueError(f"there is no channel {name!r}; there is {', '.join(self._channels) or 'none'}")
        self.outbox.works(name)
        return {"channel": name}

    # Where figures come from.

    def _figures(self, core: Sequence[Figure], *, now: float) -> Iterator[Figure]:
        yield from core
        yield from self._polled()
        yield from self._standings(now=now)
        yield from self._channel_states(now=now)
        away = any(figure.measure == "away" and figure.value for figure in core)
        lag = next(
            (figure.value for figure in core if figure.measure == "log-lag" and figure.outcome is Outcome.OK), None
        )
        if now - self._at["subqueues"] >= SUBQUEUES_EVERY and not away:
            self._at["subqueues"] = now
            yield from self._read(lambda: self._stuck(now=now))
        if lag is not None and lag <= LAG_MAX:
            yield from self._log(now=now)
            if now - self._at["answers"] >= ANSWERS_EVERY:  # over what the log counts
                self._at["answers"] = now
                watched = self._watched(reported.FEED)
                yield from self._read(lambda: self._reports.answers(watched, now=now))
        if now - self._at["reports"] >= REPORTS_EVERY:
            self._at["reports"] = now
            yield from self._read(lambda: self._reports.dmarc(self._addresses, now=now))
            yield from self._read(lambda: self._reports.tls(now=now))
        if now - self._at["totals"] >= TOTALS_EVERY:
            self._at["totals"] = now
            with self._said_if_unread():
                self._reported = self._reports.totals(now=now)
        if now - self._at["prune"] >= PRUNE_EVERY:
            self._at["prune"] = now
            with contextlib.suppress(StoreUnavailable):  # whoever writes says so
                self._store.prune(now=now)

    def _polled(self) -> Iterator[Figure]:
        """Give what the feeds told, when there was a poll since the last look."""
        with self._store.lock:
            newest = self._store.database.rows("SELECT coalesce(max(asked_at), 0.0) FROM feed")[0][0]
            if newest == self._polled_upto:
                return
            known = self._store.polls.known()
        self._polled_upto = newest
        for each in known:
            if each.measure not in self._quiet and (each.feed in self._feeds or each.feed not in FEEDS):
                seen = Observation(
                    *each[:4], each.value, each.text if each.outcome is Outcome.OK else each.why, each.at
                )
                yield told(seen, stamp=each.polled_at)

    def _standings(self, *, now: float) -> Iterator[Figure]:
        for each in self._watched_feeds:
            with self._store.lock:
                standing = self._store.polls.standing(each.name)
            if not standing.asked_at:
                continue
            blind = standing.blind(each.cadence, now=now)
            refused = standing.trouble in {Trouble.AUTHENTICATION, Trouble.REFUSED, Trouble.CONFIGURATION}
            for measure, bad, stamp in (("blind", blind, now), ("refused", refused, standing.asked_at)):
                yield _figure("feeds", (each.name, Kind.FEED), measure, float(bad), stamp, text=standing.why)

    def _channel_states(self, *, now: float) -> Iterator[Figure]:
        for name in self._channels:
            state = self._store.channel(name)
            yield _figure(
                "channels", (name, Kind.CHANNEL), "broken", float(state.broken_since > 0), now, text=state.why
            )

    def _stuck(self, *, now: float) -> Iterator[Figure]:
        watched = {alert.object for alert in self._alerts.values() if alert.kind is Kind.SUBQUEUE}
        for key, since, held in surroundings.progress(self._config.core_database, watched):
            idle = now - since if held else 0.0
            yield _figure("core", (key, Kind.SUBQUEUE), "without-progress", idle, now, volume=float(held))

    def _log(self, *, now: float) -> Iterator[Figure]:
        watched = self._watched(LOG)
        yield from self._read(lambda: self._tally.figures(watched, now=now) or ())

    def _watched(self, feed: str) -> set[Object]:
        """Of which objects a figure is wanted though nothing happened: an alert waits for its end."""
        return {(str(alert.kind), alert.object) for alert in self._alerts.values() if alert.feed == feed}

    @contextlib.contextmanager
    def _said_if_unread(self) -> Iterator[None]:
        """What a store does not tell now must not keep back what else there is."""
        try:
            yield
        except StoreError as error:
            own_log.look_incomplete(str(error))

    def _read(self, figures: Callable[[], Iterable[Figure]]) -> Iterator[Figure]:
        """Give all the figures, or, where the store does not answer, none."""
        found: list[Figure] = []
        with self._said_if_unread():
            found = list(figures())
        yield from found

    async def _core_says(self) -> list[Figure]:
        now = self._clock()
        host = self._host
        try:
            health = await self._ask_core({"command": "health"})
        except (CoreUnreachable, CoreRefused) as error:
            return [_figure("core", (host, Kind.HOST), "away", 1.0, now, text=str(error))]
        lag = health.get("log_lag_s")
        said = [
            _figure("core", (host, Kind.HOST), "away", 0.0, now),
            _figure("core", (host, Kind.HOST), "log-lag", round(lag, 1) if lag is not None else 0.0, now),
        ]
        if now - self._at["noticed"] >= NOTICED_EVERY and lag is not None and lag <= LAG_MAX:
            self._at["noticed"] = now
            said += await self._noticed(now=now)
        if now - self._at["queue"] >= QUEUE_EVERY:
            self._at["queue"] = now
            try:
                queue = await self._ask_core({"command": "queue"})
            except (CoreUnreachable, CoreRefused):
                return said
            sample = QueueAge(int(queue.get("live", 0)), int(queue.get("old", 0)))
            said += await in_thread(lambda: self._queue(host, sample, now=now))
        return said

    async def _noticed(self, *, now: float) -> list[Figure]:
        """What core notices in the log by itself; nothing where it does not answer."""
        try:
            told = await self._ask_core({"command": "noticed"})
        except (CoreUnreachable, CoreRefused):
            return []
        try:
            hosts = [
                MxHost(str(name), Answered(*counts[:3]), Answered(*counts[3:]))
                for name, *counts in told.get("hosts", ())
            ]
            repeated = [Repeated(*each) for each in told.get("repeated", ())]
            since = float(told.get("since", now))
        except (TypeError, ValueError) as error:  # core of another version, until it is started anew
            own_log.look_incomplete(f"what core noticed cannot be read: {error}")
            return []
        return list(watched_figures(hosts, repeated, self._watched(LOG), since=since, now=now))

    def _queue(self, host: str, sample: QueueAge, *, now: float) -> list[Figure]:
        """Compare the queue with an hour ago, and with its ordinary peaks."""
        try:
            before = self._store.queue_sample(sample, now=now)
            daily = self._store.queue_peaks(now=now)
        except StoreUnavailable as error:
            own_log.look_incomplete(str(error))
            return []
        return list(queue_figures(host, sample, before, daily, now=now))


def _figure(feed: str, about: tuple[str, Kind], measure: str, value: float, stamp: float, **more: Any) -> Figure:
    name, kind = about
    return Figure(feed, name, kind, measure, Outcome.OK, value, more.pop("text", ""), stamp, stamp, **more)


def digest_at(config: Config) -> int | None:
    """Minutes after midnight, UTC, when the digest leaves; None: never. Raises ConfigError."""
    if not config.alerts.digest:
        return None
    try:
        return digest.due(config.alerts.digest)
    except ValueError as error:
        raise ConfigError(f"alerts.digest: {error}") from error


def runbook(base: str, name: str) -> str:
    """Tell where a runbook is: a URL where the site has them on a page, else its file in the documentation."""
    if not name or "://" in name:
        return name
    return f"{base.rstrip('/')}/{name}" if base else f"docs/runbooks/{name}.md"
