"""Which mail a quota counts: conditions over what smtpd tells at RCPT.

Knows the fields; apart from the buckets, for the language takes a while to load and few commands need it.
"""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Final, NamedTuple

from parsers.address import domain_of
from parsers.condition import Read, compile_expression
from parsers.expression import Field, Fields, FieldType, parse
from policies.quota import Asked

_TEXT = Field(FieldType.TEXT)
_FIELDS: Final[Mapping[str, tuple[Field, Read[Asked]]]] = {
    "sasl_username": (_TEXT, attrgetter("request.sasl_username")),
    "sender": (_TEXT, attrgetter("request.sender")),
    "sender_domain": (_TEXT, lambda asked: domain_of(asked.request.sender)),
    "sending_domain": (_TEXT, attrgetter("sending_domain")),
    "recipient": (_TEXT, attrgetter("request.recipient")),
    "recipient_domain": (_TEXT, lambda asked: domain_of(asked.request.recipient)),
    "provider": (_TEXT, attrgetter("provider")),
    "client_address": (_TEXT, attrgetter("request.client_address")),
    "client_name": (_TEXT, attrgetter("request.client_name")),
    "helo_name": (_TEXT, attrgetter("request.helo_name")),
    "policy_context": (_TEXT, attrgetter("request.policy_context")),
    "size": (Field(FieldType.SIZE), attrgetter("request.size")),
}
FIELDS: Final[Fields] = {name: field for name, (field, _) in _FIELDS.items()}
"""What the condition of a quota may name: what smtpd tells at RCPT. `size` is what the client announced, or 0."""


class Where(NamedTuple):
    holds: Callable[[Asked], bool]
    by_provider: bool
    """It names the provider, which is to be looked up then."""


def read_condition(text: str) -> Where:
    """Compile a quota's `where`. Raises ExpressionError."""
    named = set[str]()

    def read(name: str) -> Read[Asked]:
        named.add(name)
        return _FIELDS[name][1]

    holds = compile_expression(parse(text, FIELDS), read)
    return Where(holds, "provider" in named)
