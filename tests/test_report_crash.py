"""kill -9 at each moment of taking a mail in: afterwards it is there, and counts once."""

import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.database import Database
from sidecar.outside_store import SCHEMA
from sidecar.report_maildir import hand_over
from tests.test_report_intake import MAILS, count

ROOT = Path(__file__).parents[1]
NAMES = ("arf-yahoo", "dsn-postfix", "dmarc-7489", "tls-google")
PROCESS = """
import asyncio, os, pathlib, signal, sys
from sidecar import report_maildir, report_mbox, report_store, rules
from sidecar.config import Config, ReportMailConfig
from sidecar.database import Database
from sidecar.outside_store import SCHEMA
from sidecar.report_intake import Intake, ReportMail
place, point, nth = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
left = nth

def dies(owner, name, after):
    real = getattr(owner, name)
    def dying(*arguments, **named):
        global left
        left -= 1
        if not left and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, dying)

match point:
    case "in the transaction": dies(report_store.ReportStore, "_add_report", True)
    case "before the commit": dies(report_store.ReportStore, "add", False)
    case "after the commit": dies(report_store.ReportStore, "add", True)
    case "after the acknowledgement": dies(report_maildir.Maildir, "_done", True); dies(report_mbox.Mbox, "_done", True)
    case "before the file is emptied": dies(os, "ftruncate", False)
    case "after the file is emptied": dies(os, "ftruncate", True)
settings = ReportMailConfig(authserv_ids=("mx.example.com",))
reports = ReportMail(Config(report_mail=settings), Intake(settings, rules.load()),
                     Database.open(place / "outside.db", SCHEMA), lambda _: None)
for source in (report_maildir.Maildir(place / "box"), report_maildir.Maildir(place / "spool", spool=True),
               report_mbox.Mbox(place / "mbox", emptied=True)):
    assert asyncio.run(reports.drain(source)) == ""
"""
POINTS = (
    *[
        (point, nth)
        for point in ("before the commit", "after the commit", "after the acknowledgement")
        for nth in (1, 2, 4)
    ],
    *[("in the transaction", nth) for nth in (1, 2)],
    ("before the file is emptied", 1),
    ("after the file is emptied", 1),
)


def run(place: Path, point: str, nth: int) -> int:
    return subprocess.run([sys.executable, "-c", PROCESS, place, point, str(nth)], cwd=ROOT, check=False).returncode


@pytest.mark.parametrize(("point", "nth"), POINTS)
def test_killed(tmp_path: Path, point: str, nth: int) -> None:
    hand_over(tmp_path / "box", MAILS[NAMES[0]])
    hand_over(tmp_path / "box", MAILS[NAMES[2]])
    hand_over(tmp_path / "spool", MAILS[NAMES[3]])
    (tmp_path / "mbox").write_bytes(b"From x\n" + MAILS[NAMES[1]])

    assert run(tmp_path, point, nth) == -9
    assert run(tmp_path, "never", 0) == 0

    database = Database.open(tmp_path / "outside.db", SCHEMA)
    tables = ("report_mail", "report_event", "dmarc_report", "dmarc_row", "tls_report", "tls_row")
    assert [count(database, table) for table in tables] == [4, 3, 1, 2, 1, 2]
    database.close()
    assert (tmp_path / "mbox").stat().st_size == 0
    assert [len(list((tmp_path / each).iterdir())) for each in ("box/new", "box/cur", "spool/new", "spool/cur")] == [
        0,
        2,
        0,
        0,
    ]
