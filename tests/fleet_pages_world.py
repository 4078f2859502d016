"""Hosts that share pages, with nothing below them: a store in memory, people who read, and one clock."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from parsers.feeds.dnsbl import Severity
from policies.figures import Kind
from policies.fleet.page import Page
from policies.incidents import Incident, Member, Phase
from policies.note import MESSAGES, Note, NoteKind
from sidecar.channels import Channel
from sidecar.config import ChannelConfig, ChannelKind
from sidecar.fleet.page_names import PAGE
from sidecar.fleet.pages import SharedPages
from sidecar.incident_store import ChannelState, Posted
from tests.alert_world import note
from tests.fleet_memory import Memory, Way

KEY = "pf-rep:log:google:deferrals"
CHAT = Channel(ChannelConfig("chat", ChannelKind.SLACK, url_file="/nowhere"), "mx")
OVER = {NoteKind.RESOLVED}
SHARE = (KEY, Kind.PROVIDER, "google")
SENDER = ("pf-rep:google-postmaster:example.com:spam-rate", Kind.STREAM, "example.com@google")
OTHER = ("pf-rep:senderscore:192.0.2.1:score", Kind.ADDRESS, "192.0.2.1")
CHAIN = ("pf-rep:google-postmaster:example.com:dmarc", Kind.DOMAIN, "example.com")
YAHOO = ("pf-rep:log:yahoo:deferrals", Kind.PROVIDER, "yahoo")
REFUSED = ("pf-rep:log:example.net:hard-bounces", Kind.DOMAIN, "example.net")


async def here(call: Any) -> Any:
    return call()


class Rows:
    """What `IncidentStore` keeps of it; it outlives its process."""

    def __init__(self) -> None:
        self.rows: dict[int, Posted] = {}
        self.known: set[int] = set()
        self.texts: dict[str, str] = {}
        self.named: dict[int, str] = {}
        self.broken_since = 0.0

    def pages(self) -> dict[str, str]:
        return dict(self.texts)

    def put_pages(self, texts: dict[str, str], gone: Sequence[str] = ()) -> None:
        self.texts.update(texts)
        for key in gone:
            self.texts.pop(key, None)

    def pages_of(self) -> dict[int, str]:
        return dict(self.named)

    def put_pages_of(self, pages: dict[int, str], gone: Sequence[int] = ()) -> None:
        self.named.update(pages)
        for number in gone:
            self.named.pop(number, None)

    def unsettled(self) -> list[Posted]:
        return [row for number, row in self.rows.items() if number not in self.known]

    def settled(self, ids: Sequence[int]) -> None:
        self.known.update(ids)

    def withdraw(self, id_: int, *, why: str, now: float) -> None:
        if self.rows[id_].state == "queued":
            self.rows[id_] = self.rows[id_]._replace(state="dropped", why=why, done_at=now)

    def post_page(self, note: Note, channel: str, *, page: str, now: float) -> int:
        number = len(self.rows) + 1
        self.rows[number] = Posted(number, number, channel, note.incident, note.kind, note, "queued", 0, now, 0.0, 0.0,
                                   handed=False, why="", page=page)  # fmt: skip
        return number

    def channel(self, _: str) -> ChannelState:
        return ChannelState(self.broken_since, self.broken_since)

    def thread(self, _: str, __: int) -> str:
        return ""

    def put_thread(self, *_: object) -> None:
        raise AssertionError("there is no thread")


@dataclass
class Mx:
    """One host, its incident, and its way to the store and to people."""

    memory: Memory
    people: "People"
    name: str
    rows: Rows = field(default_factory=Rows)
    severity: Severity | None = None
    number: int = 0
    running: bool = True
    reaches_people: bool = True
    acked_by: str = ""
    alerts: tuple[tuple[str, Kind, str], ...] = (SHARE,)
    """What fires here, in the order in which it did: key, kind and what it is about."""
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        way: Any = Way(self.memory, self.name)
        rows: Any = self.rows
        at = lambda: self.memory.at  # noqa: E731  # one clock for all: skew is the store's business
        self.shared = SharedPages(self.name, way, rows, [CHAT], steady=at, clock=at)

    # As a desk.

    def incidents(self) -> list[Incident]:
        if not self.number:
            return []
        severity = self.severity or Severity.ERROR
        members = tuple(
            Member(key, "deferrals", what, kind, severity, True, 0.0, 0.0, 0.0, "google defers")  # it fires
            for key, kind, what in self.alerts
        )
        phase = Phase.OPEN if self.severity else Phase.RESOLVED
        return [
            Incident(self.number, members[0].key, phase, "google defers", "throttling", severity, "", "", 0.0, self.memory.at,
                     members=members, acked_by=self.acked_by)
        ]  # fmt: skip

    def page_note(self, number: int, kind: NoteKind) -> Note:
        return note(kind, number, self.severity or Severity.ERROR)

    def follow(self, _: int, *, closed: bool, who: str) -> None:
        if closed:
            self.severity = None
        else:
            self.acked_by = who

    def happened(self, _: int, what: str) -> None:
        self.heard.append(what)

    def wake_outbox(self) -> None:
        """It is asked at each tick."""

    # What goes on.

    def sees(self, severity: Severity = Severity.ERROR) -> None:
        self.number += self.severity is None
        self.severity, self.acked_by = severity, ""

    def round(self) -> None:
        with pytest.raises(StopIteration):  # nothing of it waits for anything here
            self.shared.round(self).send(None)

    def send(self) -> None:
        """What the outbox does."""
        for number, row in self.rows.rows.items():
            if row.state != "queued" or not self.reaches_people:
                continue
            if not self.shared.may_send(row):
                self.rows.withdraw(number, why="", now=self.memory.at)
                continue
            self.people.told.append((self.memory.at, self.name, row.kind, row.note))
            self.rows.rows[number] = row._replace(state="sent")

    def by_hand(self, *, closed: bool, who: str) -> list[str]:
        return self.shared.by_hand(self.incidents()[0], closed=closed, who=who)

    @property
    def page(self) -> str:
        return self.rows.named[self.number]

    def restart(self) -> None:
        self.running = True
        self.start()


class People:
    def __init__(self) -> None:
        self.told: list[tuple[float, str, NoteKind, Note]] = []

    @property
    def messages(self) -> list[NoteKind]:
        return [kind for _, _, kind, _ in self.told if kind in MESSAGES]

    @property
    def believe_that_it_goes_on(self) -> bool:
        return bool(self.pages_open)

    @property
    def pages_open(self) -> set[str]:
        last = {note.dedup_key: kind for *_, kind, note in self.told if kind in MESSAGES}
        return {page for page, kind in last.items() if kind not in OVER}

    def of_page(self, page: str) -> list[NoteKind]:
        return [kind for *_, kind, note in self.told if note.dedup_key == page and kind in MESSAGES]


class Fleet:
    def __init__(self, count: int = 3) -> None:
        self.memory, self.people = Memory(), People()
        self.hosts = [Mx(self.memory, self.people, f"mx{number}") for number in range(count)]

    def seen(self) -> set[str]:
        """The pages that somebody sees, as the store has it."""
        pages = {name: Page.read(text) for name, text in self.memory.texts.items() if name.startswith(PAGE)}
        return {name.removeprefix(PAGE) for name, page in pages.items() if page.seen(at=self.memory.at)}

    def passes(self, seconds: float, step: float = 2.0) -> None:
        ends = self.memory.at + seconds
        while self.memory.at < ends:
            self.memory.at += step
            for host in self.hosts:
                if host.running:
                    host.round()
                    host.send()
