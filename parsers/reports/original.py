"""The message that a complaint or a non-delivery report is about, as far as its header came back to us.

Knows which fields lead to a message, a campaign and a recipient again, and in which order they are believed.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from parsers.address import domain_of
from parsers.reports.mime import Part, address_in

_RECEIVED_BY: Final = re.compile(r"\bby (\S{1,255}) \(Postfix[^()]*\).{0,100}? with \S{1,20} id ([0-9A-Za-z]{6,20})\b")
_SIGNED: Final = re.compile(r"(?:\A|[;\s])d\s*=\s*([^;\s]{1,255})")


class FoundBy(StrEnum):
    """What named the message, surest first."""

    OWN_HEADER = "own-header"
    VERP = "verp"
    FEEDBACK_ID = "feedback-id"
    MESSAGE_ID = "message-id"
    QUEUE_ID = "queue-id"
    NOTHING = "nothing"


class Tracing(NamedTuple):
    """How a site marks its mail."""

    own_headers: tuple[str, ...] = ()
    """Names of its own fields that name a campaign or a message, first one first."""
    verp_delimiters: str = "+="
    """As Postfix's default_verp_delimiters: the first sets off what was added, the second stands for "@"."""


class Original(NamedTuple):
    """What is known of the message; "" for what did not come back, or was redacted."""

    found_by: FoundBy
    own_id: str
    """The value of the site's own field; of VERP what was added, where that is no address."""
    feedback_id: str
    message_id: str
    """Without <>."""
    queue_id: str
    """Of the Postfix that handed the message on last."""
    return_path: str
    from_domain: str
    signed_domains: tuple[str, ...]
    recipient: str
    """As VERP spells it, or a field of the provider's; else unknown from here."""
    list_id: str

    @property
    def sending_domain(self) -> str:
        """Whose mail it is: of the envelope, else of the From field, else the first that signed."""
        return domain_of(self.return_path) or self.from_domain or next(iter(self.signed_domains), "")


NO_HEADER: Final = Part((), b"")


def read_original(header: Part, tracing: Tracing, *, envelope_from: str = "", queue_id: str = "") -> Original:
    """Read what leads to the message; `envelope_from` and `queue_id` are what the report itself says of it."""
    return_path = envelope_from or address_in(header.header("return-path"))
    added, recipient = read_verp(return_path, tracing.verp_delimiters)
    own = next(filter(None, (_short(header.header(name.lower())) for name in tracing.own_headers)), "")
    feedback_id = _short(header.header("feedback-id") or header.header("cfbl-feedback-id"))
    message_id = _short(header.header("message-id").strip("<> "))
    queue_id = queue_id or _queue_id(header)
    found = (own, added or recipient, feedback_id, message_id, queue_id, "nothing")
    return Original(
        next(how for how, value in zip(FoundBy, found, strict=True) if value),
        own or added,
        feedback_id,
        message_id,
        queue_id,
        return_path,
        domain_of(address_in(header.header("from"))),
        _signed(header.headers("dkim-signature")),
        recipient
        or address_in(header.header("x-hmxmroriginalrecipient"))
        or address_in(header.header("x-apparently-to")),
        _short(header.header("list-id")),
    )


def read_verp(address: str, delimiters: str) -> tuple[str, str]:
    """What was added to a sender address, and the recipient that it spells; one of the two is "" at least.

    bounces+user=example.net@lists.example names user@example.net; bounces+7f3a@lists.example adds "7f3a".
    """
    local, _, _ = address.rpartition("@")
    if len(delimiters) != 2 or delimiters[0] not in local:
        return "", ""
    added = local.partition(delimiters[0])[2]
    user, equals, domain = added.rpartition(delimiters[1])
    if equals and user and "." in domain:
        return "", f"{user.rpartition(delimiters[0])[2]}@{domain}".lower()
    return _short(added), ""


def _queue_id(header: Part) -> str:
    """The topmost Postfix: providers that send reports run something else, and what lies above is theirs."""
    for value in header.headers("received")[:50]:
        if found := _RECEIVED_BY.search(value[:2_000]):
            return found[2]
    return ""


def _signed(signatures: Sequence[str]) -> tuple[str, ...]:
    domains = (found[1].lower().rstrip(".") for each in signatures[:20] if (found := _SIGNED.search(each[:4_000])))
    return tuple(dict.fromkeys(domains))


def _short(text: str) -> str:
    return text.strip()[:500]
