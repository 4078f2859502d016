"""Which transport a message goes over: ordered routes, each with a condition on the message; the first that holds wins.

Knows what a condition may ask of a message (what smtpd says at END-OF-MESSAGE, and no header), and looks at those routes
alone that can hold. Whether FILTER may be answered is `access`' business, which transport a pool gives is the pool's.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Final, NamedTuple, TypeAlias

from parsers.condition import Condition, compile_expression
from parsers.expression import (
    AllOf,
    Among,
    AnyOf,
    Comparison,
    Expression,
    Field,
    Fields,
    FieldType,
    Matching,
    Operator,
    fields_of,
    parse,
)

POOL: Final = "pool:"
"""Before the name of a pool, where a route names one instead of a transport."""

FIELDS: Final[Fields] = {
    "provider": Field(FieldType.TEXT),
    "recipient": Field(FieldType.TEXT),
    "recipient_domain": Field(FieldType.TEXT),
    "sender": Field(FieldType.TEXT),
    "sender_domain": Field(FieldType.TEXT),
    "sending_domain": Field(FieldType.TEXT),
    "tenant": Field(FieldType.TEXT),
    "sasl_username": Field(FieldType.TEXT),
    "client": Field(FieldType.TEXT),
    "instance": Field(FieldType.TEXT),
    "size": Field(FieldType.SIZE),
    "recipients": Field(FieldType.NUMBER),
}
"""What `when` of a route may name; docs/routes.md says what each means."""


class Mail(NamedTuple):
    """What is known at END-OF-MESSAGE of a message, for one of its recipients."""

    provider: str | None
    """The mailbox provider behind the recipient's domain, None where it is not known (yet)."""
    recipient: str
    recipient_domain: str
    sender: str
    """Envelope sender, "" is the null sender."""
    sender_domain: str
    sending_domain: str
    """Organizational domain of the sender's."""
    tenant: str
    """SASL login, "" without one."""
    client: str
    """Address of the SMTP client."""
    instance: str
    """syslog_name of the Postfix instance."""
    size: int
    """Bytes."""
    recipients: int


class Route(NamedTuple):
    """Mail for which the condition holds goes over a transport."""

    name: str
    """What logs and `ask` call it."""
    transport: str
    """As master.cf names it; or POOL and the name of a pool."""
    when: Expression

    @property
    def names_recipients(self) -> bool:
        """Whether it can hold for mail to certain providers, domains or addresses alone."""
        return _names_recipients(self.when)

    @property
    def pool(self) -> str:
        """The pool that gives the transport; "" where the route names that itself."""
        return self.transport.removeprefix(POOL) if self.transport.startswith(POOL) else ""


class CompiledRoute(NamedTuple):
    route: Route
    holds: Condition[Mail]


def read_route(transport: str, when: str, *, name: str = "") -> Route:
    """Read a route as an admin writes it; without a name it is called as what it leads to.

    Raises ExpressionError for the condition, ValueError for a transport that FILTER cannot name.
    """
    return Route(name or transport, _checked(transport), parse(when, FIELDS))


def to_provider(provider: str, transport: str, *, name: str = "") -> Route:
    """Make the route of the short form: all mail to a provider. Raises ValueError as `read_route`."""
    when = Comparison("provider", FieldType.TEXT, Operator.EQUAL, provider)
    return Route(name or transport, _checked(transport), when)


def compiled(route: Route) -> CompiledRoute:
    """Make the condition a function; where many are made, others may have their turn between two."""
    return CompiledRoute(route, compile_expression(route.when, _reader))


def _reader(field: str) -> Callable[[Mail], object]:
    return attrgetter("tenant" if field == "sasl_username" else field)


def _names_recipients(when: Expression) -> bool:
    match when:
        case Comparison(field, operator=Operator.EQUAL) | Among(field, negated=False) | Matching(field, negated=False):
            return field in {"provider", "recipient", "recipient_domain"}
        case AllOf(terms):
            return any(map(_names_recipients, terms))
        case AnyOf(terms):
            return all(map(_names_recipients, terms))
        case _:
            return False


def _checked(transport: str) -> str:
    if not _TRANSPORT.fullmatch(transport.removeprefix(POOL)):
        raise ValueError(f"{transport!a}; wanted the name of a transport, as lane-01, or of a pool, as pool:bulk")
    return transport


_TRANSPORT: Final = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]*")


Terms: TypeAlias = tuple[tuple[str, frozenset[str]], ...]
"""(field, values in small letters): what holds only where one of these fields has one of its values."""

_RARE_FIRST: Final = (
    "recipient", "sender", "recipient_domain", "sender_domain", "sending_domain", "sasl_username", "tenant", "client",
    "provider", "instance",
)  # fmt: skip
"""Fields that routes are found by; of several in one condition the one that fewest messages share."""


