"""The sending fleet, as a client: what it does with a connection that smtpd may have given up."""

import asyncio

import pytest

from sidecar.lab import fleet, scenario
from sidecar.lab.fleet import Message, _Lines


class _Smtpd:
    """Takes everything; counts connections."""

    def __init__(self) -> None:
        self.connections = 0
        self.open: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.open.add(task)
        writer.write(b"220 mta1\r\n")
        data = False
        while line := await reader.readline():
            if data and line != b".\r\n":
                continue
            replies = {b"DATA\r\n": b"354 go on\r\n"}
            data = line == b"DATA\r\n"
            writer.write(replies.get(line, b"250 2.0.0 Ok\r\n"))
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(("idle_s", "connections"), [(60.0, 1), (0.0, 2)])
def test_only_a_connection_used_lately_is_used_again(
    idle_s: float, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "_IDLE_S", idle_s)
    assert asyncio.run(_two_messages()) == connections


async def _two_messages() -> int:
    smtpd = _Smtpd()
    server = await asyncio.start_server(smtpd.serve, "127.0.0.1", 0)
    async with server:
        lines = _Lines(server.sockets[0].getsockname()[1])
        sender = scenario.load(scenario.find("story")).sender[0]
        for serial in (1, 2):
            one = Message(f"{serial}@test", sender, ("user@gmail.com",), burst=False, submitted=0.0)
            await lines.send(one)
        lines.close()
        await asyncio.gather(*smtpd.open)
    return smtpd.connections
