"""What of queued mail cannot be requeued, as Postfix on this host is set up: said before anything is touched."""

from collections.abc import Sequence

from policies.routing import POOL
from sidecar import hold_queue, postfix_configuration
from sidecar.postfix import Instance
from sidecar.postfix_configuration import Configuration


def objection(instances: Sequence[Instance], table: str, source: str, to: str, pools: Sequence[str]) -> str:
    """Say why mail cannot be requeued from one transport to another; "" where it can. Raises PostfixError.

    `table`: postfix.transport_table of the configuration.
    """
    refused = next(filter(None, map(hold_queue.why_no_requeue, instances)), "")
    if refused:
        return refused
    sites = [postfix_configuration.read(instance) for instance in instances]
    if sites and not any(_is_logged_as(site, source) for site in sites):
        return f"transport: the log names none {source}: wanted an entry of master.cf with -o syslog_name=.../{source}"
    if not to:
        return ""
    if to == source:
        return f"to: {to} is what it went over; wanted another transport, or pool:NAME"
    if to.startswith(POOL) and to.removeprefix(POOL) not in pools:
        return f"to: no pool is called {to.removeprefix(POOL)}; known: {', '.join(pools) or 'none'}"
    if not table:
        return (
            "to: postfix.transport_table is not set: without the table (docs/routes.md) requeued mail goes as Postfix "
            "sends it; leave --to out if that is another way"
        )
    return next(filter(None, (_not_wired(site, table, to) for site in sites)), "")


def _is_logged_as(site: Configuration, transport: str) -> bool:
    """Whether deliveries over a transport are logged under its name; those without one of their own, under the program's."""
    service = site.service(transport, "unix")
    if service is None:
        return False
    return service.command == transport or site.effective(service, "syslog_name").endswith(f"/{transport}")


def _not_wired(site: Configuration, table: str, to: str) -> str:
    """Say why nothing can be led to `to` by the table; "" where it can."""
    directory = site.instance.config_directory
    if table not in site.expanded.get("transport_maps", ""):
        return f"to: {directory}/main.cf: transport_maps does not name {table}; `sidecar postfix apply` does that"
    if not to.startswith(POOL) and site.service(to, "unix") is None:
        return f"to: {directory}/master.cf has no transport {to}"
    return ""
