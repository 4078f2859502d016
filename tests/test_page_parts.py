"""What the status page is put together from: words, sparklines, lists in pages, judgements, the time line."""

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.feeds.dnsbl import Severity
from parsers.observation import Outcome
from policies.incidents import Incident, Phase
from sidecar.outside_store import Known
from sidecar.own_log import printable
from sidecar.page import words
from sidecar.page.incidents import DAYS, WIDTH, time_line
from sidecar.page.judgement import SAID, mark
from sidecar.page.listing import PER_PAGE, Column, Wish, ordered, sliced
from sidecar.page.picture import Picture
from sidecar.page.spark import EDGE, HEIGHT, spark
from sidecar.page.spark import WIDTH as SPARK_WIDTH
from sidecar.page.words import Mark

ROOT = Path(__file__).parents[1]
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0 s"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (8640, "2.4 h"), (172_800, "2 d"), (200_000, "2.3 d")],
)  # fmt: skip
def test_spans(seconds: float, said: str) -> None:
    assert words.span(seconds) == said
    assert words.relative(NOW - seconds, NOW) == (f"{said} ago" if seconds >= 0 else "in 5 s")


def test_a_moment_that_never_was() -> None:
    assert (words.stamp(0), words.iso(0), words.relative(0, NOW)) == ("", "", "never")


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0%"), (1, "100%"), (0.5, "50.0%"), (0.99951, ">99.9%"), (0.9994, "99.9%"), (0.0031, "0.31%"), (0.00001, "<0.01%"), (0.01, "1.0%"), (1.2, "120%")],
)  # fmt: skip
def test_a_share_is_never_better_than_the_truth(value: float, said: str) -> None:
    assert words.percent(value) == said


@pytest.mark.parametrize(
    ("pace", "said"),
    [(None, "0"), (0.0, "0"), (1.75, "1.75/s"), (50.0, "50/s"), (0.5, "30/min"), (0.0167, "1/min"), (0.004, "14.4/h")],
)
def test_paces(pace: float | None, said: str) -> None:
    assert words.pace(pace) == said


def test_the_script_counts_on_in_the_same_words() -> None:
    """Its limits are those of `span`, for a test in a browser costs more."""
    script = (ROOT / "sidecar/page/static/page.js").read_text()
    body = script[script.index("function span") : script.index("function tick")]
    assert re.findall(r"seconds < (\d+)", body) == ["120", "7200", "172800"]
    assert re.findall(r"toFixed\((\d)\)", body) == ["0", "0", "1", "1"]
    assert re.findall(r"` ?\$\{[^`]*\} (\w+)`", body) == ["s", "min", "h", "d"]


def test_control_characters_and_turned_text_are_written_out() -> None:
    assert printable("a\x1b[1m\u202eb\udc80\n") == "a\\x1b[1m\\u202eb\\x80\\n"


# Sparklines.


@given(st.lists(st.none() | st.floats(-1, 2), max_size=60))
def test_every_value_of_a_sparkline_is_drawn_inside_it(values: list[float | None]) -> None:
    made = spark(values, words="w")
    points = [tuple(map(float, point.split(","))) for line in made.lines for point in line.split()]
    known = sum(value is not None for value in values)
    lonely = {dot for dot in made.dots if dot not in points}
    assert len(points) + len(lonely) == known
    assert all(EDGE <= x <= SPARK_WIDTH - EDGE and EDGE <= y <= HEIGHT - EDGE for x, y in (*points, *made.dots))
    assert bool(made.dots) == bool(known)


def test_a_gap_parts_a_sparkline() -> None:
    made = spark([0.0, 0.5, None, 1.0, None, 0.2, 0.4], words="w")
    assert [len(line.split()) for line in made.lines] == [2, 2]
    assert made.dots == ((60.0, 3.0), (117.0, 16.2))


# Lists.

COLUMNS = (Column("size", "Size", descending=True, number=True), Column("name", "Name"), Column("", "Nothing"))


@given(st.integers(0, 400), st.integers(-3, 20))
def test_pages_hold_every_row_once(total: int, page: int) -> None:
    wish = Wish.read("/x", {"page": str(page)}, COLUMNS)
    shown = sliced(range(total), wish)
    assert len(shown.rows) <= PER_PAGE
    assert bool(shown.rows) == bool(total)
    assert shown.total == total
    if total:
        assert (shown.rows[0] + 1, shown.rows[-1] + 1) == (shown.first, shown.last)
        assert bool(shown.next) == (shown.last < total)
        assert bool(shown.previous) == (shown.first > 1)


@given(st.dictionaries(st.sampled_from(["page", "sort", "order", "q", "state", "other"]), st.text(max_size=12)))
def test_an_address_line_is_read_as_it_was_written(query: dict[str, str]) -> None:
    wish = Wish.read("/x", query, COLUMNS, ("q", "state"))
    again = Wish.read("/x", dict(parse_qsl(urlsplit(wish.url()).query)), COLUMNS, ("q", "state"))
    assert again == wish


