"""Reload: what is good is taken over at once, what is bad changes nothing, and no sub-queue loses what it opened with."""

import asyncio
import dataclasses
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policies.classify import RuleSet, Said
from policies.engine import Engine
from policies.key import Key
from policies.reacting import Do, Signal
from policies.site import Settings
from sidecar import reload, rules
from sidecar.config import (
    CanaryConfig,
    Config,
    LogConfig,
    Mode,
    PolicyConfig,
    PoolConfig,
    PoolMember,
    PostfixConfig,
    ReactConfig,
    Route,
    RulesConfig,
    StoreConfig,
    SubqueuesConfig,
    TransportConfig,
    WarmUpConfig,
)
from sidecar.control import CoreRefused, ask_core
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.reload import LIVE, Source, changed, in_force, read, unpacked

ROOT = Path(__file__).parents[1]
KEY = Key("sender-domain", "shop.example", "google")
RULE = """
[[rule]]
name = "{name}"
any = ["{words}"]
detail = "throttling.domain"
scope = "sender-domain"
bounce = "transient"
reaction = "pause-domain"
pause = "{pause}"
pause_max = "4h"
examples = ["451 4.7.1 {words}"]
"""

# What a reload changes, and what it names.


def test_every_setting_of_core_is_known_and_those_that_change_do() -> None:
    """Each has another value in `new`; those that are live are taken over, and no others."""
    new = Config(
        mode=Mode.ACT,
        runtime_directory="/elsewhere",
        log=LogConfig("journal", ("mta",)),
        policy=PolicyConfig(("inet:127.0.0.1:1",), milters_quarantine=True),
        store=StoreConfig("/elsewhere", "redis:", "click:", 7, 400),
        rules=RulesConfig("/rules"),
        subqueues=SubqueuesConfig(1.0, 2.0, 3.0, ("google",), ("yahoo",)),
        route=(Route("lane-01", "yahoo"),),
        transport=(TransportConfig("lane-01"),),
        pool=(PoolConfig("bulk", (PoolMember("ip-1"),)),),
        warm_up=(WarmUpConfig("ip-1", "2026-11-22", 100, 1_000),),
        canary=(CanaryConfig("new", "tenant = news", "ip-1"),),
        react=(ReactConfig("listed", Signal.LISTED, Do.LEAVE_POOL),),
    )
    different = set(changed(Config(), new))
    assert different >= LIVE
    assert set(changed(in_force(Config(), new), new)) == different - LIVE
    assert set(changed(Config(), in_force(Config(), new))) == LIVE
    sections = {field.name: getattr(new, field.name) for field in dataclasses.fields(new)}
    of_core = (
        "log",
        "fleet",
        "policy",
        "store",
        "rules",
        "subqueues",
        "postfix",
        "authentication",
        "report",
        "suppression",
        "hygiene",
    )
    named = {f"{name}.{key.name}" for name in of_core
             for key in dataclasses.fields(sections[name])} | set(sections)  # fmt: skip
    assert named >= reload._OF_CORE | LIVE


# The engine.


def rule_set(pause: str, *, name: str = "mine", provider: str = "google") -> RuleSet:
    text = RULE.format(name=name, words="slow down shop", pause=pause)
    return RuleSet.read([(f"providers/{provider}.toml", f'mx = [".google.com"]\ndomains = ["gmail.com"]\n{text}')])


def engine(first: RuleSet) -> Engine:
    return Engine(first, rules.organizational_domain, Settings(act=True))


def test_an_open_sub_queue_keeps_its_pause_and_the_next_gets_the_new_one() -> None:
    at_work = engine(rule_set("10m"))
    sub = at_work.orders.open(KEY, rule="google/mine", now=1000.0)
    at_work.take_over(rule_set("30m"), Settings(act=True))
    assert at_work.subqueues.get(KEY) is sub
    assert sub.machine.next_at(now=1000.0, held=0) == 1600.0
    other = at_work.orders.open(KEY._replace(value="b.example"), rule="google/mine", now=1000.0)
    assert other.machine.next_at(now=1000.0, held=0) == 2800.0


def test_a_rule_that_vanishes_leaves_its_sub_queue_as_it_was() -> None:
    at_work = engine(rule_set("10m"))
    sub = at_work.orders.open(KEY, rule="google/mine", now=1000.0)
    at_work.take_over(rule_set("30m", name="another"), Settings(act=True))
    assert (sub.rule, sub.machine.next_at(now=1000.0, held=0)) == ("google/mine", 1600.0)
    sub.machine.refused(began=1600.0, now=1601.0)
    assert sub.machine.next_at(now=1601.0, held=0) > 1601.0


def test_one_that_opens_again_pauses_as_its_rule_says_now() -> None:
    at_work = engine(rule_set("10m"))
    at_work.orders.open(KEY, rule="google/mine", now=1000.0)
    at_work.orders.close(KEY, by_whom="me", now=1001.0)
    at_work.step(now=1002.0)
    assert at_work.subqueues.get(KEY) is None
    at_work.take_over(rule_set("30m"), Settings(act=True))
    again = at_work.orders.open(KEY, rule="google/mine", now=2000.0)
    assert again.machine.next_at(now=2000.0, held=0) == 3800.0


