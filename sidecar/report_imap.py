"""A folder on an IMAP server (RFC 9051, with the standard library's client; blocking, so it runs in a thread).

Knows how to mark what was read: with a keyword of ours, so that a person who reads the mailbox takes nothing from us.
"""

import functools
import imaplib
import ssl
from collections.abc import Generator
from pathlib import Path

from parsers.reports.mime import MESSAGE_MAX
from sidecar.config import ImapConfig
from sidecar.imap import asked, connected, quoted, words
from sidecar.report_source import Mail, SourceError

KEYWORD = "SidecarTaken"
SEEN = "\\Seen"
"""What a server that keeps no keywords is left with."""
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
            with connected(self._config, self._password(), ca_file=self._ca_file) as server:
                mark = self._select(server)
                wanted = ("UNSEEN",) if mark == SEEN else ("UNKEYWORD", mark)
                for uid in asked(server.uid("SEARCH", *wanted, "UNDELETED"))[0].split()[:ROUND_MAX]:
                    data = self._fetch(server, uid.decode())
                    if data is not None:
                        yield Mail(uid.decode(), data, functools.partial(self._mark, server, uid.decode(), mark))
        except (imaplib.IMAP4.error, OSError, ssl.SSLError) as error:
            raise SourceError(f"{self.name}: {words(error)}") from error

    def _password(self) -> str:
        try:
            return Path(self._config.password_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(
                f"report_mail.imap: password_file {self._config.password_file}: cannot be read: {error}"
            ) from error

    def _select(self, server: imaplib.IMAP4) -> str:
        """Open the folder; with what its mails can be marked."""
        asked(server.select(quoted(self._config.folder)))
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
            asked(server.uid("STORE", uid, "+FLAGS.SILENT", f"({mark})"))
        except (imaplib.IMAP4.error, OSError) as error:
            raise SourceError(f"{self.name}: {words(error)}") from error
