"""`sidecar parse --messages`: the messages of a log over its files, as the lifecycle tells them line by line."""

import gzip
import json
from collections import Counter
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from parsers.log import LogReader
from parsers.postfix.facts import Rejected
from policies.lifecycle import Lifecycle
from policies.message_json import message_json
from sidecar.cli import sidecar
from sidecar.config import Config
from tests.test_lifecycle import EVERYTHING, records

WANTED = [message_json(record) for record in records(EVERYTHING, Lifecycle())]


def said(*arguments: str | Path) -> str:
    result = CliRunner().invoke(sidecar, ["parse", "--tz", "UTC", *map(str, arguments)], obj=Config())
    assert result.exit_code == 0, result.output
    return result.stdout


def in_any_order(messages: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(message) for message in messages)


@pytest.mark.parametrize("cut", [0, len(EVERYTHING) // 3, len(EVERYTHING) // 2, len(EVERYTHING)])
def test_messages_over_rotated_files(cut: int, tmp_path: Path) -> None:
    older, newer = tmp_path / "mail.log.1.gz", tmp_path / "mail.log"
    older.write_bytes(gzip.compress("".join(f"{line}\n" for line in EVERYTHING[:cut]).encode()))
    newer.write_text("".join(f"{line}\n" for line in EVERYTHING[cut:]))
    found = [json.loads(line) for line in said("--messages", older, newer).splitlines()]
    assert in_any_order(found) == in_any_order(json.loads(json.dumps(WANTED)))


def test_sums_of_messages(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    refused = "NOQUEUE: reject: RCPT from a.example[192.0.2.1]: 554 5.7.1 <b@b.example>: Relay access denied; from=<> to=<b@b.example>"
    refusing = f"2025-06-01T12:00:00+00:00 mx1 postfix/smtpd[7]: {refused} proto=ESMTP helo=<a.example>"
    log.write_text("".join(f"{line}\n" for line in [refusing, refusing, *EVERYTHING]))
    facts = LogReader(zone=UTC).block_facts(log.read_bytes())
    codes = Counter(fact.code for fact in facts if isinstance(fact, Rejected) and not fact.queue_id)
    assert codes["554"] > 2
    ends = Counter(message["end"] for message in WANTED)
    statuses = Counter(one["status"] for message in WANTED for one in message["recipients"])
    assert json.loads(said("--messages", "--stats", "--json", log)) == {
        "messages": ends,
        "recipients": statuses,
        "refused": codes,
    }
    table = {tuple(line.split()) for line in said("--messages", "--stats", log).splitlines()}
    assert (str(ends["removed"]), "messages", "removed") in table
    assert (str(codes["554"]), "refused", "with", "554") in table
    assert (str(statuses["sent"]), "recipients", "sent") in table


def test_what_a_message_says(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    begin = "2025-06-01T12:00:0"
    log.write_text(
        f"{begin}0+00:00 mx1 postfix/smtpd[7]: 4TgXyz1MTHz9sPk: client=a.example[192.0.2.1]\n"
        f"{begin}0+00:00 mx1 postfix/cleanup[8]: 4TgXyz1MTHz9sPk: message-id=<1@a.example>\n"
        f"{begin}1+00:00 mx1 postfix/qmgr[9]: 4TgXyz1MTHz9sPk: from=<>, size=9, nrcpt=1 (queue active)\n"
        f"{begin}2+00:00 mx1 postfix/lane-01/smtp[5]: 4TgXyz1MTHz9sPk: to=<b@b.example>, relay=mx.b.example[192.0.2.2]:25,"
        " delay=2, delays=1/0/0.5/0.5, dsn=2.0.0, status=sent (250 ok)\n"
        f"{begin}2+00:00 mx1 postfix/qmgr[9]: 4TgXyz1MTHz9sPk: removed\n"
    )
    assert json.loads(said("--messages", log)) == {
        "queue_ids": ["4TgXyz1MTHz9sPk"],
        "host": "mx1",
        "instance": "postfix",
        "end": "removed",
        "arrival": "2025-06-01T12:00:00+00:00",
        "ended": "2025-06-01T12:00:02+00:00",
        "sender": "",
        "message_id": "<1@a.example>",
        "client_host": "a.example",
        "client_address": "192.0.2.1",
        "size": 9,
        "recipients": [
            {
                "recipient": "b@b.example",
                "status": "sent",
                "dsn": "2.0.0",
                "reason": "250 ok",
                "relay_host": "mx.b.example",
                "relay_address": "192.0.2.2",
                "service": "lane-01",
                "daemon": "smtp",
                "attempts": 1,
                "first_attempt": "2025-06-01T12:00:02+00:00",
                "last_attempt": "2025-06-01T12:00:02+00:00",
            }
        ],
    }


def test_a_file_that_is_none(tmp_path: Path) -> None:
    broken = tmp_path / "mail.log.2.gz"
    broken.write_bytes(b"no gzip")
    result = CliRunner().invoke(sidecar, ["parse", "--messages", str(broken)], obj=Config())
    assert result.exit_code == 2
    assert result.stderr.startswith(f"sidecar: {broken}: cannot be read: ")
