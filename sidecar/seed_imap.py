"""Looks for test mail in a mailbox, and takes away what was found and is ours; blocking, so it runs in a thread.

Knows how to delete one mail and no other: by its UID, and never by closing a folder.
"""

import contextlib
import imaplib
import time
from collections.abc import Callable, Collection, Generator, Sequence
from pathlib import Path
from typing import NamedTuple

from parsers.seed_mailbox import FIELDS, Folder, Seen, folders, seen, spam_folders
from policies.placement import Place
from sidecar.config import SeedConfig
from sidecar.imap import asked, connected, quoted, words

LOOK_SECONDS = 60.0
"""Beyond this a look is given up."""
MAILS_MAX = 1000
"""Of a folder, the newest of the days in question."""
_SLACK = 2 * 86_400.0
"""SINCE counts days, in the server's own zone."""


class MailboxError(Exception):
    """A mailbox that cannot be looked into: which, and why."""


class Landed(NamedTuple):
    tag: str
    place: Place
    folder: str
    arrived_at: float
    """0 where nothing tells."""


class Mailbox:
    """One session."""

    def __init__(self, server: imaplib.IMAP4, seed: SeedConfig) -> None:
        self._server = server
        self._seed = seed
        # Asked again: before a login servers tell of little, and imaplib remembers only that.
        self._can = asked(server.capability())[0].decode("ascii", "replace").upper().split()
        self._found: list[tuple[str, str]] = []
        """(folder, UID) of mails that are ours."""

    def find(self, tags: Collection[str], *, since: float, everywhere: bool) -> list[Landed]:
        """Look for mails with these tags: where mail arrives and in spam; `everywhere`: then in all other folders."""
        there = self._folders()
        spam = spam_folders(there, self._seed.spam)
        if self._seed.spam and not spam:
            raise MailboxError(f"no folder {' or '.join(self._seed.spam)}; there is {', '.join(_names(there)[:20])}")
        inbox = self._seed.imap.folder
        places = [(inbox, Place.INBOX), *((name, Place.SPAM) for name in spam)]
        known = {name for name, _ in places}
        if everywhere:
            places += [(name, Place.ELSEWHERE) for name in _names(there) if name not in known]
        landed: dict[str, Landed] = {}
        for folder, place in places:
            if landed.keys() >= set(tags):
                break
            for mail in self._mails(folder, since=since, must=place is not Place.ELSEWHERE):
                if mail.tag in tags:
                    landed.setdefault(mail.tag, Landed(mail.tag, place, folder, mail.arrived_at))
                    self._found.append((folder, mail.uid))
        return list(landed.values())

    def remove(self) -> None:
        """Take away what was found; only mark it where the server can no more: a bare EXPUNGE may take other mail."""
        alone = "UIDPLUS" in self._can  # RFC 4315
        for folder, uid in self._found:
            asked(self._server.select(quoted(folder)))
            asked(self._server.uid("STORE", uid, "+FLAGS.SILENT", r"(\Deleted)"))
            if alone:
                asked(self._server.uid("EXPUNGE", uid))

    def _folders(self) -> list[Folder]:
        lines: Sequence[object]
        if "SPECIAL-USE" in self._can:
            asked(self._server.xatom("LIST", '""', '"*"', "RETURN", "(SPECIAL-USE)"))
            lines = self._server.response("LIST")[1]
        else:
            status, lines = self._server.list()
            asked((status, _lines(lines)))
        return folders(lines)

    def _mails(self, folder: str, *, since: float, must: bool) -> Sequence[Seen]:
        """Give the test mails of a folder; none where it cannot be opened and need not be (`must`)."""
        answer: Sequence[object]
        # SELECT and not EXAMINE: what is found is to be deleted here. Nothing is marked as read (BODY.PEEK).
        status, said = self._server.select(quoted(folder))
        if status != "OK" and not must:
            return ()
        asked((status, _lines(said)))
        day = time.strftime("%d-%b-%Y", time.gmtime(since - _SLACK))
        uids = asked(self._server.uid("SEARCH", "SINCE", day))[0].split()[-MAILS_MAX:]
        if not uids:
            return ()
        status, answer = self._server.uid("FETCH", b",".join(uids).decode(), FIELDS)
        asked((status, _lines(answer)))
        return seen(answer)


def _lines(answer: Sequence[object]) -> list[bytes]:
    """Of an answer that may hold literals, the rest."""
    return [each for each in answer if isinstance(each, bytes)]


def _names(there: Sequence[Folder]) -> list[str]:
    return [folder.name for folder in there if folder.selectable]


@contextlib.contextmanager
def mailbox(seed: SeedConfig, *, ca_file: str = "", whole: float = LOOK_SECONDS) -> Generator[Mailbox, None, None]:
    """Log in to a seed's mailbox; whatever fails in there is a MailboxError."""
    config = seed.imap
    try:
        password = Path(config.password_file).read_text(encoding="utf-8").strip()
        with connected(config, password, ca_file=ca_file, whole=whole) as server:
            yield Mailbox(server, seed)
    except (imaplib.IMAP4.error, OSError, ValueError) as error:
        raise MailboxError(f"{config.user}@{config.host}: {words(error)}") from error
    except MailboxError as error:
        raise MailboxError(f"{config.user}@{config.host}: {error}") from error


def look(
    seed: SeedConfig,
    tags: Collection[str],
    *,
    since: float,
    everywhere: bool,
    found: Callable[[Sequence[Landed]], None],
    ca_file: str = "",
) -> None:
    """Look once. What was found is told to `found` before it is taken away. Raises MailboxError."""
    with mailbox(seed, ca_file=ca_file) as session:
        landed = session.find(tags, since=since, everywhere=everywhere)
        if landed:
            found(landed)
            session.remove()
