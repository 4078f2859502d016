"""Where a site answers FILTER itself: in its restriction lists, its header and body checks, and the tables they name.

The last FILTER of a message wins, and ours would come last. Tables are read as text where their source lies on
this host; what a database or another policy service answers is not seen.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from sidecar.postfix_configuration import Configuration

_LISTS = re.compile(r"smtpd_\w+_restrictions|\w*(?:header|body)_checks")
_FILTER = re.compile(r"^(?!\s*#).*\bFILTER\s+[A-Za-z0-9_-]+:", re.IGNORECASE | re.MULTILINE)
"""The action of access(5) and header_checks(5), with its transport; not in a comment."""
_TABLE = re.compile(r"\b(?:hash|btree|lmdb|cdb|dbm|sdbm|texthash|regexp|pcre|cidr):(/[^\s,{}]+)")
"""Types whose source is a text file, at the path itself."""


def find(site: Configuration) -> Iterator[str]:
    """Names of the settings of main.cf and master.cf that say FILTER, or name a table that does."""
    classes = site.expanded.get("smtpd_restriction_classes", "").replace(",", " ").split()
    for name, value in site.expanded.items():
        if (_LISTS.fullmatch(name) or name in classes) and _says(value):
            yield name
    for service in site.services:
        yield from (
            f"{service.id}/{name}"
            for name, value in service.expanded.items()
            if _LISTS.fullmatch(name) and _says(value)
        )


def _says(value: str) -> bool:
    return bool(_FILTER.search(value)) or any(_FILTER.search(_text(path)) for path in _TABLE.findall(value))


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
