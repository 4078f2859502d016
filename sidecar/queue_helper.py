"""The root process that changes Postfix's queue for core: a short list of commands on one unix socket.

Takes one JSON object a line and does one command at a time; nothing that a request says becomes a path,
an option or a shell word.
"""

import asyncio
import contextlib
import functools
import grp
import json
import logging
import math
import os
import pwd
import signal
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from sidecar import hold_queue, in_force, own_log, postfix, qmgr, queue_files, systemd
from sidecar.config import Config, ConfigError
from sidecar.control import unlink_stale
from sidecar.held_record import HeldRecord, Op, RecordError
from sidecar.hold_queue import RequeueRefused
from sidecar.postfix import Instance, PostfixError

_LOG = logging.getLogger("sidecar")

IDS_MAX = 1000
"""Queue ids in one command."""
LINE_MAX = 256 * 1024
KEY_MAX = 512
SPREAD_MAX = 7 * 86400.0
"""Seconds; a release staggered over more than a week is a mistake."""

KICK_EVERY = 1.0
"""Seconds between two scans of the deferred queue, at least."""
SCAN_PER_FILE = 3.5e-6
"""Seconds of the queue manager that a scan costs for each deferred file: 1.5 to 1.8 s for 500,000."""
SCAN_SHARE = 10.0
"""A scan may take one part in so many of the queue manager's time."""
COUNT_EVERY = 30.0
"""Seconds between two counts of the deferred queue."""
HANG_UP_WITHIN = 2.0
"""Seconds that a peer has at the end to read its last answer."""
RELOAD_EVERY = 30.0
"""Seconds between two reloads of an instance: each resets the queue manager's timers."""

Answer = dict[str, Any]
Clock = Callable[[], float]


class Kicks:
    """When the deferred queue of one instance may be scanned next."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._last = -math.inf
        self._counted = -math.inf
        self._interval = KICK_EVERY
        self._due: asyncio.TimerHandle | None = None

    def ask(self) -> float:
        """Have the deferred queue scanned, now or as soon as it may be; gives the seconds until then."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._due is not None:
            return max(0.0, self._due.when() - now)
        wait = max(0.0, self._last + self._every(now) - now)
        if wait == 0.0:
            self._kick()
        else:
            self._due = loop.call_later(wait, self._kick)
        return wait

    def settle(self) -> None:
        """Do at once what is still due: before the process ends."""
        if self._due is not None:
            self._due.cancel()
            self._kick()

    def _every(self, now: float) -> float:
        if now - self._counted >= COUNT_EVERY:
            self._counted = now
            with queue_files.as_owner(self.instance):
                files = queue_files.deferred_estimate(self.instance)
            self._interval = max(KICK_EVERY, SCAN_SHARE * SCAN_PER_FILE * files)
        return self._interval

    def _kick(self, *, again: bool = True) -> None:
        loop = asyncio.get_running_loop()
        self._due = None
        self._last = loop.time()
        try:
            postfix.kick(self.instance, "qmgr", "D")
        except PostfixError as error:
            if again:  # in the moment of a reload nobody reads the queue manager's socket
                self._due = loop.call_later(KICK_EVERY, functools.partial(self._kick, again=False))
                return
            _LOG.warning("%s; the released mail waits for the next scan of the queue manager", error)


