"""The providers that conditions name, and which of these names nobody has.

Knows that a provider without rules is called by the organizational domain of its MX, which has a dot in it.
"""

import difflib
from collections.abc import Collection, Iterator

from parsers.expression import AllOf, Among, AnyOf, Comparison, Expression, Not


def named(expression: Expression) -> Iterator[str]:
    """Give each name that a condition compares the provider with, in small letters."""
    match expression:
        case Comparison("provider", value=value):
            yield str(value).lower()
        case Among("provider", values=values):
            yield from (str(value).lower() for value in values)
        case AllOf(terms) | AnyOf(terms):
            for term in terms:
                yield from named(term)
        case Not(term):
            yield from named(term)


def nobody(name: str, known: Collection[str]) -> str | None:
    """Give the nearest known name ("" for none) of one that no provider has; None where one may have it."""
    if "." in name or name in known:
        return None
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")
