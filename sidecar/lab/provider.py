"""A simulated mailbox provider: an SMTP server with hidden limits that speaks as the real one is documented to.

It writes down every message it accepted and every refusal, with the time just before the reply went out.
"""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from sidecar.lab.limits import Connections, Model, model
from sidecar.lab.replies import filled, reply_to
from sidecar.lab.scenario import By, Fault, FaultKind, Limit, Provider, Stage

_MAX_MESSAGE = 16 * 1024 * 1024


class Accepted(NamedTuple):
    """One recipient of one message, accepted with 250 at the end of DATA."""

    time: float
    provider: str
    message_id: str
    recipient: str


class Refused(NamedTuple):
    """One refusal of a limit; of a fault where `by` is None."""

    time: float
    provider: str
    by: By | None
    identity: str
    """Whom the limit counts: a domain, an address, a mailbox."""
    message_id: str
    """"" before the end of DATA."""
    stage: Stage
    code: str


class Attempt(NamedTuple):
    """One transaction, noted as MAIL FROM came in."""

    time: float
    provider: str
    envelope_domain: str


class Covered(NamedTuple):
    """Whom a fired limit counts, and where."""

    provider: str
    by: By
    identity: str


@dataclass(slots=True)
class Ledger:
    """What all providers saw, in the order of time."""

    accepted: list[Accepted] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    def fired(self) -> set[Covered]:
        """Every identity that a limit refused at least once."""
        return {Covered(it.provider, it.by, it.identity) for it in self.refused if it.by is not None}


class Message(NamedTuple):
    """What a provider learns of one message from its text."""

    message_id: str
    dkim_domain: str


_NOTHING_READ = Message("", "")


class _Refusal(NamedTuple):
    reply: bytes
    by: By | None
    identity: str


@dataclass(slots=True)
class _Session:
    """One connection and the transaction under way in it."""

    peer: str
    sender: str = ""
    recipients: list[str] = field(default_factory=list)
    message: Message = _NOTHING_READ
    connection_places: list[Connections] = field(default_factory=list)
    transaction_places: list[Connections] = field(default_factory=list)
    """Places taken under `connections` limits, to be given back."""

    def new_transaction(self, sender: str) -> None:
        self.end_transaction()
        self.sender, self.recipients, self.message = sender, [], _NOTHING_READ

    def end_transaction(self) -> None:
        while self.transaction_places:
            self.transaction_places.pop().done()

    def end(self) -> None:
        self.end_transaction()
        while self.connection_places:
            self.connection_places.pop().done()

    def take(self, place: Connections, stage: Stage) -> None:
        (self.connection_places if stage is Stage.CONNECT else self.transaction_places).append(place)

    @property
    def recipient(self) -> str:
        return self.recipients[-1] if self.recipients else ""


