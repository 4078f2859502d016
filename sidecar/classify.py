"""`sidecar classify`: what a reply means, for people and for scripts.

Reads replies as text or JSON, one a line, and prints one JSON object a line. What they mean is `policies`' business.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

import click

from policies.classify import RuleSet, Said
from policies.verdict import Verdict
from sidecar.config import Config
from sidecar.rules import load

_FIELDS: Final = {"reply": "reason", "host": "host", "recipient_domain": "recipient_domain", "command": "command"}
"""Key of a JSON line -> field of `Said`."""


class LineError(Exception):
    """A line that is no reply: says what is wrong and what would be right."""


def read_line(line: str) -> Said:
    """Read a reply, or the JSON object {"reply", "host", "recipient_domain", "command"}; other keys are left alone.

    Raises LineError.
    """
    if not line.lstrip().startswith("{"):
        return Said(line)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineError(f'not valid JSON: {error}; wanted a reply, or {{"reply": "550 5.1.1 ..."}}') from error
    if not isinstance(value, dict) or not isinstance(value.get("reply"), str):
        raise LineError('reply: missing or no text; wanted {"reply": "550 5.1.1 ...", "host": "mx.example.net"}')
    given = {field: value[key] for key, field in _FIELDS.items() if value.get(key) is not None}
    for key, field in _FIELDS.items():
        if not isinstance(given.get(field, ""), str):
            raise LineError(f"{key}: found {value[key]!r}; wanted text in quotes")
    return Said(**given)


def as_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict in the form of the output: every field, `identity` an object or null."""
    fields = verdict._asdict()
    fields["identity"] = verdict.identity._asdict() if verdict.identity else None
    return fields


def answers(rules: RuleSet, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """One object a line: the verdict, or {"error"} with the line's number where it cannot be read."""
    for number, line in enumerate(lines, 1):
        try:
            yield as_json(rules.classify(read_line(line.rstrip("\r\n"))))
        except LineError as error:
            yield {"error": f"line {number}: {error}"}


def _standard_input() -> Iterator[str]:
    """Lines as they come; bytes that are not UTF-8 stand as lone surrogates, as in a log record."""
    for line in sys.stdin.buffer:
        yield line.decode("utf-8", "surrogateescape")


@click.command(
    "classify",
    epilog="Example: sidecar classify '550 5.1.1 unknown - gsmtp'",
)
@click.argument("reply", required=False)
@click.pass_obj
def classify(config: Config, reply: str | None) -> None:
    """Say what a reply means: its cause, whom it is about, and what to do.

    Without REPLY, a reply a line is read from standard input, as text or as JSON with reply, host, recipient_domain
    and command.

    Prints one JSON object a line: provider, rule, category, detail, bounce, scope, identity, blocklists, reaction,
    code, enhanced.
    """
    rules = load(config.rules.directory)
    for answer in answers(rules, _standard_input() if reply is None else [reply]):
        click.echo(json.dumps(answer))
