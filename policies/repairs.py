"""What of this host's own a provider wants repaired (its name in the DNS, its TLS), and whose mail waits for that.

Who looks whether it is repaired says so by `wait_on`, or by an order to resume; a TLS handshake shows it by itself.
"""

from typing import NamedTuple

from parsers.postfix import facts
from policies.fail_fast import LEASE, TLS
from policies.key import Key
from policies.orders import Orders
from policies.outcomes import Outcomes
from policies.parked import OpenSubQueue
from policies.recipients import RecipientProviders
from policies.site import Settings
from policies.subqueue import State
from policies.subqueues import IP_TYPES, SubQueues


class Waiting(NamedTuple):
    """One key whose mail waits for a repair of the host's own."""

    key: Key
    detail: str
    """The leaf of the replies that want it."""
    line: str
    """The log line of one; it may name an address of ours."""


class Repairs:
    def __init__(
        self,
        orders: Orders,
        subqueues: SubQueues,
        recipients: RecipientProviders,
        outcomes: Outcomes,
        settings: Settings,
    ) -> None:
        self.settings = settings
        self._orders = orders
        self._subqueues = subqueues
        self._recipients = recipients
        self._outcomes = outcomes

    def waiting(self) -> list[Waiting]:
        """List what waits for a repair of this host's own (its name in the DNS, its TLS), as a provider's replies want."""
        return [
            Waiting(sub.key, self._subqueues.rules.detail(sub.rule), sub.line)
            for sub in self._subqueues.all()
            if self._waits(sub)
        ]

    def wait_on(self, key: Key, *, now: float) -> bool:
        """Somebody sees that what a key waits for is broken still: no probe for as long again. Whether it waits."""
        sub = self._subqueues.get(key)
        waits = sub is not None and self._waits(sub)
        if sub is not None and waits:
            self._orders.hold(key, LEASE, rule=sub.rule, line=sub.line, by_whom="authentication", now=now)
        return waits

    def encrypted(self, fact: facts.TlsEstablished, *, now: float) -> None:
        """TLS with a provider that wanted it: what waits for that is tried."""
        provider = self._recipients.of_relay(fact.peer_host) if self._subqueues and fact.role == "client" else None
        sub = self._subqueues.named(Key("host", self.settings.host, provider)) if provider else None
        if sub is None or not self._waits(sub) or self._subqueues.rules.detail(sub.rule) != TLS:
            return
        if now > sub.machine.since:
            self._orders.resume(sub.key, by_whom="authentication", now=now)

    def _waits(self, sub: OpenSubQueue) -> bool:
        paused = sub.key.type in IP_TYPES and sub.machine.state is State.PAUSED
        return paused and self._outcomes.waits_for_repair(sub.rule)
