"""The table of feeds: what each asks about, how often, and when a site wants it. A new feed is a row here.

Knows which settings belong to which feed; what a feed asks and reads stands in its module in parsers/feeds.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from parsers.feeds import google_postmaster, google_postmaster_v1, own_authentication, senderscore, snds, spamhaus_sia
from parsers.feeds.asking import Poll
from policies.cadence import Cadence
from policies.reported import FEED as REPORT_MAIL
from sidecar import blocklists, own_domains
from sidecar.config import Config, ConfigError
from sidecar.credentials import google_grant, secret, snds_ages, snds_networks, snds_way
from sidecar.scope import Scope

_HOUR = 3600.0


class Feed(NamedTuple):
    about: str
    wanted: Callable[[Config], bool]
    """Whether the configuration asks for it."""
    cadence: Callable[[Config], Cadence]
    poll: Callable[[Config, Scope, float], Poll]
    """Begin a poll at this time; raises ConfigError where a file that it needs cannot be read."""
    on_listing: bool = False
    """Asked at once, too, about an address that a blocklist has begun to list: it may say why."""


def _blocklists(name: str, every: int) -> Feed:
    return Feed(
        f"DNS blocklists that are asked every {every} minutes about our addresses and domains",
        lambda config: config.feeds.blocklists.enabled,
        lambda config: Cadence(every * 60.0 / config.subqueues.scale),
        lambda config, scope, _: blocklists.poll(config, scope, every, feed=name),
    )


def _google(config: Config, scope: Scope, now: float) -> Poll:
    ours = config.feeds.google_postmaster
    return google_postmaster.poll(
        google_grant(config, scopes=ours.scopes, now=now),
        scope.domains,
        now=now,
        base_url=ours.base_url,
        wanted=config.outside.domains,
        days=ours.days,
        domains_max=ours.domains_max,
    )


def _google_v1(config: Config, scope: Scope, now: float) -> Poll:
    ours = config.feeds.google_postmaster
    grant = google_grant(config, scopes=google_postmaster_v1.SCOPES, now=now)
    domains = scope.domains[: ours.domains_max]
    return google_postmaster_v1.poll(grant, domains, now=now, base_url=ours.base_url, days=ours.days)


def _snds(config: Config, scope: Scope, now: float) -> Poll:
    way = snds_way(config)
    ages = list(snds_ages(config, way))
    return snds.poll(way, scope.addresses, ages, now=now, networks=snds_networks(config))


def _sia(config: Config, scope: Scope, now: float) -> Poll:
    ours = config.feeds.spamhaus_sia
    for part in ours.lists:
        if part not in _SIA_LISTS:
            raise ConfigError(f"feeds.spamhaus_sia.lists: found {part!r}, wanted of {', '.join(_SIA_LISTS)}")
    password = secret("feeds.spamhaus_sia.password", ours.password)
    return spamhaus_sia.poll(
        ours.username, password, scope.addresses, now=now, base_url=ours.base_url, lists=ours.lists
    )


_SIA_LISTS = ("cidr/ALL", "cidr/XBL", "cidr/CSS", "cidr/BCL", "ip/SBL")
"""A name that is none would be answered as if nothing were listed."""


FEEDS: Mapping[str, Feed] = {
    **{name: _blocklists(name, every) for name, every in blocklists.CADENCES.items()},
    "authentication-active": Feed(
        "SPF, DKIM, DMARC and DNS of our domains that sent in the last hour, and of our addresses",
        lambda config: config.feeds.authentication.enabled,
        lambda config: Cadence(config.feeds.authentication.active_minutes * 60.0),
        lambda config, scope, now: own_domains.poll(config, scope, now, active=True),
    ),
    own_authentication.FEED: Feed(
        "the same of all other domains of ours; of all of them MTA-STS and TLS reporting",
        lambda config: config.feeds.authentication.enabled,
        lambda config: Cadence(config.feeds.authentication.every_hours * _HOUR),
        lambda config, scope, now: own_domains.poll(config, scope, now, active=False),
    ),
    senderscore.FEED: Feed(
        "Validity's Sender Score of our addresses (the resolver must be registered there)",
        lambda config: config.feeds.senderscore.enabled,
        lambda config: Cadence(config.feeds.senderscore.every_hours * _HOUR),
        lambda config, scope, _: senderscore.poll(scope.addresses, zone=config.feeds.senderscore.zone),
    ),
    google_postmaster.FEED: Feed(
        "Google Postmaster: spam rate, authentication, errors and requirements of our domains, as Gmail sees them",
        lambda config: config.feeds.google_postmaster.enabled,
        lambda config: Cadence(config.feeds.google_postmaster.every_hours * _HOUR),
        _google,
    ),
    google_postmaster_v1.FEED: Feed(
        "Google Postmaster v1: reputation of our domains, as long as it is there",
        lambda config: config.feeds.google_postmaster.enabled and config.feeds.google_postmaster.v1,
        lambda config: Cadence(config.feeds.google_postmaster.every_hours * _HOUR),
        _google_v1,
    ),
    snds.FEED: Feed(
        "Microsoft SNDS: how Outlook.com judges and blocks our addresses",
        lambda config: config.feeds.snds.enabled,
        lambda config: Cadence(config.feeds.snds.every_hours * _HOUR),
        _snds,
    ),
    spamhaus_sia.FEED: Feed(
        "Spamhaus Intelligence: why an address of ours is listed",
        lambda config: config.feeds.spamhaus_sia.enabled,
        lambda config: Cadence(config.feeds.spamhaus_sia.every_hours * _HOUR),
        _sia,
        on_listing=True,
    ),
}


class Watched(NamedTuple):
    """What must tell something at its times, else it is blind: a feed, or report mail."""

    name: str
    about: str
    wanted: bool
    cadence: Cadence


def watched(config: Config, feeds: Mapping[str, Feed] = FEEDS) -> list[Watched]:
    """List the feeds, and report mail, which is taken in and not asked for."""
    found = [Watched(name, feed.about, feed.wanted(config), feed.cadence(config)) for name, feed in feeds.items()]
    every = Cadence(config.report_mail.every_minutes * 60.0)
    about = "report mail: complaints, bounces, DMARC and TLS reports, from every source that is configured"
    return [*found, Watched(REPORT_MAIL, about, wanted=True, cadence=every)]