def test_rules_providers_and_mode_are_the_new_ones() -> None:
    at_work = engine(rule_set("10m"))
    assert at_work.provider_of("gmail.com") == "google"
    fresh = rule_set("10m", provider="other")
    at_work.take_over(fresh, Settings(act=False, scale=9.0))
    assert at_work.provider_of("gmail.com") == "other"
    assert not at_work.parking
    assert at_work.settings == Settings(act=False, scale=1.0)
    at_work.take_over(fresh, Settings(act=True))
    assert at_work.parking


def test_every_part_of_the_engine_goes_by_the_new_settings() -> None:
    at_work, new = engine(rule_set("10m")), Settings(act=False, host="elsewhere")
    at_work.take_over(rule_set("10m"), new)
    parts = [getattr(at_work, name) for name in dir(at_work) if not name.startswith("__")]
    known = [getattr(part, name) for part in parts for name in ("settings", "_settings") if name in dir(part)]
    assert len(known) >= 4
    assert set(map(id, known)) == {id(at_work.settings)}


def test_what_the_store_forbids_a_reload_does_not_allow() -> None:
    at_work = engine(rule_set("10m"))
    at_work.allow_parking(allowed=False)
    at_work.take_over(rule_set("10m"), Settings(act=True))
    assert not at_work.parking


# Reading.


@pytest.fixture(scope="module")
def postfix(tmp_path_factory: pytest.TempPathFactory) -> PrivatePostfix:
    instance = PrivatePostfix(tmp_path_factory.mktemp("reload") / "p", main_cf={"enable_long_queue_ids": "yes"})
    os.utime(instance.config_directory / "main.cf", (1, 1))  # Postfix waits for a main.cf that was just written
    return instance


@pytest.fixture
def config(tmp_path: Path, postfix: PrivatePostfix) -> Path:
    (tmp_path / "mail.log").touch()
    (tmp_path / "rules").mkdir()
    path = tmp_path / "sidecar.toml"
    path.write_text(
        f'runtime_directory = "{tmp_path}"\nmode = "observe"\n'
        f'[log]\nsource = "{tmp_path}/mail.log"\n'
        f'[policy]\nlisten = ["unix:{tmp_path}/policy"]\n'
        f'[store]\npath = "{tmp_path}"\nretention_days = 30\n'
        f'[rules]\ndirectory = "{tmp_path}/rules"\n'
        f'[postfix]\nconfig_directory = "{postfix.config_directory}"\n'
        '[web]\nlisten = "127.0.0.1:0"\n'
    )
    return path


def write_rule(config: Path, text: str) -> None:
    (config.parent / "rules" / "mine.toml").write_text(f'mx = [".mine.example"]\n{text}')


GOOD = RULE.format(name="slow", words="slow down shop", pause="10m")
SAID = Said("host mx.mine.example[192.0.2.1] said: 451 4.7.1 slow down shop", "mx.mine.example", "gmail.com")


@pytest.mark.postfix
def test_rules_travel_whole(config: Path, postfix: PrivatePostfix) -> None:
    write_rule(config, GOOD)
    reading = read(Source(config, Mode.ACT), PostfixConfig(config_directory=str(postfix.config_directory)))
    assert reading.config.mode is Mode.ACT
    assert [instance.syslog_name for instance in reading.instances] == ["postfix"]
    travelled = asyncio.run(unpacked(reading.own))
    here = rules.load(str(config.parent / "rules"))
    assert travelled.rules == here.rules
    assert travelled.classify(SAID) == here.classify(SAID)
    assert travelled.classify(SAID).rule == "mine/slow"


# Core.


