"""The fragments for those who wire by hand say what the program would do, and Postfix takes them."""

import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar import check, postfix, wiring_plan
from sidecar.config import Config, PostfixConfig
from sidecar.lab.private_postfix import PrivatePostfix

pytestmark = pytest.mark.postfix

HERE = Path(__file__).parent.parent / "postfix-conf"
WIRING = {"recipient-check-late", "recipient-check-missing", "end-of-data-check-late", "end-of-data-check-missing",
          "not-wired", "default-action", "policy-timeout", "header-checks", "long-queue-ids"}  # fmt: skip


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="conf-"))  # pytest's own may not be entered by user postfix
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def settings() -> dict[str, str]:
    """main.cf.fragment, as postconf would be given it."""
    text = re.sub(r"^#.*\n", "", (HERE / "main.cf.fragment").read_text(), flags=re.MULTILINE)
    found = {}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        name, _, value = entry.partition("=")
        found[name.strip()] = " ".join(value.split())
    return found


def by_hand(place: Path, loop_port: int = 10041) -> PrivatePostfix:
    """A Postfix that was wired with nothing but these files."""
    entries = (HERE / "master.cf.fragment").read_text().replace("10041", str(loop_port))
    mail = PrivatePostfix(place / "postfix", main_cf=settings(), master_cf="")
    master_cf = mail.config_directory / "master.cf"
    own = "".join(line for line in master_cf.read_text().splitlines(keepends=True) if not line.startswith("pickup"))
    master_cf.write_text(own + entries)
    (mail.config_directory / "sidecar").mkdir()
    shutil.copy(HERE / "header_checks.regexp", mail.config_directory / "sidecar")
    return mail


def test_the_table_is_the_programs_own() -> None:
    assert (HERE / "header_checks.regexp").read_text() == wiring_plan.HEADER_CHECKS_TEXT


def test_postfix_takes_the_fragments_and_so_does_check(place: Path) -> None:
    mail = by_hand(place)
    assert postfix.check(mail.config_directory) == []
    found = check.look(Config(postfix=PostfixConfig(config_directory=str(mail.config_directory))), user="nobody")
    assert WIRING.isdisjoint(finding.id for finding in found)


def test_every_parameter_is_explained() -> None:
    said = (HERE / "README.md").read_text()
    for name in settings():
        assert name in said


def test_mail_from_sendmail_is_asked_about_by_way_of_the_loopback(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mail = by_hand(place, port)
    with mail, socket.socket(socket.AF_UNIX) as listener:
        path = mail.queue_directory / "private" / "sidecar"
        listener.bind(str(path))
        shutil.chown(path, "postfix")
        listener.listen()
        asked: list[dict[str, str]] = []
        thread = threading.Thread(target=answer, args=(listener, asked))
        thread.start()
        subprocess.run(
            ["sendmail", "-C", str(mail.config_directory), "-f", "a@snd.example", "b@one.example"],
            input=b"From: shop@snd.example\nSubject: test\n\ntext\n", check=True,
        )  # fmt: skip
        thread.join(60)
        log = logged(mail, "info: header From:")
    assert [one["protocol_state"] for one in asked] == ["RCPT", "END-OF-MESSAGE"]
    assert asked[1]["sender"] == "a@snd.example"
    assert f"{asked[1]['queue_id']}: info: header From: shop@snd.example from" in log
    assert log.count("info: header From:") == 1


def logged(mail: PrivatePostfix, words: str) -> str:
    """The log, once postlogd has written a line with these words."""
    pause = threading.Event()
    for _ in range(1000):
        log = mail.maillog.read_text()
        if words in log:
            return log
        pause.wait(0.01)
    raise AssertionError(f"{words!r} was never logged")


def answer(listener: socket.socket, asked: list[dict[str, str]]) -> None:
    """Answer two questions with DUNNO."""
    listener.settimeout(60)
    connection, _ = listener.accept()
    with connection, connection.makefile("rw") as stream:
        question: dict[str, str] = {}
        for line in stream:
            name, _, value = line.rstrip("\n").partition("=")
            if name:
                question[name] = value
                continue
            asked.append(question)
            question = {}
            stream.write("action=DUNNO\n\n")
            stream.flush()
            if len(asked) == 2:
                return
