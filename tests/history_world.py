"""The labelled log of tests/history, read as core reads it, and counted by hand."""

from datetime import UTC
from pathlib import Path
from typing import Final

from parsers.log import LogReader
from policies.engine import Engine
from policies.site import Settings
from policies.stored_address import AddressForm
from sidecar import rules
from sidecar.log_batch import Position
from sidecar.rows import gather
from sidecar.store import Store
from tests.world import RULES

LOG: Final = Path(__file__).parent / "history" / "labelled.log"
SETTINGS: Final = Settings(
    act=False,
    campaign_headers=frozenset({"x-campaign", "feedback-id"}),
    segment_headers=frozenset({"list-id"}),
)
TOTALS: Final = {
    "messages": 9, "attempts": 13, "sent": 6, "deferred": 5, "bounced": 2, "hard": 1, "block": 1, "expired": 1,
}  # fmt: skip
"""Counted by hand: eight messages and the notification about the one that expired; the hand-over to the content filter
is none of the deliveries.
"""


def filled(path: Path, *, every: int = 10, addresses: AddressForm = AddressForm.FULL) -> Store:
    """Core's store after the log, committed every so many lines."""
    store = Store.open(path)
    engine = Engine(RULES, rules.organizational_domain, SETTINGS._replace(addresses=addresses))
    reader = LogReader(zone=UTC)
    for number, line in enumerate(LOG.read_bytes().splitlines(), 1):
        for fact in reader.facts(line):
            engine.observe(fact, now=fact.record.time)
        if number % every == 0:
            commit(store, engine, number)
    commit(store, engine, number)
    return store


def commit(store: Store, engine: Engine, number: int) -> None:
    gathered = gather(engine, Position("log", str(number)), now=0.0)
    assert gathered is not None
    store.commit(gathered)


def sums(store: Store, table: str = "daily", where: str = "1") -> dict[str, int]:
    """The sums of all flows of a table that fit."""
    names = list(TOTALS)
    columns = ", ".join(f"sum({name})" for name in names)
    query = f"SELECT {columns} FROM {table} JOIN flow ON flow.id = {table}.flow WHERE {where}"  # noqa: S608  # ours
    return dict(zip(names, store.connection.execute(query).fetchone(), strict=True))
