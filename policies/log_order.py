"""Facts in the order of their stamps: what a syslog daemon has shuffled by a second or two is put right again.

Each host by its own clock, as clocks differ; a fact is given when no line that is still to come can belong before it.
"""

import math
from collections import deque
from typing import Final

from parsers.postfix.facts import Fact

_WAITING: Final = 50_000
"""Facts that wait for overtaken ones; no host logs so many in the window."""
BACK: Final = 3600.0
"""Seconds; a host whose lines go back further than this had its clock set, or another file of it begins."""


class _Host:
    """One machine: its clock, and the facts that others may still overtake."""

    __slots__ = ("heard", "now", "waiting")

    def __init__(self) -> None:
        self.now = -math.inf
        self.heard = 0.0
        """When it last said something, by the clock of whoever was ahead."""
        self.waiting: deque[Fact] = deque()


class LogOrder:
    """The facts of one log."""

    def __init__(self, window: float) -> None:
        """`window`: seconds by which lines may be out of order."""
        self._window = window
        self._hosts: dict[str, _Host] = {}
        self._now = -math.inf
        self._listened = -math.inf

    def put(self, fact: Fact) -> list[Fact]:
        """Take one fact. Gives those that none can overtake any more, by time."""
        time = fact.record.time
        host = self._hosts.get(fact.record.host)
        if host is None:
            host = self._hosts[fact.record.host] = _Host()
        due: list[Fact] = []
        if time > self._now:
            self._now = time
            if time > self._listened + self._window and len(self._hosts) > 1:
                due = self._quiet()
        elif time < self._now - BACK:
            self._now = self._listened = time
        host.heard = self._now
        waiting = host.waiting
        if time >= host.now:
            host.now = time
            waiting.append(fact)
        elif time < host.now - BACK:
            due += waiting
            waiting.clear()
            host.now = time
            waiting.append(fact)
        else:
            _insert(waiting, fact)
        until = host.now - self._window
        while waiting and (waiting[0].record.time < until or len(waiting) > _WAITING):
            due.append(waiting.popleft())
        return due

    def rest(self) -> list[Fact]:
        """At the end of the log: what still waited."""
        due = [fact for host in self._hosts.values() for fact in host.waiting]
        self._hosts.clear()
        return due

    def forget(self, host: str) -> None:
        """Nothing was heard of it for long."""
        if host in self._hosts and not self._hosts[host].waiting:
            del self._hosts[host]

    def _quiet(self) -> list[Fact]:
        """What waited of hosts that have said nothing since: others wait for their words."""
        self._listened = self._now
        due: list[Fact] = []
        for host in self._hosts.values():
            if host.waiting and host.heard < self._now - 2 * self._window:
                due += host.waiting
                host.waiting.clear()
        return due


def _insert(waiting: deque[Fact], fact: Fact) -> None:
    """At its place by time, behind those of the same time."""
    place = len(waiting)
    while place and waiting[place - 1].record.time > fact.record.time:
        place -= 1
    waiting.insert(place, fact)
