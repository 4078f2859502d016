"""Messages that an agent is delivering while they are put on hold, however that delivery ends.

The file keeps its lock, the outcome is written into it, and Postfix removes it only after a release.
"""

import asyncio
import itertools
from collections.abc import Iterator

from sidecar.lab.drills import levers
from sidecar.lab.drills.drill import Drill, DrillError, until
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench
from sidecar.lab.scenario import Fault, FaultKind

_KEY = "dkim-domain:burst.example@google"
_IN_FLIGHT = 2 * levers.SLOTS
"""Google has two domains here."""
_TAKEN = 3
"""Messages of the first wave that were delivered."""
_BURST = 150


def _say_no_such_user(bench: Bench) -> None:
    reply = "550 5.1.1 The email account that you tried to reach does not exist"
    bench.providers["google"].faults.append(Fault(at=0, kind=FaultKind.REFUSE, target="google", reply=reply))


async def _held_in_flight(bench: Bench) -> None:
    """Everything is on hold, 40 of it in delivery, and the pause outlasts those deliveries."""
    await levers.by_hand(bench, "pause", _KEY, seconds=60)
    await levers.on_hold(bench, _BURST - _TAKEN)


async def _accepted(bench: Bench) -> None:
    await levers.slots_filled(bench, 6, change=levers.accept)
    await _held_in_flight(bench)
    await until(
        lambda: len(bench.ledger.accepted) >= _TAKEN + _IN_FLIGHT, "slow deliveries accepted", levers.PATIENCE_S
    )
    await _leave_hold(bench, _accepted_ids(bench))
    await levers.drained(bench)


async def _deferred(bench: Bench) -> None:
    await levers.slots_filled(bench, 6)
    await _held_in_flight(bench)
    await until(
        lambda: len(bench.ledger.refused) >= 2 * _IN_FLIGHT - _TAKEN, "slow deliveries refused", levers.PATIENCE_S
    )
    await asyncio.sleep(2)
    if (held := await levers.held_by_us(bench)) != _BURST - _TAKEN:
        raise DrillError(f"core believes to hold {held} messages, {_BURST - _TAKEN} are not yet delivered")
    await levers.drained(bench)


async def _bounced(bench: Bench) -> None:
    await levers.slots_filled(bench, 6, change=_say_no_such_user)
    await _held_in_flight(bench)
    log = bench.follower.log
    await until(lambda: len(log.bounced) >= _IN_FLIGHT, "slow deliveries bounced", levers.PATIENCE_S)
    await _leave_hold(bench, {queue_id for queue_id, _ in log.bounced})
    await levers.drained(bench)


def _accepted_ids(bench: Bench) -> set[str]:
    """Queue ids of what the providers have accepted."""
    accepted = {it.message_id for it in bench.ledger.accepted}
    return {queue_id for queue_id, message_id in bench.follower.log.message_ids.items() if message_id in accepted}


async def _leave_hold(bench: Bench, finished: set[str]) -> None:
    """What has no recipient left is let go, although the sub-queue is still paused."""

    def gone() -> bool:
        return finished.isdisjoint(file.name for file in bench.postfix.queue_files("hold"))

    await until(gone, "files without a recipient gone from hold", levers.PATIENCE_S)
    if (state := await levers.state_of(bench, _KEY)) != "paused":
        raise DrillError(f"the sub-queue is {state or 'closed'}, it should still be paused; that proves nothing")


async def _probe(bench: Bench) -> None:
    """The oldest messages are delivered while core is down; none of them is a probe when it is back."""
    await levers.slots_filled(bench, 5, change=levers.accept)
    await levers.on_hold(bench, 100)
    sidecar = levers.sidecar_of(bench)
    await sidecar.kill()
    await until(
        lambda: len(bench.ledger.accepted) >= _TAKEN + _IN_FLIGHT, "slow deliveries accepted", levers.PATIENCE_S
    )
    finished = _accepted_ids(bench)
    await asyncio.sleep(1)  # their lines are in the log
    await sidecar.start()
    for _ in itertools.takewhile(lambda looks: looks < 200, itertools.count()):
        status = await sidecar.ask("status")
        if probes := {sub["probe"] for sub in status["subqueues"]} & finished:
            raise DrillError(f"{probes.pop()} is a probe, but has no recipient left")
        if all(sub["state"] == "ramping" for sub in status["subqueues"]):
            break
        await asyncio.sleep(0.1)
    else:
        raise DrillError("no probe has led to ramping within 20 s")
    await levers.drained(bench)
    await levers.counted_once(bench)


def _expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    del figures
    taken = len(levers.taken_while_active(evidence))
    if taken < _BURST - _TAKEN:
        yield f"only {taken} messages were taken that the queue manager had; the trap did not close"


def _expects_bounces(evidence: Evidence, figures: Figures) -> Iterator[str]:
    yield from _expects(evidence, figures)
    if figures.bounced != _IN_FLIGHT:
        yield f"{figures.bounced} messages bounced, {_IN_FLIGHT} were refused for good"


DRILLS = (
    Drill(
        "in-delivery-accepted",
        "delivered while on hold: once, and its file does not stay there",
        levers.campaign("in-delivery-accepted", burst=_BURST),
        _accepted,
        _expects,
    ),
    Drill(
        "in-delivery-deferred",
        "deferred while on hold: it stays held, and leaves with the others",
        levers.campaign("in-delivery-deferred", burst=_BURST),
        _deferred,
        _expects,
    ),
    Drill(
        "in-delivery-bounced",
        "refused for good while on hold: it bounces, and its file does not stay there",
        levers.campaign("in-delivery-bounced", burst=_BURST),
        _bounced,
        _expects_bounces,
    ),
    Drill(
        "probe-of-finished",
        "a message without an open recipient is no probe, also when core was down as it was delivered",
        levers.campaign("probe-of-finished", burst=_BURST),
        _probe,
        _expects,
    ),
)