class Core:
    """A core at work, and what it writes."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self.process = process
        self.control = directory / "control"
        self.policy = directory / "policy"

    def line(self, words: str) -> str:
        assert self.process.stderr is not None
        seen = ""
        for line in self.process.stderr:
            seen += line
            if words in line:
                return line
        raise AssertionError(f"ended without {words!r}: {seen}")

    def status(self) -> dict[str, Any]:
        return ask_core(self.control, {"command": "status"}, timeout=60.0)

    def reload(self) -> dict[str, Any]:
        return ask_core(self.control, {"command": "reload"}, timeout=90.0)


@pytest.fixture
def core(config: Path) -> Iterator[Core]:
    command = [sys.executable, "-m", "sidecar", "--config", str(config), "core"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        at_work = Core(process, config.parent)
        try:
            at_work.line("listening on")
            yield at_work
        finally:
            process.kill()


QUESTION = b"request=smtpd_access_policy\nprotocol_state=RCPT\ninstance=1\nrecipient=a@gmail.com\n\n"


@pytest.mark.postfix
def test_a_good_reload_is_taken_over_and_closes_no_connection(core: Core, config: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(core.policy))
        client.send(QUESTION)
        assert client.recv(100) == b"action=DUNNO\n\n"
        ask_core(core.control, {"command": "subqueue", "do": "pause", "key": str(KEY), "seconds": 900})
        before = core.status()
        write_rule(config, GOOD)
        config.write_text(config.read_text().replace('"observe"', '"act"').replace("127.0.0.1:0", "127.0.0.1:1"))
        answer = core.reload()
        assert (answer["mode"], answer["restart_for"]) == ("act", ["web.listen"])
        assert re.search(
            r"mode act, \d+ rules; the other processes are to be restarted for web.listen", core.line("again")
        )
        after = core.status()
        assert (before["mode"], after["mode"]) == ("observe", "act")
        assert after["subqueues"] == before["subqueues"]
        assert after["subqueues"][0]["key"] == str(KEY)
        assert after["reload"]["error"] == ""
        client.send(QUESTION)
        assert client.recv(100) == b"action=DUNNO\n\n"


@pytest.mark.postfix
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda config: write_rule(config, GOOD.replace("pause-domain", "pause-everybody")), "mine.toml"),
        (lambda config: config.write_text(config.read_text() + '[[route]]\nprovider = "yahoo"\ntransport = "a b"\n'), "a b"),
        (lambda config: config.write_text(config.read_text().replace("mode =", "mod =")), "mode"),
        (lambda config: config.write_text("["), "not valid TOML"),
        (lambda config: config.unlink(), "cannot be read"),
    ],
    ids=["rule", "route", "key", "toml", "missing"],
)  # fmt: skip
def test_what_is_bad_changes_nothing_and_is_shown(core: Core, config: Path, spoil: Any, words: str) -> None:
    good = config.read_text()
    config.write_text(good.replace('"observe"', '"act"'))
    spoil(config)
    with pytest.raises(CoreRefused, match=words):
        core.reload()
    assert words in core.line("nothing is taken over")
    status = core.status()
    assert (status["mode"], words in status["reload"]["error"]) == ("observe", True)
    config.write_text(good)
    (config.parent / "rules" / "mine.toml").unlink(missing_ok=True)
    core.process.send_signal(signal.SIGHUP)
    core.line("configuration and rules read again: mode observe")
    assert core.status()["reload"]["error"] == ""


@pytest.mark.postfix
def test_systemd_is_told_when_a_reload_begins_and_ends(config: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(config.parent / "notify"))
        told.settimeout(60)
        command = [sys.executable, "-m", "sidecar", "--config", str(config), "core"]
        environment = os.environ | {"NOTIFY_SOCKET": str(config.parent / "notify")}
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT, env=environment) as process:
            try:
                heard = [told.recv(200)]
                process.send_signal(signal.SIGHUP)
                while heard.count(b"READY=1") < 2:
                    heard.append(told.recv(200))
            finally:
                process.kill()
    states = [state for state in heard if state != b"WATCHDOG=1"]
    assert states[0] == states[2] == b"READY=1"
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", states[1])


@pytest.mark.postfix
def test_the_command(core: Core, config: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sidecar", "--config", str(config), "reload", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=90, check=False)

    done = run("--json")
    assert json.loads(done.stdout) == {"mode": "observe", "restart_for": []}
    config.write_text(config.read_text().replace('policy"]', 'other"]'))
    assert "a restart is wanted for policy.listen" in run().stdout
    write_rule(config, "[[rule]]\nname = 1\n")
    done = run()
    assert (done.returncode, "mine.toml" in done.stderr) == (2, True)
    core.process.terminate()
    core.process.wait(60)
    assert run().returncode == 3


# Under `sidecar run`.

SUPERVISOR = """
import json, sys
from sidecar import own_log
from sidecar.children import Child, supervise
own_log.start("run")
python = (sys.executable, "-I", "-S", "-c")
hears = "import signal; signal.sigwait({signal.SIGHUP}); print('heard', flush=True); signal.pause()"
deaf = "import signal; print('ready', flush=True); signal.pause()"
block = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP}); print('ready', flush=True); "
supervise([Child("core", (*python, block + hears), reloads=True), Child("outside", (*python, deaf))])
"""


def test_a_hang_up_goes_to_core_alone() -> None:
    command = [sys.executable, "-c", SUPERVISOR]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout
            assert [process.stdout.readline(), process.stdout.readline()] == ["ready\n", "ready\n"]
            process.send_signal(signal.SIGHUP)
            assert process.stdout.readline() == "heard\n"
            process.terminate()
            assert process.stdout.read() == "", "nobody was started again"
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_a_terminal_that_is_gone_stops_all() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", SUPERVISOR]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout
            assert [process.stdout.readline(), process.stdout.readline()] == ["ready\n", "ready\n"]
            process.send_signal(signal.SIGHUP)
            assert process.wait(60) == 0
        finally:
            process.kill()
            os.close(ours)
            os.close(theirs)
