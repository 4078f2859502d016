"""`sidecar parse`: what it prints, from which files, and what it says of those that it cannot read."""

import bz2
import gzip
import json
import lzma
import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner, Result

from parsers.fact_json import fact_json
from parsers.log import LogReader
from sidecar.bulk import ParseError, first_year
from sidecar.cli import sidecar
from sidecar.config import Config, LogConfig
from sidecar.parse import count_files, parse_files

SENT = (
    "Jun  1 14:00:00 mx1 postfix/lane-01/smtp[77]: 4TgXyz1MTHz9sPk: to=<a@example.com>, relay=mx.example.com[192.0.2.25]:25"
    ", delay=1.2, delays=0.05/0.01/0.43/0.71, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 9B1D2A0045)"
)
REMOVED = "Jun  1 14:00:01 mx1 postfix/qmgr[1]: 4TgXyz1MTHz9sPk: removed"
LOG = f"{SENT}\nJun  1 14:00:01 mx1 dovecot: hi\n{REMOVED}\n".encode()
WRITTEN = datetime(2025, 7, 1, tzinfo=UTC).timestamp()


def run(*arguments: str | Path, config: Config | None = None, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(sidecar, ["parse", *map(str, arguments)], obj=config or Config(), input=stdin)


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "mail.log"
    path.write_bytes(LOG)
    os.utime(path, (WRITTEN, WRITTEN))
    return path


def test_one_object_a_fact(log: Path) -> None:
    assert objects(run("--tz", "Europe/Berlin", log)) == [
        {
            "fact": "DeliveryAttempt",
            "time": "2025-06-01T14:00:00+02:00",
            "host": "mx1",
            "instance": "postfix",
            "service": "lane-01",
            "daemon": "smtp",
            "pid": 77,
            "queue_id": "4TgXyz1MTHz9sPk",
            "recipient": "a@example.com",
            "relay_host": "mx.example.com",
            "relay_address": "192.0.2.25",
            "relay_port": 25,
            "delay": 1.2,
            "delays": [0.05, 0.01, 0.43, 0.71],
            "dsn": "2.0.0",
            "status": "sent",
            "reason": "250 2.0.0 Ok: queued as 9B1D2A0045",
            "reply": {"code": "250", "enhanced": "2.0.0", "text": "Ok: queued as 9B1D2A0045"},
        },
        {
            "fact": "QueueRemoved",
            "time": "2025-06-01T14:00:01+02:00",
            "host": "mx1",
            "instance": "postfix",
            "daemon": "qmgr",
            "pid": 1,
            "queue_id": "4TgXyz1MTHz9sPk",
        },
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "smtpd[1]: disconnect from a.example[192.0.2.9] ehlo=1 rcpt=0/2 commands=1/3",
            {"counts": {"ehlo": [1, 1], "rcpt": [0, 2], "commands": [1, 3]}},
        ),
        ("cleanup[1]: 3F2A81C0B7: message-id=<x>", {"message_id": "<x>", "resent": False}),
        ("pickup[1]: 3F2A81C0B7: uid=0 from=<root>", {"uid": 0, "sender": "root"}),
        (
            "smtp[1]: 3F2A81C0B7: host a.example[192.0.2.9] said: 450 no (in reply to DATA command)",
            {"reply": {"code": "450", "text": "no", "host": "a.example", "address": "192.0.2.9", "command": "DATA"}},
        ),
        (
            "smtp[1]: 3F2A81C0B7: to=<a>, relay=none, new=1, delay=0, delays=0/0/0/0, dsn=4.0.0, status=deferred (\udcff)",
            {"extra": {"new": "1"}, "delay": 0.0, "reason": "\udcff"},
        ),
    ],
)
def test_fields_of_other_facts(text: str, wanted: dict[str, Any]) -> None:
    line = f"2025-06-01T12:00:00.5Z mx1 postfix/{text}".encode("utf-8", "surrogateescape")
    (fact,) = LogReader(zone=UTC).facts(line)
    told = json.loads(json.dumps(fact_json(fact, ZoneInfo("Asia/Kolkata"))))
    assert told["time"] == "2025-06-01T17:30:00.500000+05:30"
    assert {key: told[key] for key in wanted} == wanted
    assert None not in told.values()
    assert "" not in told.values()


def test_statistics(log: Path) -> None:
    told = objects(run("--stats", "--json", log, log))
    assert told == [{"lines": 6, "facts": {"DeliveryAttempt": 2, "QueueRemoved": 2}, "unknown": {"dovecot": 2}}]


