"""The table of feeds: what each asks about, how often, and when a site wants it. A new feed is a row here.

Knows which settings belong to which feed; what a feed asks and reads stands in its module in parsers/feeds.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from parsers.feeds import senderscore
from parsers.feeds.asking import Poll
from policies.cadence import Cadence
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


FEEDS: Mapping[str, Feed] = {
    senderscore.FEED: Feed(
        "Validity's Sender Score of our addresses (the resolver must be registered there)",
        lambda config: config.feeds.senderscore.enabled,
        lambda config: Cadence(config.feeds.senderscore.every_hours * _HOUR),
        lambda config, scope, _: senderscore.poll(scope.addresses, zone=config.feeds.senderscore.zone),
    ),
}