def test_headings_turn_the_order_around_and_begin_anew() -> None:
    size, name, nothing = Wish.read("/x", {"page": "3", "q": "a b"}, COLUMNS, ("q",)).headings(COLUMNS)
    assert (size.sorted, size.url) == ("descending", "/x?q=a+b&sort=size&order=up")
    assert (name.sorted, name.url) == ("none", "/x?q=a+b&sort=name&order=up")
    assert nothing.url == ""


def test_rows_in_order() -> None:
    wish = Wish.read("/x", {"sort": "name", "order": "down"}, COLUMNS)
    assert ordered(["b", "a", "c"], wish, {"name": str}) == ["c", "b", "a"]
    assert ordered(["b", "a"], wish, {}) == ["b", "a"]


# Judgements.


def known(measure: str, value: float | None, outcome: Outcome = Outcome.OK, text: str = "", why: str = "") -> Known:
    return Known("feed", "object", measure, outcome, why, NOW, value, text, NOW, NOW if value is not None else 0.0)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (known("listed.zen", 1.0, text="critical: CSS"), Mark("✗", "listed", "bad", "critical: CSS")),
        (known("listed.zen", 1.0, text="info: PBL"), Mark("✗", "listed", "warn", "info: PBL")),
        (known("listed.zen", 0.0), Mark("✓", "not listed", "good")),
        (known("listed.zen", 1.0, Outcome.UNKNOWN, "x", "no answer"), Mark("✗", "listed", "bad", "x")),
        (known("listed.zen", None, Outcome.UNKNOWN, why="no answer"), Mark("?", "unknown", "calm", "no answer")),
        (known("requirement.SPF", 0.0, text="no record"), Mark("✗", "not met", "bad", "no record")),
        (known("compliance", 1.0), Mark("✓", "met", "good")),
        (known("compliance.SPF", 0.0), Mark("✗", "not met", "bad")),
        (known("blocked", 0.0), Mark("✓", "not blocked", "good")),
        (known("blocked-addresses", 12.0), Mark("", "12", "calm")),
        (known("filter-result", 2.0, text="RED"), Mark("✗", "red", "bad")),
        (known("domain-reputation", 3.0, text="HIGH"), Mark("✓", "high", "good")),
        (known("dmarc-policy", 7.0), Mark("✓", "reject", "good")),
        (known("spam", 0.0031), Mark("", "0.31%", "calm")),
        (known("auth-success.spf", 0.98), Mark("", "98.0%", "calm")),
        (known("delivery-error.reject.other", 0.5), Mark("", "50.0%", "calm")),
        (known("data-age", 172_800.0), Mark("", "2 d", "calm")),
        (known("never-heard-of", 1234.5), Mark("", "1234.5", "calm")),
        (known("never-heard-of", 2048.0), Mark("", "2\u202f048", "calm")),
        (known("mta-sts", None, Outcome.NO_DATA, why="no record"), Mark("–", "no data", "calm", "no record")),
    ],
)
def test_what_a_measure_says(told: Known, said: Mark) -> None:
    assert mark(told) == said


def test_every_judgement_is_of_a_measure_that_is_documented() -> None:
    """A row for a measure that no feed tells would hide a misspelling."""
    document = (ROOT / "docs/feeds.md").read_text()
    missing = [name for name in SAID if not re.search(rf"[`, ]\.?{re.escape(name.rstrip('.'))}[.`A-Z]", document)]
    assert missing == []


# The time line.


def incident(number: int, began: float, ended: float) -> Incident:
    phase = Phase.RESOLVED if ended else Phase.OPEN
    return Incident(
        number,
        "k",
        phase,
        "t",
        "c",
        Severity.ERROR,
        "",
        "",
        NOW + began,
        NOW + began,
        ended_at=NOW + ended if ended else 0.0,
    )


@given(st.lists(st.tuples(st.floats(-1e6, -1), st.floats(0, 1e6)), max_size=40))
def test_no_two_incidents_lie_over_each_other(times: list[tuple[float, float]]) -> None:
    found = [incident(number, began, min(began + lasted, -0.5)) for number, (began, lasted) in enumerate(times)]
    line = time_line([each for each in found if each.ended_at > NOW - DAYS * 86_400], now=NOW)
    for bar in line.bars:
        assert 0 <= bar.x <= bar.x + bar.width <= WIDTH + 0.1
        beside = [each for each in line.bars if each.y == bar.y and each is not bar]
        assert all(each.x + each.width <= bar.x or bar.x + bar.width <= each.x for each in beside)


def test_too_many_at_once_are_counted() -> None:
    line = time_line([incident(number, -1000.0, 0.0) for number in range(20)], now=NOW)
    assert (len(line.bars), line.left_out) == (14, 6)
    assert len(line.days) == DAYS


# The picture of core.


def test_only_what_a_page_shows_is_a_change() -> None:
    before = Picture(taken_at=1.0, away="", held=5, lines=10, requests=3, lag=0.1)
    assert before.same_as(before._replace(taken_at=2.0, lines=11, requests=4, lag=0.3))
    assert not before.same_as(before._replace(held=6))
    assert not before.same_as(before._replace(away="gone"))
    assert not before.same_as(before._replace(lag=65.0))