def test_statistics_for_people(log: Path) -> None:
    result = run("--stats", log)
    assert result.exit_code == 0
    assert [line.split(maxsplit=1) for line in result.stdout.splitlines()] == [
        ["3", "lines"],
        ["1", "DeliveryAttempt"],
        ["1", "QueueRemoved"],
        ["1", "unknown of dovecot: hi"],
    ]


def test_standard_input() -> None:
    for arguments in ((), ("-",)):
        found = objects(run("--tz", "UTC", "--year", "2019", *arguments, stdin=LOG))
        assert [told["time"] for told in found] == ["2019-06-01T14:00:00+00:00", "2019-06-01T14:00:01+00:00"]


def _zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize(
    ("ending", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress), (".zst", _zstd)]
)
def test_compressed(tmp_path: Path, ending: str, compress: Callable[[bytes], bytes]) -> None:
    if ending == ".zst":
        assert shutil.which("zstd"), "the tests need the program zstd"
    path = tmp_path / f"mail.log.2{ending}"
    path.write_bytes(compress(LOG))
    os.utime(path, (WRITTEN, WRITTEN))
    assert [told["time"][:4] for told in objects(run(path))] == ["2025", "2025"]
    path.write_bytes(compress(LOG * 999)[:-20])
    result = run(path)
    assert result.exit_code == 2
    assert f"{path}: cannot be read" in result.stderr


def test_without_the_program_zstd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mail.log.zst"
    path.write_bytes(b"")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ParseError, match=r"mail\.log\.zst: cannot be read: the program zstd is not installed"):
        count_files([path], zone=UTC)


def test_configured_names(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(LOG.replace(b"postfix/", b"relay/"))
    assert objects(run(path)) == []
    config = Config(log=LogConfig(syslog_names=("relay",)))
    assert [told["instance"] for told in objects(run(path, config=config))] == ["relay", "relay"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tz", "Nowhere/At_All"), "'Nowhere/At_All' is no time zone; wanted a name like Europe/Berlin or an offset like +02:00"),
        (("--tz", "+99:00"), "is no time zone"),
        (("--tz", "../../etc/passwd"), "is no time zone"),
        (("--year", "12"), "12 is not in the range"),
        (("/no/such/file",), "'/no/such/file' does not exist"),
    ],
)  # fmt: skip
def test_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("zone", "offset"), [("+02:00", "+02:00"), ("-0330", "-03:30"), ("UTC", "+00:00"), ("Asia/Tokyo", "+09:00")]
)
def test_zones(log: Path, zone: str, offset: str) -> None:
    assert {told["time"][-6:] for told in objects(run("--tz", zone, log))} == {offset}


def test_help_has_an_example() -> None:
    assert "sidecar parse --stats --json" in run("--help").stdout


def yearly(path: Path, months: str, *, written: str) -> None:
    """A megabyte and a half of lines of each month, the last one of Postfix."""
    with path.open("w") as file:
        for month in months.split():
            file.write(f"{month} 15 12:00:00 mx1 backup: {'x' * 1000}\n" * 1500)
            file.write(f"{month} 15 12:00:00 mx1 postfix/qmgr[1]: 4TgXyz1MTHz9sPk: removed\n")
    time = datetime.fromisoformat(written).timestamp()
    os.utime(path, (time, time))


@pytest.mark.parametrize(
    ("months", "written", "wanted"),
    [
        ("Mar Nov Feb Jul Dec Jan Apr", "2025-04-20", 2023),
        ("Mar Nov Feb Jul", "2025-02-01", 2023),
        ("Nov Jan", "2025-02-01", 2024),
        ("Jan Mar", "2025-04-01", None),
    ],
)
def test_a_file_of_several_years(tmp_path: Path, months: str, written: str, wanted: int | None) -> None:
    path = tmp_path / "mail.log"
    yearly(path, months, written=f"{written}T00:00:00+00:00")
    assert first_year(path, UTC) == wanted
    assert first_year(Path("-"), UTC) is None


def test_a_file_of_several_years_is_read_so(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    yearly(path, "Mar Nov Feb Jul", written="2025-08-01T00:00:00+00:00")
    with (tmp_path / "facts").open("w+") as out:
        statistics = parse_files([path], zone=UTC, out=out)
        out.seek(0)
        found = [json.loads(line)["time"][:7] for line in out]
    assert found == ["2024-03", "2024-11", "2025-02", "2025-07"]
    assert statistics.lines == 4 * 1501
    assert statistics.facts == {"QueueRemoved": 4}


def test_a_file_without_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(b"x" * 3_000_000)
    assert count_files([path], zone=UTC).lines == 1
    path.write_bytes(SENT.encode())
    assert count_files([path], zone=UTC).facts == {"DeliveryAttempt": 1}
