"""A domain that sends loses its DKIM key: detected, paged once, its mail held everywhere, and let go after the repair."""

import base64
import time
from collections.abc import Iterator

from sidecar.lab.dns import Record
from sidecar.lab.drills.drill import Drill, until
from sidecar.lab.drills.hearing import listening, others_wait, over, rest_let_go, until_told
from sidecar.lab.drills.levers import PATIENCE_S, on_hold, sidecar_of
from sidecar.lab.drills.witness import until_state
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench

_TOML = """
name = "dkim-key-broken"
seconds = 200
scale = 60
[[sender]]
domain = "shop.example"
rate = 3
to = ["google", "yahoo"]
[[sender]]
domain = "steady.example"
rate = 3
to = ["google", "yahoo"]
[[provider]]
name = "google"
domains = ["gmail.com"]
mx = ["gmail-smtp-in.l.google.com"]
transaction_s = 0.1
[[provider]]
name = "yahoo"
domains = ["yahoo.com"]
mx = ["mta5.am0.yahoodns.net"]
transaction_s = 0.1
"""
_DOMAINS = ("shop.example", "steady.example")
_KEY = "dkim-domain:shop.example@*"
SETTINGS = (
    "feeds.authentication.enabled = true",
    "feeds.authentication.active_minutes = 0.05",
    'feeds.authentication.test_name = ""',
    'outside.selectors = ["lab._domainkey.shop.example", "lab._domainkey.steady.example"]',
    "authentication.hold = true",
)
_ENOUGH = 20


def records(domain: str) -> Iterator[Record]:
    public = base64.b64encode(domain.ljust(32, ".").encode()).decode()
    yield Record(f"lab._domainkey.{domain}", "TXT", f'"v=DKIM1; k=ed25519; p={public}"')
    yield Record(f"_dmarc.{domain}", "TXT", f'"v=DMARC1; p=reject; rua=mailto:dmarc@{domain}"')


async def act(bench: Bench) -> None:
    """Take the key out of the DNS while the domain sends, and put it back when enough waits."""
    sidecar = sidecar_of(bench)
    lost, *_ = all_of_it = [record for domain in _DOMAINS for record in records(domain)]
    bench.names.change(*all_of_it)
    with listening(sidecar.directory) as (heard, channels):
        await sidecar.configured_anew(*SETTINGS, *channels, without="feeds.authentication.")
        await until_told(bench, "authentication", ("shop.example", "dkim-key.lab"), lambda known: known.value == 1.0)
        bench.held_rightly.add("shop.example")
        began = time.time()
        bench.names.change(without=[lost[:2]])
        await until(lambda: heard.paged, "paged", PATIENCE_S)
        await on_hold(bench, 1)
        bench.times["held_s"] = round(time.time() - began, 1)
        await on_hold(bench, _ENOUGH)
        await until_state(bench, _KEY, {"paused"}, 5)
        repaired = time.time()
        bench.names.change(lost)
        await until_state(bench, _KEY, {"ramping", ""}, PATIENCE_S)
        bench.times["sends_again_s"] = round(time.time() - repaired, 1)
        await over(bench, heard, began, repaired)
        others_wait(bench, "steady.example", began)
        await rest_let_go(bench, _KEY)


def expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """Enough was held."""
    del figures
    if len(evidence.log.held) < _ENOUGH:
        yield f"only {len(evidence.log.held)} messages were held, wanted {_ENOUGH}"


DRILLS = (
    Drill(
        "dkim-key-broken",
        "mail of a domain whose DKIM key is gone waits until the key is back, and nobody else's does",
        _TOML,
        act,
        expects,
    ),
)