class QueueHelper:
    """The commands. Synchronous on purpose: one at a time, and as another user for parts of each."""

    def __init__(self, config_directory: Path, record: HeldRecord, *, clock: Clock = time.time) -> None:
        self._config_directory = config_directory
        self._record = record
        self._clock = clock
        self._known: list[Instance] = []
        self._read: tuple[float, ...] = ()
        self._kicks: dict[str, Kicks] = {}
        self._reloaded: dict[str, float] = {}
        self._commands: dict[str, Callable[[Instance, Mapping[str, Any]], Answer]] = {
            "hold": self._hold,
            "release": self._release,
            "requeue": self._requeue,
            "set-time": self._set_time,
            "adopt": self._adopt,
            "forget": self._forget,
            "kick": self._kick,
            "reload": self._reload,
            "held": self._held,
        }

    def answer(self, line: bytes) -> Answer:
        """Do what one request line says; what goes wrong is told, never raised."""
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise TypeError("wanted a JSON object")  # noqa: TRY301  # told below like any other
            name = request.get("command")
            if name not in self._commands:
                raise ValueError(f"unknown command {name!r}; known: {', '.join(self._commands)}")  # noqa: TRY301
            instance = self._instance(_text(request, "instance"))
            return {"ok": True, **self._commands[name](instance, request)}
        except (ValueError, TypeError, RecursionError) as error:
            return _refusal(f"bad request: {error}")
        except (PostfixError, RecordError, RequeueRefused, OSError) as error:
            _LOG.warning("%s", error)
            return _refusal(str(error))

    def settle(self) -> None:
        """Finish before the process ends."""
        for kicks in self._kicks.values():
            kicks.settle()

    def _instance(self, name: str) -> Instance:
        """The instance of that name; configurations are read again when a main.cf has changed."""
        if not self._known or self._read != self._changed():
            self._known = postfix.instances(self._config_directory)
            self._read = self._changed()
        return postfix.find(self._known, name)

    def _changed(self) -> tuple[float, ...]:
        return tuple((instance.config_directory / "main.cf").stat().st_mtime for instance in self._known)

    def _hold(self, instance: Instance, request: Mapping[str, Any]) -> Answer:
        return hold_queue.take(instance, _keys(request), record=self._record, now=self._clock())._asdict()

    def _release(self, instance: Instance, request: Mapping[str, Any]) -> Answer:
        done = hold_queue.give_back(
            instance,
            _ids(request),
            key=_key(request),
            record=self._record,
            now=self._clock(),
            spread=_number(request, "spread", most=SPREAD_MAX),
            delay=_number(request, "delay", most=SPREAD_MAX),
        )
        wait = self._kicks_of(instance).ask() if done.released else 0.0
        return {**done._asdict(), "kick_in": wait}

    def _requeue(self, instance: Instance, request: Mapping[str, Any]) -> Answer:
        ids, key = _ids(request), _key(request)
        return hold_queue.requeue(instance, ids, key=key, record=self._record, now=self._clock())._asdict()

    def _set_time(self, instance: Instance, request: Mapping[str, Any]) -> Answer:
        due = _number(request, "time", most=self._clock() + SPREAD_MAX)
        done = hold_queue.set_time(instance, _ids(request), due=due)
        return {"set": done.released, "missing": done.missing, "busy": done.busy}

    def _adopt(self, instance: Instance, request: Mapping[str, Any]) -> Answer:
        self._record.append_each(Op.ADOPT, instance.syslog_name, _keys(request), now=self._clock())
        return {}

    def _forget(self, instance: Instance, request: Mapping[str, Any]) -> Answer:
        self._record.append(Op.FORGET, instance.syslog_name, _ids(request), key="", now=self._clock())
        return {}

    def _kick(self, instance: Instance, _: Mapping[str, Any]) -> Answer:
        return {"kick_in": self._kicks_of(instance).ask()}

    def _reload(self, instance: Instance, _: Mapping[str, Any]) -> Answer:
        now = time.monotonic()
        since = now - self._reloaded.get(instance.syslog_name, -math.inf)
        if since < RELOAD_EVERY:
            return _refusal(f"{instance.syslog_name} was reloaded {since:.0f} s ago; again after {RELOAD_EVERY:g} s")
        self._reloaded[instance.syslog_name] = now
        return {"renewed": qmgr.renew(instance)}

    def _held(self, instance: Instance, _: Mapping[str, Any]) -> Answer:
        there = hold_queue.reconcile(instance, record=self._record, now=self._clock())
        ours = [
            entry
            for entry in self._record.live.values()
            if entry.instance == instance.syslog_name and entry.queue_id in there
        ]
        return {
            "held": there,
            "ours": {entry.queue_id: entry.key for entry in ours},
            "since": {entry.queue_id: entry.time for entry in ours},
        }

    def _kicks_of(self, instance: Instance) -> Kicks:
        kicks = self._kicks.setdefault(instance.syslog_name, Kicks(instance))
        kicks.instance = instance  # its configuration may have changed
        return kicks


async def serve(
    config: Config, *, user: str = "sidecar", inherited: socket.socket | None = None, stop: asyncio.Event | None = None
) -> None:
    """Serve until `stop`. Only root, `user` (where there is such a user) and our own user may talk.

    Raises ConfigError when the socket cannot be made, RecordError when the record cannot be opened.
    """
    helper = QueueHelper(Path(config.postfix.config_directory), HeldRecord(config.held_record))
    try:
        in_force.write(config)
    except OSError as error:
        _LOG.warning("%s cannot be kept for the failsafe: %s", in_force.NAME, error)
    uid, gid = _ids_of(user)
    allowed = {0, os.geteuid()} | ({uid} if uid is not None else set())
    listener = inherited or _bound(config.helper_socket, group=gid)
    talks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks[task] = writer
        try:
            await _talk(reader, writer, helper, allowed)
        finally:
            del talks[task]
            writer.close()

    server = await asyncio.start_unix_server(talk, sock=listener, limit=LINE_MAX, backlog=64)
    own_log.listening(str(config.helper_socket), purpose="the queue")
    systemd.notify("READY=1")
    async with server:
        await _until(stop or asyncio.Event())
        systemd.notify("STOPPING=1")
        await _hang_up(talks)
    helper.settle()


