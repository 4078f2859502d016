"""What report mail comes to, as figures: complaints and opt-outs over what was delivered, DMARC and TLS failures.

Knows what each share is made of. A report tells of days that are over, so a complaint is set against the busiest day
of the last week: who writes once a week is not judged by the quiet day on which the complaints arrive.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from parsers.observation import Outcome
from policies.figures import Figure, Kind
from policies.windows import Object

FEED: Final = "report-mail"
OWN_SHARE: Final = 0.5
"""Share of passing messages from which on an address that nobody named is one of ours."""


def per_delivered(
    measure: str,
    counted: Mapping[Object, int],
    delivered: Mapping[Object, int],
    usual: Mapping[Object, float],
    also: Collection[Object],
    *,
    outcome: Outcome,
    now: float,
) -> Iterator[Figure]:
    """Give the share of what was delivered that was answered so, of every object that was counted or is in `also`.

    `delivered`: on the busiest day of the last week; `usual`: the same share in the week before.
    """
    for object_ in {*counted, *also}:
        kind, name = object_
        whole = max(delivered.get(object_, 0), counted.get(object_, 0))
        value = counted.get(object_, 0) / whole if whole else 0.0
        about = (FEED, name, Kind(kind), measure, outcome)
        yield Figure(*about, value, "", now, now, float(delivered.get(object_, 0)), usual.get(object_))


def latencies(heard: Mapping[str, Sequence[float]], also: Collection[Object], *, now: float) -> Iterator[Figure]:
    """Give how long after people left a list of a domain we heard of it: in 95 of a hundred cases less."""
    quiet = {name for kind, name in also if kind == Kind.DOMAIN}
    for domain in {*heard, *quiet}:
        seconds = sorted(heard.get(domain, ()))
        value = seconds[math.ceil(0.95 * len(seconds)) - 1] if seconds else 0.0
        about = (FEED, domain, Kind.DOMAIN, "unsubscribe-latency", Outcome.OK)
        yield Figure(*about, value, "", now, now, float(len(seconds)))


def by_object(rows: Iterable[tuple[str, str, int]]) -> dict[Object, int]:
    """Add up (sending domain, provider, number) by domain, by provider, and by both."""
    found: defaultdict[Object, int] = defaultdict(int)
    for domain, provider, number in rows:
        for object_ in objects(domain, provider):
            found[object_] += number
    return dict(found)


def objects(domain: str, provider: str, tenant: str = "", campaign: str = "") -> Iterator[Object]:
    """Tell what a message from a domain to a provider counts for; "" where something is not known."""
    if provider:
        yield str(Kind.PROVIDER), provider
    if domain:
        yield str(Kind.DOMAIN), domain
    if domain and provider:
        yield str(Kind.STREAM), f"{domain}@{provider}"
    if tenant:
        yield str(Kind.TENANT), tenant
    if campaign:
        yield str(Kind.CAMPAIGN), campaign


class Sent(NamedTuple):
    """Messages of one domain from one address, as receivers report them."""

    source_ip: str
    messages: int
    failed: int
    """Neither an aligned signature nor an aligned SPF passed (RFC 7489, 3.1)."""
    unsigned: int
    """No aligned signature passed."""
    let_in: int
    """Of those that failed: neither quarantined nor rejected."""


def dmarc(domain: str, rows: Iterable[Sent], ours: Collection[str], *, stamp: float, at: float) -> Iterator[Figure]:
    """Give the shares of a domain's messages from addresses of ours that fail, and what strangers send in its name."""
    own, strange = Sent("", 0, 0, 0, 0), Sent("", 0, 0, 0, 0)
    worst = ("", 0)
    for row in rows:
        if row.source_ip in ours:
            own = _added(own, row)
        else:
            strange = _added(strange, row)
            worst = max(worst, (row.source_ip, row.let_in), key=lambda each: each[1])
    everything = own.messages + strange.messages
    from_there = f"most of them from {worst[0]}" if worst[1] else ""
    shares = (
        ("dmarc-failures", own.failed, own.messages, ""),
        ("dkim-failures", own.unsigned, own.messages, ""),
        ("dmarc-strangers", strange.let_in, everything, from_there),
    )
    for measure, part, whole, text in shares:
        value = part / whole if whole else 0.0
        yield Figure(FEED, domain, Kind.DOMAIN, measure, Outcome.OK, value, text, stamp, at, float(whole))


def _added(one: Sent, other: Sent) -> Sent:
    return Sent("", *(mine + theirs for mine, theirs in zip(one[1:], other[1:], strict=True)))


class Sessions(NamedTuple):
    """What one reporter tells of TLS sessions with the MX hosts of one domain (RFC 8460)."""

    organization: str
    successes: int
    failures: int


def tls(domain: str, rows: Iterable[Sessions], types: Iterable[str], *, stamp: float, at: float) -> Iterator[Figure]:
    """Give the share of failed sessions of all, and the share that at least two reporters tell each by themselves."""
    told = list(rows)
    whole = sum(row.successes + row.failures for row in told)
    value = sum(row.failures for row in told) / whole if whole else 0.0
    each = sorted((row.failures / max(row.successes + row.failures, 1) for row in told), reverse=True)
    text, volume = ", ".join(types), float(whole)
    yield Figure(FEED, domain, Kind.DOMAIN, "tls-failures", Outcome.OK, value, text, stamp, at, volume)
    second = each[1] if len(each) > 1 else 0.0
    yield Figure(FEED, domain, Kind.DOMAIN, "tls-failures.several", Outcome.OK, second, text, stamp, at, volume)
