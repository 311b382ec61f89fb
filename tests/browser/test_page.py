"""The page of a leaderboard, used as people use it: by mouse, by keyboard, on a phone, in the dark, without script."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.audit import kinds
from harness.results.history import Entry, entry
from harness.results.record import Result
from tests.browser.conftest import Open
from tests.results.records import make_result

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

FLAG = kinds.GRADIENT_MASKING(step="square", broken=3)


def results() -> list[Result]:
    return [
        make_result("at_full", robust=80, regime="at-full", parent=None),
        make_result("at_full", robust=82, suite="pgd", regime="at-full", parent=None),
        make_result("bn_ft", robust=40, parent="natural", flags=(FLAG,)),
        make_result("natural", robust=3, regime="natural", parent=None, architecture="resnet20"),
        make_result("natural", robust=9, suite="pgd", regime="natural", parent=None, architecture="resnet20"),
        make_result("bn_head_ft", robust=42, clean=99, regime="bn-head-ft"),
    ]


def history() -> list[Entry]:
    """One result verified, another retracted."""
    verified, retracted = results()[2], results()[3]
    return [
        entry("verified", Path("a.json"), verified, by="a colleague"),
        entry("retracted", Path("b.json"), retracted, by="its author", reason="trained on the test images"),
    ]


def names(page: Page) -> list[str]:
    return list(page.locator("#board tbody th button:visible").all_inner_texts())


def wait_for_count(page: Page, start: str) -> None:
    """Wait until the line over the table begins so; the page filters in its next frame."""
    page.locator("#count", has_text=re.compile(f"^{start}")).wait_for()


def sort_by(page: Page, title: str) -> None:
    page.locator("#board thead button", has_text=title).click()


def test_sorting_by_mouse(opened: Open) -> None:
    page = opened(*results())
    assert names(page) == ["at_full", "bn_head_ft", "bn_ft", "natural"]
    sort_by(page, "Clean")
    assert names(page)[0] == "bn_head_ft"
    assert page.locator("th[aria-sort]").inner_text().startswith("Clean")
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    sort_by(page, "Clean")
    assert names(page)[-1] == "bn_head_ft"
    sort_by(page, "Checkpoint")
    assert names(page) == ["at_full", "bn_ft", "bn_head_ft", "natural"]


def test_what_is_missing_comes_last_in_both_directions(opened: Open) -> None:
    page = opened(*results())
    sort_by(page, "PGD")
    assert names(page) == ["at_full", "natural", "bn_head_ft", "bn_ft"]
    sort_by(page, "PGD")
    assert names(page) == ["natural", "at_full", "bn_head_ft", "bn_ft"]


def test_all_by_keyboard(opened: Open) -> None:
    page = opened(*results())
    seen: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.name || document.activeElement.innerText"))
        if seen[-1] == "Clean":
            page.keyboard.press("Enter")
        if seen[-1] == "bn_ft":
            break
    assert {"How to read this page", "search", "regime", "parent", "flag", "Reset", "Rank", "Clean"} <= set(seen)
    assert names(page)[0] == "bn_head_ft"
    page.keyboard.press("Enter")
    button = page.locator("th button", has_text="bn_ft")
    assert button.get_attribute("aria-expanded") == "true"
    assert page.locator(f"#{button.get_attribute('aria-controls')}").is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.evidence') !== null")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert button.get_attribute("aria-expanded") == "false"
    assert page.locator(".evidence").count() == 0
    page.locator("input[name=search]").focus()
    page.keyboard.type("natural resnet20")
    wait_for_count(page, "1 of 4")
    assert names(page) == ["natural"]


def test_filters(opened: Open) -> None:
    page = opened(*results())
    count = page.locator("#count")
    page.locator("select[name=flag]").select_option(label=f"{FLAG.code} (1)")
    wait_for_count(page, "1 of")
    assert names(page) == ["bn_ft"]
    page.locator("button[type=reset]").click()
    wait_for_count(page, "4 models")
    page.locator("select[name=parent]").select_option(label="natural (2)")
    page.locator("select[name=regime]").select_option(label="bn-head-ft (1)")
    wait_for_count(page, "1 of")
    assert names(page) == ["bn_head_ft"]
    assert page.locator("svg.plot circle.unlisted").count() == 3
    page.locator("button[type=reset]").click()
    page.locator("input[name=search]").fill(results()[0].model.sha256[:12].upper())
    wait_for_count(page, "1 of")
    assert names(page) == ["at_full"]
    page.locator("input[name=search]").fill("nothing of that name")
    wait_for_count(page, "0 of")
    assert (names(page), count.inner_text()) == ([], "0 of 4 models")


def test_a_row_opens_to_its_evidence(opened: Open) -> None:
    page = opened(*results())
    page.locator("th button", has_text="bn_ft").click()
    shown = page.locator(".evidence").inner_text()
    result = results()[2]
    for wanted in (
        result.model.sha256,
        result.evaluation_id,
        result.dataset.sha256,
        str(FLAG),
        FLAG.code,
        "pgd steps=100",
        "9,800",
        "harness evaluate --checkpoint bn_ft --suite autoattack --dataset digits --norm Linf --eps 0.15 --force",
        "@misc{harness-",
        r"title = {{bn\_ft}: robust accuracy 40.0\% on 100 digits test images, AutoAttack, Linf 0.15}",
    ):
        assert wanted in shown
    sort_by(page, "Checkpoint")
    after = page.locator("#board tbody tr").nth(2)
    assert after.get_attribute("class") == "evidence"
    page.locator("th button", has_text="bn_ft").click()
    assert page.locator(".evidence").count() == 0


def test_a_link_opens_its_row(opened: Open) -> None:
    fragment = f"#row-{results()[2].record_id[:16]}"
    page = opened(*results(), fragment=fragment)
    page.locator(".evidence").wait_for()
    page.locator("th button:focus", has_text="bn_ft").wait_for()


def test_plots(opened: Open) -> None:
    page = opened(*results())
    titles = page.locator("figcaption").all_inner_texts()
    assert titles == ["Clean and robust accuracy (AutoAttack)", "Survivors, step by step"]
    assert page.locator("svg.plot circle").count() == 4
    assert page.locator("svg.plot .arrows path").count() == 2
    assert page.locator("svg.plot .courses path").count() == 4
    page.locator("svg.plot circle").nth(2).hover()
    assert "bn_ft: AutoAttack 40.0 %" in page.locator(".readout").first.inner_text()
    page.locator("svg.plot circle").nth(2).click()
    page.wait_for_selector(".evidence")
    assert page.evaluate("document.activeElement.innerText") == "bn_ft"


def test_a_curve_where_there_are_several_radii(opened: Open) -> None:
    page = opened(make_result("a", robust=40), make_result("a", robust=70, threat="Linf:0.3", data="d" * 64))
    assert page.locator("figcaption").all_inner_texts()[-1] == "Robust accuracy against eps"
    ticks = page.locator("figure").last.locator("text").all_inner_texts()
    assert {"0", "0.15", "0.3"} <= set(page.locator("figure").last.locator("text").all_text_contents()) | set(ticks)


def test_many_rows_are_shown_bit_by_bit(opened: Open) -> None:
    page = opened(*(make_result(f"m{i:03}", robust=i % 90) for i in range(230)))
    assert len(names(page)) == 50
    assert page.locator("#count").inner_text() == "230 models, 50 shown"
    page.locator("#more button").first.click()
    assert len(names(page)) == 100
    page.locator("#more button").last.click()
    assert len(names(page)) == 230
    assert page.locator("#more").is_hidden()


def test_without_script_the_table_is_there(opened: Open) -> None:
    page = opened(*(make_result(f"m{i:03}", robust=i % 90) for i in range(130)), scripted=False)
    assert page.locator("#board tbody tr:visible").count() == 130
    assert page.locator("#choose").is_hidden()
    assert page.locator("svg.plot circle").count() == 130


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_cut_off(opened: Open, width: int) -> None:
    page = opened(*results(), viewport={"width": width, "height": 844})
    page.locator("th button", has_text="bn_ft").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('.scroll').scrollWidth") <= width


def test_what_was_taken_back_and_who_verified_what(opened: Open) -> None:
    page = opened(*results(), history=history())
    assert "natural" in names(page)  # its other result is left
    assert "retracted by its author: trained on the test images" in page.locator("#history").inner_text()
    page.locator("th button", has_text="bn_ft").click()
    assert "by a colleague" in page.locator("tr.evidence").inner_text()
    page.locator("th button", has_text="bn_head_ft").click()
    assert "by nobody on record" in page.locator("tr.evidence").first.inner_text()


def test_a_curve_in_plot_and_evidence(opened: Open) -> None:
    radii = [make_result("bn_ft", robust=90 - i, threat=f"Linf:{eps}") for i, eps in enumerate(("0.01", "0.02"))]
    page = opened(*radii)
    assert page.locator("figcaption", has_text="Robust accuracy against eps").count() == 1
    page.locator("th button", has_text="bn_ft").click()
    assert "90.0 % at 0.01, 89.0 % at 0.02" in page.locator("tr.evidence").inner_text()


def test_a_board_without_rows(opened: Open) -> None:
    taken_back = results()[2]
    page = opened(taken_back, history=[entry("retracted", Path("a.json"), taken_back, reason="wrong")])
    assert page.locator("#count").inner_text() == "0 models"
    assert "wrong" in page.locator("#history").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(opened: Open, scheme: Any, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra browser is not installed")
    page = opened(*results(), history=history(), viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.locator("summary").click()
    page.locator("th button", has_text="bn_ft").click()
    found = axe.Axe().run(page).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
