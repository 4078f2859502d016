"""Slack and PagerDuty as far as a sender meets them: answers for a local HTTP server that check what they are sent."""

import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from parsers.feeds.dnsbl import Severity
from sidecar.lab.http_server import Request, Response

KEY = "0123456789abcdef0123456789abcdef"
TOKEN = "xoxb-1-secret"  # noqa: S105  # of a server of ours
JSON = (("Content-Type", "application/json"),)


def _text_is_escaped(text: str) -> bool:
    return "<" not in text and ">" not in text and not re.search(r"&(?!amp;|lt;|gt;)", text)


def slack_fault(body: dict[str, Any]) -> str:
    """Find what Slack would refuse; "" where it takes it."""
    if not body.get("text"):
        return "no_text"
    blocks = body.get("blocks", [])
    texts = [block["text"] for block in blocks if "text" in block] + [
        each for block in blocks for each in block.get("elements", ()) if each["type"] == "mrkdwn"
    ]
    sound = (
        len(blocks) <= 50
        and all(len(block["text"]["text"]) <= 150 for block in blocks if block["type"] == "header")
        and all(0 < len(each["text"]) <= 3000 for each in texts)
        and all(len(block["elements"]) <= 10 for block in blocks if block["type"] == "context")
        and all(_text_is_escaped(each["text"]) for each in texts)
        and _text_is_escaped(body["text"])
    )
    return "" if sound else "invalid_blocks"


@dataclass
class Slack:
    """Incoming webhooks below /services, a bot's chat.postMessage below /api. `script`: answers before it is well."""

    script: list[Response | None] = field(default_factory=list)
    per_second: int = 0
    """Messages in a second of one path beyond which it answers 429; 0: no limit."""
    taken: list[dict[str, Any]] = field(default_factory=list)
    before: Callable[[], object] = lambda: None
    after: Callable[[], None] = lambda: None
    _seen: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: Request) -> Response | None:
        with self._lock:
            self.before()
            if self.script:
                return self.script.pop(0)
            error = request.path.rpartition("/")[2]
            if error in ERRORS:
                return Response(ERRORS[error], error.encode())
            now = time.monotonic()
            self._seen[request.path] = [each for each in self._seen[request.path] if now - each < 1.0] + [now]
            if self.per_second and len(self._seen[request.path]) > self.per_second:
                return Response(429, b"slow down", (("Retry-After", "1"),))
            if request.path.startswith("/api/chat.postMessage"):
                answer = self._posted(request)
            else:
                answer = self._hooked(request)
            self.after()
            return answer

    def _hooked(self, request: Request) -> Response:
        try:
            body = json.loads(request.body)
        except ValueError:
            return Response(400, b"invalid_payload")
        if fault := slack_fault(body):
            return Response(400, fault.encode())
        self.taken.append(body)
        return Response(200, b"ok")

    def _posted(self, request: Request) -> Response:
        body = json.loads(request.body)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Response(200, b'{"ok":false,"error":"invalid_auth"}', JSON)
        fault = slack_fault(body) or ("" if body.get("channel") == "C0123456789" else "channel_not_found")
        if not fault and body.get("thread_ts", "1.1") not in {f"{number}.1" for number in range(1, 99)}:
            fault = "thread_not_found"
        if fault:
            return Response(200, json.dumps({"ok": False, "error": fault}).encode(), JSON)
        self.taken.append(body)
        return Response(200, json.dumps({"ok": True, "ts": f"{len(self.taken)}.1"}).encode(), JSON)


ERRORS = {
    "invalid_payload": 400, "no_text": 400, "user_not_found": 400, "too_many_attachments": 400, "invalid_blocks": 400,
    "action_prohibited": 403, "invalid_token": 403, "posting_to_general_channel_denied": 403,
    "channel_not_found": 404, "no_active_hooks": 404, "no_service": 404, "no_service_id": 404, "no_team": 404,
    "team_disabled": 404, "channel_is_archived": 410, "rollup_error": 500,
}  # fmt: skip
"""What a webhook says to what it does not take."""


@dataclass
class PagerDuty:
    """Events v2: validates, keeps one alert a dedup key, and limits."""

    script: list[Response | None] = field(default_factory=list)
    per_minute: int = 120
    open: dict[str, str] = field(default_factory=dict)
    """Dedup key -> triggered or acknowledged."""
    pages: int = 0
    """Alerts that were opened."""
    events: list[dict[str, Any]] = field(default_factory=list)
    before: Callable[[], object] = lambda: None
    after: Callable[[], None] = lambda: None

    def __call__(self, request: Request) -> Response | None:
        self.before()
        if self.script:
            return self.script.pop(0)
        if len(self.events) >= self.per_minute:
            return Response(429, b'{"status":"throttle exceeded"}', (("Retry-After", "1"),))
        try:
            event = json.loads(request.body)
        except ValueError:
            return _refused("Unrecognized object", "JSON parse error")
        if errors := list(_event_faults(event, len(request.body))):
            return _refused("invalid event", *errors)
        self.events.append(event)
        key = event["dedup_key"]
        match event["event_action"]:
            case "trigger":
                self.pages += key not in self.open
                self.open[key] = "triggered"
            case "acknowledge" if key in self.open:
                self.open[key] = "acknowledged"
            case "resolve":
                self.open.pop(key, None)
        self.after()
        return Response(202, json.dumps({"status": "success", "message": "Event processed", "dedup_key": key}).encode())


def _refused(status: str, *errors: str) -> Response:
    return Response(
        400, json.dumps({"status": status, "message": "Event object is invalid", "errors": errors}).encode()
    )


def _event_faults(event: dict[str, Any], size: int) -> list[str]:
    faults = []
    if len(event.get("routing_key", "")) != 32:
        faults.append("Length of 'routing_key' is incorrect (should be 32 characters)")
    if event.get("event_action") not in {"trigger", "acknowledge", "resolve"}:
        faults.append("'event_action' is invalid")
    if not 0 < len(event.get("dedup_key", "")) <= 255:
        faults.append("'dedup_key' is invalid")
    if size > 512 << 10:
        faults.append("too large")
    if event.get("event_action") == "trigger":
        payload = event.get("payload", {})
        sound = (
            0 < len(payload.get("summary", "")) <= 1024
            and payload.get("source")
            and payload.get("severity") in set(Severity)
        )
        if not sound:
            faults.append("'payload' is invalid")
    return faults
