"""The daily or weekly report: made in a process of its own, and sent by mail, or as a note over a channel.

Knows that a report which may have been sent is not sent again, and that pandas must not live in the outside process.
"""

import asyncio
import multiprocessing
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

from parsers.feeds.dnsbl import Severity
from policies import timetable
from policies.note import Note, NoteKind
from policies.timetable import Schedule
from sidecar import own_log
from sidecar.channels import Channel
from sidecar.config import ChannelKind, Config, ConfigError
from sidecar.database import Database, StoreError
from sidecar.local_time import local_zone
from sidecar.outside_store import SCHEMA
from sidecar.threads import in_thread

_LOOK_EVERY: Final = 60.0
_TRIES: Final = 12
_TRY_EVERY: Final = 300.0
_SENDMAIL_SECONDS: Final = 60.0
_MAKE_SECONDS: Final = 600.0
_PASSING: Final = {71, 75}
"""EX_OSERR and EX_TEMPFAIL of sysexits(3)."""
SENDMAIL: Final = "/usr/sbin/sendmail"
_MARK: Final = "report"
_NOTE_LINES: Final = 25
_CAN_REPORT: Final = frozenset({ChannelKind.SLACK, ChannelKind.WEBHOOK, ChannelKind.MAIL})


class Rendered(NamedTuple):
    """A report as it is sent."""

    title: str
    text: str
    html: str
    lines: tuple[str, ...]
    """The main table alone, for a note."""


class ScheduledReport:
    """Made by `scheduled`; `run` sends for ever."""

    def __init__(self, config: Config, post: Callable[[Note, str], None] | None) -> None:
        """`post`: puts a note into the outbox for a channel of a name."""
        self._config = config
        self._settings = config.report
        self._at = timetable.clock(config.report.at)
        self._post = post

    async def run(self) -> None:
        while True:
            try:
                due = await in_thread(lambda: self.take_due(now=time.time()))
                if due:
                    await self._send(due)
            except StoreError as error:
                own_log.report_not_sent(str(error))
            await asyncio.sleep(_LOOK_EVERY)

    def take_due(self, *, now: float) -> float:
        """Give the time at which a report that was not sent is due, and write down that it is being sent; 0 for none.

        Written down first: of two evils a report that is missing is the smaller one. On the first start nothing is due
        before the next time. Raises StoreError.
        """
        due = timetable.latest_due(self._settings.schedule, self._at, now=now, zone=local_zone())
        with closing(Database.open(self._config.outside_database, SCHEMA)) as database:
            known = database.rows("SELECT value FROM mark WHERE name = ?", (_MARK,))
            with database.transaction():
                database.connection.execute("INSERT OR REPLACE INTO mark VALUES (?, ?)", (_MARK, int(due)))
        return due if known and due > known[0][0] else 0.0

    async def _send(self, due: float) -> None:
        rendered = await asyncio.get_running_loop().run_in_executor(None, made_apart, self._config, due)
        if rendered is None:
            return
        if self._settings.to:
            await self._mail(compose(rendered, self._settings.to, self._settings.sender, now=due))
        if self._settings.channel and self._post is not None:
            post, channel = self._post, self._settings.channel
            await in_thread(lambda: post(note(rendered, now=time.time()), channel))

    async def _mail(self, message: bytes) -> None:
        """Hand it to Postfix; where that certainly did not take it, again some minutes later."""
        for _ in range(_TRIES):
            why = await in_thread(lambda: handed_over(message, self._settings.to, self._settings.sender))
            if why is None:
                return
            own_log.report_not_sent(why)
            await asyncio.sleep(_TRY_EVERY)


def scheduled(
    config: Config, channels: list[Channel], post: Callable[[Note, str], None] | None
) -> ScheduledReport | None:
    """Give what sends the report; None where none is wanted. Raises ConfigError."""
    wanted = config.report
    try:
        timetable.clock(wanted.at)
    except ValueError as error:
        raise ConfigError(f"report.at: {error}") from error
    if wanted.schedule is Schedule.NEVER:
        return None
    if not wanted.to and not wanted.channel:
        raise ConfigError(
            'report.schedule: nobody gets the report; wanted report.to = ["you@example.com"] or report.channel'
        )
    if wanted.channel:
        able = [channel.name for channel in channels if channel.config.kind in _CAN_REPORT]
        if wanted.channel not in able:
            there = ", ".join(able) or "none"
            raise ConfigError(
                f"report.channel: {wanted.channel!r} is no [[channel]] of slack, webhook or mail; there is {there}"
            )
        if post is None:
            raise ConfigError(
                "report.channel: channels are served with alerts.enabled = true alone; wanted that, or report.to"
            )
    return ScheduledReport(config, post)


