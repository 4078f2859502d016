"""What the site's Postfix configuration means for the engine and the policy service."""

import difflib
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from policies.access import Wiring
from policies.classify import RuleSet
from policies.fail_fast import HoldBroken
from policies.site import InstanceFacts, Settings, Strategies
from sidecar import other_filters, postfix, postfix_configuration
from sidecar.config import Config, ConfigError, Mode
from sidecar.policy_sockets import Listener

_DIVERTING = (
    "content_filter",
    "always_bcc",
    "sender_bcc_maps",
    "recipient_bcc_maps",
)
"""With any of these set, or a FILTER of the site's own, FILTER is not answered: design rule 7."""
_NOWHERE = frozenset({"discard", "error", "retry"})
"""Transports that lead nowhere: of a default_transport that is one, routes are the exceptions."""
_LANE = re.compile("lane-[0-9]{2}")
OWN_DOMAINS = ("mydestination", "virtual_mailbox_domains", "virtual_alias_domains", "relay_domains")
"""Parameters that name domains which this Postfix delivers, aliases or relays."""


def engine_settings(
    config: Config, instances: Sequence[postfix.Instance], wired: Mapping[str, Wiring] | None = None
) -> Settings:
    """Gather what the engine must know; `hold_max` scales with the rest in a lab. `wired`: as `wiring` found."""
    lanes = {name: each.lanes for name, each in (wired or {}).items()}
    return Settings(
        act=config.mode is Mode.ACT,
        host=config.log.host or platform.node() or "this-host",
        hold_max=config.subqueues.hold_max_hours * 3600,
        scale=config.subqueues.scale,
        instances={
            instance.syslog_name: _facts(instance)._replace(lanes=lanes.get(instance.syslog_name, ()))
            for instance in instances
        },
        strategies=Strategies(
            frozenset(config.subqueues.lane), frozenset(config.subqueues.pushback), lanes=any(lanes.values())
        ),
        hold_broken=HoldBroken(config.authentication.hold, frozenset(map(str.lower, config.authentication.domains))),
        campaign_headers=frozenset(map(str.lower, config.report.campaign_headers)),
        segment_headers=frozenset(map(str.lower, config.report.segment_headers)),
        addresses=config.store.addresses,
    )


def check_strategies(config: Config, rule_set: RuleSet) -> None:
    """Raise ConfigError for a strategy by a rule, or of a provider, that there is not."""
    known = sorted({rule.id for rule in rule_set.rules} | {rule.id.partition("/")[0] for rule in rule_set.rules})
    for key in ("lane", "pushback"):
        for i, name in enumerate(getattr(config.subqueues, key)):
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                remedy = f"did you mean {near[0]}?" if near else "wanted one of `sidecar classify`, as google/rate-ip"
                raise ConfigError(f"subqueues.{key}[{i}]: no rule or provider is called {name}; {remedy}")


def _facts(instance: postfix.Instance) -> InstanceFacts:
    return InstanceFacts(
        lifetime=instance.seconds("maximal_queue_lifetime"),
        bounce_lifetime=instance.seconds("bounce_queue_lifetime"),
        relayhost=bool(instance.parameters["relayhost"] or instance.parameters["sender_dependent_relayhost_maps"]),
        verify_sender=_verify_sender(instance),
    )


def _verify_sender(instance: postfix.Instance) -> str:
    sender = instance.parameters["address_verify_sender"].replace(
        "$double_bounce_sender", instance.parameters["double_bounce_sender"]
    )
    return sender.partition("@")[0] or "double-bounce"


def wiring(config: Config, instances: Sequence[postfix.Instance]) -> dict[str, Wiring]:
    """Tell, by instance, whether FILTER may be answered and which domains are its own; nothing of another host's."""
    if config.postfix.reach:
        return {}
    own_table = config.postfix.transport_table
    return {instance.syslog_name: wiring_of(postfix_configuration.read(instance), own_table) for instance in instances}


def wiring_of(site: postfix_configuration.Configuration, own_table: str = "") -> Wiring:
    """Tell it of one instance, as its configuration says."""
    values = site.expanded
    diverted = relays(values) or any(values.get(name) for name in _DIVERTING)
    allowed = not diverted and next(other_filters.find(site), None) is None
    return Wiring(
        filter_allowed=allowed,
        own_domains=_own_domains(values),
        lanes=lanes(site) if allowed else (),
        tables=bool(domain_tables(values, own_table)),
        own_tables=bool(own_tables(values)),
    )


def lanes(site: postfix_configuration.Configuration) -> tuple[str, ...]:
    """Name the lanes of master.cf, which `sidecar postfix apply` renders."""
    return tuple(sorted(one.name for one in site.services if one.type == "unix" and _LANE.fullmatch(one.name)))


def relays(values: Mapping[str, str]) -> list[str]:
    """Name the parameters by which mail goes through a relay; FILTER would go past it."""
    names = [name for name in ("relayhost", "sender_dependent_relayhost_maps") if values.get(name)]
    transport, _, next_hop = values.get("default_transport", "").partition(":")
    return [*names, "default_transport"] if next_hop and transport not in _NOWHERE else names


def domain_tables(values: Mapping[str, str], own_table: str = "") -> list[str]:
    """Name the parameters whose tables say where mail of domains goes; our policy answers know nothing of them."""
    words = {name: _words(values.get(name, "")) for name in (*OWN_DOMAINS, "transport_maps")}
    return [name for name, found in words.items() if any(_is_table(word) for word in found if word != own_table)]


def own_tables(values: Mapping[str, str]) -> list[str]:
    """List the tables and files that name own domains, as they are written."""
    return [word for name in OWN_DOMAINS for word in _words(values.get(name, "")) if _is_table(word)]


def _own_domains(values: Mapping[str, str]) -> frozenset[str]:
    """List the domains written out in the configuration; those in tables are not looked into."""
    words = _words(" ".join(values.get(name, "") for name in OWN_DOMAINS))
    return frozenset(word.lower() for word in words if not _is_table(word))


def _words(value: str) -> list[str]:
    return value.replace(",", " ").split()


def _is_table(word: str) -> bool:
    return ":" in word or "/" in word


def listeners(config: Config, instances: Sequence[postfix.Instance]) -> list[Listener]:
    """Give each instance its own unix sockets; an absolute path or TCP address is the primary instance's.

    Another host's Postfix has none of ours below its queue directory, and is not to ask over a network.
    """
    if config.postfix.reach:
        return []
    found = []
    for address in config.policy.listen:
        relative = address.startswith("unix:") and not Path(address.removeprefix("unix:")).is_absolute()
        found += [
            Listener(address, instance.queue_directory, instance.syslog_name)
            for instance in (instances if relative else instances[:1])
        ]
    return found
