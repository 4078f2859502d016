"""One run of a fleet in the lab from beginning to end: the story told as it goes, the figures, and what is not good."""

import asyncio
import dataclasses
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from sidecar.lab.drills.drill import DrillError
from sidecar.lab.hosts.bench import HostsBench, Setting, conclude, hosts_bench, sending
from sidecar.lab.hosts.drills.drill import FleetDrill, carry_out, complaints
from sidecar.lab.hosts.figures import FleetFigures, fleet_figures, paused_at
from sidecar.lab.measure import Figures, figures
from sidecar.lab.patience import longer
from sidecar.lab.scenario import Scenario

_TELLS_EVERY_S = 5.0


class Outcome(NamedTuple):
    scenario: str
    figures: Figures
    fleet: FleetFigures
    findings: list[str]
    times: dict[str, float]

    def values(self) -> dict[str, Any]:
        """Give all of it in JSON's types."""
        return {
            "scenario": self.scenario,
            "sidecar": dataclasses.asdict(self.figures),
            "fleet": dataclasses.asdict(self.fleet),
            "findings": self.findings,
            "times": {name: round(seconds, 3) for name, seconds in self.times.items()},
        }


async def play(scenario: Scenario, drill: FleetDrill | None, directory: Path, say: Callable[[str], None]) -> Outcome:
    """Set up, run, stop, count. SIGINT and the like end the run early, and it is counted all the same."""
    asked_to_end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_end.set)
    setting = drill.setting if drill is not None else Setting()
    async with hosts_bench(scenario, directory / "fleet", setting) as bench:
        say(
            f"{scenario.hosts} hosts with Postfix and sidecar, one Redis: {scenario.name}, {scenario.seconds:g} s at most"
        )
        async with sending(bench):
            deed = carry_out(drill, bench) if drill else asyncio.sleep(scenario.seconds)
            findings = await _until_done(bench, deed, asked_to_end, say, on_time=drill is None)
        stores = [(host.sidecar.directory / "store", host.ahead) for host in bench.here()]
        evidence = await conclude(bench)
        counted = figures(evidence)
        fleet = fleet_figures(evidence, counted, [paused_at(store, ahead=ahead) for store, ahead in stores])
        findings += [f"{name} {getattr(counted, name)}, wanted 0" for name in counted.findings()]
        findings += complaints(bench, fleet.over_budget)
        if not counted.injected:
            findings.append("nothing was sent, so nothing is proved")
        return Outcome(scenario.name, counted, fleet, findings, bench.times)


async def _until_done(
    bench: HostsBench,
    deed: Awaitable[None],
    asked_to_end: asyncio.Event,
    say: Callable[[str], None],
    *,
    on_time: bool,
) -> list[str]:
    """Tell the story until the deed is done, the time is over or somebody wants an end; what the deed complains of."""
    doing = asyncio.ensure_future(deed)
    telling, asked = asyncio.create_task(_tell(bench, say)), asyncio.create_task(asked_to_end.wait())
    try:
        limit = bench.scenario.seconds + 5 if on_time else longer(bench.scenario.seconds + 5)
        done, _ = await asyncio.wait({doing, telling, asked}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {asked}:
            task.result()
    except DrillError as error:
        return [str(error)]
    finally:
        for each in (doing, telling, asked):
            each.cancel()
        await asyncio.gather(doing, telling, asked, return_exceptions=True)
    return [] if done or on_time else [f"not done within {limit:g} s"]


async def _tell(bench: HostsBench, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(_TELLS_EVERY_S)
        said = await asyncio.gather(*(host.status() for host in bench.hosts))
        at = time.time() - bench.started
        hosts = ", ".join(f"{host.name} {_in_brief(status)}" for host, status in zip(bench.hosts, said, strict=True))
        delivered, refused = len(bench.ledger.accepted), len(bench.ledger.refused)
        say(f"{at:6.1f} s  submitted {bench.submitted}, delivered {delivered}, refused {refused}; {hosts}")


def _in_brief(status: dict[str, Any] | None) -> str:
    if status is None:
        return "silent"
    fleet = status["fleet"] or {}
    alone = " alone" if fleet.get("alone") else " cut off" if fleet.get("silent") else ""
    subs = status["subqueues"]
    most = max(subs, key=lambda sub: sub["held"], default=None)
    largest = f", {most['state']} {most['budget_per_s']:.2f}/s" if most else ""
    return f"{status['held_total']} held in {len(subs)}{largest}{alone}"
