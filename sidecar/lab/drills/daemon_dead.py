"""The sidecar dies and nobody starts it again: Postfix goes on as if it had never been there.

New mail is delivered, also the paused domain's; what is parked leaves by the failsafe that a timer starts, when core
has been silent for long enough and not before.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from sidecar.lab.drills import levers
from sidecar.lab.drills.drill import Drill, DrillError, until
from sidecar.lab.drills.witness import Chosen, submitted
from sidecar.lab.measure import Evidence, Figures, percentile
from sidecar.lab.patience import longer
from sidecar.lab.run import Bench

_SCALE = 60
_SILENT_S = 15 * 60 / _SCALE
"""failsafe_after_minutes in the lab's time."""
_EACH_S = 2.0
"""The timer's pace."""
_PATIENCE_S = 60.0
_NEW = 5
_OTHERS_P95_S = 10.0
"""Without a policy daemon each question costs smtpd a second's sleep; the mail itself does not wait in the queue."""

_ELSEWHERE = """
[[sender]]
domain = "shop-{n}.example"
count = 3
rate = 1
to = ["apple"]
[[provider]]
name = "apple"
domains = ["icloud.com"]
mx = ["mx01.mail.icloud.com"]
transaction_s = 0.2
"""


async def _left_alone(bench: Bench, *, store_gone: bool) -> None:
    await levers.on_hold(bench, 100)
    sidecar = levers.sidecar_of(bench)
    await sidecar.kill()
    died = time.time()
    parked = set(bench.follower.log.on_hold)
    if store_gone:
        for file in (sidecar.directory / "store").glob("core.db*"):
            file.unlink()
    levers.accept(bench)
    flowing = asyncio.create_task(_new_mail_flows(bench))
    try:
        await _failsafe_by_timer(bench, died, parked)
        await flowing
    finally:
        flowing.cancel()
    await levers.flushed(bench)
    bench.times["recover_s"] = round(time.time() - died, 1)
    waits = _waits(bench, lambda it: it.sender.domain.startswith("shop-") and it.submitted > died)
    p95 = percentile(waits, 0.95) or 0.0
    if len(waits) < _SILENT_S or p95 > longer(_OTHERS_P95_S):
        raise DrillError(f"{len(waits)} messages of others went out while core was dead, 95 of 100 within {p95:.1f} s")


async def _new_mail_flows(bench: Bench) -> None:
    """The paused domain's own new mail is not held by anybody: it is delivered, as the provider takes it again."""
    campaign = bench.scenario.senders()[0]
    dice = random.Random(bench.scenario.seed)
    composed = [bench.fleet.compose(campaign, dice) for _ in range(_NEW)]
    for message in composed:
        await bench.fleet.submit(message)
    fresh = {message.message_id for message in composed}
    await until(lambda: fresh <= {it.message_id for it in bench.ledger.accepted}, "new mail delivered", _PATIENCE_S)
    log = bench.follower.log
    if held := fresh & {log.message_ids.get(moved.queue_id) for moved in log.held}:
        raise DrillError(f"{len(held)} messages that came when core was dead were put on hold")


async def _failsafe_by_timer(bench: Bench, died: float, parked: set[str]) -> None:
    """Run it as a timer does, until nothing of ours is left; while core may still come back it leaves all as it is."""
    seen_waiting = False
    deadline = time.time() + _SILENT_S + longer(_PATIENCE_S)
    while True:
        began = time.time()
        report = await _failsafe(bench)
        if report["state"] == "alive":
            seen_waiting = True
            if not parked <= {file.name for file in bench.postfix.queue_files("hold")}:
                raise DrillError("mail left hold before core was silent for long enough")
        elif began - died < _SILENT_S - 3.0:  # a heartbeat is up to two seconds old
            raise DrillError(f"the failsafe says {report['state']} {began - died:.0f} s after core's death")
        else:
            bench.times.setdefault("detect_s", round(began - died, 1))
            if report["state"] in {"released", "nothing"}:
                break
        if time.time() > deadline:
            raise DrillError(f"the failsafe still says {report}")
        await asyncio.sleep(_EACH_S)
    if not seen_waiting:
        raise DrillError("the failsafe never waited for core; the trap did not close")


async def _failsafe(bench: Bench) -> dict[str, Any]:
    """Raises DrillError when it fails; incomplete is no failure, it is run again."""
    command = ("--config", str(levers.sidecar_of(bench).config_file), "failsafe", "--json", "--rate", "100")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", *command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, complained = await process.communicate()
    if process.returncode not in {0, 1} or not printed:
        raise DrillError(f"sidecar failsafe: exit status {process.returncode}: {complained.decode().strip()}")
    report: dict[str, Any] = json.loads(printed)
    return report


def _waits(bench: Bench, chosen: Chosen) -> list[float]:
    """Seconds to delivery; a message that is not there has waited until now."""
    arrived = {it.message_id: it.time for it in bench.ledger.accepted}
    return [arrived.get(it.message_id, time.time()) - it.submitted for it in submitted(bench, chosen)]


def _expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    del figures
    taken = len(levers.taken_while_active(evidence))
    if taken < 100:
        yield f"only {taken} messages were taken that the queue manager had; the trap did not close"


DRILLS = (
    Drill(
        "sidecar-dead",
        "without core mail flows, and the failsafe gives back what is parked when its time has come",
        levers.campaign("sidecar-dead", burst=200, scale=_SCALE, seconds=200) + _ELSEWHERE,
        partial(_left_alone, store_gone=False),
        _expects,
    ),
    Drill(
        "sidecar-dead-store-gone",
        "the same without core.db",
        levers.campaign("sidecar-dead-store-gone", burst=200, scale=_SCALE, seconds=200) + _ELSEWHERE,
        partial(_left_alone, store_gone=True),
        _expects,
    ),
)
