"""The queue helper as a process of its own, with a real Postfix and a mail exchanger that refuses, waits or takes."""

import asyncio
import contextlib
import json
import os
import queue
import shutil
import smtplib
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from sidecar import held_record, postfix, qmgr, queue_files
from sidecar.held_record import HeldRecord, Op
from sidecar.hold_queue import HoldResult, ReleaseResult
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.postfix import Instance
from sidecar.queue_client import HelperRefused, HelperUnavailable, QueueClient
from sidecar.queue_helper import IDS_MAX, QueueHelper

pytestmark = pytest.mark.postfix

KEY = "dkim-domain:snd.example@google"
T = TypeVar("T")


class Exchanger(socketserver.ThreadingTCPServer):
    """Takes mail; refuses recipients `later@` with 450, and waits at the end of data for `slow@` until `go`."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.taken: queue.Queue[str] = queue.Queue()
        self.refusing = True
        self.reached = threading.Event()
        self.go = threading.Event()


class Session(socketserver.StreamRequestHandler):
    server: Exchanger

    def handle(self) -> None:
        recipient = ""
        self.wfile.write(b"220 mx.example\r\n")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            answer = b"250 2.0.0 Ok"
            if verb == b"RCPT":
                recipient = line.decode().partition("<")[2].partition(">")[0]
                if recipient.startswith("later@") and self.server.refusing:
                    answer = b"450 4.2.1 later"
            elif verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                while self.rfile.readline() != b".\r\n":
                    pass
                if recipient.startswith("slow@"):
                    self.server.reached.set()
                    self.server.go.wait(60)
                self.server.taken.put(recipient)
            elif verb == b"QUIT":
                return
            self.wfile.write(answer + b"\r\n")


class Site(NamedTuple):
    mail: PrivatePostfix
    instance: Instance
    exchanger: Exchanger
    directory: Path
    client: QueueClient


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that user postfix may enter, which pytest's own is not."""
    directory = Path(tempfile.mkdtemp(prefix="queue-helper-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def running(place: Path) -> Iterator[Site]:
    with Exchanger() as exchanger:
        threading.Thread(target=exchanger.serve_forever, daemon=True).start()
        mail = PrivatePostfix(
            place / "postfix",
            main_cf={
                "default_transport": f"smtp:[127.0.0.1]:{exchanger.server_address[1]}",
                "hash_queue_names": "deferred, defer, hold",
                "smtpd_sender_restrictions": "check_sender_access inline:{admin@snd.example=HOLD}",
                "anvil_rate_time_unit": "1s",
            },
        )
        with mail, helper(place, mail.config_directory):
            client = QueueClient(place / "helper", timeout=60)
            yield Site(mail, postfix.instances(mail.config_directory)[0], exchanger, place, client)
        exchanger.shutdown()


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    """The same Postfix for every test, with nothing in its queue."""
    yield running
    running.exchanger.go.set()
    running.mail._run("postsuper", "-c", str(running.mail.config_directory), "-d", "ALL")
    until(lambda: not running.mail.postqueue())
    running.exchanger.taken = queue.Queue()
    running.exchanger.refusing = True
    running.exchanger.go.clear()
    running.exchanger.reached.clear()
    (running.directory / "held.record").unlink(missing_ok=True)


@contextlib.contextmanager
def helper(directory: Path, config_directory: Path, name: str = "helper") -> Iterator[subprocess.Popen[bytes]]:
    """A queue helper that is ready, by its own word to the socket that systemd would listen on."""
    program = (
        "import sys\n"
        "from sidecar.config import Config, PostfixConfig, StoreConfig\n"
        "from sidecar.queue_helper import queue_helper\n"
        "where, postfix = sys.argv[1:]\n"
        "config = Config(runtime_directory=where, store=StoreConfig(path=where),"
        " postfix=PostfixConfig(config_directory=postfix))\n"
        "queue_helper.main([], obj=config)\n"
    )
    place = directory if name == "helper" else directory / name
    place.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(place / "notify"))
        ready.settimeout(60)
        environment = os.environ | {"NOTIFY_SOCKET": str(place / "notify"), "PYTHONPATH": str(Path.cwd())}
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(place), str(config_directory)],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert ready.recv(100) == b"READY=1"
            yield process
        finally:
            process.terminate()
            process.wait(60)
            (place / "notify").unlink()


