"""What a complaint or a non-delivery report comes to: one event a recipient, with its meaning.

Knows which reports complain and which do not, and has the rules for replies say what a bounce means.
"""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from parsers.address import domain_of
from parsers.reports.arf import Complaint, FeedbackType
from parsers.reports.authentication import Passed
from parsers.reports.dsn import NonDelivery
from parsers.reports.original import Original
from policies.classify import RuleSet, Said
from policies.reporters import Standing, judge_bounce
from policies.verdict import Verdict


class EventKind(StrEnum):
    COMPLAINT = "complaint"
    NOT_SPAM = "not-spam"
    OPT_OUT = "opt-out"
    AUTH_FAILURE = "auth-failure"
    BOUNCE = "bounce"
    DELAY = "delay"


class Event(NamedTuple):
    kind: EventKind
    type: str
    """Feedback-Type, or the action of a bounce."""
    at: float | None
    trusted: bool
    provider: str
    recipient: str
    """"" where it was redacted."""
    source_ip: str
    reporting_mta: str
    incidents: int
    original: Original
    status: str = ""
    reply: str = ""
    verdict: Verdict | None = None
    """Of a bounce."""


_KINDS: Final = {
    FeedbackType.NOT_SPAM: EventKind.NOT_SPAM,
    FeedbackType.OPT_OUT: EventKind.OPT_OUT,
    FeedbackType.OPT_OUT_LIST: EventKind.OPT_OUT,
    FeedbackType.AUTH_FAILURE: EventKind.AUTH_FAILURE,
}
"""All other types complain."""

_ACTIONS: Final = {"failed": EventKind.BOUNCE, "delayed": EventKind.DELAY}
"""The others of RFC 3464 are good news."""


def of_complaint(complaint: Complaint, standing: Standing, rules: RuleSet) -> Iterator[Event]:
    """One event for each recipient that the report names, or one for nobody in particular."""
    for recipient in complaint.recipients or ("",):
        yield Event(
            _KINDS.get(complaint.type, EventKind.COMPLAINT),
            complaint.said_type or complaint.type,
            complaint.arrival,
            standing.trusted,
            standing.provider or rules.providers.of_domain(domain_of(recipient)) or "",
            recipient,
            complaint.source_ip,
            complaint.reporting_mta,
            complaint.incidents,
            complaint.original,
        )


def of_bounce(
    bounce: NonDelivery,
    proofs: tuple[Passed, ...],
    rules: RuleSet,
    organizational: Callable[[str], str],
) -> Iterator[Event]:
    """One event for each recipient that failed or waits; those that were served give none."""
    for each in bounce.recipients:
        kind = _ACTIONS.get(each.action)
        if kind is None:
            continue
        recipient = each.ours
        verdict = rules.classify(Said(each.reply, each.remote, domain_of(recipient)))
        yield Event(
            kind,
            each.action,
            each.at or bounce.arrival,
            judge_bounce(proofs, recipient, organizational),
            verdict.provider or "",
            recipient,
            "",
            bounce.reporting_mta,
            1,
            bounce.original,
            each.status or verdict.enhanced,
            each.diagnostic,
            verdict,
        )
