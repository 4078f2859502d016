"""Report mail from a real IMAP server: Dovecot, private, on a port of the loopback."""

import imaplib
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sidecar.config import ImapConfig, ImapTls
from sidecar.report_imap import KEYWORD, ImapFolder
from sidecar.report_source import SourceError

pytestmark = pytest.mark.postfix  # it needs root, as Dovecot changes users

SETTINGS = """\
base_dir = {place}/run
state_dir = {place}/state
log_path = {place}/log
protocols = imap
listen = 127.0.0.1
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = nobody
first_valid_uid = 1
mail_location = maildir:{place}/mail:INBOX={place}/mail
mail_uid = {user}
mail_gid = {user}
ssl = yes
ssl_cert = <{place}/cert.pem
ssl_key = <{place}/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid={user} gid={user} home={place}/mail
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = {tls_port}
    ssl = yes
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@dataclass
class Dovecot:
    place: Path
    config: ImapConfig
    tls_port: int

    @property
    def certificate(self) -> str:
        return str(self.place / "cert.pem")

    @contextmanager
    def client(self) -> Iterator[imaplib.IMAP4]:
        with imaplib.IMAP4("127.0.0.1", self.config.port) as client:
            client.login("reports", "secret")
            yield client

    def append(self, *mails: bytes, folder: str = "INBOX") -> None:
        with self.client() as client:
            for mail in mails:
                client.append(folder, "", "", mail)


@pytest.fixture(name="dovecot", scope="module")
def _dovecot() -> Iterator[Dovecot]:
    place = Path(tempfile.mkdtemp(prefix="dovecot-"))
    place.chmod(0o755)
    port, tls_port = free_port(), free_port()
    user = pwd.getpwnam("mail").pw_name
    (place / "mail").mkdir()
    shutil.chown(place / "mail", user, user)
    (place / "password").write_text("secret\n")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    key = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*key, "-keyout", place / "key.pem", "-out", place / "cert.pem"], check=True, capture_output=True)
    settings = place / "dovecot.conf"
    settings.write_text(SETTINGS.format(place=place, port=port, tls_port=tls_port, user=user))
    server = subprocess.Popen(["dovecot", "-F", "-c", settings], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", tls_port)).close()
                break
            except OSError:
                assert time.monotonic() < until, (place / "log").read_text()
                time.sleep(0.05)
        config = ImapConfig("127.0.0.1", "reports", str(place / "password"), port=port, tls=ImapTls.NONE)
        yield Dovecot(place, config, tls_port)
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(place)


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
    """A server of the test's own."""
    (tmp_path / "password").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as client:
                talk(client)

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        yield ImapFolder(ImapConfig("127.0.0.1", "reports", str(tmp_path / "password"), port=port, tls=ImapTls.NONE))
        thread.join()


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
