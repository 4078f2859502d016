"""`sidecar status` and `sidecar subqueue`: what core is doing, for people and for scripts, and doing it by hand.

Knows how to ask core and how to show its answers; what a sub-queue is, core knows.
"""

import functools
import getpass
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from policies.key import Key
from sidecar.config import NOWHERE, Config
from sidecar.control import CoreUnreachable, ask_core
from sidecar.core_status import Fleet, Host, Row, rows
from sidecar.own_log import printable

_ROWS_MAX = 40  # sub-queues on a status screen; `subqueue list` has them all
_BROKEN_MAX = 10  # lines about broken authentication; --json has all
_LOOK_EVERY = 1.0  # seconds between two looks of --watch
_RELOAD_WITHIN = 90.0  # seconds; core itself gives up after 60
_HELPER = {True: "answers", False: "away", None: "?"}
_COLOURS = {"paused": "red", "probing": "yellow", "ramping": "cyan", "closed": "green"}


def screen(answer: Mapping[str, Any], *, now: float) -> RenderableType:
    """What `status` shows of core's answer."""
    found = rows(answer)
    parts: list[RenderableType] = [*_lines(answer)]
    fleet = Fleet.read(answer)
    if fleet is not None and fleet.takes_part and fleet.hosts:
        parts.append(_hosts(fleet))
    if found:
        parts.append(table(found[:_ROWS_MAX], now=now))
    if len(found) > _ROWS_MAX:
        parts.append(Text(f"and {len(found) - _ROWS_MAX} more: sidecar subqueue list"))
    return Group(*parts)


def _waited_for(log: Mapping[str, Any]) -> str:
    """An older core does not say it."""
    return "" if log.get("followed", True) else "; it is not there yet"


def _lines(answer: Mapping[str, Any]) -> list[Text]:
    log, policy, store = answer["log"], answer["policy"], answer.get("store") or {}
    said = [
        Text(f"mode {answer['mode']}, {len(answer['subqueues'])} sub-queues open, {answer['held_total']} held"),
        Text(f"log {printable(log['source'])}: {log['lines']} lines, {log['lag_s']:.1f} s behind{_waited_for(log)}"),
        Text(f"queue: {answer['messages_live']} messages known"),
        Text(f"policy: {_total(policy.get('requests'))} requests, {_total(policy.get('fail_open'))} errors of ours"),
    ]
    helper = answer.get("helper") or {}
    over = printable(str(helper.get("over") or ""))
    if over:
        how = "there is no way to it: it is only observed" if over == NOWHERE else f"reached over ssh {over}"
        said.append(Text(f"host: {printable(str(answer.get('host')))}; {how}"))
    if not helper.get("reachable"):
        far = "; after failsafe_after_minutes the host itself lets go what is held there" if over else ""
        said.append(Text(f"queue helper: not reachable; nothing can be held or released{far}", style="red"))
    reload = answer.get("reload") or {}
    if reload.get("error"):
        said.append(Text(f"reload: refused, what was in force stays: {printable(str(reload['error']))}", style="red"))
    if reload.get("restart_for"):
        said.append(Text(f"reload: a restart is wanted for {', '.join(reload['restart_for'])}", style="yellow"))
    said += _fleet(Fleet.read(answer))
    said += [Text(f"store: {printable(str(trouble))}", style="red") for trouble in store.values() if trouble]
    said += [Text(_broken(row), style="red") for row in (answer.get("broken") or ())[:_BROKEN_MAX]]
    return said


def _broken(row: Mapping[str, Any]) -> str:
    """A key whose authentication is broken, by whose word its mail goes all the same, and what was found."""
    what = f"sent all the same, by {row['let_go_by']}" if row["let_go_by"] else "its mail waits for the repair"
    return printable(f"broken: {row['key']}: {what}: {row['evidence']}")


