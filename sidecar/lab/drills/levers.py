"""The levers that drills pull: how a provider behaves, what core is told, and what core wrote down.

Most drills share one scenario, a campaign that Google throttles after a few messages; it is written here once.
"""

import asyncio
import contextlib
import dataclasses
import gzip
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sidecar import config, postfix, postfix_configuration, wiring, wiring_plan
from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.lab.attachment import Attachment
from sidecar.lab.drills.drill import DrillError, all_delivered, until
from sidecar.lab.measure import Evidence
from sidecar.lab.private_postfix import PostfixError
from sidecar.lab.run import Bench
from sidecar.lab.scenario import Fault, FaultKind

SLOTS = 20
"""Deliveries to one destination at a time, from the first on."""
PATIENCE_S = 40.0
"""What is waited for comes within a few seconds; on a host that does other work as well it comes later."""


def campaign(
    name: str,
    *,
    burst: int = 100,
    at: float = 1,
    seconds: float = 200,
    scale: float = 60,
    sender: str = "",
    provider: str = "google",
    takes: int = 3,
    limit: str = "",
    main_cf: Sequence[str] = (),
    master_cf: Sequence[str] = (),
) -> str:
    """A scenario: `burst` messages at once, of which the provider takes some and refuses the rest until `forgive`.

    A transaction takes a second, so all of the burst is in the queue before the first refusal.
    """
    settings = [f"initial_destination_concurrency = {SLOTS}", *main_cf]
    return f"""
name = "{name}"
seconds = {seconds}
scale = {scale}
main_cf = [{", ".join(f'"{setting}"' for setting in settings)}]
master_cf = [{", ".join(f'"{line}"' for line in master_cf)}]
[[sender]]
domain = "burst.example"
burst = {burst}
at = {at}
to = ["{provider}"]
{sender}
[[provider]]
name = "{provider}"
{_PROVIDERS[provider]}
transaction_s = 1.0
[[provider.limit]]
{limit or _LIMITS[provider].format(takes=takes)}
"""


_PROVIDERS = {
    "google": 'domains = ["gmail.com", "school.example"]\nmx = ["gmail-smtp-in.l.google.com"]',
    "comcast": 'domains = ["comcast.net"]\nmx = ["mx1.comcast.net"]',
}
_LIMITS = {
    "google": 'by = "dkim"\nkind = "window"\nn = {takes}\nper = 360000',
    "comcast": 'by = "envelope"\nkind = "window"\nn = {takes}\nper = 360000\nstage = "end-of-data"',
}


def slow(bench: Bench, delay: float) -> None:
    """Each provider's answer to the end of DATA comes so late, for transactions that get there from now on."""
    for name, provider in bench.providers.items():
        provider.faults.append(Fault(at=0, kind=FaultKind.SLOW_DATA, target=name, delay=delay))


def accept(bench: Bench) -> None:
    """No limit counts any more; what was refused at its end of DATA stays so."""
    for provider in bench.providers.values():
        provider.provider = dataclasses.replace(provider.provider, limit=())


def forgive(bench: Bench) -> None:
    """No provider refuses or delays anything any more; what is under way ends as it began."""
    accept(bench)
    for provider in bench.providers.values():
        provider.faults.clear()
        provider.provider = dataclasses.replace(provider.provider, transaction_s=0.05)


async def slots_filled(
    bench: Bench, delay: float, *, before: int = 0, slots: int = 0, change: Callable[[Bench], None] | None = None
) -> None:
    """Wait until `before` deliveries have ended, some of them refused, and the next are in every slot for `delay` seconds.

    No answer is given until the burst is in the queue and core is frozen, and core is thawed when the slow deliveries
    are in every slot: so whatever it takes then, nothing leaves the queue manager's memory. `change` makes their
    outcome another than that of the first.
    """
    sidecar = sidecar_of(bench)
    providers = bench.providers.values()
    slots = slots or SLOTS * sum(len(provider.domains) for provider in bench.scenario.provider)
    before = before or slots
    for provider in providers:
        provider.shut(after=before - slots)
    burst = bench.scenario.senders()[0].burst
    await until(lambda: len(bench.fleet.submissions.accepted) >= burst, f"{burst} messages handed over", PATIENCE_S)
    waiting = f"{slots} deliveries waiting for their answer"
    await until(lambda: sum(provider.waiting for provider in providers) >= slots, waiting, PATIENCE_S)
    sidecar.freeze()
    try:
        slow(bench, delay)
        if change is not None:
            change(bench)
        for provider in providers:
            provider.open()
        begun = f"{slots} slow deliveries begun"
        await until(lambda: len(bench.ledger.attempts) >= before + slots, begun, PATIENCE_S)
    finally:
        sidecar.thaw()


async def drained(bench: Bench, seconds: float = 90) -> None:
    """Forgive, then release all, again and again for what was refused meanwhile, until all is delivered.

    Raises DrillError after `seconds`.
    """
    forgive(bench)
    await _until_delivered(bench, _release_on_and_on(bench), seconds)


async def nothing_on_hold(bench: Bench) -> None:
    """Wait until no file is left on hold, also none without a recipient; what only a listing finds takes a minute."""
    await until(lambda: not any(bench.postfix.queue_files("hold")), "nothing on hold", 60 + PATIENCE_S)


async def flushed(bench: Bench, seconds: float = 90) -> None:
    """Without the sidecar: forgive, and have Postfix try all that is deferred, again and again, until all is delivered.

    Raises DrillError after `seconds`.
    """
    forgive(bench)
    await _until_delivered(bench, _flush_on_and_on(bench), seconds)


