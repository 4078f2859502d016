"""Channels: what each is sent, within its limits whatever a stranger wrote; and what its answers mean."""

import email
import email.policy
import hashlib
import hmac
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from parsers.feeds.asking import HttpAnswer
from parsers.feeds.dnsbl import Severity
from policies.channels import alertmanager, apprise, mail, pagerduty, slack, webhook
from policies.channels.receipt import Receipt, Result, by_status
from policies.conditions import CONDITIONS, Alert, Turn
from policies.figures import Kind
from policies.incidents import Incidents
from policies.note import NoteKind
from sidecar import channels
from sidecar.channels import Channel, Delivery
from sidecar.cli import sidecar
from sidecar.config import ChannelConfig, ChannelKind, Config, ConfigError
from sidecar.lab.private_postfix import PrivatePostfix
from tests.alert_world import ERRORS, KEY, TOKEN, Alertmanager, PagerDuty, Slack, note, slack_fault
from tests.outside_world import Response, http_server

HOSTILE = "<!channel> & <https://evil.example|bank> `code` \x1b[31m \ud800 \r\nBcc: x@y.example"
LONG = "&" * 100_000
DELIVERY = Delivery("sidecar-1-ops")


def secret_file(directory: Path, text: str) -> str:
    path = directory / "secret"
    path.write_text(f"{text}\n")
    return str(path)


# Forms.


@pytest.mark.parametrize("text", [HOSTILE, LONG, "<" * 5000, "`" * 5000, ""])
def test_slack_takes_whatever_a_stranger_wrote(text: str) -> None:
    made = note(title=text, alerts=(text,) * 8, evidence=(text,) * 8, victims=(text,), actions=(text,), runbook=text)
    body = json.loads(slack.webhook("https://hooks.slack.com/services/T/B/x", made).body)
    assert slack_fault(body) == ""


@given(st.text(max_size=400), st.lists(st.text(max_size=4000), max_size=9))
def test_slack_takes_any_note(title: str, lines: list[str]) -> None:
    made = note(title=title, alerts=tuple(lines), evidence=tuple(lines))
    assert slack_fault({"text": "x", "blocks": slack.blocks(made)}) == ""


def test_a_channels_words_for_people() -> None:
    made = note(alerts=("a.example: 12 % bounced",), link="https://sidecar.example/incident/1")
    body = json.loads(slack.webhook("https://hooks", made).body)
    assert body["text"] == "[FIRING] critical: a.example is unwell"
    assert body["blocks"][1]["text"]["text"] == "*What*\na.example: 12 % bounced"
    assert body["blocks"][-2]["elements"][0]["url"] == "https://sidecar.example/incident/1"


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        (NoteKind.OPENED, "trigger"), (NoteKind.WORSE, "trigger"), (NoteKind.AGAIN, "trigger"),
        (NoteKind.REOPENED, "trigger"), (NoteKind.ACKED, "acknowledge"), (NoteKind.RESOLVED, "resolve"),
        (NoteKind.CLOSED, "resolve"), (NoteKind.TEST, "trigger"),
    ],
)  # fmt: skip
def test_what_pagerduty_is_told(kind: NoteKind, action: str) -> None:
    event = json.loads(pagerduty.event(KEY, note(kind), host="mx7").body)
    assert (event["event_action"], event["dedup_key"]) == (action, "pf-rep:log:a.example:1")
    assert ("payload" in event) == (action == "trigger")


@pytest.mark.parametrize("text", [HOSTILE, LONG])
def test_pagerduty_takes_whatever_a_stranger_wrote(text: str) -> None:
    world = PagerDuty()
    made = note(title=text, alerts=(text,) * 8, evidence=(text,) * 8)
    ask = pagerduty.event(KEY, made, host="mx7")
    with http_server(world) as server:
        answer = channels.post(ask._replace(url=server.url))
    assert isinstance(answer, HttpAnswer)
    assert (answer.status, world.pages) == (202, 1)


