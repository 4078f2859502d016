"""Finds the message of a canary that somebody complains about, by its queue id or else by the recipient.

Knows that a complaint comes days later, and that one about other mail to the same person is not meant.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from policies.canary import Arm
from policies.steering import InArm
from policies.stored_address import hash_of
from sidecar.database import Database
from sidecar.rules import organizational_domain

_MESSAGES: Final = "SELECT canary, queue_id, recipient, sender_domain, arm, at, complained FROM canary_message WHERE {} ORDER BY at DESC"
_BY_QUEUE_ID: Final = _MESSAGES.format("queue_id = ?")
_BY_RECIPIENT: Final = _MESSAGES.format("recipient = ? AND at <= ?")
_CLOCKS: Final = 3_600.0
"""Seconds that a report's time may be before ours."""


def find(database: Database, complaints: Iterable[Mapping[str, Any]]) -> dict[int, InArm]:
    """Give the messages, by the number of the complaint; none for one that is not about a canary, or was counted."""
    found: dict[int, InArm] = {}
    counted: set[tuple[str, str, str]] = set()
    for complaint in complaints:
        about = _about(database, complaint)
        if about is not None and not about.complained and about[:3] not in counted:
            counted.add(about[:3])
            found[int(complaint["number"])] = about
    return found


def _about(database: Database, complaint: Mapping[str, Any]) -> InArm | None:
    queue_id, recipient = str(complaint.get("queue_id") or ""), str(complaint.get("recipient") or "")
    who = hash_of(recipient) if recipient else ""
    if queue_id:
        rows = _rows(database, _BY_QUEUE_ID, queue_id)
        if rows:
            return next((row for row in rows if row.recipient == who), rows[0] if len(rows) == 1 else None)
    domain = organizational_domain(str(complaint.get("domain") or "").lower())
    if not (who and domain):
        return None
    mail = _rows(database, _BY_RECIPIENT, who, float(complaint.get("at") or 0.0) + _CLOCKS)
    return next((row for row in mail if organizational_domain(row.sender_domain) == domain), None)


def _rows(database: Database, statement: str, *values: Any) -> list[InArm]:
    return [
        InArm(canary, queue_id, recipient, sender_domain, Arm(arm), at, bool(complained))
        for canary, queue_id, recipient, sender_domain, arm, at, complained in database.rows(statement, values)
    ]
