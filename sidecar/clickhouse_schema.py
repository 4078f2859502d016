"""The tables of history on a ClickHouse server: the scripts that make them, and what the views in them compute.

Knows how a script is taken apart; the tables are explained where they are made, in schema_clickhouse/.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Final

from sidecar.clickhouse import ClickHouse

_COMMENT: Final = re.compile(r"--[^\n]*")
_VIEW: Final = re.compile(r"CREATE MATERIALIZED VIEW IF NOT EXISTS \w+ TO (\w+) AS\s+(SELECT.*)", re.DOTALL)


@cache
def statements() -> tuple[str, ...]:
    """Every statement of every script, in order, without comments. Each may be run again."""
    directory = resources.files("sidecar") / "schema_clickhouse"
    scripts = sorted(
        (entry for entry in directory.iterdir() if entry.name.endswith(".sql")), key=lambda each: each.name
    )
    text = "\n".join(script.read_text(encoding="utf-8") for script in scripts)
    return tuple(each.strip() for each in _COMMENT.sub("", text).split(";") if each.strip())


@cache
def view(table: str) -> str:
    """The query by which a view fills a table of sums out of `attempt`."""
    return next(found[2] for found in map(_VIEW.fullmatch, statements()) if found and found[1] == table)


def make(server: ClickHouse) -> None:
    """Make what is not there. Raises ServerError."""
    there = {name for (name,) in server.rows("SELECT name FROM system.tables WHERE database = currentDatabase()")}
    for statement in _lacking(there):
        server.run(statement)


def _lacking(there: set[str]) -> Iterable[str]:
    """A server with everything is asked nothing more: a user that may only insert and select is enough then."""
    return [each for each in statements() if re.findall(r"IF NOT EXISTS (\w+)", each)[0] not in there]
