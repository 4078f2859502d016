"""The site that benchmarks/policyd.py asks about: its sub-queues, lists, routes, quotas, pools and hygiene.

Nothing here ever runs dry or refuses, so that what is measured is what nearly all mail costs.
"""

import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from parsers.address import domain_of  # noqa: E402  # after the path
from policies.access import Access, Arrival, Arrivals, Parked, Wiring  # noqa: E402  # as above
from policies.admission import Admission  # noqa: E402  # as above
from policies.buckets import Quotas  # noqa: E402  # as above
from policies.engine import Engine  # noqa: E402  # as above
from policies.hygiene import Check, Hygiene, Level, Levels, NoHost  # noqa: E402  # as above
from policies.key import Key  # noqa: E402  # as above
from policies.pools import Member, Pool  # noqa: E402  # as above
from policies.quota import Counted, Per, Quota, Within  # noqa: E402  # as above
from policies.reacting import Do, Reactions, Rule, Signal  # noqa: E402  # as above
from policies.refusals import Refusals  # noqa: E402  # as above
from policies.routing import Routing, read_route, to_provider  # noqa: E402  # as above
from policies.site import Settings  # noqa: E402  # as above
from policies.steering import Settings as Steered  # noqa: E402  # as above
from policies.steering import Steering  # noqa: E402  # as above
from policies.suppression import GLOBAL, Listed, Reason  # noqa: E402  # as above
from policies.warm_up import DAY, Plan, WarmUps  # noqa: E402  # as above
from sidecar import rules  # noqa: E402  # as above
from sidecar.hygiene import packaged  # noqa: E402  # as above
from sidecar.routes import routing_of  # noqa: E402  # as above
from sidecar.suppression_book import SuppressionBook, SuppressionKey  # noqa: E402  # as above
from sidecar.suppression_index import IndexFile  # noqa: E402  # as above

SUBQUEUES = 10_000
SENDERS = 10_000
"""Sending domains in the load; as many have a sub-queue, each at one provider."""
QUOTA_KEYS = 5_000
"""Buckets of a quota."""
DEAD_DOMAINS = 10_000
"""Recipient domains that a look-up found to have no host, where hygiene is on."""

# The domains of policy_load.c.
PROVIDERS = {
    "gmail.com": "google",
    "yahoo.com": "yahoo",
    "outlook.com": "microsoft",
    "hotmail.com": "microsoft",
    "gmx.de": "gmx",
    "web.de": "gmx",
    "orange.fr": "orange",
    "icloud.com": "apple",
    "aol.com": "yahoo",
    "mail.ru": "mail-ru",
    "libero.it": "libero",
    "example.org": "example.org",
}


class Site(NamedTuple):
    """What is set, beside the sub-queues."""

    routes: int = 0
    """Beside those to two providers."""
    quotas: int = 0
    steers: bool = False
    """What goes to two providers goes over a pool of four addresses, one of which warms up."""
    hygiene: bool = False
    """All checks are on."""


class StandIn:
    """A dictionary that knows who is paused where."""

    def __init__(self) -> None:
        self._paused = {(f"news.shop{i}.example", provider_of(i)) for i in range(SUBQUEUES)}

    def arriving(self, arrival: Arrival, *, now: float) -> Parked | None:  # noqa: ARG002  # nothing changes in time
        sender = domain_of(arrival.sender)
        for recipient in arrival.recipients:
            if (sender, self.provider_of(domain_of(recipient))) not in self._paused:
                return None
        return Parked(f"spf-domain:{sender}@here", "benchmark/rate", "paused") if arrival.recipients else None

    pushing_back = 0

    def pushed_back(self, *_: object, now: float) -> None:
        """Nobody asks, for nothing is pushed back here."""
        raise AssertionError(now)

    def provider_of(self, recipient_domain: str) -> str | None:
        return PROVIDERS.get(recipient_domain)


def provider_of(number: int) -> str:
    providers = sorted(set(PROVIDERS.values()))
    return providers[number % len(providers)]


