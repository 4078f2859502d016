"""Takes report mail in: reads each mail once, judges who sent it, and writes down what it says.

Knows the order of things: stored first, acknowledged to its source then, so that a crash neither loses nor doubles one.
"""

import asyncio
import functools
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from parsers.address import domain_of
from parsers.feeds.asking import Reading, Trouble
from parsers.reports.arf import Complaint
from parsers.reports.authentication import Passed, passed
from parsers.reports.dmarc import Aggregate
from parsers.reports.dsn import NonDelivery
from parsers.reports.mail import Report, read_reports
from parsers.reports.mime import Part, address_in, read_mail
from parsers.reports.original import Tracing
from parsers.reports.refusal import ReportError
from parsers.reports.tls_rpt import TlsReport
from policies.cadence import Cadence
from policies.cadence import Standing as CadenceStanding
from policies.classify import RuleSet
from policies.report_events import Event, EventKind, of_bounce, of_complaint
from policies.reported import FEED
from policies.reporters import KNOWN, Reporter, Standing, judge
from policies.stored_address import hash_of
from sidecar import own_log, rules
from sidecar.config import Config, RecipientForm, ReportMailConfig
from sidecar.database import Database, StoreError, StoreUnavailable
from sidecar.ingest_store import body_of
from sidecar.outside_store import SCHEMA, OutsideStore
from sidecar.report_source import Mail, Source, SourceError
from sidecar.report_sources import local_sources, remote_sources
from sidecar.report_store import Added, EventRow, MailRow, ReportStore
from sidecar.rules import organizational_domain
from sidecar.threads import in_thread

T = TypeVar("T")

LOCAL_SECONDS = 10.0
"""Between two looks at what is on this machine: mailboxes in files, and what the pipe handed over."""
PRUNE_SECONDS = 6 * 3600.0


class Read(NamedTuple):
    """What one mail says."""

    mail: MailRow
    events: tuple[EventRow, ...] = ()
    reports: tuple[Aggregate | TlsReport, ...] = ()
    for_core: tuple[str, ...] = ()
    """What it may suppress somebody for, as `ingest_store.body_of` writes it."""


class Taken(NamedTuple):
    read: Read
    added: Added
    known: bool
    """It was taken in before."""


