"""`sidecar pool`, `warmup`, `canary` and `react`: where mail is steered, for people and for scripts, and doing it by hand.

Knows how to ask core and how to show its answers; what they mean, core knows.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from policies.key import EVERYWHERE
from policies.note import span
from sidecar.config import Config
from sidecar.control import ask_core
from sidecar.own_log import printable
from sidecar.status import HOSTS_WITHIN, as_json, by_host, print_hosts, who

Row = Mapping[str, Any]


@click.group(epilog="Example: sidecar pool list")
def pool() -> None:
    """See which transports a pool sends over now, and why one is out."""


@pool.command("list", epilog="Example: sidecar pool list --json")
@as_json
@click.pass_obj
def pool_list(config: Config, *, as_json: bool) -> None:
    """All pools with their transports."""
    found = _asked(config, "pools", "list")["pools"]
    if as_json:
        _print_json(found)
        return
    rows = [
        (each["name"], member["transport"], f"{member['weight']:g}", "; ".join(member["out"]), member["warm_up"])
        for each in found
        for member in each["transports"]
    ]
    _print(("pool", "transport", "weight", "out or coming back", "warm-up"), rows, none="there is no [[pool]]")


@click.group(epilog="Example: sidecar warmup show ip-2")
def warmup() -> None:
    """See how far addresses have been warmed up; pause one, and let it go on."""


def _warm_up(do: str, about: str, example: str) -> Callable[..., None]:
    @warmup.command(do, help=about, epilog=f"Example: sidecar warmup {example}")
    @click.argument("transport")
    @as_json
    @click.pass_obj
    def command(config: Config, transport: str, *, as_json: bool) -> None:
        _show_warm_ups(_asked(config, "warm-up", do, transport=transport)["warm_ups"], as_json=as_json, whole=False)

    return command


@warmup.command("list", epilog="Example: sidecar warmup list --json")
@as_json
@click.pass_obj
def warmup_list(config: Config, *, as_json: bool) -> None:
    """Today's figures of all addresses that warm up."""
    _show_warm_ups(_asked(config, "warm-up", "list")["warm_ups"], as_json=as_json, whole=True)


_warm_up("show", "Today's figures of one transport, by provider.", "show ip-2")


def _by_hand(do: str, about: str, example: str) -> None:
    @warmup.command(do, help=about, epilog=f"Example: sidecar warmup {example}")
    @click.argument("transport")
    @by_host
    @as_json
    @click.pass_obj
    def command(config: Config, transport: str, *, host: str, as_json: bool) -> None:
        answer = _asked(config, "warm-up", do, transport=transport, host=host)
        of_hosts = {name: answer[name] for name in ("hosts", "unheard") if name in answer}
        found = [{**each, **of_hosts} for each in answer.get("warm_ups", ())]
        if as_json:
            _print_json(found or [of_hosts])
            return
        if found:
            _show_warm_ups(found, as_json=False, whole=False)
        print_hosts(answer)


_by_hand(
    "pause",
    "Let a transport take no more mail of its warm-up until it is resumed: on all hosts where its warm-up is the fleet's.",
    "pause ip-2",
)
_by_hand(
    "resume", "Let a paused transport take mail again, on the hosts that `pause` is for.", "resume ip-2 --host mx2"
)


def _show_warm_ups(found: Sequence[Row], *, as_json: bool, whole: bool) -> None:
    if as_json:
        _print_json(found)
        return
    rows = []
    for each in found:
        for level in each["providers"][: 1 if whole else None]:
            where = "all" if level["provider"] == EVERYWHERE else level["provider"]
            paused = f"paused by {each['paused_by']}" if each["paused_by"] else ""
            state = paused or ("warm" if level["warm"] else level["held"] and f"growth held: {level['held']}")
            counts = (str(level[name]) for name in ("promised", "figure", "turned_away", "deferred", "refused"))
            rows.append((each["transport"], str(each["day"]), where, *counts, state or ""))
    heads = ("transport", "day", "provider", "sent", "of", "too many", "deferred", "refused", "state")
    _print(heads, rows, none="there is no [[warm_up]]")


@click.group(epilog="Example: sidecar canary show new-template")
def canary() -> None:
    """See how mail fares that is tried on a share first; promote it, stop it, begin anew."""