def _fleet(fleet: Fleet | None) -> list[Text]:
    if fleet is None:
        return []
    if not fleet.takes_part:
        return [Text("fleet: who only observes neither tells nor follows")]
    number = len(fleet.hosts)
    said = (
        f"fleet: {fleet.host}, one of {number} hosts, {fleet.heard} of them heard of, {fleet.shared} sub-queues shared"
    )
    lines = [Text(f"{said}, {fleet.held} held by all", style="" if fleet.heard == number else "yellow")]
    if len(fleet.versions) > 1:
        lines.append(Text(f"fleet: versions {', '.join(fleet.versions)} side by side", style="yellow"))
    if fleet.silent:
        lines.append(Text(f"fleet: the store is silent: {fleet.silent}", style="red"))
    if fleet.twin:
        lines.append(Text(f"fleet: another host calls itself {fleet.host}, too: give each a fleet.host", style="red"))
    if fleet.other_key:
        said = f"fleet: {fleet.other_key} has another suppression.key: its list and ours are not shared"
        lines.append(Text(said, style="red"))
    if fleet.suppressions_missed:
        said = (
            f"fleet: changes of {fleet.suppressions_missed} hosts to the suppression list were missed: a copy is taken"
        )
        lines.append(Text(said, style="yellow"))
    if fleet.alone:
        part = f"{fleet.alone_part:.0%}"
        lines.append(
            Text(f"fleet: this host goes on by itself, at {part} of what all of them may let out", style="red")
        )
    return lines


def _hosts(fleet: Fleet) -> Table:
    """All of the fleet's hosts; those first that need a look."""
    shown = Table(box=None, pad_edge=False)
    for column in ("host", "heard", "version", "mode", "log behind", "sub-queues", "held", "helper"):
        shown.add_column(column, justify="right" if column in {"sub-queues", "held"} else "left", no_wrap=True)
    for host in sorted(fleet.hosts, key=lambda host: (not host.silent, host.helper is not False, host.name))[
        :_ROWS_MAX
    ]:
        shown.add_row(
            *map(Text, _cells(host)), style="yellow" if host.silent else "red" if host.helper is False else ""
        )
    return shown


def _cells(host: Host) -> tuple[str, ...]:
    return (
        host.name,
        "never" if host.heard is None else f"{span(host.heard)} ago",
        host.version or "?",
        host.mode or "?",
        "?" if host.lag is None else span(host.lag),
        "?" if host.subqueues is None else str(host.subqueues),
        "?" if host.held is None else str(host.held),
        _HELPER[host.helper],
    )


def _total(counts: Any) -> int:
    return sum(counts.values()) if isinstance(counts, dict) else int(counts or 0)


def table(found: Sequence[Row], *, now: float) -> Table:
    shown = Table(box=None, pad_edge=False)
    shown.add_column("sub-queue", no_wrap=True)  # to be copied whole
    for column in ("state", "since", "held", "budget/s", "next step", "opened by"):
        shown.add_column(column, justify="right" if column in {"held", "budget/s"} else "left", overflow="fold")
    for row in found:
        shown.add_row(
            Text(row.key),
            Text(row.state, style=_COLOURS.get(row.state, "")),
            Text(span(now - row.since) if row.since else ""),
            Text(str(row.held)),
            Text("" if row.budget_per_s is None else f"{row.budget_per_s:.4g}"),
            Text("" if row.next_step_at is None else f"in {span(row.next_step_at - now)}"),
            Text(row.rule),
        )
    return shown


def span(seconds: float) -> str:
    """A length of time as people say it: 42 s, 5 min, 3.2 h, 2.0 d; what is over is 0 s."""
    for limit, divisor, unit, digits in ((120, 1, "s", 0), (7200, 60, "min", 0), (172_800, 3600, "h", 1)):
        if seconds < limit:
            return f"{max(seconds, 0) / divisor:.{digits}f} {unit}"
    return f"{seconds / 86_400:.1f} d"


