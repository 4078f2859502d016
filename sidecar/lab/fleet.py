"""The sending fleet: steady senders and bursts, over SMTP into the private smtpd or through sendmail(1).

Each message is written down with the time its submission began; a refusal at injection is counted, and retried only
for a sender that does so.
"""

import asyncio
import contextlib
import itertools
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.lab.scenario import NULL_SENDER, Scenario, Sender, Via

_BURST_CONNECTIONS = 8
_PICKUP_PROCESSES = 4
_LINE = 72
_IDLE_S = 60.0
"""A connection idle for longer is not used again: smtpd ends it (smtpd_timeout, 300 s, 10 s under stress)."""


class Message(NamedTuple):
    """One message of the fleet, as submitted."""

    message_id: str
    sender: Sender
    recipients: tuple[str, ...]
    burst: bool
    submitted: float
    """Time at which MAIL FROM was sent (sendmail was started)."""


@dataclass(slots=True)
class Submissions:
    """What the fleet handed over, and what was refused."""

    accepted: list[Message] = field(default_factory=list)
    unsure: list[Message] = field(default_factory=list)
    """The connection broke after the end of DATA: Postfix may have them or not."""
    rejected: list[tuple[Message, str]] = field(default_factory=list)
    """With the reply, or what sendmail printed."""
    put_off: int = 0
    """Times that a sender with `retry_s` was told to come back."""


class _Refused(Exception):  # noqa: N818  # a reply, not an error
    """smtpd answered 4xx or 5xx."""


class _Unsure(Exception):  # noqa: N818  # as above
    """The connection broke when the message may have been queued."""


