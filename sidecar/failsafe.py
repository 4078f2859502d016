"""Gives all mail of ours back to Postfix when core has been silent for too long.

Needs neither core, its store nor the queue helper: the helper's record says what is ours, and where that
is lost, our HOLD answers in the log do. An admin's holds are never touched.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import click

from parsers.log import LogReader
from parsers.postfix.facts import Held, QueueRemoved, Released, Requeued
from policies.access import held_key
from sidecar import held_record, hold_queue, postfix, qmgr, queue_files
from sidecar.config import Config, ConfigError
from sidecar.held_record import HeldRecord, Live, Op, RecordError
from sidecar.postfix import Instance, PostfixError

RATE = 20.0
"""Messages a second that become due: what a host sends beside its own mail without noticing."""
SLICE = 500
LOG_TAIL = 64 << 20
"""Bytes at the end of the log that are searched for our HOLD answers."""

MOVED_WITHIN = 60.0
"""Seconds from our HOLD answer until cleanup has the file on hold, slow milters included. A file that was moved
later may be on hold by an admin: lines about that can come late, or be dropped by a syslog that limits its rate."""

_HOLD_WORDS = (b"hold: END-OF-MESSAGE", b"placed on hold", b"released from hold", b": requeued", b": removed")
"""One of these is in every line that says who holds a message; others need no parsing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What was done for one Postfix instance."""

    instance: str
    reloaded: bool = False
    released: int = 0
    over: float = 0.0
    """Seconds until the last of them is due."""
    busy: int = 0
    """Still on hold: a delivery agent has them open; the next run tries again."""
    gone: int = 0
    """In the record, but no longer on hold."""
    unsure: tuple[str, ...] = ()
    """Ours by the log alone, but moved since: left on hold, for an admin may have put them there."""
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"{self.instance}: {self.error}"
        parts = ["queue manager renewed"] if self.reloaded else []
        parts.append(f"{self.released} messages released, the last due in {self.over:.0f} s")
        if self.busy:
            parts.append(f"{self.busy} are being delivered and stay on hold; run this again")
        if self.gone:
            parts.append(f"{self.gone} had left hold already")
        if self.unsure:
            ids = " ".join(self.unsure[:10]) + (" ..." if len(self.unsure) > 10 else "")
            parts.append(f"{len(self.unsure)} that we once held were moved since and stay, release by hand: {ids}")
        return f"{self.instance}: {'; '.join(parts)}"


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What one run found and did."""

    state: str
    """alive (nothing to do), nothing (of ours is on hold), released, incomplete, locked (another run is at it)."""
    heartbeat_age: float
    """Seconds since core's last sign of life, or since it could have given one."""
    instances: tuple[Outcome, ...] = ()
    notes: tuple[str, ...] = ()
    """What was found amiss on the way."""


def run(config: Config, *, forced: bool = False, rate: float = RATE) -> Report:
    """Look for core's sign of life; where it is too old, or `forced`, release all that is ours.

    Raises PostfixError when not even the instances can be learned, ConfigError when the lock cannot be had.
    """
    now = time.time()
    limit = config.subqueues.failsafe_after_minutes * 60 / config.subqueues.scale
    contents, notes = _contents(config)
    age = heartbeat_age(config, contents.live, now=now)
    if age < limit and not forced:
        return Report("alive", age)
    if age < limit:
        notes.append(f"core gave a sign of life {age:.0f} s ago: it may take mail again; stop it first")
    with _lock(config) as ours:
        if not ours:
            return Report("locked", age)
        return _release_all(config, age=age, rate=rate, notes=notes)


def heartbeat_age(config: Config, live: Live, *, now: float) -> float:
    """Seconds since core's last sign of life.

    Where there is no heartbeat file, as after a boot: since the last entry of the record or the boot, whichever
    is later. A heartbeat in the future is as wrong as an old one: the clock was set back.
    """
    try:
        return abs(now - (Path(config.runtime_directory) / "heartbeat").stat().st_mtime)
    except OSError:
        latest = max((entry.time for entry in live.values()), default=0.0)
        return min(max(0.0, now - latest), time.clock_gettime(time.CLOCK_BOOTTIME))


def _contents(config: Config) -> tuple[held_record.Contents, list[str]]:
    """The record, as far as it can be read, and what is to be said of it."""
    try:
        contents = held_record.read(config.held_record)
    except RecordError as error:
        return held_record.Contents({}, frozenset(), 0), [f"{error}; going by the log alone"]
    notes = []
    if contents.damaged:
        notes.append(f"{config.held_record}: {contents.damaged} damaged lines skipped")
    return contents, notes


@contextlib.contextmanager
def _lock(config: Config) -> Iterator[bool]:
    """Whether this is the only run. Raises ConfigError."""
    path = Path(config.runtime_directory) / "failsafe.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be made: {error.strerror}; see runtime_directory") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(handle)


def _release_all(config: Config, *, age: float, rate: float, notes: list[str]) -> Report:
    known = postfix.instances(Path(config.postfix.config_directory))
    try:
        record: HeldRecord | None = HeldRecord(config.held_record)
    except RecordError as error:
        record = None
        notes.append(f"{error}; what is released stays in it")
    contents, _ = _contents(config)  # again: under the lock now
    outcomes = []
    for instance in known:
        try:
            outcomes.append(_release(instance, contents, record, config=config, rate=rate))
        except PostfixError as error:
            outcomes.append(Outcome(instance.syslog_name, error=str(error)))
    names = {instance.syslog_name for instance in known}
    outcomes += [
        Outcome(stranger, error=f"in the record, but no instance of {config.postfix.config_directory}")
        for stranger in sorted({name for name, _ in contents.live} - names)
    ]
    if any(outcome.error or outcome.busy or outcome.unsure for outcome in outcomes):
        state = "incomplete"
    else:
        state = "released" if any(outcome.released for outcome in outcomes) else "nothing"
    return Report(state, age, tuple(outcomes), tuple(notes))


