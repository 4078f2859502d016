"""The status page over HTTP: what each view says, of a site on a bad morning and of one that is broken; what it never does."""

import html
import http.client
import re
import sqlite3
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from policies.commands import Change
from sidecar.control import Handler
from sidecar.page import app, live, reading
from sidecar.page.app import VIEWS
from sidecar.store import Store
from sidecar.store_rows import Commit
from tests import page_world as world
from tests.page_world import NOW, STATUS, Served, at_some_port, config, served

ADDRESSES = {
    "/": "/",
    "/subqueue/{about:path}": "/subqueue/dkim-domain%3Ashop.example%40google",
    "/domain/{about:path}": "/domain/shop.example",
    "/address/{about:path}": "/address/192.0.2.7",
    "/incident/{about}": "/incident/5",
    "/search": "/search?q=orders%40shop.example",
}
"""Of the views whose path alone is none, or shows nothing."""


def example(view: app.View) -> str:
    return ADDRESSES.get(view.path, view.path)


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    world.filled(directory)
    return directory


@pytest.fixture(name="page", scope="module")
def _page(site: Path) -> Iterator[Served]:
    with served(at_some_port(config(site))) as page:
        yield page


class Refuses(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Leave it to the test."""


BROWSER = urllib.request.build_opener(Refuses)


def got(page: Served, path: str, **headers: str) -> tuple[int, str, Message]:
    address = page.url + path
    request = urllib.request.Request(  # noqa: S310  # of our own server
        address, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with BROWSER.open(request, timeout=60) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


def seen(page: Served, path: str) -> str:
    """What one reads on a page: without its tags, white space as one space."""
    status, body, _ = got(page, path)
    assert status == 200, body
    text = re.sub(r"<(script|style).*?</\1>", "", body, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


SAYS = {
    "/": ["2 paused, 1 probing, 2 ramping", "dkim-domain:shop.example @google", "in 8 min", "1.75/s",
          "unusual rate of unsolicited mail originating from your DKIM domain [shop.example 35]", "comcast/rl000010",
          "1 critical, 1 warning", "attempts accepted in the last 24 hours: lowest", "google", "14.6%"],
    "/domains": ["shop.example", "594 059", "99.2%", "✗ SPF", "complaints of 7 days", "27"],
    "/addresses": ["192.0.2.7", "spamcop ✗ listed", "on none of 4", "abusix ✗ not believed", "! yellow", "mx1.site.example"],
    "/pools": ["ip-2 all ▲ growing 12 5 217 8 140 64.1% 0 1.2% 0", "google ! held reputation: low 12 2 960 2 960 100% 412 1.6% 0",
               "ip-3 all ○ to begin – 0 200", "bulk ip-1 2.0 ! out for all providers", "bulk ip-2 1.0 ✓ in",
               "spring-template ip-2 5.0% ▲ running canary 412 3 1", "control 7 930 44 9", "ip-1 everybody leave-pool", "127.0.0.3 (SBL CSS)"],
    "/feeds": ["snds", "✗ blind", "HTTP 401: log in anew", "9 times in a row", "not configured", "✗ not met",
               "192.0.2.7: softfail; wanted ip4:192.0.2.7", "complaint 41 41"],
    "/incidents": ["Friday, 15 January 2027", "google puts off 38.00% of 2911 attempts", "taken on by ann", "lasted 6.7 h"],
    "/incident/{about}": ["✗ critical", "● open", "docs/runbooks/domain-throttled.md", "2847 messages on hold", "Noticed after 2 min",
                          "taken on by ann", "slack", "pagerduty", "0.31% of shop.example's mail at Gmail is called spam"],
    "/audit": ["opened", "by comcast/rl000010", "RL000010", "ann", "pause of 300 s"],
    "/subqueue/{about:path}": ["■ paused", "nothing leaves", "2 847", "in 8 min", "4hXr000xZkz9q", "held 2 847 messages", "421-4.7.28"],
    "/domain/{about:path}": ["594 059", "requirement.SPF", "0.31%", "dmarc-policy ! none", "between 0.0006 and 0.0031"],
    "/address/{about:path}": ["listed.spamcop ✗ listed", "listed.abusix", "? unknown", "filter-result ! yellow"],
    "/search": ["4hXr5T1xZkz9qKd", "✓ left the queue", "→ received one recipient", "! deferred pat@gmail.example", "pause of 600 s",
                "✓ sent", "250 2.0.0 OK", "○ removed from the queue", "■ held by us", "winter-sale"][:9],
}  # fmt: skip
"""View -> what must stand on it."""


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.path)
def test_what_a_view_says(page: Served, view: app.View) -> None:
    text = seen(page, example(view)).replace("\u202f", " ")
    assert [words for words in SAYS[view.path] if words not in text] == []
    assert "Traceback" not in text


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.path)
def test_the_answers_of_a_view(page: Served, view: app.View) -> None:
    status, body, headers = got(page, example(view))
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]*', body) == []
    assert re.findall(r"<script(?! src)|\son\w+=|style=|javascript:", body) == []


def test_what_a_stranger_wrote_is_text(page: Served) -> None:
    for path in ("/", "/audit", "/subqueue/spf-domain%3Acrafted.example%40b.example"):
        body = got(page, path)[1]
        assert "<script>alert" not in body
        assert "&lt;script&gt;alert(&#34;you&#34;)&lt;/script&gt; &amp;amp; \\x1b[31mred\\u202e" in body
    for path in (
        "/search?q=%3Cscript%3Ex",
        "/?q=%22%3E%3Cscript%3Ex",
        "/audit?q=%22%3E%3Cscript%3Ex",
        "/subqueue/%3Cscript%3Ex@y",
    ):
        assert "<script>x" not in got(page, path)[1]


STRANGE = ["/?page=0", "/?page=-1", "/?page=999999", "/?page=x", "/?sort=nothing&order=sideways", "/?state=odd", "/?q=%00%ff%1b",
           "/audit?before=x", "/audit?before=99999999999999999999", "/audit?kind=%27", "/audit?by=hand&q=%25_", "/incident/x",
           "/incident/99", "/incident/99999999999999999999", "/incidents?page=70", "/incidents?phase=live", "/domain/%ff", "/domain/no.example",
           "/address/2001%3Adb8%3A%3A/32", "/subqueue/nothing", "/subqueue/%ed%b2%80@x", "/search?q=", "/search?q=%00", "/search?q=a%40b",
           "/domains?sort=put-off&order=up&page=9&q=zzz", "/feeds?q=zzz", "/addresses?q=zzz"]  # fmt: skip


@pytest.mark.parametrize("path", STRANGE)
def test_strange_addresses_are_answered(page: Served, path: str) -> None:
    assert got(page, path)[0] == 200


@pytest.mark.parametrize(
    ("path", "status"), [("/nothing", 404), ("/static/..%2fapp.py", 404), ("/static/none.js", 404), ("//", 404)]
)
def test_what_is_not_there(page: Served, path: str, status: int) -> None:
    found, text, headers = got(page, path)
    assert found == status
    assert text.startswith("not found")
    assert headers["content-type"].startswith("text/plain")


def test_requests_are_counted_by_view(page: Served) -> None:
    def counted() -> dict[tuple[str, str], float]:
        text = got(page, "/metrics")[1]
        found = next(
            each for each in text_string_to_metric_families(text) if each.name == "sidecar_outside_web_requests"
        )
        return {(sample.labels["path"], sample.labels["status"]): sample.value for sample in found.samples}

    for path in ("/incident/5", "/incident/4", "/x", "/y/z", "/"):
        got(page, path)
    until = time.monotonic() + 60  # an answer is given to all who ask within a second
    while not {"/incident", "other", "/"} <= (names := {path for path, _ in counted()}):
        assert time.monotonic() < until
    assert not {"/x", "/y", "/incident/5"} & names


def test_core_and_its_page_agree_with_health_and_metrics(page: Served) -> None:
    assert got(page, "/healthz")[:2] == (200, "ok\n")
    assert "sidecar_core_up 1.0" in got(page, "/metrics")[1]


def test_themes(page: Served) -> None:
    assert '<html lang="en" data-theme="auto">' in got(page, "/")[1]
    assert 'data-theme="dark"' in got(page, "/", Cookie="theme=dark")[1]
    assert 'data-theme="auto"' in got(page, "/", Cookie="theme=x%22")[1]
    status, _, headers = got(page, "/theme?to=light&back=/audit%3Fq%3Dx")
    assert (status, headers["location"]) == (303, "/audit?q=x")
    assert headers["set-cookie"].startswith("theme=light; HttpOnly")
    assert "SameSite=strict" in headers["set-cookie"]


@pytest.mark.parametrize("back", ["//evil.example", "/\\evil.example", "https://evil.example", "", "/%0d%0aX:1"])
def test_the_way_back_leads_nowhere_else(page: Served, back: str) -> None:
    assert got(page, f"/theme?to=dark&back={back}")[2]["location"] == "/"


def test_a_theme_that_is_none_is_not_kept(page: Served) -> None:
    assert got(page, "/theme?to=neon&back=/")[2]["set-cookie"] is None


def test_assets_are_for_good_and_the_rest_is_not(page: Served) -> None:
    for asset in re.findall(r'"(/static/[^"]+)"', got(page, "/")[1]):
        status, _, headers = got(page, asset)
        assert status == 200
        assert "immutable" in headers["cache-control"]
    assert got(page, "/favicon.ico")[2]["content-type"] == "image/svg+xml"


# Long lists.


def keys(page: Served, path: str) -> list[str]:
    return re.findall(r'<a id="key-\d+" href="/subqueue/([^"]+)"', got(page, path)[1])


def many(number: int) -> dict[str, Handler]:
    rows = [
        {
            **STATUS["subqueues"][0],
            "key": f"dkim-domain:d{each:05}.example@google",
            "held": each % 977,
            "state": ("paused", "ramping")[each % 2],
        }
        for each in range(number)
    ]
    answer = {**STATUS, "subqueues": rows}
    return {"status": lambda _: answer}


def test_each_of_ten_thousand_subqueues_is_on_one_page_alone(tmp_path: Path) -> None:
    with served(at_some_port(config(tmp_path)), many(10_000)) as page:
        first = got(page, "/?sort=key&order=up")[1]
        assert "1–50 of 10\u202f000 sub-queues" in first
        assert len(first) < 100_000
        assert keys(page, "/?sort=key&order=up&page=200")[-1] == "dkim-domain%3Ad09999.example%40google"
        assert keys(page, "/?sort=key&order=up&page=201") == keys(page, "/?sort=key&order=up&page=200")
        held = [
            int(number) for number in re.findall(r'class="number strong" data-label="Held">(\d+)', got(page, "/")[1])
        ]
        assert held == sorted(held, reverse=True)
        assert held[0] == 976
        found = keys(page, "/?q=D00042&state=paused")
        assert found == ["dkim-domain%3Ad00042.example%40google"]
        assert keys(page, "/?q=D00042&state=ramping") == []


def test_columns_are_sorted_both_ways_and_say_so(page: Served) -> None:
    up, down = keys(page, "/?sort=key&order=up"), keys(page, "/?sort=key&order=down")
    assert up == down[::-1] == sorted(up)
    body = got(page, "/?sort=key&order=up")[1]
    assert body.count('aria-sort="ascending"') == 1
    assert body.count('aria-sort="none"') == 6


def test_the_audit_goes_back_by_number_and_misses_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "core.db")
    made = [
        Change(
            NOW - 500 + number,
            "k:v@p",
            "held",
            "paused",
            f"why {number}",
            "",
            "r",
            "ann" if number % 7 == 0 else "engine",
            1,
        )
        for number in range(130)
    ]
    store.commit(Commit(changes=made))
    store.close()
    with served(at_some_port(config(tmp_path))) as page:

        def through(path: str) -> list[int]:
            found: list[int] = []
            while path:
                body = got(page, path)[1]
                found += map(int, re.findall(r">why (\d+)<", body))
                following = re.search(r'href="([^"]+)" rel="next"', body)
                path = html.unescape(following[1]) if following else ""
            return found

        assert through("/audit") == list(range(129, -1, -1))
        assert through("/audit?by=hand") == [number for number in range(129, -1, -1) if number % 7 == 0]
        assert through("/audit?kind=closed") == []


# What is missing, broken or slow.


def test_a_site_of_which_nothing_is_known_yet(tmp_path: Path) -> None:
    with served(at_some_port(config(tmp_path)), None) as page:
        for view in VIEWS:
            text = seen(page, example(view))
            assert "Core does not answer." in text
            assert "there is no store yet" in text


def test_while_core_is_away_what_it_said_last_stays(site: Path, tmp_path: Path) -> None:
    answers: list[bool] = [True]

    def status(_: dict[str, Any]) -> dict[str, Any]:
        if not answers[0]:
            raise ValueError("not now")
        return STATUS

    with served(at_some_port(config(site)), None) as page:
        text = seen(page, "/").replace("\u202f", " ")
        assert "What is shown of it is what its store has." in text
        assert "As core wrote them down 5 s ago" in text
        assert "dkim-domain:shop.example @google" in text
        assert "1 204 of" not in text
        assert "■ paused" in seen(page, "/subqueue/dkim-domain%3Ashop.example%40google")

    with served(at_some_port(config(tmp_path)), {"status": status}) as page:
        assert "Core does not answer." not in seen(page, "/")
        answers[0] = False
        deadline = time.monotonic() + 60
        while "Core does not answer." not in (text := seen(page, "/")):
            assert time.monotonic() < deadline
        assert "as it was 0 s ago" in text
        assert "not now" in text
        assert "dkim-domain:shop.example @google" in text


@pytest.mark.parametrize(
    "answer",
    [{}, {"mode": "act"}, {**STATUS, "log": None}, {**STATUS, "subqueues": [{}]}, {**STATUS, "held_total": "x"}],
)
def test_a_core_that_speaks_otherwise_is_said_to_be_away(tmp_path: Path, answer: dict[str, Any]) -> None:
    with served(at_some_port(config(tmp_path)), {"status": lambda _: answer}) as page:
        assert "core's answer cannot be read" in seen(page, "/")


def test_what_is_no_utf8_is_shown_as_what_it_is(tmp_path: Path) -> None:
    row = {
        **STATUS["subqueues"][0],
        "key": "from-domain:\udcff.example@google",
        "opened_by": {"line": "x \udc80 y", "rule": "r"},
    }
    with served(at_some_port(config(tmp_path)), {"status": lambda _: {**STATUS, "subqueues": [row]}}) as page:
        assert "from-domain:\\xff.example" in seen(page, "/")


def test_troubles_of_core_are_said(tmp_path: Path) -> None:
    answer = {**STATUS, "helper": {"reachable": False}, "store": {"failure": "disk full"}}
    with served(at_some_port(config(tmp_path)), {"status": lambda _: answer}) as page:
        text = seen(page, "/audit")
        assert "The queue helper cannot be reached" in text
        assert "takes no writes: nothing new is held. disk full" in text


def test_a_slow_question_is_given_up_and_the_page_says_so(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "DEADLINE", -1.0)
    monkeypatch.setattr(reading, "_STEPS", 1)
    with served(at_some_port(config(site))) as page:
        assert "not read to the end within -1 s; ask for less" in seen(page, "/audit")


def test_a_store_that_is_being_written_is_read_all_the_same(site: Path) -> None:
    with served(at_some_port(config(site))) as page:
        writer = sqlite3.connect(site / "core.db", isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        try:
            assert "comcast/rl000010" in seen(page, "/audit")
        finally:
            writer.execute("ROLLBACK")
            writer.close()


def test_looking_changes_nothing(site: Path, page: Served) -> None:
    def content() -> list[str]:
        found = []
        for name in ("core.db", "outside.db"):
            connection = sqlite3.connect(site / name)
            found += list(connection.iterdump())
            connection.close()
        return found

    before = content()
    for view in VIEWS:
        got(page, example(view))
    assert content() == before
    assert got(page, "/")[0] == 200


def test_a_page_that_hangs_keeps_no_scrape_waiting(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads of the page are stuck, as with a disk that hangs."""
    stuck, goes_on = threading.Semaphore(0), threading.Event()

    def hangs(_: Any) -> None:
        stuck.release()
        goes_on.wait()
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(app, "VIEWS", (app.View("/", "Now", "now.html", hangs, menu="Now"),))
    with served(at_some_port(config(site))) as page:
        waiting = [threading.Thread(target=got, args=(page, "/")) for _ in range(6)]
        for thread in waiting:
            thread.start()
        for _ in range(2):
            stuck.acquire()
        try:
            assert got(page, "/healthz")[:2] == (200, "ok\n")
            assert got(page, "/metrics")[0] == 200
        finally:
            goes_on.set()
        for thread in waiting:
            thread.join()
        assert got(page, "/")[:2] == (500, "failed; the log of sidecar outside says why\n")


def test_core_is_asked_seldom_however_often_the_page_is(tmp_path: Path) -> None:
    asked: list[float] = []

    def status(_: dict[str, Any]) -> dict[str, Any]:
        asked.append(time.monotonic())
        return STATUS

    with served(at_some_port(config(tmp_path)), {"status": status}) as page:
        began = time.monotonic()
        for _ in range(20):
            got(page, "/")
        assert len(asked) <= 1 + (time.monotonic() - began)


# Live.


class Stream:
    def __init__(self, page: Served) -> None:
        host, _, port = page.url.removeprefix("http://").partition(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=60)
        self.connection.request("GET", "/live")
        self.answer = self.connection.getresponse()

    def line(self) -> bytes:
        return self.answer.fp.readline()

    def wait_for(self, words: bytes) -> None:
        while words not in (line := self.line()):
            assert line, "the stream ended"

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


HOST = {"host": "mx1", "heard_s": 1.0, "silent": False, "sidecar": "0.2.0", "mode": "act", "held": 40, "live": 9,
        "subqueues": 3, "lag_s": 0.4, "helper": True, "said_s": 2.0}  # fmt: skip
FLEET = {"host": "mx1", "takes_part": True, "shared": 3, "silent": "", "alone": False, "alone_part": 0.25}


def test_the_hosts_of_a_fleet_are_shown(tmp_path: Path) -> None:
    old = {**HOST, "host": "mx2<b>", "sidecar": "0.1.0", "held": 2, "helper": False}
    gone = {"host": "mx3", "heard_s": 7300.0, "silent": True}
    answer = {**STATUS, "fleet": {**FLEET, "hosts": [HOST, old, gone]}}
    with served(at_some_port(config(tmp_path)), {"status": lambda _: answer}) as page:
        text = seen(page, "/")
        for words in ("Fleet 2 of 3 hosts heard of; 42 held by all", "Versions 0.1.0, 0.2.0 side by side",
                      "mx1 1 s ago 0.2.0 act 0 s answers 3 40", "mx2<b> 1 s ago 0.1.0 act 0 s ✗ away 3 2",
                      "mx3 ! silent 2 h ago ? ? ? ? ? ?", "All of them hold 42 messages"):  # fmt: skip
            assert words in text
        answer["fleet"] = {**FLEET, "hosts": [HOST], "alone": True, "silent": "Connection refused"}
        assert "The fleet's store is silent: Connection refused" in until_said(page, "/", "store is silent")


def until_said(page: Served, path: str, words: str) -> str:
    """The page once it says so: it asks core at most once a second."""
    deadline = time.monotonic() + 60
    while words not in (text := seen(page, path)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return text


def test_open_pages_hear_of_changes(tmp_path: Path) -> None:
    world.filled(tmp_path)
    answer, looked = dict(STATUS), threading.Event()

    def status(_: dict[str, Any]) -> dict[str, Any]:
        said = dict(answer)
        looked.set()
        return said

    with served(at_some_port(config(tmp_path)), {"status": status}) as page:
        stream = Stream(page)
        assert stream.answer.getheader("content-type", "").startswith("text/event-stream")
        stream.wait_for(b"retry")
        assert looked.wait(60)  # what is there already is no news
        answer["held_total"] = 1
        stream.wait_for(b"event: changed")
        store = Store.open(tmp_path / "core.db")
        store.commit(Commit(changes=[Change(NOW, "k:v@p", "held", "paused", "", "", "", "engine", 1)]))
        store.close()
        stream.wait_for(b"event: changed")
        stream.close()


def test_only_so_many_may_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STREAMS_MAX", 2)
    with served(at_some_port(config(tmp_path))) as page:
        streams = [Stream(page) for _ in range(2)]
        for stream in streams:
            stream.wait_for(b"retry")
        assert got(page, "/live")[0] == 503
        assert got(page, "/")[0] == 200
        streams[0].close()
        deadline = time.monotonic() + 60
        while (again := Stream(page)).answer.status != 200:
            again.close()
            assert time.monotonic() < deadline
        for stream in (again, streams[1]):
            stream.close()


def test_every_view_has_a_row_here_and_a_template() -> None:
    assert {view.path for view in VIEWS} == SAYS.keys()
    templates = {path.name for path in (Path(app.__file__).parent / "templates").iterdir()}
    assert {view.template for view in VIEWS} | {"layout.html", "parts.html"} == templates
