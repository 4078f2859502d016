"""A provider throttles one domain for its campaign: noticed at the first refusals, held, ramped, and over by itself.

Nobody is told anything and nobody does anything by hand; the times are those of the provider's and the lab's clocks.
"""

import asyncio
import dataclasses
from collections.abc import Iterator

from sidecar.lab.drills.complaint_spike import throttled
from sidecar.lab.drills.drill import Drill, DrillError, until
from sidecar.lab.drills.hearing import others_wait, rest_let_go
from sidecar.lab.drills.levers import PATIENCE_S, accept, changes, on_hold
from sidecar.lab.drills.witness import delivered, until_state
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.patience import longer
from sidecar.lab.run import Bench

_KEY = "dkim-domain:shop.example@google"
_CAMPAIGN = 150
_LATE = 5
"""Attempts that a slow host may begin before a message is taken."""


async def act(bench: Bench) -> None:
    """Send the campaign, and see the sub-queue open, hold, ramp and let all of it go."""
    await until(lambda: bool(bench.ledger.accepted), "mail flows", PATIENCE_S)
    sender = dataclasses.replace(bench.scenario.senders()[0], burst=_CAMPAIGN)
    campaign = asyncio.create_task(bench.fleet.burst(sender))
    await until(lambda: bool(bench.ledger.refused), "the first refusal", PATIENCE_S)
    began = bench.ledger.refused[0].time
    await on_hold(bench, _CAMPAIGN // 4)
    await campaign
    await until_state(bench, _KEY, {"ramping", ""}, PATIENCE_S)
    await delivered(bench, lambda it: it.burst, 90)
    opened = await changes(bench, "opened")
    if [change["key"] for change in opened] != [_KEY]:
        raise DrillError(f"opened: {[change['key'] for change in opened]}, wanted {_KEY} and no other")
    sent = {it.message_id for it in bench.fleet.submissions.accepted if it.burst}
    bench.times |= {
        "detect_s": round(opened[0]["time"] - began, 3),
        "throttled_s": round(bench.follower.log.held[0].time - began, 3),
        "recover_s": round(max(it.time for it in bench.ledger.accepted if it.message_id in sent) - began, 1),
    }
    others_wait(bench, "steady.example", began)
    accept(bench)  # the steady mail of the domain goes on, and would be tried for more than the limit takes
    await rest_let_go(bench, _KEY)


def expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """The throttle was applied, and what it is to hold was not tried."""
    if len(evidence.log.held) < _CAMPAIGN // 4:
        yield f"only {len(evidence.log.held)} messages were held; the throttle was not applied"
    if figures.unheld_attempts > longer(_LATE):
        yield f"{figures.unheld_attempts} attempts were made while the domain was to wait, wanted at most {longer(_LATE):g}"


DRILLS = (
    Drill(
        "domain-throttled",
        "a throttled domain waits and ramps by itself until all of its campaign is delivered, and nobody else waits",
        throttled("domain-throttled"),
        act,
        expects,
    ),
)
