"""Tests that need a browser: clicks on points, live updates, a phone, a deep link, and accessibility."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard.model import progress
from kdnas_core.runs.records import LayerLoss
from kdnas_core.runs.store import opened
from tests.browser.conftest import Server
from tests.filled_store import add_episode, begin_run, fill, judge, tinybert_spec

pytestmark = [pytest.mark.browser, pytest.mark.slow]

POINTS = ".st-key-frontier_1 .js-plotly-plot .points path.point"
# drawn by Streamlit alone: the slider's value has the colour of buttons, too dark for text on a dark page
NOT_OURS = {"exclude": [["[data-testid=stSlider]"]]}


def open_page(page: Page, server: Server, address: str) -> None:
    page.goto(f"{server.url}{address}")
    expect(page.locator("h1")).to_be_visible(timeout=15_000)
    # what loads after the script has ended moves the page, which closes an open list
    expect(page.locator("[data-test-script-state=notRunning]")).to_be_visible(timeout=15_000)
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0, timeout=15_000)


def click_middle(page: Page, point: Locator) -> None:
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    for _ in range(20):  # what is drawn above it moves it; a click would miss it
        page.wait_for_timeout(300)
        before, box = box, point.bounding_box()
        if box == before:
            break
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_a_new_point_arrives_without_a_reload(page: Page, server: Server) -> None:
    run = fill(server.db, episodes=1, state="running")
    open_page(page, server, f"/run?run={run}")
    expect(page.locator(POINTS).first).to_be_visible(timeout=15_000)
    page.evaluate("window.notReloaded = true")
    before = page.locator(POINTS).count()
    with opened(server.db) as store:
        for candidate in add_episode(
            store, run, 2, [Architecture(2, 96, 768, 6), Architecture(3, 96, 384, 3)]
        ):
            judge(store, run, candidate)
    expect(page.get_by_text("6 of 16 candidates judged")).to_be_visible(timeout=10_000)
    expect(page.locator(POINTS).nth(before + 1)).to_be_attached(timeout=10_000)
    assert page.evaluate("window.notReloaded")


def test_a_click_on_a_point_leads_to_its_candidate(page: Page, filled_server: Server) -> None:
    run = 1
    open_page(page, filled_server, f"/run?run={run}")
    # the frontier's trace is drawn after those below it, so its first point is on top
    click_middle(page, page.locator(f"{POINTS}[d*='L']").first)
    choice = page.locator(".st-key-choice")
    expect(choice).to_contain_text("Your choice: candidate", timeout=10_000)
    found = re.search(r"candidate (\d+)", choice.inner_text())
    assert found is not None
    choice.get_by_role("link").click()
    expect(page.get_by_role("heading", name=f"Candidate {found[1]}", exact=True)).to_be_visible()
    expect(page).to_have_url(re.compile(rf"candidate\?candidate={found[1]}$"))


def test_a_row_of_the_table_is_the_same_choice_as_a_click(page: Page, filled_server: Server) -> None:
    run = 1
    open_page(page, filled_server, f"/run?run={run}")
    table = page.locator(f".st-key-candidates_{run} canvas").first
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 17, box["y"] + 35 * 2 + 17)
    with opened(filled_server.db, read_only=True) as store:
        second = store.candidates(run)[1].id
    expect(page.locator(".st-key-choice")).to_contain_text(f"candidate {second}", timeout=10_000)


def test_the_budget_slider_picks_another_student_and_never_one_over_it(
    page: Page, filled_server: Server
) -> None:
    run = 1
    open_page(page, filled_server, f"/run?run={run}")
    best = page.locator(".st-key-best")
    expect(best).to_be_visible(timeout=10_000)
    first = best.inner_text()
    page.get_by_role("slider").focus()
    for _ in range(40):
        page.keyboard.press("ArrowLeft")
    expect(best).not_to_contain_text(first.splitlines()[0], timeout=10_000)
    expect(best).to_contain_text(re.compile(r"Pick within 7\.\d\d ms"), timeout=10_000)
    told = re.search(r"Pick within ([\d.]+) ms: candidate (\d+)", best.inner_text())
    assert told is not None
    with opened(filled_server.db, read_only=True) as store:
        candidates = store.candidates(run)
    expected = progress.best_within(candidates, progress.Limit(float(told[1])))
    assert expected is not None
    assert expected.id == int(told[2])
    assert expected.point[0] <= float(told[1])


@pytest.mark.parametrize(
    "address", ["/", "/new", "/run?run=1", "/candidate?candidate=4", "/compare?candidates=2,4"]
)
def test_a_phone_shows_every_page_without_scrolling_sideways(
    page: Page, filled_server: Server, address: str
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_page(page, filled_server, address)
    page.wait_for_timeout(1_500)  # charts take their width after the page has
    main = "document.querySelector('[data-testid=stMain]')"
    assert page.evaluate(f"{main}.scrollWidth <= {main}.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_deep_link_as_the_first_request_gets_the_whole_page(page: Page, server: Server) -> None:
    fill(server.db)
    open_page(page, server, "/candidate?candidate=2")
    expect(page.get_by_role("heading", name="Candidate 2", exact=True)).to_be_visible()
    expect(page).to_have_title(re.compile("KD-NAS Studio"))
    expect(page.get_by_role("link", name="New search")).to_be_visible()
    expect(page.get_by_role("link", name="entry")).to_have_count(0)


def test_home_is_drawn_quickly_and_asks_no_other_host(page: Page, server: Server) -> None:
    fill(server.db)
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2] if "//" in request.url else ""))
    started = time.monotonic()
    open_page(page, server, "/")
    expect(page.get_by_role("button", name="Open run 1")).to_be_visible(timeout=10_000)
    assert time.monotonic() - started < 6
    assert {host for host in hosts if host} == {server.url.removeprefix("http://")}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "address", ["/", "/new", "/run?run=1", "/candidate?candidate=4", "/compare?candidates=2,4"]
)
def test_no_page_breaks_the_rules_of_accessibility(
    page: Page, filled_server: Server, address: str, scheme: str
) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    open_page(page, filled_server, address)
    page.wait_for_timeout(1_500)
    assert not broken_rules(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_several_terms_and_terms_of_ones_own_fit_a_phone_and_break_no_rules(
    page: Page, server: Server, scheme: str
) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": 390, "height": 844})
    run = fill(server.db, episodes=1, spec=tinybert_spec())
    with opened(server.db, read_only=True) as store:
        noted = next(row for row in store.candidates(run) if row.notes)
    for address in (f"/candidate?candidate={noted.id}&tab=Layers", f"/run?run={run}", "/new?size=Custom"):
        open_page(page, server, address)
        if "/new" in address:
            page.get_by_role("combobox", name="Recipe").click()
            page.keyboard.type("Your own")
            page.keyboard.press("Enter")
            expect(page.get_by_text("Click the empty row")).to_be_visible(timeout=10_000)
        page.wait_for_timeout(1_500)
        assert not broken_rules(page)
        main = "document.querySelector('[data-testid=stMain]')"
        assert page.evaluate(f"{main}.scrollWidth <= {main}.clientWidth")


def test_the_term_that_was_chosen_stays_while_the_candidate_is_distilled(page: Page, server: Server) -> None:
    with opened(server.db) as store:
        [candidate] = add_episode(store, begin_run(store, tinybert_spec()), 1, [Architecture(2, 96, 384, 3)])
        store.update_candidate(candidate, state="distilling", steps=80)
        store.add_layer_losses(candidate, evaluation(0))
        open_page(page, server, f"/candidate?candidate={candidate}&tab=Layers")
        page.get_by_text("Predictions").last.click()
        expect(page.locator(".st-key-curves_prediction .point")).to_have_count(1, timeout=10_000)
        store.add_layer_losses(candidate, evaluation(20))
        expect(page.locator(".st-key-curves_prediction .point")).to_have_count(2, timeout=10_000)
    expect(page.get_by_role("radio", name="Predictions")).to_be_checked()


def evaluation(step: int) -> Sequence[LayerLoss]:
    return [LayerLoss(step, 1, 3, 0.9), LayerLoss(step, 2, 6, 0.9), LayerLoss(step, 3, 7, 8.0, "prediction")]


def broken_rules(page: Page) -> list[str]:
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in Axe().run(page, NOT_OURS).response["violations"]
        for node in violation["nodes"]
    ]


def test_deleting_a_run_asks_first(page: Page, server: Server) -> None:
    fill(server.db)
    open_page(page, server, "/")
    table = page.locator(".st-key-runs canvas").first
    box = table.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 17, box["y"] + 35 + 17)  # the first row; without one, nothing is deleted
    page.get_by_role("button", name="Delete run 1 …").click()
    with opened(server.db, read_only=True) as store:
        assert store.runs()
    expect(page.get_by_role("button", name="Delete for good")).to_be_disabled()
    page.get_by_role("textbox", name="Type 1 to confirm").fill("1")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text("No search has been started yet")).to_be_visible(timeout=10_000)
    with opened(server.db, read_only=True) as store:
        assert not store.runs()


def test_an_empty_store_leads_to_a_new_search(page: Page, server: Server) -> None:
    open_page(page, server, "/")
    expect(page.get_by_text("No search has been started yet")).to_be_visible()
    page.get_by_role("button", name="New search").click()
    expect(page.get_by_role("heading", name="New search")).to_be_visible(timeout=10_000)
    expect(page.get_by_text("122,718 architectures")).to_be_visible(timeout=10_000)
