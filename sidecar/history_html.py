"""A report as one page of HTML that needs nothing else: tables that a screen reader can read, and plots to look into.

Knows no number and no network: the plots' program is plotly.js as its package has it, put into the page.
"""

import hashlib
import html
import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

import pandas as pd

from policies.deliverability import TARGETS, Mark
from policies.time_to_delivery import BOUNDS, BUCKETS
from sidecar import history_tables as tables
from sidecar.history_report import Report, Row, Spike, Trend

_PROVIDERS: Final = 8
_WORDS: Final = {Mark.MET: "meets its target", Mark.PERHAPS: "may miss its target", Mark.MISSED: "misses its target"}


def page(report: Report, *, source: str, now: float, plots: bool, top: int = 100) -> str:
    """Give the whole page. Without `plots` it has no script, as it must be in a mail."""
    head = f"Mail from {tables.stamp(report.selection.since)} to {tables.stamp(report.selection.until)}"
    script = (_plotly(), _drawing(report)) if plots and not report.of_refusals else ()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src {_hashes(script)}"
    body = "".join(
        (
            f"<header><h1>{_e(head)}</h1><p>{_e(source)}. Made {_e(tables.stamp(now))}.</p></header><main>",
            *_parts(report, top=top, plots=bool(script)),
            "</main>",
        )
    )
    scripts = "".join(f"<script>{text}</script>" for text in script)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_e(policy)}">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{_e(head)}</title><style>{_STYLE}</style></head><body>{body}{scripts}</body></html>\n"
    )


def _parts(report: Report, *, top: int, plots: bool) -> Iterator[str]:
    if not report.of_refusals:
        yield f"<p>{_e(tables.targets())}</p>"
    if report.trends:
        yield _trends(report.trends)
    yield _table(report, top=top)
    if plots:
        yield (
            '<section aria-labelledby="over-time"><h2 id="over-time">Over time</h2>'
            '<div class="plot" id="volume" role="img" aria-label="Attempts by outcome over time; the numbers are in the tables">'
            '</div><div class="plot" id="acceptance" role="img" aria-label="Acceptance by provider over time"></div>'
            '<div class="plot" id="times" role="img" aria-label="Deliveries by time to delivery"></div></section>'
        )
    yield _table(report, top=top)
    if report.spikes:
        items = "".join(_spike(spike) for spike in report.spikes)
        yield f'<section aria-labelledby="spikes"><h2 id="spikes">What stands out</h2><ul>{items}</ul></section>'


def _table(report: Report, *, top: int) -> str:
    left = f", the first {top} of {len(report.rows)}" if len(report.rows) > top else ""
    caption = f"By {', '.join(report.selection.by)}{left}"
    keys = len(report.selection.by)
    rows = "".join(_row(report, row, keys) for row in report.rows[:top])
    whole = report.total._replace(key=("all", *("" for _ in range(keys - 1))))
    return (
        f'<section aria-labelledby="by"><h2 id="by">{_e(caption)}</h2><div class="wide" tabindex="0" role="region"'
        f' aria-labelledby="by"><table><thead><tr>{_heads(tables.headings(report))}</tr></thead>'
        f"<tbody>{rows}</tbody><tfoot>{_row(report, whole, keys)}</tfoot></table></div></section>"
    )


def _heads(names: Sequence[str]) -> str:
    return "".join(f'<th scope="col">{_e(name)}</th>' for name in names)


def _row(report: Report, row: Row, keys: int) -> str:
    told = []
    for number, (text, mark) in enumerate(tables.cells(report, row)):
        if number < keys:
            told.append(f'<th scope="row">{_e(text)}</th>' if number == 0 else f'<td class="key">{_e(text)}</td>')
        else:
            told.append(_cell(text, mark))
    return f"<tr>{''.join(told)}</tr>"


def _cell(text: str, mark: Mark | None) -> str:
    if mark in {None, Mark.MET}:
        return f"<td>{_e(text)}</td>"
    assert mark is not None
    return f'<td class="{mark}"><span title="{_WORDS[mark]}">{_e(text)}</span></td>'


def _trends(trends: Sequence[Trend]) -> str:
    rows = []
    for trend in trends:
        for label, row in ((trend.window, trend.now), (f"the {trend.window} before", trend.before)):
            cells = [f"<td>{row.sums.get('sent', 0):.0f}</td>"]
            for name in tables.RATES:
                known = name != "complaints" or "complaints" in row.sums
                mark = row.mark(name) if known else None
                share = tables.percent(row.rates[name].share) if known else "-"
                cells.append(_cell(share + (tables.SIGNS[mark] if mark else ""), mark))
            cells.append(f"<td>{_e(tables.seconds(row.percentiles['p95']))}</td>")
            rows.append(f'<tr><th scope="row">{_e(label)}</th>{"".join(cells)}</tr>')
    heads = _heads(["window", "delivered", *tables.RATES.values(), "p95"])
    return (
        '<section aria-labelledby="trends"><h2 id="trends">Trends</h2><div class="wide" tabindex="0" role="region"'
        f' aria-labelledby="trends"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>'
    )