def test_a_webhook_is_signed_and_known_again() -> None:
    ask = webhook.request("http://x", b"secret", note(), delivery="sidecar-1-ops", host="mx7", now=1e9)
    headers = dict(ask.headers)
    wanted = hmac.new(b"secret", b"1000000000." + ask.body, hashlib.sha256).hexdigest()
    assert headers["X-Sidecar-Signature"] == f"sha256={wanted}"
    assert (headers["X-Sidecar-Timestamp"], headers["X-Sidecar-Delivery"]) == ("1000000000", "sidecar-1-ops")
    body = json.loads(ask.body)
    assert (body["version"], body["status"], len(body["alerts"])) == ("4", "firing", 1)
    assert "X-Sidecar-Signature" not in dict(
        webhook.request("http://x", b"", note(), delivery="d", host="mx7", now=1e9).headers
    )


def test_mail_has_no_header_of_a_strangers() -> None:
    made = note(title=HOSTILE, evidence=(HOSTILE,))
    text = mail.compose(made, to=["ops@example.com"], sender="", host="mx7.example", delivery="sidecar-1-mail")
    read = email.message_from_bytes(text, policy=email.policy.default)
    assert set(read.keys()) >= {"Subject", "To", "Date", "Message-ID", "Auto-Submitted"}
    assert "Bcc" not in read
    assert "From" not in read
    assert read["Message-ID"] == "<sidecar-1-mail@mx7.example>"
    assert b"\r" not in text
    assert b"\x1b" not in text


def test_alertmanager_hears_each_alert() -> None:
    world, made = Alertmanager(), Incidents()
    for name, firing in (("a.example", True), ("b.example", False)):
        alert = Alert(f"k:{name}", "hard-bounces", "log", name, Kind.DOMAIN, "m", True, Severity.ERROR, fired_at=1e9)
        made.turned(alert, Turn.FIRED, CONDITIONS[0], now=1e9)
        if not firing:
            made.turned(alert._replace(firing=False, resolved_at=1e9 + 1), Turn.RESOLVED, CONDITIONS[0], now=1e9 + 1)
    with http_server(world) as server:
        channel = Channel(ChannelConfig("am", ChannelKind.ALERTMANAGER, url=server.url), "mx7")
        delivery = Delivery("d", incidents=tuple(made.all()))
        assert channel.send(note(), delivery).receipt.result is Result.SENT
        assert list(world.alerts) == ["k:a.example"]  # the other was over long ago, by the channel's clock
    ask = alertmanager.post("http://x", made.all(), frozenset({"error"}), host="mx7", now=1e9 + 10)
    found = {each["labels"]["dedup_key"]: each for each in json.loads(ask.body)}
    assert found["k:a.example"]["labels"]["alertname"] == "SidecarHardBounces"
    assert found["k:a.example"]["endsAt"] > found["k:a.example"]["startsAt"]
    assert found["k:b.example"]["endsAt"] == "2001-09-09T01:46:41.000+00:00"


# Answers.

ANSWERS: list[tuple[Callable[[HttpAnswer], Receipt], int, bytes, Result]] = [
    (slack.read_webhook, 200, b"ok", Result.SENT),
    (slack.read_webhook, 200, b"<html>sign in</html>", Result.BROKEN),
    (slack.read_webhook, 429, b"", Result.LATER),
    (slack.read_webhook, 503, b"", Result.LATER),
    *((slack.read_webhook, status, error.encode(), Result.LATER if status == 500 else Result.BROKEN)
      for error, status in ERRORS.items()),
    (slack.read_message, 200, b'{"ok":true,"ts":"1.1"}', Result.SENT),
    (slack.read_message, 200, b'{"ok":false,"error":"ratelimited"}', Result.LATER),
    (slack.read_message, 200, b'{"ok":false,"error":"invalid_auth"}', Result.BROKEN),
    (slack.read_message, 200, b'{"ok":false,"error":"is_archived"}', Result.BROKEN),
    (slack.read_message, 200, b"ok", Result.BROKEN),
    (slack.read_message, 200, b"[]", Result.BROKEN),
    (slack.read_message, 429, b"", Result.LATER),
    (pagerduty.read, 202, b"{}", Result.SENT),
    (pagerduty.read, 200, b"<html>", Result.BROKEN),
    (pagerduty.read, 400, b'{"errors":["JSON parse error"]}', Result.BROKEN),
    (pagerduty.read, 429, b"", Result.LATER),
    (pagerduty.read, 502, b"", Result.LATER),
    (by_status, 200, b"", Result.SENT),
    (by_status, 302, b"", Result.BROKEN),
    (by_status, 400, b"", Result.BROKEN),
    (by_status, 408, b"", Result.LATER),
]  # fmt: skip


