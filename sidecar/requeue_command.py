"""`sidecar requeue`: queued mail of one transport goes another way, paced; for people and for scripts."""

import json

import click

from sidecar.config import Config, Mode
from sidecar.control import ask_core
from sidecar.own_log import printable
from sidecar.status import Rate, as_json, who

NEAR_SECONDS = 5.0
FAR_SECONDS = 30.0
"""For an answer, where another host is asked first."""


@click.command(epilog="Example: sidecar requeue --transport ip-1 --to pool:bulk --rate 300/m")
@click.option("--transport", required=True, help="The transport over which the mail was tried, as the log names it.")
@click.option("--to", default="", help="Transport or pool:NAME; else as Postfix sends such mail.")
@click.option("--where", default="", help="Only the mail for which this holds (docs/expressions.md).")
@click.option("--rate", type=Rate(), help="So much at most, as 120/m, the default.")
@click.option(
    "--seconds", type=click.FloatRange(min=60), help="Go on for so long, an hour by default; the rest stays as it is."
)
@click.option("--name", default="", help="Of the key stream:NAME@*; else requeue-TRANSPORT.")
@as_json
@click.pass_obj
def requeue(
    config: Config,
    transport: str,
    to: str,
    where: str,
    *,
    rate: float | None,
    seconds: float | None,
    name: str,
    as_json: bool,
) -> None:
    """Lead queued mail away from a transport whose address is listed or blocked.

    What was put off there is taken on hold, and after half a minute Postfix takes it in anew, oldest first, at --rate.
    `sidecar subqueue show` says how much waits, `subqueue close` ends it; what is on hold then stays as it is.

    --where may ask what `subqueue open --where` may.
    """
    asked = {
        "transport": transport,
        "to": to,
        "where": where,
        "rate": rate,
        "seconds": seconds,
        "name": name,
        "who": who(),
    }
    timeout = FAR_SECONDS if config.postfix.reach else NEAR_SECONDS
    answer = ask_core(config.control_socket, {"command": "requeue", **asked}, timeout=timeout)
    if as_json:
        click.echo(json.dumps(answer))
        return
    if answer["mode"] != Mode.ACT:
        click.echo("observing: nothing is taken from the queue")
    sub = answer["subqueue"]
    click.echo(printable(f"{sub['key']}: {sub['opened_by']['line']}; {sub['budget_per_s'] * 60:g} a minute"))
    for warning in answer["warnings"]:
        click.echo(f"  {warning}")
