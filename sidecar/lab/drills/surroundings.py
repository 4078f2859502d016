"""A Postfix that is set up otherwise: smtpd in its cage, hold hashed into directories, two instances on one host."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from sidecar.lab.drills.drill import Drill, DrillError
from sidecar.lab.drills.levers import campaign, on_hold, processes, sidecar_of
from sidecar.lab.drills.witness import delivered, let_go, log_text
from sidecar.lab.fleet import Fleet
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.private_postfix import PrivatePostfix
from sidecar.lab.run import Bench

_KEY = "dkim-domain:burst.example@google"
_LATER = """
[[sender]]
domain = "burst.example"
burst = 20
at = 8
to = ["google"]
"""
"""Arrives while the key is paused."""


async def act_chroot(bench: Bench) -> None:
    """Put smtpd into its cage before the first message comes."""
    await asyncio.to_thread(bench.postfix.postconf, "-F", "-e", f"127.0.0.1:{bench.postfix.port}/inet/chroot=y")
    await asyncio.to_thread(bench.postfix.reload)
    await on_hold(bench, 37)
    if (roots := _roots_of("smtpd")) != {bench.postfix.queue_directory}:
        raise DrillError(f"smtpd has {sorted(map(str, roots)) or 'no process'} as its root; the trap did not close")
    await act(bench)


def _roots_of(name: str) -> set[Path]:
    found = set()
    for pid in processes(name):
        with contextlib.suppress(OSError):  # it has just ended
            found.add(Path(f"/proc/{pid}/root").readlink())
    return found


async def act_hashed(bench: Bench) -> None:
    """The files lie two directories below hold."""
    await on_hold(bench, 37)
    if any(file.parents[2].name != "hold" for file in bench.postfix.queue_files("hold")):
        raise DrillError("hold is not hashed; the trap did not close")
    await act(bench)


async def act(bench: Bench) -> None:
    """Taken from the queue, held on arrival, let go."""
    await on_hold(bench, 57)
    await let_go(bench, _KEY)
    await delivered(bench, lambda _: True, 30)


def expects_answers(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """Mail was held on arrival: the question came through."""
    del figures
    answered = {moved.queue_id for moved in evidence.log.held}
    if len(answered) < 57:
        yield f"only {len(answered)} messages were held"


async def act_two(bench: Bench) -> None:
    """A second instance on the same host, with the same sender's mail: one refusal pauses it in both."""
    second = await _second_instance(bench)
    await on_hold(bench, 37)
    fleet = Fleet(dataclasses.replace(bench.scenario, seed=2), second)
    fleet.submissions = bench.fleet.submissions
    await fleet.burst(bench.scenario.senders()[0])
    await on_hold(bench, 77)
    await let_go(bench, _KEY)
    await delivered(bench, lambda _: True, 40)
    text = log_text(bench)
    for said in (" postfix/smtpd[", " postfix/postsuper[", " postfix-out/smtpd[", " postfix-out/postsuper["):
        if said not in text:
            raise DrillError(f"no line of {said.strip()}...] in the log; the trap did not close")


async def _second_instance(bench: Bench) -> PrivatePostfix:
    """Like the first one, but for its places and its name; the sidecar is told of it by a new start."""
    first = bench.postfix
    own = dict(line.split(" = ", 1) for line in first.postconf("-n").splitlines() if " = " in line)
    for name in ("config_directory", "queue_directory", "data_directory", "header_checks"):
        del own[name]
    second = PrivatePostfix(
        first.directory.with_name("postfix-out"),
        main_cf={
            **own,
            "multi_instance_name": "postfix-out",
            "multi_instance_enable": "yes",
            "syslog_name": "postfix-out",
            "maillog_file_prefixes": str(first.directory.parent),
        },
        header_checks=(first.config_directory / "header_checks").read_text(),
    )
    first.postconf("-e", f"multi_instance_directories = {second.config_directory}", "multi_instance_enable = yes")
    bench.beside.append(second)
    await asyncio.to_thread(second.start)
    await sidecar_of(bench).stop()
    await sidecar_of(bench).start()
    return second


DRILLS = (
    Drill(
        "chrooted-smtpd",
        "a chrooted smtpd reaches the policy socket",
        campaign("chrooted-smtpd", burst=40) + _LATER,
        act_chroot,
        expects_answers,
    ),
    Drill(
        "hashed-hold",
        "held files are found in a hashed hold queue",
        campaign(
            "hashed-hold",
            burst=40,
            main_cf=("hash_queue_names = deferred, defer, hold, incoming, active", "hash_queue_depth = 2"),
        )
        + _LATER,
        act_hashed,
        expects_answers,
    ),
    Drill(
        "two-instances",
        "two instances have one sub-queue, and each its own hands",
        campaign("two-instances", burst=40).replace("at = 1\n", "at = 8\n"),
        act_two,
    ),
)