def until(condition: Callable[[], object], *, within: float = 60.0) -> None:
    """Wait for what Postfix tells nobody: that a file has moved."""
    deadline = time.monotonic() + within
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        pause.wait(0.01)


def ask(site: Site, command: Callable[[QueueClient], Awaitable[T]]) -> T:
    async def run() -> T:
        try:
            return await command(site.client)
        finally:
            await site.client.close()

    return asyncio.run(run())


def submit(mail: PrivatePostfix, *recipients: str, sender: str = "a@snd.example") -> list[str]:
    """Send one message to each recipient; gives the queue ids."""
    ids = []
    with smtplib.SMTP("127.0.0.1", mail.port) as session:
        for recipient in recipients:
            session.mail(sender)
            session.rcpt(recipient)
            _, said = session.data(b"Subject: test\r\n\r\ntext\r\n")
            ids.append(said.rpartition(b" ")[2].decode())
    return ids


def queue_of(site: Site, queue_id: str) -> str:
    return next((one.queue_name for one in site.mail.postqueue() if one.queue_id == queue_id), "")


def file_of(site: Site, queue_name: str, queue_id: str) -> Path:
    return next(path for path in site.mail.queue_files(queue_name) if path.name == queue_id)


def deferred(site: Site, *recipients: str) -> list[str]:
    """Messages that were refused and wait in the deferred queue."""
    ids = submit(site.mail, *recipients)
    until(lambda: all(queue_of(site, one) == "deferred" for one in ids))
    return ids


def recorded(site: Site) -> set[str]:
    return {one for _, one in held_record.read(site.directory / "held.record").live}


def test_released_mail_leaves_at_once_whatever_its_back_off(site: Site) -> None:
    ids = deferred(site, "later@one.example", "later@two.example")
    for one in ids:
        os.utime(file_of(site, "deferred", one), (time.time() + 4000, time.time() + 4000))
    assert ask(site, lambda client: client.hold("postfix", ids, key=KEY)) == HoldResult(tuple(ids), ())
    assert recorded(site) == set(ids)
    site.exchanger.refusing = False
    assert ask(site, lambda client: client.release("postfix", ids, key=KEY)) == ReleaseResult(tuple(ids), (), ())
    assert {site.exchanger.taken.get(timeout=60) for _ in ids} == {"later@one.example", "later@two.example"}
    assert recorded(site) == set()


def test_by_either_name_of_the_instance(site: Site) -> None:
    ids = deferred(site, "later@one.example")
    assert ask(site, lambda client: client.hold("-", ids, key=KEY)).held == tuple(ids)
    with pytest.raises(HelperRefused, match="instance 'postfix-out' is unknown; known: postfix "):
        ask(site, lambda client: client.hold("postfix-out", ids, key=KEY))


def test_an_admins_hold_is_not_ours(site: Site) -> None:
    admins = submit(site.mail, "x@one.example", sender="admin@snd.example")
    until(lambda: queue_of(site, admins[0]) == "hold")
    assert ask(site, lambda client: client.hold("postfix", admins, key=KEY)) == HoldResult((), tuple(admins))
    assert recorded(site) == set()


def test_a_hold_said_twice_is_one_hold(site: Site) -> None:
    ids = deferred(site, "later@one.example")
    for _ in range(2):
        assert ask(site, lambda client: client.hold("postfix", ids, key=KEY)).held == tuple(ids)


def test_what_is_not_there_is_missing(site: Site) -> None:
    nowhere = ["4jX2Q347kNzJ9DC", "3A1F72C4D2"]
    assert ask(site, lambda client: client.hold("postfix", nowhere, key=KEY)).missing == tuple(nowhere)
    assert ask(site, lambda client: client.release("postfix", nowhere, key=KEY)).missing == tuple(nowhere)
    assert ask(site, lambda client: client.requeue("postfix", nowhere, key=KEY)).missing == tuple(nowhere)
    assert recorded(site) == set()


