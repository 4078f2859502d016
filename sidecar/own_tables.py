"""Looks for domains in the tables by which Postfix knows its own: `virtual_mailbox_domains = mysql:...` and the like.

Asks as Postfix would, with postmap, in the background; a file of names (mydestination = /etc/...) is read.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from policies.strangers import Strangers
from sidecar import postfix, postfix_configuration
from sidecar.postfix import Instance, PostfixError
from sidecar.site import own_tables

_LOG = logging.getLogger("sidecar.own-tables")

LOOK_EVERY = 1.0
"""Seconds."""
MOST_LABELS = 10
_PROXY = "proxy:"
"""proxymap(8) answers Postfix alone; postmap asks the table behind it."""


Tables = Mapping[str, tuple[Path, list[str]]]
"""By instance: its configuration, and the tables and files that name its domains."""


async def keep_up(strangers: Strangers, instances: Sequence[Instance]) -> None:
    """Answer what hygiene wants to know, for ever."""
    tables: Tables | None = None
    said = ""
    while True:
        try:
            if tables is None:
                tables = await asyncio.to_thread(tables_of, instances)
            trouble = await answer(strangers, tables)
        except PostfixError as error:  # what is wanted is kept until Postfix can be asked
            trouble = str(error)
        if trouble and trouble != said:
            said = trouble
            _LOG.warning("own domains cannot be looked for, and hygiene lets their mail in: %s", trouble)
        await asyncio.sleep(LOOK_EVERY)


async def answer(strangers: Strangers, tables: Tables) -> str:
    """Answer what is wanted now; gives what went wrong, "" for nothing."""
    trouble = ""
    for place in strangers.take():
        try:
            ours = await asyncio.to_thread(is_named, *tables[place.instance], place.domain)
            strangers.learn(place, stranger=not ours, now=time.time())
        except (PostfixError, OSError) as error:
            strangers.learn(place, stranger=None, now=time.time())
            trouble = str(error)
    return trouble


def is_named(config_directory: Path, tables: Sequence[str], domain: str) -> bool:
    """Whether a table names a domain, or one above it (parent_domain_matches_subdomains). Raises PostfixError, OSError.

    One with more labels than anybody has is taken for ours, so that it is not judged: each label costs two processes.
    """
    labels = domain.split(".")
    if len(labels) > MOST_LABELS:
        return True
    names = [".".join(labels[i:]) for i in range(max(1, len(labels) - 1))]
    return any(_has(config_directory, table, names) for table in tables)


def _has(config_directory: Path, table: str, names: Sequence[str]) -> bool:
    if table.startswith("/"):
        text = Path(table).read_text(encoding="utf-8", errors="replace")
        words = {
            word.lower() for line in text.splitlines() for word in line.partition("#")[0].replace(",", " ").split()
        }
        return not words.isdisjoint((*names, *(f".{name}" for name in names)))
    asked = table.removeprefix(_PROXY)
    return any(postfix.looked_up(config_directory, key, asked) for name in names for key in (name, f".{name}"))


def tables_of(instances: Sequence[Instance]) -> Tables:
    return {
        instance.syslog_name: (instance.config_directory, own_tables(postfix_configuration.read(instance).expanded))
        for instance in instances
    }
