"""`sidecar fleet`: what is done about the fleet as a whole. Asks core for everything."""

import json

import click

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
