"""Our address is listed, and a provider slows it down: detected, paged once, throttled, and over after the delisting."""

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from sidecar.blocklists import packaged
from sidecar.lab.dns import Record
from sidecar.lab.drills.drill import Drill, until
from sidecar.lab.drills.hearing import listening, others_wait, over, rest_let_go, until_told
from sidecar.lab.drills.levers import PATIENCE_S, accept, changes, on_hold, sidecar_of
from sidecar.lab.drills.witness import until_state
from sidecar.lab.measure import Evidence, Figures
from sidecar.lab.run import Bench
from sidecar.lab.scenario import By, Kind, Limit

_TOML = """
name = "ip-listed"
seconds = 240
scale = 200
main_cf = ["initial_destination_concurrency = 20"]
[[sender]]
domain = "shop.example"
rate = 4
to = ["yahoo"]
[[sender]]
domain = "steady.example"
rate = 3
to = ["google"]
[[provider]]
name = "yahoo"
domains = ["yahoo.com"]
mx = ["mta5.am0.yahoodns.net"]
transaction_s = 0.1
[[provider]]
name = "google"
domains = ["gmail.com"]
mx = ["gmail-smtp-in.l.google.com"]
transaction_s = 0.1
"""
ADDRESS, _ZONE = "192.0.2.7", "bl.lists.example"
_LIST = f"""
[[list]]
id = "lab"
zone = "{_ZONE}"
kinds = ["ip4"]
severity = "critical"
every = 15
[list.codes]
"127.0.0.2" = "SBL"
"""
LISTED = Record(f"7.2.0.192.{_ZONE}", "A", "127.0.0.2")
POINT = Record(f"2.0.0.127.{_ZONE}", "A", "127.0.0.2")
"""What every list lists (RFC 5782 section 5)."""
_SLOW = Limit(by=By.IP, kind=Kind.BUCKET, rate=0.5, burst=1)


def settings(directory: Path) -> tuple[str, ...]:
    """What the sidecar is told; dotted keys, as the lab's own."""
    (directory / "lists.toml").write_text(_LIST)
    others = ", ".join(f'"{spec.id}"' for spec in packaged())
    return (
        "feeds.blocklists.enabled = true",
        f'feeds.blocklists.lists = "{directory}/lists.toml"',
        f"feeds.blocklists.without = [{others}]",
        f'outside.addresses = ["{ADDRESS}"]',
    )


async def act(bench: Bench) -> None:
    """List the address, have the provider slow it down, and delist it when enough waits."""
    sidecar, yahoo = sidecar_of(bench), bench.providers["yahoo"]
    bench.names.change(POINT)
    about = (ADDRESS, "listed.lab")
    lines = await asyncio.to_thread(settings, sidecar.directory)
    with listening(sidecar.directory) as (heard, channels):
        await sidecar.configured_anew(*lines, *channels, without="feeds.blocklists.")
        await until_told(bench, "dnsbl-15min", about, lambda known: known.value == 0.0)
        began = time.time()
        bench.names.change(LISTED)
        yahoo.provider = dataclasses.replace(yahoo.provider, limit=(_SLOW,))
        await on_hold(bench, 10)
        bench.times["throttled_s"] = round(time.time() - began, 1)
        await until(lambda: heard.paged, "paged", PATIENCE_S)
        repaired = time.time()
        accept(bench)
        bench.names.change(without=[LISTED[:2]])
        await over(bench, heard, began, repaired)
        others_wait(bench, "steady.example", began)
        (key,) = {change["key"] for change in await changes(bench, "opened")}
        await until_state(bench, key, {"ramping", ""}, PATIENCE_S)
        await rest_let_go(bench, key)


def expects(evidence: Evidence, figures: Figures) -> Iterator[str]:
    """The throttle was applied."""
    del figures
    if len(evidence.log.held) < 10:
        yield f"only {len(evidence.log.held)} messages were held; the throttle was not applied"


DRILLS = (
    Drill(
        "ip-listed",
        "a listing of our address is one incident, and mail to who slows it down waits until it is delisted",
        _TOML,
        act,
        expects,
    ),
)
