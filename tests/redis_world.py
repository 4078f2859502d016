"""A private redis-server for tests, engines that share it, and a way to it that delays."""

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

from policies.engine import Engine
from policies.fleet.host import Host
from policies.key import Key
from policies.site import Settings
from sidecar import rules
from sidecar.fleet.exchange import Exchange
from sidecar.fleet.redis_store import RedisStore
from sidecar.lab.ports import free_ports
from tests.world import RULES

RULE = "google/rate-dkim-domain"
LINE = "421 4.7.28 rate limited"
PATIENCE = 120.0
"""Seconds after which what was waited for is taken as never coming."""
KEY = Key("dkim-domain", "example.com", "google")


DOCUMENTATION = Path(__file__).parents[1] / "docs/fleet.md"


def rights(password: str) -> list[str]:
    """Give the rights that the documentation says our account needs, as Redis takes them."""
    (line,) = (each for each in DOCUMENTATION.read_text().splitlines() if each.startswith("ACL SETUSER sidecar "))
    return line.removeprefix("ACL SETUSER sidecar ").replace("PASSWORD", password).split()


class Server:
    """On a socket of its own, without a file of what it knows."""

    def __init__(self, folder: Path, *options: str, begins: str = "") -> None:
        """`options` go before ours; `begins`: a file with settings."""
        self.socket = folder / "redis.sock"
        self._options = options
        self._file = [begins] if begins else []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    async def start(self) -> None:
        settings = {"port": "0", "unixsocket": str(self.socket), "save": "", "appendonly": "no"}
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(  # noqa: ASYNC220  # returns at once
            ["redis-server", *self._file, *words, "--dir", str(self.socket.parent), *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await until(lambda: _answers(self.socket))

    async def says(self, command: bytes) -> str:
        """Give what it answers, of some kilobytes at most."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        writer.write(command + b"\r\nQUIT\r\n")
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
        return said.decode()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()


async def _answers(socket: Path) -> bool:
    """Whether it says anything, if only that it wants a password."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    writer.write(b"PING\r\n")
    said = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return said != b"" and b"LOADING" not in said


async def until(condition: Callable[[], bool | Awaitable[bool]], *, within: float = PATIENCE) -> float:
    """Wait for it; the seconds that it took. No test is about who is quick: benchmarks are."""
    began = time.monotonic()
    async with asyncio.timeout(within):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return time.monotonic() - began
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running_server(folder: Path, *options: str) -> AsyncIterator[Server]:
    server = Server(folder, *options)
    try:
        await server.start()
        yield server
    finally:
        server.kill()


@contextlib.asynccontextmanager
async def cluster_of_one(folder: Path) -> AsyncIterator[Server]:
    """Run a Cluster whose one node has all slots: it refuses what names keys of two, as any Cluster does."""
    port, bus = free_ports(2)
    ports = ("--bind", "127.0.0.1", "--port", str(port), "--cluster-port", str(bus))
    async with running_server(folder, "--cluster-enabled", "yes", *ports) as server:
        await server.says(b"CLUSTER ADDSLOTSRANGE 0 16383")
        await until(lambda: _has_all_slots(server))
        yield server


async def _has_all_slots(server: Server) -> bool:
    return "cluster_state:ok" in await server.says(b"CLUSTER INFO")


@contextlib.asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[tuple[Server, int]]:
    """Run a primary, its replica, and a Sentinel that calls them `mail`; the primary and the Sentinel's port."""
    ports = free_ports(3)
    paths = [folder / name for name in ("primary", "replica", "sentinel")]
    for path in paths:
        path.mkdir()
    watcher = paths[2] / "sentinel.conf"
    watcher.write_text(
        f"sentinel monitor mail 127.0.0.1 {ports[0]} 1\nsentinel down-after-milliseconds mail 500\n"
        "sentinel failover-timeout mail 5000\n"
    )
    fast = ("--repl-diskless-sync-delay", "0", "--bind", "127.0.0.1")
    servers = [
        Server(paths[0], *fast, "--port", str(ports[0])),
        Server(paths[1], *fast, "--port", str(ports[1]), "--replicaof", "127.0.0.1", str(ports[0])),
        Server(paths[2], "--port", str(ports[2]), "--bind", "127.0.0.1", "--sentinel", begins=str(watcher)),
    ]
    try:
        for server in servers:
            await server.start()
        await until(lambda: _sees_a_replica(paths[2] / "redis.sock"))
        yield servers[0], ports[2]
    finally:
        for server in servers:
            server.kill()


async def _sees_a_replica(sentinel: Path) -> bool:
    reader, writer = await asyncio.open_unix_connection(str(sentinel))
    writer.write(b"SENTINEL REPLICAS mail\r\n")
    said = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return said.startswith(b"*") and int(said[1:]) > 0


def certificate(folder: Path) -> dict[str, Path]:
    """Make one that is its own authority, for localhost."""
    files = {"cert": folder / "cert.pem", "key": folder / "key.pem"}
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run(
        ["openssl", *words.split(), "-out", str(files["cert"]), "-keyout", str(files["key"])],
        check=True,
        capture_output=True,
    )
    return {**files, "ca-cert": files["cert"]}


class Sidecar:
    """An engine and its exchange, as core has them."""

    def __init__(self, name: str, url: str, *, scale: float = 1.0, password: str = "") -> None:
        self.engine = Engine(RULES, rules.organizational_domain, Settings(act=True, scale=scale))
        self.host = Host(name, self.engine, steady=time.monotonic)
        self.exchange = Exchange(self.host, RedisStore(url, password=password))

    async def run(self) -> None:
        """As core does: steps and exchange side by side."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.exchange.run())
            while True:
                self.engine.step(now=time.time())
                await asyncio.sleep(0.1)

    def open(self, key: Key = KEY) -> None:
        self.engine.orders.open(key, rule=RULE, line=LINE, now=time.time())

    def state(self, key: Key = KEY) -> str:
        sub = self.engine.subqueues.get(key)
        return str(sub.machine.state) if sub else "closed"

    def agrees_with(self, others: Iterable["Sidecar"], key: Key = KEY) -> bool:
        rows = [part.replica.row if (part := each.host.parts.get(key)) else None for each in (self, *others)]
        return None not in rows and len({(row.state, row.serial, row.host) for row in rows if row}) == 1


@contextlib.asynccontextmanager
async def sidecars(url: str, count: int, *, scale: float = 1.0, met: bool = True) -> AsyncIterator[list[Sidecar]]:
    """Run so many, and wait until they have met where `met`."""
    fleet = [Sidecar(f"host-{number}", url, scale=scale) for number in range(count)]
    tasks = [asyncio.create_task(each.run()) for each in fleet]
    try:
        if met:
            await until(lambda: all(each.exchange.rounds >= 2 for each in fleet))
        yield fleet
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def store_at(url: str, *, password: str = "") -> AsyncIterator[RedisStore]:
    """Closed whatever happens: what a test that failed left open would fail another one."""
    store = RedisStore(url, password=password)
    try:
        yield store
    finally:
        await store.close()


class SlowWay:
    """Passes on what is said to the server, late."""

    def __init__(self, server: Server, socket: Path) -> None:
        self.url = f"unix://{socket}"
        self.delay = 0.0
        self._server = server

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(self._server.socket))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, back))
                group.create_task(self._pass_on(there, writer))
        except* OSError:
            pass
        finally:
            writer.close()
            back.close()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            await asyncio.sleep(self.delay)
            target.write(data)
            await target.drain()
        raise ConnectionError("ended")


@contextlib.asynccontextmanager
async def slow_way(server: Server, socket: Path) -> AsyncIterator[SlowWay]:
    way = SlowWay(server, socket)
    listener = await asyncio.start_unix_server(way.serve, str(socket))
    try:
        yield way
    finally:
        listener.close()
