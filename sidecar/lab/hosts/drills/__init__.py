"""Failures of a fleet on real hosts: of its Redis, of the links to it, and of a host. Each with what must be true after.

In each a domain's mail lies on all hosts and is throttled; while it ramps, something breaks. To add one: a `FleetDrill` in
the `DRILLS` of the module of what it breaks.
"""

from sidecar.lab.hosts.drills import host_fails, links_fail, redis_fails
from sidecar.lab.hosts.drills.drill import FleetDrill

FLEET_DRILLS: dict[str, FleetDrill] = {
    drill.name: drill for drill in (*redis_fails.DRILLS, *links_fail.DRILLS, *host_fails.DRILLS)
}