def _release(
    instance: Instance, contents: held_record.Contents, record: HeldRecord | None, *, config: Config, rate: float
) -> Outcome:
    """Everything of ours in one instance: out of the queue manager's memory first, then back, staggered."""
    name = instance.syslog_name
    with queue_files.as_owner(instance):
        there = queue_files.held(instance)
    mine = {one: entry.time for (place, one), entry in contents.live.items() if place == name}
    gone = [one for one in mine if one not in there]
    if record is not None:
        with contextlib.suppress(RecordError):  # then they are looked for again in the next run
            record.append(Op.GONE, name, gone, key="", now=time.time())
    ours = {one: taken for one, taken in mine.items() if one in there}
    unknown = {one for one in there if one not in ours and (name, one) not in contents.left}
    by_log = {one: at for one, at in _answered(config, name).items() if one in unknown} if unknown else {}
    unsure = _moved_since(instance, by_log)
    ours |= {one: at for one, at in by_log.items() if one not in unsure}
    if not ours:
        return Outcome(name, gone=len(gone), unsure=unsure)
    reloaded = _renew(instance, max(ours.values()))
    ids = sorted(ours)  # long ids begin with the time of arrival: the oldest leave first
    released, busy, vanished = 0, 0, 0
    for start in range(0, len(ids), SLICE):
        part = ids[start : start + SLICE]
        done = hold_queue.give_back(
            instance, part, key="", record=record, now=time.time(), spread=len(part) / rate, delay=released / rate
        )
        released += len(done.released)
        busy += len(done.busy)
        vanished += len(done.missing)
    if released and qmgr.master(instance) is not None:
        with contextlib.suppress(PostfixError):  # its own scans find them, too
            postfix.kick(instance, "qmgr", "D")
    return Outcome(name, reloaded, released, released / rate, busy, len(gone) + vanished, unsure)


def _renew(instance: Instance, latest: float) -> bool:
    """Have a new queue manager, unless the present one is newer than all that we took; then it knows nothing of it.

    Without this a run for each message that stays busy would reload Postfix every minute.
    """
    started = qmgr.started(instance)
    if started is not None and started > latest + 1.0:
        return False
    return qmgr.renew(instance)


def _moved_since(instance: Instance, answered: Mapping[str, float]) -> tuple[str, ...]:
    """Those whose file was moved after our HOLD answer had put it on hold; the log need not have said so."""
    with queue_files.as_owner(instance):
        moved = {one: queue_files.moved_at(instance, one) for one in answered}
    return tuple(sorted(one for one, at in moved.items() if at is None or at - answered[one] > MOVED_WITHIN))


def _answered(config: Config, name: str) -> dict[str, float]:
    """Messages on hold by our HOLD answer, by the end of the log, with the time of it; for what no record names."""
    if config.log.source in {"journal", "-"}:
        return {}
    answered: dict[str, float] = {}
    zone = datetime.now().astimezone().tzinfo
    assert zone is not None
    reader = LogReader(zone=zone, reference=time.time(), syslog_names=config.log.syslog_names)
    for line in _tail(Path(config.log.source)):
        for fact in reader.facts(line):
            if fact.record.instance != name:
                continue
            if isinstance(fact, Held) and fact.by == "policy" and held_key(fact.text) is not None:
                answered[fact.queue_id] = fact.record.time
            elif isinstance(fact, Held | Released | Requeued | QueueRemoved):
                answered.pop(fact.queue_id, None)
    return answered


def _tail(path: Path) -> Iterator[bytes]:
    """The lines about holding in the last part of a log, its newest rotated sibling first."""
    for each in (path.with_name(path.name + ".1"), path):
        with contextlib.suppress(OSError), each.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL))
            for line in file:
                if any(words in line for words in _HOLD_WORDS):
                    yield line.rstrip(b"\n")


def say(report: Report) -> Iterator[str]:
    """The report for people, a line at a time."""
    yield from report.notes
    if report.state == "alive":
        yield f"core gave a sign of life {report.heartbeat_age:.0f} s ago: nothing to do"
    elif report.state == "locked":
        yield "another run is at work: nothing to do"
    elif report.state == "nothing":
        yield "nothing of ours is on hold"
    yield from (str(outcome) for outcome in _worth_saying(report.instances))


def _worth_saying(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [one for one in outcomes if one.error or one.released or one.busy or one.gone or one.unsure]


@click.command(epilog="Example: sidecar failsafe --now --json")
@click.option("--now", "forced", is_flag=True, help="Release now, whether core lives or not.")
@click.option("--rate", type=click.FloatRange(min=0.1), default=RATE, show_default=True, help="Messages a second.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def failsafe(config: Config, *, forced: bool, rate: float, as_json: bool) -> None:
    """Release all mail that the sidecar holds when core has been silent for too long.

    Exit status: 0; 1 when something of ours stays on hold; 2 for wrong usage or configuration.
    """
    try:
        report = run(config, forced=forced, rate=rate)
    except PostfixError as error:
        click.echo(f"failsafe: {error}", err=True)
        raise SystemExit(1) from error
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report)))
    else:
        for line in say(report):
            click.echo(line)
    raise SystemExit(1 if report.state == "incomplete" else 0)
