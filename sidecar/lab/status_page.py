"""The status page of the lab's sidecar, seen from the host: a socket made outside, served inside the namespaces.

A socket stays in the network in which it was made; so the lab opens one before it leaves the host's.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

PORT = 8025
_CHUNK = 1 << 16


def listen() -> socket.socket | None:
    """A socket on the host's loopback; None where somebody has the port already."""
    try:
        return socket.create_server(("127.0.0.1", PORT))
    except OSError:
        return None


@contextlib.asynccontextmanager
async def forwarded(descriptor: int | None) -> AsyncIterator[None]:
    """Pass connections of that socket on to the page inside, as long as the context lasts."""
    if descriptor is None:
        yield
        return
    server = await asyncio.start_server(_visitor, sock=socket.socket(fileno=descriptor))
    try:
        yield
    finally:
        server.close()


async def _visitor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(OSError):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", PORT)
        with contextlib.closing(inner_writer):
            await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
