"""`status` and `subqueue`, against a core that answers from a table: what is shown, asked, and the exit status."""

import asyncio
import io
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from sidecar import status
from sidecar.cli import sidecar
from sidecar.control import Handler, serve_control

NOW = 1_000_000.0
LINE = "Nov 21 10:00:00 mx postfix/smtp[1]: 4X: to=<a@gmail.com>, status=deferred (host said: 421-4.7.28 ...)"
KEY = "dkim-domain:example.com@google"
SUBQUEUE: dict[str, Any] = {
    "key": KEY,
    "state": "ramping",
    "since": NOW - 90,
    "held": 12,
    "let_out": 3,
    "budget_per_s": 1.6667,
    "next_step_at": NOW + 300,
    "opened_by": {"line": LINE, "rule": "google/rate-dkim-domain"},
    "unheld_attempts": 0,
}
STATUS: dict[str, Any] = {
    "mode": "act",
    "subqueues": [SUBQUEUE, {**SUBQUEUE, "key": "ip:192.0.2.1@yahoo", "state": "paused", "held": 40}],
    "held_total": 52,
    "messages_live": 60,
    "log": {"source": "/var/log/mail.log", "lag_s": 0.25, "lines": 1234, "followed": True, "unknown": {}},
    "policy": {"requests": {"RCPT": 5, "END-OF-MESSAGE": 2}, "fail_open": {}},
    "helper": {"reachable": True},
    "store": {"failure": "", "recovered": ""},
}


class Asked:
    """A core that answers from a table, and remembers what it was asked."""

    def __init__(self, directory: Path) -> None:
        self.requests: list[dict[str, Any]] = []
        self.config = directory / "sidecar.toml"
        self.config.write_text(f'runtime_directory = "{directory}"\n')

    def sidecar(self, *words: str) -> Result:
        return CliRunner().invoke(sidecar, ["--config", str(self.config), *words], env={"SUDO_USER": "ann"})


@contextmanager
def core(directory: Path, commands: Mapping[str, Handler]) -> Iterator[Asked]:
    asked = Asked(directory)
    ready, stop = threading.Event(), threading.Event()

    def noting(handler: Handler) -> Handler:
        def answer(request: dict[str, Any]) -> Any:
            asked.requests.append(request)
            return handler(request)

        return answer

    async def serve() -> None:
        server = await serve_control(directory / "control", {name: noting(each) for name, each in commands.items()})
        ready.set()
        await asyncio.to_thread(stop.wait)
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield asked
    finally:
        stop.set()
        thread.join()


def answering(answer: Mapping[str, Any]) -> Handler:
    return lambda _: answer


