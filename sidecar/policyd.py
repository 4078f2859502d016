"""The policy service: connections around PolicyConnection and Access.

Knows connections and all that may go wrong with them, and nothing about mail. Whatever goes wrong in
here smtpd is told DUNNO; a connection is closed by us only where its bytes make no sense.
"""

import asyncio
import select
import socket
from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import Final

from parsers.policy_protocol import DUNNO, PolicyConnection, PolicyRequest, ProtocolError, encode
from policies.access import Access
from sidecar.config import ConfigError
from sidecar.policy_sockets import Listener, Listening, connections_within_limits, listen
from sidecar.policy_tally import LATENCY_BOUNDS, OTHER, Figures, Tally
from sidecar.systemd import Inherited

__all__ = ["LATENCY_BOUNDS", "Figures", "PolicyServer", "serve"]

MAX_CONNECTIONS: Final = 2000
"""Each smtpd process keeps one a check; a hundred processes a service is Postfix's default."""
UNREAD_MAX: Final = 65_536
"""Bytes of answers that a client may leave unread, beyond what its socket takes."""
REQUEST_SECONDS = 60.0
"""How long a request may take to arrive, from its first byte to its last. Silence between requests is
normal for hours, and closing first would cost smtpd a second."""

_READ_AT_ONCE: Final = 65_536  # bytes; smtpd sends one request and waits
_ACCEPTED_AT_ONCE: Final = 64  # then the connections that are open get their turn
_READY_AT_ONCE: Final = 128  # answered together; then the rest of the process gets its turn
_LOOK_AWAY = 1.0  # seconds without accept() when there are no descriptors left; the socket stays readable
_FLUSH_AFTER: Final = 0.1  # seconds that lines of our log wait, to be written together

_READABLE: Final = select.EPOLLIN  # and nothing else
_SAY_DUNNO: Final = encode(DUNNO)


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
    """Accepts, answers, counts. One event loop, and no waiting between a question and its answer.

    The connections are in an epoll of their own, which the event loop sees as one file: to asyncio each ready
    connection is a callback with a context, and that alone costs a third of a request.
    """

    def __init__(self, access: Access, *, max_connections: int = MAX_CONNECTIONS) -> None:
        self.access = access
        self._max_connections = max_connections
        self._listening: list[Listening] = []
        self._epoll = select.epoll()
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._serve_ready)
        self._connections: dict[int, _Connection] = {}
        """By file descriptor."""
        self._partial: dict[_Connection, float] = {}
        """Connections with part of a request, and when it began (monotonic)."""
        self._timers: dict[object, asyncio.TimerHandle] = {}
        self._tally = Tally()
        self._requests = self._tally.requests

    def addresses(self) -> list[object]:
        """Where it listens: a path, or (address, port)."""
        return [listening.socket.getsockname() for listening in self._listening]

    def figures(self) -> Figures:
        return self._tally.figures(connections=len(self._connections))

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
        for connection in list(self._connections.values()):
            connection.close()
        if not self._epoll.closed:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._tally.write_lines()

    def answer(self, request: PolicyRequest, postfix_instance: str, now: float) -> bytes:
        """Decide; an error of ours is DUNNO, counted, and told once in a while."""
        requests = self._requests
        try:
            requests[request.protocol_state] += 1
        except KeyError:
            requests[OTHER] += 1
        try:
            decision = self.access.decide(request, postfix_instance, now=now)
            if not decision.rule:
                return _SAY_DUNNO
            reply = encode(decision.action)
        except Exception as error:  # noqa: BLE001  # the one place where any error of ours becomes DUNNO
            self._tally.failed_open(error)
            return _SAY_DUNNO
        self._tally.acted(request.queue_id, decision.action, reply, decision.why)
        self._after(_FLUSH_AFTER, "lines", self._tally.write_lines)
        return reply

    def waits(self, connection: "_Connection", *, anew: bool) -> None:
        """Note since when a connection has part of a request; `anew`: of another one than before."""
        if anew or connection not in self._partial:
            self._partial[connection] = monotonic()
        self._after(REQUEST_SECONDS / 4, "partial", self._drop_slow)

    def waits_no_more(self, connection: "_Connection") -> None:
        self._partial.pop(connection, None)

    def take(self, accepted: socket.socket, postfix_instance: str) -> None:
        """Serve this connection."""
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections[accepted.fileno()] = _Connection(self, self._tally, accepted, postfix_instance)
        self._epoll.register(accepted, select.EPOLLIN)

    def await_events(self, number: int, events: int) -> None:
        """Call the connection with this descriptor for other events than before."""
        self._epoll.modify(number, events)

    def lost(self, connection: "_Connection", number: int) -> None:
        """A connection closes its socket, of this descriptor."""
        self._epoll.unregister(number)
        del self._connections[number]
        self._partial.pop(connection, None)

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
                self._tally.tell("accept", f"cannot accept connections: {error.strerror}")
                return
            self._tally.accepted += 1
            if len(self._connections) < self._max_connections:
                self.take(accepted, listening.postfix_instance)
            else:
                accepted.close()  # smtpd goes on with its default action in a second, not after its timeout
                self._tally.closed("full", f"{self._max_connections} are open")

    def _serve_ready(self) -> None:
        """Serve all that are ready, in turn; each counts with the latency of the last, for it may be that one.

        First all are read, then all are answered, then all answers are sent: a client that sleeps is woken once for
        many, and being woken is the dearest part of a request, for both sides; and the kernel and we each find in the
        processor's caches what we left there (4 % of the time).
        """
        ready = [(self._connections[number], events) for number, events in self._epoll.poll(0, _READY_AT_ONCE)]
        now = time()
        answered = 0
        asked = []
        for connection, events in ready:
            try:
                data = connection.receive(events)
            except Exception as error:  # noqa: BLE001  # one connection's trouble is none of the others'
                self._broke(connection, error)
            else:
                if data:
                    asked.append((connection, data))
        for connection, data in asked:
            try:
                answered += connection.received(data, now)
            except Exception as error:  # noqa: BLE001  # as above
                self._broke(connection, error)
        for connection, _ in asked:
            try:
                connection.send_answers()
            except Exception as error:  # noqa: BLE001  # nor may it keep their answers back
                self._broke(connection, error)
        if answered:
            self._tally.took(time() - now, answered)

    def _broke(self, connection: "_Connection", error: Exception) -> None:
        self._tally.closed("error", "an error of ours", error=error)
        connection.close()

    def _accept_again(self, listening: Listening) -> None:
        if listening in self._listening:
            asyncio.get_running_loop().add_reader(listening.socket, self._accept, listening)

    def _drop_slow(self) -> None:
        before = monotonic() - REQUEST_SECONDS
        for connection in [each for each, began in self._partial.items() if began <= before]:
            self._tally.closed("slow", f"a request was not complete after {REQUEST_SECONDS:.0f} s")
            connection.close()
        if self._partial:
            self._after(REQUEST_SECONDS / 4, "partial", self._drop_slow)

    def _after(self, delay: float, key: object, call: Callable[[], None]) -> None:
        """Call once after `delay` seconds, unless that is already arranged."""
        if key in self._timers:
            return

        def due() -> None:
            del self._timers[key]
            call()

        self._timers[key] = asyncio.get_running_loop().call_later(delay, due)