class Intake:
    """Reads mails as a site has set it up."""

    def __init__(self, settings: ReportMailConfig, rules: RuleSet) -> None:
        self._settings = settings
        self._rules = rules
        self._tracing = Tracing(settings.own_headers, settings.verp_delimiters)
        self._reporters = (*KNOWN, *(Reporter(each.lower(), each.lower()) for each in settings.reporters))

    def take(self, store: ReportStore, data: bytes, *, source: str, now: float) -> Taken:
        """Read a mail and write down what it says. Raises StoreUnavailable: then nothing is written."""
        digest = hashlib.sha256(data).hexdigest()
        if store.is_known(digest):
            return Taken(Read(MailRow(digest, now, source, "other", "", trusted=False, why="")), Added(), known=True)
        read = self.read(data, source=source, now=now)
        return Taken(read, store.add(*read), known=False)

    def read(self, data: bytes, *, source: str, now: float) -> Read:
        """Read a mail; never raises."""
        digest = hashlib.sha256(data).hexdigest()
        try:
            return self._read(read_mail(data), digest, source=source, now=now)
        except ReportError as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001  # one mail that nobody thought of must not stop the others
            own_log.report_failed(source, error)
            why = f"an error of ours: {type(error).__name__}: {error}"[:300]
        return Read(MailRow(digest, now, source, "refused", "", trusted=False, why=why))

    def _read(self, mail: Part, digest: str, *, source: str, now: float) -> Read:
        found = read_reports(mail, self._tracing)
        proofs = passed(mail, self._settings.authserv_ids)
        standing = judge(proofs, _sender(mail), self._reporters)
        events = [event for report in found.reports for event in self._events(report, standing, proofs)]
        trusted = standing.trusted or (bool(events) and all(event.trusted for event in events))
        row = MailRow(digest, now, source, _kind(found.reports, found.why), standing.domain, trusted, found.why)
        key = mail.header("message-id").strip() or digest
        reports = tuple(each for each in found.reports if isinstance(each, Aggregate | TlsReport))
        rows = tuple(self._row(event, row, f"{key} {i}") for i, event in enumerate(events))
        return Read(row, rows, reports, tuple(self._for_core(events, row)))

    def _for_core(self, events: Sequence[Event], mail: MailRow) -> Iterator[str]:
        """Only what is vouched for: a stranger must not be able to suppress anybody."""
        for event in events:
            kind = _FOR_CORE.get(event.kind)
            of_a_message = event.kind is EventKind.COMPLAINT and event.original.queue_id
            if kind is not None and event.trusted and (event.recipient or of_a_message):
                about = event.original.message_id or event.original.queue_id
                evidence = f"{event.kind} by {mail.reporter or event.reporting_mta} of {about}: {event.reply}".rstrip(
                    ": "
                )
                at = _plausible(event.at, now=mail.time)
                domain = event.original.sending_domain
                yield body_of(
                    kind,
                    event.recipient,
                    domain,
                    at=at,
                    evidence=evidence,
                    by="report mail",
                    reply=event.reply,
                    queue_id=event.original.queue_id if of_a_message else "",
                )

    def _events(self, report: Report, standing: Standing, proofs: tuple[Passed, ...]) -> Iterator[Event]:
        if isinstance(report, Complaint):
            yield from of_complaint(report, standing, self._rules)
        elif isinstance(report, NonDelivery):
            yield from of_bounce(report, proofs, self._rules, organizational_domain)

    def _row(self, event: Event, mail: MailRow, report: str) -> EventRow:
        original, verdict = event.original, event.verdict
        return EventRow(
            key=hashlib.sha256(f"{event.kind} {event.recipient} {report}".encode(errors="replace")).hexdigest(),
            time=mail.time,
            at=_plausible(event.at, now=mail.time),
            source=mail.source,
            kind=event.kind,
            type=event.type,
            trusted=event.trusted,
            reporter=mail.reporter,
            provider=event.provider,
            recipient=self._recipient(event.recipient),
            recipient_domain=domain_of(event.recipient),
            sending_domain=original.sending_domain,
            source_ip=event.source_ip,
            reporting_mta=event.reporting_mta,
            found_by=original.found_by,
            own_id=original.own_id,
            feedback_id=original.feedback_id,
            message_id=original.message_id,
            queue_id=original.queue_id,
            incidents=event.incidents,
            status=event.status,
            reply=event.reply,
            rule=verdict.rule if verdict else "",
            category=verdict.category if verdict else "",
            detail=verdict.detail if verdict else "",
            bounce=verdict.bounce if verdict else "",
        )

    def _recipient(self, address: str) -> str:
        if not address or self._settings.recipients is RecipientForm.ADDRESS:
            return address
        return hash_of(address)


def _sender(mail: Part) -> str:
    """The From address, "" where there is not exactly one."""
    fields = mail.headers("from")
    return address_in(fields[0]) if len(fields) == 1 and fields[0].count("@") == 1 else ""


def _kind(reports: Sequence[Report], why: str) -> str:
    for report in reports:
        return _KINDS[type(report)]
    return "refused" if why else "other"


_FOR_CORE = {EventKind.COMPLAINT: "complaint", EventKind.OPT_OUT: "unsubscribe", EventKind.BOUNCE: "bounce"}
_KINDS = {Complaint: "complaint", NonDelivery: "bounce", Aggregate: "dmarc", TlsReport: "tls"}


def _plausible(at: float | None, *, now: float) -> float:
    """When it happened, as strangers say, if that can be; else now."""
    return at if at is not None and now - 30 * 86_400.0 < at <= now + 3_600.0 else now


Told = Callable[[MailRow], None]


