"""Leads mail that is to be requeued: writes into Postfix's table of transports where each recipient goes, before it is
taken in anew.

Knows what a requeue cannot do here, and says so before anything is touched.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from policies.commands import Requeue
from policies.engine import Engine
from policies.redirects import MOST, can_lead
from policies.routing import POOL
from policies.steering import Steering
from sidecar import hold_queue, postfix_configuration
from sidecar.postfix import Instance
from sidecar.transport_table import TransportTable

REQUEUED: Final = (
    "each message gets another queue id and one more Received: header; the audit of the old id says so",
    "address rewriting, aliases and header_checks are applied once more; the policy service and milters are not asked",
    "the FILTER that a policy answer or a header check gave is gone",
    "mail that was delivered in part, is being delivered, or was not tried since core's start stays as it is",
)
"""What an admin should know of it."""


class Rerouting:
    def __init__(self, engine: Engine, steering: Steering | None, table: TransportTable | None) -> None:
        """`table`: None where the configuration names none; then mail goes as Postfix sends it."""
        self._engine = engine
        self._steering = steering
        self.table = table

    async def lead(self, requeue: Requeue) -> None:
        """Have the table say where this mail goes. Raises PostfixError; then it must not be requeued yet."""
        if self.table is None or not requeue.to:
            return
        now, redirects = time.time(), self._engine.redirects
        for queue_id, leaving in requeue.mail.items():
            for recipient in filter(can_lead, leaving.recipients):
                provider = self._engine.provider_of(recipient.rpartition("@")[2].lower()) or ""
                to = requeue.to
                if to.startswith(POOL) and self._steering is not None:
                    to = self._steering.over(
                        to.removeprefix(POOL),
                        (queue_id, leaving.sending_domain),
                        provider,
                        instead_of=requeue.source,
                        now=now,
                    )
                if to and len(redirects) < MOST:
                    redirects.lead([recipient], to, now=now)
        await asyncio.to_thread(self.table.lead, redirects.table())

    async def tidy(self) -> None:
        """Take out of the table what has arrived. Raises PostfixError."""
        redirects = self._engine.redirects
        redirects.forget_old(now=time.time())
        if self.table is not None and redirects.settled_any:
            redirects.settled_any = False
            await asyncio.to_thread(self.table.lead, redirects.table())

    async def restore(self) -> None:
        """Go on with what the table says. Raises PostfixError."""
        if self.table is not None:
            self._engine.redirects.restore(await asyncio.to_thread(self.table.led), now=time.time())


def objection(instances: Sequence[Instance], table: str, source: str, to: str, pools: Sequence[str]) -> str:
    """Say why mail cannot be requeued from one transport to another; "" where it can. Raises PostfixError.

    `table`: postfix.transport_table of the configuration.
    """
    for instance in instances:
        refused = hold_queue.why_no_requeue(instance)
        if refused:
            return refused
    if not to:
        return ""
    if to == source:
        return f"to: {to} is what it went over; wanted another transport, or pool:NAME"
    if to.startswith(POOL):
        name = to.removeprefix(POOL)
        if name not in pools:
            return f"to: no pool is called {name}; known: {', '.join(pools) or 'none'}"
    return _not_wired(instances, table, to)


def _not_wired(instances: Sequence[Instance], table: str, to: str) -> str:
    """Say why nothing can be led to `to`; "" where it can. Raises PostfixError."""
    if not table:
        return (
            "to: postfix.transport_table is not set: without the table (docs/routes.md) requeued mail goes as Postfix "
            "sends it; leave --to out if that is another way"
        )
    for instance in instances:
        configuration = postfix_configuration.read(instance)
        main = f"{instance.config_directory}/main.cf"
        if table not in configuration.expanded.get("transport_maps", ""):
            return f"to: {main}: transport_maps does not name {table}; `sidecar postfix apply` does that"
        if not to.startswith(POOL) and configuration.service(to, "unix") is None:
            return f"to: {instance.config_directory}/master.cf has no transport {to}"
    return ""
