"""`sidecar check`: the findings about this host's Postfix and its wiring, for people and for programs.

Knows how they are shown; what is looked at is a table elsewhere.
"""

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from sidecar import findings, postfix, postfix_configuration
from sidecar.config import Config
from sidecar.findings import Finding, Host, Severity
from sidecar.postfix import PostfixError


def look(config: Config, *, user: str) -> list[Finding]:
    """Every finding about every instance. Raises PostfixError."""
    known = postfix.instances(Path(config.postfix.config_directory))
    hosts = [Host(postfix_configuration.read(instance), config, user, others_wired=False) for instance in known]
    wired = [findings.wired(host) for host in hosts]
    found: list[Finding] = []
    for i, host in enumerate(hosts):
        others = any(wired[:i] + wired[i + 1 :])
        found += [each for each in findings.find(host._replace(others_wired=others)) if each not in found]
    found += _namesakes(hosts)
    return sorted(found, key=lambda finding: list(Severity).index(finding.severity))


def say(found: Sequence[Finding]) -> Iterator[str]:
    """The findings for people."""
    for finding in found:
        key = f": {finding.key}" if finding.key else ""
        yield f"{finding.severity}: {finding.id}: {finding.file}{key}"
        yield from _folded("found ", finding.found or "(empty)")
        yield from _folded("wanted", finding.wanted)
        if finding.command:
            yield from _folded("do    ", finding.command)
    if not found:
        yield "nothing found: Postfix is wired as it should"


def _folded(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, width=110, initial_indent=f"  {label} ", subsequent_indent=" " * 9, break_long_words=False
    )


def _namesakes(hosts: Sequence[Host]) -> Iterator[Finding]:
    """Instances that cannot be told apart in the log."""
    first: dict[str, Host] = {}
    for host in hosts:
        name = host.site.instance.syslog_name
        if name in first:
            other = first[name].site.instance.config_directory
            yield host.main(
                "same-syslog-name",
                Severity.ERROR,
                "syslog_name",
                f"another name than {other} has: the log does not tell their mail apart",
                host.postconf("multi_instance_name = postfix-NAME"),
            )
        first.setdefault(name, host)


@click.command(epilog="Example: sidecar check --json")
@click.option("--user", default="sidecar", show_default=True, help="The user that core runs as.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@click.pass_obj
def check(config: Config, *, user: str, as_json: bool) -> None:
    """Look at Postfix's configuration, the wiring and the log; change nothing.

    Exit status: 0; 1 when a finding is an error; 2 for wrong usage or configuration.
    """
    try:
        found = look(config, user=user)
    except PostfixError as error:
        click.echo(f"check: {error}", err=True)
        raise SystemExit(2) from error
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in found]))
    else:
        for line in say(found):
            click.echo(line)
    raise SystemExit(1 if any(one.severity in {Severity.CRITICAL, Severity.ERROR} for one in found) else 0)
