"""Alertmanager as far as a sender meets it, and what incidents are told with; Slack and PagerDuty are the lab's."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from parsers.feeds.dnsbl import Severity
from policies.note import Note, NoteKind
from sidecar.lab.pagers import ERRORS, JSON, KEY, TOKEN, PagerDuty, Slack, slack_fault
from tests.outside_world import Request, Response

__all__ = ["ERRORS", "JSON", "KEY", "TOKEN", "Alertmanager", "PagerDuty", "Slack", "note", "slack_fault"]


def note(
    kind: NoteKind = NoteKind.OPENED, incident: int = 1, severity: Severity = Severity.CRITICAL, **more: Any
) -> Note:
    key = f"pf-rep:log:a.example:{incident}"
    made = Note(kind, incident, key, severity, "a.example is unwell", "throttling", 1e9, 1e9 - 60, 1e9 - 30)
    return made._replace(**more)


@dataclass
class Alertmanager:
    """API v2: the newest state of each alert by its labels."""

    script: Sequence[Response | None] = ()
    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)
    posts: int = 0

    def __call__(self, request: Request) -> Response | None:
        if request.path != "/api/v2/alerts" or request.headers.get("content-type") != "application/json":
            return Response(404)
        found = json.loads(request.body)
        if not isinstance(found, list) or not all(each["labels"].get("alertname") for each in found):
            return Response(400, b"bad JSON")
        self.posts += 1
        for each in found:
            self.alerts[each["labels"].get("dedup_key", "test")] = each
        return Response(200)