class _Connection:
    """One smtpd's connection: bytes to requests, requests to answers, in order."""

    __slots__ = (
        "_answers",
        "_instance",
        "_partial",
        "_postfix_instance",
        "_received",
        "_server",
        "_socket",
        "_tally",
        "_unsent",
    )

    def __init__(self, server: PolicyServer, tally: Tally, accepted: socket.socket, postfix_instance: str) -> None:
        self._server = server
        self._tally = tally
        self._socket = accepted
        self._postfix_instance = postfix_instance
        self._received = PolicyConnection()
        self._partial = False
        self._instance = ""
        """Of the message that was asked about last."""
        self._answers = b""
        """To be sent with those of the others that are ready now."""
        self._unsent = bytearray()

    def receive(self, events: int) -> bytes:
        """Write what can be and give what has come, if anything."""
        if events != _READABLE:
            if events & select.EPOLLOUT:
                self._send_rest()
            if not events & ~select.EPOLLOUT:
                return b""
        try:
            data = self._socket.recv(_READ_AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:
            self.close()
            return b""
        if not data:
            self._ended()
        return data

    def received(self, data: bytes, now: float) -> int:
        """Answer these bytes; gives the number of requests in them."""
        request = self._received.receive_usual(data)
        if request is None:
            return self._received_other(data, now)
        instance = request.instance
        if instance != self._instance:
            self._next_message(instance)
        self._answers = self._server.answer(request, self._postfix_instance, now)
        return 1

    def _ended(self) -> None:
        """The other side says no more."""
        if self._unsent:
            # It has only shut down its sending side. Read no more until it has its answers, and then this end again.
            self._server.await_events(self._socket.fileno(), select.EPOLLOUT)
        else:
            self.close()

    def close(self) -> None:
        number = self._socket.fileno()
        if number < 0:
            return
        # The message asked about last is not forgotten: where we broke the connection smtpd asks again on another.
        self._server.lost(self, number)
        self._socket.close()

    def _answered(self, request: PolicyRequest, now: float) -> bytes:
        if request.instance != self._instance:
            self._next_message(request.instance)
        return self._server.answer(request, self._postfix_instance, now)

    def _received_other(self, data: bytes, now: float) -> int:
        """Bytes that are not just one request like the one before."""
        breach = ""
        try:
            requests = self._received.receive_other(data)
        except ProtocolError as error:
            requests, breach = error.requests, str(error)
        self._answers = b"".join([self._answered(request, now) for request in requests])
        if breach:
            self.send_answers()
            self._tally.closed("protocol", breach)
            self.close()
        elif self._received.partial or self._partial:
            self._wait(anew=bool(requests))
        return len(requests)

    def _wait(self, *, anew: bool) -> None:
        """Have the server watch how long part of a request, if there is one, waits for its rest."""
        self._partial = self._received.partial and self._socket.fileno() >= 0
        if self._partial:
            self._server.waits(self, anew=anew)
        else:
            self._server.waits_no_more(self)

    def _next_message(self, instance: str) -> None:
        """Another instance on one connection: the message before it is finished or aborted (the README says so)."""
        if instance:
            if self._instance:
                self._server.access.forget(self._postfix_instance, self._instance)
            self._instance = instance

    def send_answers(self) -> None:
        """Send what `ready` came to, as far as the socket takes it."""
        replies, self._answers = self._answers, b""
        if not replies:
            return
        if self._unsent:
            self._unsent += replies
        else:
            try:
                sent = self._socket.send(replies)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self.close()
                return
            if sent == len(replies):
                return
            self._unsent += replies[sent:]
            self._server.await_events(self._socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        if len(self._unsent) > UNREAD_MAX:
            self._tally.closed("unread", f"more than {UNREAD_MAX} bytes of answers were not read")
            self.close()

    def _send_rest(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if not self._unsent:
            self._server.await_events(self._socket.fileno(), select.EPOLLIN)