def test_mail_that_is_being_delivered_is_not_released_nor_requeued(site: Site) -> None:
    ids = submit(site.mail, "slow@one.example")
    assert site.exchanger.reached.wait(60)
    assert ask(site, lambda client: client.hold("postfix", ids, key=KEY)).held == tuple(ids)
    assert ask(site, lambda client: client.release("postfix", ids, key=KEY)) == ReleaseResult((), (), tuple(ids))
    assert ask(site, lambda client: client.requeue("postfix", ids, key=KEY)) == ReleaseResult((), (), tuple(ids))
    assert queue_of(site, ids[0]) == "hold"
    site.exchanger.go.set()
    assert site.exchanger.taken.get(timeout=60) == "slow@one.example"

    def let_go() -> bool:
        return ask(site, lambda client: client.release("postfix", ids, key=KEY)).released == tuple(ids)

    until(let_go)  # the delivery agent closes the file a moment after the exchanger's 250
    until(lambda: not site.mail.postqueue())
    assert site.exchanger.taken.empty()  # delivered once


def test_adopted_mail_is_ours(site: Site) -> None:
    """Put on hold by our own answer, which smtpd does as for any access map."""
    ids = submit(site.mail, "x@one.example", sender="admin@snd.example")
    ask(site, lambda client: client.adopt("postfix", ids, key=KEY))
    listed = ask(site, lambda client: client.held("postfix"))
    assert listed.ours == dict.fromkeys(ids, KEY)
    assert ask(site, lambda client: client.release("postfix", ids, key=KEY)).released == tuple(ids)
    assert site.exchanger.taken.get(timeout=60) == "x@one.example"


def test_listing_shows_all_and_forgets_what_left(site: Site) -> None:
    first, second, third = deferred(site, "later@one.example", "later@two.example", "later@three.example")
    admins = submit(site.mail, "x@one.example", sender="admin@snd.example")
    ask(site, lambda client: client.hold("postfix", [first, second, third], key=KEY))
    ask(site, lambda client: client.forget("postfix", [third]))
    site.mail.postsuper("-H", [first])
    listed = ask(site, lambda client: client.held("postfix"))
    assert set(listed.there) == {second, third, *admins}
    assert listed.there[second] == pytest.approx(file_of(site, "hold", second).stat().st_mtime)
    assert listed.ours == {second: KEY}
    assert recorded(site) == {second}


def test_a_spread_release_staggers_the_times(site: Site) -> None:
    ids = deferred(site, *(f"later@d{i}.example" for i in range(8)))
    ask(site, lambda client: client.hold("postfix", ids, key=KEY))
    now = time.time()
    ask(site, lambda client: client.release("postfix", ids, key=KEY, spread=8000.0))
    until(lambda: len(list(site.mail.queue_files("deferred"))) == 8)
    times = [file_of(site, "deferred", one).stat().st_mtime - now for one in ids[1:]]  # the first is tried at once
    assert times == pytest.approx([1000.0 * i for i in range(1, 8)], abs=30)


def test_times_of_held_mail_are_set(site: Site) -> None:
    ids = deferred(site, "later@one.example")
    ask(site, lambda client: client.hold("postfix", ids, key=KEY))
    assert ask(site, lambda client: client.set_time("postfix", ids, due=1e9)).released == tuple(ids)
    assert file_of(site, "hold", ids[0]).stat().st_mtime == 1e9


def test_requeued_mail_has_a_new_id_and_is_no_longer_ours(site: Site) -> None:
    ids = deferred(site, "later@one.example")
    ask(site, lambda client: client.hold("postfix", ids, key=KEY))
    site.exchanger.refusing = False
    assert ask(site, lambda client: client.requeue("postfix", ids, key=KEY)).released == tuple(ids)
    assert site.exchanger.taken.get(timeout=60) == "later@one.example"
    assert recorded(site) == set()


def test_a_requeue_that_would_copy_again_is_refused(site: Site) -> None:
    ids = deferred(site, "later@one.example")
    ask(site, lambda client: client.hold("postfix", ids, key=KEY))
    site.mail.postconf("-e", "always_bcc=archive@one.example")
    try:
        with pytest.raises(HelperRefused, match=r"always_bcc = archive@one\.example: a requeue would apply it again"):
            ask(site, lambda client: client.requeue("postfix", ids, key=KEY))
    finally:
        site.mail.postconf("-X", "always_bcc")
    assert queue_of(site, ids[0]) == "hold"


