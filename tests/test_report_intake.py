"""Report mail on its way into the store: each counts once, none is lost, forged ones take nobody's place."""

import asyncio
import fcntl
import gzip
import json
import mailbox
import os
import threading
import tomllib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from policies.reported import FEED
from policies.stored_address import hash_of
from sidecar import report_intake, report_store, rules
from sidecar.config import Config, ReportMailConfig, StoreConfig
from sidecar.database import Database, StoreUnavailable
from sidecar.outside_store import SCHEMA, OutsideStore
from sidecar.report_intake import Intake, ReportMail
from sidecar.report_maildir import KEPT_MAX, Maildir, hand_over
from sidecar.report_mbox import Mbox
from sidecar.report_source import Mail, Source, SourceError
from sidecar.report_store import MailRow, ReportStore
from tests.test_reports_hostile import HEAD, RECORD, TAIL, attached, records

NOW = 1_795_086_000.0
MAILS = {
    file.stem: tomllib.loads(file.read_text())["mail"].encode()
    for file in (Path(__file__).parent / "reports").glob("*.toml")
}
SETTINGS = ReportMailConfig(authserv_ids=("mx.example.com",))


@pytest.fixture(name="intake", scope="module")
def _intake() -> Intake:
    return Intake(SETTINGS, rules.load())