async def _until_delivered(bench: Bench, again_and_again: Coroutine[Any, Any, None], seconds: float) -> None:
    pushing = asyncio.create_task(again_and_again)
    try:
        await all_delivered(bench, seconds)
        await nothing_on_hold(bench)
    finally:
        pushing.cancel()


async def _flush_on_and_on(bench: Bench) -> None:
    while True:
        with contextlib.suppress(PostfixError):  # in the moment of a reload
            await asyncio.to_thread(bench.postfix.postkick, "qmgr", "FADI")  # what postqueue -f says
        await asyncio.sleep(2)


async def _release_on_and_on(bench: Bench) -> None:
    while True:
        with contextlib.suppress(DrillError):  # core may be on its way up
            await by_hand(bench, "release")
        await asyncio.sleep(2)


async def on_hold(bench: Bench, count: int, seconds: float = PATIENCE_S) -> None:
    """Wait until so many messages are on hold."""
    await until(lambda: len(bench.follower.log.on_hold) >= count, f"{count} messages on hold", seconds)


def taken_while_active(evidence: Evidence) -> set[str]:
    """Queue ids that were put on hold after the queue manager had them in memory."""
    return {moved.queue_id for moved in evidence.log.held} & evidence.log.active.keys()


def sidecar_of(bench: Bench) -> Attachment:
    """Raises DrillError in a leg without the sidecar: a drill is about the sidecar."""
    if bench.attachment is None:
        raise DrillError("a drill needs the sidecar; leave out --plain and --compare")
    return bench.attachment


def wire(bench: Bench) -> None:
    """What `sidecar postfix apply` does. Raises DrillError."""
    (instance,) = postfix.instances(bench.postfix.config_directory)
    plan = wiring_plan.plan(postfix_configuration.read(instance), config.load(sidecar_of(bench).config_file))
    if plan.refused:
        raise DrillError("; ".join(plan.refused))
    wiring.apply(instance, plan)


async def by_hand(bench: Bench, do: str, key: str = "all", **arguments: Any) -> dict[str, Any]:
    """One `sidecar subqueue` command.

    Raises DrillError when core refuses it or does not answer.
    """
    try:
        return await sidecar_of(bench).ask("subqueue", do=do, key=key, who="drill", **arguments)
    except (CoreRefused, CoreUnreachable) as error:
        raise DrillError(f"subqueue {do} {key}: {error}") from error


async def state_of(bench: Bench, key: str) -> str:
    """State of a sub-queue, "" where there is none or core does not answer."""
    with contextlib.suppress(CoreRefused, CoreUnreachable):
        status = await sidecar_of(bench).ask("status")
        return next((str(sub["state"]) for sub in status["subqueues"] if sub["key"] == key), "")
    return ""


async def held_by_us(bench: Bench) -> int:
    """How many messages core believes to hold."""
    try:
        return int((await sidecar_of(bench).ask("status"))["held_total"])
    except (CoreRefused, CoreUnreachable) as error:
        raise DrillError(f"status: {error}") from error


async def changes(bench: Bench, kind: str) -> list[dict[str, Any]]:
    """Core's changes of one kind so far, as far as it has stored them."""
    found: list[dict[str, Any]] = []
    after = 0
    while page := (await sidecar_of(bench).ask("changes", after=after, limit=5_000))["changes"]:
        after = page[-1]["id"]
        found += [change for change in page if change["kind"] == kind]
    return found


def processes(word: str) -> list[int]:
    """Processes whose name, or one of whose arguments, is `word`; the lab sees only its own."""
    found = (int(process.name) for process in Path("/proc").iterdir() if process.name.isdecimal())
    return [pid for pid in found if word in _words(pid)]


def _words(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        process = Path(f"/proc/{pid}")
        return [(process / "comm").read_text().strip(), *(process / "cmdline").read_bytes().decode().split("\0")]
    return []


class _Line(NamedTuple):
    """What a delivery line of the log and its row in the store must have in common."""

    queue_id: str
    status: str
    dsn: str
    delay: float


_DELIVERY = re.compile(
    r"^.{15} \S+ postfix\S*\[\d+\]: (?P<id>\w+): to=<[^>]*>,.* delay=(?P<delay>[\d.]+), .*"
    r"dsn=(?P<dsn>[\d.]+), status=(?P<status>sent|deferred|bounced|expired|SOFTBOUNCE) "
)


async def counted_once(bench: Bench) -> None:
    """Wait until core has stored every delivery line of the log, and see that it has none of them twice.

    Raises DrillError.
    """
    await until(lambda: not list(_uncounted(bench)), "every delivery line stored once", PATIENCE_S)


def _log_lines(live: Path) -> Iterator[str]:
    """All lines of a log, also of what was rotated and compressed."""
    for each in live.parent.glob(f"{live.name}*"):
        with gzip.open(each, "rt", errors="replace") if each.suffix == ".gz" else each.open(errors="replace") as log:
            yield from log


def _uncounted(bench: Bench) -> Iterator[_Line]:
    """Lines that are stored too seldom or too often."""
    lines = Counter(
        _Line(found["id"], found["status"], found["dsn"], float(found["delay"]))
        for found in map(_DELIVERY.match, _log_lines(bench.postfix.maillog))
        if found
    )
    store = sidecar_of(bench).directory / "store" / "core.db"
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        rows = Counter(_Line(*row) for row in connection.execute("SELECT queue_id, status, dsn, delay FROM attempt"))
    yield from (line for line in lines.keys() | rows.keys() if lines[line] != rows[line])
