"""A real IMAP server: Dovecot, private, on a port of the loopback; and servers that say what a test tells them."""

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
from dataclasses import dataclass
from pathlib import Path

from sidecar.config import ImapConfig, ImapTls
from sidecar.lab.ports import free_ports

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
namespace inbox {{
  inbox = yes
  mailbox Junk {{
    auto = create
    special_use = \\Junk
  }}
}}
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


@contextmanager
def dovecot() -> Iterator[Dovecot]:
    """A private server with one user, `reports`, whose folder Junk is marked as such."""
    place = Path(tempfile.mkdtemp(prefix="dovecot-"))
    place.chmod(0o755)
    port, tls_port = free_ports(2)
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
        until = time.monotonic() + 60
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
        server.wait(60)
        shutil.rmtree(place)


@contextmanager
def imap_server(password_file: Path, talk: Callable[[socket.socket], None]) -> Iterator[ImapConfig]:
    """A server of the test's own, for one connection."""
    password_file.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as client:
                talk(client)

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        yield ImapConfig("127.0.0.1", "reports", str(password_file), port=port, tls=ImapTls.NONE)
        thread.join()