def _spike(spike: Spike) -> str:
    first, *others = tables.spike_lines(spike)
    more = "".join(f"<li>{_e(line.strip())}</li>" for line in others)
    return f"<li>{_e(first)}{f'<ul>{more}</ul>' if more else ''}</li>"


def _e(text: str) -> str:
    return html.escape(text.encode("utf-8", "backslashreplace").decode())


# Plots.


def _plotly() -> str:
    text = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return text.replace("</script", "<\\/script")


def _hashes(scripts: Sequence[str]) -> str:
    """Only these scripts run in the page, and nothing that a sender's name could smuggle in."""
    if not scripts:
        return "'none'"
    return " ".join(f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts)


def _drawing(report: Report) -> str:
    data = json.dumps({"volume": _volume(report), "acceptance": _acceptance(report), "times": _times(report)})
    for found, written in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", ""), ("\u2029", "")):
        data = data.replace(found, written)
    return f"const figures = {data};\n{_DRAW}"


def _volume(report: Report) -> list[dict[str, Any]]:
    frame = report.by_time
    return [
        {
            "type": "bar",
            "name": label,
            "x": _times_of(frame),
            "y": frame[name].astype("int64").tolist(),
            "marker": {"color": colour},
        }
        for label, name, colour in (
            ("delivered", "sent", "#3d7ab8"),
            ("deferred", "deferred", "#d99a1c"),
            ("bounced", "bounced", "#c2303f"),
        )
    ]


def _acceptance(report: Report) -> list[dict[str, Any]]:
    frame = report.by_provider
    busiest = frame.groupby("provider")["attempts"].sum().sort_values(ascending=False).head(_PROVIDERS)
    drawn: list[dict[str, Any]] = []
    for provider in busiest.index:
        some = frame[frame["provider"] == provider].sort_values("begin")
        final = some["sent"] + some["bounced"] + some["expired"]
        shares = (some["sent"] / final.where(final > 0)).round(5)
        known = [None if share != share else share for share in shares.tolist()]  # noqa: PLR0124  # NaN
        drawn.append(
            {"type": "scatter", "mode": "lines+markers", "name": str(provider) or "-", "x": _times_of(some), "y": known}
        )
    target = TARGETS["acceptance"].share
    ends = _times_of(report.by_time)
    line = {"dash": "dash", "width": 1}
    return [
        *drawn,
        {"type": "scatter", "mode": "lines", "name": "target", "x": ends, "y": [target] * len(ends), "line": line},
    ]


def _times(report: Report) -> list[dict[str, Any]]:
    labels = [f"up to {_length(bound)}" for bound in BOUNDS] + ["longer"]
    counts = [int(report.total.sums.get(f"within_{number}", 0)) for number in range(BUCKETS)]
    return [{"type": "bar", "name": "deliveries", "x": labels, "y": counts}]


def _length(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min" if seconds < 3600 else f"{seconds / 3600:g} h"


def _times_of(frame: pd.DataFrame) -> list[str]:
    return [datetime.fromtimestamp(int(begin), UTC).isoformat() for begin in frame["begin"].tolist()]


_DRAW: Final = """
const titles = {volume: "attempts by outcome", acceptance: "acceptance by provider", times: "deliveries by time to delivery"};
const dark = matchMedia("(prefers-color-scheme: dark)");
function draw() {
  const style = getComputedStyle(document.body);
  for (const [id, data] of Object.entries(figures)) {
    const layout = {
      title: {text: titles[id]}, barmode: "stack", paper_bgcolor: "transparent", plot_bgcolor: "transparent",
      font: {color: style.color, family: style.fontFamily}, margin: {t: 40, r: 10, b: 60, l: 60},
      xaxis: {gridcolor: "#8884"}, yaxis: {gridcolor: "#8884", tickformat: id === "acceptance" ? ".1%" : ",d"},
      legend: {orientation: "h", y: -0.2}, modebar: {bgcolor: "transparent", color: style.color},
    };
    Plotly.react(id, data, layout, {responsive: true, displaylogo: false});
  }
}
dark.addEventListener("change", draw);
draw();
"""
_STYLE: Final = """
:root{color-scheme:light dark;--line:#c8ccd0;--low:#9a5b00;--bad:#b3101f;--back:#fff;--text:#1b1f23}
@media (prefers-color-scheme:dark){:root{--line:#3a4148;--low:#f0b75a;--bad:#ff8a90;--back:#15181c;--text:#e6e8ea}}
body{margin:0 auto;max-width:90rem;padding:1rem;background:var(--back);color:var(--text);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th[scope=row],td.key,th[scope=col]:first-child{text-align:left}tfoot th,tfoot td{font-weight:bold}
.missed{color:var(--bad);font-weight:bold}.perhaps{color:var(--low)}
.plot{height:22rem;margin:.5rem 0}
"""
