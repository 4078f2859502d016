"""How mail of ours presents itself, counted by the hour: who sends it, in whose name, signed by whom, with which way out.

Knows what its own header and signing lines say of a message, as far as the log shows them; what DMARC and receivers
make of it is judged elsewhere.
"""

from collections.abc import Collection
from enum import IntFlag
from typing import Final, NamedTuple

HOUR: Final = 3600.0
KEPT: Final = 26 * HOUR
"""Seconds that counts are kept: a day is looked at, and hours begin at their first minute."""
_MOST: Final = 5_000
"""Combinations counted in one hour; of mail beyond them nothing is known."""
_LOGGED: Final = 200
"""Bytes of a header line that Postfix logs (header_checks(5), INFO)."""


class ListHeaders(IntFlag):
    """What a message's list headers say (RFC 2369, RFC 2919, RFC 8058)."""

    NONE = 0
    MAILING = 1
    """It says that it goes to a list: List-Unsubscribe or List-Id."""
    HTTPS = 2
    """Its List-Unsubscribe names an https URI."""
    POST = 4
    """Its List-Unsubscribe-Post says One-Click."""
    CUT = 8
    """Its List-Unsubscribe was cut before an https URI was seen."""


def list_headers(name: str, value: str) -> ListHeaders:
    """Read one header line as logged; `name` in small letters. Nothing of a header that is none of them."""
    match name:
        case "list-id":
            return ListHeaders.MAILING
        case "list-unsubscribe":
            if "<https:" in value.lower():
                return ListHeaders.MAILING | ListHeaders.HTTPS
            cut = len(name) + 2 + len(value.encode(errors="surrogateescape")) >= _LOGGED
            return ListHeaders.MAILING | (ListHeaders.CUT if cut else ListHeaders.NONE)
        case "list-unsubscribe-post" if value.strip().lower() == "list-unsubscribe=one-click":
            return ListHeaders.POST
        case _:
            return ListHeaders.NONE


class SentAs(NamedTuple):
    """One combination in one hour."""

    hour: int
    """Since the epoch, UTC."""
    sender_domain: str
    """Of the envelope sender."""
    from_domain: str
    """Of the header From; "" where the log does not show it."""
    signed_by: str
    """DKIM d=, sorted, with blanks between; "" where no signature was seen."""
    messages: int
    mailings: int
    """Of them to a list, whose way out is known."""
    one_click: int
    """Of those, with both headers of RFC 8058."""


class SentMail:
    """Counts since somebody last took them."""

    def __init__(self) -> None:
        self._hour = 0
        self._counts: dict[tuple[str, str, str], list[int]] = {}
        self._past: list[SentAs] = []

    def saw(
        self, sender_domain: str, from_domain: str, signers: Collection[str], headers: ListHeaders, *, now: float
    ) -> None:
        """Count one message as it is first tried; one of which no line says anything is not counted."""
        if not (from_domain or signers or headers):
            return
        hour = int(now // HOUR)
        if hour != self._hour:
            self._past += self._rows()
            self._hour, self._counts = hour, {}
        kind = (sender_domain, from_domain, " ".join(sorted(signers)))
        counts = self._counts.get(kind)
        if counts is None:
            if len(self._counts) >= _MOST:
                return
            counts = self._counts[kind] = [0, 0, 0]
        counts[0] += 1
        if ListHeaders.MAILING in headers and ListHeaders.CUT not in headers:
            counts[1] += 1
            counts[2] += ListHeaders.HTTPS | ListHeaders.POST in headers

    def take(self) -> list[SentAs]:
        """Hand over what was counted since the last time: to be added to what was handed over before."""
        rows, self._past = [*self._past, *self._rows()], []
        for counts in self._counts.values():
            counts[:] = (0, 0, 0)
        return rows

    def _rows(self) -> list[SentAs]:
        return [SentAs(self._hour, *kind, *counts) for kind, counts in self._counts.items() if counts[0]]
