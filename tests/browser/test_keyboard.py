"""The whole way by the keyboard alone: from the list of searches to a student's configuration."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Server
from tests.browser.test_pages_in_chromium import open_page
from tests.browser.test_run_page_in_chromium import settled
from tests.filled_store import fill

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FOCUSED = """() => {
    let element = document.activeElement;
    const named = (each) => each.getAttribute('aria-label') || each.innerText || each.value || '';
    return `${element.getAttribute('role') || element.tagName.toLowerCase()}: ${named(element).trim()}`;
}"""
MOST_STEPS = 150


def step_to(page: Page, wanted: str) -> str:
    """Presses Tab until what has the focus matches, and returns its role and name."""
    seen = []
    for _ in range(MOST_STEPS):
        page.keyboard.press("Tab")
        focused: str = page.evaluate(FOCUSED)
        seen.append(focused)
        if re.search(wanted, focused, re.DOTALL):
            return focused
    raise AssertionError(f"nothing like {wanted} came into focus, but {seen}")


def test_from_the_searches_to_a_configuration_without_a_mouse(page: Page, server: Server) -> None:
    fill(server.db)
    open_page(page, server, "/")
    step_to(page, "button: .*Open run 1")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Run 1 · quick")).to_be_visible(timeout=15_000)
    settled(page)

    step_to(page, "input: Latency budget")
    page.keyboard.press("Control+A")
    page.keyboard.type("3x")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("budget=3x"), timeout=10_000)
    settled(page)
    expect(page.locator(".st-key-best")).to_contain_text("Pick within")

    step_to(page, "^a: .*Open$")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=re.compile(r"^Candidate \d+$"))).to_be_visible(timeout=15_000)
    settled(page)
    step_to(page, "tab: Overview")
    for name in ("Layers", "Latency", "Distil", "Scores", "Export"):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        settled(page)
    with page.expect_download() as download:
        step_to(page, "button: .*Download config.json")
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith("-config.json")


def test_a_search_is_chosen_and_started_without_a_mouse(page: Page, server: Server) -> None:
    open_page(page, server, "/new")
    step_to(page, "^input: ")  # the sizes
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("40 steps of mini-KD each")).to_be_visible(timeout=10_000)
    settled(page)
    step_to(page, "input: Name")
    page.keyboard.press("Control+A")
    page.keyboard.type("by keys")
    page.keyboard.press("Tab")
    settled(page)
    step_to(page, "button: .*Start search")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Run 1 · by keys")).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("stopped", exact=True).first).to_be_visible(timeout=60_000)
