"""Whom a refusal is about: the SPF domain that it names, exactly; or, where it names nobody, the sending domain.

Another stream of the same company goes on at full speed where the reply named one envelope domain alone.
"""

from collections.abc import Iterator
from functools import partial

from sidecar.lab.drills.drill import Drill, DrillError
from sidecar.lab.drills.levers import changes, on_hold
from sidecar.lab.drills.witness import delivered, let_go
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.patience import longer
from sidecar.lab.run import Bench

_SPF = """
name = "spf-identity"
seconds = 200
scale = 60
main_cf = ["initial_destination_concurrency = 20"]
[[sender]]
domain = "burst.example"
spf = "bounces.burst.example"
burst = 60
at = 1
to = ["google"]
[[sender]]
domain = "burst.example"
spf = "bounces.burst.example"
burst = 20
at = 6
to = ["google"]
[[sender]]
domain = "invoices.burst.example"
dkim = "burst.example"
rate = 2
to = ["google"]
[[provider]]
name = "google"
domains = ["gmail.com"]
mx = ["gmail-smtp-in.l.google.com"]
transaction_s = 0.5
[[provider.limit]]
by = "spf"
kind = "bucket"
rate = 3
burst = 15
stage = "end-of-data"
"""
"""Two envelope domains of one company, and one signature: only the first is named."""

_ENVELOPE = """
name = "envelope-identity"
seconds = 200
scale = 60
main_cf = ["initial_destination_concurrency = 20"]
[[sender]]
domain = "news.burst.example"
dkim = "esp.example"
spf = "bounces.burst.example"
burst = 60
at = 1
to = ["comcast"]
[[sender]]
domain = "news.burst.example"
dkim = "esp.example"
spf = "bounces.burst.example"
burst = 20
at = 6
to = ["comcast"]
[[sender]]
domain = "shop-{n}.example"
dkim = "esp.example"
count = 3
rate = 1
to = ["comcast"]
[[provider]]
name = "comcast"
domains = ["comcast.net"]
mx = ["mx1.comcast.net"]
transaction_s = 0.5
[[provider.limit]]
by = "envelope"
kind = "bucket"
rate = 3
burst = 15
stage = "end-of-data"
"""
"""The provider counts the envelope domain and names nobody; other customers sign with the same d=."""


async def act(bench: Bench, *, key: str) -> None:
    """One sub-queue opens, and it is the right one."""
    await on_hold(bench, 55)
    opened = {change["key"] for change in await changes(bench, "opened")}
    if opened != {key}:
        raise DrillError(f"opened: {', '.join(sorted(opened))}; wanted {key} alone")
    await let_go(bench, key)
    await delivered(bench, lambda it: it.burst, 40)


def expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """The others went on at full speed all the while."""
    del evidence
    if figures.others_p95_s is None or figures.others_p95_s > longer(_AT_ONCE_S):
        yield f"95 of 100 others waited up to {figures.others_p95_s} s, wanted at most {longer(_AT_ONCE_S):g} s"


_AT_ONCE_S = 3.0

DRILLS = (
    Drill(
        "spf-identity",
        "an SPF domain that a reply names is that envelope domain alone",
        _SPF,
        partial(act, key="spf-domain:bounces.burst.example@google"),
        expects,
    ),
    Drill(
        "envelope-identity",
        "where a reply names nobody, the sender's organizational domain is meant, not who signs for many",
        _ENVELOPE,
        partial(act, key="sender-domain:burst.example@comcast"),
        expects,
    ),
)
