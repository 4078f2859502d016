"""`sidecar replay`: a back-test. What the rules would have done to a log, or how two sets of rules differ at it.

Reads and prints; what would have happened is `policies`' business.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import click

from policies.backtest import Backtest, Report
from policies.comparison import Comparison, Contest
from policies.rehearsal import OBSERVED
from policies.waiting import Counts, Opened
from sidecar import rules
from sidecar.classify import as_json as verdict_json
from sidecar.config import Config
from sidecar.local_time import local_zone
from sidecar.log_history import LogHistory
from sidecar.parse import Zone
from sidecar.replay_tables import Page

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(epilog="Example: sidecar replay --rules ./my-rules --diff ./my-new-rules /var/log/mail.log*")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)
@click.option(
    "--rules",
    "directories",
    multiple=True,
    type=_DIRECTORY,
    help="Own rules in this directory, above those of the package; default: rules.directory. Twice with --diff alone.",
)
@click.option(
    "--diff",
    "other",
    is_flag=False,
    flag_value="",
    metavar="[DIR]",
    help="Compare with the rules in DIR; without DIR compare two --rules.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--top", type=click.IntRange(min=0), default=20, show_default=True, help="Rows a table; 0 for all.")
@click.option(
    "--tz", "zone", type=Zone(), help="Zone of stamps that name none, and of the output; default: this host's."
)
@click.option("--year", type=click.IntRange(1971, 9998), help="Year of each file's first line; default: from its time.")
@click.pass_obj
def replay(
    config: Config,
    files: tuple[Path, ...],
    *,
    directories: tuple[Path, ...],
    other: str | None,
    as_json: bool,
    top: int,
    zone: tzinfo | None,
    year: int | None,
) -> None:
    """Say what the rules would have done to the mail of a log: which sub-queues would have opened, what would have
    waited in them, which deferrals would not have been; and which replies no rule knows.

    FILES may be compressed, in any order, of several hosts and instances; - is standard input. Nothing is changed.

    Exit status: 0, whatever is found; with --diff 1 when the two sets of rules differ at this log; 2 for wrong usage.
    """
    chosen = _chosen(config, directories, other)
    shown = zone or local_zone()
    history = LogHistory(files, zone=shown, year=year, syslog_names=config.log.syslog_names, only=OBSERVED)
    sets = [rules.load(directory) for directory in chosen]
    if len(sets) == 1:
        backtest = Backtest(sets[0], rules.organizational_domain)
        for fact in history.facts():
            backtest.take(fact)
        report = backtest.report()
        if as_json:
            click.echo(json.dumps(_read(history) | report_json(report, shown)))
        else:
            Page(shown, top or None).report(history, report)
        return
    contest = Contest(sets[0], sets[1], rules.organizational_domain)
    for fact in history.facts():
        contest.take(fact)
    comparison = contest.comparison()
    if as_json:
        click.echo(json.dumps(_read(history) | comparison_json(comparison, chosen, shown)))
    else:
        Page(shown, top or None).comparison(history, comparison, chosen)
    raise SystemExit(1 if comparison.differ else 0)


def _chosen(config: Config, directories: Sequence[Path], other: str | None) -> list[str]:
    """The directories of the one or two sets of rules; "" for the package's alone. Raises UsageError."""
    given = [str(directory) for directory in directories]
    if other is None:
        if len(given) > 1:
            raise click.UsageError("--rules is given twice; wanted once, or --diff with it to compare the two")
        return given or [config.rules.directory]
    if other == "":
        if len(given) != 2:
            raise click.UsageError("--diff without a directory compares two sets: wanted --rules A --rules B")
        return given
    if len(given) > 1:
        raise click.UsageError("--diff DIR compares one set with DIR; wanted --rules at most once")
    if not Path(other).is_dir():
        raise click.UsageError(f"--diff: {other} is no directory; wanted one with rules, or --diff behind the files")
    return [*(given or [config.rules.directory]), other]


# As JSON.


def _read(history: LogHistory) -> dict[str, Any]:
    return {
        "files": [str(path) for path in history.paths],
        "lines": history.lines,
        "unknown_lines": history.unknown_lines,
    }


def report_json(report: Report, zone: tzinfo) -> dict[str, Any]:
    return {
        "from": _stamp(report.began, zone),
        "to": _stamp(report.ended, zone),
        "hosts": list(report.hosts),
        **_summary(report),
        "subqueues": [opened_json(opened, zone) for opened in report.subqueues],
        "categories": _categories(report),
        "replies": [dataclasses.asdict(row) for row in report.replies],
        "unknown": [dataclasses.asdict(row) for row in report.unknown],
    }


def comparison_json(comparison: Comparison, chosen: Sequence[str], zone: tzinfo) -> dict[str, Any]:
    return {
        "a": {"rules": chosen[0], **_summary(comparison.a)},
        "b": {"rules": chosen[1], **_summary(comparison.b)},
        "replies": [
            {
                "count": one.count,
                "fields": list(one.fields),
                "a": verdict_json(one.a),
                "b": verdict_json(one.b),
                "sample": one.sample,
            }
            for one in comparison.replies
        ],
        "only_a": [opened_json(opened, zone) for opened in comparison.only_a],
        "only_b": [opened_json(opened, zone) for opened in comparison.only_b],
    }


def opened_json(opened: Opened, zone: tzinfo) -> dict[str, Any]:
    return {
        "key": opened.key,
        "host": opened.host,
        "opened": _stamp(opened.opened, zone),
        "closed": _stamp(opened.closed, zone),
        "opened_by": {"line": opened.line, "rule": opened.rule},
        **_counts(opened.counts),
    }


def _summary(report: Report) -> dict[str, Any]:
    return {
        "outcomes": dict(report.outcomes),
        "suspended": report.suspended,
        "opened": report.opened,
        **_counts(report.totals),
    }


def _counts(counts: Counts) -> dict[str, Any]:
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(counts).items()
    }


def _categories(report: Report) -> dict[str, int]:
    found: Counter[str] = Counter()
    for row in report.replies:
        found[row.category] += row.count
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _stamp(time: float | None, zone: tzinfo) -> str | None:
    return None if time is None else datetime.fromtimestamp(time, zone).isoformat()