class Fleet:
    """All senders of a scenario; `run` until cancelled."""

    def __init__(self, scenario: Scenario, postfix: PrivatePostfix) -> None:
        self.scenario, self.postfix = scenario, postfix
        self.submissions = Submissions()
        self._serial = itertools.count(1)
        self._domains = {provider.name: itertools.cycle(provider.domains) for provider in scenario.provider}
        self._targets: dict[str, Iterator[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Shared: smtpd's process limit is a hundred, and there may be more senders.
        self._lines = self._new_lines()

    async def run(self) -> None:
        """Send until cancelled; a burst begins at its time after this call."""
        async with asyncio.TaskGroup() as group:
            for sender in self.scenario.senders():
                if sender.rate > 0:
                    group.create_task(self._steady(sender))
                if sender.burst > 0:
                    group.create_task(self._burst(sender))

    async def _steady(self, sender: Sender) -> None:
        """Open loop: a message that smtpd takes late does not delay the next one."""
        random = Random(f"{self.scenario.seed} {sender.domain}")
        due = time.monotonic() + random.random() / sender.rate
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.ensure_future(self._send(self.compose(sender, random), self._lines))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            due += random.uniform(0.5, 1.5) / sender.rate

    async def _burst(self, sender: Sender) -> None:
        await asyncio.sleep(sender.at)
        await self.burst(sender)

    async def burst(self, sender: Sender) -> None:
        """Send `sender.burst` messages as fast as they are taken."""
        random = Random(f"{self.scenario.seed} burst {sender.domain}")
        messages = (self.compose(sender, random, burst=True) for _ in range(sender.burst))
        workers = _BURST_CONNECTIONS if sender.via is Via.SMTP else _PICKUP_PROCESSES
        lines = self._new_lines()
        try:
            await asyncio.gather(*(self._work(messages, lines) for _ in range(min(workers, sender.burst))))
        finally:
            lines.close()

    def _new_lines(self) -> "_Lines":
        return _Lines(self.postfix.port, self.postfix.address)

    async def _work(self, messages: Iterator[Message], lines: "_Lines") -> None:
        for message in messages:
            await self._send(message, lines)

    def compose(self, sender: Sender, random: Random, *, burst: bool = False) -> Message:
        """The sender's next message, not yet submitted."""
        serial = next(self._serial)
        return Message(
            message_id=f"{serial}.{self.scenario.seed}@{sender.domain}",
            sender=sender,
            recipients=tuple(
                f"{prefix}{random.randrange(sender.mailboxes)}@{next(self._domains[name])}"
                for prefix, name in zip(_prefixes(sender), self._providers(sender), strict=True)
            ),
            burst=burst,
            submitted=0.0,
        )

    def _providers(self, sender: Sender) -> list[str]:
        """Provider of each recipient: all of `to` in one message of several, else the next of them."""
        turn = self._targets.setdefault(sender.domain, itertools.cycle(sender.to))
        return [next(turn) for _ in range(sender.recipients)]

    async def stop(self) -> None:
        """Wait for what is being handed over; what takes longer than five seconds is written down as unsure."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=5)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._lines.close()

    async def submit(self, message: Message) -> None:
        """Hand one message over, on a connection of its own; for drills."""
        lines = self._new_lines()
        try:
            await self._send(message, lines)
        finally:
            lines.close()

    async def _send(self, message: Message, lines: "_Lines") -> None:
        message = message._replace(submitted=time.time())
        try:
            if message.sender.via is Via.SMTP:
                await self._until_taken(message, lines)
            else:
                await self._sendmail(message)
        except _Refused as refused:
            self.submissions.rejected.append((message, str(refused)))
        except _Unsure:
            self.submissions.unsure.append(message)
        except asyncio.CancelledError:
            self.submissions.unsure.append(message)
            raise
        else:
            self.submissions.accepted.append(message)

    async def _until_taken(self, message: Message, lines: "_Lines") -> None:
        """Keep a message that is put off and come back with it, as a mail server does, where the sender is one."""
        while True:
            try:
                await lines.send(message)
            except _Refused as refused:
                if not message.sender.retry_s or not str(refused).startswith("4"):
                    raise
            else:
                return
            self.submissions.put_off += 1
            await asyncio.sleep(message.sender.retry_s)

    async def _sendmail(self, message: Message) -> None:
        program = shutil.which("sendmail") or "/usr/sbin/sendmail"
        sendmail = await asyncio.create_subprocess_exec(
            *(program, "-C", str(self.postfix.config_directory), "-i", "-f", envelope_sender(message)),
            *message.recipients,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await sendmail.communicate(text(message).replace(b"\r\n", b"\n"))
        if sendmail.returncode != 0:
            raise _Refused(printed.decode(errors="replace").strip())


def _prefixes(sender: Sender) -> list[str]:
    """Keeps the recipients of one message apart."""
    return ["user"] + [f"user{chr(ord('a') + i % 26)}{i // 26 or ''}." for i in range(1, sender.recipients)]


def envelope_sender(message: Message) -> str:
    if message.sender.spf == NULL_SENDER:
        return ""
    return f"bounce-{message.message_id.partition('.')[0]}@{message.sender.spf}"


def text(message: Message) -> bytes:
    """Headers and body, lines ended with CRLF. The signature names d= and proves nothing: nobody verifies it here."""
    sender = message.sender
    head = (
        f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={sender.dkim}; s=lab;\r\n"
        f"\th=from:to:subject:message-id; bh=bGFi; b=bGFi\r\n"
        f"From: News <news@{sender.domain}>\r\n"
        f"To: {', '.join(message.recipients)}\r\n"
        f"Subject: message {message.message_id.partition('.')[0]}\r\n"
        f"Message-ID: <{message.message_id}>\r\n"
        f"Date: {time.strftime('%a, %d %b %Y %H:%M:%S +0000', time.gmtime())}\r\n\r\n"
    )
    body = ("x" * _LINE + "\r\n") * (sender.size // (_LINE + 2) + 1)
    return (head + body).encode()


class _Lines:
    """Connections to smtpd that are used again, one message after the other."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.address, self.port = address, port
        self._idle: list[_Line] = []

    async def send(self, message: Message) -> None:
        async with self._line() as line:
            await line.send(message)

    @contextlib.asynccontextmanager
    async def _line(self) -> AsyncIterator["_Line"]:
        line = self._fresh() or await _connect(self.port, self.address)
        try:
            yield line
        finally:
            if line.between_messages:
                line.idle_since = time.monotonic()
                self._idle.append(line)
            else:
                line.close()

    def _fresh(self) -> "_Line | None":
        """The connection used last, None where smtpd may already have given it up."""
        if self._idle and time.monotonic() - self._idle[-1].idle_since > _IDLE_S:
            self.close()  # the others are older
        return self._idle.pop() if self._idle else None

    def close(self) -> None:
        for line in self._idle:
            line.close()
        self._idle.clear()


class _Line:
    """One SMTP connection as a client (RFC 5321, with PIPELINING of RFC 2920)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.between_messages = True
        self.idle_since = 0.0

    async def send(self, message: Message) -> None:
        """Raises _Refused with the reply, _Unsure when the connection broke at the end of DATA."""
        self.between_messages = False
        commands = [f"MAIL FROM:<{envelope_sender(message)}>", *(f"RCPT TO:<{to}>" for to in message.recipients)]
        try:
            replies = await self._exchange([*commands, "DATA"])
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise _Refused(f"connection lost before DATA: {error}") from error
        refused = [reply for reply in replies if reply[0] in "45"]
        if refused:
            raise _Refused(refused[0])
        try:
            self.writer.write(text(message) + b".\r\n")
            reply = await self.reply()
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise _Unsure(str(error)) from error
        self.between_messages = True
        if reply[0] != "2":
            raise _Refused(reply)

    async def _exchange(self, commands: Sequence[str]) -> list[str]:
        self.writer.write("".join(f"{command}\r\n" for command in commands).encode())
        return [await self.reply() for _ in commands]

    async def reply(self) -> str:
        """The next reply, its lines joined."""
        lines = []
        while True:
            line = (await self.reader.readuntil(b"\r\n")).decode().rstrip()
            lines.append(line)
            if line[3:4] != "-":
                return "\n".join(lines)

    def close(self) -> None:
        self.writer.close()


async def _connect(port: int, address: str = "127.0.0.1", patience: float = 10.0) -> _Line:
    """Connect and greet; a Postfix that is just being restarted is waited for.

    Raises _Refused when smtpd does not want to talk or nobody answers within `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            line = _Line(*await asyncio.open_connection(address, port))
            greeting = await line.reply()
            if greeting.startswith("220"):
                line.writer.write(b"EHLO fleet.sender-side.example\r\n")
                greeting = await line.reply()
        except (OSError, asyncio.IncompleteReadError) as error:
            if time.monotonic() > deadline:
                raise _Refused(f"no connection to smtpd: {error}") from error
            await asyncio.sleep(0.1)
            continue
        if not greeting.startswith("250"):
            raise _Refused(greeting)
        return line
