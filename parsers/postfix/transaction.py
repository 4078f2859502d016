"""The tail `; from=<> to=<> proto= helo=<>` that smtpd(8), cleanup(8) and postscreen(8) add to what they did and why.

Text before it and names within it are strangers' words, and no quoting tells them apart for certain. What decides
about mail (client, action, codes, queue id) stands before them and is not read here.
"""

import re
from typing import Final, NamedTuple

from parsers.postfix.tokens import ADDRESS, PLAIN_ADDRESS


class Transaction(NamedTuple):
    """What the client had said so far; "" where it had not."""

    sender: str
    recipient: str
    helo: str
    sasl_username: str
    remark: str
    """cleanup: text given with the action in a header_checks table."""


_NOTHING: Final = Transaction("", "", "", "", "")

_USUAL: Final = re.compile(
    rf"; from=<({PLAIN_ADDRESS})> to=<({PLAIN_ADDRESS})> proto=[A-Z]++ helo=<([^<>\s]*+)>", re.ASCII
)
_TRIGGER: Final = re.compile(rf"(?:[2-5]\d\d )?(?:[245]\.\d{{1,3}}\.\d{{1,3}} )?<{ADDRESS}>: ", re.ASCII)
_BEGIN: Final = re.compile(r";(?= from=<| to=<| proto=| helo=<|$)", re.ASCII)
_TAIL: Final = re.compile(
    rf";(?: from=<({ADDRESS})>,?)?(?: to=<({ADDRESS})>,?)?(?: proto=[A-Z0-9]++,?)?(?: helo=<(.*))?", re.ASCII
)
_HELO: Final = re.compile(
    r"([^\s<>]*+)>(?:(?: sasl_method=\S++)? sasl_username=(?:<([^<>]*+)>|([^>]*+)))?(?: sasl_sender=[^>]*+)?(?:: (.*))?",
    re.ASCII,
)
_REMARK: Final = re.compile(r"(?:: (.*))?", re.ASCII)
_TRIED: Final = 8
"""A text with more places where the tail could begin is a forgery; no reason to try them all."""


def read_transaction(text: str) -> tuple[str, Transaction]:
    """Split `TEXT; from=<S> to=<R> proto=P helo=<H>[ sasl_…]` into TEXT and the fields.

    The tail begins at the first place behind the quoted trigger from which on everything fits it: HELO is the one
    part that need not fit anything, and it comes last.
    """
    place = text.find("; from=<")
    if usual := _USUAL.fullmatch(text, place):  # the last place would be the same: nothing in it holds another "; "
        sender, recipient, helo = usual.groups()
        return text[:place], Transaction(sender, recipient, helo, "", "")
    trigger = _TRIGGER.match(text)
    places = [match.start() for match in _BEGIN.finditer(text, trigger.end() if trigger else 0)]
    for place in places[:_TRIED]:
        if (tail := _TAIL.match(text, place)) and (transaction := _transaction(text, tail)):
            return text[:place], transaction
    return text, _NOTHING


def _transaction(text: str, tail: re.Match[str]) -> Transaction | None:
    sender, recipient, said = tail.groups()
    if said is None:
        remark = _REMARK.fullmatch(text, tail.end())
        return Transaction(sender or "", recipient or "", "", "", remark[1] or "") if remark else None
    helo = _HELO.fullmatch(said)
    if helo is None:
        return Transaction(sender or "", recipient or "", said.removesuffix(">"), "", "")
    name, bracketed, bare, remark_text = helo.groups("")
    username = bracketed or bare.partition(" sasl_sender=")[0]
    return Transaction(sender or "", recipient or "", name, username, remark_text)
