"""A provider that refuses everybody with a permanent code for ten minutes has an outage: nobody is suppressed for it.

Beside it a provider where a few mailboxes are really gone: those stay on the list.
"""

import asyncio
import time
from typing import Any

from sidecar.control import CoreRefused, CoreUnreachable
from sidecar.lab.drills.drill import Drill, DrillError, until
from sidecar.lab.drills.levers import PATIENCE_S, sidecar_of
from sidecar.lab.patience import longer
from sidecar.lab.run import Bench
from sidecar.lab.scenario import Fault, FaultKind, Stage

_SCALE = 120
_OUTAGE_S = 600 / _SCALE
_PROBATION_S = 1_800 / _SCALE
_GONE = 5
_REPLY = "550 5.1.1 <{recipient}>: Recipient address rejected: User unknown in virtual mailbox table"

_TOML = f"""
name = "provider-outage"
seconds = 200
scale = {_SCALE}
[[sender]]
domain = "shop.example"
rate = 30
to = ["google"]
mailboxes = 10000000
[[sender]]
domain = "letter.example"
burst = {_GONE}
at = 1
to = ["gmx"]
mailboxes = 10000000
[[provider]]
name = "google"
domains = ["gmail.com"]
mx = ["gmail-smtp-in.l.google.com"]
transaction_s = 0.05
[[provider]]
name = "gmx"
domains = ["gmx.de"]
mx = ["mx00.gmx.net"]
transaction_s = 0.05
[[fault]]
kind = "refuse"
target = "gmx"
stage = "rcpt"
reply = "{_REPLY}"
"""


async def act(bench: Bench) -> None:
    """Mail flows; the outage comes and goes; when every probation is over, look who is on the list."""
    google = bench.providers["google"]
    await _until(bench, lambda it: len(it) == _GONE, f"{_GONE} mailboxes that are gone on the list", ended=False)
    outage = Fault(kind=FaultKind.REFUSE, target="google", stage=Stage.RCPT, reply=_REPLY)
    google.faults.append(outage)
    began = time.time()
    await _until(bench, lambda it: any(map(_withdrawn, it)), "entries withdrawn because of the outage", ended=True)
    bench.times["detect_s"] = round(time.time() - began, 1)
    await asyncio.sleep(max(0.0, began + _OUTAGE_S - time.time()))
    google.faults.remove(outage)
    ended = time.time()
    await until(lambda: _takes_again(bench, ended), "the provider takes mail again", PATIENCE_S)
    bench.times["recover_s"] = round(time.time() - began, 1)
    await asyncio.sleep(_PROBATION_S + 1)
    refused = len(bench.ledger.refused)
    if refused < 50:
        raise DrillError(f"only {refused} recipients were refused: no outage")
    kept = await _entries(bench, ended=False)
    wrongly = [each["address"] for each in kept if not each["address"].endswith("@gmx.de")]
    if wrongly:
        raise DrillError(f"{len(wrongly)} recipients are suppressed for the outage, as {wrongly[0]}")
    if len(kept) != _GONE or any(each["provisional_until"] for each in kept):
        raise DrillError(f"{len(kept)} of {_GONE} mailboxes that are gone stand on the list after their probation")


def _takes_again(bench: Bench, since: float) -> bool:
    return any(it.provider == "google" and it.time > since for it in bench.ledger.accepted)


def _withdrawn(entry: dict[str, Any]) -> bool:
    return bool(entry["ended_why"].startswith("outage, not a list"))


async def _until(bench: Bench, true: Any, what: str, *, ended: bool) -> None:
    """Raises DrillError after a while."""
    deadline = time.monotonic() + longer(PATIENCE_S)
    while not true(await _entries(bench, ended=ended)):
        if time.monotonic() > deadline:
            raise DrillError(f"{what}: not within {longer(PATIENCE_S):g} s")
        await asyncio.sleep(0.2)


async def _entries(bench: Bench, *, ended: bool) -> list[dict[str, Any]]:
    try:
        answer = await sidecar_of(bench).ask("suppress", do="list", ended=ended, limit=1_000)
    except (CoreRefused, CoreUnreachable) as error:
        raise DrillError(f"suppress list: {error}") from error
    return list(answer["entries"])


DRILLS = (Drill("provider-outage", "a provider that refuses everybody for ten minutes suppresses nobody", _TOML, act),)
