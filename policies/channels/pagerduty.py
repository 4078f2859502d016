"""PagerDuty, Events API v2: one alert there for each incident, found again by its dedup key.

Knows the limits of an event, and that the same trigger twice is one alert: so it may be sent again when in doubt.
"""

import json
from datetime import UTC, datetime
from typing import Any, Final

from parsers.feeds.asking import HttpAnswer, HttpAsk
from policies.channels.receipt import Receipt, Result, by_status
from policies.note import Note, NoteKind, paragraphs

API: Final = "https://events.pagerduty.com"
KEY_LENGTH: Final = 32
SUMMARY_MAX: Final = 1024
EVENT_MAX: Final = 512 << 10
_ACTIONS: Final = {NoteKind.ACKED: "acknowledge", NoteKind.RESOLVED: "resolve", NoteKind.CLOSED: "resolve"}
_LINE_MAX: Final = 1000


def event(routing_key: str, note: Note, *, host: str, api: str = API) -> HttpAsk:
    """Tell of a note: a trigger, unless it was acknowledged or is over."""
    action = _ACTIONS.get(note.kind, "trigger")
    body: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": note.dedup_key,
    }
    if action == "trigger":
        body |= {"payload": _payload(note, host), "client": "postfix-sidecar", "links": _links(note)}
    encoded = json.dumps(body).encode()
    if len(encoded) > EVENT_MAX:  # the details are the only part without a limit of its own
        body["payload"].pop("custom_details")
        encoded = json.dumps(body).encode()
    return HttpAsk(f"{api}/v2/enqueue", "POST", (("Content-Type", "application/json"),), encoded, (routing_key,))


def read(answer: HttpAnswer) -> Receipt:
    """Read an answer: 202 is taken; what else is 2xx is not PagerDuty."""
    if 200 <= answer.status < 300 and answer.status != 202:
        return Receipt(Result.BROKEN, f"answers {answer.status}, wanted 202")
    return by_status(answer)


def _payload(note: Note, host: str) -> dict[str, Any]:
    details = {heading: "\n".join(line[:_LINE_MAX] for line in lines) for heading, lines in paragraphs(note)}
    return {
        "summary": _encodable(note.title)[:SUMMARY_MAX],
        "source": host,
        "severity": str(note.severity),
        "timestamp": datetime.fromtimestamp(note.opened_at or note.at, UTC).isoformat(timespec="milliseconds"),
        "component": "postfix",
        "class": note.category,
        "custom_details": {"incident": note.incident, **{key: _encodable(text) for key, text in details.items()}},
    }


def _links(note: Note) -> list[dict[str, str]]:
    links = {"Incident": note.link, "Runbook": note.runbook}
    return [{"href": href, "text": text} for text, href in links.items() if href.startswith(("http://", "https://"))]


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