def shown(answer: Mapping[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(status.screen(answer, now=NOW))
    written: str = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO above
    return written


def test_the_screen() -> None:
    lines = shown(STATUS).splitlines()

    assert lines[0] == "mode act, 2 sub-queues open, 52 held"
    assert lines[1] == "log /var/log/mail.log: 1234 lines, 0.2 s behind"
    assert lines[2] == "queue: 60 messages known"
    assert lines[3] == "policy: 7 requests, 0 errors of ours"
    assert [" ".join(line.split()) for line in lines[4:]] == [
        "sub-queue state since held budget/s next step opened by",
        "ip:192.0.2.1@yahoo paused 90 s 40 1.667 in 5 min google/rate-dkim-domain",
        f"{KEY} ramping 90 s 12 1.667 in 5 min google/rate-dkim-domain",
    ]


def test_without_sub_queues_there_is_no_table() -> None:
    written = shown({**STATUS, "subqueues": []})

    assert "0 sub-queues open" in written
    assert "budget" not in written


def test_trouble_is_shown() -> None:
    written = shown(
        {**STATUS, "helper": {"reachable": False}, "store": {"failure": "disk full", "recovered": "set aside"}}
    )

    assert "queue helper: not reachable; nothing can be held or released" in written
    assert "store: disk full" in written
    assert "store: set aside" in written


def test_whose_authentication_is_broken_stands_there() -> None:
    row = {"key": "dkim-domain:shop.example@*", "rule": "authentication/dkim", "evidence": "no key at s1", "since": NOW}
    other = {**row, "key": "spf-domain:b.example@*", "let_go_by": "anna"}
    written = shown({**STATUS, "broken": [{**row, "let_go_by": ""}, other]})

    assert "broken: dkim-domain:shop.example@*: its mail waits for the repair: no key at s1" in written
    assert "broken: spf-domain:b.example@*: sent all the same, by anna: no key at s1" in written


def test_a_refused_reload_and_a_restart_that_is_wanted_are_shown() -> None:
    written = shown({**STATUS, "reload": {"at": NOW, "error": "mine.toml: bad\x1b", "restart_for": ["log.source"]}})

    assert "reload: refused, what was in force stays: mine.toml: bad\\x1b" in written
    assert "reload: a restart is wanted for log.source" in written


TOLD = {"sidecar": "0.2.0", "mode": "act", "held": 1200, "live": 9, "subqueues": 3, "lag_s": 0.4, "helper": True}
FLEET = {
    "host": "mx1",
    "hosts": [
        {"host": "mx1", "heard_s": 0.0, "silent": False, **TOLD, "said_s": 2.0},
        {"host": "mx2", "heard_s": 70.0, "silent": True},
    ],
    "takes_part": True,
    "shared": 3,
    "silent": "",
    "alone": False,
    "alone_part": 0.25,
}


def test_a_fleet_is_shown() -> None:
    written = shown({**STATUS, "fleet": FLEET})
    assert "fleet: mx1, one of 2 hosts, 1 of them heard of, 3 sub-queues shared, 1200 held by all" in written
    assert "silent" not in written
    lines = [line.split() for line in written.splitlines()]
    assert ["mx1", "0", "s", "ago", "0.2.0", "act", "0", "s", "3", "1200", "answers"] in lines
    assert ["mx2", "70", "s", "ago", "?", "?", "?", "?", "?", "?"] in lines


def test_two_versions_side_by_side_are_shown() -> None:
    hosts = [{**FLEET["hosts"][0], "sidecar": each, "host": each} for each in ("0.2.0", "0.1.0\x1b")]  # type: ignore[index]
    assert "fleet: versions 0.1.0\\x1b, 0.2.0 side by side" in shown({**STATUS, "fleet": {**FLEET, "hosts": hosts}})


def test_a_host_that_observes_is_shown_as_no_part_of_a_fleet() -> None:
    assert "fleet: who only observes" in shown({**STATUS, "fleet": {**FLEET, "takes_part": False, "silent": "no"}})


def test_a_fleet_without_its_store_is_shown() -> None:
    written = shown({**STATUS, "fleet": {**FLEET, "silent": "Connection refused\x1b", "alone": True}})
    assert "fleet: the store is silent: Connection refused\\x1b" in written
    assert "by itself, at 25% of what all of them may let out" in written


def test_a_long_list_is_cut_and_says_so() -> None:
    many = [{**SUBQUEUE, "key": f"dkim-domain:d{number}.example@google"} for number in range(100)]
    written = shown({**STATUS, "subqueues": many})

    assert written.count("@google") == 40
    assert "and 60 more: sidecar subqueue list" in written


def test_a_crafted_key_steers_no_terminal() -> None:
    written = shown({**STATUS, "subqueues": [{**SUBQUEUE, "key": "spf-domain:\x1b[2J[red]x\n.example@google"}]})

    assert "\x1b" not in written
    assert "spf-domain:\\x1b[2J[red]x\\n.example@google" in written


def test_what_core_does_not_know_is_left_blank() -> None:
    written = shown({**STATUS, "subqueues": [{"key": KEY, "state": "paused", "budget_per_s": None}]})

    assert written.splitlines()[-1].split() == [KEY, "paused", "0"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59.6, "60 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2.0 h"),
        (172_799, "48.0 h"),
        (172_800, "2.0 d"),
    ],
)
def test_span(seconds: float, said: str) -> None:
    assert status.span(seconds) == said


def test_status_for_people_and_for_programs(tmp_path: Path) -> None:
    with core(tmp_path, {"status": answering(STATUS)}) as asked:
        people = asked.sidecar("status")
        programs = asked.sidecar("status", "--json")

    assert people.exit_code == 0
    assert "mode act, 2 sub-queues open, 52 held" in people.stdout
    assert json.loads(programs.stdout) == STATUS


def test_watching_goes_on_while_core_is_away_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    pauses: list[str] = []

    def pause() -> None:
        pauses.append(console.file.getvalue())  # type: ignore[attr-defined]  # as above
        if len(pauses) == 1:
            core_is_there.__exit__(None, None, None)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    core_is_there = core(tmp_path, {"status": answering(STATUS)})
    core_is_there.__enter__()
    status.watch(tmp_path / "control", console, pause=pause)

    assert "52 held" in pauses[0]
    assert "core does not run here" in pauses[1][len(pauses[0]) :]


def test_list(tmp_path: Path) -> None:
    with core(tmp_path, {"status": answering(STATUS)}) as asked:
        people = asked.sidecar("subqueue", "list")
        programs = asked.sidecar("subqueue", "list", "--json")

    assert people.stdout.index("ip:192.0.2.1@yahoo") < people.stdout.index("dkim-domain:")
    assert json.loads(programs.stdout) == STATUS["subqueues"]


def test_an_empty_list(tmp_path: Path) -> None:
    with core(tmp_path, {"status": answering({**STATUS, "subqueues": []})}) as asked:
        assert asked.sidecar("subqueue", "list").stdout == "no sub-queue is open\n"
        assert asked.sidecar("subqueue", "list", "--json").stdout == "[]\n"


