"""How fast logs are read, against Debian's pflogsumm in the same run; what it finds against what is in the log.

    flock LOCK .venv/bin/python benchmarks/logs.py [--lines 500000] [--rounds 3] [--gigabytes 10]

CPU time (user and system) of whole processes, interpreter and imports and all, the least of the rounds, which take
turns; modules stay compiled from one process to the next, as installed ones do. pflogsumm is told of the second
instance, as without it it would not count its lines. What only the comparison needs, argparse and subprocess among it, is
loaded where it is used: it is no part of what is measured.
"""

import json
import os
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parsers.postfix.facts import (
    ClientDisconnected,
    ClientIdentified,
    ConnectionLost,
    DeliveryAttempt,
    DkimSigned,
    Fact,
    HeaderLogged,
    Held,
    MessageExpired,
    MessageIdentified,
    NonDeliveryNotification,
    PickedUp,
    QueueActive,
    QueueRemoved,
    Rejected,
    Released,
    Requeued,
)
from policies.message_record import MessageRecord
from sidecar.bulk import Part, fold, parts

_ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
PFLOGSUMM: Final = ("pflogsumm", "--syslog-name=postfix-out")
_TRACKED: Final[tuple[type[Fact], ...]] = (
    ClientIdentified, DeliveryAttempt, MessageIdentified, NonDeliveryNotification, PickedUp, QueueActive, QueueRemoved,
    Rejected,
)  # fmt: skip


_FOLLOWED: Final[tuple[type[Fact], ...]] = (
    *_TRACKED, ClientDisconnected, ConnectionLost, DkimSigned, HeaderLogged, Held, MessageExpired, Released, Requeued,
)  # fmt: skip


class _Message:
    """What pflogsumm keeps of a message, and more: who sent it, how large it is, what became of each recipient."""

    __slots__ = ("client", "delays", "domain", "message_id", "nrcpt", "outcomes", "size")

    def __init__(self) -> None:
        self.client = self.domain = self.message_id = ""
        self.size = self.nrcpt = 0
        self.delays = 0.0
        self.outcomes: dict[str, str] = {}


