"""The strategies beside holding: a throttled domain's new mail goes over a slow lane, or is left with its client.

The story is the one of a throttled domain: a campaign, a provider that takes a few a second, and a domain beside it.
"""

import asyncio
import dataclasses
import re
from collections import Counter
from collections.abc import Iterator

from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.lab.drills.complaint_spike import throttled
from sidecar.lab.drills.drill import Drill, DrillError, until
from sidecar.lab.drills.hearing import others_wait
from sidecar.lab.drills.levers import PATIENCE_S, accept, changes, sidecar_of, wire
from sidecar.lab.drills.witness import delivered, log_text
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.patience import longer
from sidecar.lab.run import Bench

_FIRST, _SECOND = 60, 40
"""Messages before the sub-queue is open, of which some are refused, and after."""
_LANE = re.compile(r"postfix/lane-\d\d/smtp\[\d+\]: (?P<id>\w+): to=<[^>]*>,.* status=sent ")


def _story(name: str) -> str:
    wanted = f"scale = 60\nsidecar = ['subqueues.{name} = [\"google\"]']\n"
    return throttled(name).replace("scale = 60\n", wanted).replace("rate = 1\n", "rate = 1\nretry_s = 1\n")


async def _over_a_lane(bench: Bench) -> None:
    """Wire lanes as an admin does; the second part of the campaign goes over one."""
    await asyncio.to_thread(wire, bench)
    try:
        await sidecar_of(bench).ask("reload")
    except (CoreRefused, CoreUnreachable) as error:
        raise DrillError(f"reload: {error}") from error
    began, second = await _campaign(bench)
    await until(lambda: bool(_over_lanes(bench)), "a message of the campaign over a lane", PATIENCE_S)
    await _end(bench, began, second)
    strangers = {sender: count for sender, count in _over_lanes(bench).items() if sender != "shop.example"}
    if strangers:
        raise DrillError(f"over a lane went mail of others as well: {strangers}")


async def _left_with_its_client(bench: Bench) -> None:
    """The second part of the campaign is told to come back, and comes back."""
    began, second = await _campaign(bench)
    await until(lambda: bench.fleet.submissions.put_off > 0, "a client that is told to come back", PATIENCE_S)
    await _end(bench, began, second)


async def _campaign(bench: Bench) -> tuple[float, asyncio.Task[None]]:
    """Send the first part, and when the provider has refused some of it and the sub-queue is open the second.

    Gives the time of the first refusal, and the second part as it is being sent.
    """
    await until(lambda: bool(bench.ledger.accepted), "mail flows", PATIENCE_S)
    sender = dataclasses.replace(bench.scenario.senders()[0], burst=_FIRST)
    await bench.fleet.burst(sender)
    await until(lambda: bool(bench.ledger.refused), "the first refusal", PATIENCE_S)
    began = bench.ledger.refused[0].time
    deadline = asyncio.get_running_loop().time() + longer(PATIENCE_S)
    while not (opened := await changes(bench, "opened")):
        if asyncio.get_running_loop().time() > deadline:
            raise DrillError(f"no sub-queue opened within {longer(PATIENCE_S):g} s")
        await asyncio.sleep(0.1)
    bench.times["detect_s"] = round(opened[0]["time"] - began, 3)
    return began, asyncio.create_task(bench.fleet.burst(dataclasses.replace(sender, burst=_SECOND)))


async def _end(bench: Bench, began: float, second: asyncio.Task[None]) -> None:
    """Let all of the campaign be sent and delivered; meanwhile nobody else waited."""
    await second
    await delivered(bench, lambda it: it.burst, 90)
    sent = {it.message_id for it in bench.fleet.submissions.accepted if it.burst}
    if len(sent) != _FIRST + _SECOND:
        raise DrillError(f"{len(sent)} messages of the campaign were taken, wanted {_FIRST + _SECOND}")
    last = max(it.time for it in bench.ledger.accepted if it.message_id in sent)
    bench.times["recover_s"] = round(last - began, 1)
    others_wait(bench, "steady.example", began)
    accept(bench)  # the steady mail of the domain goes on, and would be tried for more than the limit takes


def _over_lanes(bench: Bench) -> Counter[str]:
    """Deliveries over a lane, by sending domain."""
    known = bench.follower.log.message_ids
    ids = (found["id"] for found in map(_LANE.search, log_text(bench).splitlines()) if found)
    return Counter(known.get(queue_id, "").rpartition("@")[2] for queue_id in ids)


def _nothing_held(evidence: Evidence, figures: Figures) -> Iterator[str]:
    if evidence.log.held:
        yield f"{len(evidence.log.held)} messages were held, wanted none"
    if not figures.deferrals:
        yield "nothing was put off; the throttle was not applied"


DRILLS = (
    Drill(
        "lane",
        "with the strategy lane a throttled domain's new mail goes over a slow lane, and nothing is held",
        _story("lane"),
        _over_a_lane,
        _nothing_held,
    ),
    Drill(
        "pushback",
        "with the strategy pushback its clients are told to come back and do, and nothing is held or lost",
        _story("pushback"),
        _left_with_its_client,
        _nothing_held,
    ),
)
