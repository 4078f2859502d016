"""The lab's Redis: a real server in a network of its own that drills kill, stop and delay.

Hosts reach it directly, or through a proxy of the lab's, which delivers each piece later than it came.
"""

import asyncio
import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

from sidecar.lab.hosts.links import Network
from sidecar.lab.patience import longer

PORT, SLOW_PORT = 6379, 6380
_READY_S = 20.0


class StoreError(Exception):
    """Redis did not become ready: says what it printed."""


class SharedStore:
    """Nothing is written to disk: started again, it is empty."""

    def __init__(self, network: Network, directory: Path) -> None:
        self.network = network
        self.delay = 0.0
        """Seconds by which the proxy is late, each way."""
        self._socket = directory / "redis.sock"
        self._log = directory / "redis.log"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Raises StoreError."""
        self._socket.unlink(missing_ok=True)
        settings = ("--port", str(PORT), "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "")  # noqa: S104
        places = ("--unixsocket", str(self._socket), "--logfile", str(self._log), "--dir", str(self._log.parent))
        self._server = subprocess.Popen([*self.network.within, "redis-server", *settings, *places])
        deadline = time.monotonic() + longer(_READY_S)
        while not self._answers():
            if self._server.poll() is not None or time.monotonic() > deadline:
                printed = self._log.read_text(errors="replace")[-500:] if self._log.exists() else "nothing"
                raise StoreError(f"redis-server is not ready; it printed: {printed}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(1.0)
            asking.connect(str(self._socket))
            asking.sendall(b"PING\r\n")
            return asking.recv(16).startswith(b"+PONG")
        return False

    def kill(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._server is not None:
            self._server.send_signal(number)

    @contextlib.asynccontextmanager
    async def proxied(self) -> AsyncIterator[None]:
        """Serve SLOW_PORT as long as the context lasts."""
        open_now: set[asyncio.Task[None]] = set()

        def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._relay(reader, writer))
            open_now.add(task)
            task.add_done_callback(open_now.discard)

        server = await asyncio.start_server(opened, sock=self.network.listen(SLOW_PORT))
        try:
            yield
        finally:
            server.close()
            for task in list(open_now):
                task.cancel()
            await asyncio.gather(*open_now, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_unix_connection(str(self._socket))
        except OSError:
            writer.close()
            return
        ways = [asyncio.ensure_future(way) for way in (self._late(reader, back), self._late(there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.close()
            back.close()

    async def _late(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes, in order, each piece `delay` after it came."""
        loop = asyncio.get_running_loop()
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def take() -> None:
            while data := await reader.read(1 << 16):
                due.put_nowait((loop.time() + self.delay, data))
            due.put_nowait((loop.time() + self.delay, b""))

        taking = asyncio.ensure_future(take())
        try:
            while True:
                at, data = await due.get()
                await asyncio.sleep(at - loop.time())
                if not data:
                    return
                writer.write(data)
        finally:
            taking.cancel()
