"""What a user has set on the page of a run stays: zoom, choice and budget, through whatever happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from kdnas_core.runs.store import opened
from kdnas_core.search.space import SearchSpace
from tests.browser.conftest import Server
from tests.browser.test_pages_in_chromium import POINTS, click_middle, open_page
from tests.filled_store import TEACHER, add_episode, fill, judge

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHART = ".st-key-frontier_1 .js-plotly-plot"
UPDATES = 20


def shown_range(page: Page) -> list[float]:
    axes = f"document.querySelector('{CHART}').layout"
    found: list[float] = page.evaluate(f"[...{axes}.xaxis.range, ...{axes}.yaxis.range]")
    return [round(value, 3) for value in found]


def settled(page: Page) -> None:
    page.wait_for_timeout(700)
    expect(page.locator("[data-test-script-state=notRunning]")).to_be_visible(timeout=15_000)


def zoom(page: Page) -> None:
    area = page.locator(f"{CHART} .nsewdrag").bounding_box()
    assert area is not None
    x, y, width, height = area["x"], area["y"], area["width"], area["height"]
    page.mouse.move(x + 0.1 * width, y + 0.1 * height)
    page.mouse.down()
    page.mouse.move(x + 0.4 * width, y + 0.5 * height, steps=5)
    page.mouse.move(x + 0.8 * width, y + 0.9 * height, steps=5)
    page.mouse.up()
    expect(page).to_have_url(re.compile("zoom="), timeout=10_000)
    settled(page)


def test_zoom_choice_and_budget_stay_through_updates_a_click_a_slide_a_reload_and_the_way_back(
    page: Page, server: Server
) -> None:
    run = fill(server.db, episodes=1, state="running")
    open_page(page, server, f"/run?run={run}")
    expect(page.locator(POINTS).first).to_be_attached(timeout=15_000)
    whole = shown_range(page)
    zoom(page)
    kept = shown_range(page)
    assert kept != whole
    with opened(server.db) as store:
        space = SearchSpace.from_spec(store.run(run).spec.space, TEACHER)
        known = {row.architecture.key for row in store.candidates(run)}
        new = [shape for shape in space if shape.key not in known][:UPDATES]
        assert len(new) == UPDATES
        for number, shape in enumerate(new):
            [candidate] = add_episode(store, run, 2 + number, [shape])
            judge(store, run, candidate)
            expect(page.get_by_text(f"{5 + number} of 16 candidates judged")).to_be_visible(timeout=15_000)
            assert shown_range(page) == kept
    page.get_by_text("Live", exact=True).click()  # the rest is about what the user does
    settled(page)
    area = page.locator(f"{CHART} .nsewdrag").bounding_box()
    assert area is not None
    boxes = [(point, point.bounding_box()) for point in page.locator(POINTS).all()]
    inside = next(
        point
        for point, box in reversed(boxes)
        if box and box["width"] > 5 and area["x"] + 10 < box["x"] < area["x"] + area["width"] - 20
        and area["y"] + 10 < box["y"] < area["y"] + area["height"] - 20
    )  # fmt: skip
    click_middle(page, inside)
    expect(page.locator(".st-key-choice")).to_contain_text("Your choice: candidate", timeout=10_000)
    assert shown_range(page) == kept
    page.get_by_role("slider").focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile(r"budget=\d"), timeout=10_000)
    settled(page)
    assert shown_range(page) == kept
    typed = page.get_by_role("textbox", name="Latency budget")
    typed.fill("2.5x")
    typed.press("Enter")
    expect(page).to_have_url(re.compile("budget=2.5x"), timeout=10_000)
    settled(page)
    choice = page.locator(".st-key-choice").inner_text().splitlines()[0]
    best = page.locator(".st-key-best").inner_text().splitlines()[0]
    page.reload()
    expect(page.locator(POINTS).first).to_be_attached(timeout=15_000)
    settled(page)
    assert shown_range(page) == pytest.approx(kept, rel=1e-3)  # the address has fewer digits
    expect(page.locator(".st-key-choice")).to_contain_text(choice)
    expect(page.locator(".st-key-best")).to_contain_text(best)
    expect(typed).to_have_value("2.5x")
    page.mouse.dblclick(area["x"] + 0.5 * area["width"], area["y"] + 0.03 * area["height"])
    expect(page).not_to_have_url(re.compile("zoom="), timeout=10_000)
    settled(page)
    assert shown_range(page) != pytest.approx(kept, rel=1e-3)
    page.go_back()
    expect(page).to_have_url(re.compile("zoom="), timeout=10_000)
    settled(page)
    assert shown_range(page) == pytest.approx(kept, rel=1e-3)


def test_a_box_shows_its_candidates_in_the_table(page: Page, filled_server: Server) -> None:
    open_page(page, filled_server, "/run?run=1")
    expect(page.locator(POINTS).first).to_be_attached(timeout=15_000)
    page.locator(CHART).hover()
    page.locator(f"{CHART} [data-title='Box Select']").click()
    area = page.locator(f"{CHART} .nsewdrag").bounding_box()
    assert area is not None
    page.mouse.move(area["x"] + 2, area["y"] + 2)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] - 2, steps=8)
    page.mouse.up()
    expect(page.get_by_text(re.compile(r"^\d+ in the box$"))).to_be_visible(timeout=10_000)
    page.get_by_role("button", name="Show all").click()
    expect(page.get_by_text(re.compile(r"^\d+ in the box$"))).to_have_count(0, timeout=10_000)


def test_chart_and_answer_are_in_one_view_on_a_small_screen(page: Page, filled_server: Server) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    open_page(page, filled_server, "/run?run=1")
    for place in (CHART, ".st-key-best"):
        box = page.locator(place).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 900


def test_a_row_of_the_layer_strip_is_a_choice(page: Page, filled_server: Server) -> None:
    open_page(page, filled_server, "/run?run=1")
    cell = page.locator(".st-key-strip_1 .js-plotly-plot .point path").first
    expect(cell).to_be_attached(timeout=15_000)
    click_middle(page, cell)
    expect(page.locator(".st-key-choice")).to_contain_text("Your choice: candidate", timeout=10_000)


def test_a_budget_of_one_run_is_not_that_of_the_next(page: Page, server: Server) -> None:
    fill(server.db)
    fill(server.db, episodes=1)
    open_page(page, server, "/run?run=1")
    typed = page.get_by_role("textbox", name="Latency budget")
    own = typed.input_value()
    typed.fill("5x")
    typed.press("Enter")
    expect(page).to_have_url(re.compile("budget=5x"), timeout=10_000)
    page.get_by_role("link", name="Searches").click()
    page.get_by_role("button", name="Open run 2").click()
    expect(page.get_by_role("heading", name="Run 2 · quick")).to_be_visible(timeout=15_000)
    expect(typed).to_have_value(own, timeout=10_000)
    expect(page).not_to_have_url(re.compile("budget=5x"))


def test_another_axis_shows_all_of_it_again(page: Page, filled_server: Server) -> None:
    open_page(page, filled_server, "/run?run=1")
    expect(page.locator(POINTS).first).to_be_attached(timeout=15_000)
    zoom(page)
    page.get_by_role("button", name="Axes and points").click()
    page.get_by_text("Logarithmic").click()
    expect(page).not_to_have_url(re.compile("zoom="), timeout=10_000)
    settled(page)
    low, high = shown_range(page)[:2]
    assert -1 < low < high < 2  # powers of ten of milliseconds


def test_a_figure_is_downloaded_as_a_page_that_needs_no_server(
    page: Page, filled_server: Server, tmp_path: Path
) -> None:
    open_page(page, filled_server, "/run?run=1")
    expect(page.locator(POINTS).first).to_be_attached(timeout=15_000)
    page.locator(CHART).hover()
    with page.expect_download() as download:
        page.locator(f"{CHART} [data-title='Download plot as an HTML page']").click()
    saved = tmp_path / "frontier.html"
    download.value.save_as(saved)
    page.context.set_offline(True)
    page.goto(saved.as_uri())
    expect(page.locator("#figure .point").first).to_be_attached(timeout=15_000)
    expect(page.get_by_text("students on the Pareto frontier")).to_be_visible()


def test_the_table_is_downloaded_as_csv(page: Page, filled_server: Server, tmp_path: Path) -> None:
    open_page(page, filled_server, "/run?run=1")
    with page.expect_download(timeout=20_000) as download:
        page.get_by_role("button", name="CSV", exact=True).click()
    download.value.save_as(tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text().startswith("Candidate,Episode,State")
