"""`sidecar quota`: what is in use of each quota, and a bucket emptied by hand. Asks core for everything."""

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from sidecar.config import Config
from sidecar.control import ask_core
from sidecar.own_log import printable
from sidecar.status import HOSTS_WITHIN, by_host, print_hosts, who

_as_json = click.option("--json", "as_json", is_flag=True, help="JSON.")
_quota = click.option("--quota", "name", metavar="NAME", help="Of this quota alone.")


@click.group(epilog="Example: sidecar quota list")
def quota() -> None:
    """How much tenants, domains, clients and senders may hand in ([[quota]] of the configuration)."""


def _ask(config: Config, do: str, **request: Any) -> dict[str, Any]:
    """Raises CoreUnreachable, CoreRefused."""
    answer = ask_core(
        config.control_socket, {"command": "quota", "do": do, "who": who(), **request}, timeout=HOSTS_WITHIN
    )
    return {name: value for name, value in answer.items() if name != "ok"}


@quota.command("list", epilog="Example: sidecar quota list --quota tenant-day --limit 20")
@_quota
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True, help="The fullest so many.")
@_as_json
@click.pass_obj
def list_(config: Config, *, name: str | None, limit: int, as_json: bool) -> None:
    """Show what is in use, the fullest first."""
    answer = _ask(config, "list", quota=name, limit=limit)
    _print(answer, as_json=as_json)
    if not as_json and len(answer["buckets"]) < answer["in_use"]:
        click.echo(f"{answer['in_use'] - len(answer['buckets'])} more are in use: --limit")


@quota.command(epilog="Example: sidecar quota show newsletter@example.com")
@click.argument("key")
@_quota
@_as_json
@click.pass_obj
def show(config: Config, key: str, *, name: str | None, as_json: bool) -> None:
    """Show what a login, a domain, an address uses of each quota. Exit status 1 where that is nothing."""
    answer = _ask(config, "show", key=key, quota=name)
    _print(answer, as_json=as_json)
    sys.exit(int(not answer["buckets"]))


@quota.command(epilog="Example: sidecar quota reset newsletter@example.com --quota tenant-day")
@click.argument("key")
@_quota
@by_host
@_as_json
@click.pass_obj
def reset(config: Config, key: str, *, name: str | None, host: str, as_json: bool) -> None:
    """Give a login, a domain, an address all its room back, on all hosts of a fleet.

    It is written in the history of changes, with your name.
    """
    answer = _ask(config, "reset", key=key, quota=name, host=host)
    if as_json:
        click.echo(json.dumps(answer))
        return
    if "reset" in answer:
        stored = "" if answer["stored"] else " (in memory; the store does not take writes now)"
        click.echo(f"{printable(key)}: {', '.join(answer['reset'])} emptied{stored}")
    print_hosts(answer)


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer))
        return
    table = Table("quota", "per", "key", box=None)
    for title in ("in use", "limit", "room again", "beyond"):
        table.add_column(title, no_wrap=True)
    for row in answer["buckets"]:
        table.add_row(
            row["quota"],
            row["per"],
            printable(row["key"]),
            f"{row['in_use']:.1f} of {row['burst']}",
            f"{row['limit']} {row['count']}/{row['within']}",
            f"{row['room_again_s']:.0f} s" if row["room_again_s"] else "",
            str(row["beyond"]) if row["defers"] else f"{row['beyond']} (only said)",
        )
    Console(highlight=False, markup=False, emoji=False).print(table)
