"""Between alerts, incidents and notes and the JSON that the store keeps of them, both ways.

Knows their fields; a field that a later version added is its default in what an earlier one wrote.
"""

import json
from typing import Any

from parsers.feeds.dnsbl import Severity
from policies.conditions import Alert
from policies.figures import Kind
from policies.incidents import Incident, Member, Phase, Surroundings
from policies.note import Note, NoteKind


def _text(value: Any) -> str:
    return json.dumps(value).encode("utf-8", "backslashreplace").decode()


def alert_text(alert: Alert) -> str:
    return _text(alert._asdict())


def alert(text: str) -> Alert:
    found = _known(Alert, json.loads(text))
    last = found.get("last")
    return Alert(**found | {"kind": Kind(found["kind"]), "severity": Severity(found["severity"]),
                            "last": Severity(last) if last else None})  # fmt: skip


def incident_text(incident: Incident) -> str:
    members = [member._asdict() for member in incident.members]
    return _text(incident._asdict() | {"members": members, "around": incident.around._asdict()})


def incident(text: str) -> Incident:
    found = _known(Incident, json.loads(text))
    known_as = found.get("known_as")
    return Incident(
        **found
        | {
            "phase": Phase(found["phase"]),
            "severity": Severity(found["severity"]),
            "members": tuple(_member(each) for each in found.get("members", ())),
            "around": Surroundings(*(tuple(found["around"][name]) for name in Surroundings._fields)),
            "messages": tuple(found.get("messages", ())),
            "known_as": Severity(known_as) if known_as else None,
        }
    )


def _member(found: dict[str, Any]) -> Member:
    known = _known(Member, found)
    return Member(**known | {"kind": Kind(known["kind"]), "severity": Severity(known["severity"])})


def note_text(note: Note) -> str:
    return _text(note._asdict())


def note(text: str) -> Note:
    found = _known(Note, json.loads(text))
    lists = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
    return Note(**found | lists | {"kind": NoteKind(found["kind"]), "severity": Severity(found["severity"])})


def _known(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name in kind._fields}
