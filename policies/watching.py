"""What core notices in the log beside its work, for those who ask: how MX hosts answer, what senders repeat, and what
Postfix's programs complain about.

Knows which facts each wants. It is in memory alone: a restart begins anew, and says since when it knows.
"""

from collections import Counter
from typing import Final

from parsers.postfix import facts
from policies.mx_hosts import MxHost, MxHosts
from policies.naming import Naming
from policies.outcome_counts import OTHER
from policies.repeats import Repeated, Repeats

TOLD_MAX: Final = 500
"""Hosts, and domains, of one answer: those with the most trouble."""

DAEMONS: Final = 40
"""Programs that have a name of their own: a log may be written to by anybody on the host."""

_USUAL = (
    "master",
    "qmgr",
    "smtpd",
    "smtp",
    "lmtp",
    "cleanup",
    "trivial-rewrite",
    "bounce",
    "local",
    "pickup",
    "proxymap",
)
_DEADLY = ("fatal", "panic")


class Watching:
    def __init__(self, *, since: float) -> None:
        self.since = since
        self._hosts = MxHosts()
        self._repeats = Repeats()
        self._daemons = Naming[str](DAEMONS)
        deadly = [(daemon, severity) for daemon in _USUAL if self._daemons.has(daemon) for severity in _DEADLY]
        self.diagnostics: Counter[tuple[str, str]] = Counter(dict.fromkeys(deadly, 0))
        """Warnings and errors by (daemon, severity); from 0 on where one is one too many."""

    def observe(self, fact: facts.Fact, *, now: float) -> None:
        """Take one fact of the log; `now` is when its line was written."""
        match fact:
            case facts.DeliveryAttempt():
                self._hosts.attempted(fact, now=now)
                self._repeats.attempted(fact, now=now)
            case facts.MessageIdentified():
                self._repeats.identified(fact)
            case facts.QueueActive():
                self._repeats.active(fact)
            case facts.ConnectionFailed():
                self._hosts.unreached(fact, now=now)
            case facts.TlsFailed():
                self._hosts.tls_failed(fact, now=now)
            case facts.Diagnostic():
                daemon = fact.record.daemon
                self.diagnostics[daemon if self._daemons.has(daemon) else OTHER, fact.severity] += 1

    def hosts(self, *, now: float) -> list[MxHost]:
        found = self._hosts.told(now=now)
        return sorted(found, key=lambda host: -(host.lately.unreached + host.lately.tls_failed))[:TOLD_MAX]

    def repeated(self, *, now: float) -> list[Repeated]:
        found = self._repeats.told(now=now)
        return sorted(found, key=lambda each: -max(each.again, each.alike))[:TOLD_MAX]
