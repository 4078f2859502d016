"""The failsafe against a real Postfix: core is away, and what is ours must leave, but nothing else and nothing twice."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import smtplib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result

from policies.access import hold_text
from sidecar import cli, failsafe, held_record, in_force, postfix, qmgr
from sidecar.config import Config, LogConfig, PostfixConfig, StoreConfig, SubqueuesConfig
from sidecar.held_record import Entry, HeldRecord, Op
from sidecar.lab.private_postfix import PrivatePostfix

pytestmark = pytest.mark.postfix

KEY = "dkim-domain:snd.example@google"
OURS = hold_text(KEY, "google/rate-dkim-domain")


class Site(NamedTuple):
    mail: PrivatePostfix
    config: Config
    directory: Path
    stuck: socket.socket
    """Where mail to stuck.example goes: connections are made and nothing is said."""


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    directory = Path(tempfile.mkdtemp(prefix="failsafe-"))  # pytest's own may not be entered by user postfix
    directory.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as stuck:
        mail = PrivatePostfix(
            directory / "postfix",
            main_cf={
                "smtpd_sender_restrictions": "check_sender_access inline:{admin@snd.example=HOLD}",
                "smtpd_end_of_data_restrictions": f"check_sender_access inline:{{{{held@snd.example=HOLD {OURS}}}}}",
                "transport_maps": f"inline:{{{{stuck.example=smtp:[127.0.0.1]:{stuck.getsockname()[1]}}}}}",
                "smtp_destination_concurrency_limit": "1",
            },
        )
        config = Config(
            runtime_directory=str(directory / "run"),
            log=LogConfig(source=str(mail.maillog)),
            store=StoreConfig(path=str(directory / "store")),
            postfix=PostfixConfig(config_directory=str(mail.config_directory)),
        )
        with mail:
            yield Site(mail, config, directory, stuck)
            mail.abort()
    shutil.rmtree(directory)


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    """An empty queue, an old heartbeat, no record; a queue manager older than whatever the test takes."""
    (running.directory / "store").mkdir()
    (running.directory / "run").mkdir()
    running.mail._run("postsuper", "-c", str(running.mail.config_directory), "-d", "ALL")
    heartbeat(running, age=3600)
    yield running
    shutil.rmtree(running.directory / "store")
    shutil.rmtree(running.directory / "run")


def heartbeat(site: Site, *, age: float) -> None:
    path = site.directory / "run" / "heartbeat"
    path.touch()
    os.utime(path, (time.time() - age,) * 2)


def until(condition: Callable[[], object], *, within: float = 60.0) -> None:
    """Wait for what Postfix tells nobody: that a file has moved."""
    deadline = time.monotonic() + within
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        pause.wait(0.01)


def submit(site: Site, *recipients: str, sender: str) -> list[str]:
    ids = []
    with smtplib.SMTP("127.0.0.1", site.mail.port) as session:
        for recipient in recipients:
            session.mail(sender)
            session.rcpt(recipient)
            _, said = session.data(b"Subject: test\r\n\r\ntext\r\n")
            ids.append(said.rpartition(b" ")[2].decode())
    return ids


def on_hold(site: Site) -> set[str]:
    return {path.name for path in site.mail.queue_files("hold")}


def held(site: Site, *recipients: str, sender: str = "admin@snd.example") -> list[str]:
    """Messages on hold, in a way that leaves no word of ours in the log unless the sender is held@."""
    ids = submit(site, *recipients, sender=sender)
    until(lambda: set(ids) <= on_hold(site))
    return ids


def record(
    site: Site, ids: Sequence[str], *, at: float | None = None, op: Op = Op.HOLD, instance: str = "postfix"
) -> None:
    HeldRecord(site.config.held_record).append(op, instance, ids, key=KEY, now=time.time() if at is None else at)


def run(site: Site, *options: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(failsafe.failsafe, ["--json", *options], obj=site.config)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout)


def said(site: Site, *options: str) -> Result:
    return CliRunner().invoke(failsafe.failsafe, list(options), obj=site.config)


def instance_of(site: Site) -> postfix.Instance:
    return postfix.instances(site.mail.config_directory)[0]


def sent(site: Site, ids: Sequence[str]) -> bool:
    log = site.mail.maillog.read_text()
    return all(f"{one}: to=" in log and f"{one}: removed" in log for one in ids)


def test_ours_is_released_and_an_admins_hold_is_not(site: Site) -> None:
    ours, admins = held(site, "a@one.example", "b@one.example"), held(site, "c@one.example")
    record(site, ours)
    status, report = run(site)
    assert (status, report["state"]) == (0, "released")
    assert report["instances"][0] | {"over": 0} == {
        "instance": "postfix", "reloaded": True, "released": 2, "over": 0, "busy": 0, "gone": 0, "error": "", "unsure": [],
    }  # fmt: skip
    until(lambda: sent(site, ours))
    assert on_hold(site) == set(admins)
    assert held_record.read(site.config.held_record).live == {}
    assert run(site)[1]["state"] == "nothing"
    assert on_hold(site) == set(admins)


def test_while_core_lives_nothing_is_done(site: Site) -> None:
    ours = held(site, "a@one.example")
    record(site, ours)
    heartbeat(site, age=10)
    assert run(site)[1]["state"] == "alive"
    assert on_hold(site) == set(ours)
    assert "core gave a sign of life 10 s ago: nothing to do" in said(site).output
    result = said(site, "--now")
    assert result.exit_code == 0
    assert "core gave a sign of life 10 s ago: it may take mail again; stop it first" in result.output
    assert "postfix: queue manager renewed; 1 messages released" in result.output
    until(lambda: sent(site, ours))


def test_releases_are_staggered(site: Site) -> None:
    ours = held(site, *(f"a{i}@one.example" for i in range(6)))
    record(site, ours)
    now = time.time()
    run(site, "--rate", "0.1")
    until(lambda: len(list(site.mail.queue_files("deferred"))) == 5)  # the first is due at once
    times = sorted(path.stat().st_mtime - now for path in site.mail.queue_files("deferred"))
    assert times == pytest.approx([10, 20, 30, 40, 50], abs=5)


def test_postfix_is_reloaded_once_not_at_every_run(site: Site) -> None:
    first, second = held(site, "a@one.example", "b@one.example")
    record(site, [first, second])
    handle = os.open(next(path for path in site.mail.queue_files("hold") if path.name == second), os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)  # as a delivery agent does
    status, report = run(site)
    assert (status, report["state"]) == (1, "incomplete")
    assert (report["instances"][0]["released"], report["instances"][0]["busy"]) == (1, 1)
    assert "1 are being delivered and stay on hold; run this again" in said(site).output
    # A queue manager that started within a second of the taking is renewed once more, for want of finer times.
    record(site, [second], at=time.time() - 60)
    before = qmgr.pids(instance_of(site))
    assert run(site)[1]["instances"][0]["reloaded"] is False
    os.close(handle)
    assert run(site)[1]["instances"][0]["released"] == 1
    assert qmgr.pids(instance_of(site)) == before
    until(lambda: sent(site, [first, second]))


def test_mail_that_the_queue_manager_remembers_is_not_lost(site: Site) -> None:
    """One message waits for a slow connection, the next for its turn; the second is taken, then core dies."""
    with contextlib.ExitStack() as stack:
        waiting, taken = submit(site, "a@stuck.example", "b@stuck.example", sender="x@snd.example")
        connection, _ = site.stuck.accept()
        stack.callback(connection.close)
        until(lambda: f"{taken}: from=<x@snd.example>" in site.mail.maillog.read_text())  # (queue active)
        assert site.mail.postsuper("-h", [taken]).count("placed on hold") == 1
        record(site, [taken])
        assert run(site)[1]["instances"][0] | {"over": 0, "gone": 0} == {
            "instance": "postfix", "reloaded": True, "released": 1, "over": 0, "busy": 0, "gone": 0, "error": "", "unsure": [],
        }  # fmt: skip
        connection.close()
        again, _ = site.stuck.accept()
        again.close()
        until(lambda: f"{taken}: to=<b@stuck.example>" in site.mail.maillog.read_text())
    log = site.mail.maillog.read_text()
    assert f"{taken}: removed" not in log
    assert {waiting, taken} <= {one.queue_id for one in site.mail.postqueue()}


def test_what_left_hold_leaves_the_record(site: Site) -> None:
    ours = held(site, "a@one.example", "b@one.example")
    record(site, [*ours, "3A1F72C4D2"])
    site.mail.postsuper("-H", ours[:1])
    _, report = run(site)
    assert (report["instances"][0]["released"], report["instances"][0]["gone"]) == (1, 2)
    assert held_record.read(site.config.held_record).live == {}


@pytest.mark.parametrize("loss", ["no record", "no store", "a trap", "only an admin's id is left"])
def test_without_a_record_the_log_tells_what_we_held(site: Site, loss: str) -> None:
    ours, admins = held(site, "a@one.example", sender="held@snd.example"), held(site, "c@one.example")
    if loss == "no store":
        (site.directory / "store").rmdir()
    elif loss == "a trap":
        site.config.held_record.symlink_to(site.directory / "elsewhere")
    elif loss == "only an admin's id is left":
        record(site, ["3A1F72C4D2"])
    try:
        status, report = run(site)
    finally:
        (site.directory / "store").mkdir(exist_ok=True)
    assert (status, report["state"], report["instances"][0]["released"]) == (0, "released", 1)
    assert any("held.record" in note for note in report["notes"]) is (loss in {"no store", "a trap"})
    until(lambda: sent(site, ours))
    assert on_hold(site) == set(admins)


def test_what_the_record_has_dismissed_the_log_does_not_bring_back(site: Site) -> None:
    """Ours by the log, then somebody else's: the record knows better."""
    theirs = held(site, "a@one.example", sender="held@snd.example")
    record(site, theirs, op=Op.ADOPT)
    record(site, theirs, op=Op.FORGET)
    assert run(site)[1]["state"] == "nothing"
    assert on_hold(site) == set(theirs)


