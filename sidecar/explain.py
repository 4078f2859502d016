"""`sidecar explain`: a log, line by line, with the fact, the rule and the change each line would cause."""

import itertools
import json
from collections.abc import Iterable, Iterator
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import click

from parsers.fact_json import fact_json
from parsers.log import LogReader
from parsers.postfix.facts import Fact
from policies.classify import RuleSet
from policies.rehearsal import Rehearsal
from sidecar import rules
from sidecar.bulk import Part
from sidecar.config import Config
from sidecar.local_time import local_zone
from sidecar.log_history import LogHistory
from sidecar.parse import Zone

_PLAIN = frozenset({"fact", "time", "host", "instance", "service", "daemon", "pid", "reason"})
"""What the line itself shows as it is."""


class Explainer:
    """Lines of all hosts in the order of their log; the engine observes and moves no hand."""

    def __init__(self, in_force: RuleSet, zone: tzinfo, *, latest: float) -> None:
        """`latest`: later stamps are damaged, and their facts shown but not observed."""
        self._latest = latest
        self._rules = in_force
        self._zone = zone
        self._hosts: dict[str, Rehearsal] = {}

    def explain(self, lines: Iterable[bytes], reader: LogReader) -> Iterator[dict[str, Any]]:
        """Give for each line `{line, facts, attempts, changes}`.

        A change earlier than its line came with time alone, since the line before.
        """
        for line in lines:
            stated = reader.facts(line)
            hosts = [self._observe(fact) for fact in stated]
            attempts = itertools.chain.from_iterable(host.attempts() for host in hosts)
            changes = itertools.chain.from_iterable(host.changes() for host in hosts)
            yield {
                "line": line.decode("utf-8", "backslashreplace"),
                "facts": [fact_json(fact, self._zone) for fact in stated],
                "attempts": [attempt._asdict() for attempt in attempts],
                "changes": [change.told() for change in changes],
            }

    def _observe(self, fact: Fact) -> Rehearsal:
        name = fact.record.host
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = Rehearsal(self._rules, rules.organizational_domain, host=name)
        if fact.record.time <= self._latest:
            host.observe(fact)
        return host


@click.command("explain", epilog="Example: sidecar explain /var/log/mail.log | less")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--all", "every", is_flag=True, help="Also lines that state no delivery and cause no change.")
@click.option("--tz", "zone", type=Zone(), help="Zone of stamps that name none; default: this host's.")
@click.option("--year", type=click.IntRange(1971, 9998), help="Year of each file's first line; default: from its time.")
@click.pass_obj
def command(
    config: Config, files: tuple[Path, ...], *, as_json: bool, every: bool, zone: tzinfo | None, year: int | None
) -> None:
    """Say for each line of a log what it states, which rule reads its reply, and what it would change.

    Reads FILES in the order of their stamps, also .gz, .bz2, .xz and .zst, or standard input. Nothing is changed.
    """
    shown = zone or local_zone()
    history = LogHistory(files, zone=shown, year=year, syslog_names=config.log.syslog_names)
    explainer = Explainer(rules.load(config.rules.directory), shown, latest=history.latest)
    for path in history.paths:
        part = history.part(path)
        for told in explainer.explain(_lines(part), part.reader()):
            if as_json:
                click.echo(json.dumps(told))
            elif every or told["attempts"] or told["changes"]:
                click.echo("\n".join(_said(told, shown)))


def _lines(part: Part) -> Iterator[bytes]:
    for block in part.blocks():
        yield from (line.removesuffix(b"\r") for line in block.removesuffix(b"\n").split(b"\n"))


def _said(told: dict[str, Any], zone: tzinfo) -> Iterator[str]:
    yield _printable(told["line"])
    for fact in told["facts"]:
        words = (f"{name}={_value(value)}" for name, value in fact.items() if name not in _PLAIN)
        yield _printable(f"  fact    {fact['fact']} {' '.join(words)}".rstrip())
    for attempt in told["attempts"]:
        if attempt["rule"]:
            read = f"{attempt['rule']}, {attempt['detail']}, {attempt['bounce']}, scope {attempt['scope']}"
            key = f", key {attempt['key']}" if attempt["key"] else ""
            yield _printable(f"  rule    {read}{key}")
    own_time = min((datetime.fromisoformat(fact["time"]).timestamp() for fact in told["facts"]), default=0.0)
    for change in told["changes"]:
        earlier = change["time"] < own_time - 0.001
        at = "" if not earlier else f" ({datetime.fromtimestamp(change['time'], zone):%Y-%m-%d %H:%M:%S}, by time)"
        what = " ".join(filter(None, (change["key"], change["kind"])))
        yield _printable(f"  change  {what}: {change['why']}{at}")


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _printable(text: str) -> str:
    """As a terminal may be shown it: a log holds what strangers sent."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").translate(_CONTROLS)


_CONTROLS: dict[int, str] = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 9}
