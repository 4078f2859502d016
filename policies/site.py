"""What the engine must know of the host it works on."""

from collections.abc import Mapping
from typing import NamedTuple

from policies.fail_fast import HoldBroken
from policies.messages import Message
from policies.rule import Opening, Strategy
from policies.stored_address import AddressForm


class InstanceFacts(NamedTuple):
    """One Postfix instance's configuration, as far as decisions depend on it."""

    lifetime: float = 432_000.0
    """maximal_queue_lifetime, seconds."""
    bounce_lifetime: float = 432_000.0
    relayhost: bool = False
    """Mail goes through a relay: replies are its own, providers come from MX look-ups alone."""
    lanes: tuple[str, ...] = ()
    """Transports of few connections that mail may be sent over by FILTER; none where FILTER is not answered."""
    verify_sender: str = "double-bounce"
    """$address_verify_sender, up to the "@"."""


class Strategies(NamedTuple):
    """By which rules mail goes another way than onto hold: ids of rules (google/rate), or of providers (google)."""

    lane: frozenset[str] = frozenset()
    pushback: frozenset[str] = frozenset()
    lanes: bool = True
    """There are lanes that mail can be sent over; else what would go over one waits on hold."""

    def of(self, rule: str, opening: Opening) -> Strategy:
        """Give the strategy of a rule: the site's, else its own. What waits for a repair of ours waits on hold."""
        names = {rule, rule.partition("/")[0]}
        if opening.configuration:
            return Strategy.PARK
        wanted = opening.strategy
        if names & self.lane:
            wanted = Strategy.LANE
        elif names & self.pushback:
            wanted = Strategy.PUSHBACK
        return wanted if self.lanes or wanted is not Strategy.LANE else Strategy.PARK


class Settings(NamedTuple):
    act: bool
    """False: observe; hands off the queue."""
    host: str = "this-host"
    """Our name, for keys of replies about an IP that is not named."""
    hold_max: float = 86_400.0
    """Seconds; the lifetime of the instance may ask for less."""
    scale: float = 1.0
    """Divides the durations that a lab must shorten; never those that Postfix's own pace sets."""
    instances: Mapping[str, InstanceFacts] = {}
    strategies: Strategies = Strategies()
    hold_broken: HoldBroken = HoldBroken()
    """Whose mail waits while its authentication is broken."""
    campaign_headers: frozenset[str] = frozenset()
    """Headers, in small letters, that name a message's campaign."""
    segment_headers: frozenset[str] = frozenset()
    addresses: AddressForm = AddressForm.FULL
    """How events keep addresses."""

    def instance(self, name: str) -> InstanceFacts:
        """Give what is known of an instance, Postfix's defaults where nothing is."""
        return self.instances.get(name) or _DEFAULT

    def hold_max_of(self, message: Message) -> float:
        """Seconds from its arrival for which a message may be held: at most half its lifetime (rule 8)."""
        instance = self.instance(message.instance)
        return min(self.hold_max, (instance.lifetime if message.sender else instance.bounce_lifetime) / 2)

    @property
    def least_hold_max(self) -> float:
        """No message reaches its hold_max sooner than this many seconds after its arrival."""
        lifetimes = (min(it.lifetime, it.bounce_lifetime) / 2 for it in (*self.instances.values(), _DEFAULT))
        return min(self.hold_max, *lifetimes)

    def is_verification(self, message: Message) -> bool:
        """Whether this is a probe of address verification, which is never parked (rule 4)."""
        return (message.sender or "").partition("@")[0] == self.instance(message.instance).verify_sender


_DEFAULT = InstanceFacts()
