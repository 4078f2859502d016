"""Hosts with mail: a real Postfix that sends to a mail exchanger of the test's, and the queue helper beside it."""

import contextlib
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from sidecar.lab.private_postfix import PrivatePostfix

ROOT = Path(__file__).parents[1]


class MailHost(NamedTuple):
    """A host with mail: its Postfix, its queue helper, and what the key of the other core may run on it."""

    name: str
    directory: Path
    mail: PrivatePostfix

    @property
    def config(self) -> Path:
        return self.directory / "sidecar.toml"

    def on_hold(self) -> int:
        return sum(each.queue_name == "hold" for each in self.mail.postqueue())

    def deferred(self) -> int:
        return sum(each.queue_name == "deferred" for each in self.mail.postqueue())


@contextlib.contextmanager
def mail_host_of(directory: Path, port: int, more: str = "") -> Iterator[MailHost]:
    """`port`: of the mail exchanger; `more` of the configuration, whole tables."""
    directory.mkdir()
    mail = PrivatePostfix(
        directory / "postfix",
        main_cf={"default_transport": f"smtp:[127.0.0.1]:{port}", "enable_long_queue_ids": "yes"},
    )
    host = MailHost(directory.name, directory, mail)
    host.config.write_text(
        f'runtime_directory = "{directory}"\n[store]\npath = "{directory}"\n'
        f'[postfix]\nconfig_directory = "{mail.config_directory}"\n{more}'
    )
    with mail, running(host.config, "queue-helper"):
        yield host


@contextlib.contextmanager
def running(
    config: Path, *words: str, program: tuple[str, ...] = ("-m", "sidecar")
) -> Iterator[subprocess.Popen[bytes]]:
    with (config.parent / "said").open("ab") as said:
        process = subprocess.Popen([sys.executable, *program, "--config", str(config), *words], stderr=said, cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def submit(host: MailHost, count: int) -> None:
    with smtplib.SMTP("127.0.0.1", host.mail.port, timeout=60) as session:
        for number in range(count):
            session.sendmail("news@snd.example", [f"later@{'gmail.com'}"], f"Subject: {number}\r\n\r\nx\r\n")


def until(condition: Callable[[], bool], *, within: float = 90) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
