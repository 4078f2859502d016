"""Whom a refusal is about: the SPF domain that it names, exactly; or, where it names nobody, the sending domain.

Another stream of the same company goes on at full speed where the reply named one envelope domain alone.
"""

from collections.abc import Iterator

from sidecar.lab.drills.drill import Drill, DrillError
from sidecar.lab.drills.levers import changes, on_hold
from sidecar.lab.drills.witness import delivered, let_go
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

_SPF = """
name = "spf-identity"
seconds = 90
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
rate = 5
to = ["google"]
[[provider]]
name = "google"
domains = ["gmail.com"]
mx = ["gmail-smtp-in.l.google.com"]
transaction_s = 0.5
[[provider.limit]]
by = "spf"
kind = "window"
n = 3
per = 360000
stage = "end-of-data"
"""
_KINDLY = ""
"""Two envelope domains of one company, and one signature: only the first is named."""

_ENVELOPE = """
name = "envelope-identity"
seconds = 90
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
rate = 2
to = ["comcast"]
[[provider]]
name = "comcast"
domains = ["comcast.net"]
mx = ["mx1.comcast.net"]
transaction_s = 0.5
[[provider.limit]]
by = "envelope"
kind = "window"
n = 3
per = 360000
stage = "end-of-data"
"""
"""The provider counts the envelope domain and names nobody; other customers sign with the same d=."""


def _act(key: str) -> ...:
    async def act(bench: Bench) -> None:
        await on_hold(bench, 77)
        opened = {change["key"] for change in await changes(bench, "opened")}
        if opened != {key}:
            raise DrillError(f"sub-queues {', '.join(sorted(opened))} were opened, wanted {key} alone")
        await let_go(bench, key)
        await delivered(bench, lambda it: it.burst, 40)

    return act
