"""Drills: traps for the sidecar on a real Postfix, each with what must be true afterwards.

A drill is a scenario, a coroutine that does things to it while it runs, and complaints about the evidence. To add
one: write a module with a `DRILL` beside these and put it into the table.
"""

from sidecar.config import ConfigError
from sidecar.lab.drills import (
    admin_filter,
    admins_hand,
    all_at_once,
    complaint_spike,
    daemon_dead,
    dkim_key_broken,
    domain_throttled,
    failsafe_at_once,
    held_while_active,
    identities,
    in_core,
    in_delivery,
    ip_listed,
    killed,
    lifetime,
    more_recipients,
    never_parked,
    other_ways,
    promises,
    provider_outage,
    relayhost,
    routes,
    second_pass,
    slow_client,
    store_troubles,
    strategies,
    surroundings,
    theirs_on_hold,
)
from sidecar.lab.drills.drill import Drill

DRILLS: dict[str, Drill] = {
    drill.name: drill
    for drill in (
        held_while_active.DRILL,
        *in_core.DRILLS,
        *slow_client.DRILLS,
        *admins_hand.DRILLS,
        *killed.DRILLS,
        *store_troubles.DRILLS,
        *all_at_once.DRILLS,
        *in_delivery.DRILLS,
        *failsafe_at_once.DRILLS,
        *daemon_dead.DRILLS,
        *theirs_on_hold.DRILLS,
        *promises.DRILLS,
        *second_pass.DRILLS,
        *relayhost.DRILLS,
        *admin_filter.DRILLS,
        *routes.DRILLS,
        *more_recipients.DRILLS,
        *never_parked.DRILLS,
        *other_ways.DRILLS,
        *lifetime.DRILLS,
        *surroundings.DRILLS,
        *identities.DRILLS,
        *domain_throttled.DRILLS,
        *dkim_key_broken.DRILLS,
        *ip_listed.DRILLS,
        *complaint_spike.DRILLS,
        *provider_outage.DRILLS,
        *strategies.DRILLS,
    )
}


def find(name: str) -> Drill:
    """Raises ConfigError when there is none of that name."""
    if name not in DRILLS:
        raise ConfigError(f"--drill {name}: no such drill; there are {', '.join(DRILLS)}")
    return DRILLS[name]
