"""How the MX hosts that we speak to answer: outcomes, connections that failed, TLS that failed, by host.

Knows what is theirs and what is ours: a network that we have no route to (IPv6 on a host without it) says nothing of
them. Bounded: the hosts that were spoken to last.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from parsers.postfix.facts import ConnectionFailed, DeliveryAttempt, TlsFailed
from policies.open_message import is_local

HOSTS_MAX: Final = 2_000
BUCKET: Final = 900.0
BUCKETS: Final = 5
"""Those of the last hour, and the one that is going on."""
FADE: Final = 0.99
"""What a quarter of an hour takes away of what was before: half of it is gone after 17 hours."""
_OURS: Final = ("Network is unreachable", "No route to host", "Address family not supported")
"""Errors of our own network, as the C library names them."""


class Answered(NamedTuple):
    """Counts of one host."""

    outcomes: float = 0.0
    """Recipients whose outcome came of a connection to the host."""
    unreached: float = 0.0
    """Connections that did not come about."""
    tls_failed: float = 0.0

    def plus(self, other: "Answered") -> "Answered":
        return Answered(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def faded(self, by: float) -> "Answered":
        return Answered(*(each * by for each in self))

    @property
    def tries(self) -> float:
        return self.outcomes + self.unreached


class MxHost(NamedTuple):
    host: str
    lately: Answered
    """In the last hour."""
    before: Answered
    """Before it, the older the less."""


class _Host:
    """Counts of one host by quarters of an hour."""

    __slots__ = ("before", "buckets")

    def __init__(self) -> None:
        self.buckets: dict[int, list[float]] = {}
        """Begin of each quarter -> as the fields of Answered; a list, for it is added to with each line."""
        self.before = Answered()

    def add(self, what: int, *, now: float) -> None:
        bucket = int(now // BUCKET)
        counts = self.buckets.get(bucket)
        if counts is None:
            self.age(now=now)
            counts = self.buckets[bucket] = [0.0, 0.0, 0.0]
        counts[what] += 1.0

    def age(self, *, now: float) -> None:
        """Let what is older than an hour become what was before."""
        last = int(now // BUCKET) - BUCKETS
        for bucket in [each for each in self.buckets if each <= last]:
            self.before = self.before.faded(FADE).plus(Answered(*self.buckets.pop(bucket)))

    def lately(self) -> Answered:
        return Answered(*map(sum, zip(*self.buckets.values(), strict=True)))


class MxHosts:
    def __init__(self, *, most: int = HOSTS_MAX) -> None:
        self._most = most
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    def attempted(self, fact: DeliveryAttempt, *, now: float) -> None:
        """Count an outcome that came of a connection: without one the log names no relay."""
        if fact.relay_port is not None and not is_local(fact.relay_address):
            self._of(fact.relay_host).add(_OUTCOME, now=now)

    def unreached(self, fact: ConnectionFailed, *, now: float) -> None:
        if not is_local(fact.relay_address) and not fact.reason.endswith(_OURS):
            self._of(fact.relay_host).add(_UNREACHED, now=now)

    def tls_failed(self, fact: TlsFailed, *, now: float) -> None:
        if fact.role == "client" and not is_local(fact.peer_address):
            self._of(fact.peer_host).add(_TLS_FAILED, now=now)

    def _of(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) >= self._most:
                self._hosts.popitem(last=False)
            host = self._hosts[name] = _Host()
        else:
            self._hosts.move_to_end(name)
        return host

    def told(self, *, now: float) -> list[MxHost]:
        """Give what is known of each host that was spoken to in the last hour."""
        found = []
        for name, host in self._hosts.items():
            host.age(now=now)
            if host.buckets:
                found.append(MxHost(name, host.lately(), host.before))
        return found


_OUTCOME, _UNREACHED, _TLS_FAILED = range(3)
