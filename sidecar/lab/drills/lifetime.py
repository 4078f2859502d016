"""Rule 8: nothing expires on hold, nor soon after it: held mail leaves at half of its lifetime, whatever its key says."""

from collections.abc import Iterator

from sidecar.lab.drills.drill import Drill, DrillError, until
from sidecar.lab.drills.levers import changes, forgive, on_hold
from sidecar.lab.drills.witness import delivered
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

_LIFETIME_S = 60
_HALF_S = _LIFETIME_S / 2
_ROUNDS_S = 12.0
"""hold_max is looked after every ten seconds."""

_TOML = f"""
name = "short-lifetime"
seconds = 200
scale = 20
main_cf = [
  "initial_destination_concurrency = 20",
  "maximal_queue_lifetime = {_LIFETIME_S}s",
  "bounce_queue_lifetime = {_LIFETIME_S}s",
  "minimal_backoff_time = 2s",
  "maximal_backoff_time = 4s",
  "queue_run_delay = 2s",
]
[[sender]]
domain = "burst.example"
burst = 60
at = 1
to = ["google"]
[[sender]]
domain = "burst.example"
burst = 20
at = 8
to = ["google"]
[[provider]]
name = "google"
domains = ["gmail.com"]
mx = ["gmail-smtp-in.l.google.com"]
transaction_s = 0.2
[[provider.limit]]
by = "dkim"
kind = "window"
n = 3
per = 360000
"""
"""The pause lasts longer than half of the lifetime: 600 s divided by the scale, and twice that when a probe failed."""


async def act(bench: Bench) -> None:
    """The provider refuses beyond half of the lifetime; all of it leaves hold, is tried, and arrives in time."""
    await on_hold(bench, 70)
    released = bench.follower.log.released
    await until(lambda: len({it.queue_id for it in released}) >= 77, "everything off hold", _HALF_S + 2 * _ROUNDS_S)
    if bench.follower.log.on_hold:
        raise DrillError(f"{len(bench.follower.log.on_hold)} messages were taken again beyond half of their lifetime")
    if not await changes(bench, "capped"):
        raise DrillError("no message left hold for its age; the trap did not close")
    forgive(bench)
    await delivered(bench, lambda _: True, 40)


def expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """No message was on hold beyond half of its lifetime, and none bounced."""
    if figures.bounced:
        yield f"{figures.bounced} messages bounced"
    left = {it.queue_id: it.time for it in evidence.log.released}
    sent = {it.message_id: it.submitted for it in evidence.submissions.accepted}
    ages = [time - sent[evidence.log.message_ids[queue_id]] for queue_id, time in left.items()]
    if ages and max(ages) > _HALF_S + _ROUNDS_S:
        yield f"a message was on hold at the age of {max(ages):.0f} s; half of its lifetime is {_HALF_S:g} s"


DRILLS = (Drill("short-lifetime", "mail leaves hold at half of its lifetime", _TOML, act, expects),)