def watch(path: Path, console: Console, *, pause: Callable[[], None]) -> None:
    """Show the status anew after each `pause`, until interrupted; core may come and go meanwhile."""
    with Live(console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            try:
                live.update(screen(ask_core(path, {"command": "status"}), now=time.time()), refresh=True)
            except CoreUnreachable as error:
                live.update(Text(str(error), style="red"), refresh=True)
            pause()


def _console() -> Console:
    """Standard output; where that is no terminal nothing is folded to its width."""
    console = Console()
    return console if console.is_terminal else Console(width=1000)


def _printed(answer: Mapping[str, Any] | Sequence[Any]) -> None:
    click.echo(json.dumps(answer))


as_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")


@click.command(epilog="Example: sidecar status --json")
@click.option("--watch", "watching", is_flag=True, help="Look again every second, until interrupted.")
@as_json
@click.pass_obj
def status(config: Config, *, watching: bool, as_json: bool) -> None:
    """Show the sub-queues, what is held, and how far core is behind its log."""
    if watching and as_json:
        raise click.UsageError("--watch is for people and --json for programs; choose one")
    if watching:
        watch(config.control_socket, _console(), pause=functools.partial(time.sleep, _LOOK_EVERY))
        return
    answer = ask_core(config.control_socket, {"command": "status"})
    if as_json:
        _printed({name: value for name, value in answer.items() if name != "ok"})
    else:
        _console().print(screen(answer, now=time.time()))


@click.command(epilog="Example: sidecar reload")
@as_json
@click.pass_obj
def reload(config: Config, *, as_json: bool) -> None:
    """Have core read its configuration and the rules again, and take them over if all of it is good.

    Else nothing changes, the error is shown, and the exit status is 2. No policy answer waits for it.
    """
    answer = ask_core(config.control_socket, {"command": "reload"}, timeout=_RELOAD_WITHIN)
    if as_json:
        _printed({name: value for name, value in answer.items() if name != "ok"})
        return
    click.echo(f"taken over; mode {answer['mode']}")
    if answer["restart_for"]:
        click.echo(f"a restart is wanted for {', '.join(answer['restart_for'])}")


@click.group(epilog="Example: sidecar subqueue show dkim-domain:example.com@google")
def subqueue() -> None:
    """Look at sub-queues, and open, pause, close or release them by hand.

    What is done by hand is recorded with the name of who did it.
    """


class Rate(click.ParamType[float]):
    """A pace as people write it; messages a second."""

    name = "number/s|m|h"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)/([smh])", str(value))
        if found is None or not float(found[1]):
            self.fail(f"found {value!r}, wanted a number above 0 and a time, as 5/s, 30/m or 1000/h", param, ctx)
        return float(found[1]) / {"s": 1, "m": 60, "h": 3600}[found[2]]


def _checked(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else str(Key.read(value))
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


_key = click.argument("key", callback=_checked)
by_host = click.option("--host", default="", help="Of a fleet, on this host alone; else on all that it concerns.")


@subqueue.command("list", epilog="Example: sidecar subqueue list --json")
@as_json
@click.pass_obj
def list_(config: Config, *, as_json: bool) -> None:
    """All open sub-queues, those that hold most first."""
    answer = ask_core(config.control_socket, {"command": "status"})
    if as_json:
        _printed(answer["subqueues"])
    elif answer["subqueues"]:
        _console().print(table(rows(answer), now=time.time()))
    else:
        click.echo("no sub-queue is open")


@subqueue.command(epilog="Example: sidecar subqueue show dkim-domain:example.com@google")
@_key
@as_json
@click.pass_obj
def show(config: Config, key: str, *, as_json: bool) -> None:
    """One sub-queue, with the log line that opened it."""
    _do(config, "show", key, as_json=as_json)


@subqueue.command("open", epilog="Example: sidecar subqueue open --where 'campaign = summer-sale' --rate 30/m")
@click.argument("key", callback=_checked, required=False)
@click.option("--where", help="Of the mail for which this holds (docs/expressions.md), and not of a KEY.")
@click.option("--name", default="", help="With --where: of the key stream:NAME@*; else made of the condition.")
@click.option("--rate", type=Rate(), help="With --where: let so much through, as 30/m; else nothing.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="With --where: close after so long; else by hand."
)
@by_host
@as_json
@click.pass_obj
def open_(
    config: Config,
    key: str | None,
    *,
    host: str,
    where: str | None,
    name: str,
    rate: float | None,
    seconds: float | None,
    as_json: bool,
) -> None:
    """Open a sub-queue.

    Of a KEY as if a refusal had: pause, probe, ramp. With --where over a campaign, a tenant, a segment, wherever it goes:
    paused or slowed until it is closed. The same again with another --rate changes the pace.

    --where may ask: provider, recipient_domain, sender, sender_domain, sending_domain, tenant, campaign, segment, instance,
    transport.
    """
    if (key is None) is (where is None):
        raise click.UsageError("wanted either a KEY or --where")
    if key is not None:
        if name or rate is not None or seconds is not None:
            raise click.UsageError("--name, --rate and --seconds go with --where; `subqueue pause` takes a KEY")
        _do(config, "open", key, as_json=as_json, host=host)
    else:
        _do(config, "open", None, as_json=as_json, host=host, where=where, name=name, rate=rate, seconds=seconds)


@subqueue.command(epilog="Example: sidecar subqueue close dkim-domain:example.com@google")
@_key
@by_host
@as_json
@click.pass_obj
def close(config: Config, key: str, *, host: str, as_json: bool) -> None:
    """Close a sub-queue: what it holds is released, and new mail is no longer held."""
    _do(config, "close", key, as_json=as_json, host=host)


@subqueue.command(epilog="Example: sidecar subqueue pause dkim-domain:example.com@google --seconds 600")
@_key
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="For so long; else as the rule says.")
@by_host
@as_json
@click.pass_obj
def pause(config: Config, key: str, *, seconds: float | None, host: str, as_json: bool) -> None:
    """Pause a sub-queue, opening it where it is not open."""
    _do(config, "pause", key, as_json=as_json, host=host, seconds=seconds)


