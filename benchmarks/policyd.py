"""What a policy request costs: our server, a trivial C server and Debian's postfwd, side by side in one run.

All answer the same questions (RCPT and END-OF-MESSAGE of ever new messages, policy_load.c) over 100 unix
connections, first as fast as they can, then 2,000 a second. Ours decides with the real rules, the real engine
and 10,000 open sub-queues, as many at each provider, and looks every recipient up among 100,000 suppressed ones. Rounds alternate between the servers. Of CPU time the
lowest of a server's rounds counts, for whatever else the machine does can only add to it; of a latency the median.

    python benchmarks/policyd.py [--json] [--seconds 2] [--rounds 5] [--suppressed 100000] [--routes 500] [--quotas N ...]
                                [--stand-in] [--only NAME ...]
    python benchmarks/policyd.py --everything [--json] [--seconds 2] [--rounds 5] [--suppressed 10000000] [--routes 500]
    python benchmarks/policyd.py --reload [--json]

--reload asks core itself 2,000 questions a second, first in quiet, then while it reads 600 rules again ten times, and
says how long the slowest answer took; it needs Postfix's commands, for core asks them about the site.
--quotas 1 5 has two more of ours beside: with one quota, and with five, each of at most 5,000 buckets, which every message is
counted by. Those of the load fit in, but for the sending domains' (10,000), which ever push each other out.
--everything has ours three times, without quotas, with one and with five, and each with 10,000,000 suppressed addresses, 500
routes, hygiene, and a pool with an address that warms up; the bars are those of all. The file of the suppressed is made
before, once for all, and how long that took is told apart.
--stand-in puts a dictionary in the place of the engine: what the service alone costs. Says which bars
of the design are met and which are missed. Needs gcc; postfwd is left out where it is not installed.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.policy_site import SENDERS, SUBQUEUES, Site, StandIn, access_of, engine_of, provider_of  # noqa: E402  # after the path
from benchmarks.suppression import strangers  # noqa: E402  # as above
from policies.engine import Engine  # noqa: E402  # as above
from sidecar import rules  # noqa: E402  # as above
from sidecar.control import ask_core  # noqa: E402  # as above
from sidecar.core import spare_the_collector  # noqa: E402  # as above
from sidecar.lab.private_postfix import PrivatePostfix  # noqa: E402  # as above
from sidecar.policy_sockets import Listener  # noqa: E402  # as above
from sidecar.policyd import serve  # noqa: E402  # as above
from sidecar.suppression_index import Stamp, build  # noqa: E402  # as above

CONNECTIONS = 100
RATE = 2000
RELOADS = 10
RULES = 600
SLOWEST_MS = 50.0
"""Of an answer during a reload."""
QUOTAS_MOST = {1: 1.0, 5: 4.0}
"""Microseconds of CPU that so many quotas may cost."""

ADMINS_RULE = """
[[rule]]
name = "shop-{i}"
any = ["shop {i} sends too much"]
reply = 'shop {i} sends too much (for [a-z0-9.]{{0,60}} )?(now|today|this hour)'
detail = "throttling.domain"
scope = "sender-domain"
bounce = "transient"
reaction = "pause-domain"
identity = {{ type = "dkim-domain", pattern = 'for ([a-z0-9.-]{{1,60}}) now' }}
examples = ["451 4.7.1 shop {i} sends too much for a.example now"]
"""

POSTFWD_RULES = """\
id=SUPPRESSED; recipient==nobody@example.net; action=REJECT 5.1.1 no such user
id=HELD; sender_domain==news.shop9999.example; recipient_domain==gmail.com; action=HOLD paused
id=REST; action=dunno
"""


class Bar(NamedTuple):
    name: str
    value: float
    most: float

    @property
    def met(self) -> bool:
        return self.value <= self.most


class Measured(NamedTuple):
    """One server, over all rounds."""

    cpu_us: float
    """CPU time a request, closed loop."""
    requests_per_s: float
    p50_us: float
    p99_us: float
    cpu_us_at_rate: float
    p50_us_at_rate: float
    p99_us_at_rate: float
    max_us_at_rate: float
    """Median of the rounds' slowest answers."""
    own_mb: float
    """Resident memory at the end, that nobody else has."""
    mapped_mb: float
    """Resident memory of files, which the system takes back when it needs it."""
    answers: dict[str, int]
    """Of the last closed round, by kind."""


