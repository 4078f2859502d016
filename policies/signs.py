"""Which alerts are signs that mail is steered by: a table of conditions, and whom each is about, at which provider.

Knows that an alert is already believed (its condition saw to that); what is only a warning sets off nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from parsers.feeds.dnsbl import Severity
from policies.conditions import Alert
from policies.figures import Kind
from policies.key import EVERYWHERE
from policies.reacting import Signal

SIGNALS: Final[Mapping[str, Signal]] = {
    "listed": Signal.LISTED,
    "snds-blocked": Signal.LISTED,
    "senderscore": Signal.REPUTATION,
    "gmail-reputation": Signal.REPUTATION,
    "gmail-low-domain-reputation": Signal.REPUTATION,
    "snds-red": Signal.REPUTATION,
    "own-spf": Signal.AUTHENTICATION,
    "own-dkim": Signal.AUTHENTICATION,
    "own-dmarc-policy": Signal.AUTHENTICATION,
    "own-dmarc-alignment": Signal.AUTHENTICATION,
    "dmarc-failures": Signal.AUTHENTICATION,
    "dkim-failures": Signal.AUTHENTICATION,
    "auth-success": Signal.AUTHENTICATION,
    "compliance-spf": Signal.AUTHENTICATION,
    "compliance-dkim": Signal.AUTHENTICATION,
    "compliance-spf-and-dkim": Signal.AUTHENTICATION,
    "compliance-dmarc-policy": Signal.AUTHENTICATION,
    "compliance-dmarc-alignment": Signal.AUTHENTICATION,
    "complaints": Signal.COMPLAINTS,
    "complaints-raised": Signal.COMPLAINTS,
    "spam-rate": Signal.COMPLAINTS,
    "spam-rate-raised": Signal.COMPLAINTS,
    "compliance-spam-rate": Signal.COMPLAINTS,
    "snds-complaints": Signal.COMPLAINTS,
}
"""Condition -> what it is a sign of."""
_WHERE: Final = (("google-postmaster", "google"), ("snds", "microsoft"))
"""Feeds that speak for one provider alone, by how their names begin."""
_SEVERE: Final = frozenset({Severity.CRITICAL, Severity.ERROR})


class Sign(NamedTuple):
    signal: Signal
    kind: Kind
    """ADDRESS or DOMAIN."""
    object: str
    """An address, or an organizational domain."""
    provider: str
    """Where; "*": everywhere."""
    evidence: str


def signs_of(alerts: Iterable[Alert], organizational: Callable[[str], str]) -> list[Sign]:
    """Give the signs that are there now, each once, in the order of the alerts."""
    found: dict[tuple[Signal, str, str], Sign] = {}
    for alert in alerts:
        signal = SIGNALS.get(alert.condition)
        if signal is None or not alert.firing or alert.severity not in _SEVERE:
            continue
        sign = _sign(signal, alert, organizational)
        if sign is not None:
            found.setdefault((sign.signal, sign.object, sign.provider), sign)
    return list(found.values())


def _sign(signal: Signal, alert: Alert, organizational: Callable[[str], str]) -> Sign | None:
    where = next((provider for begin, provider in _WHERE if alert.feed.startswith(begin)), EVERYWHERE)
    match alert.kind:
        case Kind.ADDRESS:
            return Sign(signal, alert.kind, alert.object, where, alert.said)
        case Kind.DOMAIN:
            return Sign(signal, alert.kind, organizational(alert.object.lower()), where, alert.said)
        case Kind.STREAM:
            domain, _, provider = alert.object.rpartition("@")
            return Sign(signal, Kind.DOMAIN, organizational(domain.lower()), provider, alert.said)
        case _:
            return None
