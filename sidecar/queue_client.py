"""Core's side of the queue helper: the commands as coroutines, over one connection that mends itself.

Every command may be said twice without harm, so one that was cut off is said again once.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sidecar.hold_queue import HoldResult, ReleaseResult
from sidecar.postfix import QueuedMessage

_IDS_MAX = 1000  # of the helper, in one command
_ANSWER_MAX = 256 << 20  # bytes; a listing of 1,000,000 held messages has a fifth of it

_BROKEN = (OSError, EOFError, ValueError, asyncio.LimitOverrunError)  # gone, cut off, or no line of JSON

_SSH_ENDS_WITHIN = 2.0  # seconds, after its standard input has ended
_WORDS_MAX = 2_000  # bytes of what ssh had to say
TIMEOUT = 120.0
"""Seconds for one command: the helper does one at a time, and a reload waits up to half a minute."""


class HelperUnavailable(Exception):  # noqa: N818  # named for the situation: hands are missing, mail flows on
    """The queue helper cannot be reached, or did not answer: nothing is known of what it did."""


class HelperRefused(HelperUnavailable):
    """It answered that it will not or could not; the message is its own."""


class HeldFiles(NamedTuple):
    """The hold queue of one instance."""

    there: dict[str, float]
    """Every id on hold, whoever put it there, with its file's modification time."""
    ours: dict[str, str]
    """Those of them that the helper's record knows, with their key."""
    since: dict[str, float]
    """When the record was told of these."""


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Way(Protocol):
    """How the helper is reached. `str` names it for people."""

    async def open(self) -> Streams:
        """Connect anew. Raises OSError."""

    async def close(self) -> str:
        """End the connection; what the way itself had to say of it, "" for nothing."""


class OnThisHost:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: asyncio.StreamWriter | None = None

    def __str__(self) -> str:
        return str(self._path)

    async def open(self) -> Streams:
        reader, self._writer = await asyncio.open_unix_connection(str(self._path), limit=_ANSWER_MAX)
        return reader, self._writer

    async def close(self) -> str:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        return ""


class OverSsh:
    """The gate of another host (`sidecar queue-gate`), which passes on what is said to the helper there."""

    def __init__(self, command: Sequence[str], name: str) -> None:
        self._command = command
        self._name = name
        self._process: asyncio.subprocess.Process | None = None

    def __str__(self) -> str:
        return f"ssh {self._name}"

    async def open(self) -> Streams:
        pipe = asyncio.subprocess.PIPE
        process = self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, stderr=pipe, limit=_ANSWER_MAX, start_new_session=True
        )
        assert process.stdout is not None
        assert process.stdin is not None
        return process.stdout, process.stdin

    async def close(self) -> str:
        process, self._process = self._process, None
        if process is None:
            return ""
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.close()
        said = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SSH_ENDS_WITHIN):
                said = await process.stderr.read(_WORDS_MAX)
                await process.wait()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return " ".join(said.decode(errors="replace").split())


