"""Any web service: JSON in the shape that Alertmanager gives its receivers (version 4), signed.

Knows the signature: HMAC-SHA256, by the shared secret, over the timestamp, a dot and the body.
"""

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any, Final

from parsers.feeds.asking import HttpAsk
from policies.channels.alertmanager import camel_case
from policies.note import Note, headline, paragraphs

SIGNATURE: Final = "X-Sidecar-Signature"
TIMESTAMP: Final = "X-Sidecar-Timestamp"
DELIVERY: Final = "X-Sidecar-Delivery"
"""The same for each try of one note: whoever takes it twice can tell."""


def request(url: str, secret: bytes, note: Note, *, delivery: str, host: str, now: float) -> HttpAsk:
    body = json.dumps(_body(note, host)).encode()
    headers = [("Content-Type", "application/json"), (DELIVERY, delivery)]
    if secret:
        stamp = f"{now:.0f}"
        headers += [(TIMESTAMP, stamp), (SIGNATURE, f"sha256={signature(secret, stamp, body)}")]
    return HttpAsk(url, "POST", tuple(headers), body)


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Give it in hexadecimal digits. A receiver compares it in constant time, and refuses old timestamps."""
    return hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _body(note: Note, host: str) -> dict[str, Any]:
    status = "firing" if note.is_open else "resolved"
    labels = {
        "alertname": camel_case(note.category),
        "severity": str(note.severity),
        "category": note.category,
        "incident": str(note.incident),
        "instance": host,
    }
    details = {heading.lower().replace(" ", "_"): "\n".join(lines) for heading, lines in paragraphs(note)}
    annotations = {"summary": note.title, "headline": headline(note), "kind": str(note.kind), **details}
    annotations = {key: text.encode("utf-8", "backslashreplace").decode() for key, text in annotations.items()}
    alert = {
        "status": status,
        "labels": labels,
        "annotations": annotations,
        "startsAt": _time(note.opened_at or note.at),
        "endsAt": "0001-01-01T00:00:00Z" if note.is_open else _time(note.at),
        "generatorURL": note.link,
        "fingerprint": hashlib.sha256(note.dedup_key.encode("utf-8", "backslashreplace")).hexdigest()[:16],
    }
    return {
        "version": "4",
        "groupKey": note.dedup_key,
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "sidecar",
        "groupLabels": {"incident": str(note.incident)},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": note.link,
        "alerts": [alert],
    }


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
