"""Students and systems in a browser: from candidate to student to the table of systems, on any screen."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from kdnas_core.runs.jobs import Job
from kdnas_core.runs.store import opened
from tests.browser.conftest import Server, start_server, stop_server
from tests.browser.test_pages_in_chromium import broken_rules, open_page
from tests.filled_store import fill
from tests.filled_systems import fill_systems

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGES = [
    "/student?student=1&tab=Layers",
    "/student?student=1&tab=Distil",
    "/student?student=2",
    "/student?student=3&tab=Scores",
    "/candidate?candidate=1&tab=Latency",
    "/candidate?candidate=1&tab=Export",
    "/leaderboard",
]


@pytest.fixture(scope="module")
def students_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for the tests that change nothing; its store has students and scorings in all states."""
    folder = tmp_path_factory.mktemp("students")
    fill(folder / "runs.db", students=True)
    started = start_server(folder)
    yield started
    stop_server(started)


def test_a_walk_from_a_candidate_to_its_student_and_to_the_systems(page: Page, server: Server) -> None:
    ids = fill_systems(server.db)
    open_page(page, server, f"/candidate?candidate={ids['candidate']}")
    page.get_by_role("tab", name="Scores").click()
    expect(page.get_by_text("Average over tasks:")).to_be_visible(timeout=15_000)
    page.get_by_role("tab", name="Distil").click()
    page.get_by_role("link", name=f"Student s{ids['full']}").click()
    expect(page.get_by_role("heading", name=f"Student s{ids['full']}", exact=True)).to_be_visible()
    expect(page.get_by_role("heading", name="Make it task-specific")).to_be_visible()
    page.goto(f"{server.url}/systems")  # its address before
    expect(page).to_have_url(re.compile("/leaderboard"), timeout=10_000)
    page.get_by_role("link", name="Leaderboard").first.click()
    expect(page.get_by_role("heading", name="Leaderboard", exact=True)).to_be_visible()
    expect(page.get_by_text("Average over packaged, sst2")).to_be_visible(timeout=10_000)
    expect(page.locator(".st-key-systems_figure .js-plotly-plot .points path.point").first).to_be_visible()
    page.get_by_role("button", name=f"Open student s{ids['tinybert6']}").click()
    expect(page.get_by_role("heading", name=f"Student s{ids['tinybert6']}", exact=True)).to_be_visible()
    expect(page).to_have_url(re.compile(rf"student\?student={ids['tinybert6']}(&|$)"))


@pytest.mark.parametrize("address", PAGES)
def test_a_phone_shows_students_and_systems_without_scrolling_sideways(
    page: Page, students_server: Server, address: str
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_page(page, students_server, address)
    page.wait_for_timeout(1_500)  # charts take their width after the page has
    main = "document.querySelector('[data-testid=stMain]')"
    assert page.evaluate(f"{main}.scrollWidth <= {main}.clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", PAGES)
def test_students_and_systems_break_no_rules_of_accessibility(
    page: Page, students_server: Server, address: str, scheme: str
) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    open_page(page, students_server, address)
    page.wait_for_timeout(1_500)
    assert not broken_rules(page)


def test_a_student_goes_on_before_ones_eyes_and_can_be_scored_once_it_is_finished(
    page: Page, server: Server
) -> None:
    fill(server.db, students=True)
    open_page(page, server, "/student?student=3&tab=Scores")
    expect(page.get_by_text("Step 1,500 of 6,000")).to_be_visible(timeout=10_000)
    page.evaluate("window.notReloaded = true")
    with opened(server.db) as store:
        store.update_student(3, step=3_000)
        expect(page.get_by_text("Step 3,000 of 6,000")).to_be_visible(timeout=10_000)
        store.update_student(3, loss=0.3)
        store.end(Job("students", 3), "finished")
    expect(page.get_by_role("button", name="Score", exact=True)).to_be_visible(timeout=10_000)
    assert page.evaluate("window.notReloaded")


def test_the_question_before_deleting_stays_while_the_page_is_drawn_anew(page: Page, server: Server) -> None:
    fill(server.db, students=True)
    with opened(server.db) as store:
        store.resume(Job("students", 5))
    open_page(page, server, "/student?student=5")
    page.get_by_role("button", name="Delete student s5 …").click()
    page.wait_for_timeout(5_000)  # two of its refreshes
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("heading", name="Candidate 2", exact=True)).to_be_visible(timeout=10_000)
    with opened(server.db, read_only=True) as store:
        assert 5 not in [student.id for student in store.students()]
