"""A session with an IMAP server (RFC 9051), by the standard library's client; blocking, so it runs in a thread.

Knows how one begins and ends, and what the server's words are without the client's quotation marks.
"""

import contextlib
import imaplib
import socket
import ssl
import threading
from collections.abc import Generator, Sequence

from sidecar.config import ImapConfig, ImapTls

SECONDS = 30.0
"""For one answer of the server."""


@contextlib.contextmanager
def connected(
    config: ImapConfig, password: str, *, ca_file: str = "", whole: float = 0.0
) -> Generator[imaplib.IMAP4, None, None]:
    """Log in, and out at the end.

    `whole`: seconds after which the session is cut, for a server may send a byte now and then for ever; 0: never.
    Raises imaplib.IMAP4.error, OSError, ssl.SSLError.
    """
    context = ssl.create_default_context(cafile=ca_file or None)
    open_now: list[imaplib.IMAP4] = []
    cut = threading.Timer(whole, _cut, (open_now,))
    cut.daemon = True
    if whole:
        cut.start()
    server: imaplib.IMAP4
    try:
        server = _Encrypted(config, open_now, context) if config.tls is ImapTls.TLS else _Plain(config, open_now)
        try:
            if config.tls is ImapTls.STARTTLS:
                server.starttls(context)
            server.login(config.user, password)
            yield server
        finally:
            with contextlib.suppress(imaplib.IMAP4.error, OSError):
                server.logout()
    finally:
        cut.cancel()


class _Plain(imaplib.IMAP4):
    """Can be cut from its first byte on: imaplib waits for a greeting before it gives the session away."""

    def __init__(self, config: ImapConfig, open_now: list[imaplib.IMAP4]) -> None:
        self._open_now = open_now
        super().__init__(config.host, config.port, timeout=SECONDS)

    def open(self, host: str = "", port: int = 143, timeout: float | None = None) -> None:
        super().open(host, port, timeout)
        self._open_now.append(self)


class _Encrypted(imaplib.IMAP4_SSL):
    """The same over TLS."""

    def __init__(self, config: ImapConfig, open_now: list[imaplib.IMAP4], context: ssl.SSLContext) -> None:
        self._open_now = open_now
        super().__init__(config.host, config.port, ssl_context=context, timeout=SECONDS)

    def open(self, host: str = "", port: int | None = None, timeout: float | None = None) -> None:
        super().open(host, port, timeout)
        self._open_now.append(self)


def _cut(open_now: Sequence[imaplib.IMAP4]) -> None:
    for server in open_now:
        with contextlib.suppress(OSError):  # not its shutdown(), which would wait for the very read that is to end
            server.sock.shutdown(socket.SHUT_RDWR)


def asked(answer: tuple[str, Sequence[bytes | None]]) -> list[bytes]:
    """Give the lines of an answer. Raises imaplib.IMAP4.error with the server's words where it says no."""
    status, data = answer
    if status != "OK":
        said = b" ".join(each for each in data if isinstance(each, bytes)).decode("utf-8", "replace")
        raise imaplib.IMAP4.error(f"the server says {status}: {said[:200]}")
    return [each or b"" for each in data] or [b""]


def quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def words(error: BaseException) -> str:
    """What it says, without the bytes' quotation marks that imaplib leaves around a server's words."""
    first = error.args[0] if error.args else ""
    said = first.decode("utf-8", "replace") if isinstance(first, bytes) else str(error)
    return (said or type(error).__name__)[:300]
