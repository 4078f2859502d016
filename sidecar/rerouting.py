"""Leads mail that is to be requeued: writes into Postfix's table of transports where each recipient goes, before it is
taken in anew.

What a requeue cannot do here, `requeue_limits` says before anything is touched.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final

from policies.by_hand import STREAM, Requeueing
from policies.commands import Requeue
from policies.engine import Engine
from policies.key import EVERYWHERE, Key
from policies.parked import OpenSubQueue
from policies.redirects import MOST, can_lead
from policies.routing import POOL
from policies.steering import Steering
from sidecar.postfix import Instance, PostfixError
from sidecar.requeue_limits import objection
from sidecar.transport_table import TransportTable

_LOG = logging.getLogger("sidecar.rerouting")

RATE: Final = 2.0
"""Messages a second, where nobody says another pace."""
SECONDS: Final = 3600.0
"""How long it goes on, where nobody says another time."""
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
        self._restored = False

    async def lead(self, requeue: Requeue) -> None:
        """Have the table say where this mail goes. Raises PostfixError; then it must not be requeued yet."""
        if self.table is None or not requeue.to:
            return
        await self._restore(self.table)
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
        if self.table is None:
            return
        await self._restore(self.table)
        redirects = self._engine.redirects
        redirects.forget_old(now=time.time())
        if redirects.settled_any:
            redirects.settled_any = False
            await asyncio.to_thread(self.table.lead, redirects.table())

    async def _restore(self, table: TransportTable) -> None:
        """Go on with what the table says, before it is written for the first time. Raises PostfixError."""
        if not self._restored:
            led = await asyncio.to_thread(table.led)
            self._engine.redirects.restore(led, now=time.time())
            self._restored = True


def begin(
    engine: Engine, requeueing: Requeueing, *, where: str, rate: float, seconds: float, name: str, by_whom: str
) -> OpenSubQueue:
    """Have queued mail of a transport, for which `where` holds if there is one, requeued. Raises ValueError."""
    condition = f'transport = "{requeueing.source}"'
    return engine.orders.requeue(
        requeueing,
        where=f"{condition} and ({where})" if where else condition,
        name=name or name_of(requeueing.source),
        rate=rate or RATE,
        seconds=seconds or SECONDS,
        by_whom=by_whom,
        now=time.time(),
    )


def name_of(transport: str, provider: str = "") -> str:
    """Name the stream that mail of a transport is requeued in."""
    return "-".join(filter(None, ("requeue", transport.lower(), provider)))


async def lead_away(engine: Engine, steering: Steering, instances: Sequence[Instance], table: str) -> None:
    """Do what rules want done about mail that is queued for an address that left its pools."""
    away, steering.away = steering.away, []
    for transport, pool, at, rule, over in away:
        provider = "" if at == EVERYWHERE else at
        name, by_whom = name_of(transport, provider), f"react/{rule}"
        if over:
            engine.orders.close(Key(STREAM, name, EVERYWHERE), by_whom=by_whom, now=time.time())
            continue
        try:
            to = f"{POOL}{pool}"
            refused = await asyncio.to_thread(objection, instances, table, transport, to, [pool])
            if refused:
                raise ValueError(refused)  # noqa: TRY301  # told below like any other
            where = f'provider = "{provider}"' if provider else ""
            begin(
                engine, Requeueing(transport, to), where=where, rate=RATE, seconds=SECONDS, name=name, by_whom=by_whom
            )
        except (PostfixError, ValueError) as error:
            _LOG.warning("%s: mail that is queued for %s stays as it is: %s", by_whom, transport, error)
