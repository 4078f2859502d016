"""A milter that puts some messages into quarantine, or refuses them, for the drills about what a milter does.

Speaks as much of the protocol as Postfix asks of it (milter version 6: packets of a length, a command, its data).
"""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable

# libmilter/mfdef.h: commands of the MTA, and answers.
_NEGOTIATE, _MAIL, _END_OF_BODY, _ABORT, _MACRO, _QUIT, _QUIT_NEW = b"O", b"M", b"E", b"A", b"D", b"Q", b"K"
_QUARANTINE, _REJECT, _CONTINUE = b"q", b"r", b"c"
_VERSION, _MAY_QUARANTINE = 6, 0x20
# Not to be sent: connect, helo, recipients, body, headers, end of headers, unknown commands, DATA.
_SKIPPED = 0x01 | 0x02 | 0x08 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200
_UNANSWERED = frozenset({_ABORT, _MACRO, _QUIT, _QUIT_NEW})


@contextlib.asynccontextmanager
async def milter(port: int, concerns: Callable[[str], bool], *, refuses: bool = False) -> AsyncIterator[list[str]]:
    """Serve on loopback as long as the context lasts; gives the list of the senders put into quarantine so far.

    `concerns` is asked with the envelope sender of each message, at its end. With `refuses` such a message is
    rejected and not quarantined.
    """
    taken: list[str] = []
    under_way: set[asyncio.Task[None]] = set()

    def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_session(reader, writer, concerns, taken, refuses=refuses))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    server = await asyncio.start_server(opened, "127.0.0.1", port, backlog=100)
    try:
        yield taken
    finally:
        server.close()
        for task in list(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _session(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    concerns: Callable[[str], bool],
    taken: list[str],
    *,
    refuses: bool,
) -> None:
    sender = ""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            (length,) = struct.unpack("!I", await reader.readexactly(4))
            packet = await reader.readexactly(length)
            command, data = packet[:1], packet[1:]
            if command == _NEGOTIATE:
                _say(writer, _NEGOTIATE, struct.pack("!III", _VERSION, _MAY_QUARANTINE, _SKIPPED))
                continue
            if command == _MAIL:
                sender = data.partition(b"\0")[0].decode().strip("<>")
            if command == _END_OF_BODY and concerns(sender):
                taken.append(sender)
                if refuses:
                    _say(writer, _REJECT)
                    continue
                _say(writer, _QUARANTINE, b"the drill wants to see it\0")
            if command not in _UNANSWERED:
                _say(writer, _CONTINUE)
    writer.close()


def _say(writer: asyncio.StreamWriter, answer: bytes, data: bytes = b"") -> None:
    writer.write(struct.pack("!I", 1 + len(data)) + answer + data)
