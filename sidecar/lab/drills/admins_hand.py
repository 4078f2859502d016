"""An admin at the queue during a pause: deletes a held message, releases all, puts everything on hold.

Postfix knows one hold and no owner; the sidecar's books must follow what the admin does, and never undo it.
"""

import asyncio
from collections.abc import Sequence

from sidecar.lab.drills import levers
from sidecar.lab.drills.drill import Drill, DrillError, until
from sidecar.lab.fleet import Message
from sidecar.lab.run import Bench
from sidecar.lab.scenario import Fault, FaultKind

_BURST = 100
_HELD = _BURST - 3
_KEY = "dkim-domain:burst.example@google"
_DELETED = 8

_ELSEWHERE = """
[[sender]]
domain = "elsewhere.example"
burst = 30
at = 1
to = ["apple"]
[[provider]]
name = "apple"
domains = ["icloud.com"]
mx = ["mx01.mail.icloud.com"]
"""
"""Mail of nobody's sub-queue, in the queue because its provider is down."""


async def _all_on_hold(bench: Bench) -> None:
    """Everything is on hold and out of core: an admin's release would else lose it, with or without a sidecar."""
    await levers.on_hold(bench, _HELD)
    await levers.by_hand(bench, "pause", _KEY, seconds=30)
    await asyncio.sleep(3)


async def _postsuper_all(bench: Bench, action: str) -> None:
    command = ("postsuper", "-c", str(bench.postfix.config_directory), action, "ALL")
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    if await process.wait() != 0:
        raise DrillError(f"postsuper {action} ALL: exit status {process.returncode}")


def _on_hold(bench: Bench) -> set[str]:
    """Looked up in the queue: for ALL postsuper logs a total, and no message."""
    return {file.name for file in bench.postfix.queue_files("hold")}


def _messages(bench: Bench, queue_ids: Sequence[str]) -> list[Message]:
    wanted = {bench.follower.log.message_ids[queue_id] for queue_id in queue_ids}
    return [message for message in bench.fleet.submissions.accepted if message.message_id in wanted]


async def _deletes(bench: Bench) -> None:
    """The oldest ones, of which the next probe would be."""
    await _all_on_hold(bench)
    oldest = sorted(bench.follower.log.on_hold)[:_DELETED]
    for message in _messages(bench, oldest):
        bench.fleet.submissions.accepted.remove(message)  # nobody is to deliver it any more
    await asyncio.to_thread(bench.postfix.postsuper, "-d", oldest)
    levers.forgive(bench)
    await levers.by_hand(bench, "pause", _KEY, seconds=1)
    await until(lambda: len(bench.ledger.accepted) > 3, "a probe that is still there", levers.PATIENCE_S)
    await levers.by_hand(bench, "release")
    await _delivered(bench, _BURST - _DELETED)
    await _books_are_empty(bench)


async def _releases(bench: Bench) -> None:
    """Their word counts: all of it goes out, and nothing is taken again before its attempt."""
    await _all_on_hold(bench)
    levers.forgive(bench)
    await _postsuper_all(bench, "-H")
    await levers.flushed(bench)
    await _books_are_empty(bench)


async def _holds(bench: Bench) -> None:
    """What the admin holds is not released by us, by hand or otherwise; what we hold is not taken for the admin's."""
    bench.providers["apple"].faults.append(Fault(at=0, kind=FaultKind.REFUSE, target="apple"))
    await _all_on_hold(bench)
    ours = _on_hold(bench)
    await _postsuper_all(bench, "-h")
    theirs = _on_hold(bench) - ours
    if len(theirs) < 30:
        raise DrillError(f"the admin put only {len(theirs)} messages on hold; the trap did not close")
    levers.forgive(bench)
    await levers.by_hand(bench, "release")
    await _delivered(bench, _BURST)
    await levers.by_hand(bench, "close", _KEY)
    await asyncio.sleep(5)
    if missing := theirs - _on_hold(bench):
        raise DrillError(f"{len(missing)} messages that the admin put on hold are not there any more")
    await _postsuper_all(bench, "-H")
    await levers.flushed(bench)
    await _books_are_empty(bench)


async def _delivered(bench: Bench, count: int) -> None:
    await until(lambda: len(bench.ledger.accepted) >= count, f"{count} messages delivered", 40)


async def _books_are_empty(bench: Bench) -> None:
    """As soon as core has read the lines of the last deliveries."""
    for _ in range(100):
        if not (held := await levers.held_by_us(bench)):
            return
        await asyncio.sleep(0.1)
    raise DrillError(f"core still believes to hold {held} messages")


DRILLS = (
    Drill(
        "admin-deletes",
        "held messages that an admin deletes leave the books, and the probe is another one",
        levers.campaign("admin-deletes", burst=_BURST),
        _deletes,
    ),
    Drill(
        "admin-releases-all",
        "what an admin releases is on its way, and no longer ours",
        levers.campaign("admin-releases-all", burst=_BURST),
        _releases,
    ),
    Drill(
        "admin-holds-all",
        "what an admin puts on hold stays there until the admin releases it",
        levers.campaign("admin-holds-all", burst=_BURST) + _ELSEWHERE,
        _holds,
    ),
)