def made_apart(config: Config, due: float) -> Rendered | None:
    """Make the report in a process that ends with it; None, and said in our log, where it cannot be made."""
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe(duplex=False)
    child = spawning.Process(target=_child, args=(config, due, theirs), daemon=True)
    child.start()
    theirs.close()  # so that its end is seen
    try:
        made = ours.recv() if ours.poll(_MAKE_SECONDS) else f"it was not made within {_MAKE_SECONDS:.0f} s"
    except EOFError:
        made = "the process that makes it came to its end"
    finally:
        child.kill()
        child.join()
        ours.close()
    if isinstance(made, Rendered):
        return made
    own_log.report_not_sent(str(made))
    return None


def _child(config: Config, due: float, connection: Connection) -> None:
    try:
        made: Rendered | str = render(config, due)
    except StoreError as error:
        made = str(error)
    connection.send(made)


def render(config: Config, due: float) -> Rendered:
    """Make the report of the time before it is due. Raises StoreError."""
    from sidecar import history_command, history_html, history_report, history_tables  # noqa: PLC0415  # pandas
    from sidecar.history_read import Selection, StoredHistory, span  # noqa: PLC0415  # as above
    from sidecar.statements import SCHEMA as CORE_SCHEMA  # noqa: PLC0415  # as above

    wanted = config.report
    last = timetable.covered(wanted.schedule)
    outside = history_command.outside_store(config)
    with closing(Database.open_read_only(config.core_database, CORE_SCHEMA)) as core:
        selection = Selection(*span(last, now=due - 1.0), ("provider",))
        report = history_report.make(StoredHistory(core), outside, selection, now=due - 1.0)
    if outside is not None:
        outside.close()
    accepted = history_tables.percent(report.total.rates["acceptance"].share)
    host = config.alerts.host or socket.gethostname()
    title = f"{wanted.schedule} mail report of {host}: {accepted} accepted"
    parts = list(history_tables.parts(report, top=20, source=host))
    lines = history_tables.plain([history_tables.table(report, top=15)], width=120).splitlines()
    return Rendered(
        title,
        history_tables.plain(parts),
        history_html.page(report, source=host, now=due, plots=False),
        tuple(line for line in lines if line)[:_NOTE_LINES],
    )


def note(rendered: Rendered, *, now: float) -> Note:
    """Give the report as a note."""
    return Note(
        NoteKind.REPORT, 0, "sidecar-report", Severity.INFO, rendered.title, "report", now, now, 0.0,
        evidence=rendered.lines,
    )  # fmt: skip


def compose(rendered: Rendered, to: tuple[str, ...], sender: str, *, now: float) -> bytes:
    """Give the mail: text, and the same as a page without scripts."""
    message = EmailMessage()
    message["Subject"] = rendered.title
    message["To"] = ", ".join(to)
    if sender:
        message["From"] = sender
    message["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    message["Message-ID"] = make_msgid("sidecar-report")
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(rendered.text)
    message.add_alternative(rendered.html, subtype="html")
    return message.as_bytes()


def handed_over(message: bytes, to: tuple[str, ...], sender: str, *, sendmail: str = SENDMAIL) -> str | None:
    """Give it to sendmail(1); why it is worth another try, None where it was taken or never will be."""
    command = [sendmail, "-i", *(("-f", sender) if sender else ()), "--", *to]
    try:
        done = subprocess.run(command, input=message, capture_output=True, timeout=_SENDMAIL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        own_log.report_not_sent(f"{sendmail} does not end; it may have taken the report")
        return None
    except OSError as error:
        return f"{sendmail}: {error.strerror}"
    if done.returncode == 0:
        return None
    why = f"{sendmail} ends with {done.returncode}: {done.stderr.decode('utf-8', 'replace').strip()[:200]}"
    if done.returncode in _PASSING:
        return why
    own_log.report_not_sent(why)
    return None
