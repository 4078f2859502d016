"""What the site's Postfix configuration means for the engine and the policy service."""

import platform
from collections.abc import Sequence
from pathlib import Path

from policies.access import Wiring
from policies.fail_fast import HoldBroken
from policies.site import InstanceFacts, Settings
from sidecar import other_filters, postfix, postfix_configuration
from sidecar.config import Config, Mode
from sidecar.policy_sockets import Listener

_DIVERTING = (
    "relayhost",
    "sender_dependent_relayhost_maps",
    "content_filter",
    "always_bcc",
    "sender_bcc_maps",
    "recipient_bcc_maps",
)
"""With any of these set, or a FILTER of the site's own, FILTER is not answered: design rule 7."""
_OWN_DOMAINS = ("mydestination", "virtual_mailbox_domains", "virtual_alias_domains", "relay_domains")


def engine_settings(config: Config, instances: Sequence[postfix.Instance]) -> Settings:
    """Gather what the engine must know; `hold_max` scales with the rest in a lab."""
    return Settings(
        act=config.mode is Mode.ACT,
        host=platform.node() or "this-host",
        hold_max=config.subqueues.hold_max_hours * 3600,
        scale=config.subqueues.scale,
        instances={instance.syslog_name: _facts(instance) for instance in instances},
        hold_broken=HoldBroken(config.authentication.hold, frozenset(map(str.lower, config.authentication.domains))),
        campaign_headers=frozenset(map(str.lower, config.report.campaign_headers)),
        segment_headers=frozenset(map(str.lower, config.report.segment_headers)),
        addresses=config.store.addresses,
    )


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


def wiring(instances: Sequence[postfix.Instance]) -> dict[str, Wiring]:
    """Tell, by instance, whether FILTER may be answered and which domains are its own."""
    return {
        instance.syslog_name: Wiring(
            filter_allowed=not any(instance.parameters[name] for name in _DIVERTING)
            and next(other_filters.find(postfix_configuration.read(instance)), None) is None,
            own_domains=_own_domains(instance),
        )
        for instance in instances
    }


def _own_domains(instance: postfix.Instance) -> frozenset[str]:
    """List the domains written out in the configuration; those in tables are not looked into."""
    values = postfix.parameters(instance.config_directory, *_OWN_DOMAINS)
    words = " ".join(values.values()).replace(",", " ").split()
    return frozenset(word.lower() for word in words if ":" not in word and "/" not in word)


def listeners(config: Config, instances: Sequence[postfix.Instance]) -> list[Listener]:
    """Give each instance its own unix sockets; an absolute path or TCP address is the primary instance's."""
    found = []
    for address in config.policy.listen:
        relative = address.startswith("unix:") and not Path(address.removeprefix("unix:")).is_absolute()
        found += [
            Listener(address, instance.queue_directory, instance.syslog_name)
            for instance in (instances if relative else instances[:1])
        ]
    return found
