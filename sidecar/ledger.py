"""Carries what the engine learned into the store: one transaction with the log's checkpoint.

What cannot be stored (disk full) is kept and tried again with what came since; meanwhile the engine
takes no new mail, because intent must be stored before a hand moves.
"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from policies.engine import Engine
from policies.steering import Steering
from policies.suppression import Delivered
from sidecar.log_batch import Position
from sidecar.rows import gather, merged
from sidecar.store import Store, StoreUnavailable
from sidecar.store_rows import Commit

_LOG = logging.getLogger("sidecar.ledger")


class Ledger:
    """The engine's way to the store. All SQL runs in one thread; commits are never concurrent."""

    def __init__(
        self, engine: Engine, store: Store, thread: ThreadPoolExecutor, steering: Steering | None = None
    ) -> None:
        self._engine = engine
        self._store = store
        self._steering = steering
        self._thread = thread
        self._turn = asyncio.Lock()
        self._begun: set[asyncio.Task[bool]] = set()
        self._pending: Commit | None = None
        self.position: Position | None = None
        """After the last line whose facts the engine has."""
        self._stored: Position | None = None
        self.last_failure = ""
        self.rows_dropped = 0

    async def commit(self) -> bool:
        """Store all that is known up to now; tell whether it is stored.

        What was begun is ended also when the caller is cancelled: it is no longer known elsewhere.
        """
        turn = asyncio.create_task(self._commit())
        self._begun.add(turn)
        turn.add_done_callback(self._begun.discard)
        return await asyncio.shield(turn)

    async def _commit(self) -> bool:
        async with self._turn:
            commit = merged(self._pending, gather(self._engine, self._checkpoint(), self._steering, now=time.time()))
            if commit is None:
                return True
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._store.commit, commit)
            except StoreUnavailable as error:
                self._keep(commit, str(error))
                return False
            self._stored = commit.checkpoint or self._stored
            self._pending = None
            if self.last_failure:
                _LOG.warning("the store takes writes again; new mail may be held again")
            self._engine.allow_parking(allowed=True)
            self.last_failure = ""
            return True

    def _checkpoint(self) -> Position | None:
        return self.position if self.position != self._stored else None

    def _keep(self, commit: Commit, why: str) -> None:
        if not self.last_failure:
            _LOG.error("the store does not take writes: %s; no new mail is held until it does", why)
        self.last_failure = why
        self._engine.allow_parking(allowed=False)
        surplus = len(commit.attempts) - MOST_KEPT
        if surplus > 0:
            self.rows_dropped += surplus
            commit = commit._replace(attempts=commit.attempts[surplus:])
        self.rows_dropped += sum(max(0, len(rows) - MOST_KEPT) for rows in (commit.received, commit.removed))
        commit = commit._replace(received=commit.received[-MOST_KEPT:], removed=commit.removed[-MOST_KEPT:])
        if len(commit.suppression) > MOST_KEPT:  # what is a decision stays
            decided = [move for move in commit.suppression if not isinstance(move, Delivered)]
            self.rows_dropped += len(commit.suppression) - len(decided)
            commit = commit._replace(suppression=decided)
        self._pending = commit


MOST_KEPT = 500_000
"""Rows of a kind kept while the store is unavailable, some 300 MB of attempts; the oldest beyond are dropped and counted."""
