"""A report for people at a terminal and in plain text: tables, and the same as JSON and CSV for programs.

Knows how rates, times and marks are written; the numbers are made elsewhere.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from policies.deliverability import TARGETS, Mark, Rate
from policies.rollup import MEASURES
from sidecar.history_report import Difference, Report, Row, Spike, Trend
from sidecar.own_log import printable

RATES: Final[Mapping[str, str]] = {
    "acceptance": "accepted",
    "hard_bounces": "hard",
    "soft_bounces": "soft",
    "blocks": "blocks",
    "deferrals": "deferred",
    "complaints": "complaints",
}
"""Rates of a table, and their headings."""
SIGNS: Final[Mapping[Mark, str]] = {Mark.MET: "", Mark.PERHAPS: " ?", Mark.MISSED: " !"}
COLOURS: Final[Mapping[Mark, str]] = {Mark.MET: "", Mark.PERHAPS: "yellow", Mark.MISSED: "bold red"}
LEGEND: Final = "! misses its target, ? misses it by no more than chance may do"


def percent(share: float | None) -> str:
    if share is None or math.isnan(share):
        return "-"
    return f"{share * 100:.3f} %" if 0 < share < 0.01 else f"{share * 100:.2f} %"


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def stamp(value: float) -> str:
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%MZ")


def targets() -> str:
    """Say the targets in a line."""
    said = [
        f"{RATES[name]} at {'least' if target.at_least else 'most'} {target.share * 100:g} %"
        for name, target in TARGETS.items()
    ]
    return f"targets: {', '.join(said)}; {LEGEND}"


def headings(report: Report) -> list[str]:
    if report.of_refusals:
        return [*report.selection.by, "refused", "share", "deferred", "bounced", "hard", "block", "expired"]
    return [*report.selection.by, "messages", "attempts", "delivered", *RATES.values(), "p50", "p95", "p99"]


def cells(report: Report, row: Row) -> list[tuple[str, Mark | None]]:
    """Give what stands in a row, with marks."""
    key: list[tuple[str, Mark | None]] = [(printable(value) or "-", None) for value in row.key]
    if report.of_refusals:
        whole = max(report.total.sums["attempts"] + report.total.sums["expired"], 1)
        number = row.sums["attempts"] + row.sums["expired"]
        counted = [f"{row.sums[name]:.0f}" for name in ("deferred", "bounced", "hard", "block", "expired")]
        return [*key, (f"{number:.0f}", None), (percent(number / whole), None), *((each, None) for each in counted)]
    found = row.rates
    times = row.percentiles
    return [
        *key,
        *((f"{row.sums[name]:.0f}", None) for name in ("messages", "attempts", "sent")),
        *((_rate(name, found[name], row), row.mark(name)) for name in RATES),
        *((seconds(times[name]), None) for name in ("p50", "p95", "p99")),
    ]


def _rate(name: str, rate: Rate, row: Row) -> str:
    if name == "complaints" and "complaints" not in row.sums:
        return "-"
    found = row.mark(name)
    return percent(rate.share) + (SIGNS[found] if found else "")


# At a terminal.


def parts(report: Report, *, top: int, source: str) -> Iterator[RenderableType]:
    """Give the parts of a report in the order in which one reads them."""
    selection = report.selection
    yield Text(f"{source}, {stamp(selection.since)} to {stamp(selection.until)}")
    if not report.of_refusals:
        yield Text(targets())
    yield table(report, top=top)
    if report.trends:
        yield trends(report.trends)
    for spike in report.spikes:
        yield Text("\n".join(spike_lines(spike)))


def table(report: Report, *, top: int) -> Table:
    left = f", the first {top} of {len(report.rows)}" if 0 < top < len(report.rows) else ""
    drawn = Table(title=f"by {', '.join(report.selection.by)}{left}", title_justify="left", box=None, pad_edge=False)
    for number, name in enumerate(headings(report)):
        drawn.add_column(name, justify="left" if number < len(report.selection.by) else "right", no_wrap=True)
    for row in report.rows[: top or None]:
        drawn.add_row(*_texts(report, row))
    total = report.total._replace(key=("all", *("" for _ in report.selection.by[1:])))
    drawn.add_section()
    drawn.add_row(*_texts(report, total), style="bold")
    return drawn


def _texts(report: Report, row: Row) -> Iterator[Text]:
    for text, found in cells(report, row):
        yield Text(text, style=COLOURS[found] if found else "")


def trends(found: Sequence[Trend]) -> Table:
    drawn = Table("window", title="trends", title_justify="left", box=None, pad_edge=False)
    for name in ("delivered", *RATES.values(), "p95"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for trend in found:
        for label, row in ((trend.window, trend.now), ("  before", trend.before)):
            rates = (_rate(name, row.rates[name], row) for name in RATES)
            drawn.add_row(label, f"{row.sums.get('sent', 0):.0f}", *rates, seconds(row.percentiles["p95"]))
    return drawn


def spike_lines(spike: Spike) -> list[str]:
    """Say a spike, and what may have led to it."""
    refused = f"{percent(spike.refused.share)} of {spike.refused.of:.0f} attempts deferred or bounced"
    head = f"spike: {printable(spike.provider) or 'no provider'}, {stamp(spike.begin)} to {stamp(spike.end)}: {refused}"
    lines = [f"{head}, usually {percent(spike.usual)}"]
    lines += [
        f"  {percent(share)} of them: {printable(name) or 'no campaign, no domain'}" for name, share in spike.streams
    ]
    return lines + [f"  {stamp(time)} {printable(what)}" for time, what in spike.events]


def differences(found: Sequence[Difference], one: str, other: str) -> Table:
    """Draw two groups side by side."""
    drawn = Table("rate", title=Text(f"{one} against {other}"), title_justify="left", box=None, pad_edge=False)
    for name in (one, other, "difference (95 %)", ""):
        drawn.add_column(Text(name), justify="right", no_wrap=True)
    for each in found:
        low, high = each.interval
        drawn.add_row(
            each.rate.replace("_", " "),
            f"{percent(each.one.share)} of {each.one.of:.0f}",
            f"{percent(each.other.share)} of {each.other.of:.0f}",
            f"{low * 100:+.2f} to {high * 100:+.2f} points",
            "differs" if each.differ else "may be chance",
        )
    return drawn


def frame_table(frame: pd.DataFrame, title: str) -> Table:
    """Draw a table of shares and counts; an index that has a name is its first column."""
    shown = frame.reset_index() if frame.index.name else frame
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, name in enumerate(shown.columns):
        drawn.add_column(f"day {name}" if str(name).isdecimal() else str(name), justify="right" if number else "left")
    for values in shown.to_numpy().tolist():
        drawn.add_row(*(Text(_value(name, value)) for name, value in zip(shown.columns, values, strict=True)))
    return drawn


def _value(name: Any, value: Any) -> str:
    if name == "growth":
        return "-" if math.isnan(value) else f"x {value:.2f}"
    if isinstance(value, float):
        return percent(value)
    return printable(str(value)) or "-"


def plain(some: Iterable[RenderableType], *, width: int = 160) -> str:
    """Draw it as text without colours, for mail and files."""
    console = Console(width=width, file=io.StringIO(), color_system=None, highlight=False)
    console.print(Group(*(Group(each, Text()) for each in some)))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


# For programs.


def row_json(report: Report, row: Row) -> dict[str, Any]:
    names = [name for name in (*MEASURES, "complaints") if name in row.sums and not name.startswith("within_")]
    said: dict[str, Any] = {**dict(zip(report.selection.by, row.key, strict=False))}
    said |= {name: int(row.sums[name]) for name in names}
    if not report.of_refusals:
        said["rates"] = {
            name: {"share": rate.share, "mark": row.mark(name)}
            for name, rate in row.rates.items()
            if name != "complaints" or "complaints" in row.sums
        }
        said["time_to_delivery_s"] = row.percentiles
    return said


def as_json(report: Report, source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **source,
        "from": datetime.fromtimestamp(report.selection.since, UTC).isoformat(),
        "to": datetime.fromtimestamp(report.selection.until, UTC).isoformat(),
        "by": list(report.selection.by),
        "targets": {name: target.share for name, target in TARGETS.items()},
        "rows": [row_json(report, row) for row in report.rows],
        "total": row_json(report, report.total),
        "trends": [
            {"window": trend.window, "now": row_json(report, trend.now), "before": row_json(report, trend.before)}
            for trend in report.trends
        ],
        "spikes": [
            {
                **spike._asdict(),
                "refused": spike.refused.hits,
                "attempts": spike.refused.of,
                "streams": [{"stream": name, "share": share} for name, share in spike.streams],
                "events": [{"time": time, "what": what} for time, what in spike.events],
            }
            for spike in report.spikes
        ],
    }


def difference_json(each: Difference) -> dict[str, Any]:
    return {
        "rate": each.rate,
        "one": each.one._asdict(),
        "other": each.other._asdict(),
        "interval": list(each.interval),
        "differ": each.differ,
    }


def as_csv(report: Report) -> str:
    """One line a row: keys, counts, rates as shares, seconds to delivery; "" where something is not known."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [name for name in (*MEASURES, "complaints") if name in report.total.sums and not name.startswith("within_")]
    rated = [] if report.of_refusals else [name for name in report.total.rates if name != "complaints" or name in names]
    times = [] if report.of_refusals else [f"{name}_s" for name in report.total.percentiles]
    writer.writerow([*report.selection.by, *names, *(f"{name}_rate" for name in rated), *times])
    for row in report.rows:
        found = row.rates if rated else {}
        writer.writerow(
            [
                *map(_harmless, row.key),
                *(int(row.sums[name]) for name in names),
                *("" if found[name].share is None else f"{found[name].share:.6f}" for name in rated),
                *("" if value is None else f"{value:.3f}" for value in row.percentiles.values() if times),
            ]
        )
    return out.getvalue()


def _harmless(text: str) -> str:
    """A spreadsheet must not take what a sender chose for a formula."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text
