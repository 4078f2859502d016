"""Report mail from a real IMAP server: Dovecot, private, on a port of the loopback."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.config import ImapTls
from sidecar.report_imap import KEYWORD, ImapFolder
from sidecar.report_source import SourceError
from tests import dovecot_world
from tests.dovecot_world import Dovecot

pytestmark = pytest.mark.postfix  # it needs root, as Dovecot changes users


@pytest.fixture(name="dovecot", scope="module")
def _dovecot() -> Iterator[Dovecot]:
    with dovecot_world.dovecot() as server:
        yield server


@pytest.fixture(autouse=True)
def _emptied(dovecot: Dovecot) -> Iterator[None]:
    yield
    with dovecot.client() as client:
        client.select("INBOX")
        if client.search(None, "ALL")[1][0]:
            client.store("1:*", "+FLAGS", r"(\Deleted)")
            client.expunge()


def taken(folder: ImapFolder) -> list[bytes]:
    found = []
    for mail in folder.mails():
        found.append(mail.data)
        mail.done(True)
    return found


MAILS = [b"Subject: %d\r\n\r\nText\r\n" % i for i in range(3)]


def test_each_mail_is_taken_once_and_stays_unread(dovecot: Dovecot) -> None:
    dovecot.append(*MAILS)
    assert taken(ImapFolder(dovecot.config)) == MAILS
    assert taken(ImapFolder(dovecot.config)) == []
    dovecot.append(b"Subject: late\r\n\r\n")
    assert taken(ImapFolder(dovecot.config)) == [b"Subject: late\r\n\r\n"]
    with dovecot.client() as client:
        client.select("INBOX", readonly=True)
        assert len(client.search(None, "UNSEEN")[1][0].split()) == 4
        assert len(client.search(None, "KEYWORD", KEYWORD)[1][0].split()) == 4


def test_what_a_person_has_read_is_taken_all_the_same(dovecot: Dovecot) -> None:
    dovecot.append(*MAILS)
    with dovecot.client() as client:
        client.select("INBOX")
        client.store("1:*", "+FLAGS", r"(\Seen)")
    assert taken(ImapFolder(dovecot.config)) == MAILS


def test_what_was_not_stored_comes_again(dovecot: Dovecot) -> None:
    dovecot.append(*MAILS)
    for i, mail in enumerate(ImapFolder(dovecot.config).mails()):
        if i == 1:
            break
        mail.done(True)
    assert taken(ImapFolder(dovecot.config)) == MAILS[1:]


def test_a_large_mail_is_cut(dovecot: Dovecot) -> None:
    dovecot.append(b"a: b\r\n\r\n" + b"x" * (17 << 20))
    (mail,) = taken(ImapFolder(dovecot.config))
    assert len(mail) == (16 << 20) + 1


def test_another_folder(dovecot: Dovecot) -> None:
    with dovecot.client() as client:
        client.create('"Report \\"mail\\""')
    dovecot.append(MAILS[0], folder='"Report \\"mail\\""')
    assert taken(ImapFolder(replace(dovecot.config, folder='Report "mail"'))) == MAILS[:1]


def test_encrypted(dovecot: Dovecot) -> None:
    dovecot.append(MAILS[0], MAILS[1])
    at_once = replace(dovecot.config, port=dovecot.tls_port, tls=ImapTls.TLS)
    later = replace(dovecot.config, tls=ImapTls.STARTTLS)
    for config in (at_once, later):
        with pytest.raises(SourceError, match="certificate verify failed"):
            taken(ImapFolder(config))
    (mail, _) = ImapFolder(at_once, ca_file=dovecot.certificate).mails()
    assert mail.data == MAILS[0]
    assert taken(ImapFolder(later, ca_file=dovecot.certificate)) == MAILS[:2]


TROUBLES = {
    "a wrong password": ({}, "secre", "[Aa]uthentication failed"),
    "no such folder": ({"folder": "Nowhere"}, "secret", "the server says NO: Mailbox doesn't exist: Nowhere"),
    "nobody there": ({"port": 1}, "secret", "[Cc]onnection refused"),
}


@pytest.mark.parametrize(("setting", "password", "why"), TROUBLES.values(), ids=list(TROUBLES))
def test_troubles(dovecot: Dovecot, tmp_path: Path, setting: dict[str, str], password: str, why: str) -> None:
    (tmp_path / "password").write_text(password)
    config = replace(dovecot.config, password_file=str(tmp_path / "password"), **setting)  # type: ignore[arg-type]  # rows
    with pytest.raises(SourceError, match=why):
        taken(ImapFolder(config))


def test_a_password_that_cannot_be_read(dovecot: Dovecot, tmp_path: Path) -> None:
    config = replace(dovecot.config, password_file=str(tmp_path / "none"))
    with pytest.raises(SourceError, match=r"password_file .* cannot be read"):
        taken(ImapFolder(config))


@contextmanager
def answering(tmp_path: Path, talk: Callable[[socket.socket], None]) -> Iterator[ImapFolder]:
    with dovecot_world.imap_server(tmp_path / "password", talk) as config:
        yield ImapFolder(config)


@pytest.mark.parametrize("greeting", [b"", b"* BYE not now\r\n", b"SSH-2.0-x\r\n", b"* OK hello\r\n"])
def test_a_server_that_hangs_up(tmp_path: Path, greeting: bytes) -> None:
    with (
        answering(tmp_path, lambda client: client.sendall(greeting)) as folder,
        pytest.raises(SourceError, match=r"imap:reports@127\.0\.0\.1/INBOX: "),
    ):
        taken(folder)


def test_a_server_that_keeps_no_keywords(tmp_path: Path) -> None:
    asked: list[str] = []
    says = {
        "CAPABILITY": "* CAPABILITY IMAP4rev1",
        "SELECT": "* 1 EXISTS\r\n* OK [PERMANENTFLAGS (\\Seen \\Deleted)] some",
        "UID SEARCH": "* SEARCH 7",
        "UID FETCH": "* 1 FETCH (UID 7 BODY[]<0> {4}\r\nmail)",
        "LOGOUT": "* BYE",
    }

    def talk(client: socket.socket) -> None:
        client.sendall(b"* OK hello\r\n")
        with client.makefile("r", newline="\r\n") as lines:
            for line in lines:
                tag, _, command = line.strip().partition(" ")
                asked.append(command)
                said = next((text + "\r\n" for name, text in says.items() if command.startswith(name)), "")
                client.sendall(f"{said}{tag} OK done\r\n".encode())

    with answering(tmp_path, talk) as folder:
        assert taken(folder) == [b"mail"]
    assert "UID SEARCH UNSEEN UNDELETED" in asked
    assert "UID STORE 7 +FLAGS.SILENT (\\Seen)" in asked