class ReportMail:
    """Looks into all sources for ever, each at its own pace."""

    def __init__(self, config: Config, intake: Intake, database: Database, told: Told) -> None:
        """`told` hears of each mail that was new."""
        self._config = config
        self._intake = intake
        self._database = database
        self._store = ReportStore(database)
        self._standings = OutsideStore(database)
        self._told = told
        self._troubles: dict[str, str] = {}
        """Source -> why it could not be read at the last look, "" where it could."""
        self._writing = asyncio.Lock()  # the store is for one thread at a time

    async def run(self) -> None:
        """Files and folders of other servers beside each other: a server that hangs keeps nothing else waiting."""
        local, remote = local_sources(self._config), remote_sources(self._config)
        every = self._config.report_mail.every_minutes * 60.0
        if (len(local) > 1 or remote) and not self._config.report_mail.authserv_ids:
            own_log.nobody_is_trusted()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(local, LOCAL_SECONDS))
            for source in remote:
                tasks.create_task(self._follow([source], every))
            tasks.create_task(self._tell(Cadence(every)))
            tasks.create_task(self._prune())

    async def _follow(self, sources: Sequence[Source], every: float) -> None:
        while True:
            for source in sources:
                await self.drain(source)
            await asyncio.sleep(every)

    async def _tell(self, cadence: Cadence) -> None:
        """Write down, as of a feed, whether all sources can be read."""
        standing = await self._stored(lambda: self._standings.standing(FEED)) or CadenceStanding()
        while True:
            await asyncio.sleep(min(cadence.every, LOCAL_SECONDS) if not standing.asked_at else cadence.every)
            why = "; ".join(filter(None, self._troubles.values()))
            reading = Reading((), Trouble.NETWORK if why else None, why)
            now = time.time()
            standing = standing.after(reading, cadence, now=now, dice=random.random())
            await self._stored(functools.partial(self._standings.polled, FEED, standing, (), (), now=now))

    async def _prune(self) -> None:
        seconds = self._config.store.retention_days * 86_400.0
        while True:
            await self._stored(lambda: self._store.prune(now=time.time(), event_seconds=seconds))
            await asyncio.sleep(PRUNE_SECONDS)

    def close(self) -> None:
        self._database.close()

    async def _stored(self, call: Callable[[], T]) -> T | None:
        """Have the store do something; None, and said, where it cannot now."""
        async with self._writing:
            try:
                return await in_thread(call)
            except StoreUnavailable as error:
                own_log.not_stored(str(error))
                return None

    async def drain(self, source: Source) -> str:
        """Take in all that a source has now; why it could not be, "" where it could."""
        why = await self._drained(source)
        if self._troubles.get(source.name, "") != why:  # said when it is news: the same is met at each look
            own_log.report_source(source.name, why)
        self._troubles[source.name] = why
        return why

    async def _drained(self, source: Source) -> str:
        mails = source.mails()
        try:
            while (mail := await in_thread(lambda: next(mails, None))) is not None:
                taken = await self._stored(functools.partial(self._take, source.name, mail))
                if taken is None:
                    return "the store cannot be written"
                understood = taken.known or taken.read.mail.kind not in {"refused", "other"}
                await in_thread(functools.partial(mail.done, understood))
        except SourceError as error:
            return str(error)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  # a server that answers as none should must not stop the others
            own_log.report_failed(source.name, error)
            return f"{source.name}: an error of ours: {error!r}"[:300]
        finally:
            await in_thread(mails.close)
        return ""

    def _take(self, source: str, mail: Mail) -> Taken:
        taken = self._intake.take(self._store, mail.data, source=source, now=time.time())
        row = taken.read.mail
        if not taken.known:
            self._told(row)
            own_log.report_taken(source, mail.name, kind=row.kind, why=row.why)
        return taken


def report_mail(config: Config, told: Told) -> ReportMail:
    """All that report mail needs, as configured; opens the store a second time, for its own thread.

    Raises ConfigError, RuleError, StoreError.
    """
    intake = Intake(config.report_mail, rules.load(config.rules.directory))
    return ReportMail(config, intake, Database.open(config.outside_database, SCHEMA), told)