class _Tracker:
    """Messages by host, instance and queue id until they are removed, and sums of those that were."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, str, str], _Message] = {}
        # No `Counter`: to add one to one of its numbers takes three times as long.
        self.statuses: defaultdict[str, int] = defaultdict(int)
        self.by_domain: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.by_relay: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.bytes_by_domain: defaultdict[str, int] = defaultdict(int)
        self.rejected: defaultdict[str, int] = defaultdict(int)
        self.seconds = 0.0
        self.finished = 0

    def see(self, facts: Sequence[Any]) -> None:  # Any, as mypy does not follow a kind that is looked up once
        open_ = self.open
        for fact in facts:
            record, queue_id = fact[0], fact[1]
            key = record[1], record[2], queue_id
            kind = type(fact)
            message = open_.get(key)
            if message is None:
                if not queue_id or kind is QueueRemoved:
                    if kind is Rejected:
                        self.rejected[fact.code] += 1
                    continue
                message = open_[key] = _Message()
            if kind is DeliveryAttempt:
                status, domain = fact.status, message.domain
                message.outcomes[fact.recipient] = status
                if fact.delay > message.delays:  # noqa: PLR1730  # without a call
                    message.delays = fact.delay
                self.statuses[status] += 1
                self.by_domain[domain, status] += 1
                self.by_relay[fact.relay_host, status] += 1
            elif kind is QueueActive:
                if not message.nrcpt:
                    message.domain = domain = fact.sender.rpartition("@")[2]
                    message.size, message.nrcpt = fact.size, fact.nrcpt
                    self.bytes_by_domain[domain] += fact.size
            elif kind is MessageIdentified:
                message.message_id = fact.message_id
            elif kind is ClientIdentified:
                message.client = fact.client_address
            elif kind is QueueRemoved:
                del open_[key]
                self.finished += 1
                self.seconds += message.delays


def tracked(part: Part) -> Counter[str]:
    """Full life-cycle tracking with metrics: every fact is counted by name, those of messages feed the tracker."""
    reader = part.reader(only=_TRACKED, counting=True)
    tracker = _Tracker()
    for block in part.blocks():
        tracker.see(reader.block_facts(block))
    return Counter({"removed": tracker.finished}) + Counter(tracker.statuses)


def followed(part: Part) -> Counter[str]:
    """The same with `policies.lifecycle`: hops, lines out of order, queue ids used again, copies of lines."""
    reader = part.reader(only=_FOLLOWED, counting=True)
    from policies.lifecycle import Lifecycle  # noqa: PLC0415  # the others do not need it

    lifecycle = Lifecycle()
    found: Counter[str] = Counter()
    for block in part.blocks():
        for fact in reader.block_facts(block):
            lifecycle.see(fact)
        found.update(message.end for message in lifecycle.finished())
    lifecycle.rest()
    found.update(message.end for message in lifecycle.finished())
    return found


class _Sums:
    """What pflogsumm sums up of messages: ends, statuses, and by domain and relay."""

    def __init__(self) -> None:
        self.ends: defaultdict[str, int] = defaultdict(int)
        self.statuses: defaultdict[str, int] = defaultdict(int)
        self.by_domain: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.by_relay: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.size: defaultdict[str, int] = defaultdict(int)
        self.waited: defaultdict[str, float] = defaultdict(float)

    def take(self, messages: list[MessageRecord]) -> None:
        for message in messages:
            domain = (message.sender or "").rpartition("@")[2]
            self.ends[message.end] += 1
            self.size[domain] += message.size
            arrival = message.arrival
            for one in message.recipients:
                status = one.status
                self.statuses[status] += 1
                self.by_domain[domain, status] += 1
                self.by_relay[one.relay_host, status] += 1
                self.waited[domain] += one.last_attempt - arrival


def in_bulk(part: Part) -> Counter[str]:
    """Whole messages as `sidecar parse --messages --stats` reads them, and what pflogsumm sums up of them."""
    from sidecar.log_messages import MessageLog  # noqa: PLC0415  # with multiprocessing, which the others do not need

    log = MessageLog([part], processes=1)  # sums gain nothing by more, see made_of
    sums = _Sums()
    for _ in log.made(sums.take):
        pass
    assert sum(sums.waited.values()) > 0.0
    return Counter(sums.ends) + log.refusals


def delivered(part: Part) -> Counter[str]:
    """Deliveries alone, all their fields."""
    reader = part.reader(only=[DeliveryAttempt])
    statuses: Counter[str] = Counter()
    for block in part.blocks():
        statuses.update([fact.status for fact in reader.block_facts(block)])  # type: ignore[union-attr]  # no others
    return statuses


def counted(part: Part) -> Counter[str]:
    """`sidecar parse --stats`: all facts by name, none made that need not be."""
    from sidecar.parse import count  # noqa: PLC0415  # with the command line, which the others do not need

    return count(part).facts


def made(part: Part) -> Counter[str]:
    """All facts of all daemons, made."""
    reader = part.reader()
    for block in part.blocks():
        reader.block_facts(block)
    return reader.known


WORK: Final[dict[str, Callable[[Part], Counter[str]]]] = {
    "deliveries alone": delivered,
    "tracked, with metrics": tracked,
    "whole messages": in_bulk,
    "whole messages, line by line": followed,
    "all facts": made,
    "parse --stats": counted,
}
BARS: Final = {"deliveries alone": 10.0, "tracked, with metrics": 3.0, "whole messages": 3.0}
_STATUSES: Final = ("deliveries alone", "tracked, with metrics")
"""Those that tell how many deliveries had which status: all of them, or the run fails."""


def work(name: str, paths: list[Path], processes: int) -> Counter[str]:
    """Do one of them, as a process of its own does."""
    some = parts(paths, zone=UTC, pieces=processes)
    return sum(fold(WORK[name], some, processes=processes), Counter())


class Run:
    """One command to its end: CPU seconds, wall seconds, largest resident size in MB, and what it printed."""

    def __init__(self, *command: str) -> None:
        import subprocess  # noqa: PLC0415  # no part of what is measured
        import tempfile  # noqa: PLC0415  # as above

        began = time.perf_counter()
        with tempfile.TemporaryFile() as out:
            child = subprocess.Popen(command, stdout=out, env=_ENVIRONMENT)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            self.said = out.read().decode()
        if child.returncode:
            raise SystemExit(f"{command[0]} failed with status {child.returncode}")
        self.wall = time.perf_counter() - began
        self.cpu = usage.ru_utime + usage.ru_stime
        self.resident = usage.ru_maxrss / 1024


def ours(name: str, *paths: Path, processes: int = 1) -> Run:
    return Run(sys.executable, __file__, "--work", name, str(processes), *map(str, paths))


def compare(path: Path, truth: Counter[str], rounds: int) -> None:
    peer: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in WORK}
    for _ in range(rounds):
        peer.append(Run(*PFLOGSUMM, str(path)).cpu)
        for name, seconds in times.items():
            run = ours(name, path)
            seconds.append(run.cpu)
            if name in _STATUSES:
                found = json.loads(run.said)
                wanted = {kind: number for kind, number in truth.items() if kind != "removed" or "removed" in found}
                assert found == wanted, f"{name}: found {found}, wanted {wanted}"
    print(f"{path.name}: pflogsumm {min(peer):.2f} s CPU")
    for name, seconds in times.items():
        ratio = min(peer) / min(seconds)
        bar = f"  bar {BARS[name]:.0f}: {'met' if ratio >= BARS[name] else 'MISSED'}" if name in BARS else ""
        print(f"  {name:30}{min(seconds):7.2f} s {ratio:6.1f} times pflogsumm{bar}")


def side_by_side(path: Path, rounds: int) -> None:
    """One file by two processes, against two processes that read a file each: lines a second."""
    import subprocess  # noqa: PLC0415  # no part of what is measured

    together, apart = [], []
    for _ in range(rounds):
        together.append(ours("tracked, with metrics", path, processes=2).wall)
        began = time.perf_counter()
        children = [
            subprocess.Popen(
                [sys.executable, __file__, "--work", "tracked, with metrics", "1", str(path)],
                stdout=subprocess.DEVNULL,
                env=_ENVIRONMENT,
            )
            for _ in range(2)
        ]
        for child in children:
            assert child.wait() == 0
        apart.append(time.perf_counter() - began)
    ratio = min(apart) / 2 / min(together)
    print(
        f"two processes on one file: {ratio:.2f} of two independent runs  bar 0.9: {'met' if ratio >= 0.9 else 'MISSED'}"
    )


_HOUR: Final = re.compile(rb"^\w{3} [ \d]\d \d\d(?=:)", re.MULTILINE)


def later(block: bytes, hours: int) -> bytes:
    """The same lines with BSD stamps so many hours later."""

    @cache
    def moved(hour: bytes) -> bytes:
        at = datetime.strptime(f"2025 {hour.decode()}", "%Y %b %d %H").replace(tzinfo=UTC) + timedelta(hours=hours)
        return at.strftime("%b %e %H").encode()

    return _HOUR.sub(lambda found: moved(found[0]), block)


def hours_of(block: bytes) -> int:
    """How many hours lines with BSD stamps are of."""
    return len(set(_HOUR.findall(block)))


def copied(path: Path, gigabytes: float, many: Path) -> None:
    """Many copies of a log, each later than the one before."""
    block = path.read_bytes()
    hours = hours_of(block)
    with many.open("wb") as file:
        copies = 0
        while file.tell() < gigabytes * 1e9:
            file.write(later(block, copies * hours))
            copies += 1


def written(path: Path, lines: int, style: str) -> Counter[str]:
    """A log of so many lines, and what is in it."""
    from benchmarks.mail_log import Style, write_log  # noqa: PLC0415  # no part of what is measured

    with path.open("w") as file:
        return write_log(file, lines, style=Style(style))


def elsewhere(make: Callable[..., Any], *arguments: Any) -> Any:
    """Do it in a process of its own: the largest size of a process counts from before its program was loaded, so from us."""
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415  # no part of what is measured

    with ProcessPoolExecutor(1) as pool:
        return pool.submit(make, *arguments).result()


def large(path: Path, gigabytes: float, directory: Path) -> None:
    """The largest resident size on the log itself and on many copies of it, each later than the one before."""
    many = directory / "many.log"
    elsewhere(copied, path, gigabytes, many)
    for name in WORK:
        small, big = ours(name, path), ours(name, many)
        print(f"{name:30}{small.resident:6.0f} MB on {path.stat().st_size / 1e9:.2f} GB,"
              f"{big.resident:6.0f} MB on {many.stat().st_size / 1e9:.2f} GB ({big.cpu:.0f} s)")  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--work"]:
        name, processes, *paths = sys.argv[2:]
        print(json.dumps(work(name, [Path(path) for path in paths], int(processes))))
        return
    import argparse  # noqa: PLC0415  # no part of what is measured
    import tempfile  # noqa: PLC0415  # as above

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--lines", type=int, default=500_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--gigabytes", type=float, default=1.0, help="of the large file; 0: none")
    said = arguments.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a file
    from benchmarks.mail_log import Style  # noqa: PLC0415  # as above

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for style in Style:
            path = directory / f"{style}.log"
            compare(path, elsewhere(written, path, said.lines, style), said.rounds)
        side_by_side(directory / "bsd.log", said.rounds)
        if said.gigabytes:
            large(directory / "bsd.log", said.gigabytes, directory)


if __name__ == "__main__":
    main()