def necessary(when: Expression) -> Terms | None:
    """Give terms of which one must be true where the expression is; None where it can be true without any such."""
    match when:
        case Comparison(field, FieldType.TEXT, Operator.EQUAL, value) if isinstance(value, str):
            return ((field, frozenset({value.lower()})),)
        case Among(field, FieldType.TEXT, values, negated) if not negated:
            return ((field, frozenset(str(value).lower() for value in values)),)
        case AllOf(terms):
            return min(filter(None, map(necessary, terms)), key=_commonness, default=None)
        case AnyOf(terms):
            either = [necessary(term) for term in terms]
            return None if None in either else tuple(term for found in either if found for term in found)
        case _:
            return None


def _commonness(terms: Terms) -> tuple[int, int]:
    return max(_RARE_FIRST.index(field) for field, _ in terms), sum(len(values) for _, values in terms)


class Routing:
    """Immutable; a reload makes another."""

    def __init__(
        self, routes: Iterable[CompiledRoute], organizational: Callable[[str], str] = lambda domain: domain
    ) -> None:
        """`organizational`: the organizational domain of a domain."""
        self._routes: Sequence[CompiledRoute] = tuple(routes)
        self.organizational = lru_cache(maxsize=8_192)(organizational)
        """Gives `sending_domain` of a sender's domain."""
        self._anyway: tuple[int, ...]
        """Routes that may hold for any message, in order."""
        self._found_by: tuple[tuple[int, Mapping[str, tuple[int, ...]]], ...]
        """For each field that routes are found by: where it stands in Mail, and value -> routes."""
        self._anyway, self._found_by = _index(self._routes)
        self.by_domain_alone = all(fields_of(route.when) <= _OF_DOMAIN for route in self.routes)
        """Whether all routes ask of nothing but what `for_domain` is told."""
        self._for_domain: dict[tuple[str | None, str], Route | None] = {}
        self.by_recipient = any("recipient" in fields_of(route.when) for route in self.routes)
        """Whether two recipients of one domain may get different routes."""

    def table(self, providers: Mapping[str, str]) -> dict[str, str]:
        """Give the transports of recipient domains (domain -> provider), as far as the domain alone decides.

        The first route counts that asks of nothing else; those that ask of the sender and the like go before it where
        smtpd can be answered.
        """
        routes = [each for each in self._routes if not each.route.pool and fields_of(each.route.when) <= _OF_DOMAIN]
        if not routes:
            return {}
        only = Routing(routes)
        each_domain = any("recipient_domain" in fields_of(each.route.when) for each in routes)
        of_provider: dict[str, Route | None] = {}
        found: dict[str, str] = {}
        for domain, provider in providers.items():
            if each_domain or provider not in of_provider:
                of_provider[provider] = only.for_domain(provider, domain)
            route = of_provider[provider]
            if route is not None:
                found[domain] = route.transport
        return found

    def __bool__(self) -> bool:
        return bool(self._routes)

    @property
    def routes(self) -> tuple[Route, ...]:
        """In order."""
        return tuple(each.route for each in self._routes)

    def for_domain(self, provider: str | None, domain: str) -> Route | None:
        """As `transport_for`, where a recipient's domain and the provider behind it decide alone."""
        asked = provider, domain
        if asked not in self._for_domain:
            if len(self._for_domain) >= _MOST:
                self._for_domain.clear()
            mail = Mail(provider, "", domain, "", "", "", "", "", "", 0, 0)
            self._for_domain[asked] = self.transport_for(mail)
        return self._for_domain[asked]

    def transport_for(self, message: Mail) -> Route | None:
        """Give the first route whose condition holds; None for mail that goes as ever."""
        candidates = self._anyway
        for at, numbers in self._found_by:
            value = message[at]
            found = numbers.get(value.lower()) if isinstance(value, str) else None
            if found:
                candidates = (*candidates, *found) if candidates else found
        for number in sorted(candidates) if len(candidates) > 1 else candidates:
            route, holds = self._routes[number]
            if holds(message):
                return route
        return None


_OF_DOMAIN: Final = frozenset({"provider", "recipient_domain"})
_MOST: Final = 8_192
"""Domains that are remembered."""


def _index(
    routes: Sequence[CompiledRoute],
) -> tuple[tuple[int, ...], tuple[tuple[int, Mapping[str, tuple[int, ...]]], ...]]:
    anyway: list[int] = []
    by_field: dict[str, dict[str, list[int]]] = {}
    for number, each in enumerate(routes):
        terms = necessary(each.route.when)
        if terms is None:
            anyway.append(number)
        for field, values in terms or ():
            for value in values:
                numbers = by_field.setdefault("tenant" if field == "sasl_username" else field, {}).setdefault(value, [])
                if number not in numbers[-1:]:
                    numbers.append(number)
    found_by = tuple(
        (Mail._fields.index(field), {value: tuple(numbers) for value, numbers in values.items()})
        for field, values in by_field.items()
    )
    return tuple(anyway), found_by
