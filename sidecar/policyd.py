"""The policy service: connections around PolicyConnection and Access.

Knows connections and all that may go wrong with them, and nothing about mail. Whatever goes wrong in
here smtpd is told DUNNO; a connection is closed by us only where its bytes make no sense.
"""

import asyncio
import logging
import socket
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import monotonic, time
from typing import NamedTuple

from parsers.policy_protocol import DUNNO, PolicyConnection, PolicyRequest, ProtocolError, encode
from policies.access import Access
from sidecar.config import ConfigError
from sidecar.policy_sockets import Inherited, Listener, Listening, connections_within_limits, listen

_LOG = logging.getLogger("sidecar.policyd")

MAX_CONNECTIONS = 2000
"""Each smtpd process keeps one a check; a hundred processes a service is Postfix's default."""
UNREAD_MAX = 65_536
"""Bytes of answers that a client may leave unread, beyond what its socket takes."""
REQUEST_SECONDS = 60.0
"""How long a request may take to arrive, from its first byte to its last. Silence between requests is
normal for hours, and closing first would cost smtpd a second."""

_READ_AT_ONCE = 65_536  # bytes; smtpd sends one request and waits
_ACCEPTED_AT_ONCE = 64  # then the connections that are open get their turn
_LOOK_AWAY = 1.0  # seconds without accept() when there are no descriptors left; the socket stays readable
_TELL_EVERY = 10.0  # seconds between two lines about the same trouble
_FLUSH_AFTER = 0.1  # seconds that lines of our log wait, to be written together
_LINES_MAX = 100  # of them: a line costs as much as an answer, and Postfix logs each HOLD with our text

LATENCY_BOUNDS = (25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 1.0)
"""Upper bounds of the histogram, in seconds from the read to the write; one more bucket is above them."""

_SHORTEST = LATENCY_BOUNDS[0]
_STATES = ("CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN")
_SAY_DUNNO = encode(DUNNO)


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
    """Connections that we closed: "protocol", "slow" (request), "unread" (answers), "full" (too many)."""
    lines_dropped: int
    """Lines that our log was spared, for more than a thousand came in a second."""


async def serve(
    access: Access,
    listeners: Sequence[Listener],
    *,
    inherited: Sequence[Inherited] = (),
    owner: str = "postfix",
    max_connections: int = MAX_CONNECTIONS,
) -> "PolicyServer":
    """Begin to answer on each listener: over the inherited socket of that address, else over one of our own.

    `owner`: Postfix's mail_owner, whom a unix socket made by root is given to. Raises ConfigError.
    """
    server = PolicyServer(access, max_connections=connections_within_limits(max_connections))
    try:
        for listener in listeners:
            server.accept_on(listen(listener, inherited=inherited, owner=owner))
    except ConfigError:
        await server.close()
        raise
    return server