class SimulatedProvider:
    """The server; `faults` may be changed at any time."""

    def __init__(self, provider: Provider, ledger: Ledger, *, scale: float, random: Random) -> None:
        self.provider, self.ledger, self.scale, self.random = provider, ledger, scale, random
        self.faults: list[Fault] = []
        self.connections = 0
        self.waiting = 0
        """Transactions whose answer waits since `shut`."""
        self._answers_left: int | None = None
        self._opened = asyncio.Event()
        self._accounts: dict[tuple[int, str], Model] = {}

    @property
    def name(self) -> str:
        return self.provider.name

    @contextlib.asynccontextmanager
    async def serve(self, addresses: Sequence[tuple[str, str]], port: int = 25):  # type: ignore[no-untyped-def]  # noqa: ANN201  # contextlib says it
        """Listen on (host name, address) pairs as long as the context lasts."""
        dialogues: set[asyncio.Task[None]] = set()

        def opened(host: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
            def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.ensure_future(self._connection(host, reader, writer))
                dialogues.add(task)
                task.add_done_callback(dialogues.discard)

            return start

        servers = [
            await asyncio.start_server(opened(host), address, port, limit=_MAX_MESSAGE, backlog=1024)
            for host, address in addresses
        ]
        try:
            yield self
        finally:
            for server in servers:
                server.close()
            for dialogue in list(dialogues):
                dialogue.cancel()
            await asyncio.gather(*dialogues, return_exceptions=True)

    async def _connection(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = _Session(peer=writer.get_extra_info("peername")[0])
        try:
            await _Dialogue(self, host, session, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, _Hangup):
            pass
        finally:
            session.end()
            self.connections -= 1
            writer.close()

    def refusal(self, stage: Stage, session: _Session, now: float) -> _Refusal | None:
        """The first fault or limit that refuses at this stage."""
        for fault in self.faults:
            if fault.kind is FaultKind.REFUSE and fault.stage is stage:
                return self._refusal(fault.reply, None, "", session)
        for number, limit in enumerate(self.provider.limit):
            if limit.stage is not stage:
                continue
            identity = _IDENTITY[limit.by](session)
            account = self._account(number, limit, identity)
            if not account.offer(now):
                return self._refusal(reply_to(self.name, limit), limit.by, identity, session)
            if isinstance(account, Connections):
                session.take(account, stage)
        return None

    def delay(self, stage: Stage) -> float:
        """Seconds that the faults of now add before the reply at this stage."""
        return sum(fault.delay for fault in self.faults if _DELAYS.get(fault.kind) is stage)

    def drops(self, stage: Stage) -> bool:
        return any(fault.kind is FaultKind.DROP and fault.stage is stage for fault in self.faults)

    def shut(self, *, after: int = 0) -> None:
        """Give `after` more answers to the end of DATA, and let the rest wait until `open`."""
        self.waiting, self._answers_left = 0, after
        self._opened = asyncio.Event()

    def open(self) -> None:
        """Answer again, also those who wait; what they hear was settled when they came."""
        self._answers_left = None
        self._opened.set()

    async def turn(self) -> None:
        """Wait until an answer to the end of DATA may be given."""
        if self._answers_left is None:
            return
        if self._answers_left:
            self._answers_left -= 1
            return
        self.waiting += 1
        await self._opened.wait()

    def _account(self, number: int, limit: Limit, identity: str) -> Model:
        account = self._accounts.get((number, identity))
        if account is None:
            account = self._accounts[number, identity] = model(limit, self.scale, self.random)
        return account

    def _refusal(self, reply: str, by: By | None, identity: str, session: _Session) -> _Refusal:
        wire = filled(reply, identity=identity, ip=session.peer, recipient=session.recipient, sender=session.sender)
        return _Refusal(wire, by, identity)


_IDENTITY: dict[By, Callable[[_Session], str]] = {
    By.DKIM: lambda session: session.message.dkim_domain,
    By.SPF: lambda session: _domain(session.sender),
    By.ENVELOPE: lambda session: _domain(session.sender),
    By.IP: lambda session: session.peer,
    By.RECIPIENT: lambda session: session.recipient,
}

_DELAYS: dict[FaultKind, Stage] = {
    FaultKind.GREETING_DELAY: Stage.CONNECT,
    FaultKind.TARPIT: Stage.DATA,
    FaultKind.SLOW_DATA: Stage.END_OF_DATA,
}


class _Hangup(Exception):  # noqa: N818  # not an error: the way out of a dialogue
    """The server ends the connection."""


class _Dialogue:
    """The SMTP dialogue (RFC 5321) of one connection."""

    def __init__(
        self,
        server: SimulatedProvider,
        host: str,
        session: _Session,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.server, self.host, self.session, self.reader, self.writer = server, host, session, reader, writer

    async def run(self) -> None:
        if await self._passes(Stage.CONNECT):
            self._say(f"220 {self.host} ESMTP")
        while line := await self.reader.readline():
            verb, _, argument = line.decode(errors="surrogateescape").strip().partition(" ")
            if verb.upper() == "QUIT":
                self._say(f"221 2.0.0 {self.host} closing connection")
                await self.writer.drain()
                return
            await self._command(verb.upper(), argument)

    async def _command(self, verb: str, argument: str) -> None:
        match verb:
            case "EHLO":
                self._say(f"250-{self.host}\r\n250-PIPELINING\r\n250-SIZE {_MAX_MESSAGE}\r\n250 8BITMIME")
            case "HELO" | "NOOP":
                self._say("250 2.0.0 Ok")
            case "RSET":
                self.session.new_transaction("")
                self._say("250 2.0.0 Ok")
            case "MAIL":
                await self._mail(_path(argument))
            case "RCPT":
                await self._rcpt(_path(argument))
            case "DATA":
                await self._data()
            case _:
                self._say("502 5.5.1 Unrecognized command")

    async def _mail(self, sender: str) -> None:
        self.session.new_transaction(sender)
        self.server.ledger.attempts.append(Attempt(time.time(), self.server.name, _domain(sender)))
        if await self._passes(Stage.MAIL):
            self._say("250 2.1.0 OK")

    async def _rcpt(self, recipient: str) -> None:
        self.session.recipients.append(recipient)
        if await self._passes(Stage.RCPT):
            self._say("250 2.1.5 OK")
        else:
            self.session.recipients.pop()

    async def _data(self) -> None:
        if not self.session.recipients:
            self._say("503 5.5.1 no valid recipients")
            return
        if not await self._passes(Stage.DATA):
            return
        self._say("354 Go ahead")
        text = await self.reader.readuntil(b"\r\n.\r\n")
        self.session.message = read_message(text)
        if await self._passes(Stage.END_OF_DATA, takes=self.server.provider.transaction_s):
            self._accept()
        self.session.end_transaction()

    def _accept(self) -> None:
        if self.reader.at_eof():
            # The client left before the reply (a Postfix that was stopped). It will come again: this provider
            # throws the message away, as RFC 1047 would have it, and so the oracle counts no duplicate of ours.
            raise _Hangup
        now = time.time()
        for recipient in self.session.recipients:
            self.server.ledger.accepted.append(
                Accepted(now, self.server.name, self.session.message.message_id, recipient)
            )
        self._say("250 2.0.0 OK")

    async def _passes(self, stage: Stage, *, takes: float = 0.0) -> bool:
        """Let faults and limits speak, after `takes` seconds; False when they refused and the connection stays open.

        A limit is asked before the wait, so that transactions under way at the same time count.
        """
        refusal = self.server.refusal(stage, self.session, time.time())
        takes += self.server.delay(stage)
        if stage is Stage.END_OF_DATA:
            await self.server.turn()
        if takes:
            await asyncio.sleep(takes)
        if self.server.drops(stage):
            self.writer.transport.abort()
            raise _Hangup
        if refusal is None:
            return True
        code = refusal.reply[:3].decode()
        self.server.ledger.refused.append(
            Refused(
                time.time(),
                self.server.name,
                refusal.by,
                refusal.identity,
                self.session.message.message_id,
                stage,
                code,
            )
        )
        self.writer.write(refusal.reply)
        if code == "421" or stage is Stage.CONNECT:
            await self.writer.drain()
            raise _Hangup
        return False

    def _say(self, reply: str) -> None:
        self.writer.write(reply.encode() + b"\r\n")


_PATH = re.compile(r"<([^>]*)>")
_MESSAGE_ID = re.compile(rb"^message-id:\s*<([^>\r\n]+)>", re.IGNORECASE | re.MULTILINE)
_SIGNATURE = re.compile(rb"^dkim-signature:((?:[^\r\n]|\r\n[ \t])*)", re.IGNORECASE | re.MULTILINE)
_SIGNING_DOMAIN = re.compile(rb"(?:^|[;\s])d=([^;\s]+)")


def read_message(text: bytes) -> Message:
    """Message-ID (without its brackets) and d= of the first DKIM-Signature (RFC 6376); "" where there is none."""
    head = text.partition(b"\r\n\r\n")[0]
    message_id, signature = _MESSAGE_ID.search(head), _SIGNATURE.search(head)
    domain = _SIGNING_DOMAIN.search(signature[1]) if signature else None
    return Message(
        message_id[1].decode(errors="replace") if message_id else "",
        domain[1].decode(errors="replace").lower() if domain else "",
    )


def _path(argument: str) -> str:
    """The address between <> of MAIL FROM or RCPT TO."""
    found = _PATH.search(argument)
    return found[1] if found else ""


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
