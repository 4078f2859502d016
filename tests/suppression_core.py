"""As much of core as has to do with the suppression lists: its store, its memory and its command, without a log."""

import contextlib
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from policies.engine import Engine
from policies.site import Settings
from policies.steering import Steering
from policies.suppression import Listed, Outcome
from sidecar.config import Config, StoreConfig, SuppressionConfig
from sidecar.ledger import Ledger
from sidecar.rules import load, organizational_domain
from sidecar.store import Store
from sidecar.suppression import Opened, Suppression, open_suppression
from tests.suppression_world import NO_SUCH_USER, verdict_of

RULES = load()


class Core:
    """As much of core as has to do with the lists."""

    def __init__(self, opened: Opened, part: Suppression, ledger: Ledger, store: Store) -> None:
        self.opened = opened
        self.part = part
        self.ledger = ledger
        self.store = store

    async def ask(self, do: str, **request: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(json.dumps(await self.part.answer({"do": do, "who": "root", **request})))
        return answer

    def listed(self, address: str) -> tuple[Listed, ...]:
        return self.opened.book.find(address)

    def bounced(self, address: str, reply: str = NO_SUCH_USER) -> None:
        book = self.opened.book
        outcome = Outcome(book.digest(address), address, "google", True, verdict_of(reply, address), f"to=<{address}>")
        self.opened.suppressing.heard(outcome, now=2e9)

    async def settled(self) -> None:
        """What `run` does each few seconds, once."""
        await self.ledger.commit()
        await self.part._expire(now=3e9)
        await self.opened.shelf.maintain(self.opened.book)
        await self.ledger.commit()


@contextlib.asynccontextmanager
async def core(directory: Path, *, steering: Steering | None = None, **settings: Any) -> AsyncIterator[Core]:
    config = Config(store=StoreConfig(path=str(directory)), suppression=SuppressionConfig(**settings))
    thread = ThreadPoolExecutor(1)
    store = Store.open(config.core_database)
    opened = open_suppression(config, store, thread)
    assert opened is not None
    engine = Engine(RULES, organizational_domain, Settings(act=True), suppressing=opened.suppressing)
    ledger = Ledger(engine, store, thread, steering)
    part = Suppression(config, opened, store, thread=thread, ledger=ledger, engine=engine, steering=steering)
    try:
        yield Core(opened, part, ledger, store)
    finally:
        thread.shutdown()
        store.close()