class Server(NamedTuple):
    name: str
    path: Path
    pid: int

    def cpu_s(self) -> float:
        """CPU seconds used so far by all its threads."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def resident_mb(self, kind: str) -> float:
        """`kind`: RssAnon or RssFile, as proc(5) has them."""
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return round(int(next(line for line in status if line.startswith(kind)).split()[1]) / 1024, 1)


# Our server, in a process of its own: this file with --serve.


async def _removed_as_by_the_log(engine: Engine) -> None:
    """Messages leave the queue, as `removed` lines say: else a closed loop would fill the memory in a minute."""
    while True:
        await asyncio.sleep(0.05)
        before = time.time() - 0.5
        for message in [message for message in engine.messages if message.last_line < before][:5000]:
            engine.books.gone(message)
        engine.books.changed.clear()
        engine.telling.changes.clear()


async def _serve(path: Path, index: Path, site: Site, *, stand_in: bool) -> None:
    engine = None if stand_in else engine_of(time.time())
    access = access_of(site, engine or StandIn(), index)
    await serve(access, [Listener(f"unix:{path}")])
    spare_the_collector()  # as core does
    if engine is not None:
        await _removed_as_by_the_log(engine)
    await asyncio.Event().wait()


# The run.


@contextlib.contextmanager
def started(name: str, command: Sequence[str], path: Path) -> Iterator[Server]:
    process = subprocess.Popen(command)
    try:
        _wait_for(path)
        yield Server(name, path, process.pid)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def started_postfwd(directory: Path) -> Iterator[Server]:
    """Version 1 (multiplexing, one process): the cheapest a request of those that Debian ships. It only runs as a daemon."""
    path, pid, rules_file = directory / "postfwd", directory / "postfwd.pid", directory / "postfwd.cf"
    rules_file.write_text(POSTFWD_RULES)
    options = ["-P", "-n", "--noidlestats", "--umask=0", "--user=root", "--group=root", f"--pidfile={pid}"]
    command = ["postfwd1", "-d", "-f", str(rules_file), "--proto=unix", f"--port={path}", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    _wait_for(path)
    number = int(pid.read_text())
    try:
        yield Server("postfwd", path, number)
    finally:
        os.kill(number, signal.SIGKILL)


def _wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return
        time.sleep(0.05)
    raise SystemExit(f"{path}: nobody listens after a minute")


def compiled(name: str, directory: Path) -> Path:
    binary = directory / name
    subprocess.run(["gcc", "-O2", "-o", str(binary), str(HERE / f"{name}.c")], check=True)
    return binary


class Load(NamedTuple):
    cpu_us: float
    figures: dict[str, float]


def load(binary: Path, server: Server, *, seconds: float, rate: int = 0) -> Load:
    options = ["-c", str(CONNECTIONS), "-t", str(seconds), "-s", str(SENDERS), "-u", str(server.path)]
    before = server.cpu_s()
    # No warm-up: CPU is counted for all requests, and a whole round is long against it.
    command = [str(binary), *options, "-w", "0", *(["-r", str(rate)] if rate else [])]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(printed)
    return Load((server.cpu_s() - before) / figures["requests"] * 1e6, figures)


def measured(server: Server, closed: Sequence[Load], at_rate: Sequence[Load]) -> Measured:
    def middle(loads: Sequence[Load], figure: str) -> float:
        return statistics.median(each.figures[figure] for each in loads)

    return Measured(
        cpu_us=round(min(each.cpu_us for each in closed), 2),
        requests_per_s=round(max(each.figures["requests"] / each.figures["seconds"] for each in closed)),
        p50_us=middle(closed, "p50_us"),
        p99_us=middle(closed, "p99_us"),
        cpu_us_at_rate=round(min(each.cpu_us for each in at_rate), 2),
        p50_us_at_rate=middle(at_rate, "p50_us"),
        p99_us_at_rate=middle(at_rate, "p99_us"),
        max_us_at_rate=middle(at_rate, "max_us"),
        own_mb=server.resident_mb("RssAnon"),
        mapped_mb=server.resident_mb("RssFile"),
        answers={kind: int(closed[-1].figures[kind]) for kind in ("dunno", "hold", "filter", "other")},
    )


def run(
    *,
    seconds: float,
    rounds: int,
    suppressed: int,
    sites: Sequence[Site],
    stand_in: bool,
    only: Sequence[str],
) -> dict[str, Measured]:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        directory.chmod(0o755)
        binary = compiled("policy_load", directory)
        servers = []
        if "c" in only:
            path = directory / "c"
            servers.append(
                stack.enter_context(started("c", [str(compiled("policy_server", directory)), str(path)], path))
            )
        if "sidecar" in only:
            index = directory / "suppressed.index"
            if suppressed:
                began = time.monotonic()
                build(strangers(suppressed, random.Random(1)), index, Stamp(bytes(16), 0))
                size, took = index.stat().st_size / 1e6, time.monotonic() - began
                print(f"{suppressed} suppressed: {size:.1f} MB, made in {took:.1f} s", file=sys.stderr)
            for site in sites:
                path = directory / f"sidecar-{site.quotas}"
                command = [sys.executable, __file__, "--serve", str(path), "--index", str(index)]
                command += ["--site", json.dumps(site), *(["--stand-in"] if stand_in else [])]
                servers.append(stack.enter_context(started(_name(site.quotas), command, path)))
        if "postfwd" in only and shutil.which("postfwd1"):
            servers.append(stack.enter_context(started_postfwd(directory)))
        closed: dict[str, list[Load]] = {server.name: [] for server in servers}
        at_rate: dict[str, list[Load]] = {server.name: [] for server in servers}
        for _ in range(rounds):
            for server in servers:
                closed[server.name].append(load(binary, server, seconds=seconds))
                at_rate[server.name].append(load(binary, server, seconds=seconds, rate=RATE))
        return {server.name: measured(server, closed[server.name], at_rate[server.name]) for server in servers}


def _name(quotas: int) -> str:
    return f"sidecar, quotas: {quotas}" if quotas else "sidecar"


# Core itself, reloading.


class Reloads(NamedTuple):
    rules: int
    seconds_each: float
    """Median, from the command to its answer."""
    quiet_p99_us: float
    quiet_max_us: float
    p99_us: float
    max_us: float


def _site(directory: Path, postfix: PrivatePostfix) -> Path:
    """Write a configuration, and as many rules of the admin's as make it RULES with ours."""
    (directory / "rules").mkdir()
    more = range(RULES - len(rules.load().rules))
    text = 'mx = [".shops.example"]\n' + "".join(ADMINS_RULE.format(i=i) for i in more)
    (directory / "rules" / "shops.toml").write_text(text)
    (directory / "mail.log").touch()
    path = directory / "sidecar.toml"
    path.write_text(
        f'mode = "act"\nruntime_directory = "{directory}"\n'
        f'[log]\nsource = "{directory}/mail.log"\n[policy]\nlisten = ["unix:{directory}/policy"]\n'
        f'[store]\npath = "{directory}"\n[rules]\ndirectory = "{directory}/rules"\n'
        f'[postfix]\nconfig_directory = "{postfix.config_directory}"\n'
    )
    return path


