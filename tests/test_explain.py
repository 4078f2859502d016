"""`sidecar explain`: the line, the fact, the rule and the change."""

import json
from pathlib import Path

from click.testing import CliRunner

from sidecar.config import Config
from sidecar.explain import command
from tests.world import GOOGLE_DKIM

LOG = (
    "2026-11-21T10:00:00+00:00 mx1 postfix/qmgr[10]: 4jX2kb4B5rzJFrk: from=<n@burst.example>, size=9, nrcpt=1 (queue active)\n"
    "2026-11-21T10:00:01+00:00 mx1 postfix/smtp[11]: 4jX2kb4B5rzJFrk: to=<u@gmail.com>, "
    "relay=gmail-smtp-in.l.google.com[192.0.2.1]:25, delay=1, delays=0/0/0.3/0.7, dsn=4.7.28, status=deferred "
    f"(host gmail-smtp-in.l.google.com[192.0.2.1] said: {GOOGLE_DKIM.format(domain='burst.example')} "
    "(in reply to end of DATA command))\n"
    "2026-11-21T10:00:02+00:00 mx1 dovecot: imap-login: Login\n"
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