def test_a_reload_ends_the_old_queue_manager_and_is_not_repeated(site: Site) -> None:
    before = qmgr.pids(site.instance)
    assert ask(site, lambda client: client.reload("postfix")) is True
    assert not set(before) & set(qmgr.pids(site.instance))
    with pytest.raises(HelperRefused, match="was reloaded 0 s ago"):
        ask(site, lambda client: client.reload("postfix"))


def test_scans_are_kept_apart(site: Site) -> None:
    async def both(client: QueueClient) -> tuple[float, float]:
        return await client.kick("postfix"), await client.kick("postfix")

    assert ask(site, both)[1] == pytest.approx(1.0, abs=0.9)


def test_a_thousand_are_held_and_released_in_seconds(site: Site) -> None:
    """Ratios are of no use here; the limit is far above what it takes (0.1 s each)."""
    source = ["smtp-source", "-m", "1000", "-s", "5", "-f", "admin@snd.example", "-t", "x@one.example"]
    subprocess.run([*source, f"127.0.0.1:{site.mail.port}"], check=True, capture_output=True)
    ids = [path.name for path in site.mail.queue_files("hold")]
    assert len(ids) == 1000
    ask(site, lambda client: client.adopt("postfix", ids, key=KEY))
    took: list[float] = []

    def timed(command: Callable[[QueueClient], Awaitable[T]]) -> T:
        start = time.perf_counter()
        try:
            return ask(site, command)
        finally:
            took.append(time.perf_counter() - start)

    far = [*ids[1:], ids[0]]
    for one in ids:  # none is due soon, so that all stay in the queue
        os.utime(file_of_hashed(site, one), (time.time(), time.time() + 9e4))
    site.mail.postsuper("-H", ids)
    assert len(timed(lambda client: client.hold("postfix", far, key=KEY)).held) == 1000
    assert len(timed(lambda client: client.release("postfix", far, key=KEY, spread=9e4)).released) == 1000
    assert max(took) < 60.0  # seconds; far more would be a file looked for anew for each


def file_of_hashed(site: Site, queue_id: str) -> Path:
    """The file by its place, not by a search: a thousand searches take long."""
    return site.instance.queue_directory.joinpath(
        "hold", *queue_files.hashed(site.instance, "hold", queue_id), queue_id
    )


@pytest.mark.parametrize("trap", ["symlink", "hard link", "fifo", "directory", "other owner", "directory link"])
def test_a_trap_in_the_hold_queue_is_not_touched(site: Site, trap: str) -> None:
    """Whoever is user postfix may put anything there; root must not be led astray."""
    queue_id = "3A1F72C4D2"
    target = site.directory / "target"
    target.write_text("")
    os.utime(target, (1e9, 1e9))
    below = site.instance.queue_directory / "hold" / "3"
    below.mkdir(exist_ok=True)
    shutil.chown(below, "postfix")
    if trap == "symlink":
        shutil.chown(target, "postfix")  # or its owner alone would give it away
        (below / queue_id).symlink_to(target)
    elif trap == "hard link":
        shutil.chown(target, "postfix")
        (below / queue_id).hardlink_to(target)
    elif trap == "fifo":
        os.mkfifo(below / queue_id)
        shutil.chown(below / queue_id, "postfix")
    elif trap == "directory":
        (below / queue_id).mkdir()
    elif trap == "other owner":
        shutil.copy2(target, below / queue_id)
        (below / queue_id).chmod(0o644)
    else:
        below.rmdir()
        below.symlink_to(site.directory / "elsewhere")
        (site.directory / "elsewhere").mkdir()
        shutil.copy2(target, site.directory / "elsewhere" / queue_id)
        shutil.chown(site.directory / "elsewhere" / queue_id, "postfix")
    planted = below / queue_id
    before = planted.stat().st_mtime
    try:
        released = ask(site, lambda client: client.release("postfix", [queue_id], key=KEY))
        changed = ask(site, lambda client: client.set_time("postfix", [queue_id], due=5.0))
        assert released == ReleaseResult((), (queue_id,), ())
        assert changed == ReleaseResult((), (queue_id,), ())
        assert planted.stat().st_mtime == before
        assert target.stat().st_mtime == 1e9
    finally:
        if below.is_symlink():
            below.unlink()
            shutil.rmtree(site.directory / "elsewhere")
        elif planted.is_dir():
            planted.rmdir()
        else:
            planted.unlink()
        target.unlink()


