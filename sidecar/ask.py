"""`sidecar ask`: what the policy daemon would answer now, said by core itself so that it is the same answer.

Nothing is changed by asking: no message is remembered, promised or counted.
"""

import difflib
import json
from collections.abc import Iterable
from pathlib import Path

import click

from parsers.policy_protocol import PolicyRequest
from sidecar.config import Config
from sidecar.control import CoreRefused, CoreUnreachable, ask_core

_PRINTED = ("action", "key", "rule", "why")


def answer_to(control_socket: Path, attributes: dict[str, str]) -> dict[str, str]:
    """Ask core about a message with these attributes: {"action", "key", "rule", "why"}.

    Raises CoreUnreachable, CoreRefused.
    """
    answer = ask_core(control_socket, {"command": "ask", "request": attributes})
    return {name: str(answer[name]) for name in _PRINTED}


def attributes_of(words: Iterable[str]) -> dict[str, str]:
    """Read `name=value` words, the names being those of the policy protocol. Raises ValueError."""
    attributes: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word}: wanted NAME=VALUE, as recipient=user@gmail.com")
        if name not in PolicyRequest._fields:
            near = difflib.get_close_matches(name, PolicyRequest._fields, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(PolicyRequest._fields)}"
            raise ValueError(f"{name}: no attribute of the policy protocol; {remedy}")
        if name in attributes:
            raise ValueError(f"{name}: given twice; one message to one recipient can be asked about at a time")
        if PolicyRequest.__annotations__[name] is int and not (value.isascii() and value.isdecimal()):
            raise ValueError(f"{name}: found {value!r}, wanted a whole number")
        attributes[name] = value
    return attributes


@click.command(epilog="Example: sidecar ask recipient=user@gmail.com sender=news@example.com")
@click.argument("attributes", nargs=-1, required=True, metavar="NAME=VALUE...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def ask(context: click.Context, attributes: tuple[str, ...], *, as_json: bool) -> None:
    """Say what the policy daemon would answer now, and why.

    NAME is an attribute of Postfix's policy protocol; recipient and sender are enough.
    """
    config = context.find_object(Config) or Config()
    try:
        answer = answer_to(config.control_socket, attributes_of(attributes))
    except (ValueError, CoreRefused) as error:
        raise click.UsageError(str(error), context) from error
    except CoreUnreachable as error:
        click.echo(f"sidecar ask: {error}", err=True)
        context.exit(3)
    if as_json:
        click.echo(json.dumps(answer))
        return
    for name in _PRINTED:
        click.echo(f"{name:<8}{answer[name]}")
