"""`sidecar lab`: options in, figures out; the lab itself runs in namespaces of its own (see `namespace`)."""

import asyncio
import contextlib
import dataclasses
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console

from sidecar.config import ConfigError
from sidecar.lab import drills, namespace, scenario, status_page
from sidecar.lab.attachment import AttachmentError
from sidecar.lab.drills.drill import Drill, DrillError
from sidecar.lab.hosts import links
from sidecar.lab.hosts.drills import FLEET_DRILLS
from sidecar.lab.hosts.play import play as fleet_play
from sidecar.lab.hosts.shared_store import StoreError
from sidecar.lab.measure import Figures, figures
from sidecar.lab.namespace import NamespaceError
from sidecar.lab.patience import longer, patience
from sidecar.lab.private_postfix import PostfixError, missing_programs
from sidecar.lab.run import RESOLVER, Bench, Leg, bench, conclude, sending
from sidecar.lab.scenario import Scenario, without_bursts
from sidecar.lab.story import Story

_FINDING, _USAGE = 1, 2
_DRILLS = (*drills.DRILLS, *FLEET_DRILLS)


class Options(NamedTuple):
    """What was asked for, as the lab inside the namespaces gets it again."""

    scenario: str
    seconds: float | None
    compare: bool
    plain: bool
    drill: str | None
    as_json: bool
    keep: Path | None
    hosts: int | None = None
    patience: float = 1.0
    page: int | None = None
    """Descriptor of the socket at which the host sees the status page."""

    def arguments(self) -> Iterator[str]:
        yield from ("--scenario", self.scenario)
        if self.seconds is not None:
            yield from ("--seconds", str(self.seconds))
        if self.drill is not None:
            yield from ("--drill", self.drill)
        if self.hosts is not None:
            yield from ("--hosts", str(self.hosts))
        yield from ("--patience", str(self.patience))
        if self.keep is not None:
            yield from ("--keep", str(self.keep))
        yield from (f"--{name}" for name in ("compare", "plain") if getattr(self, name))
        if self.page is not None:
            yield from ("--page", str(self.page))
        if self.as_json:
            yield "--json"

    @property
    def goes_on(self) -> bool:
        """Without a time or a question the lab stays up for whoever watches, until Ctrl-C."""
        return not (self.seconds or self.compare or self.drill or self.as_json)


@click.command(epilog="Example: sidecar lab --scenario comcast-rl000010 --compare --json")
@click.option(
    "--scenario",
    "scenario_name",
    default="story",
    metavar="NAME|FILE",
    help=f"One of {', '.join(scenario.names())}, or a TOML file.",
)
@click.option("--seconds", type=click.FloatRange(min=1), help="Run for so long, instead of the scenario's own time.")
@click.option(
    "--hosts",
    type=click.IntRange(1, 50),
    help="So many hosts, which share their sub-queues through one Redis, instead of the scenario's own number.",
)
@click.option("--compare", is_flag=True, help="Plain Postfix, then with the sidecar, then without the burst.")
@click.option("--plain", is_flag=True, help="Plain Postfix only.")
@click.option("--drill", metavar="NAME", help=f"A trap instead of a scenario: {', '.join(_DRILLS)}.")
@click.option(
    "--patience",
    type=click.FloatRange(min=1),
    default=1.0,
    metavar="N",
    help="Everything may take N times as long as its limit says: for a machine that is slow, or busy.",
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on standard output.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Copy logs and stores here before they vanish."
)
@click.option("--inside", type=click.Path(path_type=Path), hidden=True)
@click.option("--page", type=int, hidden=True)
def lab(
    scenario_name: str,
    seconds: float | None,
    inside: Path | None,
    keep: Path | None,
    **flags: Any,
) -> None:
    """Try it all out: a private Postfix, simulated providers and a sending fleet, on loopback.

    Needs root, touches nothing of the host, leaves nothing behind. Exit status 1 when a message was lost,
    duplicated or rejected, or held without cause.
    """
    options = Options(scenario_name, seconds, keep=keep.absolute() if keep else None, **flags)
    patience.set(options.patience)
    try:
        chosen, drill = _chosen(options)
        if inside is None:
            status = _outside(options, of_fleet=chosen.hosts > 0)
        elif chosen.hosts:
            status = _fleet_inside(options, chosen, inside)
        else:
            status = _inside(options, chosen, drill, inside)
    except (ConfigError, NamespaceError) as error:
        click.echo(f"sidecar lab: {error}", err=True)
        status = _USAGE
    except (PostfixError, AttachmentError, StoreError) as error:
        click.echo(f"sidecar lab: {error}", err=True)
        status = _FINDING
    sys.exit(status)


def _chosen(options: Options) -> tuple[Scenario, Drill | None]:
    """The scenario to run, with the drill that it belongs to.

    Raises ConfigError.
    """
    if (of_fleet := FLEET_DRILLS.get(options.drill or "")) is not None:
        drill, chosen = None, of_fleet.scenario()
    else:
        drill = drills.find(options.drill) if options.drill is not None else None
        chosen = drill.scenario() if drill else scenario.load(scenario.find(options.scenario))
    if options.hosts is not None:
        chosen = dataclasses.replace(chosen, hosts=options.hosts)
    if chosen.hosts and (drill or options.compare or options.plain):
        raise ConfigError("--hosts: one host's drills, --compare and --plain are without a fleet")
    if options.seconds is not None:
        chosen = dataclasses.replace(chosen, seconds=options.seconds)
    return chosen, drill