def test_killed_between_record_and_postsuper(site: Site) -> None:
    """The record says more than is on hold; the listing puts it right, and no mail is touched."""
    ids = deferred(site, "later@one.example")
    other = site.directory / "killed"
    programs, config_directory = other / "bin", other / "etc"
    programs.mkdir(parents=True)
    shutil.copytree(site.mail.config_directory, config_directory)
    (programs / "postsuper").write_text("#!/bin/sh\nkill -9 $PPID\n")
    (programs / "postsuper").chmod(0o755)
    with (config_directory / "main.cf").open("a") as main_cf:
        main_cf.write(f"command_directory = {programs}\n")
    with helper(site.directory, config_directory, "killed") as process:
        client = QueueClient(other / "helper", timeout=60)
        with pytest.raises(HelperUnavailable, match="does sidecar-queue-helper run"):
            ask(site._replace(client=client), lambda client: client.hold("postfix", ids, key=KEY))
        assert process.wait(60) == -9
    record = HeldRecord(other / "held.record")
    assert [entry.op for entry in record.live.values()] == [Op.HOLD]
    assert queue_of(site, ids[0]) == "deferred"
    (config_directory / "main.cf").write_bytes((site.mail.config_directory / "main.cf").read_bytes())
    with helper(site.directory, config_directory, "killed"):
        listed = ask(site._replace(client=client), lambda client: client.held("postfix"))
        assert (listed.there, listed.ours) == ({}, {})
    assert held_record.read(other / "held.record").live == {}
    shutil.rmtree(other)


def test_it_ends_quietly_with_connections_open(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from sidecar.config import Config, StoreConfig\n"
        "from sidecar.queue_helper import queue_helper\n"
        "queue_helper.main([], obj=Config(runtime_directory=sys.argv[1], store=StoreConfig(path=sys.argv[1])))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert b"listening on" in process.stderr.readline()
    with contextlib.ExitStack() as stack:
        talking, silent, deaf = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(3))
        for each in (talking, silent, deaf):
            each.connect(str(tmp_path / "helper"))
        deaf.sendall(b"{}\n" * 5_000)  # and its answers are not read
        talking.sendall(b"{}\n")
        assert b"unknown command" in talking.recv(1_000)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")


def test_a_helper_that_restarts_is_found_again(site: Site) -> None:
    async def across(client: QueueClient) -> None:
        with helper(site.directory, site.mail.config_directory, "again"):
            await client.held("postfix")
        with pytest.raises(HelperUnavailable, match=r"No such file or directory|Connection refused"):
            await client.held("postfix")
        with helper(site.directory, site.mail.config_directory, "again"):
            await client.held("postfix")

    other = QueueClient(site.directory / "again" / "helper", timeout=60)
    ask(site._replace(client=other), across)


def test_only_root_and_the_sidecar_may_talk(site: Site) -> None:
    path = site.directory / "helper"
    assert path.stat().st_mode & 0o777 == 0o660
    program = (
        "import os, socket, sys\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "print(s.makefile().readline())\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    assert b"Permission denied" in subprocess.run(command, capture_output=True, check=False).stderr
    path.chmod(0o666)
    try:
        said = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    finally:
        path.chmod(0o660)
    assert said == {"ok": False, "error": "uid 65534 may not talk to the queue helper"}


def test_a_silent_helper_is_not_waited_for(tmp_path: Path) -> None:
    async def wait() -> None:
        with pytest.raises(HelperUnavailable, match=r"no answer within 0\.05 s"):
            await QueueClient(tmp_path / "helper", timeout=0.05).held("postfix")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "helper"))
        listener.listen()  # and never accepts
        asyncio.run(wait())