class QueueClient:
    """The queue helper's commands. One is under way at a time; others wait for it.

    Every method raises HelperUnavailable.
    """

    def __init__(self, place: Path | Way, *, timeout: float = TIMEOUT) -> None:
        """`place`: the helper's socket on this host, or the way to another's."""
        self._way: Way = OnThisHost(place) if isinstance(place, Path) else place
        self._timeout = timeout
        self._turn = asyncio.Lock()
        self._streams: Streams | None = None

    async def hold(self, instance: str, ids: Sequence[str], *, key: str | Mapping[str, str]) -> HoldResult:
        """Put messages on hold; `key` is one for all, or the key by id.

        What is not found, half-received or an admin's hold is `missing`.
        """
        answers = [
            await self._ask({"command": "hold", "instance": instance, "ids": part, "key": _keys_of(part, key)})
            for part in _parts(ids)
        ]
        return HoldResult(_joined(answers, "held"), _joined(answers, "missing"))

    async def release(self, instance: str, ids: Sequence[str], *, key: str, spread: float = 0.0) -> ReleaseResult:
        """Release held messages, due evenly over the next `spread` seconds, then have the queue scanned.

        They must be out of the queue manager's memory. The scan finds those due; others wait for a later one.
        """
        answers = []
        for start, part in zip(range(0, len(ids), _IDS_MAX), _parts(ids), strict=True):
            of_all = spread / len(ids)
            times = {"spread": of_all * len(part), "delay": of_all * start}
            answers.append(
                await self._ask({"command": "release", "instance": instance, "ids": part, "key": key, **times})
            )
        return _released(answers)

    async def requeue(self, instance: str, ids: Sequence[str], *, key: str) -> ReleaseResult:
        """`postsuper -r` of held messages; refused where auto-BCC or a content filter would be repeated."""
        answers = [
            await self._ask({"command": "requeue", "instance": instance, "ids": part, "key": key})
            for part in _parts(ids)
        ]
        return _released(answers)

    async def adopt(self, instance: str, ids: Sequence[str], *, key: str | Mapping[str, str]) -> None:
        """Write messages into the record that Postfix holds by our own HOLD answer."""
        for part in _parts(ids):
            await self._ask({"command": "adopt", "instance": instance, "ids": part, "key": _keys_of(part, key)})

    async def forget(self, instance: str, ids: Sequence[str]) -> None:
        """Take messages out of the record: somebody else released or held them."""
        for part in _parts(ids):
            await self._ask({"command": "forget", "instance": instance, "ids": part})

    async def set_time(self, instance: str, ids: Sequence[str], *, due: float) -> ReleaseResult:
        """Make held messages due at `due`, seconds since the epoch; `released` names those changed, none is released."""
        answers = [
            await self._ask({"command": "set-time", "instance": instance, "ids": part, "time": due})
            for part in _parts(ids)
        ]
        return ReleaseResult(_joined(answers, "set"), _joined(answers, "missing"), _joined(answers, "busy"))

    async def kick(self, instance: str) -> float:
        """Have the deferred queue scanned; gives the seconds until then."""
        answer = await self._ask({"command": "kick", "instance": instance})
        return float(answer["kick_in"])

    async def reload(self, instance: str) -> bool:
        """Reload Postfix and wait for its old queue manager to be gone; False where Postfix is stopped."""
        answer = await self._ask({"command": "reload", "instance": instance})
        return bool(answer["renewed"])

    async def held(self, instance: str) -> HeldFiles:
        """List the hold queue; what is no longer on hold leaves the record."""
        answer = await self._ask({"command": "held", "instance": instance})
        return HeldFiles(answer["held"], answer["ours"], answer["since"])

    async def queue(self, instance: str) -> list[QueuedMessage]:
        """List the whole queue of an instance of another host, as `postfix.queued` does here."""
        answer = await self._ask({"command": "queue", "instance": instance})
        return [_queued(each) for each in answer["messages"]]

    async def objection(self, transport: str) -> str:
        """Ask another host why its mail cannot be requeued from a transport; "" where it can."""
        answer = await self._ask({"command": "may-requeue", "transport": transport})
        return str(answer["objection"])

    async def alive(self) -> None:
        """Have another host note that we live: without that for failsafe_after_minutes it lets everything go."""
        await self._ask({"command": "alive"})

    async def close(self) -> str:
        """End the connection; the next command opens another. What the way to the helper had to say of it."""
        self._streams = None
        return await self._way.close()

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        line = json.dumps(request).encode() + b"\n"
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await self._talk(line)
            except TimeoutError:
                await self.close()
                raise HelperUnavailable(f"{self._way}: no answer within {self._timeout:g} s") from None
            except asyncio.CancelledError:
                await self.close()  # or the next command would read this one's answer
                raise
        if not answer.get("ok"):
            raise HelperRefused(str(answer.get("error", "no reason given")))
        return answer

    async def _talk(self, line: bytes) -> dict[str, Any]:
        """Say it; on a connection that was kept and has ended meanwhile, say it again on a new one."""
        if self._streams is not None:
            try:
                return await self._exchange(*self._streams, line)
            except _BROKEN:
                await self.close()
        try:
            self._streams = await self._way.open()
            return await self._exchange(*self._streams, line)
        except _BROKEN as error:
            said = await self.close()
            why = said or (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
            raise HelperUnavailable(f"{self._way}: {why}; does sidecar-queue-helper run?") from error

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes
    ) -> dict[str, Any]:
        writer.write(line)
        await writer.drain()
        answer: dict[str, Any] = json.loads(await reader.readuntil(b"\n"))
        return answer


def _queued(said: Mapping[str, Any]) -> QueuedMessage:
    recipients = tuple((str(address), str(why)) for address, why in said["recipients"])
    return QueuedMessage(
        said["queue_name"], said["queue_id"], said["arrival_time"], said["message_size"], said["sender"], recipients
    )


def _parts(ids: Sequence[str]) -> list[list[str]]:
    return [list(ids[start : start + _IDS_MAX]) for start in range(0, len(ids), _IDS_MAX)]


def _keys_of(ids: Sequence[str], key: str | Mapping[str, str]) -> str | dict[str, str]:
    return key if isinstance(key, str) else {queue_id: key[queue_id] for queue_id in ids}


def _joined(answers: Sequence[dict[str, Any]], name: str) -> tuple[str, ...]:
    return tuple(one for answer in answers for one in answer[name])


def _released(answers: Sequence[dict[str, Any]]) -> ReleaseResult:
    return ReleaseResult(_joined(answers, "released"), _joined(answers, "missing"), _joined(answers, "busy"))