def run_reloads() -> Reloads:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        binary = compiled("policy_load", directory)
        postfix = PrivatePostfix(directory / "postfix", main_cf={"enable_long_queue_ids": "yes"})
        os.utime(postfix.config_directory / "main.cf", (1, 1))  # Postfix waits for a main.cf that was just written
        command = [sys.executable, "-m", "sidecar", "--config", str(_site(directory, postfix)), "core"]
        core = subprocess.Popen(command, cwd=HERE.parent, stderr=subprocess.DEVNULL)
        try:
            _wait_for(directory / "policy")
            control = directory / "control"
            _wait_for(control)
            for i in range(SUBQUEUES // 10):
                key = f"sender-domain:shop{i}.example@{provider_of(i)}"
                ask_core(control, {"command": "subqueue", "do": "open", "key": key}, timeout=60)
            return _reloaded(binary, directory / "policy", control)
        finally:
            core.kill()
            core.wait()


def _reloaded(binary: Path, policy: Path, control: Path) -> Reloads:
    load = [str(binary), "-c", str(CONNECTIONS), "-s", str(SENDERS), "-u", str(policy), "-w", "0", "-r", str(RATE)]
    quiet = json.loads(subprocess.run([*load, "-t", "10"], check=True, stdout=subprocess.PIPE).stdout)
    took = []
    with subprocess.Popen([*load, "-t", "600"], stdout=subprocess.PIPE) as asking:
        for _ in range(RELOADS):
            began = time.monotonic()
            ask_core(control, {"command": "reload"}, timeout=90)
            took.append(time.monotonic() - began)
        asking.send_signal(signal.SIGTERM)
        assert asking.stdout is not None
        busy = json.loads(asking.stdout.read())
    return Reloads(
        RULES, round(statistics.median(took), 3), quiet["p99_us"], quiet["max_us"], busy["p99_us"], busy["max_us"]
    )


def bars(found: dict[str, Measured], judged: Sequence[str]) -> list[Bar]:
    """Section 8 of the design, as far as these servers were measured; `judged`: those of ours that all of it is for."""
    wanted = []
    for name in judged if "sidecar" in found else ():
        ours, of = found[name], f" ({name})" if len(judged) > 1 else ""
        wanted.append(Bar(f"CPU us a request{of}", ours.cpu_us, 15.0))
        if "c" in found:
            wanted.append(Bar(f"CPU a request over C's{of}", round(ours.cpu_us / found["c"].cpu_us, 2), 4.5))
            ratio = ours.p99_us_at_rate / found["c"].p99_us_at_rate
            wanted.append(Bar(f"p99 at {RATE}/s over C's{of}", round(ratio, 2), 8.0))
        if "postfwd" in found:
            ratio = ours.cpu_us / found["postfwd"].cpu_us
            wanted.append(Bar(f"CPU a request over postfwd's{of}", round(ratio, 4), round(1 / 15, 4)))
    for count, most in QUOTAS_MOST.items():
        if _name(count) in found:
            more = round(found[_name(count)].cpu_us - found["sidecar"].cpu_us, 2)
            wanted.append(Bar(f"CPU us more a request, quotas: {count}", more, most))
    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(description="What a policy request costs.")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--everything", action="store_true", help="all that there is, in one run")
    parser.add_argument(
        "--suppressed", type=int, help="addresses on the suppression list, 100,000 or 10,000,000; 0: no look-up"
    )
    parser.add_argument("--routes", type=int, help="routes beside those to two providers, none or 500")
    parser.add_argument(
        "--quotas", nargs="+", type=int, choices=range(6), default=[], metavar="N", help="ours with N quotas beside"
    )
    parser.add_argument("--stand-in", action="store_true", help="a dictionary in the place of the engine")
    parser.add_argument("--only", nargs="+", choices=["c", "sidecar", "postfwd"], default=["c", "sidecar", "postfwd"])
    parser.add_argument("--reload", action="store_true", help="the slowest answer while core reloads")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--site", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        # As in core: a line for each HOLD, to a stream that somebody else reads.
        logging.basicConfig(level=logging.INFO, stream=Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # to the end
        asyncio.run(_serve(given.serve, given.index, Site(*given.site), stand_in=given.stand_in))
        return
    if given.reload:
        reloads = run_reloads()
        bar = Bar("slowest answer during a reload, ms", round(reloads.max_us / 1000, 1), SLOWEST_MS)
        if given.json:
            print(json.dumps(reloads._asdict() | {"bar": bar._asdict() | {"met": bar.met}}))
        else:
            print(", ".join(f"{figure} {value}" for figure, value in reloads._asdict().items()))
            print(f"{'met   ' if bar.met else 'MISSED'} {bar.name}: {bar.value} (at most {bar.most})")
        return
    all_on, quotas = given.everything, [1, 5] if given.everything else given.quotas
    routes = given.routes if given.routes is not None else 500 if all_on else 0
    most = 10_000_000 if all_on else 100_000
    found = run(
        seconds=given.seconds,
        rounds=given.rounds,
        suppressed=given.suppressed if given.suppressed is not None else most,
        sites=[Site(routes, count, steers=all_on, hygiene=all_on) for count in (0, *quotas)],
        stand_in=given.stand_in,
        only=given.only,
    )
    wanted = bars(found, [_name(count) for count in (0, *quotas)] if all_on else ["sidecar"])
    if given.json:
        said = {
            "servers": {name: each._asdict() for name, each in found.items()},
            "bars": [bar._asdict() | {"met": bar.met} for bar in wanted],
        }
        print(json.dumps(said))
    else:
        for name, each in found.items():
            figures = ", ".join(f"{figure} {value}" for figure, value in each._asdict().items())
            print(f"{name}: {figures}")
        if "postfwd" in given.only and "postfwd" not in found:
            print("postfwd: not installed (apt-get install postfwd)")
        for bar in wanted:
            print(f"{'met   ' if bar.met else 'MISSED'} {bar.name}: {bar.value} (at most {bar.most})")


if __name__ == "__main__":
    main()
