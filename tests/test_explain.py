"""`sidecar explain`: the line, the fact, the rule and the change."""

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sidecar.cli import sidecar
from sidecar.config import Config
from sidecar.explain import command
from tests.backtest_log import LogText
from tests.world import GOOGLE_DKIM

LOG = (
    "2025-11-21T10:00:00+00:00 mx1 postfix/qmgr[10]: 4jX2kb4B5rzJFrk: from=<n@burst.example>, size=9, nrcpt=1 (queue active)\n"
    "2025-11-21T10:00:01+00:00 mx1 postfix/smtp[11]: 4jX2kb4B5rzJFrk: to=<u@gmail.com>, "
    "relay=gmail-smtp-in.l.google.com[192.0.2.1]:25, delay=1, delays=0/0/0.3/0.7, dsn=4.7.28, status=deferred "
    f"(host gmail-smtp-in.l.google.com[192.0.2.1] said: {GOOGLE_DKIM.format(domain='burst.example')} "
    "(in reply to end of DATA command))\n"
    "2025-11-21T10:00:02+00:00 mx1 dovecot: imap-login: Login\n"
)


def run(*arguments: str, log: Path) -> str:
    result = CliRunner().invoke(command, [*arguments, str(log)], obj=Config())
    assert result.exit_code == 0, result.output
    return result.output


def test_a_refusal_is_explained(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_text(LOG)
    said = run(log=log)
    assert "rule    google/rate-dkim-domain" in said
    assert "change  dkim-domain:burst.example@google opened: by google/rate-dkim-domain" in said
    assert "dovecot" not in said


def test_every_line_as_json(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_text(LOG)
    told = [json.loads(line) for line in run("--json", log=log).splitlines()]
    assert [line["line"] for line in told] == LOG.splitlines()
    assert [fact["fact"] for line in told for fact in line["facts"]] == ["QueueActive", "DeliveryAttempt"]
    assert told[1]["changes"][0]["line"] in LOG


def test_what_time_alone_changes_is_told_with_its_time(tmp_path: Path) -> None:
    text = LogText()
    text.message(0.0, "deferred")
    text.message(1800.0, "sent")
    log = tmp_path / "mail.log"
    log.write_text(text.text)
    said = run("--tz", "UTC", log=log)
    assert "opened: by google/rate-dkim-domain\n" in said
    assert "burst.example@google probing: 0 waiting (2025-11-21 10:10:00, by time)" in said
    assert "burst.example@google ramping: 0 waiting\n" in said


def test_classic_stamps_take_zone_and_year(tmp_path: Path) -> None:
    log = tmp_path / "mail.log.gz"
    log.write_bytes(gzip.compress(b"Nov 21 10:00:00 mx1 postfix/qmgr[10]: 4jX2kb4B5rzJFrk: removed\n"))
    (told,) = map(json.loads, run("--json", "--all", "--tz", "+02:00", "--year", "2024", log=log).splitlines())
    assert told["facts"][0]["time"] == "2024-11-21T10:00:00+02:00"


def test_hosts_do_not_mix(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    texts = LogText("mx1"), LogText("mx2")
    for text in texts:
        text.message(0.0, "deferred")
    log.write_text("".join(text.text for text in texts))
    assert run(log=log).count("opened: by google/rate-dkim-domain") == 2


@pytest.mark.parametrize(
    "contents", [b"", b"\0\xff\xfe\x1b[2J\n\n", b"x" * 3_000_000, LOG.encode().replace(b"\n", b"\r\n")]
)
def test_any_bytes_are_shown_harmlessly(tmp_path: Path, contents: bytes) -> None:
    log = tmp_path / "mail.log"
    log.write_bytes(contents)
    said = run("--all", log=log)
    assert "\x1b" not in said
    assert "\0" not in said


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    log = tmp_path / "mail.log.gz"
    log.write_bytes(b"no gzip")
    result = CliRunner().invoke(sidecar, ["explain", str(log)], obj=Config())
    assert result.exit_code == 2
    assert f"{log}: cannot be read" in result.output
