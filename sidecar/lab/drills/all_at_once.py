"""30,000 held messages are released in one go, beside senders who have nothing to do with it.

Takes some minutes and both processors.
"""

import dataclasses
from collections.abc import Iterator

from sidecar.lab.drills import levers
from sidecar.lab.drills.drill import Drill, until
from sidecar.lab.measure import Evidence, Figures, percentile
from sidecar.lab.patience import longer
from sidecar.lab.run import Bench

_KEY = "dkim-domain:burst.example@google"
_MESSAGES = 30_000
_OTHERS_P95_S = 3.0
"""What their 95th percentile may be while the mail leaves, on two processors that the lab shares."""

_TRANSACTION_S = 0.3
"""With 40 slots the provider takes 133 a second: less than we could let go."""

_LIMIT = 'by = "dkim"\nkind = "bucket"\nrate = 3\nburst = 30'
"""Three times what one of the others sends."""
_OTHERS = """
[[sender]]
domain = "shop-{n}.example"
count = 10
rate = 1
to = ["google"]
"""


async def _act(bench: Bench) -> None:
    """Opened by a first burst, the rest is held as it arrives."""
    campaign = bench.scenario.senders()[0]
    await levers.on_hold(bench, 900)
    await levers.by_hand(bench, "pause", _KEY, seconds=3_000)
    for _ in range(_MESSAGES // campaign.burst - 1):
        await bench.fleet.burst(campaign)
    await levers.on_hold(bench, _MESSAGES - 100, 120)
    await levers.by_hand(bench, "release")
    levers.accept(bench)
    for provider in bench.providers.values():
        provider.provider = dataclasses.replace(provider.provider, transaction_s=_TRANSACTION_S)
    log = bench.follower.log
    await until(lambda: not log.on_hold, "nothing on hold", 600)
    await until(lambda: _delivered_of(bench, campaign.domain) >= _MESSAGES, "all of it delivered", 600)


def _delivered_of(bench: Bench, domain: str) -> int:
    return sum(1 for it in bench.ledger.accepted if it.message_id.endswith(f"@{domain}"))


def _expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """Others are measured from the first release to the last."""
    del figures
    released = [moved.time for moved in evidence.log.released]
    if len(released) < _MESSAGES - 100:
        yield f"only {len(released)} messages were released"
        return
    submitted = {message.message_id: message.submitted for message in evidence.submissions.accepted}
    waits = [
        accepted.time - submitted[accepted.message_id]
        for accepted in evidence.ledger.accepted
        if "@shop-" in accepted.message_id and released[0] <= submitted[accepted.message_id] <= released[-1]
    ]
    p95 = percentile(waits, 0.95) or 0.0
    if not waits or p95 > longer(_OTHERS_P95_S):
        yield f"the 95th percentile of {len(waits)} others is {p95:.2f} s while it leaves, wanted {longer(_OTHERS_P95_S):g} s"


DRILLS = (
    Drill(
        "thirty-thousand",
        "a great release does not fill the queue that others are in",
        levers.campaign("thirty-thousand", burst=1_000, seconds=1_500, limit=_LIMIT) + _OTHERS,
        _act,
        _expects,
    ),
)
