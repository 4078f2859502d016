"""Figures of what core notices in the log: shares of failed connections and TLS by MX host, and of repeated messages.

Knows that core begins anew with each start: a host that it does not know is well only when it has watched for an hour.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from parsers.observation import Outcome
from policies.figures import Figure, Kind
from policies.mx_hosts import Answered, MxHost
from policies.repeats import Repeated
from policies.windows import FEED, HOUR, Object

KNOWN_FROM: Final = 100.0
"""Outcomes of a host before the last hour from which on it is known what is usual."""


def figures(
    hosts: Iterable[MxHost], repeated: Iterable[Repeated], also: Collection[Object], *, since: float, now: float
) -> Iterator[Figure]:
    """Give them, also of the MX hosts and domains in `also` of which core tells nothing."""
    of_hosts = {host.host: host for host in hosts}
    of_domains = {each.domain: each for each in repeated}
    if now - since >= HOUR:
        for kind, name in also:
            if kind == Kind.MX:
                of_hosts.setdefault(name, MxHost(name, Answered(), Answered()))
            if kind == Kind.DOMAIN:
                of_domains.setdefault(name, Repeated(name, 0, 0, "", 0, ""))
    for host in of_hosts.values():
        yield from _of_host(host, now=now)
    for each in of_domains.values():
        yield from _of_domain(each, now=now)


def _of_host(host: MxHost, *, now: float) -> Iterator[Figure]:
    lately, before = host.lately, host.before
    for measure, part, was in (
        ("mx-connections.1h", lately.unreached, before.unreached),
        ("mx-tls.1h", lately.tls_failed, before.tls_failed),
    ):
        whole, usual = max(lately.tries, part), None
        if before.tries >= KNOWN_FROM:
            usual = min(1.0, was / before.tries)
        value = part / whole if whole else 0.0
        yield Figure(FEED, host.host, Kind.MX, measure, Outcome.OK, value, "", now, now, whole, usual)


def _of_domain(each: Repeated, *, now: float) -> Iterator[Figure]:
    about = (FEED, each.domain, Kind.DOMAIN)
    again = each.again / each.delivered if each.delivered else 0.0
    yield Figure(*about, "repeated", Outcome.OK, again, each.example, now, now, float(each.delivered))
    yield Figure(*about, "alike", Outcome.OK, float(each.alike), each.alike_id, now, now, float(each.delivered))
