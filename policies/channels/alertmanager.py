"""Alertmanager, API v2: the alerts as they are, sent again and again, for it forgets what is not repeated.

Knows labels and annotations; grouping, silences and who is told are Alertmanager's own.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from parsers.feeds.asking import HttpAsk
from policies.incidents import Incident, Member

EVERY: Final = 60.0
"""Seconds between two tellings; less than half of Alertmanager's resolve_timeout of 5 minutes."""
RESOLVED_FOR: Final = 300.0
"""Seconds for which a resolved alert is told."""
_VALID: Final = 4 * EVERY


def post(url: str, incidents: Iterable[Incident], severities: frozenset[str], *, host: str, now: float) -> HttpAsk:
    """Tell all alerts that fire, or were resolved within the last minutes."""
    alerts = [
        _alert(incident, member, host, now=now)
        for incident in incidents
        for member in incident.members
        if member.severity in severities and _is_news(incident, member, now=now)
    ]
    body = json.dumps(alerts).encode()
    return HttpAsk(f"{url.rstrip('/')}/api/v2/alerts", "POST", (("Content-Type", "application/json"),), body)


def test(url: str, *, host: str, now: float) -> HttpAsk:
    """Tell an alert that is over in a minute."""
    labels = {"alertname": "SidecarTest", "severity": "info", "instance": host}
    alert = {"labels": labels, "annotations": {"summary": "a test"}, "startsAt": _time(now), "endsAt": _time(now + 60)}
    body = json.dumps([alert]).encode()
    return HttpAsk(f"{url.rstrip('/')}/api/v2/alerts", "POST", (("Content-Type", "application/json"),), body)


def _is_news(incident: Incident, member: Member, *, now: float) -> bool:
    if member.firing:
        return incident.live or now - incident.ended_at < RESOLVED_FOR
    return member.resolved_at > 0 and now - member.resolved_at < RESOLVED_FOR


def _alert(incident: Incident, member: Member, host: str, *, now: float) -> dict[str, Any]:
    over = member.resolved_at if not member.firing else incident.ended_at if not incident.live else 0.0
    return {
        "labels": {
            "alertname": camel_case(member.condition),
            "severity": str(member.severity),
            "object": _encodable(member.object),
            "category": incident.category,
            "incident": str(incident.id),
            "dedup_key": member.key,
            "instance": host,
        },
        "annotations": {
            "summary": _encodable(member.said)[:1024],
            **({"runbook_url": incident.runbook} if incident.runbook else {}),
            **({"owner": incident.owner} if incident.owner else {}),
        },
        "startsAt": _time(member.fired_at),
        "endsAt": _time(over or now + _VALID),
    }


def camel_case(name: str) -> str:
    """Turn "hard-bounces" into SidecarHardBounces, as names of alerts are written."""
    return "Sidecar" + "".join(part.capitalize() for part in name.replace("_", "-").split("-"))


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