@pytest.mark.parametrize(
    ("words", "request_", "answer", "says"),
    [
        (["show", KEY], {"do": "show", "key": KEY}, {"subqueue": SUBQUEUE}, LINE),
        (["open", KEY], {"do": "open", "key": KEY}, {"subqueue": SUBQUEUE}, f"{KEY}: ramping for "),
        (
            ["pause", KEY, "--seconds", "600"],
            {"do": "pause", "key": KEY, "seconds": 600.0},
            {"subqueue": {**SUBQUEUE, "unheld_attempts": 2}},
            "2 attempts during a pause",
        ),
        (
            ["open", "--where", "tenant = news", "--rate", "30/m", "--name", "sale", "--seconds", "600"],
            {"do": "open", "where": "tenant = news", "rate": 0.5, "name": "sale", "seconds": 600.0},
            {"subqueue": SUBQUEUE},
            f"{KEY}: ramping for ",
        ),
        (
            ["open", "--where", "tenant = news"],
            {"do": "open", "where": "tenant = news", "name": ""},
            {"subqueue": {**SUBQUEUE, "next_step_at": None}},
            f"{KEY}: ramping for ",
        ),
        (["pause", KEY], {"do": "pause", "key": KEY}, {"subqueue": SUBQUEUE}, "12 held, 1.667 messages/s"),
        (["close", KEY], {"do": "close", "key": KEY}, {"key": KEY, "state": "closed"}, f"{KEY}: closed\n"),
        (["release", KEY], {"do": "release", "key": KEY}, {"released": 12}, "12 messages are released\n"),
        (["release", "--all"], {"do": "release", "key": "all"}, {"released": 52}, "52 messages are released\n"),
    ],
)
def test_by_hand(tmp_path: Path, words: list[str], request_: dict[str, Any], answer: dict[str, Any], says: str) -> None:
    with core(tmp_path, {"subqueue": answering(answer)}) as asked:
        people = asked.sidecar("subqueue", *words)
        programs = asked.sidecar("subqueue", *words, "--json")

    assert people.exit_code == 0
    assert says in people.stdout
    assert json.loads(programs.stdout) == answer.get("subqueue", answer)
    of_all = {} if request_["do"] == "show" else {"host": ""}
    assert asked.requests == [{"command": "subqueue", "who": "ann", **of_all, **request_}] * 2


def test_what_became_of_it_on_each_host_is_told(tmp_path: Path) -> None:
    hosts = {"mx1": {"ok": True, "released": 12}, "mx2": {"ok": False, "error": "no such sub-queue is open"}}
    answer = {"released": 12, "hosts": hosts, "unheard": {"mx3": "not there; does it when it is back within 1 h"}}
    with core(tmp_path, {"subqueue": answering(answer)}) as asked:
        people = asked.sidecar("subqueue", "release", KEY, "--host", "mx1")
        programs = asked.sidecar("subqueue", "release", KEY, "--json")

    assert people.stdout.splitlines() == [
        "12 messages are released",
        "host mx1: done, 12 messages released",
        "host mx2: no such sub-queue is open",
    ]
    assert people.stderr == "host mx3: not there; does it when it is back within 1 h\n"
    assert json.loads(programs.stdout) == answer
    assert [each["host"] for each in asked.requests] == ["mx1", ""]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["subqueue", "show"], "Missing argument 'KEY'"),
        (["subqueue", "show", "example.com"], "'example.com' is no sub-queue key; wanted TYPE:VALUE@PROVIDER"),
        (["subqueue", "show", ""], "is no sub-queue key"),
        (["subqueue", "pause", KEY, "--seconds", "0"], "--seconds"),
        (["subqueue", "open"], "wanted either a KEY or --where"),
        (["subqueue", "open", KEY, "--where", "tenant = a"], "wanted either a KEY or --where"),
        (["subqueue", "open", KEY, "--rate", "5/s"], "--name, --rate and --seconds go with --where"),
        (["subqueue", "open", "--where", "tenant = a", "--rate", "5"], "found '5', wanted a number above 0 and a time"),
        (["subqueue", "open", "--where", "tenant = a", "--rate", "0/s"], "found '0/s', wanted a number above 0"),
        (["subqueue", "release"], "wanted either a KEY or --all"),
        (["subqueue", "release", KEY, "--all"], "wanted either a KEY or --all"),
        (["subqueue", "release", ""], "is no sub-queue key"),
        (["status", "--watch", "--json"], "choose one"),
    ],
)
def test_wrong_usage_asks_nothing(tmp_path: Path, words: list[str], says: str) -> None:
    with core(tmp_path, {"subqueue": answering({}), "status": answering(STATUS)}) as asked:
        result = asked.sidecar(*words)

    assert result.exit_code == 2
    assert says in result.stderr
    assert asked.requests == []


def test_a_refusal_of_core_is_told(tmp_path: Path) -> None:
    def refused(_: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("no such sub-queue is open")

    with core(tmp_path, {"subqueue": refused}) as asked:
        result = asked.sidecar("subqueue", "show", KEY)

    assert result.exit_code == 2
    assert result.stderr == "sidecar: no such sub-queue is open\n"


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["subqueue", "list"], ["subqueue", "close", KEY]])
def test_without_core_the_exit_status_is_3(tmp_path: Path, words: list[str]) -> None:
    result = Asked(tmp_path).sidecar(*words)

    assert result.exit_code == 3
    assert result.stderr.startswith(f"sidecar: {tmp_path}/control: core does not run here")
    assert result.stdout == ""
