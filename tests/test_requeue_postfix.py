"""Requeueing under a real Postfix: what waits for an address that was listed leaves from another one of its pool."""

import contextlib
import json
import re
import shutil
import smtplib
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.control import CoreUnreachable, ask_core
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.transport_table import TransportTable
from tests.test_pools_postfix import ASK, MASTER, NEW, OLD, until

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.postfix


class Session(socketserver.StreamRequestHandler):
    """Refuses one address for now, and remembers who got what from which other."""

    def handle(self) -> None:
        assert isinstance(self.server, Provider)
        self.wfile.write(b"220 provider ESMTP\r\n")
        recipient = ""
        while line := self.rfile.readline():
            verb, answer = line[:4].upper(), b"250 ok\r\n"
            if verb == b"RCPT":
                recipient = line.decode().partition("<")[2].partition(">")[0]
                if self.client_address[0] == OLD:
                    answer = b"451 4.7.1 your address is on a blocklist\r\n"
                    self.server.refused[recipient] += 1
            elif verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                while self.rfile.readline() not in {b".\r\n", b""}:
                    pass
                self.server.taken[recipient, self.client_address[0]] += 1
            self.wfile.write(answer)
            if verb == b"QUIT":
                return


class Provider(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.refused: Counter[str] = Counter()
        self.taken: Counter[tuple[str, str]] = Counter()


class Site:
    """A Postfix whose mail of a pool goes to the provider, with core and helper at it."""

    def __init__(self, directory: Path, provider: Provider) -> None:
        self.provider = provider
        self.table = f"lmdb:{directory}/store/transport"
        self.mail = PrivatePostfix(
            directory / "postfix",
            main_cf={
                "enable_long_queue_ids": "yes",
                "smtpd_recipient_restrictions": f"{ASK}, permit_mynetworks, reject",
                "smtpd_end_of_data_restrictions": ASK,
                "smtp_tcp_port": str(provider.server_address[1]),
                "smtp_dns_support_level": "disabled",
                "smtp_host_lookup": "native",
                "default_transport": "discard",
                "transport_maps": self.table,
                "minimal_backoff_time": "3600s",
            },
            master_cf=MASTER,
        )
        (directory / "store").mkdir(mode=0o700)
        (directory / "run").mkdir()
        TransportTable(self.table, self.mail.config_directory).update({})
        self.configuration = directory / "sidecar.toml"
        self.configuration.write_text(
            f'mode = "act"\nruntime_directory = "{directory}/run"\n'
            f'[log]\nsource = "{self.mail.maillog}"\n[store]\npath = "{directory}/store"\n'
            f'[postfix]\nconfig_directory = "{self.mail.config_directory}"\ntransport_table = "{self.table}"\n'
            '[[route]]\ntransport = "pool:bulk"\nwhen = "sender_domain in (news.example, shop.example)"\n'
            '[[pool]]\nname = "bulk"\n'
            'transports = [{ transport = "ip-1", weight = 1000 }, { transport = "ip-2", weight = 0.001 }]\n'
            '[[react]]\nname = "out"\nsignal = "listed"\ndo = "leave-pool"\nrequeue = true\n'
        )
        self.control = directory / "run" / "control"

    def sidecar(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "sidecar", "--config", str(self.configuration), *words]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for words in ("queue-helper", "core"):
                process = stack.enter_context(subprocess.Popen(self.sidecar(words), cwd=ROOT))
                stack.callback(process.wait, 60)
                stack.callback(process.terminate)
            until(lambda: self.asked("status").get("log", {}).get("followed"))
            yield

    def asked(self, command: str, **more: Any) -> dict[str, Any]:
        try:
            return ask_core(self.control, {"command": command, **more}, timeout=60.0)
        except CoreUnreachable:
            return {}

    def commanded(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(self.sidecar(*words), cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def site() -> Iterator[Site]:
    directory = Path(tempfile.mkdtemp(prefix="requeue-"))  # pytest's own may not be entered by user postfix
    directory.chmod(0o755)
    with Provider() as provider:
        threading.Thread(target=provider.serve_forever, daemon=True).start()
        made = Site(directory, provider)
        with made.mail:
            yield made
        provider.shutdown()
    shutil.rmtree(directory)


def test_mail_that_waits_for_a_listed_address_leaves_by_another(site: Site) -> None:
    """One part by command, the other by the rule that takes the address out of its pool."""
    recipients = [f"user{i}@localhost" for i in range(12)]
    with site.running():
        with smtplib.SMTP("127.0.0.1", site.mail.port) as session:
            for i, one in enumerate(recipients):
                sender = "a@shop.example" if i % 2 else "a@news.example"
                session.sendmail(sender, [one], "Subject: test\r\n\r\ntext\r\n")
        until(lambda: len(site.provider.refused) == len(recipients))
        until(lambda: len(list(site.mail.queue_files("deferred"))) == len(recipients))
        assert site.commanded("requeue", "--transport", "ip-1", "--to", "pool:none") == (
            2,
            "sidecar: to: no pool is called none; known: bulk\n",
        )
        command = "requeue --transport ip-1 --to ip-2 --rate 600/m --name shop --json --where"
        status, said = site.commanded(*command.split(), "sender_domain = shop.example")
        assert (status, json.loads(said)["subqueue"]["key"]) == (0, "stream:shop@*")
        until(lambda: len(list(site.mail.queue_files("hold"))) == len(recipients) // 2)
        listed = {"signal": "listed", "kind": "address", "object": OLD, "provider": "*", "evidence": "listed by zen"}
        site.asked("react", do="signs", signs=[listed])
        until(lambda: len(list(site.mail.queue_files("hold"))) == len(recipients))
        until(lambda: site.provider.taken.total() == len(recipients), within=90.0)
        assert site.provider.taken == Counter({(one, NEW): 1 for one in recipients})
        until(lambda: not site.mail.postqueue())
        assert max(site.provider.refused.values()) == 1, "nothing was tried over the listed address again"
        log = site.mail.maillog.read_text()
        assert len(re.findall(r"postsuper\[\d+\]: \w+: requeued$", log, re.MULTILINE)) == len(recipients)
        assert "status=bounced" not in log
        until(lambda: requeued(site) == len(recipients))


def requeued(site: Site) -> int:
    changes = site.asked("changes", limit=5000)["changes"]
    return sum(each["messages"] for each in changes if each["kind"] == "requeued" and each["rule"] == "by-hand")
