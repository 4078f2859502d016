"""The oracle's own look at the mail log, apart from the product's parsers: a fault there must not hide itself here.

It knows the few lines that count messages, and stamps each with the time at which it was read.
"""

import asyncio
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_LINE = re.compile(r"^.{15} \S+ postfix\S*?/(?P<daemon>[a-z]+)\[\d+\]: (?P<id>[0-9A-Za-z]{6,}): (?P<text>.*)$")
_OUTCOME = re.compile(r"^to=<(?P<to>[^>]*)>,.* status=(?P<status>[a-z]+) ")
_ACTIVE = re.compile(r"^from=<[^>]*>, size=\d+, nrcpt=(?P<nrcpt>\d+) \(queue active\)$")
_MESSAGE_ID = re.compile(r"^message-id=<(?P<value>[^>]*)>")

_FINAL = frozenset({"sent", "bounced", "expired", "deliverable", "undeliverable"})
_POLL_S = 0.005


class Outcome(NamedTuple):
    """One delivery line that is not final."""

    time: float
    queue_id: str
    recipient: str


class Moved(NamedTuple):
    """A message went on hold, or left it."""

    time: float
    queue_id: str


@dataclass(slots=True)
class MailLog:
    """What the lines said so far."""

    message_ids: dict[str, str] = field(default_factory=dict)
    deferred: list[Outcome] = field(default_factory=list)
    bounced: set[tuple[str, str]] = field(default_factory=set)
    """(queue id, recipient)."""
    held: list[Moved] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    """Queue ids that went on hold as they arrived, by an answer to smtpd."""
    released: list[Moved] = field(default_factory=list)
    on_hold: set[str] = field(default_factory=set)
    removed_silently: list[str] = field(default_factory=list)
    """Queue ids that qmgr removed with fewer final delivery lines than recipients: lost mail, or a gap in the log."""
    requeued: int = 0
    active: dict[str, int] = field(default_factory=dict)
    """Queue id -> recipients, of each message that ever was in the active queue."""
    _finished: dict[str, set[str]] = field(default_factory=dict)

    def line(self, text: str, now: float) -> None:
        """Take note of one line, read at `now`."""
        found = _LINE.match(text)
        if found is None:
            return
        queue_id, said = found["id"], found["text"]
        match found["daemon"]:
            case "cleanup" if identified := _MESSAGE_ID.match(said):
                self.message_ids[queue_id] = identified["value"]
            case "cleanup" if said.startswith("milter-reject: END-OF-MESSAGE"):
                self.on_hold.discard(queue_id)
            case "smtpd" if said.startswith("hold: END-OF-MESSAGE"):
                self.answered.add(queue_id)
                self._hold(queue_id, now)
            case "postsuper":
                self._postsuper(queue_id, said, now)
            case "qmgr" if active := _ACTIVE.match(said):
                self.active.setdefault(queue_id, int(active["nrcpt"]))
            case "qmgr" if said == "removed":
                self._removed(queue_id)
            case _ if outcome := _OUTCOME.match(said):
                self._outcome(queue_id, outcome["to"], outcome["status"], now)

    def _outcome(self, queue_id: str, recipient: str, status: str, now: float) -> None:
        if status == "deferred":
            self.deferred.append(Outcome(now, queue_id, recipient))
        elif status in _FINAL:
            self._finished.setdefault(queue_id, set()).add(recipient)
            if status != "sent":
                self.bounced.add((queue_id, recipient))

    def _postsuper(self, queue_id: str, said: str, now: float) -> None:
        if said == "placed on hold":
            self._hold(queue_id, now)
        elif said == "released from hold":
            self.released.append(Moved(now, queue_id))
            self.on_hold.discard(queue_id)
        elif said in {"requeued", "removed"}:
            self.requeued += said == "requeued"
            self.on_hold.discard(queue_id)

    def _hold(self, queue_id: str, now: float) -> None:
        self.held.append(Moved(now, queue_id))
        self.on_hold.add(queue_id)

    def _removed(self, queue_id: str) -> None:
        self.on_hold.discard(queue_id)
        if len(self._finished.pop(queue_id, ())) < self.active.get(queue_id, 1):
            self.removed_silently.append(queue_id)


def merged(logs: Iterable[MailLog]) -> MailLog:
    """One log out of those of several hosts, in the order of time: long queue ids differ between them."""
    whole = MailLog()
    for log in logs:
        whole.message_ids |= log.message_ids
        whole.bounced |= log.bounced
        whole.answered |= log.answered
        whole.on_hold |= log.on_hold
        whole.active |= log.active
        whole.deferred += log.deferred
        whole.held += log.held
        whole.released += log.released
        whole.removed_silently += log.removed_silently
        whole.requeued += log.requeued
    for timed in (whole.deferred, whole.held, whole.released):
        timed.sort()
    return whole


class Follower:
    """Reads a log file as it grows, also across a rotation by rename."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = MailLog()
        self._descriptor: int | None = None
        self._rest = b""

    async def run(self) -> None:
        """Read until cancelled, looking every 5 ms: that is the precision of its times."""
        while True:
            self.catch_up()
            await asyncio.sleep(_POLL_S)

    def catch_up(self) -> None:
        """Read what is there now."""
        self._read()
        if self._rotated():
            self._read()
            self.close()
            self._read()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _read(self) -> None:
        if self._descriptor is None:
            if not self.path.exists():
                return
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        while data := os.read(self._descriptor, 1 << 16):
            now = time.time()
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self.log.line(line.decode(errors="replace"), now)

    def _rotated(self) -> bool:
        if self._descriptor is None or not self.path.exists():
            return False
        return os.fstat(self._descriptor).st_ino != self.path.stat().st_ino
