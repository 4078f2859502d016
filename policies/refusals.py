"""What smtpd is told about a recipient who is to get no more mail: a clear refusal, or, for some tenants, thrown away.

Knows the texts, and for whose mail which list counts; who is on a list is looked up in `Book`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple, Protocol

from parsers.address import domain_of
from parsers.policy_protocol import Discard, Reject
from policies.access import Arrival, Decision
from policies.suppression import GLOBAL, WISHES, Listed, Reason


class Book(Protocol):
    """The lists. Memory only, never a wait."""

    def find(self, address: str) -> tuple[Listed, ...]:
        """All lists that an address is on; () for nearly all."""
        ...


class Said(NamedTuple):
    status: str
    """RFC 3463."""
    text: str


SAID: Final = {
    Reason.HARD_BOUNCE: Said("5.1.1", "its provider says that this mailbox does not exist"),
    Reason.DEAD_DOMAIN: Said("5.1.2", "its domain has had no mail service for days"),
    Reason.MAILBOX_FULL: Said("5.2.2", "this mailbox has been full for weeks"),
    Reason.SOFT_BOUNCES: Said("5.2.1", "this mailbox has taken no mail for days"),
    Reason.COMPLAINT: Said("5.7.1", "this person complained about mail like this"),
    Reason.UNSUBSCRIBE: Said("5.7.1", "this person unsubscribed"),
    Reason.INACTIVE: Said("5.7.1", "this person has opened no mail for long"),
    Reason.BY_HAND: Said("5.1.1", "the postmaster of this server asks to send no mail to this address"),
    Reason.IMPORTED: Said("5.1.1", "this address is on an imported list"),
}
"""What the sending program reads. It names no list and no time: whoever may ask, may ask for everybody."""


class Refusals:
    def __init__(
        self,
        book: Book,
        organizational: Callable[[str], str],
        *,
        discard: Collection[str] = (),
        transactional: Collection[str] = (),
    ) -> None:
        """`discard`: tenants (SASL logins) that are not told. `transactional`: those whose mail wishes do not stop."""
        self.find = book.find
        self._organizational = organizational
        self.discard = frozenset(discard)
        self._transactional = frozenset(transactional)
        self._refusing: dict[Listed, Decision] = {}

    def refuses(self, listed: tuple[Listed, ...], sender: str, login: str) -> Decision | None:
        """Say what RCPT is answered about somebody on these lists; None where none counts for this mail.

        The null sender is never refused: it answers mail of that person. Of tenants whose mail is thrown away nothing
        is refused: the whole message may be thrown away at its end.
        """
        counts = next(self._counting(listed, sender, login), None)
        return None if counts is None or login in self.discard else self._decision(counts)

    def discards(self, arrival: Arrival) -> Decision | None:
        """Say whether a whole message is taken and thrown away: all its recipients are on a list.

        Postfix discards for all recipients or for none (access(5)): where one is on no list, all get it.
        """
        if arrival.sasl_username not in self.discard or not arrival.recipients or not arrival.complete:
            return None
        first = None
        for recipient in arrival.recipients:
            listed = self._counting(self.find(recipient), arrival.sender, arrival.sasl_username)
            counts = next(listed, None)
            if counts is None:
                return None
            first = first or counts
        if first is None:
            return None
        why = f"all recipients are suppressed, the first on {first.list} for {first.reason}"
        return Decision(Discard(SAID[first.reason].text), "", f"suppress/{first.reason}", why)

    def _counting(self, entries: Iterable[Listed], sender: str, login: str) -> Iterator[Listed]:
        """Of all the lists that somebody is on, those that count for this mail."""
        if not sender:
            return
        domain = None
        for listed in entries:
            if listed.reason in WISHES and login in self._transactional:
                continue
            kind, _, name = listed.list.partition(":")
            if kind == "domain" and domain is None:
                domain = self._organizational(domain_of(sender))
            if kind == GLOBAL or (kind == "tenant" and name == login) or (kind == "domain" and name == domain):
                yield listed

    def _decision(self, listed: Listed) -> Decision:
        made = self._refusing.get(listed)
        if made is None:
            said = SAID[listed.reason]
            text = f"Recipient is suppressed: {said.text}"
            why = f"suppressed on {listed.list} for {listed.reason}"
            made = Decision(Reject(said.status, text), "", f"suppress/{listed.reason}", why)
            self._refusing[listed] = made
        return made