async def _hang_up(talks: Mapping[asyncio.Task[None], asyncio.StreamWriter]) -> None:
    """End all connections and wait for their tasks: one that were cancelled with the loop would log a traceback."""
    for writer in talks.values():
        writer.close()
    waiting = set(talks)
    if waiting:
        _, waiting = await asyncio.wait(waiting, timeout=HANG_UP_WITHIN)
    for task in waiting:
        talks[task].transport.abort()  # a peer that does not read its answer
    if waiting:
        await asyncio.wait(waiting)


async def _until(stop: asyncio.Event) -> None:
    """Wait for `stop`, giving systemd its signs of life meanwhile."""
    every = systemd.watchdog_interval()
    while not stop.is_set():
        systemd.notify("WATCHDOG=1")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every):
                await stop.wait()


async def _talk(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, helper: QueueHelper, allowed: set[int]
) -> None:
    """Answer one connection's lines until it ends."""
    uid = _peer(writer)
    try:
        if uid not in allowed:
            _LOG.warning("a process of uid %d was refused", uid)
            await _send(writer, _refusal(f"uid {uid} may not talk to the queue helper"))
            return
        while line := await reader.readline():
            if line.endswith(b"\n"):  # else the peer went away in the middle of a request: not done
                await _send(writer, helper.answer(line))
    except ValueError:  # readline(): longer than the limit
        await _send(writer, _refusal(f"line longer than {LINE_MAX} bytes"))
    except ConnectionError:
        return


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()


def _peer(writer: asyncio.StreamWriter) -> int:
    """User id of the process at the other end (SO_PEERCRED, unix(7))."""
    connection = writer.get_extra_info("socket")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _refusal(why: str) -> Answer:
    return {"ok": False, "error": why}


def _ids(request: Mapping[str, Any]) -> list[str]:
    """The queue ids of a request, each once. Raises ValueError: one bad id refuses them all."""
    ids = request.get("ids")
    if not isinstance(ids, list) or not ids:
        raise ValueError("ids: wanted a list of queue ids")
    if len(ids) > IDS_MAX:
        raise ValueError(f"ids: {len(ids)} of them; wanted at most {IDS_MAX}")
    for one in ids:
        if not isinstance(one, str) or not postfix.is_queue_id(one):
            raise ValueError(f"ids: {one!a:.80} is no queue id; wanted one as 4jX2Q347kNzJ9DC or 3A1F72C4D2")
    return list(dict.fromkeys(ids))


def _text(request: Mapping[str, Any], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}: found {value!a:.80}, wanted a name")
    return value


def _keys(request: Mapping[str, Any]) -> dict[str, str]:
    """The ids of a request with the key of each: `key` is one for all, or an object id -> key."""
    ids, given = _ids(request), request.get("key")
    if not isinstance(given, dict):
        return dict.fromkeys(ids, _key(request))
    return {one: _key({"key": given.get(one)}) for one in ids}


def _key(request: Mapping[str, Any]) -> str:
    key = _text(request, "key")
    if len(key) > KEY_MAX or not key.isprintable():
        raise ValueError(f"key: {key!a:.80}: wanted at most {KEY_MAX} printable characters")
    return key


def _number(request: Mapping[str, Any], name: str, *, most: float) -> float:
    value = request.get(name, 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= most:  # NaN is neither
        raise ValueError(f"{name}: found {value!a:.80}, wanted seconds from 0 to {most:.0f}")
    return float(value)


def _ids_of(user: str) -> tuple[int | None, int | None]:
    """User id and group id of `user`; the group of that name comes first. None where there is none."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return None, None
    try:
        return entry.pw_uid, grp.getgrnam(user).gr_gid
    except KeyError:
        return entry.pw_uid, entry.pw_gid


def _bound(path: Path, *, group: int | None) -> socket.socket:
    """A socket of our own, 0660 and of the group that may talk. Raises ConfigError."""
    unlink_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o660)  # before anybody can connect: start_unix_server() listens
        if group is not None:
            os.chown(path, -1, group)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{path}: cannot be made: {error.strerror or error}; see runtime_directory") from error
    return listener


@click.command("queue-helper", epilog="Example: sidecar --config /etc/sidecar/sidecar.toml queue-helper")
@click.option(
    "--user", default="sidecar", show_default=True, help="The user that core runs as; only it and root may talk."
)
@click.pass_obj
def queue_helper(config: Config, user: str) -> None:
    """Change Postfix's queue for core: hold, release, requeue. Runs as root, one for all instances."""
    own_log.start("queue-helper")
    inherited = [it.socket for it in systemd.inherited_sockets(os.environ, pid=os.getpid()) if it.name == "helper"]

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(config, user=user, inherited=inherited[0] if inherited else None, stop=stop)

    try:
        asyncio.run(run())
    except (ConfigError, RecordError) as error:
        click.echo(f"queue-helper: {error}", err=True)
        raise SystemExit(2) from error
