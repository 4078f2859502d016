"""Lists of `tag=value` parted by semicolons: DKIM keys (RFC 6376 section 3.2), DMARC, MTA-STS and TLS-RPT records.

Knows the form that they share; what a tag means stands with each of them.
"""

from collections.abc import Mapping


class TagError(Exception):
    """A list that cannot be read: says where and why."""


def read_tags(text: str) -> Mapping[str, str]:
    """Give the tags in their order, names in lower case, white space around names and values taken off.

    A tag that stands twice makes the whole list invalid, as RFC 6376 wants it. Raises TagError.
    """
    tags: dict[str, str] = {}
    parts = text.split(";")
    if not parts[-1].strip():
        parts.pop()
    for part in parts:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        name = name.lower()
        if not equals or not name.replace("_", "a").replace("-", "a").isalnum() or not name.isascii():
            raise TagError(f"found {part.strip()[:60]!r}, wanted tag=value between semicolons")
        if name in tags:
            raise TagError(f"the tag {name} stands twice")
        tags[name] = value
    return tags


def begins_with_version(text: str, version: str) -> bool:
    """Whether a TXT record is of this kind: `v=DMARC1`, at its end or with a semicolon after it."""
    head, _, _ = text.partition(";")
    name, equals, value = (piece.strip() for piece in head.partition("="))
    return bool(equals) and name.lower() == "v" and value == version
