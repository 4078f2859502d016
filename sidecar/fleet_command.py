"""`sidecar fleet`: what is done about the fleet as a whole. Asks core for everything."""

import json
import time
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from sidecar.config import Config
from sidecar.control import ask_core
from sidecar.own_log import printable
from sidecar.status import who


@click.group(epilog="Example: sidecar fleet forget mx7.example.com")
def fleet() -> None:
    """The hosts that share what they learn (store.redis); `sidecar status` shows them."""


@fleet.command(epilog="Example: sidecar fleet forget mx7.example.com")
@click.argument("host")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@click.pass_obj
def forget(config: Config, *, host: str, as_json: bool) -> None:
    """Count a host no more that died and does not come back; else that takes a day.

    Until then the majority that must be there counts it, and its part of each pace is kept for it. Make sure that it is off: one
    that is only cut off goes on at that part.
    """
    answer = ask_core(config.control_socket, {"command": "fleet-forget", "host": host, "who": who()})
    hosts = ", ".join(map(printable, answer["hosts"]))
    click.echo(
        json.dumps({name: value for name, value in answer.items() if name != "ok"})
        if as_json
        else f"{printable(host)}: counted no more; the fleet is {hosts}"
    )


@fleet.command(epilog="Example: sidecar fleet learned example.com")
@click.argument("name", default="")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="JSON.")
@click.pass_obj
def learned(config: Config, *, name: str, limit: int, as_json: bool) -> None:
    """What other hosts taught this one: whose provider a recipient domain is, what an envelope domain signs as.

    With a NAME what is known of that domain. What this host has seen itself counts more than what others say.
    """
    answer = ask_core(config.control_socket, {"command": "fleet-learned", "name": name, "limit": limit})
    rows = answer["learned"]
    if as_json:
        click.echo(json.dumps(rows))
    elif not rows:
        click.echo("no other host has said anything of it")
    else:
        table = Table("name", "kind", "is", "says host", "ago", "here", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*map(printable, _cells(row)))
        Console().print(table)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    here = ", ".join(row["here"]) or "-"
    ago = f"{max(0.0, time.time() - row['at']) / 3_600.0:.1f} h"
    return row["name"], row["kind"], row["value"], row["host"], ago, f"{here} (seen here)" if row["seen_here"] else here
