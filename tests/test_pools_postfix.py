"""Pools under a real Postfix: two transports that leave from different addresses, and what the other side sees of them."""

import contextlib
import shutil
import smtplib
import socketserver
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.control import CoreUnreachable, ask_core
from sidecar.lab.private_postfix import PrivatePostfix

ROOT = Path(__file__).parents[1]
ASK = "check_policy_service { unix:private/sidecar, timeout=3s, default_action=DUNNO }"
MASTER = "".join(
    f"{name} unix - - n - - smtp -o syslog_name=postfix/{name} -o smtp_bind_address={address}\n"
    for name, address in (("ip-1", "127.0.0.2"), ("ip-2", "127.0.0.3"))
)
OLD, NEW = "127.0.0.2", "127.0.0.3"
pytestmark = pytest.mark.postfix


class Session(socketserver.StreamRequestHandler):
    """Takes every message, and remembers which address each came from."""

    def handle(self) -> None:
        assert isinstance(self.server, Sink)
        self.wfile.write(b"220 sink ESMTP\r\n")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                while self.rfile.readline() not in {b".\r\n", b""}:
                    pass
                self.server.seen[self.client_address[0]] += 1
            if verb == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 ok\r\n")


class Sink(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.seen: Counter[str] = Counter()


class Site:
    """A Postfix whose mail for localhost goes to the sink, and the configuration of a core for it."""

    def __init__(self, directory: Path, sink: Sink) -> None:
        self.sink = sink
        self.mail = PrivatePostfix(
            directory / "postfix",
            main_cf={
                "enable_long_queue_ids": "yes",
                "smtpd_recipient_restrictions": f"{ASK}, permit_mynetworks, reject",
                "smtpd_end_of_data_restrictions": ASK,
                "smtp_tcp_port": str(sink.server_address[1]),
                "smtp_dns_support_level": "disabled",
                "smtp_host_lookup": "native",
                "smtp_destination_recipient_limit": "1",
            },
            master_cf=MASTER,
        )
        self.store = directory / "store" / "core.db"
        self.control = directory / "run" / "control"
        self.configuration = directory / "sidecar.toml"
        self.configuration.write_text(
            f'mode = "act"\nruntime_directory = "{directory}/run"\n'
            f'[log]\nsource = "{self.mail.maillog}"\n[store]\npath = "{directory}/store"\n'
            f'[postfix]\nconfig_directory = "{self.mail.config_directory}"\n'
            '[[route]]\ntransport = "pool:bulk"\nwhen = "sender_domain = news.example"\n'
            '[[pool]]\nname = "bulk"\ntransports = [{ transport = "ip-1" }, { transport = "ip-2" }]\n'
            '[[warm_up]]\ntransport = "ip-2"\nstarted = "2024-01-01"\nstart_per_day = 10\nuntil_per_day = 1000\n'
            '[[react]]\nname = "out"\nsignal = "listed"\ndo = "leave-pool"\n'
        )
        (directory / "run").mkdir()
        self._sent = 0

    @contextlib.contextmanager
    def core(self) -> Iterator["subprocess.Popen[bytes]"]:
        command = [sys.executable, "-m", "sidecar", "--config", str(self.configuration), "core"]
        with subprocess.Popen(command, cwd=ROOT) as process:
            try:
                until(lambda: self.asked("status").get("log", {}).get("followed"))
                yield process
            finally:
                process.terminate()
                process.wait(60)

    def asked(self, command: str, **more: Any) -> dict[str, Any]:
        try:
            return ask_core(self.control, {"command": command, **more}, timeout=60.0)
        except CoreUnreachable:
            return {}

    def send(self, count: int) -> Counter[str]:
        """Send mail of the pool; from which addresses the other side got it."""
        before = self.sink.seen.copy()
        with smtplib.SMTP("127.0.0.1", self.mail.port) as session:
            for _ in range(count):
                self._sent += 1
                session.mail("a@news.example")
                session.rcpt(f"user{self._sent}@localhost")
                session.data(b"Subject: test\r\n\r\ntext\r\n")
        until(lambda: self.sink.seen.total() == before.total() + count)
        return self.sink.seen - before

    def told(self, *kinds: str) -> list[tuple[str, str]]:
        """What the audit says."""
        changes = self.asked("changes")["changes"]
        return [(each["kind"], each["by_whom"]) for each in changes if each["kind"] in kinds]

    def stored(self) -> int:
        with contextlib.closing(sqlite3.connect(self.store)) as database:
            row = database.execute("SELECT promised FROM warm_up WHERE provider = '*'").fetchone()
        return row[0] if row else 0

    def promised(self) -> int:
        (found,) = self.asked("warm-up")["warm_ups"]
        return int(found["providers"][0]["promised"])


def until(condition: Callable[[], object], *, within: float = 60.0) -> None:
    """Wait for what other processes do."""
    deadline, pause = time.monotonic() + within, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        pause.wait(0.05)


@pytest.fixture
def site() -> Iterator[Site]:
    directory = Path(tempfile.mkdtemp(prefix="pools-"))  # pytest's own may not be entered by user postfix
    directory.chmod(0o755)
    with Sink() as sink:
        threading.Thread(target=sink.serve_forever, daemon=True).start()
        made = Site(directory, sink)
        with made.mail:
            yield made
        sink.shutdown()
    shutil.rmtree(directory)


def test_mail_leaves_from_the_addresses_of_the_pool_as_figures_and_signs_say(site: Site) -> None:
    with site.core() as core:
        first = site.send(40)
        assert first == Counter({OLD: 30, NEW: 10})  # ten a day, and of 40 both would get twenty
        until(lambda: site.stored() == 10)  # a second may be lost, and is not what is looked at here
        core.kill()
        core.wait(60)
    with site.core():
        assert site.promised() == 10
        assert site.send(10) == Counter({OLD: 10})
        ip_1 = {"signal": "listed", "kind": "address", "object": OLD, "provider": "*", "evidence": "listed by zen"}
        said = site.asked("react", do="signs", signs=[ip_1])
        assert [(each["object"], each["do"]) for each in said["reactions"]] == [("ip-1", "leave-pool")]
        decision = site.asked("ask", request={"sender": "a@news.example", "recipient": "b@localhost"})
        assert decision["action"] == "DUNNO"
        assert "ip-1: listed (out)" in decision["why"]
        assert "ip-2: its 10 of today are spent" in decision["why"]
        site.asked("react", do="undo", object=OLD, who="jo")
        assert site.send(5) == Counter({OLD: 5})
        until(lambda: site.told("reacted", "undone") == [("reacted", "react"), ("undone", "jo")])
