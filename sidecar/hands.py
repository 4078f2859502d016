"""Carries out the engine's commands through the queue helper, and tells the engine how it went."""

import logging
import time
from collections.abc import Sequence

from policies.commands import Adopt, Command, Hold, Release, Reload, Requeue
from policies.engine import Engine
from policies.key import Key
from sidecar.postfix import PostfixError
from sidecar.queue_client import HelperRefused, HelperUnavailable, QueueClient
from sidecar.rerouting import Rerouting

_LOG = logging.getLogger("sidecar.hands")


class Hands:
    """Instances are named as the log names them (syslog_name); the helper knows them by that, too."""

    def __init__(self, engine: Engine, client: QueueClient, rerouting: Rerouting) -> None:
        self._engine = engine
        self._client = client
        self.rerouting = rerouting
        self.reachable = True
        self.wants_listing = True
        """A command's outcome is unknown, or nothing is known yet: only the queue itself can tell."""

    async def close(self) -> None:
        await self._client.close()

    async def objection(self, source: str) -> str:
        """As `requeue_limits.objection` of the host that we reach, with mail as its Postfix sends it. Raises HelperUnavailable."""
        return await self._client.objection(source)

    async def do(self, commands: Sequence[Command]) -> None:
        for command in commands:
            try:
                await self._do(command)
            except HelperRefused as error:
                _LOG.error("the queue helper refused: %s: %s", type(command).__name__, error)  # not ours
                self._failed(command, str(error), refused=True)
            except PostfixError as error:
                _LOG.warning("not requeued: %s", error)
                self._failed(command, str(error))
            except HelperUnavailable as error:
                if self.reachable:
                    _LOG.error("the queue helper cannot be reached: %s; nothing is held or released", error)  # as above
                self.reachable = False
                self._failed(command, str(error))
            else:
                if not self.reachable:
                    _LOG.warning("the queue helper answers again")
                self.reachable = True

    async def _do(self, command: Command) -> None:
        match command:
            case Hold(instance, keys):
                held = await self._client.hold(instance, tuple(keys), key=keys)
                self._engine.books.held(instance, held.held, held.missing, now=time.time())
            case Release(instance, ids, key, spread):
                done = await self._client.release(instance, ids, key=key, spread=spread)
                self._engine.books.released(instance, done.released, done.missing, done.busy, now=time.time())
            case Requeue(instance):
                await self._requeue(command)
            case Adopt(instance, keys):
                await self._client.adopt(instance, tuple(keys), key=keys)
            case Reload(instance, waiting):
                _LOG.warning("%s: reloading: %d held messages may still be in qmgr's memory", instance, waiting)
                began = time.time()
                if await self._client.reload(instance):
                    self._engine.reloaded(instance, began=began)

    async def _requeue(self, command: Requeue) -> None:
        """First where it goes, then it: the queue manager asks about a recipient as soon as it has the message."""
        await self.rerouting.lead(command)
        done = await self._client.requeue(command.instance, command.ids, key=command.key)
        way = f"to go over {command.to}" if command.to else "to go as Postfix sends such mail"
        self._engine.books.requeued(
            command.instance,
            done.released,
            done.missing,
            done.busy,
            why=f"not over {command.source} again; {way}",
            now=time.time(),
        )

    def _failed(self, command: Command, why: str, *, refused: bool = False) -> None:
        self.wants_listing = True
        now = time.time()
        match command:
            case Hold():
                self._engine.hold_failed(command, why, now=now)
            case Requeue(instance, key):
                self._engine.books.not_released(instance, command.ids, why, now=now)
                if refused:
                    self._engine.orders.close(Key.read(key), by_whom="queue helper", now=now)
            case Release(instance, ids):
                self._engine.books.not_released(instance, ids, why, now=now)
            case Adopt():
                self._engine.adopt_again(command)
            case Reload():
                pass