@pytest.mark.parametrize(("read", "status", "body", "result"), ANSWERS)
def test_answers(read: Callable[[HttpAnswer], Receipt], status: int, body: bytes, result: Result) -> None:
    receipt = read(HttpAnswer(status, (), body))
    assert receipt.result is result
    assert bool(receipt.why) == (result is not Result.SENT)


def test_no_answer_is_not_nothing_sent() -> None:
    refused = channels.post(slack.webhook("http://127.0.0.1:1/x", note()))
    assert isinstance(refused, Receipt)
    assert refused.result is Result.LATER
    with http_server(lambda _: None) as server:  # it reads the request and hangs up
        dropped = channels.post(slack.webhook(f"{server.url}/x", note()))
    assert isinstance(dropped, Receipt)
    assert dropped.result is Result.UNSURE
    nowhere = channels.post(slack.webhook("no URL", note()))
    assert isinstance(nowhere, Receipt)
    assert nowhere.result is Result.BROKEN


def test_a_secret_is_in_no_message_of_ours(tmp_path: Path) -> None:
    with http_server(lambda request: Response(404, f"no such hook: http://x{request.path}".encode())) as server:
        url = f"{server.url}/services/T0/B0/abcdef"
        channel = Channel(ChannelConfig("ops", ChannelKind.SLACK, url_file=secret_file(tmp_path, url)), "mx7")
        receipt = channel.send(note(), DELIVERY).receipt
    assert receipt.result is Result.BROKEN
    assert url not in receipt.why


@pytest.mark.parametrize("fails", ["missing", "empty", "two\nlines"])
def test_a_secret_that_cannot_be_read_breaks_the_channel(tmp_path: Path, fails: str) -> None:
    path = tmp_path / "secret"
    if fails != "missing":
        path.write_text("" if fails == "empty" else fails)
    channel = Channel(ChannelConfig("ops", ChannelKind.SLACK, url_file=str(path)), "mx7")
    receipt = channel.send(note(), DELIVERY).receipt
    assert receipt.result is Result.BROKEN
    assert str(path) in receipt.why


def test_a_bot_keeps_an_incident_in_one_thread(tmp_path: Path) -> None:
    world = Slack()
    with http_server(world) as server:
        config = ChannelConfig("ops", ChannelKind.SLACK, token_file=secret_file(tmp_path, TOKEN), channel="C0123456789",
                               url=f"{server.url}/api")  # fmt: skip
        channel = Channel(config, "mx7")
        first = channel.send(note(), DELIVERY).receipt
        channel.send(note(NoteKind.RESOLVED), Delivery("d", thread=first.thread))
        wrong = channel._replace(config=ChannelConfig("ops", ChannelKind.SLACK, token_file=config.token_file, channel="C1",
                                                      url=config.url))  # fmt: skip
        assert wrong.send(note(), DELIVERY).receipt == Receipt(Result.BROKEN, "answers channel_not_found")
    assert [body.get("thread_ts") for body in world.taken] == [None, first.thread]
    assert world.taken[1]["reply_broadcast"] is True


SENDMAIL = '#!/bin/sh\ncat > {out}\necho "$@" > {out}.arguments\nexit {status}\n'


@pytest.mark.parametrize(("status", "result"), [(0, Result.SENT), (75, Result.LATER), (64, Result.BROKEN)])
def test_mail_leaves_through_sendmail(tmp_path: Path, status: int, result: Result) -> None:
    program, out = tmp_path / "sendmail", tmp_path / "message"
    program.write_text(SENDMAIL.format(out=out, status=status))
    program.chmod(0o755)
    config = ChannelConfig(
        "post", ChannelKind.MAIL, to=("ops@example.com",), sender="s@example.com", sendmail=str(program)
    )
    receipt = Channel(config, "mx7").send(note(), DELIVERY).receipt
    assert receipt.result is result
    assert "Subject: [FIRING] critical: a.example is unwell" in out.read_text()
    assert out.with_name("message.arguments").read_text() == "-i -f s@example.com -- ops@example.com\n"


def test_mail_without_a_sendmail(tmp_path: Path) -> None:
    config = ChannelConfig("post", ChannelKind.MAIL, to=("ops@example.com",), sendmail=str(tmp_path / "none"))
    assert Channel(config, "mx7").send(note(), DELIVERY).receipt.result is Result.BROKEN


