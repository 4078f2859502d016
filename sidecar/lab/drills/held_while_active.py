"""Rule 1: messages that are taken while the queue manager has them in memory come back only after it let go.

Slow deliveries fill all slots, the rest of the burst waits in the active queue, one refusal pauses the domain, and
the pause is over long before the slots are free: whoever releases by the clock loses what waited.
"""

from collections.abc import Iterator

from sidecar.lab.drills.drill import Drill, all_delivered, until
from sidecar.lab.drills.witness import let_go
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

_TOML = """
name = "held-while-active"
seconds = 240
scale = 60
[[sender]]
domain = "burst.example"
burst = 200
at = 1
to = ["google"]
[[provider]]
name = "google"
domains = ["gmail.com"]
mx = ["gmail-smtp-in.l.google.com"]
transaction_s = 0.2
[[provider.limit]]
by = "dkim"
kind = "bucket"
rate = 2
burst = 3
[[fault]]
at = 0
kind = "slow-data"
target = "google"
delay = 20
seconds = 45
"""
_LET_OUT = 20


async def act(bench: Bench) -> None:
    """Nothing but time, until some left hold by the ramp; then all of it must arrive."""
    released = bench.follower.log.released
    await until(lambda: len(released) >= _LET_OUT, f"{_LET_OUT} messages released", 150)
    await let_go(bench, "dkim-domain:burst.example@google")
    await all_delivered(bench, 90)


def expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """The trap must have closed: much was taken that had been active before."""
    del figures
    taken = {moved.queue_id for moved in evidence.log.held} & evidence.log.active.keys()
    if len(taken) < 50:
        yield f"only {len(taken)} messages were taken that the queue manager had; the trap did not close"


DRILL = Drill("held-while-active", "a message in core is never released", _TOML, act, expects)