class PolicyServer:
    """Accepts, answers, counts. One event loop, and no waiting between a question and its answer."""

    def __init__(self, access: Access, *, max_connections: int = MAX_CONNECTIONS) -> None:
        self.access = access
        self._max_connections = max_connections
        self._listening: list[Listening] = []
        self._connections: set[_Connection] = set()
        self._partial: dict[_Connection, float] = {}
        """Connections with part of a request, and when it began (monotonic)."""
        self._timers: dict[object, asyncio.TimerHandle] = {}
        self._lines: list[tuple[str, bytes, str]] = []
        """(queue id, answer, why)."""
        self._told: dict[str, float] = {}
        self._requests = dict.fromkeys((*_STATES, "other"), 0)
        self._actions: Counter[str] = Counter()
        """Less the plain DUNNO, which are the rest of the requests."""
        self._fail_open: Counter[str] = Counter()
        self._latency = [0] * (len(LATENCY_BOUNDS) + 1)
        self._latency_sum = 0.0
        self._accepted = 0
        self._closed: Counter[str] = Counter()
        self._lines_dropped = 0

    def addresses(self) -> list[object]:
        """Where it listens: a path, or (address, port)."""
        return [listening.socket.getsockname() for listening in self._listening]

    def figures(self) -> Figures:
        actions = Counter(self._actions)
        observed = actions.pop("DUNNO", 0)
        actions["DUNNO"] = sum(self._requests.values()) - actions.total()
        return Figures(
            requests=dict(self._requests),
            actions=dict(actions),
            observed=observed,
            fail_open=dict(self._fail_open),
            latency=tuple(self._latency),
            latency_sum=self._latency_sum,
            connections=len(self._connections),
            accepted=self._accepted,
            closed=dict(self._closed),
            lines_dropped=self._lines_dropped,
        )

    def accept_on(self, listening: Listening) -> None:
        """Accept connections there, until `close`."""
        self._listening.append(listening)
        asyncio.get_running_loop().add_reader(listening.socket, self._accept, listening)

    async def close(self) -> None:
        """Stop. smtpd asks again over the listening socket where somebody keeps that; nothing is half answered."""
        for listening in self._listening:
            asyncio.get_running_loop().remove_reader(listening.socket)
            listening.close()
        self._listening.clear()
        for connection in list(self._connections):
            connection.close()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._write_lines()

    def answer(self, request: PolicyRequest, postfix_instance: str, *, now: float) -> bytes:
        """Decide; an error of ours is DUNNO, counted, and told once in a while."""
        try:
            self._requests[request.protocol_state] += 1
        except KeyError:
            self._requests["other"] += 1
        try:
            decision = self.access.decide(request, postfix_instance, now=now)
            if not decision.rule:
                return _SAY_DUNNO
            reply = encode(decision.action)
        except Exception as error:  # noqa: BLE001  # the one place where any error of ours becomes DUNNO
            self._fail_open[type(error).__name__] += 1
            self._tell("fail_open", "answered DUNNO for an error of ours", error=error)
            return _SAY_DUNNO
        self._acted(request.queue_id, reply, decision.why)
        return reply

    def took(self, seconds: float, requests: int) -> None:
        """`requests` were answered `seconds` after they were read."""
        self._latency[0 if seconds <= _SHORTEST else bisect_left(LATENCY_BOUNDS, seconds)] += requests
        self._latency_sum += seconds * requests

    def waits(self, connection: "_Connection", *, anew: bool) -> None:
        """Note since when a connection has part of a request; `anew`: of another one than before."""
        if anew or connection not in self._partial:
            self._partial[connection] = monotonic()
        self._after(REQUEST_SECONDS / 4, "partial", self._drop_slow)

    def waits_no_more(self, connection: "_Connection") -> None:
        self._partial.pop(connection, None)

    def lost(self, connection: "_Connection") -> None:
        self._connections.discard(connection)
        self._partial.pop(connection, None)

    def dropped(self, reason: str, why: str) -> None:
        """We close a connection."""
        self._closed[reason] += 1
        self._tell(reason, f"closed a connection: {why}")

    def _accept(self, listening: Listening) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, _ = listening.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # No descriptor left. Whoever is connected is served on, the rest wait in the backlog. (The servers
                # of asyncio in Python 3.11 try again as often as the backlog is long, and log each time.)
                asyncio.get_running_loop().remove_reader(listening.socket)
                self._after(_LOOK_AWAY, listening, lambda: self._accept_again(listening))
                self._tell("accept", f"cannot accept connections: {error.strerror}")
                return
            self._accepted += 1
            if len(self._connections) < self._max_connections:
                self._connections.add(_Connection(self, accepted, listening.postfix_instance))
            else:
                accepted.close()  # smtpd goes on with its default action in a second, not after its timeout
                self.dropped("full", f"{self._max_connections} are open")

    def _accept_again(self, listening: Listening) -> None:
        if listening in self._listening:
            asyncio.get_running_loop().add_reader(listening.socket, self._accept, listening)

    def _drop_slow(self) -> None:
        before = monotonic() - REQUEST_SECONDS
        for connection in [each for each, began in self._partial.items() if began <= before]:
            self.dropped("slow", f"a request was not complete after {REQUEST_SECONDS:.0f} s")
            connection.close()
        if self._partial:
            self._after(REQUEST_SECONDS / 4, "partial", self._drop_slow)

    def _acted(self, queue_id: str, reply: bytes, why: str) -> None:
        """Count, and note for our log what is more than plain DUNNO."""
        word = reply[len(b"action=") :].split(None, 1)[0].decode()
        self._actions[word] += 1
        if word == "FILTER" and not _LOG.isEnabledFor(logging.DEBUG):
            return  # Postfix logs it, with the transport; where all mail is routed a line each would be all we say
        if len(self._lines) >= _LINES_MAX:
            self._lines_dropped += 1
            return
        self._lines.append((queue_id, reply, why))
        self._after(_FLUSH_AFTER, "lines", self._write_lines)

    def _write_lines(self) -> None:
        """One line an answer, the queue id first as Postfix does."""
        lines, self._lines = self._lines, []
        for queue_id, reply, why in lines:
            action = reply[len(b"action=") : -2].decode()
            level = logging.DEBUG if action.startswith("FILTER ") else logging.INFO
            _LOG.log(level, "%s: %s: %s", queue_id, action, why)

    def _after(self, delay: float, key: object, call: Callable[[], None]) -> None:
        """Call once after `delay` seconds, unless that is already arranged."""
        if key in self._timers:
            return

        def due() -> None:
            del self._timers[key]
            call()

        self._timers[key] = asyncio.get_running_loop().call_later(delay, due)

    def _tell(self, kind: str, text: str, *, error: Exception | None = None) -> None:
        """Warn, but of each kind of trouble only once in a while; the counters have the rest."""
        now = monotonic()
        if now - self._told.get(kind, -_TELL_EVERY) >= _TELL_EVERY:
            self._told[kind] = now
            _LOG.warning("policy: %s%s", text, "" if error is None else f": {error!r}", exc_info=error)