@pytest.fixture(name="database")
def _database(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(tmp_path / "outside.db", SCHEMA)
    yield database
    database.close()


def count(database: Database, table: str, where: str = "1") -> int:
    ((number,),) = database.rows(f"SELECT count(*) FROM {table} WHERE {where}")  # noqa: S608  # words of these tests
    return int(number)


def take(intake: Intake, database: Database, mail: bytes, *, now: float = NOW) -> report_intake.Taken:
    return intake.take(ReportStore(database), mail, source="test", now=now)


# The store.


def test_the_same_mail_counts_once(intake: Intake, database: Database) -> None:
    for name in ("arf-yahoo", "dsn-postfix", "dmarc-7489", "tls-google"):
        assert not take(intake, database, MAILS[name]).known
        assert take(intake, database, MAILS[name]).known
    tables = ("report_mail", "report_event", "dmarc_report", "dmarc_row", "tls_report", "tls_row")
    assert [count(database, table) for table in tables] == [4, 3, 1, 2, 1, 2]


def test_the_same_report_in_another_mail_counts_once(intake: Intake, database: Database) -> None:
    """Delivered to two mailboxes, or sent again."""
    for name in ("arf-yahoo", "dsn-postfix", "dmarc-7489", "tls-google"):
        for way in (b"", b"Delivered-To: reports@shop.example\n"):
            take(intake, database, way + MAILS[name])
    tables = ("report_mail", "report_event", "dmarc_report", "dmarc_row", "tls_report", "tls_row")
    assert [count(database, table) for table in tables] == [8, 3, 1, 2, 1, 2]


@pytest.mark.parametrize("name", ["arf-yahoo", "dmarc-7489", "tls-google"])
def test_a_forged_report_keeps_no_true_one_out(intake: Intake, database: Database, name: str) -> None:
    tables = {"arf-yahoo": "report_event", "dmarc-7489": "dmarc_report", "tls-google": "tls_report"}
    forged = MAILS[name].replace(b"Authentication-Results", b"X-Results", 1).replace(b">120<", b">12000<")
    take(intake, database, forged)
    assert count(database, tables[name], "NOT trusted") == 1
    take(intake, database, MAILS[name])
    take(intake, database, b"Delivered-To: x\n" + forged)
    assert count(database, tables[name], "trusted") == 1
    assert count(database, tables[name]) == 1
    assert count(database, "dmarc_row", "messages > 120") == 0


def test_recipients_are_hashed(intake: Intake, database: Database) -> None:
    take(intake, database, MAILS["arf-yahoo"])
    assert database.rows("SELECT recipient, recipient_domain FROM report_event") == [
        (hash_of("USER@yahoo.example"), "yahoo.example")
    ]


def test_what_is_vouched_for_goes_to_core_once_and_what_a_stranger_says_does_not(
    intake: Intake, database: Database
) -> None:
    forged = MAILS["arf-yahoo"].replace(b"Authentication-Results", b"X-Results", 1)
    for mail in (forged, MAILS["arf-yahoo"], MAILS["arf-yahoo"]):
        take(intake, database, mail)
    ((body,),) = database.rows("SELECT body FROM suppression_outbox")
    said = json.loads(body)
    assert said["kind"] == "complaint"
    assert "@" in said["recipient"]
    assert said["domain"]
    assert said["evidence"].startswith("complaint by ")


def test_a_stranger_does_not_fill_the_disk(intake: Intake, database: Database) -> None:
    taken = take(intake, database, attached(gzip.compress(records(3000))))
    assert (taken.read.mail.trusted, taken.added.rows) == (False, report_store.UNTRUSTED_ROWS)
    proved = b"Authentication-Results: mx.example.com; dkim=pass header.d=google.com\n"
    assert take(intake, database, proved + attached(gzip.compress(records(3000)))).added.rows == 3000
    assert count(database, "dmarc_row") == 3000


def test_pruning_reports(intake: Intake, database: Database) -> None:
    for name in ("arf-yahoo", "dmarc-7489", "dmarc-9990", "tls-mail-ru"):
        take(intake, database, MAILS[name])
    store = ReportStore(database)
    day = 86_400.0
    assert store.prune(now=NOW + 29 * day, event_seconds=30 * day) == 0
    # The event; the untrusted reports with their rows; at last the rest, and the mails.
    assert store.prune(now=NOW + 31 * day, event_seconds=30 * day) == 1 + 2 + 1 + 3
    assert store.prune(now=NOW + 401 * day, event_seconds=30 * day) == 3 + 4


def test_a_bug_of_ours_costs_one_mail(intake: Intake, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(report_intake, "read_reports", broken)
    row = take(intake, database, MAILS["arf-yahoo"]).read.mail
    assert (row.kind, row.why) == ("refused", "an error of ours: RecursionError: too deep")


# Maildirs.


def all_of(source: Source) -> list[bytes]:
    found = []
    for mail in source.mails():
        found.append(mail.data)
        mail.done(True)
    return found


def test_a_maildir(tmp_path: Path) -> None:
    names = [hand_over(tmp_path, b"mail %d" % i) for i in range(3)]
    (tmp_path / "new" / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "new" / "pipe")
    (tmp_path / "new" / ".hidden").touch()
    assert all_of(Maildir(tmp_path)) == [b"mail 0", b"mail 1", b"mail 2"]
    assert sorted(each.name for each in (tmp_path / "cur").iterdir()) == sorted(f"{name}:2,S" for name in names)
    assert all_of(Maildir(tmp_path)) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_mail_that_was_not_stored_stays_new(tmp_path: Path) -> None:
    hand_over(tmp_path, b"mail")
    for _ in range(2):
        assert [mail.data for mail in Maildir(tmp_path).mails()] == [b"mail"]


def test_what_is_no_maildir(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="wanted a Maildir"):
        all_of(Maildir(tmp_path))
    assert all_of(Maildir(tmp_path, spool=True)) == []


def test_the_spool_keeps_what_was_not_understood(tmp_path: Path) -> None:
    for i in range(KEPT_MAX + 3):
        hand_over(tmp_path, b"mail %d" % i)
    for i, mail in enumerate(Maildir(tmp_path, spool=True).mails()):
        mail.done(i == 0)
    assert list((tmp_path / "new").iterdir()) == []
    assert len(list((tmp_path / "cur").iterdir())) == KEPT_MAX


def test_root_hands_over_what_the_owner_can_take(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(tmp_path, 8, 8)
    name = hand_over(tmp_path / "spool", b"mail")
    made = (tmp_path / "spool", tmp_path / "spool" / "new" / name, tmp_path / "spool" / "cur")
    assert {each.stat().st_uid for each in made} == {8 if os.geteuid() == 0 else os.geteuid()}


def test_a_full_disk_leaves_nothing_in_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        hand_over(tmp_path, b"mail")
    assert [list((tmp_path / each).iterdir()) for each in ("new", "tmp")] == [[], []]


# mbox.


def test_an_mbox(tmp_path: Path) -> None:
    """As another program writes it."""
    path = tmp_path / "mbox"
    box = mailbox.mbox(path)
    for i in range(3):
        box.add(f"Subject: {i}\n\nFrom the start\n>From here\n")
    box.close()
    source = Mbox(path)
    found = all_of(source)
    assert [mail.split(b"\n")[0] for mail in found] == [b"Subject: 0", b"Subject: 1", b"Subject: 2"]
    assert b"\nFrom the start\n" in found[0]
    assert all_of(source) == []
    with path.open("ab") as file:
        file.write(b"From x Thu Nov 19 10:00:00 2026\nSubject: 3\n\nnew\n\n")
    assert all_of(source) == [b"Subject: 3\n\nnew\n\n"]
    assert len(all_of(Mbox(path))) == 4
    assert list(tmp_path.iterdir()) == [path]


def filled(path: Path, mails: int) -> None:
    path.write_bytes(b"".join(b"From x Thu Nov 19 10:00:00 2026\nSubject: %d\n\n\n" % i for i in range(mails)))


def test_an_mbox_is_emptied_when_all_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "mbox"
    filled(path, 3)
    source = Mbox(path, emptied=True)
    for i, mail in enumerate(source.mails()):
        mail.done(True)
        if i == 1:
            break
    assert path.stat().st_size > 0
    assert all_of(source) == [b"Subject: 2\n\n\n"]
    assert path.stat().st_size == 0
    assert all_of(source) == []
    filled(path, 1)
    assert len(all_of(source)) == 1


def test_what_comes_while_an_mbox_is_read_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "mbox"
    filled(path, 1)
    source = Mbox(path, emptied=True)
    found = []
    for mail in source.mails():
        found.append(mail.data)
        if len(found) == 1:  # a delivery, which no lock keeps out now
            with path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.write(b"From x Thu Nov 19 10:00:00 2026\nSubject: late\n\n\n")
        mail.done(True)
    assert found == [b"Subject: 0\n\n\n", b"Subject: late\n\n\n"]
    assert path.stat().st_size == 0


def test_an_mbox_that_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "mbox"
    filled(path, 1)
    source = Mbox(path, patience=0.1)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SourceError, match="locked by another program"):
            all_of(source)
    lock = path.with_name("mbox.lock")
    lock.touch()
    with pytest.raises(SourceError, match="locked by another program"):
        all_of(source)
    os.utime(lock, (0, 0))
    assert len(all_of(source)) == 1
    assert not lock.exists()


def test_what_is_no_mbox(tmp_path: Path) -> None:
    assert all_of(Mbox(tmp_path / "none")) == []
    with pytest.raises(SourceError, match="a directory is a Maildir"):
        all_of(Mbox(tmp_path))


def test_a_mail_without_end_in_an_mbox(tmp_path: Path) -> None:
    path = tmp_path / "mbox"
    with path.open("wb") as file:
        file.write(b"From x\nSubject: large\n\n")
        file.truncate(200 << 20)
    (mail,) = all_of(Mbox(path))
    assert len(mail) == (16 << 20) + 1


# All of it.


def config(tmp_path: Path, **settings: object) -> Config:
    return Config(
        store=StoreConfig(path=str(tmp_path)),
        report_mail=ReportMailConfig(authserv_ids=("mx.example.com",), **settings),  # type: ignore[arg-type]  # a test's own
    )


def test_a_store_that_cannot_be_written_loses_nothing(
    intake: Intake, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(tmp_path / "box", MAILS["arf-yahoo"])
    told: list[MailRow] = []
    reports = ReportMail(config(tmp_path), intake, database, told.append)

    def full(*_: object) -> None:
        raise StoreUnavailable("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(ReportStore, "add", full)
        assert asyncio.run(reports.drain(Maildir(tmp_path / "box"))) == "the store cannot be written"
    assert (told, len(list((tmp_path / "box" / "new").iterdir()))) == ([], 1)
    assert asyncio.run(reports.drain(Maildir(tmp_path / "box"))) == ""
    assert ([row.kind for row in told], count(database, "report_event")) == (["complaint"], 1)


def test_a_crash_between_the_store_and_the_maildir_counts_once(
    intake: Intake, database: Database, tmp_path: Path
) -> None:
    hand_over(tmp_path / "box", MAILS["arf-yahoo"])
    take(intake, database, MAILS["arf-yahoo"])  # stored, and then killed before it moved to cur/
    told: list[MailRow] = []
    asyncio.run(ReportMail(config(tmp_path), intake, database, told.append).drain(Maildir(tmp_path / "box")))
    assert (told, count(database, "report_event")) == ([], 1)
    assert list((tmp_path / "box" / "new").iterdir()) == []


class Unforeseen:
    name = "unforeseen"

    def mails(self) -> Generator[Mail, None, None]:
        yield Mail("1", MAILS["arf-yahoo"], lambda _: None)
        raise IndexError("as no server should")


def test_a_source_that_breaks_harms_no_other_one(intake: Intake, database: Database, tmp_path: Path) -> None:
    reports = ReportMail(config(tmp_path), intake, database, lambda _: None)
    why = asyncio.run(reports.drain(Unforeseen()))
    assert why == "unforeseen: an error of ours: IndexError('as no server should')"
    assert count(database, "report_event") == 1


def test_every_source_is_looked_into(
    intake: Intake, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, maildir=(str(tmp_path / "box"),), mbox=(str(tmp_path / "mbox"),))
    hand_over(settings.report_spool, MAILS["tls-google"])
    hand_over(tmp_path / "box", MAILS["arf-yahoo"])
    (tmp_path / "mbox").write_bytes(b"From x\n" + MAILS["dmarc-7489"] + b"\nFrom x\n" + MAILS["no-report"])
    told: list[str] = []

    async def run() -> None:
        done = asyncio.Event()
        loop = asyncio.get_running_loop()
        polled = OutsideStore.polled

        def written(*arguments: Any, **named: Any) -> None:
            polled(*arguments, **named)
            loop.call_soon_threadsafe(done.set)

        monkeypatch.setattr(OutsideStore, "polled", written)
        monkeypatch.setattr(report_intake, "LOCAL_SECONDS", 0.5)
        reports = ReportMail(settings, intake, database, lambda row: told.append(row.kind))
        running = asyncio.create_task(reports.run())
        await asyncio.wait_for(done.wait(), 60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
    assert sorted(told) == ["complaint", "dmarc", "other", "tls"]
    assert OutsideStore(database).standing(FEED).trouble is None
    assert list((settings.report_spool / "new").iterdir()) == []


class Hanging:
    name = "hanging"

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.goes_on = threading.Event()

    def mails(self) -> Generator[Mail, None, None]:
        self.asked.set()
        self.goes_on.wait(60)
        yield from ()


def test_a_server_that_hangs_keeps_nothing_else_waiting(
    intake: Intake, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging()
    settings = config(tmp_path)
    monkeypatch.setattr(report_intake, "remote_sources", lambda _: [hanging])
    monkeypatch.setattr(report_intake, "LOCAL_SECONDS", 0.05)

    async def run() -> None:
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hears(_: MailRow) -> None:
            loop.call_soon_threadsafe(done.set)

        reports = ReportMail(settings, intake, database, hears)
        running = asyncio.create_task(reports.run())
        await asyncio.to_thread(hanging.asked.wait, 60)
        hand_over(settings.report_spool, MAILS["arf-yahoo"])
        await asyncio.wait_for(done.wait(), 60)
        assert not hanging.goes_on.is_set()
        hanging.goes_on.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
    assert count(database, "report_event") == 1


def test_one_report_from_two_writers_at_once(intake: Intake, tmp_path: Path) -> None:
    """Two threads with a connection each, as when a second process were started by mistake."""
    report = HEAD + RECORD % 7 + TAIL
    databases = [Database.open(tmp_path / "outside.db", SCHEMA) for _ in range(2)]
    threads = [
        threading.Thread(
            target=intake.take,
            args=(ReportStore(database), b"X: %d\n" % i + attached(report)),
            kwargs={"source": "test", "now": NOW},
        )
        for i, database in enumerate(databases)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (count(databases[0], "dmarc_report"), count(databases[0], "report_mail")) == (1, 2)
    for database in databases:
        database.close()