def test_what_an_admin_held_again_the_log_does_not_call_ours(site: Site) -> None:
    theirs = held(site, "a@one.example", sender="held@snd.example")
    site.mail._run("postconf", "-c", str(site.mail.config_directory), "-e", "defer_transports=discard")
    site.mail.reload()
    site.mail.postsuper("-H", theirs)
    site.mail.postsuper("-h", theirs)
    # postsuper does not wait for postlogd, which a reload restarts: its lines come up to some 10 ms later.
    until(lambda: f"{theirs[0]}: placed on hold" in site.mail.maillog.read_text())
    try:
        assert run(site)[1]["state"] == "nothing"
        assert on_hold(site) == set(theirs)
    finally:
        site.mail.postconf("-X", "defer_transports")
        site.mail.reload()


@pytest.mark.parametrize(("age", "released"), [(0, 1), (3600, 0)])
def test_without_the_log_line_the_file_tells_that_an_admin_moved_it(site: Site, age: int, released: int) -> None:
    """Only our HOLD is in the log, an hour before the file was last moved: what came between was never logged."""
    theirs = held(site, "a@one.example", sender="held@snd.example")
    until(lambda: f"{theirs[0]}: hold: END-OF-MESSAGE" in site.mail.maillog.read_text())
    line = next(line for line in site.mail.maillog.read_text().splitlines() if f"{theirs[0]}: hold: END" in line)
    stamp = datetime.fromtimestamp(time.time() - age).astimezone().isoformat()
    log = site.directory / "store" / "partial.log"
    log.write_text(f"{stamp} {line[16:]}\n")
    partial = site._replace(config=dataclasses.replace(site.config, log=LogConfig(source=str(log))))
    status, report = run(partial)
    assert (status, report["instances"][0]["released"]) == (1 - released, released)
    assert report["instances"][0]["unsure"] == ([] if released else theirs)
    if not released:
        assert on_hold(site) == set(theirs)
        assert f"were moved since and stay, release by hand: {theirs[0]}" in said(partial).output


