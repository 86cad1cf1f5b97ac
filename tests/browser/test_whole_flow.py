"""The whole flow in a real browser: form, live run, candidate, budget, export, and stock transformers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Server, start_server, stop_server
from tests.tiny_runs import share_graphs

A_WHILE = 120_000  # ms: a tiny search on two busy cores
LONGER = 400_000  # an export with its checks, with the packaged task


@pytest.fixture
def empty_server(tmp_path: Path, harvested: Path) -> Iterator[Server]:
    shutil.copytree(harvested, tmp_path / "cache")
    share_graphs(tmp_path / "cache")
    server = start_server(tmp_path)
    yield server
    stop_server(server)


@pytest.mark.browser
def test_a_search_goes_from_the_form_to_a_student_that_stock_transformers_loads(
    page: Page, empty_server: Server, tiny_teacher: Path, corpus_file: Path, tmp_path: Path
) -> None:
    page.set_viewport_size({"width": 1280, "height": 1000})
    fill_in_the_form(page, empty_server, tiny_teacher, corpus_file)
    page.get_by_role("button", name="Start search").click()

    # a point arrives without a reload
    expect(page).to_have_url(re.compile(r"/run\?run=1"), timeout=A_WHILE)
    page.evaluate("window.neverReloaded = true")
    expect(page.locator(".js-plotly-plot .points path.point").first).to_be_visible(timeout=A_WHILE)
    assert page.evaluate("window.neverReloaded") is True
    expect(page.get_by_text("finished", exact=True).first).to_be_visible(timeout=A_WHILE)
    assert page.evaluate("window.neverReloaded") is True

    # the budget moves, and the pick is never over it
    budget, picked = best_within(page)
    assert picked <= budget
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowLeft")
    best = page.locator(".st-key-best")
    expect(best).not_to_contain_text(f"{budget:.2f} ms: candidate", timeout=A_WHILE)
    lower, picked = best_within(page)
    assert picked <= lower < budget

    # click a point, read its layers
    page.locator(".js-plotly-plot").first.scroll_into_view_if_needed()
    page.locator(".js-plotly-plot").first.locator(".points path.point").last.click(force=True)
    page.locator(".st-key-choice").get_by_role("link", name="Open").click()
    expect(page.get_by_role("heading", name=re.compile(r"Candidate \d+"))).to_be_visible()
    page.get_by_role("tab", name="Layers").click()
    expect(page.get_by_text("Layer mapping, student ← teacher")).to_be_visible()
    expect(page.locator(".js-plotly-plot:visible").first).to_be_visible()

    # export, and load the export with stock libraries; ONNX files have their own tests
    page.get_by_role("tab", name="Export").click()
    page.get_by_text("with ONNX files").click()
    page.get_by_role("button", name="Export", exact=True).click()
    expect(page.get_by_text("sha256 of model.safetensors")).to_be_visible(timeout=LONGER)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as zip").click()
    download.value.save_as(tmp_path / "student.zip")
    with zipfile.ZipFile(tmp_path / "student.zip") as archive:
        archive.extractall(tmp_path / "student")
    (folder,) = {path.parent for path in (tmp_path / "student").rglob("config.json")}
    assert loads_with_stock_transformers(folder)


def fill_in_the_form(page: Page, server: Server, teacher: Path, corpus: Path) -> None:
    page.goto(f"{server.url}/new?size=Custom")
    for label, value in (("Teacher", str(teacher)), ("Corpus", str(corpus))):
        page.get_by_role("combobox", name=label, exact=True).fill(value)
        page.keyboard.press("Enter")
        page.wait_for_timeout(700)
    page.get_by_role("combobox", name="Budgets").click()
    page.keyboard.press("Backspace")  # takes the usual one away
    page.wait_for_timeout(700)
    page.get_by_role("combobox", name="Budgets").fill("0.5")
    page.keyboard.press("Enter")
    page.wait_for_timeout(700)
    page.get_by_text("Proxy set, mini-KD and seed").click()
    for label, value in (
        ("Episodes", "2"),
        ("Candidates an episode", "2"),
        ("Proxy set (sentences)", "200"),
        ("Steps of mini-KD", "10"),
    ):
        page.get_by_label(label, exact=True).fill(value)
        page.get_by_label(label, exact=True).press("Enter")
        page.wait_for_timeout(700)


def best_within(page: Page) -> tuple[float, float]:
    """(budget, latency of the student picked within it), both in ms, as the page says."""
    text = page.locator(".st-key-best").inner_text()
    found = re.search(r"Pick within ([\d.]+) ms.*?([\d.]+) ms p50", text, re.S)
    assert found is not None, text
    return float(found[1]), float(found[2])


def loads_with_stock_transformers(folder: Path) -> bool:
    program = (
        "import sys; from transformers import AutoConfig, AutoModel, AutoTokenizer; f = sys.argv[1]; "
        "AutoConfig.from_pretrained(f); m = AutoModel.from_pretrained(f); "
        "t = AutoTokenizer.from_pretrained(f)(['one sentence'], return_tensors='pt'); "
        "assert m(**t).last_hidden_state.isfinite().all()"
    )
    return subprocess.run([sys.executable, "-I", "-c", program, str(folder)], check=False).returncode == 0
