"""One person's address taken out of a fleet's history on a ClickHouse server, as `sidecar.erasure` does it in a store.

Rows stay, with `[erased]` in the place of the address, so that their numbers and sums are what they were and nothing is
sent again for it; only what leads from the address to a message goes.
"""

import re
import time
from typing import Final

from sidecar.clickhouse import ClickHouse, literal
from sidecar.erasure import ERASED, needles

TABLES: Final = ("attempt", "message", "change")
WITHIN: Final = 60.0
"""Seconds to wait for the server to have done it."""
_LOOK_EVERY: Final = 0.1
_TEXTS: Final = """
    SELECT name FROM system.columns
    WHERE database = currentDatabase() AND table = ? AND type = 'String' AND name != 'store' ORDER BY name
"""
_UNDER_WAY: Final = "SELECT count() FROM system.mutations WHERE database = currentDatabase() AND is_done = 0"


def erase(server: ClickHouse, address: str, *, within: float = WITHIN) -> bool:
    """Have the server do it; whether it is done after `within` seconds, or still goes on there. Raises ServerError.

    It rewrites the parts that name the person, and no others. Said again it does no harm.
    """
    pattern = literal(_pattern(address))
    for table in TABLES:
        texts = [str(name) for (name,) in server.rows(_TEXTS, (table,))]
        changes = ", ".join(f"{each} = {_without(each, pattern)}" for each in texts)
        server.run(
            f"ALTER TABLE {table} UPDATE {changes} WHERE {' OR '.join(f'match({each}, {pattern})' for each in texts)}"
        )
    server.run(f"ALTER TABLE named DELETE WHERE match(word, {pattern})")
    until = time.monotonic() + within
    while int(server.rows(_UNDER_WAY)[0][0]):
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_EVERY)
    return True


def _pattern(address: str) -> str:
    """Make an expression of RE2: not where the address is only the end or the beginning of a longer one."""
    names = "|".join(re.sub(r"([^A-Za-z0-9_@-])", r"\\\1", each) for each in needles(address))
    return rf"(?i)(^|[^\w.+-])(?:{names})($|[^\w.-]|\.$|\.\W)"


def _without(column: str, pattern: str) -> str:
    """Write it twice: of two that stand side by side the first takes the character between them."""
    words = literal(rf"\1{ERASED}\2")
    return f"replaceRegexpAll(replaceRegexpAll({column}, {pattern}, {words}), {pattern}, {words})"
