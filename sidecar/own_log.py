"""Our own log: one line a record on standard error, and one function for each thing an operator cares about.

Knows the shape of a line and the words for it; does not know why anything happened.
"""

import logging
import os
import sys
from typing import TextIO

_LOG = logging.getLogger("sidecar")

# sd-daemon(3): a line on a stream that goes to the journal may begin with its syslog priority.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

# What a remote server or a crafted address says must neither start a new line nor steer a terminal.
_UNPRINTABLE = (
    {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
    | {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}  # turn the text around
    | {code: f"\\x{code - 0xDC00:02x}" for code in range(0xDC80, 0xDD00)}  # bytes that were no UTF-8
    | {0x0A: "\\n", 0x09: " "}
)


def printable(text: str) -> str:
    """One line of `text` that steers no terminal: control characters are written out."""
    return text if text.isprintable() else text.translate(_UNPRINTABLE)


class OneLine(logging.Formatter):
    """`sidecar/core[4711]: text`; a traceback follows on the same line."""

    def __init__(self, process: str, *, priorities: bool) -> None:
        super().__init__(f"sidecar/{process}[%(process)d]: %(message)s")
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        line = printable(super().format(record))
        return f"<{_PRIORITIES.get(record.levelno, 6)}>{line}" if self._priorities else line


def start(process: str, *, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Send this process's log to standard error (or `stream`), under the name `process`: "core", "outside"."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine(process, priorities=_goes_to_the_journal(stream)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # of libraries, only what goes wrong
    _LOG.setLevel(logging.DEBUG if verbose else logging.INFO)


def _goes_to_the_journal(stream: TextIO) -> bool:
    """Whether systemd connected this very stream to the journal: JOURNAL_STREAM of systemd.exec(5)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def listening(where: str, *, purpose: str) -> None:
    _LOG.info("listening on %s for %s", where, purpose)


def stopping(why: str) -> None:
    _LOG.info("stopping: %s", why)


def started(child: str, pid: int) -> None:
    _LOG.info("%s: started, pid %d", child, pid)


def ended(child: str, pid: int, *, how: str, again_in: float) -> None:
    """A child ended that should not have; `again_in`: seconds until it is started again."""
    when = "at once" if again_in == 0 else f"in {again_in:g} s"
    _LOG.warning("%s: pid %d ended (%s); starting it again %s", child, pid, how, when)


def not_startable(child: str, error: BaseException) -> None:
    _LOG.error("%s: cannot be started: %s", child, error)


def stopped(child: str, pid: int, *, how: str) -> None:
    _LOG.info("%s: pid %d stopped (%s)", child, pid, how)


def unstoppable(child: str, pid: int, *, waited: float) -> None:
    _LOG.warning("%s: pid %d did not stop within %.1f s; killed", child, pid, waited)


def command_failed(command: str, error: Exception) -> None:
    """A control command met an error of ours: with its traceback, for that is a bug."""
    _LOG.error("control: %s: %s: %s", command or "(no command)", type(error).__name__, error, exc_info=error)


def core_away(why: str) -> None:
    _LOG.warning("core does not answer: %s", why)


def core_refused(command: str, why: str) -> None:
    _LOG.warning("core refuses %s: %s", command, why)


def core_back(*, after: float) -> None:
    _LOG.info("core answers again after %.0f s", after)


def request_failed(path: str, error: Exception) -> None:
    _LOG.error("web: %s: %s: %s", path, type(error).__name__, error, exc_info=error)


def password_refused(name: str, client: str) -> None:
    _LOG.warning("page: wrong name or password for %r from %s", name[:100], client)


def page_trouble(why: str) -> None:
    _LOG.warning("page: %s", why)


def looked_up(domain: str, *, hosts: tuple[str, ...], error: str) -> None:
    _LOG.debug("mx of %s: %s", domain, error or ", ".join(hosts) or "accepts no mail")


def resolver_judged(controls: tuple[str, ...], *, sound: bool) -> None:
    """The resolver denies domains that are there, or no longer does."""
    names = ", ".join(controls)
    if sound:
        _LOG.warning("dns: the resolver knows %s again", names)
    else:
        _LOG.error("dns: the resolver denies %s: what it denies counts for no domain until it knows one of them", names)


def polled(feed: str, *, observations: int, trouble: str, why: str) -> None:
    if trouble:
        _LOG.warning("feed %s: %s: %s", feed, trouble, why)
    else:
        _LOG.debug("feed %s: %d observations", feed, observations)


def feed_failed(feed: str, error: Exception) -> None:
    """A bug of ours, or an answer that nobody foresaw."""
    _LOG.error("feed %s: an error of ours: %r", feed, error, exc_info=error)


def seed_test(*found: object) -> None:
    for each in found:
        _LOG.info("seed test: %s", each)


def seed_test_not_made(why: str) -> None:
    _LOG.error("seed test: not made, or not to its end: %s", why)


def seed_queue_unknown(why: str) -> None:
    _LOG.warning("seed test: our own queue cannot be looked into, what waits there counts as missing: %s", why)


def not_stored(why: str) -> None:
    _LOG.error("what was polled could not be stored: %s", why)


def report_taken(source: str, name: str, *, kind: str, why: str) -> None:
    if why:
        _LOG.warning("report mail %s %s: %s: %s", source, name, kind, why)
    else:
        _LOG.debug("report mail %s %s: %s", source, name, kind)


def report_source(source: str, why: str) -> None:
    if why:
        _LOG.warning("report mail %s: %s", source, why)
    else:
        _LOG.info("report mail %s: can be read again", source)


def nobody_is_trusted() -> None:
    _LOG.warning("report mail: report_mail.authserv_ids is empty, so no report is trusted; name our own servers there")


def report_failed(source: str, error: Exception) -> None:
    """A bug of ours, or a mail that nobody foresaw."""
    _LOG.error("report mail %s: an error of ours: %r", source, error, exc_info=error)


def authentication_broken(key: str, evidence: str, *, why_not: str) -> None:
    _LOG.warning("%s: %s: %s", key, evidence, why_not or "its mail waits until that is repaired")


def authentication_doubted(keys: int) -> None:
    _LOG.warning("%d of our domains' records seem broken at once: our own view is doubted, and none is held", keys)


def authentication_repaired(key: str) -> None:
    _LOG.info("%s: repaired; its mail leaves, slowly at first", key)


def scope_incomplete(why: str) -> None:
    _LOG.warning("whom to ask the feeds about: %s", why)


def store_recovered(how: str) -> None:
    _LOG.error("%s", how)


def incident(text: str, *, severity: str) -> None:
    """What people are told, also where no channel is configured."""
    _LOG.log(
        {"critical": logging.ERROR, "error": logging.ERROR, "warning": logging.WARNING}.get(severity, logging.INFO),
        "%s",
        text,
    )


def not_sent(channel: str, incident: int, result: str, why: str) -> None:
    _LOG.warning("channel %s: incident %d: %s: %s", channel, incident, result, why)


def handed_on(channel: str, other: str, incident: int) -> None:
    _LOG.warning("channel %s: incident %d goes over %s instead", channel, incident, other)


def channel_broken(channel: str, why: str) -> None:
    _LOG.error("channel %s is broken: %s; `sidecar alert test %s` tries it", channel, why, channel)


def channel_works(channel: str) -> None:
    _LOG.info("channel %s works again", channel)


def outbox_waits(channel: str, why: str) -> None:
    _LOG.error("channel %s: nothing is sent, for it could not be recorded: %s", channel, why)


def look_failed(error: Exception) -> None:
    _LOG.error("alerts: a look failed: %s: %s", type(error).__name__, error, exc_info=error)


def look_incomplete(why: str) -> None:
    _LOG.warning("alerts: %s", why)


def report_not_sent(why: str) -> None:
    _LOG.error("scheduled report: %s", why)


def history_away(why: str) -> None:
    _LOG.warning("history: nothing is sent: %s; core.db keeps it meanwhile", why)


def history_back(waiting: int) -> None:
    _LOG.info("history: events are sent again; %d wait", waiting)


def history_failed(error: Exception) -> None:
    _LOG.error("history: an error of ours: %r", error, exc_info=error)


def history_lacked(day: str, table: str, number: int) -> None:
    _LOG.warning("history: of %s the server had lost %d rows of %s; they were sent again", day, number, table)


def history_put_right(day: str, table: str) -> None:
    _LOG.warning("history: %s sums of %s did not agree with the events on the server; they do now", table, day)


def history_begins_anew(name: str) -> None:
    _LOG.warning(
        "history: the server knows other events of %s: this store is a new or a restored one, or the name is taken",
        name,
    )


def events_wait(why: str) -> None:
    _LOG.warning("events: not written, they wait in core.db: %s", why)


def events_go_on() -> None:
    _LOG.info("events: written again")


def events_failed(error: Exception) -> None:
    _LOG.error("events: an error of ours: %r", error, exc_info=error)
