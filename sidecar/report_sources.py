"""The table of places that report mail is taken from, as a site has configured them."""

from pathlib import Path

from sidecar.config import Config
from sidecar.report_imap import ImapFolder
from sidecar.report_maildir import Maildir
from sidecar.report_mbox import Mbox
from sidecar.report_source import Source


def local_sources(config: Config) -> list[Source]:
    """What lies on this machine, first of all what the pipe handed over."""
    settings = config.report_mail
    return [
        Maildir(config.report_spool, spool=True),
        *(Maildir(Path(each)) for each in settings.maildir),
        *(Mbox(Path(each), emptied=settings.mbox_emptied) for each in settings.mbox),
    ]


def remote_sources(config: Config) -> list[Source]:
    """Mailboxes on other servers."""
    return [ImapFolder(each, ca_file=config.outside.ca_file) for each in config.report_mail.imap]
