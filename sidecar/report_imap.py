"""A folder on an IMAP server (RFC 9051, with the standard library's client; blocking, so it runs in a thread).

Knows how to mark what was read: with a keyword of ours, so that a person who reads the mailbox takes nothing from us.
"""

import contextlib
import functools
import imaplib
import ssl
from collections.abc import Generator, Sequence
from pathlib import Path

from parsers.reports.mime import MESSAGE_MAX
from sidecar.config import ImapConfig, ImapTls
from sidecar.report_source import Mail, SourceError

KEYWORD = "SidecarTaken"
SEEN = "\\Seen"
"""What a server that keeps no keywords is left with."""
SECONDS = 30.0
ROUND_MAX = 500
"""Mails of one look; the rest waits for the next one."""


class ImapFolder:
    def __init__(self, config: ImapConfig, *, ca_file: str = "") -> None:
        self._config = config
        self._ca_file = ca_file

    @property
    def name(self) -> str:
        return f"imap:{self._config.user}@{self._config.host}/{self._config.folder}"

    def mails(self) -> Generator[Mail, None, None]:
        """What has no mark of ours, oldest first. Raises SourceError."""
        try:
            with self._connected() as server:
                mark = self._select(server)
                wanted = ("UNSEEN",) if mark == SEEN else ("UNKEYWORD", mark)
                for uid in self._asked(server.uid("SEARCH", *wanted, "UNDELETED"))[0].split()[:ROUND_MAX]:
                    data = self._fetch(server, uid.decode())
                    if data is not None:
                        yield Mail(uid.decode(), data, functools.partial(self._mark, server, uid.decode(), mark))
        except (imaplib.IMAP4.error, OSError, ssl.SSLError) as error:
            raise SourceError(f"{self.name}: {_words(error)}") from error

    @contextlib.contextmanager
    def _connected(self) -> Generator[imaplib.IMAP4, None, None]:
        config = self._config
        try:
            password = Path(config.password_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(
                f"report_mail.imap: password_file {config.password_file}: cannot be read: {error}"
            ) from error
        context = ssl.create_default_context(cafile=self._ca_file or None)
        server: imaplib.IMAP4
        if config.tls is ImapTls.TLS:
            server = imaplib.IMAP4_SSL(config.host, config.port, ssl_context=context, timeout=SECONDS)
        else:
            server = imaplib.IMAP4(config.host, config.port, timeout=SECONDS)
        try:
            if config.tls is ImapTls.STARTTLS:
                server.starttls(context)
            server.login(config.user, password)
            yield server
        finally:
            with contextlib.suppress(imaplib.IMAP4.error, OSError):
                server.logout()

    def _select(self, server: imaplib.IMAP4) -> str:
        """Open the folder; with what its mails can be marked."""
        self._asked(server.select(_quoted(self._config.folder)))
        if server.is_readonly:
            raise SourceError(f"{self.name}: may only be read; mails could not be marked as taken")
        _, flags = server.response("PERMANENTFLAGS")
        allowed = b" ".join(each for each in flags if isinstance(each, bytes))
        return KEYWORD if b"\\*" in allowed or KEYWORD.encode() in allowed else SEEN

    def _fetch(self, server: imaplib.IMAP4, uid: str) -> bytes | None:
        """The mail, as far as one is taken in; None where it is gone."""
        _, answer = server.uid("FETCH", uid, f"(BODY.PEEK[]<0.{MESSAGE_MAX + 1}>)")
        return next((each[1] for each in answer if isinstance(each, tuple)), None)

    def _mark(self, server: imaplib.IMAP4, uid: str, mark: str, _: bool) -> None:  # noqa: FBT001  # as Mail.done
        try:
            self._asked(server.uid("STORE", uid, "+FLAGS.SILENT", f"({mark})"))
        except (imaplib.IMAP4.error, OSError) as error:
            raise SourceError(f"{self.name}: {_words(error)}") from error

    def _asked(self, answer: tuple[str, Sequence[bytes | None]]) -> list[bytes]:
        status, data = answer
        if status != "OK":
            said = b" ".join(each for each in data if isinstance(each, bytes)).decode("utf-8", "replace")
            raise SourceError(f"{self.name}: the server says {status}: {said[:200]}")
        return [each or b"" for each in data] or [b""]


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _words(error: BaseException) -> str:
    """What it says, without the bytes' quotation marks that imaplib leaves around a server's words."""
    first = error.args[0] if error.args else ""
    said = first.decode("utf-8", "replace") if isinstance(first, bytes) else str(error)
    return (said or type(error).__name__)[:300]