@subqueue.command(epilog="Example: sidecar subqueue release dkim-domain:example.com@google")
@click.argument("key", callback=_checked, required=False)
@click.option("--all", "everything", is_flag=True, help="Whatever is held, under any key.")
@by_host
@as_json
@click.pass_obj
def release(config: Config, key: str | None, *, everything: bool, host: str, as_json: bool) -> None:
    """Let what is held go, on all hosts of a fleet, paced, each message for one attempt; the sub-queue stays open."""
    if (key is None) is not everything:
        raise click.UsageError("wanted either a KEY or --all")
    _do(config, "release", key or "all", as_json=as_json, host=host)


def _do(config: Config, what: str, key: str | None, *, as_json: bool, **more: float | str | None) -> None:
    """Have core do `what`, and show what came of it.

    Raises CoreUnreachable, CoreRefused.
    """
    request = {"command": "subqueue", "do": what, "key": key, "who": who(), **more}
    given = {name: value for name, value in request.items() if value is not None}
    answer = ask_core(config.control_socket, given, timeout=HOSTS_WITHIN)
    said = answer.get("subqueue") or {name: value for name, value in answer.items() if name not in _BY_HOST}
    if as_json:
        _printed({**said, **{name: answer[name] for name in _BY_HOST & answer.keys() if name != "ok"}})
    elif "released" in said:
        click.echo(f"{said['released']} messages are released")
    elif "held" in said:
        _print_row(Row.read(said), now=time.time())
    elif "key" in said:
        click.echo(f"{printable(str(said['key']))}: {said['state']}")
    if not as_json:
        print_hosts(answer)


HOSTS_WITHIN = 15.0
"""Seconds: core waits for other hosts, and for a store of the fleet that does not answer."""
_BY_HOST = frozenset({"ok", "hosts", "unheard"})


def print_hosts(answer: Mapping[str, Any]) -> None:
    """Say what became of a command on each host of a fleet, where it was for more than this one."""
    for host, each in sorted(answer.get("hosts", {}).items()):
        released = f", {each['released']} messages released" if "released" in each else ""
        click.echo(printable(f"host {host}: {f'done{released}' if each['ok'] else each['error']}"))
    for host, why in sorted(answer.get("unheard", {}).items()):
        click.echo(printable(f"host {host}: {why}"), err=True)


def _print_row(row: Row, *, now: float) -> None:
    pace = "" if row.budget_per_s is None else f", {row.budget_per_s:.4g} messages/s"
    step = "" if row.next_step_at is None else f", next step in {span(row.next_step_at - now)}"
    click.echo(f"{row.key}: {row.state} for {span(now - row.since)}, {row.held} held{pace}{step}")
    click.echo(f"opened by {row.rule or 'hand'}{': ' if row.line else ''}{row.line}")
    if row.unheld_attempts:
        click.echo(f"{row.unheld_attempts} attempts during a pause that could not be held")


def who() -> str:
    """Whom the audit names: behind sudo, who called it."""
    return os.environ.get("SUDO_USER") or getpass.getuser()
