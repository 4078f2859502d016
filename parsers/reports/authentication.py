"""Authentication-Results (RFC 8601): what our own server found out about who sent a mail.

Knows the form. Anybody can write such a field; only that of a server of ours at the top of the header proves something.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from parsers.address import domain_of
from parsers.reports.mime import Part

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|\\.|[()]|[^"()\\]+|.', re.DOTALL)
_RESULT: Final = re.compile(r"\s*([a-z0-9-]+)(?:/\d+)?\s*=\s*([a-z]+)", re.IGNORECASE)
_PROPERTY: Final = re.compile(r'\b([a-z0-9-]{1,30}\.[a-z0-9-]{1,30})\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;"]+)', re.IGNORECASE)
FIELD_MAX: Final = 20_000


class Passed(NamedTuple):
    """A domain, or an address in it, that the sender may truly use."""

    method: str
    """dkim, spf or dmarc."""
    domain: str
    address: str
    """"" where the field names a domain alone."""


_PROVES: Final = {
    ("dkim", "header.d"),
    ("dkim", "header.i"),
    ("spf", "smtp.mailfrom"),
    ("dmarc", "header.from"),
}
"""Method and property that name whose mail it is. A HELO name is nobody's mail."""


def passed(mail: Part, servers: Iterable[str]) -> tuple[Passed, ...]:
    """Read what passed, from the topmost field alone, and only if one of our servers (authserv-ids) wrote it.

    Any that stand below may have come with the mail.
    """
    field = mail.header("authentication-results")
    if not field or len(field) > FIELD_MAX:
        return ()
    server, *results = _sentences(field)
    words = server.split()
    if not words or words[0].strip('"').lower() not in {each.lower() for each in servers}:
        return ()
    return tuple(dict.fromkeys(each for sentence in results for each in _proofs(sentence)))


def _sentences(field: str) -> list[str]:
    """What stands between semicolons, without comments."""
    depth = 0
    kept: list[str] = []
    sentences: list[str] = []
    for found in _TOKEN.finditer(field):
        word = found[0]
        if word == "(":
            depth += 1
        elif word == ")":
            depth = max(0, depth - 1)
        elif depth == 0 and not word.startswith('"') and ";" in word:
            first, *others = word.split(";")
            for other in others:
                sentences.append("".join((*kept, first)))
                kept, first = [], other
            kept.append(first)
        elif depth == 0:
            kept.append(word)
    return [*sentences, "".join(kept)]


def _proofs(sentence: str) -> Iterator[Passed]:
    result = _RESULT.match(sentence)
    if result is None or result[2].lower() != "pass":
        return
    method = result[1].lower()
    for found in _PROPERTY.finditer(sentence, result.end()):
        value = found[2].strip('"').strip("<>").lower()
        if (method, found[1].lower()) in _PROVES:
            named = value if "@" in value else f"@{value}"
            yield Passed(method, domain_of(named), "" if named.startswith("@") else named)