@canary.command("list", epilog="Example: sidecar canary list --json")
@as_json
@click.pass_obj
def canary_list(config: Config, *, as_json: bool) -> None:
    """All canaries and how they stand."""
    found = _asked(config, "canary", "list")["canaries"]
    if as_json:
        _print_json(found)
        return
    rows = [
        (each["name"], each["transport"], f"{each['share']:.1%}", each["phase"], f"{each['delivered']}", each["why"])
        for each in found
    ]
    _print(("canary", "over", "share", "state", "delivered", "why"), rows, none="there is no [[canary]]")


def _canary(do: str, about: str) -> Callable[..., None]:
    @canary.command(do, help=about, epilog=f"Example: sidecar canary {do} new-template")
    @click.argument("name")
    @as_json
    @click.pass_obj
    def command(config: Config, name: str, *, as_json: bool) -> None:
        (found,) = _asked(config, "canary", do, name=name)["canaries"]
        if as_json:
            _print_json(found)
        else:
            _show_canary(found)

    return command


_canary("show", "Its rates beside those of its control, with the interval of their difference (95 %).")
_canary("promote", "Send all such mail the canary's way.")
_canary("stop", "Send no mail the canary's way.")
_canary("start", "Begin anew: its share, and counts from 0.")


def _show_canary(found: Row) -> None:
    by = f" by {found['by_whom']}" if found["by_whom"] else ""
    click.echo(printable(f"{found['name']}: {found['phase']}{by}: {found['why']}"))
    rows = [
        (each["rate"], _percent(each["canary"]), f"{each['of']:.0f}", _percent(each["control"]),
         f"{each['of_control']:.0f}", " to ".join(map(_percent, each["difference"])), "worse" if each["worse"] else each["too_few"])
        for each in found["compared"]
    ]  # fmt: skip
    _print(("rate", "canary", "of", "control", "of", "difference", ""), rows, none="")


@click.group(epilog="Example: sidecar react list")
def react() -> None:
    """See what is done about bad signs, and undo it."""


@react.command("list", epilog="Example: sidecar react list --json")
@as_json
@click.pass_obj
def react_list(config: Config, *, as_json: bool) -> None:
    """All that is done by [[react]] now, or was undone by hand."""
    found = _asked(config, "react", "list")["reactions"]
    if as_json:
        _print_json(found)
        return
    now = time.time()
    rows = [
        (each["object"], each["provider"], f"{each['do']} {each['to']}".strip(), _reaction_state(each),
         span(now - each["since"]), each["signal"], each["evidence"])
        for each in found
    ]  # fmt: skip
    heads = ("about", "at", "done", "state", "for", "signal", "evidence")
    _print(heads, rows, none="nothing is done about any sign")


@react.command(epilog="Example: sidecar react undo ip-2 --provider google")
@click.argument("about", metavar="TRANSPORT|ADDRESS|DOMAIN")
@click.option("--provider", default="", help="At this provider alone, as `react list` shows it.")
@as_json
@click.pass_obj
def undo(config: Config, about: str, provider: str, *, as_json: bool) -> None:
    """Take back what is done about something, until its sign has passed and comes again."""
    found = _asked(config, "react", "undo", object=about.lower() if "." in about else about, provider=provider)
    if as_json:
        _print_json(found["undone"])
    else:
        click.echo(printable(f"undone: {', '.join(found['undone'])}"))


def _reaction_state(each: Row) -> str:
    if each["undone_by"]:
        return f"undone by {each['undone_by']}"
    return f"back with {each['share']:.0%}" if each["ended"] else "on"


def _asked(config: Config, command: str, do: str, **more: str) -> dict[str, Any]:
    """Raises CoreUnreachable, CoreRefused."""
    return ask_core(config.control_socket, {"command": command, "do": do, "who": who(), **more}, timeout=HOSTS_WITHIN)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _print_json(found: Any) -> None:
    click.echo(json.dumps(found))


def _print(heads: Sequence[str], rows: Sequence[Sequence[str]], *, none: str) -> None:
    if not rows:
        click.echo(none)
        return
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    _console().print(table)


def _console() -> Console:
    """Standard output; where that is no terminal nothing is folded to its width."""
    console = Console(markup=False, highlight=False)
    return console if console.is_terminal else Console(width=1000, markup=False, highlight=False)
