"""How mail of ours presented itself in the last day, from core's store: by the domain of its header From.

Knows how much of it is looked at: the newest hours until there is enough to judge, so that a change shows soon.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from parsers.feeds.own_mail import LEAST, Presented, Sent
from policies.sent_as import HOUR, KEPT, SentAs
from sidecar import own_log
from sidecar.config import Config
from sidecar.database import Database, StoreError
from sidecar.statements import SCHEMA, SENT_AS


class Lately(NamedTuple):
    presented: Presented
    newest: float
    """Begin of the last hour in which such mail was sent."""


def lately(config: Config, *, now: float) -> list[Lately]:
    """Tell of each domain that stands in a header From; nothing where there is no store."""
    if not config.core_database.exists():
        return []
    try:
        database = Database.open_read_only(config.core_database, SCHEMA)
        try:
            rows = [SentAs(*row) for row in database.rows(SENT_AS, (int((now - KEPT) // HOUR),))]
        finally:
            database.close()
    except StoreError as error:
        own_log.scope_incomplete(str(error))
        return []
    return by_domain(rows)


def by_domain(rows: Iterable[SentAs]) -> list[Lately]:
    """Bring rows together, newest first as they come."""
    shown = False
    of_domain: dict[str, list[SentAs]] = {}
    for row in rows:
        shown = shown or bool(row.signed_by)
        of_domain.setdefault(row.from_domain, []).append(row)
    of_domain.pop("", None)
    return [Lately(_presented(domain, of, shown=shown), of[0].hour * HOUR) for domain, of in of_domain.items()]


def _presented(domain: str, rows: Sequence[SentAs], *, shown: bool) -> Presented:
    sent = _newest(rows, lambda row: row.messages)
    mailed = _newest(rows, lambda row: row.mailings)
    return Presented(
        domain,
        tuple(Sent(row.sender_domain, tuple(row.signed_by.split()), row.messages) for row in sent),
        sum(row.mailings for row in mailed),
        sum(row.one_click for row in mailed),
        signatures_shown=shown,
    )


def _newest(rows: Sequence[SentAs], count: Callable[[SentAs], int]) -> list[SentAs]:
    """Take the newest hours, each whole, until there is enough to judge."""
    taken: list[SentAs] = []
    for _, of_hour in itertools.groupby(rows, key=lambda row: row.hour):
        if sum(map(count, taken)) >= LEAST:
            break
        taken += of_hour
    return taken
