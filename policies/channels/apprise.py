"""Any service that the library Apprise knows: plain text, and what its words about a failure mean.

Knows that Apprise says only yes or no, and the status of an answer in its log.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from parsers.feeds.asking import HttpAnswer
from parsers.feeds.dnsbl import Severity
from policies.channels.mail import one_line, plain_text
from policies.channels.receipt import Receipt, Result, by_status
from policies.note import Note, headline

_STATUS: Final = re.compile(r"\berror=(\d{3})\b")
_TYPES: Final = {Severity.CRITICAL: "failure", Severity.ERROR: "failure", Severity.WARNING: "warning"}
_TITLE_MAX: Final = 200


class Text(NamedTuple):
    title: str
    body: str
    type: str
    """info, success, warning, failure: Apprise's words, which many services show as a colour."""


def text(note: Note) -> Text:
    """Give the note as Apprise wants it; each service cuts it to its own length."""
    kind = _TYPES.get(note.severity, "info") if note.is_open else "success"
    return Text(one_line(headline(note))[:_TITLE_MAX], plain_text(note), kind)


def read(taken: bool, said: str) -> Receipt:  # noqa: FBT001  # Apprise's own answer
    """Read what became of one service. `said`: what Apprise logged."""
    if taken:
        return Receipt(Result.SENT)
    status = _STATUS.search(said)
    if status is None:  # no connection, or a time-out: it does not say which
        return Receipt(Result.UNSURE, one_line(said).strip()[:200] or "not taken, without a reason")
    receipt = by_status(HttpAnswer(int(status[1])))
    return receipt if receipt.result is not Result.SENT else Receipt(Result.UNSURE, receipt.why)


def together(receipts: Sequence[Receipt]) -> Receipt:
    """Give the receipt of a channel of several services: all took it, none did for one reason, or nobody knows."""
    if len({receipt.result for receipt in receipts}) == 1:
        return receipts[0]
    taken = sum(receipt.result is Result.SENT for receipt in receipts)
    why = next(receipt.why for receipt in receipts if receipt.result is not Result.SENT)
    return Receipt(Result.UNSURE, f"{taken} of {len(receipts)} services took it; one that did not: {why}")
