"""One figure as conditions look at it: what a feed told, what the log counts, what core says of itself.

Knows what kind of thing a figure is about and of how many messages it is made; not what is good or bad.
"""

import ipaddress
import math
from enum import StrEnum
from typing import NamedTuple

from parsers.observation import Observation, Outcome


class Kind(StrEnum):
    """What a figure is about."""

    ADDRESS = "address"
    DOMAIN = "domain"
    PROVIDER = "provider"
    STREAM = "stream"
    """What one domain sends to one provider: "example.com@google"."""
    TENANT = "tenant"
    CAMPAIGN = "campaign"
    MX = "mx"
    SUBQUEUE = "subqueue"
    LIST = "list"
    FEED = "feed"
    HOST = "host"
    CHANNEL = "channel"


class Figure(NamedTuple):
    feed: str
    """A feed's name, or "log", "core", "feeds", "channels"."""
    object: str
    kind: Kind
    measure: str
    """As in Observation; of the log with its window: "deferrals.15m"."""
    outcome: Outcome
    value: float | None
    text: str
    stamp: float
    """When it was looked at; the same stamp twice is one look."""
    at: float
    """The time that it describes."""
    volume: float = math.inf
    """Messages that it is made of; infinite where that is no question."""
    baseline: float | None = None
    """The same figure in a longer time; None where that is not known."""


def told(seen: Observation, *, stamp: float) -> Figure:
    """Make a figure of what a feed told at a poll."""
    return Figure(seen.feed, seen.object, kind_of(seen), *seen[2:6], stamp, seen.at or stamp)


def kind_of(seen: Observation) -> Kind:
    if seen.measure == "zone-healthy":
        return Kind.LIST
    if seen.measure.startswith("placement."):
        return Kind.PROVIDER
    if seen.measure == "seed-mailbox":
        return Kind.FEED
    if seen.object in _OURS_THERE:
        return Kind.FEED
    try:
        ipaddress.ip_network(seen.object)
    except ValueError:
        return Kind.DOMAIN
    return Kind.ADDRESS


_OURS_THERE = frozenset({"account", "login", "data-link", "status-link", "attestation"})
"""Objects of a feed that are our access to it."""
