"""`sidecar explain`: a log, line by line, with the fact, the rule and the change each line would cause."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click

from parsers.fact_json import fact_json
from parsers.log import LogReader
from policies.engine import Engine
from policies.site import Settings
from sidecar import rules
from sidecar.config import Config
from sidecar.local_time import local_zone


def explain(lines: Iterator[bytes], reader: LogReader, engine: Engine) -> Iterator[dict[str, Any]]:
    """Give for each line `{line, facts, attempts, changes}`; the engine observes and moves no hand."""
    telling = engine.telling
    for line in lines:
        told: list[dict[str, Any]] = []
        for fact in reader.facts(line):
            now = fact.record.time
            engine.observe(fact, now=now)
            engine.step(now=now)
            told.append(fact_json(fact))
        attempts, telling.attempts = telling.attempts, []
        changes, telling.changes = telling.changes, []
        yield {
            "line": line.decode("utf-8", "backslashreplace"),
            "facts": told,
            "attempts": [attempt._asdict() for attempt in attempts],
            "changes": [change._asdict() for change in changes],
        }


@click.command("explain", epilog="Example: sidecar explain /var/log/mail.log | less")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--all", "every", is_flag=True, help="Also lines that state no delivery and cause no change.")
@click.pass_obj
def command(config: Config, files: tuple[Path, ...], *, as_json: bool, every: bool) -> None:
    """Say for each line of a log what it states, which rule reads its reply, and what it would change."""
    engine = Engine(rules.load(config.rules.directory), rules.organizational_domain, Settings(act=False))
    for path in files or (Path("-"),):
        with _opened(path) as log:
            reference = path.stat().st_mtime if path != Path("-") else time.time()
            reader = LogReader(zone=local_zone(), reference=reference, syslog_names=config.log.syslog_names)
            for told in explain((line.rstrip(b"\n") for line in log), reader, engine):
                if as_json:
                    click.echo(json.dumps(told))
                elif every or told["attempts"] or told["changes"]:
                    click.echo("\n".join(_said(told)))


def _opened(path: Path) -> BinaryIO:
    return sys.stdin.buffer if path == Path("-") else path.open("rb")


def _said(told: dict[str, Any]) -> Iterator[str]:
    yield told["line"]
    for fact in told["facts"]:
        yield f"  fact    {fact['fact']} {fact.get('queue_id', '')}".rstrip()
    for attempt in told["attempts"]:
        if attempt["rule"]:
            words = (attempt["rule"], attempt["detail"], attempt["bounce"], f"scope {attempt['scope']}")
            yield f"  rule    {', '.join(words)}" + (f", key {attempt['key']}" if attempt["key"] else "")
    for change in told["changes"]:
        yield f"  change  {change['key']} {change['kind']}: {change['why']}"
