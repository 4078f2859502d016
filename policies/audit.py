"""What the audit says: the kinds of changes, and how decisions of which there are many become few rows.

Holds and releases name their messages; routes and refusals at RCPT, which may be thousands a second, are counted.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from policies.commands import Change
from policies.suppression import Add, End, Move

KINDS: Final = (
    *("opened", "probing", "ramping", "paused", "closed", "answered", "held", "released", "requeued", "adopted"),
    *("forgotten", "refused", "capped", "reload", "postfix", "gap", "unaccounted", "hold-failed", "release-failed"),
    *("routed", "rejected", "discarded", "deferred", "suppressed", "unsuppressed", "erased", "quota-reset"),
    *("reacted", "returning", "restored", "undone", "warm-up", "canary", "host-forgotten"),
)
"""Of a sub-queue: opened to closed. Of messages: answered (HOLD at their end), held (taken from the queue), released,
requeued (taken in anew by Postfix, under another id), adopted (on hold by our word, though the books did not say so),
forgotten (by another hand), capped (left at hold_max).
Of Postfix: reload (by us), postfix (started, stopped, reloaded by anybody). Of what smtpd was answered: routed (FILTER),
rejected, discarded, deferred. Of the suppression list: suppressed, unsuppressed, erased. Of quotas: quota-reset, a
bucket emptied by hand. Of where mail is steered: reacted (to a bad
sign), returning (an address, by a growing share), restored, undone (by hand), warm-up, canary. Of the fleet: host-forgotten, one that is gone for good. The rest are
troubles.
"""


class Acted(NamedTuple):
    """Answers of one kind to smtpd, for one reason."""

    kind: str
    """routed, rejected, discarded or deferred."""
    rule: str
    why: str


def of_answers(counts: Iterable[tuple[Acted, int]], *, now: float) -> list[Change]:
    """Sum up what smtpd was answered since the last time, in the words that `sidecar ask` uses."""
    return [Change(now, "", acted.kind, "", acted.why, "", acted.rule, "policy", count) for acted, count in counts]


def of_moves(moves: Iterable[Move], *, now: float) -> list[Change]:
    """Sum up who was put on the suppression list and taken off it: a row a list, reason and hand, with the first evidence.

    Which address it was stands in the list alone, whose entries have a history of their own.
    """
    counts: dict[tuple[str, str, str], tuple[str, int]] = {}
    for move in moves:
        if isinstance(move, Add | End):
            kind = "suppressed" if isinstance(move, Add) else "unsuppressed"
            said = f"on {move.listed.list} for {move.listed.reason}"
            why = said if isinstance(move, Add) else f"{said}: {move.why}"
            evidence, count = counts.get((kind, why, move.by_whom), (move.evidence if isinstance(move, Add) else "", 0))
            counts[kind, why, move.by_whom] = evidence, count + 1
    return [
        Change(now, "", kind, "", why, evidence, "", by_whom, count)
        for (kind, why, by_whom), (evidence, count) in counts.items()
    ]
