"""Lines about Postfix itself: master(8), postfix-script, postfix(1): started, reloaded, stopped, a process that died."""

import re
from typing import Final

from parsers.postfix.facts import ProcessEvent
from parsers.postfix.grammar import Grammar, plain, warned
from parsers.postfix.notes import ANY_DAEMON, notes
from parsers.record import LogRecord


def event(record: LogRecord, _lead: str, match: re.Match[str]) -> ProcessEvent:
    return ProcessEvent(record, "", match[0])


MASTER: Final = Grammar(
    plain("started", "daemon started -- ", ".*", event),
    plain("reload", "reload -- ", ".*", event),
    plain("reload-configuration", "reload configuration ", ".*", event),  # without a version, of old
    plain("terminating", "terminating on signal ", r"\d{1,3}", event),
    warned("process-died", "process ", r"\S+ pid \d{1,10} (?:exit status|killed by signal) \d{1,3}", event),
    *ANY_DAEMON,
)

SCRIPT: Final = Grammar(
    plain("starting", "starting the Postfix mail system", ".*", event),
    plain("refreshing", "refreshing the Postfix mail system", "", event),
    plain("stopping", "stopping the Postfix mail system", "", event),
    plain("aborting", "aborting the Postfix mail system", "", event),
    plain("waiting", "waiting for the Postfix mail system to terminate", "", event),
    plain("not-running", "the Postfix mail system is not running", "", event),
    plain("running", "the Postfix mail system is running: PID: ", r"\d{1,10}", event),
    *notes(
        "Postfix is using backwards-compatible default settings",
        "Postfix is running with backwards-compatible default settings",
        "See http",
        "To disable backwards compatibility use ",
    ),
)