def engine_of(now: float) -> Engine:
    engine = Engine(rules.load(), rules.organizational_domain, Settings(act=True))
    for domain, provider in PROVIDERS.items():
        engine.recipients.learn(domain, provider, now=now)
    for i in range(SUBQUEUES):
        engine.orders.open(Key("sender-domain", f"shop{i}.example", provider_of(i)), rule="by-hand", now=now)
    return engine


def access_of(site: Site, arrivals: Arrivals, index: Path) -> Access:
    """`index`: the file of who is suppressed; where there is none nobody is."""
    engine = arrivals if isinstance(arrivals, Engine) else None
    return Access(
        arrivals,
        routing=_routing(site),
        milters_quarantine=False,
        act=True,
        wiring={"postfix": Wiring(filter_allowed=True, own_domains=frozenset({"corp.example"}))},
        refusing=_refusals(index),
        admitting=_admission(site, arrivals) if site.quotas or site.hygiene else None,
        steering=_steering(engine) if site.steers and engine else None,
    )


def _refusals(index: Path) -> Refusals | None:
    if not index.exists():
        return None
    book = SuppressionBook(SuppressionKey(b"0123456789abcdef"))
    book.use(IndexFile(index), {1: Listed(GLOBAL, Reason.HARD_BOUNCE)})
    return Refusals(book, rules.organizational_domain)


def _routing(site: Site) -> Routing:
    """Routes as a large site writes them, by tenant, sending domain and provider; some hold for some of the senders."""
    each = range(site.routes // 4)
    by_tenant = [f"tenant = shop{i} and provider in (google, yahoo)" for i in each]
    by_sender = [f"sender_domain in (news.shop{i}.example, shop{i}.example)" for i in each]
    by_size = [f"recipient_domain = dom{i}.example and size > 1m" for i in each]
    by_domain = [f"sending_domain = x{i}.example or client = 192.0.2.{i % 250}" for i in each]
    written = [*by_tenant, *by_sender, *by_size, *by_domain]
    read = [read_route(f"out-{i % 20}", when) for i, when in enumerate(written)]
    first, second = ("pool:bulk", "pool:bulk") if site.steers else ("lane-01", "lane-02")
    return routing_of([*read, to_provider("yahoo", first, name="yahoo"), to_provider("apple", second, name="apple")])


def _admission(site: Site, arrivals: Arrivals) -> Admission:
    rows = tuple(
        Quota(f"{per}-{counted}", per, counted, 10**9, Within.DAY, burst=10**9, warn=0.8, keys=QUOTA_KEYS)
        for per, counted in (
            (Per.TENANT, Counted.RECIPIENTS),
            (Per.TENANT, Counted.MESSAGES),
            (Per.SENDING_DOMAIN, Counted.RECIPIENTS),
            (Per.CLIENT, Counted.RECIPIENTS),
            (Per.SENDER, Counted.RECIPIENTS),
        )[: site.quotas]
    )
    quotas = Quotas(rows, organizational=rules.organizational_domain, provider_of=arrivals.provider_of)
    hygiene = _hygiene() if site.hygiene else None
    return Admission(hygiene, quotas if site.quotas else None, provider_of=arrivals.provider_of)


def _hygiene() -> Hygiene:
    hygiene = Hygiene(Levels(*[Level.REJECT] * len(Check)), packaged())
    for number in range(DEAD_DOMAINS):
        hygiene.no_hosts.learn(f"dead{number}.example", NoHost.NULL_MX, ttl=DAY, now=time.time())
    return hygiene


def _steering(engine: Engine) -> Steering:
    members = tuple(Member(f"ip-{number}") for number in range(1, 5))
    plan = Plan("ip-4", int(time.time() / DAY) - 3, 10**9, 1.5, 10**10)
    return Steering(
        Steered(pools={"bulk": Pool("bulk", members)}),
        WarmUps([plan]),
        Reactions([Rule("listed", Signal.LISTED, Do.LEAVE_POOL)], engine.orders),
        tell=engine.telling.tell,
    )
