"""What a recipient is told at RCPT besides who is suppressed: hygiene first, then quotas; one call a recipient.

Knows their order and which answer goes before which. Memory only, never a wait.
"""

from collections.abc import Callable, Mapping

from parsers.address import domain_of
from parsers.policy_protocol import PolicyRequest, Reject
from policies.access import REFUSALS, Decision, Wiring
from policies.buckets import Message, Quotas
from policies.hygiene import Found, Hygiene
from policies.quota import Limited


class Admission:
    def __init__(
        self, hygiene: Hygiene | None, quotas: Quotas | None, *, provider_of: Callable[[str], str | None]
    ) -> None:
        self.hygiene = hygiene
        self.quotas = quotas
        self._provider_of = provider_of
        self._wants_dns = hygiene is not None and hygiene.wants_dns

    def recipient(  # noqa: PLR0917  # by name it takes longer
        self,
        request: PolicyRequest,
        message: Message,
        wiring: Mapping[str, Wiring],
        again: bool,  # noqa: FBT001  # as above
        acting: bool,  # noqa: FBT001  # as above
        now: float,
    ) -> Decision | None:
        """Say what is to be answered about a recipient, None where nothing is; charge it to its quotas.

        `again`: this message has named it before, so that it is charged already. `acting`: a refusal is one; else the
        recipient is taken all the same, and what stands here is only said.
        """
        found = self._look(request, message[0], wiring, now) if self.hygiene is not None else None
        if found is not None and self.hygiene is not None and not again:
            self.hygiene.count(found)
        if found is not None and isinstance(found.action, Reject) and acting:
            return _of_hygiene(found)
        limited = None
        if self.quotas is not None and not again:
            limited = self.quotas.take(request, message, acting, now)
        return None if found is None and limited is None else _first(found, limited)

    def explain(
        self, request: PolicyRequest, postfix_instance: str, wiring: Mapping[str, Wiring], *, now: float
    ) -> Decision | None:
        """As `recipient`, and nothing is charged."""
        found = self._look(request, postfix_instance, wiring, now)
        limited = self.quotas.explain(request, now=now) if self.quotas is not None else None
        return _first(found, limited)

    def ended(self, request: PolicyRequest, message: Message, now: float) -> None:
        """The first END-OF-MESSAGE of a message: what it took is settled."""
        if self.quotas is not None:
            self.quotas.settle(request, message, now)

    def forget(self, message: Message) -> None:
        """It was given up before its end."""
        if self.quotas is not None:
            self.quotas.forget(message)

    def _look(
        self, request: PolicyRequest, postfix_instance: str, wiring: Mapping[str, Wiring], now: float
    ) -> Found | None:
        ours = wiring.get(postfix_instance)
        if self.hygiene is None or ours is None:  # whose own domains are not known, of that nothing is judged
            return None
        domain = domain_of(request.recipient)
        if domain in ours.own_domains:
            return None
        if self._wants_dns:
            self._provider_of(domain)  # a domain that nobody knows is looked up in the background
        found = self.hygiene.look(request, now=now)
        if found is not None and ours.own_tables:
            strangers = self.hygiene.strangers
            return found if strangers.is_stranger(postfix_instance, domain, now=now) else None
        return found


def _first(found: Found | None, limited: Limited | None) -> Decision | None:
    """A refusal before anything else, hygiene's before the quota's; then the verification, then what is only said."""
    answers = [_of_hygiene(found)] if found is not None else []
    if limited is not None:
        answers.append(Decision(limited.action, "", f"quota/{limited.quota}", limited.why))
    refusal = next((answer for answer in answers if isinstance(answer.action, REFUSALS)), None)
    return refusal or next(iter(answers), None)


def _of_hygiene(found: Found) -> Decision:
    return Decision(found.action, "", f"hygiene/{found.check or 'verify'}", found.why)