class _Connection:
    """One smtpd's connection: bytes to requests, requests to answers, in order.

    It reads and writes its socket itself: a transport of asyncio in between costs a fifth of a request.
    """

    __slots__ = (
        "_ending",
        "_instance",
        "_loop",
        "_partial",
        "_postfix_instance",
        "_received",
        "_server",
        "_socket",
        "_unsent",
    )

    def __init__(self, server: PolicyServer, accepted: socket.socket, postfix_instance: str) -> None:
        self._server = server
        self._socket = accepted
        self._postfix_instance = postfix_instance
        self._received = PolicyConnection()
        self._partial = False
        self._instance = ""
        """Of the message that was asked about last."""
        self._unsent = bytearray()
        self._ending = False
        """Nothing more is read; closed as soon as the answers are sent."""
        self._loop = asyncio.get_running_loop()
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(accepted, self._readable)

    def close(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        # The message asked about last is not forgotten: where we broke the connection smtpd asks again on another.
        self._server.lost(self)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_READ_AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if data:
            self._received_data(data)
        else:
            self._end()

    def _received_data(self, data: bytes) -> None:
        now = time()
        server = self._server
        breach = ""
        try:
            requests = self._received.receive_data(data)
        except ProtocolError as error:
            requests, breach = error.requests, str(error)
        replies = b""
        for request in requests:
            if request.instance != self._instance:
                self._next_message(request.instance)
            replies += server.answer(request, self._postfix_instance, now=now)
        if replies:
            self._send(replies)
            server.took(max(time() - now, 0.0), len(requests))  # 0 where the clock was set back
        if breach:
            server.dropped("protocol", breach)
            self._end()
        elif self._received.partial:
            self._partial = True
            server.waits(self, anew=bool(requests))
        elif self._partial:
            self._partial = False
            server.waits_no_more(self)

    def _next_message(self, instance: str) -> None:
        """Another instance on one connection: the message before it is finished or aborted (the README says so)."""
        if instance:
            if self._instance:
                self._server.access.forget(self._postfix_instance, self._instance)
            self._instance = instance

    def _send(self, replies: bytes) -> None:
        if not self._unsent:
            try:
                sent = self._socket.send(replies)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self.close()
                return
            if sent == len(replies):
                return
            self._loop.add_writer(self._socket, self._writable)
            replies = replies[sent:]
        self._unsent += replies
        if len(self._unsent) > UNREAD_MAX:
            self._server.dropped("unread", f"more than {UNREAD_MAX} bytes of answers were not read")
            self.close()

    def _writable(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if not self._unsent:
            self._loop.remove_writer(self._socket)
            if self._ending:
                self.close()

    def _end(self) -> None:
        """Read no more; a client that only shut down its sending side still gets its answers."""
        if self._socket.fileno() < 0:
            return
        if not self._unsent:
            self.close()
            return
        self._ending = True
        self._loop.remove_reader(self._socket)