def test_damaged_lines_are_told_and_skipped(site: Site) -> None:
    ours = held(site, "a@one.example")
    site.config.held_record.write_bytes(b"\0\0\0\n")
    record(site, ours)
    _, report = run(site)
    assert report["notes"] == [f"{site.config.held_record}: 1 damaged lines skipped"]
    assert report["instances"][0]["released"] == 1


def test_two_runs_do_not_meet(site: Site) -> None:
    ours = held(site, "a@one.example")
    record(site, ours)
    with (site.directory / "run" / "failsafe.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(site)[1]["state"] == "locked"
        assert "another run is at work" in said(site).output
    assert on_hold(site) == set(ours)


def test_an_instance_that_is_gone_is_named(site: Site) -> None:
    record(site, ["3A1F72C4D2"], instance="postfix-old")
    status, report = run(site)
    assert status == 1
    assert report["instances"][-1]["instance"] == "postfix-old"
    assert "in the record, but no instance of" in report["instances"][-1]["error"]


def test_a_configuration_that_cannot_be_read_is_told(site: Site) -> None:
    record(site, ["3A1F72C4D2"])
    wrong = site._replace(config=Config(runtime_directory=site.config.runtime_directory, store=site.config.store,
                                        postfix=PostfixConfig(config_directory="/nowhere")))  # fmt: skip
    result = said(wrong)
    assert result.exit_code == 1
    assert "postconf -c /nowhere" in result.stderr


def test_with_postfix_stopped_it_is_released_for_its_next_start(site: Site) -> None:
    ours = held(site, "a@one.example", "b@one.example", "c@one.example")
    record(site, ours)
    site.mail.stop()
    try:
        _, report = run(site)
        assert report["instances"][0]["error"] == ""
        assert (report["instances"][0]["released"], report["instances"][0]["reloaded"]) == (3, False)
        assert on_hold(site) == set()
    finally:
        site.mail.start()
    until(lambda: sent(site, ours))


NOW = 1_795_289_786.0


@pytest.mark.parametrize(
    ("beat", "latest", "wanted"),
    [
        (NOW - 30, NOW - 5000, 30),
        (NOW + 7200, NOW - 5000, 7200),  # the clock was set back: no sign of life either
        (None, NOW - 50, 50),  # no heartbeat: since the last that was recorded
        (None, NOW + 50, 0),
        (None, None, float("inf")),  # nothing at all: since the boot
        (None, NOW - 1e9, float("inf")),  # before the boot
    ],
)
def test_age_of_the_last_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beat: float | None, latest: float | None, wanted: float
) -> None:
    up = 1234.0
    monkeypatch.setattr(time, "clock_gettime", lambda _: up)
    if beat is not None:
        (tmp_path / "heartbeat").touch()
        os.utime(tmp_path / "heartbeat", (beat, beat))
    live = {} if latest is None else {("postfix", "A"): Entry("postfix", "A", KEY, latest, Op.HOLD)}
    age = failsafe.heartbeat_age(Config(runtime_directory=str(tmp_path)), live, now=NOW)
    assert age == pytest.approx(min(wanted, up) if beat is None else wanted)


def test_the_patience_scales_with_the_lab(site: Site) -> None:
    heartbeat(site, age=30)
    assert run(site)[1]["state"] == "alive"
    fast = Config(
        runtime_directory=site.config.runtime_directory,
        store=site.config.store,
        postfix=site.config.postfix,
        subqueues=SubqueuesConfig(failsafe_after_minutes=15, scale=60),
    )
    assert run(site._replace(config=fast))[1]["state"] == "nothing"


def test_a_broken_configuration_does_not_keep_mail(site: Site) -> None:
    ours = held(site, "a@one.example")
    record(site, ours)
    in_force.write(site.config)
    broken = site.directory / "run" / "sidecar.toml"
    broken.write_text(f'mdoe = "act"\n[store]\npath = "{site.config.store.path}"\n')
    done = CliRunner().invoke(cli.sidecar, ["--config", str(broken), "failsafe", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["state"] == "released"
    assert f"{broken}: mdoe: unknown key" in done.stderr
    assert "GOING BY" in done.stderr
    until(lambda: sent(site, ours))
    assert CliRunner().invoke(cli.sidecar, ["--config", str(broken), "status"]).exit_code == 2