GOOD = {"command": "release", "instance": "postfix", "ids": ["3A1F72C4D2"], "key": KEY}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "Expecting value"),
        (b"nonsense\n", "Expecting value"),
        (b"[1]\n", "wanted a JSON object"),
        (b'"hold"\n', "wanted a JSON object"),
        (b"[" * 100_000, "bad request"),
        (b"\xff\n", "bad request"),
        (GOOD | {"command": "delete"}, "unknown command 'delete'; known: hold, release"),
        (GOOD | {"command": ["hold"]}, "bad request"),
        (GOOD | {"instance": "/etc/postfix"}, "instance '/etc/postfix' is unknown"),
        (GOOD | {"instance": 5}, "instance: found 5"),
        (GOOD | {"ids": "ALL"}, "ids: wanted a list"),
        (GOOD | {"ids": []}, "ids: wanted a list"),
        (GOOD | {"ids": ["ALL"]}, "'ALL' is no queue id"),
        (GOOD | {"ids": ["3A1F72C4D2", "-d"]}, "'-d' is no queue id"),
        (GOOD | {"ids": ["../../../etc/passwd"]}, "is no queue id"),
        (GOOD | {"ids": ["3A1F72C4D2\nALL"]}, "is no queue id"),
        (GOOD | {"ids": [["3A1F72C4D2"]]}, "is no queue id"),
        (GOOD | {"ids": [f"{i:010X}" for i in range(IDS_MAX + 1)]}, "1001 of them; wanted at most 1000"),
        (GOOD | {"key": ""}, "key: found ''"),
        (GOOD | {"key": "a\nb"}, "key: "),
        (GOOD | {"key": "k" * 600}, "key: "),
        (GOOD | {"spread": -1}, "spread: found -1, wanted seconds"),
        (GOOD | {"spread": "1"}, "spread: found '1'"),
        (GOOD | {"spread": True}, "spread: found True"),
        (b'{"command": "release", "instance": "postfix", "ids": ["3A1F72C4D2"], "key": "k", "spread": NaN}', "spread: found nan"),
        (GOOD | {"delay": 1e300}, "delay: found 1e+300"),
        (GOOD | {"command": "set-time", "time": 1e12}, "time: found 1000000000000.0"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_with_a_reason(running: Site, tmp_path: Path, line: Any, says: str) -> None:
    told = QueueHelper(running.mail.config_directory, HeldRecord(tmp_path / "held.record"))
    answer = told.answer(line if isinstance(line, bytes) else json.dumps(line).encode())
    assert answer["ok"] is False
    assert says in answer["error"]


def test_no_hold_without_a_record(site: Site, tmp_path: Path) -> None:
    """Where intent cannot be written, mail flows on; what is held is released all the same."""
    ids = deferred(site, "later@one.example")
    record = HeldRecord(tmp_path / "held.record")
    told = QueueHelper(site.mail.config_directory, record)
    (tmp_path / "held.record").unlink()
    (tmp_path / "held.record").mkdir()
    request: dict[str, Any] = {"instance": "postfix", "ids": ids, "key": KEY}
    answer = told.answer(json.dumps(request | {"command": "hold"}).encode())
    assert answer["ok"] is False
    assert "held.record: cannot be opened" in answer["error"]
    assert queue_of(site, ids[0]) == "deferred"
    site.mail.postsuper("-h", ids)

    async def release() -> dict[str, Any]:
        return told.answer(json.dumps(request | {"command": "release"}).encode())

    assert asyncio.run(release())["released"] == tuple(ids)


def test_changed_configuration_is_read_again(site: Site, tmp_path: Path) -> None:
    told = QueueHelper(site.mail.config_directory, HeldRecord(tmp_path / "held.record"))
    assert told._instance("postfix").parameters["always_bcc"] == ""
    site.mail.postconf("-e", "always_bcc=archive@one.example")
    try:
        assert told._instance("postfix").parameters["always_bcc"] == "archive@one.example"
    finally:
        site.mail.postconf("-X", "always_bcc")


def test_a_release_while_postfix_is_stopped_is_done_all_the_same(place: Path, tmp_path: Path) -> None:
    mail = PrivatePostfix(place / "stopped")
    with mail:
        pass  # started once, so that its directories are there
    instance = postfix.instances(mail.config_directory)[0]
    assert qmgr.master(instance) is None
    assert qmgr.renew(instance) is False
    told = QueueHelper(mail.config_directory, HeldRecord(tmp_path / "held.record"))
    request = {"command": "release", "instance": "postfix", "ids": ["3A1F72C4D2"], "key": KEY}
    assert told.answer(json.dumps(request).encode()) == {
        "ok": True, "released": (), "missing": ("3A1F72C4D2",), "busy": (), "kick_in": 0.0,
    }  # fmt: skip