def _outside(options: Options, *, of_fleet: bool) -> int:
    """Go into namespaces of our own.

    Raises NamespaceError.
    """
    if of_fleet and (missing := links.missing_programs()):
        raise NamespaceError(f"a fleet needs {', '.join(missing)}; apt-get install iproute2 redis-server util-linux")
    if missing := missing_programs():
        raise NamespaceError(f"Postfix is not installed: no {', '.join(missing)}; apt-get install postfix")
    file = Path(options.scenario)
    if file.is_file():
        options = options._replace(scenario=str(file.absolute()))
    page = status_page.listen() if options.goes_on and not options.plain and not of_fleet else None
    with page or contextlib.nullcontext():
        options = options._replace(page=page.fileno() if page else None)
        sockets = [options.page] if options.page is not None else []
        return namespace.run(
            "sidecar.lab", [*options.arguments()], resolver=links.RESOLVER if of_fleet else RESOLVER, sockets=sockets
        )


def _fleet_inside(options: Options, chosen: Scenario, directory: Path) -> int:
    namespace.mount_proc()
    story = Story(Console(stderr=options.as_json))
    try:
        outcome = asyncio.run(fleet_play(chosen, FLEET_DRILLS.get(options.drill or ""), directory, story.say))
    finally:
        if options.keep is not None:
            _keep(directory, options.keep)
    for name, value in dataclasses.asdict(outcome.fleet).items():
        story.say(f"{name.replace('_', ' ')}: {value}")
    for complaint in outcome.findings:
        story.say(f"NOT GOOD: {complaint}")
    if options.as_json:
        print(json.dumps(outcome.values()))  # noqa: T201  # what --json is for
    return _FINDING if outcome.findings else 0


def _inside(options: Options, chosen: Scenario, drill: Drill | None, directory: Path) -> int:
    namespace.mount_proc()
    story = Story(Console(stderr=options.as_json))
    try:
        of_legs, complaints, times = asyncio.run(_run(options, chosen, drill, directory, story))
    finally:
        if options.keep is not None:
            _keep(directory, options.keep)
    story.figures(of_legs)
    complaints += [
        f"{leg}: {name} {getattr(of_leg, name)}, wanted 0"
        for leg, of_leg in of_legs.items()
        for name in of_leg.findings()
    ]
    for name, seconds in times.items():
        story.say(f"{name.replace('_', ' ')}: {seconds:.1f} s")
    for complaint in complaints:
        story.say(f"NOT GOOD: {complaint}")
    if options.as_json:
        ends: dict[str, Any] = {"scenario": chosen.name}
        ends |= {leg: dataclasses.asdict(of_leg) for leg, of_leg in of_legs.items()}
        if drill:
            ends |= {"findings": complaints, "times": times}
        print(json.dumps(ends))  # noqa: T201  # what --json is for
    return _FINDING if complaints else 0


async def _run(
    options: Options, chosen: Scenario, drill: Drill | None, directory: Path, story: Story
) -> tuple[dict[str, Figures], list[str], dict[str, float]]:
    """One leg after the other (they would share the processor); figures by leg, what a drill complains of, its times."""
    asked_to_end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_end.set)
    of_legs: dict[str, Figures] = {}
    complaints: list[str] = []
    times: dict[str, float] = {}
    for leg in _legs(options):
        cast = without_bursts(chosen) if leg is Leg.QUIET else chosen
        async with bench(cast, leg, directory / leg) as running, status_page.forwarded(options.page):
            story.opens(running)
            if options.page is not None:
                story.say(f"status page: http://127.0.0.1:{status_page.PORT}/")
            async with sending(running):
                complaints += await _play(running, drill, story, asked_to_end, goes_on=options.goes_on)
            evidence = await conclude(running)
            times |= running.times
        of_legs[leg] = figures(evidence)
        if drill:
            complaints += drill.complaints(evidence, of_legs[leg])
        if asked_to_end.is_set():
            break
    return of_legs, complaints, times


def _legs(options: Options) -> list[Leg]:
    if options.compare:
        return [Leg.PLAIN, Leg.SIDECAR, Leg.QUIET]
    return [Leg.PLAIN if options.plain else Leg.SIDECAR]


async def _play(
    running: Bench, drill: Drill | None, story: Story, asked_to_end: asyncio.Event, *, goes_on: bool
) -> list[str]:
    """Let the scenario's time pass, or the drill happen, while the story is told; what the drill waited for in vain."""
    told = asyncio.create_task(story.tell(running))
    asked = asyncio.create_task(asked_to_end.wait())
    deeds: asyncio.Task[None] = asyncio.create_task(
        drill.act(running) if drill else asyncio.sleep(running.scenario.seconds)
    )
    limit = longer(running.scenario.seconds) if drill else None
    try:
        done, _ = await asyncio.wait({asked, deeds, told}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return [f"{running.scenario.name}: not done within {limit:g} s"]
        for task in done - {asked}:
            task.result()
        if goes_on and asked not in done:
            story.say("That was the story. The senders go on; Ctrl-C ends the lab and shows the figures.")
            await asked
    except DrillError as error:
        return [f"{running.scenario.name}: {error}"]
    finally:
        for task in (told, asked, deeds):
            task.cancel()
        await asyncio.gather(told, asked, deeds, return_exceptions=True)
    return []


def _keep(directory: Path, target: Path) -> None:
    """Copy what explains a run: logs, configurations, stores; not the queues."""
    target.mkdir(parents=True, exist_ok=True)
    legs = [*Leg, *(path.relative_to(directory) for path in directory.glob("fleet/mx*"))]
    for leg in legs:
        for part in ("postfix/mail.log", "postfix/etc", "sidecar/output", "sidecar/sidecar.toml", "sidecar/store"):
            source = directory / leg / part
            if source.is_dir():
                shutil.copytree(source, target / leg / part, dirs_exist_ok=True)
            elif source.exists():
                (target / leg / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / leg / part)
