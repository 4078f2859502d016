"""A world for policy decisions that one can keep in mind: shop.example is paused at google, yahoo has a route.

gmail.com and workspace.example are at google, yahoo.com and aol.com at yahoo, gmx.de at gmx;
home.example is delivered by this Postfix itself. Dialogs in tests/policyd play in it.
"""

from collections.abc import Mapping
from typing import Any

from policies.access import Access, Arrival, Parked, Wiring
from policies.routing import Routing, compiled, to_provider

PROVIDERS = {
    "gmail.com": "google",
    "workspace.example": "google",
    "yahoo.com": "yahoo",
    "aol.com": "yahoo",
    "gmx.de": "gmx",
}
KEY = "sender-domain:shop.example@google"
RULE = "google/rate"
WHY = "paused, 3 waiting"
OPEN = Wiring(filter_allowed=True, own_domains=frozenset({"home.example"}))


class World:
    """The `Arrivals` of this world; remembers what it was asked."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []

    def arriving(self, arrival: Arrival, *, now: float) -> Parked | None:  # noqa: ARG002  # nothing changes in time here
        self.arrivals.append(arrival)
        domains = (recipient.rpartition("@")[2].lower().rstrip(".") for recipient in arrival.recipients)
        providers = {self.provider_of(domain) for domain in domains}
        if arrival.sender.endswith("@shop.example") and providers == {"google"}:
            return Parked(KEY, RULE, WHY)
        return None

    pushing_back = 0

    def pushed_back(self, *_: object, now: float) -> Parked | None:
        """Nobody asks, for nothing is pushed back here."""
        raise AssertionError(now)

    def provider_of(self, recipient_domain: str) -> str | None:
        return PROVIDERS.get(recipient_domain)


def routing_to(routes: Mapping[str, str]) -> Routing:
    """Routes by provider."""
    return Routing(compiled(to_provider(provider, transport)) for provider, transport in routes.items())


def access_in(world: World | None = None, **settings: Any) -> Access:
    """Access to this world, acting; `settings` go over its own."""
    given: dict[str, Any] = {
        "routing": routing_to({"yahoo": "lane-02"}),
        "milters_quarantine": False,
        "act": True,
        "wiring": {"postfix": OPEN},
    }
    return Access(world or World(), **(given | settings))
