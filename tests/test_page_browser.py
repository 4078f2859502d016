"""The status page in a real browser: pictures, no word on the console, no finding of axe-core, keyboard, live renewal.

With SCREENSHOTS=docs/screenshots the pictures are kept there, for the documents.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request, expect, sync_playwright

from sidecar.page.app import VIEWS, View
from tests import page_world as world
from tests.page_world import STATUS, Served, at_some_port, config, served

KEPT = Path(__file__).parents[1] / "docs/screenshots"
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
THEMES = ("light", "dark")
WIDE, PHONE = (1280, 860), (390, 844)
ADDRESSES = {
    "now": "/",
    "domains": "/domains",
    "addresses": "/addresses",
    "pools": "/pools",
    "feeds": "/feeds",
    "incidents": "/incidents",
    "search": "/search?q=%3C20270115.4711%40shop.example%3E",
    "audit": "/audit",
    "subqueue": "/subqueue/dkim-domain%3Ashop.example%40google",
    "domain": "/domain/shop.example",
    "address": "/address/192.0.2.7",
    "incident": "/incident/5",
}
"""Of each picture the page that it is of."""
PICTURES = [f"{name}-{theme}.png" for name in ADDRESSES for theme in THEMES] + [
    f"now-phone-{theme}.png" for theme in THEMES
]


@pytest.fixture(name="answer", scope="module")
def _answer() -> dict[str, Any]:
    """What core says to "status", to be changed."""
    return dict(STATUS)


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory, answer: dict[str, Any]) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("site")
    world.filled(directory)
    with served(at_some_port(config(directory)), {"status": lambda _: answer}) as page:
        yield page


@pytest.fixture(name="browser", scope="module")
def _browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "chromium is missing: `make venv` as root installs it"
    with sync_playwright() as playwright:
        # --no-sandbox: as root there is none; nothing but our own page is opened.
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--font-render-hinting=none"]
        )
        yield browser
        browser.close()


_PATIENCE_MS = 60_000
"""A machine with two busy processors takes its time."""
expect.set_options(timeout=_PATIENCE_MS)


class Visit:
    """One visitor; what the browser has to complain of is in `complaints`."""

    def __init__(self, browser: Browser, site: Served, *, theme: str = "light", size: tuple[int, int] = WIDE) -> None:
        self.complaints: list[str] = []
        self.site = site
        self.context: BrowserContext = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if theme == "dark" else "light"
        )
        self.context.set_default_timeout(_PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self.complaints.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", lambda request: self._asked(request.url))

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the browser's own doing, when a page is left
            self.complaints.append(f"failed: {request.url}: {request.failure}")

    def _asked(self, url: str) -> None:
        if not url.startswith(self.site.url):
            self.complaints.append(f"asked elsewhere: {url}")

    def see(self, path: str) -> None:
        self.page.goto(self.site.url + path)
        if not path.startswith("/search"):
            expect(self.page.locator("#live-state")).to_have_text("Live")

    def findings(self) -> list[str]:
        """What axe-core finds."""
        result = self.page.evaluate(f"{AXE}; axe.run()")
        assert result["passes"], "axe-core looked at nothing"
        return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in result["violations"]]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def keep(visit: Visit, name: str, directory: Path) -> None:
    picture = (Path(os.environ["SCREENSHOTS"]) if os.environ.get("SCREENSHOTS") else directory) / name
    picture.parent.mkdir(parents=True, exist_ok=True)
    visit.page.screenshot(path=picture, full_page=True, animations="disabled", caret="hide")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("theme", THEMES)
def test_each_view_is_clean_in_each_theme(browser: Browser, site: Served, theme: str, tmp_path: Path) -> None:
    with Visit(browser, site, theme=theme) as visit:
        for name, path in ADDRESSES.items():
            visit.see(path)
            keep(visit, f"{name}-{theme}.png", tmp_path)
            assert visit.findings() == [], name
        dark = visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 20, 27)"
        assert dark == (theme == "dark")
        assert visit.complaints == []


def test_each_view_fits_on_a_phone(browser: Browser, site: Served, tmp_path: Path) -> None:
    for theme in THEMES:
        with Visit(browser, site, theme=theme, size=PHONE) as visit:
            for name, path in ADDRESSES.items() if theme == "light" else [("now", "/")]:
                visit.see(path)
                assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
                if name == "now":
                    keep(visit, f"now-phone-{theme}.png", tmp_path)
                    assert visit.findings() == []
            assert visit.complaints == []


def test_an_open_page_renews_itself_and_keeps_what_the_reader_did(
    browser: Browser, site: Served, answer: dict[str, Any]
) -> None:
    with Visit(browser, site) as visit:
        visit.see("/")
        page = visit.page
        page.evaluate("document.body.dataset.same = 'yes'")
        page.locator("#line-1 summary").click()
        page.locator("#key-2").focus()
        answer["held_total"] = 12_345
        tile = page.locator(".tile", has_text="Held by us").locator(".value")
        expect(tile).to_have_text("12\u202f345")
        expect(page.locator("#line-1 code")).to_be_visible()
        expect(page.locator("#key-2")).to_be_focused()
        assert page.evaluate("document.body.dataset.same") == "yes"

        page.locator("#live-button").click()
        expect(page.locator("#live-state")).to_have_text("Paused")
        answer["held_total"] = 7
        assert STATUS["held_total"] != 7
        with page.expect_response(lambda response: response.url == f"{site.url}/"):
            expect(tile).to_have_text("12\u202f345")
            page.locator("#live-button").click()
        expect(tile).to_have_text("7")
        answer["held_total"] = STATUS["held_total"]
        assert visit.complaints == []


def test_times_go_on_by_the_clock_of_the_server(browser: Browser, site: Served) -> None:
    with Visit(browser, site) as visit:
        visit.see("/")
        expect(visit.page.locator("#subqueues tbody tr").first).to_contain_text("in 8 min")
        step = visit.page.locator("#subqueues tbody tr", has_text="comcast").locator("td[data-label='Next step']")
        expect(step).to_have_text("in 38 s")
        assert visit.complaints == []


def focused(page: Page) -> Locator:
    return page.locator(":focus")


def test_all_of_it_works_by_keyboard(browser: Browser, site: Served) -> None:
    with Visit(browser, site) as visit:
        visit.see("/")
        page = visit.page
        page.keyboard.press("Tab")
        expect(focused(page)).to_have_text("Skip to content")
        expect(focused(page)).to_be_in_viewport()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        for _ in range(40):
            page.keyboard.press("Tab")
            if focused(page).get_attribute("id") == "subqueues-sort-2":
                break
        page.keyboard.press("Enter")
        expect(page.locator("th[aria-sort='ascending']")).to_contain_text("Sub-queue")
        page.locator("#find").press_sequentially("4hXr5T1xZkz9qKd")
        page.keyboard.press("Enter")
        expect(page.locator("h2")).to_contain_text("4hXr5T1xZkz9qKd")
        assert visit.complaints == []


def test_a_theme_that_was_chosen_stays(browser: Browser, site: Served) -> None:
    with Visit(browser, site, theme="light") as visit:
        visit.see("/audit?kind=opened")
        visit.page.get_by_role("button", name="Dark").click()
        expect(visit.page.locator("html")).to_have_attribute("data-theme", "dark")
        assert visit.page.url == f"{site.url}/audit?kind=opened"
        visit.see("/feeds")
        assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 20, 27)"
        expect(visit.page.get_by_role("button", name="Dark")).to_have_attribute("aria-current", "true")
        assert visit.complaints == []


def test_without_a_script_it_is_all_there(browser: Browser, site: Served) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.url)
    expect(page.locator("#subqueues tbody tr").first).to_contain_text("in 8 min")
    page.locator("#line-1 summary").click()
    expect(page.locator("#line-1 code")).to_be_visible()
    expect(page.locator("#live-button")).to_be_hidden()
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    context.close()


def test_every_view_has_its_pictures_in_the_documents() -> None:
    assert sorted(path.name for path in KEPT.glob("*.png")) == sorted(PICTURES)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.path)
def test_every_view_is_looked_at_here(view: View) -> None:
    fixed = view.path.partition("{")[0]
    assert [
        path
        for path in ADDRESSES.values()
        if path.partition("?")[0] == fixed or ("{" in view.path and path.startswith(fixed))
    ]
