"""`sidecar report-mail` behind a pipe of Postfix, which never bounces because of us, and `sidecar ingest` by hand."""

import json
import os
import re
import shutil
import smtplib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from sidecar.cli import sidecar
from sidecar.config import Config, ReportMailConfig, StoreConfig
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.report_maildir import hand_over
from tests.test_report_intake import MAILS

ROOT = Path(__file__).parents[1]
FRAGMENT = ROOT / "postfix-conf" / "report-mail.master.cf.fragment"
PROGRAM = (sys.executable, "-m", "sidecar", "report-mail")


def piped(directory: Path, mail: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PROGRAM, directory], cwd=ROOT, input=mail, capture_output=True, check=False)


def test_a_mail_from_a_pipe(tmp_path: Path) -> None:
    assert piped(tmp_path / "spool", b"a: b\n\n\xff\0").returncode == 0
    (file,) = (tmp_path / "spool" / "new").iterdir()
    assert file.read_bytes() == b"a: b\n\n\xff\0"


def test_a_mail_that_is_too_long_is_taken_and_refused_later(tmp_path: Path) -> None:
    assert piped(tmp_path / "spool", bytes(20 << 20)).returncode == 0
    (file,) = (tmp_path / "spool" / "new").iterdir()
    assert file.stat().st_size == (16 << 20) + 1


def test_where_nothing_can_be_written_postfix_is_to_try_again(tmp_path: Path) -> None:
    (tmp_path / "spool").touch()
    ran = piped(tmp_path / "spool", b"a: b\n\n")
    assert (ran.returncode, ran.stdout) == (os.EX_TEMPFAIL, b"")
    assert b"cannot be written" in ran.stderr


# Under a real Postfix.


@pytest.fixture(name="place")
def _place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="report-"))  # pytest's own may not be entered by user nobody
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def fragment(program: str, spool: Path) -> str:
    text = FRAGMENT.read_text()
    assert "/usr/bin/sidecar" in text
    text = text.replace("/usr/bin/sidecar", program).replace("/var/lib/sidecar/report-mail", str(spool))
    return text.replace("user=sidecar", "user=nobody")


def outcome(place: Path, program: str, *, spool_mode: int) -> str:
    """What becomes of a mail to the pipe: the line of the log."""
    spool = place / "spool"
    spool.mkdir()
    spool.chmod(spool_mode)
    settings = {"transport_maps": "inline:{fbl@shop.example=sidecar-report:}", "smtpd_recipient_restrictions": "permit"}
    with PrivatePostfix(place / "postfix", main_cf=settings, master_cf=fragment(program, spool)) as postfix:
        with smtplib.SMTP("127.0.0.1", postfix.port) as client:
            client.sendmail("", ["fbl@shop.example"], MAILS["arf-yahoo"].decode())
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if found := re.search(r"relay=sidecar-report.*", postfix.maillog.read_text()):
                return found[0]
            time.sleep(0.05)
    raise AssertionError("no outcome")


SIDECAR = f"cd {ROOT} && exec {sys.executable} -m sidecar"


def program(place: Path, text: str) -> str:
    path = place / "sidecar"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.postfix
def test_the_fragment_delivers(place: Path) -> None:
    """By a stand-in that does what the program does, for user nobody may not enter every place it could lie in."""
    taken = program(place, 'test "$1" = report-mail && cat > "$2/mail"')
    assert "status=sent" in outcome(place, taken, spool_mode=0o777)
    assert (place / "spool" / "mail").stat().st_uid != 0
    mail = (place / "spool" / "mail").read_bytes()
    assert mail.startswith(b"Return-Path: <")
    assert b"Feedback-Type: abuse" in mail


@pytest.mark.postfix
@pytest.mark.parametrize(
    "text",
    ["exit 1", "exit 2", "exit 127", "kill -9 $$", "echo 5.1.1; echo no such user; exit 67", f"exit {os.EX_TEMPFAIL}"],
)
def test_whatever_fails_is_deferred_and_never_bounced(place: Path, text: str) -> None:
    line = outcome(place, program(place, text), spool_mode=0o700)
    assert "status=deferred" in line
    assert "sidecar: 5.1.1 no such user" in line or "no such user" not in text


@pytest.mark.postfix
def test_a_program_that_is_not_there_defers(place: Path) -> None:
    assert "status=deferred" in outcome(place, str(place / "nothing"), spool_mode=0o700)


# By hand.


def run(tmp_path: Path, *arguments: str, mail: bytes | None = None) -> tuple[int, str, str]:
    config = Config(
        store=StoreConfig(path=str(tmp_path / "lib")), report_mail=ReportMailConfig(authserv_ids=("mx.example.com",))
    )
    ran = CliRunner().invoke(sidecar, ["ingest", *arguments], obj=config, input=mail, catch_exceptions=False)
    return ran.exit_code, ran.stdout, ran.stderr


def spooled(tmp_path: Path) -> int:
    new = tmp_path / "lib" / "report-mail" / "new"
    return len(list(new.iterdir())) if new.exists() else 0


def test_one_mail_by_hand(tmp_path: Path) -> None:
    status, out, _ = run(tmp_path, "--json", mail=MAILS["arf-yahoo"])
    said = json.loads(out)
    assert (status, said["kind"], said["trusted"], said["events"][0]["feedback_id"]) == (
        0,
        "complaint",
        True,
        "autumn:c7:news:shop",
    )
    assert spooled(tmp_path) == 1


def test_a_dry_run_takes_nothing(tmp_path: Path) -> None:
    hand_over(tmp_path / "box", MAILS["dmarc-7489"])
    status, out, _ = run(tmp_path, "--dry-run", "--maildir", str(tmp_path / "box"))
    assert status == 0
    assert "dmarc" in out
    assert spooled(tmp_path) == 0
    assert len(list((tmp_path / "box" / "new").iterdir())) == 1


def test_mailboxes_by_hand(tmp_path: Path) -> None:
    hand_over(tmp_path / "box", MAILS["dmarc-7489"])
    (tmp_path / "mbox").write_bytes(b"From x\n" + MAILS["tls-google"] + b"\nFrom x\n" + MAILS["no-report"])
    status, out, _ = run(tmp_path, "--json", "--maildir", str(tmp_path / "box"), "--mbox", str(tmp_path / "mbox"))
    assert (status, [json.loads(line)["kind"] for line in out.splitlines()]) == (0, ["dmarc", "tls", "other"])
    assert spooled(tmp_path) == 3
    assert list((tmp_path / "box" / "new").iterdir()) == []


def test_what_is_refused_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "mail").write_bytes(MAILS["dmarc-without-an-id"])
    status, out, _ = run(tmp_path, "--dry-run", "--json", str(tmp_path / "mail"))
    assert (status, json.loads(out)["why"]) == (1, "a DMARC report without its report_id")


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    status, _, err = run(tmp_path, str(tmp_path / "nothing"))
    assert (status, "cannot be read: No such file" in err) == (2, True)