@pytest.mark.postfix
def test_mail_leaves_through_a_real_postfix_as_the_unit_runs_it(tmp_path: Path) -> None:
    """A user without rights, in group postdrop, without new privileges: what systemd/sidecar-outside.service says."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)  # user postfix must get in
        with PrivatePostfix(Path(name)) as postfix:
            program = tmp_path / "sendmail"
            as_unit = "setpriv --reuid=daemon --regid=daemon --groups=postdrop --no-new-privs /usr/sbin/sendmail"
            bound = f"mount --bind {postfix.config_directory} /etc/postfix"
            program.write_text(f'#!/bin/sh\nexec unshare -m sh -c \'{bound} && exec {as_unit} "$@"\' sendmail "$@"\n')
            program.chmod(0o755)
            config = ChannelConfig("post", ChannelKind.MAIL, to=("ops@example.com",), sendmail=str(program))
            assert Channel(config, "mx7").send(note(), DELIVERY).receipt == Receipt(Result.SENT)
            while "to=<ops@example.com>" not in postfix.maillog.read_text():
                assert postfix.running()  # the test's own time-out ends a wait for ever
            assert "message-id=<sidecar-1-ops@mx7>" in postfix.maillog.read_text()


# Apprise.

# It looks for a module that Python 3.13 has not any more.
of_apprise = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@of_apprise
@pytest.mark.parametrize(
    ("statuses", "receipt"),
    [
        ((200,), Receipt(Result.SENT)),
        ((204, 200), Receipt(Result.SENT)),
        ((404,), Receipt(Result.BROKEN, "answers 404")),
        ((503,), Receipt(Result.LATER, "answers 503")),
        ((429, 500), Receipt(Result.LATER, "answers 429")),
        ((200, 404), Receipt(Result.UNSURE, "1 of 2 services took it; one that did not: answers 404")),
        ((403, 503), Receipt(Result.UNSURE, "0 of 2 services took it; one that did not: answers 403")),
    ],
)
def test_what_services_behind_apprise_answer(tmp_path: Path, statuses: tuple[int, ...], receipt: Receipt) -> None:
    with http_server(lambda request: Response(int(request.path.strip("/").partition("?")[0]))) as server:
        where = server.url.removeprefix("http://")
        urls = "".join(f"json://{where}/{status}\n" for status in statuses)
        config = ChannelConfig("more", ChannelKind.APPRISE, url_file=secret_file(tmp_path, f"# services\n{urls}"))
        assert Channel(config, "mx7").send(note(title=HOSTILE, severity=Severity.WARNING), DELIVERY).receipt == receipt
    assert len(server.requests) == len(statuses)
    body = json.loads(server.requests[0].body)
    assert body["title"].startswith("[FIRING] warning: <!channel>")
    assert "\x1b" not in body["title"] + body["message"]
    assert body["type"] == "warning"


@of_apprise
@pytest.mark.parametrize(
    ("text", "result", "why"),
    [
        ("json://127.0.0.1:1/", Result.UNSURE, "A Connection error occurred"),
        ("json://127.0.0.1:1/\nnosuch://token-secret/", Result.BROKEN, "URL 2: no service that Apprise knows"),
        ("", Result.BROKEN, "empty; wanted URLs of Apprise"),
    ],
)
def test_an_apprise_that_does_not_get_through(tmp_path: Path, text: str, result: Result, why: str) -> None:
    config = ChannelConfig("more", ChannelKind.APPRISE, url_file=secret_file(tmp_path, text))
    receipt = Channel(config, "mx7").send(note(), DELIVERY).receipt
    assert receipt.result is result
    assert why in receipt.why
    assert "token-secret" not in receipt.why


@pytest.mark.parametrize(
    ("kind", "type_"), [(NoteKind.OPENED, "failure"), (NoteKind.RESOLVED, "success"), (NoteKind.TEST, "failure")]
)
def test_what_apprise_calls_it(kind: NoteKind, type_: str) -> None:
    assert apprise.text(note(kind)).type == type_


def test_without_apprise_the_channel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="Apprise is not installed; wanted pip install"):
        channels.configured(Config(channel=(ChannelConfig("more", ChannelKind.APPRISE, url_file="x"),)))


def test_nothing_imports_apprise_before_it_speaks() -> None:
    code = "import sys, sidecar.outside; print('apprise' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


# Configuration.

LACKING: list[tuple[dict[str, Any], str]] = [
    ({"kind": ChannelKind.SLACK}, "missing: url_file or token_file"),
    ({"kind": ChannelKind.SLACK, "token_file": "x"}, "missing: channel, the id"),
    ({"kind": ChannelKind.PAGERDUTY}, "missing: routing_key_file"),
    ({"kind": ChannelKind.ALERTMANAGER}, "missing: url"),
    ({"kind": ChannelKind.WEBHOOK}, "missing: url or url_file"),
    ({"kind": ChannelKind.MAIL}, "missing: to"),
    ({"kind": ChannelKind.APPRISE}, "missing: url_file"),
    ({"kind": ChannelKind.MAIL, "to": ("x",), "severities": ("bad",)}, "found 'bad', wanted of critical, error"),
]


@pytest.mark.parametrize(("settings", "says"), LACKING)
def test_a_channel_that_lacks_something_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        channels.configured(Config(channel=(ChannelConfig("ops", **settings),)))


def test_two_channels_of_one_name_are_refused() -> None:
    one = ChannelConfig("ops", ChannelKind.MAIL, to=("x",))
    with pytest.raises(ConfigError, match="is there twice"):
        channels.configured(Config(channel=(one, one)))


def test_who_is_told_of_what() -> None:
    listed = channels.configured(
        Config(
            channel=(
                ChannelConfig("pager", ChannelKind.PAGERDUTY, routing_key_file="x"),
                ChannelConfig("chat", ChannelKind.SLACK, url_file="x"),
                ChannelConfig("all", ChannelKind.WEBHOOK, url="x", severities=tuple(Severity)),
            )
        )
    )

    def wanting(kind: NoteKind, severity: Severity) -> list[str]:
        return [channel.name for channel in listed if channel.wants(note(kind, severity=severity))]

    assert wanting(NoteKind.OPENED, Severity.CRITICAL) == ["pager", "chat", "all"]
    assert wanting(NoteKind.OPENED, Severity.WARNING) == ["chat", "all"]
    assert wanting(NoteKind.OPENED, Severity.INFO) == ["all"]
    assert wanting(NoteKind.AGAIN, Severity.CRITICAL) == ["pager"]
    assert wanting(NoteKind.ACKED, Severity.CRITICAL) == ["pager"]


# sidecar alert test


def test_alert_test_says_what_each_channel_answers(tmp_path: Path) -> None:
    pager, hooks = PagerDuty(), Slack()
    with http_server(pager) as duty, http_server(hooks) as chat:
        (tmp_path / "key").write_text(KEY)
        (tmp_path / "hook").write_text(f"{chat.url}/services/T0/B0/no_service")
        config = tmp_path / "sidecar.toml"
        config.write_text(
            f'runtime_directory = "{tmp_path}"\n'
            f'[[channel]]\nname = "pager"\nkind = "pagerduty"\nurl = "{duty.url}"\nrouting_key_file = "{tmp_path}/key"\n'
            f'[[channel]]\nname = "chat"\nkind = "slack"\nurl_file = "{tmp_path}/hook"\n'
        )
        ran = CliRunner().invoke(sidecar, ["--config", str(config), "alert", "test", "--json"])
        assert ran.exit_code == 1
        assert json.loads(ran.output) == [
            {"channel": "pager", "result": "sent", "why": ""},
            {"channel": "chat", "result": "broken", "why": "answers 404 no_service"},
        ]
        assert (pager.pages, pager.open) == (1, {})
        good = CliRunner().invoke(sidecar, ["--config", str(config), "alert", "test", "pager"])
        assert (good.exit_code, good.output) == (0, "pager: sent\n")
        none = CliRunner().invoke(sidecar, ["--config", str(config), "alert", "test", "nobody"])
        assert none.exit_code == 2
        assert "there is pager, chat" in none.output
        config.write_text("")
        nobody = CliRunner().invoke(sidecar, ["--config", str(config), "alert", "test"])
        assert (nobody.exit_code, nobody.output.partition(": ")[2]) == (
            2,
            "channel: nobody would be told, for there is none; add a [[channel]]\n",
        )
