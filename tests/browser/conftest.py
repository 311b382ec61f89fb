"""A page in a real browser: whatever a test does with it, nothing goes wrong unseen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.results import formats, leaderboard
from harness.results.history import Entry
from harness.results.record import Result
from tests.browser.chromium import executable, launched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Open = Callable[..., "Page"]

# what the page itself cannot hide: violations of its policy, and code that ran although it came as text
_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
window.hits = [];
window.hit = (what) => hits.push(what ?? "hit");
"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra browser is not installed")
    if executable() is None:
        pytest.skip("no Chromium is installed: put one on the path, or name it with CHROMIUM")
    with playwright.sync_playwright() as driver, launched(driver) as started:
        yield started


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens the page of some results; at the end of the test nothing was asked for, logged, violated or run."""
    wrong: list[str] = []
    pages: list[tuple[Page, bool]] = []

    def open_page(
        *results: Result, history: Sequence[Entry] = (), scripted: bool = True, fragment: str = "", **context: Any
    ) -> Page:
        boards = leaderboard.boards(results, history=history)
        path = tmp_path / "board.html"
        path.write_text(formats.get("html").render(boards[0]), encoding="utf-8")
        page = browser.new_context(java_script_enabled=scripted, **context).new_page()
        page.set_default_timeout(5_000)
        page.add_init_script(_WATCH)
        page.on("console", lambda message: wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (wrong.append("a dialog"), dialog.dismiss()))
        page.on("popup", lambda _: wrong.append("a window"))
        page.on("request", lambda request: None if request.url.startswith(path.as_uri()) else wrong.append(request.url))
        page.goto(path.as_uri() + fragment)
        pages.append((page, scripted))
        return page

    yield open_page
    for page, scripted in pages:
        if scripted:
            assert page.evaluate("[violations, hits]") == [[], []]
        page.context.close()
    assert wrong == []
