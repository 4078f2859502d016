"""The table of feeds: what each asks about, how often, and when a site wants it. A new feed is a row here.

Knows which settings belong to which feed; what a feed asks and reads stands in its module in parsers/feeds.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from parsers.feeds import senderscore
from parsers.feeds.asking import Poll
from policies.cadence import Cadence
from sidecar import blocklists
from sidecar.config import Config
from sidecar.scope import Scope

_HOUR = 3600.0


class Feed(NamedTuple):
    about: str
    wanted: Callable[[Config], bool]
    """Whether the configuration asks for it."""
    cadence: Callable[[Config], Cadence]
    poll: Callable[[Config, Scope, float], Poll]
    """Begin a poll at this time; raises ConfigError where a file that it needs cannot be read."""


def _blocklists(name: str, every: int) -> Feed:
    return Feed(
        f"DNS blocklists that are asked every {every} minutes about our addresses and domains",
        lambda config: config.feeds.blocklists.enabled,
        lambda _: Cadence(every * 60.0),
        lambda config, scope, _: blocklists.poll(config, scope, every, feed=name),
    )


FEEDS: Mapping[str, Feed] = {
    **{name: _blocklists(name, every) for name, every in blocklists.CADENCES.items()},
    senderscore.FEED: Feed(
        "Validity's Sender Score of our addresses (the resolver must be registered there)",
        lambda config: config.feeds.senderscore.enabled,
        lambda config: Cadence(config.feeds.senderscore.every_hours * _HOUR),
        lambda config, scope, _: senderscore.poll(scope.addresses, zone=config.feeds.senderscore.zone),
    ),
}
