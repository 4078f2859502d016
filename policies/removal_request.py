"""A request to take an address or a domain off a list: filled in with what is known, with a place for what is not.

Knows what such a request has to say; evidence stays out of it, for it names recipients.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from parsers.feeds.delisting import Listing
from policies.incidents import Incident

_UNKNOWN: Final = "(not known here)"
_SAY_IT: Final = "(say here what was wrong and what you changed; nothing is removed for long without it)"
INCIDENTS_MAX: Final = 5


class Subject(NamedTuple):
    """What is listed."""

    object: str
    """An address or a domain."""
    names: tuple[str, ...] = ()
    """Of an address: where its PTR records lead."""
    helo: str = ""
    """The name that Postfix greets with from there."""
    contact: str = ""


def request(subject: Subject, found: Listing, *, since: float, note: str, incidents: Sequence[Incident]) -> str:
    """Write it. `since`: when it was first seen listed, 0: not known; `note`: what was wrong and was changed."""
    is_address = ":" in subject.object or subject.object.replace(".", "").isdigit()
    lines = [f"Subject: removal of {subject.object} from {found.list}", ""]
    rows = [
        ("Address" if is_address else "Domain", subject.object),
        *([("Reverse name", ", ".join(subject.names) or _UNKNOWN)] if is_address else []),
        *([("Greets as", subject.helo or _UNKNOWN)] if is_address else []),
        ("Listed as", ", ".join(found.sublists) or found.list),
        ("Listed since", f"{_time(since)} (first seen by us)" if since else _UNKNOWN),
        *([("Your reason", found.reason)] if found.reason else []),
        *([("Contact", subject.contact)] if subject.contact else []),
    ]
    lines += [f"{name + ':':<14}{value}" for name, value in rows]
    lines += ["", "What was wrong, and what we changed:", f"  {note or _SAY_IT}"]
    if records := [line for incident in incidents[-INCIDENTS_MAX:] for line in _record(incident)]:
        lines += ["", "From our records:", *records]
    return "\n".join(lines)


def concerning(incidents: Sequence[Incident], subject: str) -> list[Incident]:
    """Give the incidents that are about something, oldest first."""
    return [each for each in incidents if any(member.object == subject for member in each.members)]


def _record(incident: Incident) -> list[str]:
    until = f"until {_time(incident.ended_at)}" if not incident.live else "still open"
    first = f"  - {_time(incident.began_at)}, {until}: {incident.title}"
    return [first, *(f"    done: {action}" for action in incident.around.actions)]


def _time(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
