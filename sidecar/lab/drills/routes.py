"""Rule 10: a message goes over a provider's transport when all its recipients share it, and only then.

The wiring is the product's own: `sidecar postfix apply` renders the transport. One of the domains is hosted, so
that only its MX tells whose it is.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator

from sidecar.lab.drills.drill import Drill, DrillError
from sidecar.lab.drills.levers import on_hold, wire
from sidecar.lab.drills.witness import Chosen, delivered, let_go, log_text, submissions
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

_TOML = """
name = "routes"
seconds = 200
scale = 60
sidecar = [
  '[[route]]', 'provider = "google"', 'transport = "out-google"', 'maxproc = 20',
  'options = ["smtp_helo_name=out-google.sender-side.example"]',
]
main_cf = ["out-google_initial_destination_concurrency = 20"]
[[sender]]
domain = "hello.example"
burst = 4
at = 6
to = ["google", "yahoo"]
[[sender]]
domain = "one.example"
burst = 20
at = 10
to = ["google"]
[[sender]]
domain = "both.example"
burst = 20
at = 10
to = ["google", "yahoo"]
recipients = 2
[[sender]]
domain = "other.example"
burst = 20
at = 10
to = ["yahoo"]
[[sender]]
domain = "burst.example"
burst = 60
at = 14
to = ["google"]
[[provider]]
name = "google"
domains = ["gmail.com", "school.example"]
mx = ["gmail-smtp-in.l.google.com"]
transaction_s = 0.5
[[provider.limit]]
by = "dkim"
kind = "bucket"
rate = 3
burst = 24
[[provider]]
name = "yahoo"
domains = ["yahoo.com"]
mx = ["mta5.am0.yahoodns.net"]
transaction_s = 0.1
"""
"""The first four messages make the hosted domain known."""

_KEY = "dkim-domain:burst.example@google"
_OVER = re.compile(r"postfix(?P<over>/out-google)?/smtp\[\d+\]: (?P<id>\w+): to=<(?P<to>[^>]*)>,.* status=sent ")


async def act(bench: Bench) -> None:
    """Wire it as an admin does, then send; the throttled campaign is held and let go over its route as well."""
    await asyncio.to_thread(wire, bench)
    await submissions(bench, _from("both.example"), 20, 40)
    await submissions(bench, _from("other.example"), 20, 40)
    await delivered(bench, lambda it: it.sender.domain != "burst.example", 40)
    await on_hold(bench, 30)
    await let_go(bench, _KEY)
    await delivered(bench, lambda _: True, 40)
    complaint = next(_astray(bench), None)
    if complaint:
        raise DrillError(complaint)


def _from(domain: str) -> Chosen:
    return lambda message: message.sender.domain == domain


def _astray(bench: Bench) -> Iterator[str]:
    """Deliveries over a transport that they do not belong to."""
    known = bench.follower.log.message_ids
    ways = Counter(
        (known.get(found["id"], "").rpartition("@")[2], found["to"].rpartition("@")[2], bool(found["over"]))
        for found in map(_OVER.search, log_text(bench).splitlines())
        if found
    )
    for (sender, to, over), count in ways.items():
        wanted = sender == "one.example"
        if over != wanted and sender in {"one.example", "both.example", "other.example"}:
            yield f"{count} messages of {sender} went to {to} {'over' if over else 'past'} out-google"
    for to in ("gmail.com", "school.example"):
        if not ways["burst.example", to, True]:
            yield f"no message of the campaign to {to} went over out-google"


def expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """The campaign was held, so that mail with a route was released."""
    del figures
    if len(evidence.log.held) < 30:
        yield f"only {len(evidence.log.held)} messages were held; the trap did not close"


DRILLS = (
    Drill("routes", "a route is taken when all recipients share it, hosted domains included", _TOML, act, expects),
)
