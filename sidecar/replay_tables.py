"""A back-test for people: tables as wide as the terminal, or as WIDTH where there is none."""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from policies.backtest import Report
from policies.comparison import Comparison
from policies.verdict import Verdict
from policies.waiting import Counts, Opened
from sidecar.log_history import LogHistory

WIDTH = 160
"""Columns where the output is no terminal: the same wherever it goes."""
_LEAST = 20
"""Columns that the last cell of a row gets for certain."""


class Page:
    """Prints to standard output."""

    def __init__(self, zone: tzinfo, top: int | None) -> None:
        """`top`: rows a table, None for all."""
        console = Console(highlight=False)
        self._console = console if console.is_terminal else Console(highlight=False, width=WIDTH)
        self._zone = zone
        self._top = top

    def report(self, history: LogHistory, report: Report) -> None:
        self._log(history, report)
        self._console.print(_figures([("what a sidecar would have done", report)]))
        self._subqueues("sub-queues that would have opened", report.subqueues)
        rows = [
            (row.count, row.rule, row.detail, row.bounce, row.scope, row.reaction, row.providers, row.sample)
            for row in report.replies
        ]
        names = ("count", "rule", "detail", "bounce", "scope", "reaction", "providers", "the first one")
        self._rows("replies by rule", names, rows)
        unknown = [(row.count, row.provider or "-", row.sample) for row in report.unknown]
        self._rows("replies that no rule knows", ("count", "provider", "the first one"), unknown)

    def comparison(self, history: LogHistory, comparison: Comparison, chosen: Sequence[str]) -> None:
        a, b = (directory or "(the package's)" for directory in chosen)
        self._log(history, comparison.a)
        self._console.print(_figures([(f"A: {a}", comparison.a), (f"B: {b}", comparison.b)]))
        rows = [
            (one.count, _labels(one.a, one.fields), _labels(one.b, one.fields), one.sample)
            for one in comparison.replies
        ]
        self._rows("replies read differently", ("count", "A", "B", "the first one"), rows)
        self._subqueues("sub-queues that only A would open", comparison.only_a)
        self._subqueues("sub-queues that only B would open", comparison.only_b)
        if not comparison.differ:
            self._console.print("no difference at this log")

    def _log(self, history: LogHistory, report: Report) -> None:
        span = (
            f"{_stamp(report.began, self._zone)} to {_stamp(report.ended, self._zone)}"
            if report.hosts
            else "no mail in it"
        )
        hosts = _of(len(report.hosts), "host")
        lines = f"{history.lines} lines ({history.unknown_lines} not understood)"
        self._console.print(Text(f"{_of(len(history.paths), 'file')}, {lines}, {hosts}, {span}"))
        outcomes = ", ".join(f"{status} {count}" for status, count in report.outcomes)
        self._console.print(
            Text(f"outcomes: {outcomes or 'none'}; {report.suspended} of them without an attempt (suspended)")
        )

    def _subqueues(self, title: str, subqueues: Sequence[Opened]) -> None:
        if not subqueues:
            return
        several = len({opened.host for opened in subqueues}) > 1
        names = (
            "",
            "opened",
            *(("host",) if several else ()),
            "key",
            "rule",
            "open for",
            "stopped",
            "pauses",
            "parked",
        )
        rows = [
            (
                number,
                datetime.fromtimestamp(opened.opened, self._zone).strftime("%Y-%m-%d %H:%M:%S"),
                *((opened.host,) if several else ()),
                opened.key,
                opened.rule,
                "to the end" if opened.closed is None else _long(opened.closed - opened.opened),
                _long(opened.counts.stopped_s),
                opened.counts.pauses,
                opened.counts.parked,
                opened.counts.deferrals_avoided,
                opened.counts.delivered_late,
                opened.counts.others_sent,
            )
            for number, opened in enumerate(subqueues, 1)
        ]
        self._rows(title, (*names, "avoided", "late", "others"), rows)
        for number, opened in enumerate(subqueues[: self._top], 1):
            self._console.print(Padding(Text(f"{number}: {_one_line(opened.line)}"), (0, 0, 0, 3)))

    def _rows(self, title: str, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        """A table of the first rows; its last column takes what room is left. Nothing for no rows."""
        if not rows:
            return
        left = f", the first {self._top} of {len(rows)}" if self._top is not None and self._top < len(rows) else ""
        table = Table(title=Text(f"{title}{left}"), title_justify="left", box=None, pad_edge=False)
        shown = [tuple(_one_line(str(cell)) for cell in row) for row in rows[: self._top]]
        widths = [max(len(cell) for cell in column) for column in zip(names, *shown, strict=True)]
        left_over = max(_LEAST, self._console.width - sum(widths[:-1]) - 2 * len(names))
        for i, name in enumerate(names):
            numbers = all(isinstance(row[i], int) for row in rows)
            table.add_column(name, justify="right" if numbers else "left", no_wrap=True)
        for row in shown:
            table.add_row(*map(Text, row[:-1]), Text(_cropped(row[-1], left_over)))
        self._console.print()
        self._console.print(table)


def _figures(reports: Sequence[tuple[str, Report]]) -> Table:
    """What came of it in one column a set of rules."""
    table = Table("", *(title for title, _ in reports), box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    columns = [dict(_said(report)) for _, report in reports]
    for label in columns[0]:
        table.add_row(label, *(column[label] for column in columns))
    return table


def _said(report: Report) -> Iterable[tuple[str, str]]:
    counts = report.totals
    deferred = dict(report.outcomes).get("deferred", 0)
    share = f" of {deferred} ({100 * counts.deferrals_avoided / deferred:.1f} %)" if deferred else ""
    yield "sub-queues opened", f"{report.opened}, stopped for {_long(counts.stopped_s)} in all"
    yield "refused again", f"{counts.retriggers} times while ramping (at most), {counts.failed_probes} failed probes"
    yield "messages parked", str(counts.parked)
    yield "deferrals avoided", f"{counts.deferrals_avoided}{share}"
    yield "bounces put off", str(counts.bounces_put_off)
    late = f", by {_long(counts.delivered_late_s)} in all at least" if counts.delivered_late else ""
    yield "delivered later", f"{counts.delivered_late}{late}"
    yield "not held all the same", str(counts.not_held)
    waited = f"{counts.others_sent} messages waited {_long(counts.others_waited_s)} in the active queue"
    yield "others meanwhile", f"{waited}, the longest {_long(counts.others_longest_s)}; {_suspended(counts)}"


def _suspended(counts: Counts) -> str:
    return f"{counts.others_suspended} deferred because Postfix had suspended the destination"


_SHOWN = ("reaction", "detail", "scope", "bounce", "provider", "blocklists", "code", "enhanced")
"""Fields of a verdict beside its rule, what follows from it before what leads to it."""


def _labels(verdict: Verdict, fields: Sequence[str]) -> str:
    """The rule, and what else differs."""
    shown = [f"{name}={_word(getattr(verdict, name))}" for name in _SHOWN if name in fields]
    if "identity" in fields:
        shown.append(f"identity={verdict.identity.type if verdict.identity else '-'}")
    return " ".join([verdict.rule, *shown])


def _word(value: object) -> str:
    return (",".join(value) if isinstance(value, tuple) else str(value or "")) or "-"


def _one_line(text: str) -> str:
    """Printable: a log may hold anything."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").translate(_CONTROLS)


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def _long(seconds: float) -> str:
    """A duration in the units that people use."""
    if not math.isfinite(seconds) or seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _stamp(time: float | None, zone: tzinfo) -> str:
    return "-" if time is None else datetime.fromtimestamp(time, zone).isoformat(sep=" ", timespec="seconds")


def _of(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _cropped(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
