"""What the policy service counts, and what it says in our log: neither may cost what an answer costs."""

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Final, NamedTuple

from parsers.policy_protocol import Action, DeferIfPermit, Discard, Dunno, Filter, Hold, Info, Reject, RejectUnverified

_LOG: Final = logging.getLogger("sidecar.policyd")

LATENCY_BOUNDS: Final = (25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 1.0)
"""Upper bounds of the histogram, in seconds from the wake-up to the write; one more bucket is above them."""

OTHER: Final = "other"
_STATES: Final = ("CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN")
_WORDS: dict[type[Action], str] = {
    Dunno: "DUNNO",
    Hold: "HOLD",
    Filter: "FILTER",
    Reject: "REJECT",
    DeferIfPermit: "DEFER_IF_PERMIT",
    Discard: "DISCARD",
    Info: "INFO",
    RejectUnverified: "reject_unverified_recipient",
}
_TELL_EVERY: Final = 10.0  # seconds between two lines about the same trouble
_LINES_MAX = 25  # waiting to be written: a line costs more than an answer, and Postfix logs each HOLD with our text


class Figures(NamedTuple):
    """Counters since the start, and what is open now."""

    requests: Mapping[str, int]
    """By protocol_state; "other" for a word that the README does not know."""
    actions: Mapping[str, int]
    """By first word: DUNNO, HOLD, ..."""
    observed: int
    """Of the DUNNO, those where something would have been done: observing, or a milter may quarantine."""
    fail_open: Mapping[str, int]
    """DUNNO for an error of ours, by its type."""
    latency: Sequence[int]
    """Requests by LATENCY_BOUNDS, not cumulated; the last is above them all."""
    latency_sum: float
    """Seconds."""
    connections: int
    accepted: int
    """Connections since the start."""
    closed: Mapping[str, int]
    """Connections that we closed: "protocol", "slow" (request), "unread" (answers), "full" (too many),
    "error" (of ours)."""
    lines_dropped: int
    """Lines that our log was spared, for more than some hundred came in a second."""


class Tally:
    """Plain numbers, and lines that wait to be written."""

    def __init__(self) -> None:
        self.requests = dict.fromkeys((*_STATES, OTHER), 0)
        """By protocol_state; add under OTHER what is not there."""
        self.accepted = 0
        self._actions: Counter[type[Action]] = Counter()
        """Less the plain DUNNO, which are the rest of the requests."""
        self._fail_open: Counter[str] = Counter()
        self._latency = [0] * (len(LATENCY_BOUNDS) + 1)
        self._latency_sum = 0.0
        self._closed: Counter[str] = Counter()
        self._lines: list[tuple[str, bytes, str]] = []
        """(queue id, answer, why)."""
        self._lines_dropped = 0
        self._told: dict[str, float] = {}

    def figures(self, *, connections: int) -> Figures:
        actions = {_WORDS[kind]: count for kind, count in self._actions.items()}
        observed = actions.pop("DUNNO", 0)
        actions["DUNNO"] = sum(self.requests.values()) - sum(actions.values())
        return Figures(
            requests=dict(self.requests),
            actions=actions,
            observed=observed,
            fail_open=dict(self._fail_open),
            latency=tuple(self._latency),
            latency_sum=self._latency_sum,
            connections=connections,
            accepted=self.accepted,
            closed=dict(self._closed),
            lines_dropped=self._lines_dropped,
        )

    def took(self, seconds: float, requests: int) -> None:
        """`requests` were answered within `seconds` of our waking for them."""
        seconds = max(seconds, 0.0)  # the clock may have been set back
        self._latency[bisect_left(LATENCY_BOUNDS, seconds)] += requests
        self._latency_sum += seconds * requests

    def acted(self, queue_id: str, action: Action, reply: bytes, why: str) -> None:
        """Count an answer that is more than plain DUNNO, and note it for `write_lines`.

        Not a FILTER: Postfix logs it, with the transport, and where all mail is routed it would be all we say.
        """
        kind = type(action)
        self._actions[kind] += 1
        if kind is Filter:
            return
        if len(self._lines) < _LINES_MAX:
            self._lines.append((queue_id, reply, why))
        else:
            self._lines_dropped += 1

    def write_lines(self) -> None:
        """One line an answer, the queue id first as Postfix does."""
        lines, self._lines = self._lines, []
        for queue_id, reply, why in lines:
            _LOG.info("%s: %s: %s", queue_id, reply[len(b"action=") : -2].decode(), why)

    def failed_open(self, error: Exception) -> None:
        """DUNNO was answered for an error of ours."""
        self._fail_open[type(error).__name__] += 1
        self.tell("fail_open", "answered DUNNO for an error of ours", error=error)

    def closed(self, reason: str, why: str, *, error: Exception | None = None) -> None:
        """We closed a connection."""
        self._closed[reason] += 1
        self.tell(reason, f"closed a connection: {why}", error=error)

    def tell(self, kind: str, text: str, *, error: Exception | None = None) -> None:
        """Warn, but of each kind of trouble only once in a while; the counters have the rest."""
        now = monotonic()
        if now - self._told.get(kind, -_TELL_EVERY) >= _TELL_EVERY:
            self._told[kind] = now
            _LOG.warning("policy: %s%s", text, "" if error is None else f": {error!r}", exc_info=error)
