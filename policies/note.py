"""What people are told of an incident, before any channel gives it its own form.

Knows which notes are messages, of which an incident may send only a few a day, and which only keep a pager informed.
"""

from enum import StrEnum
from typing import NamedTuple

from parsers.feeds.dnsbl import Severity


class NoteKind(StrEnum):
    OPENED = "opened"
    WORSE = "worse"
    WIDER = "wider"
    """It concerns more than was told."""
    REOPENED = "reopened"
    """It was said to be over, and is back."""
    RESOLVED = "resolved"
    AGAIN = "again"
    """Still open: for a pager, under the same dedup key; no message."""
    ACKED = "acked"
    """Somebody has taken it on; no message."""
    CLOSED = "closed"
    """By hand, where no message is left: for a pager alone."""
    UNSURE = "unsure"
    """Still open, and nobody knows whether the last message arrived."""
    TEST = "test"
    DIGEST = "digest"
    """Of a day; about no incident in particular."""
    REPORT = "report"
    """The scheduled report: about no incident, and nobody else says it when a channel cannot."""


MESSAGES = frozenset(
    {NoteKind.OPENED, NoteKind.WORSE, NoteKind.WIDER, NoteKind.REOPENED, NoteKind.RESOLVED, NoteKind.UNSURE}
)
"""What counts against an incident's messages a day."""


class Note(NamedTuple):
    kind: NoteKind
    incident: int
    dedup_key: str
    severity: Severity
    title: str
    category: str
    at: float
    began_at: float
    opened_at: float
    """0 for a test."""
    owner: str = ""
    runbook: str = ""
    """Where to read on: a URL or a file."""
    link: str = ""
    """Where the incident can be looked at; "" where there is no page."""
    scope: tuple[str, ...] = ()
    """What it is about: "domain:example.com"."""
    alerts: tuple[str, ...] = ()
    """One line for each, those that fire first."""
    evidence: tuple[str, ...] = ()
    victims: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    """What the sidecar did by itself."""
    by_whom: str = ""
    """Who acknowledged or closed it, "" where nobody did."""
    instead_of: str = ""
    """Why it comes over this channel and not over another."""
    hosts: tuple[str, ...] = ()
    """Of a fleet, one line for each that sees it or saw it; empty where it is one host's own."""

    @property
    def is_open(self) -> bool:
        return self.kind not in {NoteKind.RESOLVED, NoteKind.CLOSED, NoteKind.DIGEST, NoteKind.REPORT}


_WORDS = {
    NoteKind.OPENED: "FIRING",
    NoteKind.WORSE: "WORSE",
    NoteKind.WIDER: "WIDER",
    NoteKind.REOPENED: "FIRING AGAIN",
    NoteKind.RESOLVED: "RESOLVED",
    NoteKind.AGAIN: "STILL FIRING",
    NoteKind.ACKED: "ACKNOWLEDGED",
    NoteKind.CLOSED: "CLOSED",
    NoteKind.UNSURE: "STILL FIRING",
    NoteKind.TEST: "TEST",
    NoteKind.DIGEST: "DIGEST",
    NoteKind.REPORT: "REPORT",
}


def headline(note: Note) -> str:
    """One line: what happened to which incident, and what it is."""
    return f"[{_WORDS[note.kind]}] {note.severity}: {note.title}"


def span(seconds: float) -> str:
    """A length of time as people say it."""
    seconds = max(seconds, 0.0)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def paragraphs(note: Note) -> list[tuple[str, tuple[str, ...]]]:
    """(heading, lines) in the order in which people want them; empty ones left out."""
    if note.kind is NoteKind.DIGEST:
        return [(heading, lines) for heading, lines in _of_digest(note) if lines]
    times = [f"began {span(note.at - note.began_at)} ago", f"noticed {span(note.opened_at - note.began_at)} after that"]
    if note.kind is NoteKind.RESOLVED:
        times = [f"it lasted {span(note.at - note.opened_at)}"]
    found = [
        ("What", note.alerts),
        ("Where", note.scope if len(note.scope) > 1 else ()),
        ("Hosts", note.hosts),
        ("When", tuple(times) if note.opened_at else ()),
        ("Who", (note.by_whom,) if note.by_whom else ()),
        ("Who waits", note.victims),
        ("Evidence", note.evidence),
        ("Done by the sidecar", note.actions),
        ("What to do", (note.runbook,) if note.runbook else ()),
        ("Owner", (note.owner,) if note.owner else ()),
        ("Why here", (note.instead_of,) if note.instead_of else ()),
    ]
    return [(heading, lines) for heading, lines in found if lines]


def _of_digest(note: Note) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return (
        ("Incidents", note.alerts or ("none",)),
        ("How fast", note.scope),
        ("Sending domains", note.victims),
        ("Providers", note.evidence),
    )
