"""`sidecar report-mail` and `sidecar ingest`: how report mail comes in by a pipe, and by hand.

Neither writes the store, which belongs to the outside process: mails are handed over to it in a directory.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from parsers.reports.mime import MESSAGE_MAX
from sidecar import rules
from sidecar.config import Config, ConfigError
from sidecar.own_log import printable
from sidecar.report_imap import ImapFolder
from sidecar.report_intake import Intake, Read
from sidecar.report_maildir import Maildir, hand_over
from sidecar.report_mbox import Mbox
from sidecar.report_source import Mail, Source, SourceError


class _Files:
    """Mails that are files, "-" for standard input."""

    name = "file"

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = paths

    def mails(self) -> Iterator[Mail]:
        for path in self._paths:
            try:
                with contextlib.nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as file:
                    yield Mail(path, file.read(MESSAGE_MAX + 1), lambda _: None)
            except OSError as error:
                raise SourceError(f"{path}: cannot be read: {error.strerror}") from error


@click.command(epilog="Example: sidecar ingest --dry-run report.eml")
@click.argument("files", nargs=-1)
@click.option("--maildir", "maildirs", multiple=True, type=click.Path(path_type=Path), help="Take what is in its new/.")
@click.option(
    "--mbox", "mboxes", multiple=True, type=click.Path(path_type=Path), help="Take all of it; it stays as it is."
)
@click.option("--imap", is_flag=True, help="Take from the folders of [[report_mail.imap]].")
@click.option("--dry-run", is_flag=True, help="Only say what the mails are; nothing is taken or marked.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a mail, with all that it says.")
@click.pass_obj
def ingest(
    config: Config,
    *,
    files: tuple[str, ...],
    maildirs: tuple[Path, ...],
    mboxes: tuple[Path, ...],
    imap: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take report mail in by hand: FILES are single mails ("-" or nothing: one on standard input).

    Says of each what it is, and hands it over to the outside process, which counts it once however often it comes.
    Exit status 1 when one was refused, 2 when a source cannot be read or a mail not handed over.
    """
    named = [*map(Maildir, maildirs), *map(Mbox, mboxes)]
    if imap:
        named += [ImapFolder(each, ca_file=config.outside.ca_file) for each in config.report_mail.imap]
    sources: list[Any] = [*named, *([_Files(files or ("-",))] if files or not named else [])]
    intake = Intake(config.report_mail, rules.load(config.rules.directory))
    try:
        read = list(_taken(sources, intake, config.report_spool, dry_run=dry_run))
    except SourceError as error:
        raise ConfigError(str(error)) from error
    _print(read, as_json=as_json)
    sys.exit(1 if any(each.mail.kind == "refused" for _, each in read) else 0)


def _taken(sources: Iterable[Source], intake: Intake, spool: Path, *, dry_run: bool) -> Iterator[tuple[str, Read]]:
    """Each mail's name and what it says; handed over before it is acknowledged. Raises SourceError."""
    for source in sources:
        for mail in source.mails():
            read = intake.read(mail.data, source=source.name, now=time.time())
            if not dry_run:
                try:
                    hand_over(spool, mail.data)
                except OSError as error:
                    raise SourceError(f"{spool}: cannot be written: {error.strerror}") from error
                mail.done(True)
            yield f"{source.name} {mail.name}", read


def _print(read: list[tuple[str, Read]], *, as_json: bool) -> None:
    if as_json:
        for name, each in read:
            click.echo(json.dumps({"name": name, **_said(each)}))
        return
    table = Table("mail", "kind", "from", "trusted", "says")
    for name, each in read:
        trusted = "yes" if each.mail.trusted else "no"
        table.add_row(
            printable(name), each.mail.kind, printable(each.mail.reporter), trusted, printable(_in_words(each))
        )
    Console().print(table)


def _said(read: Read) -> dict[str, Any]:
    return {
        **read.mail._asdict(),
        "events": [{name: value for name, value in each._asdict().items() if value != ""} for each in read.events],
        "reports": [
            {"organization": each.organization, "report_id": each.report_id, "begin": each.begin, "end": each.end}
            for each in read.reports
        ],
    }


def _in_words(read: Read) -> str:
    events = [f"{each.kind} {each.detail or each.type} {each.recipient_domain}".strip() for each in read.events[:3]]
    reports = [f"{each.organization} {each.report_id}" for each in read.reports]
    return "; ".join((*events, *reports, *filter(None, (read.mail.why,))))


@click.command("report-mail", epilog="Example: sidecar report-mail /var/lib/sidecar/report-mail")
@click.argument("directory", type=click.Path(path_type=Path))
def report_mail(directory: Path) -> None:
    """Hand a mail on standard input over to the outside process, in DIRECTORY (report-mail below store.path).

    For a pipe of Postfix. Reads no configuration and looks at nothing in the mail. Exit status 0, or 75 (EX_TEMPFAIL)
    where it cannot be written to disk: Postfix then keeps the mail and tries again, and nobody gets a bounce.
    """
    try:
        data = sys.stdin.buffer.read(MESSAGE_MAX + 1)
        while sys.stdin.buffer.read(1 << 20):  # so that the writer is not cut off; what is too long is refused later
            pass
        hand_over(directory, data)
    except (OSError, MemoryError) as error:
        click.echo(f"sidecar: {directory}: cannot be written: {error}", err=True)
        sys.exit(os.EX_TEMPFAIL)
