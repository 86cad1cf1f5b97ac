"""Each page as Streamlit runs it, without a browser."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pandas
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from kdnas_core import files, hardware
from kdnas_core.architecture import Architecture
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import requests
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.new_search import latency_form, objective_form, spec_form
from kdnas_core.dashboard.run import model_section, went_section
from kdnas_core.dashboard.ui import places, tables
from kdnas_core.hardware import device_name
from kdnas_core.latency import protocol as latency_protocol
from kdnas_core.runs.records import Candidate, LayerLoss, Run
from kdnas_core.runs.store import files_of, opened
from kdnas_core.search.space import SearchSpace
from kdnas_core.search.stopping import Outlook
from kdnas_core.spec import (
    KDNAS_SPACE,
    LatencySpec,
    ObjectiveSpec,
    ProxySpec,
    Recipe,
    RunSpec,
    TermSpec,
    parse_spec,
    quick_spec,
)
from tests.dashboard.test_frontier_figure import candidate
from tests.filled_store import (
    TEACHER,
    add_episode,
    begin_run,
    fill,
    judge,
    latency_of,
    reading,
    tinybert_spec,
)
from tests.runs.test_proxies import add_scored
from tests.served import Served, served

__all__ = ["served"]  # the fixture

ROOT = Path(__file__).resolve().parents[1]
ENTRY = ROOT / "kdnas_core" / "dashboard" / "entry.py"
PAGES = (
    places.HOME,
    places.NEW_SEARCH,
    places.RUN,
    places.CANDIDATE,
    places.STUDENT,
    places.LEADERBOARD,
)

HEAVY = ("torch", "transformers", "onnxruntime", "datasets", "optuna")


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KDNAS_DB", str(tmp_path / "runs.db"))
    monkeypatch.setenv("KDNAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "runs.db"


def shown(page: Path, **address: int | str) -> AppTest:
    app = AppTest.from_file(str(ENTRY), default_timeout=20).run()
    for name, value in address.items():
        app.query_params[name] = str(value)
    if page != places.HOME:
        app.switch_page(str(page)).run()
    assert not app.exception
    return app


def words(app: AppTest) -> str:
    parts = [*app.title, *app.header, *app.markdown, *app.info, *app.error, *app.warning]
    return "\n".join(str(part.value) for part in parts)


def charts(app: AppTest) -> dict[str, Any]:
    live = [json.loads(chart.proto.json) for chart in app.get("bidi_component")]
    plain = {chart.proto.alt: json.loads(chart.proto.spec) for chart in app.get("plotly_chart")}
    return {**plain, **{each["alt"]: json.loads(each["figure"]) for each in live}}


def tab(app: AppTest, name: str) -> Any:
    [found] = [each for each in app.tabs if each.label == name]
    return found


def within(run: Run) -> progress.Limit | None:
    budget = progress.budget_of(run)
    return None if budget is None else progress.Limit(budget)


def test_no_page_loads_torch_or_transformers() -> None:
    script = f"""
import runpy, sys
for page in {[str(page) for page in PAGES]!r}:
    runpy.run_path(page)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert ended.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("place", PAGES, ids=lambda place: place.stem)
def test_every_page_of_an_empty_store_says_what_to_do_next(db: Path, place: Path) -> None:
    app = shown(place)
    assert not app.error
    assert app.title
    if place != places.NEW_SEARCH:
        assert app.info
    assert not db.exists()


def test_home_lists_the_runs_newest_first_with_what_each_has_found(db: Path) -> None:
    fill(db)
    fill(db, episodes=1, state="paused")
    table = shown(places.HOME).dataframe[0].value
    assert list(table["State"]) == ["paused", "finished"]
    assert list(table["Judged"]) == ["4 of 16", "16 of 16"]
    assert all("agreement" in best for best in table["Pick within budget"])


def test_home_counts_the_students_of_each_run(db: Path) -> None:
    fill(db, episodes=1, students=True)
    fill(db, episodes=1)
    assert list(shown(places.HOME).dataframe[0].value["Students"]) == [0, 5]


def test_home_says_that_the_first_search_was_started_and_offers_to_stop_it(db: Path) -> None:
    with opened(db) as store:
        run = store.create_run(quick_spec())
    app = shown(places.HOME)
    assert "A quick search was started for you" in words(app)
    [stop] = [button for button in app.button if button.label == "Stop it"]
    stop.click().run()
    with opened(db, read_only=True) as store:
        assert store.run(run).state == "stopped"


def test_a_run_shows_its_state_its_progress_and_its_frontier(db: Path) -> None:
    run = fill(db)
    app = shown(places.RUN, run=run)
    told = words(app)
    assert f"Run {run} · quick" in told
    assert "Pick within 9.54 ms" in told
    with opened(db, read_only=True) as store:
        rows = store.candidates(run)
    front = Findings.of(rows, within(live_run(db, run))).frontier
    [figure] = [figure for alt, figure in charts(app).items() if "Pareto" in alt]
    [line] = [line for line in figure["data"] if line["name"] == "Pareto frontier"]
    assert line["customdata"] == [row.id for row in front]


def test_moving_the_budget_picks_another_student_at_once(db: Path) -> None:
    run = fill(db)
    app = shown(places.RUN, run=run)
    app.slider[0].set_value(app.slider[0].min).run()
    assert "No student so far takes" in words(app)
    app.slider[0].set_value(app.slider[0].max).run()
    assert "nothing was distilled" in words(app)


def field(app: AppTest, label: str) -> Any:
    [found] = [box for box in app.text_input if box.label == label]
    return found


def test_what_is_set_on_the_page_of_one_run_is_not_set_on_that_of_another(db: Path) -> None:
    first, second = fill(db), fill(db, spec=quick_spec(seed=3))
    app = shown(places.RUN, run=first)
    own = field(app, "Latency budget").value
    field(app, "Latency budget").set_value("5x").run()
    assert "Pick within" in words(app)
    app.query_params["run"] = str(second)  # what was typed is still in the address
    app.run()
    assert field(app, "Latency budget").value == own


def test_a_typed_budget_that_is_none_is_refused_and_the_runs_own_is_used(db: Path) -> None:
    app = shown(places.RUN, run=fill(db), budget="quickly")
    assert "type ms, such as 7.5" in app.error[0].value
    assert "Pick within 9.54 ms" in words(app)


def test_another_axis_gives_up_the_zoom_of_the_address(db: Path) -> None:
    app = shown(places.RUN, run=fill(db), zoom="1,2,3,4")
    [axis] = [box for box in app.selectbox if box.label == "Horizontal axis"]
    axis.set_value("parameters").run()
    assert "zoom" not in app.query_params
    assert not app.exception


@pytest.mark.parametrize("zoom", ["", "1,2", "a,b,c,d", "1,2,3,nan", "1," * 999])
def test_a_zoom_or_choice_that_is_none_blanks_no_page(db: Path, zoom: str) -> None:
    app = shown(places.RUN, run=fill(db, episodes=1), zoom=zoom, candidate="<b>", x="nothing", log="perhaps")
    assert "Pick within" in words(app)


def test_a_run_that_was_deleted_under_its_page_is_said_to_be_gone(db: Path) -> None:
    run = fill(db, episodes=1)
    app = shown(places.RUN, run=run)
    with opened(db) as store:
        store.delete_run(run)
    app.run()
    assert not app.exception
    assert f"no run {run}" in app.error[0].value


def test_a_run_says_how_many_candidates_were_skipped_by_an_estimate(db: Path) -> None:
    with opened(db) as store:
        run = begin_run(store)
        one, two = add_episode(store, run, 1, [Architecture(2, 96, 384, 3), Architecture(6, 384, 1536, 12)])
        store.update_candidate(two, state="over_budget", estimated_ms=18.0)
        app = shown(places.RUN, run=run)
        assert "1 over budget (1 by an estimate alone, not measured)" in app.get("progress")[0].proto.text
        assert list(app.dataframe[0].value["Not measured"]) == ["–", "≈ 18 ms, estimated"]
        judge(store, run, one)
    assert "1 distilled, 1 over budget (1 by" in shown(places.RUN, run=run).get("progress")[0].proto.text


def test_a_run_says_how_many_candidates_were_stopped_early_and_what_that_saved(db: Path) -> None:
    with opened(db) as store:
        run = begin_run(store)
        one, two = add_episode(store, run, 1, [Architecture(2, 96, 384, 3), Architecture(3, 96, 384, 3)])
        judge(store, run, one)
        assert "stopped early" not in shown(places.RUN, run=run).get("progress")[0].proto.text
        steps = store.candidate(one).steps
        store.update_candidate(two, state="pruned", estimated_ms=3.0, loss=0.9, step=0, steps=steps)
    assert (
        "1 stopped early, which saved 50% of the" in shown(places.RUN, run=run).get("progress")[0].proto.text
    )


def test_a_run_shows_how_far_estimates_of_latency_are_from_what_it_measured(db: Path) -> None:
    run = fill(db)
    [box] = [box for box in shown(places.RUN, run=run).expander if box.label == model_section.TITLE]
    assert not box.proto.expanded
    app = shown(places.RUN, run=run, estimates="true")
    [box] = [box for box in app.expander if box.label == model_section.TITLE]
    assert "at the median" in box.markdown[0].value
    [figure] = [figure for alt, figure in charts(app).items() if "Estimated against measured" in alt]
    assert len(figure["data"][1]["x"]) == 16


def test_the_newest_run_is_shown_where_none_is_named(db: Path) -> None:
    fill(db, episodes=1)
    second = fill(db, episodes=1)
    assert f"Run {second} " in words(shown(places.RUN))


def live_run(db: Path, run: int) -> Any:
    with opened(db, read_only=True) as store:
        return store.run(run)


def buttons(app: AppTest) -> set[str]:
    return {button.label for button in app.button}


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        ("running", {"Pause", "Stop"}),
        ("paused", {"Resume", "Stop"}),
        ("stopped", {"Resume"}),
        ("interrupted", {"Resume"}),
        ("failed", {"Resume"}),
        ("finished", set()),
    ],
)
def test_a_run_offers_the_buttons_of_its_state(db: Path, state: str, offered: set[str]) -> None:
    run = fill(db, episodes=1, state=state)
    assert buttons(shown(places.RUN, run=run)) & {"Pause", "Stop", "Resume"} == offered


def test_pause_asks_the_worker_and_cannot_be_pressed_twice(db: Path) -> None:
    run = fill(db, episodes=1, state="running")
    app = shown(places.RUN, run=run)
    [pause] = [button for button in app.button if button.label == "Pause"]
    pause.click().run()
    assert live_run(db, run).request == "pause"
    [pause] = [button for button in app.button if button.label == "Pause"]
    assert pause.disabled


def test_a_failed_run_shows_its_sentence(db: Path) -> None:
    with opened(db) as store:
        run = begin_run(store)
        store.end_run(run, "failed", "The corpus has no sentences; name another.")
    assert "The corpus has no sentences" in words(shown(places.RUN, run=run))


def test_a_run_whose_worker_died_says_that_nothing_judged_is_lost(db: Path) -> None:
    run = fill(db, episodes=1, state="interrupted")
    assert "All that was judged is kept" in words(shown(places.RUN, run=run))


@pytest.mark.parametrize("state", ["done", "over_budget", "pruned", "proposed", "failed"])
def test_a_candidate_in_any_state_has_a_page(db: Path, state: str) -> None:
    run = fill(db)
    with opened(db) as store:
        done = progress.distilled(store.candidates(run))[0]
        facts: dict[str, dict[str, Any]] = {
            "done": {},
            "over_budget": {"state": "over_budget", "loss": None, "reward": None, "weights": 0},
            "proposed": {
                "state": "proposed",
                "latency": None,
                "loss": None,
                "parameters": None,
                "weights": 0,
            },
            "failed": {"state": "failed", "error": "Out of memory at step 12.", "loss": None, "weights": 0},
            "pruned": {"state": "pruned", "step": 33, "latency": None, "estimated_ms": 7.1, "weights": 0},
        }
        if facts[state]:
            store.update_candidate(done.id, **facts[state])
    app = shown(places.CANDIDATE, candidate=done.id)
    assert f"Candidate {done.id}" in words(app)
    if state == "failed":
        assert "Out of memory" in words(app)
    if state == "pruned":
        assert "Stopped after 33 of" in words(app)
        assert "by its first steps, others of this run are better" in words(app)
        assert "It was stopped early and has no weights" in words(app)
        assert app.metric[0].delta == "≈ 7.1 ms, estimated"
    assert ("Export" in buttons(app)) == (state == "done")


def test_a_candidate_shows_its_latency_with_the_device_and_its_layers(db: Path) -> None:
    run = fill(db)
    with opened(db, read_only=True) as store:
        done = progress.distilled(store.candidates(run))[0]
    app = shown(places.CANDIDATE, candidate=done.id)
    assert "AMD EPYC" in words(app)
    assert app.metric[0].value == f"{done.point[0]:.2f} ms"
    [agreement] = [card for card in app.metric if card.label == "Agreement"]
    assert done.loss is not None
    assert agreement.value == f"{100 * (1 - done.loss):.1f} ± 0.6 %"
    assert "Layers 1 to" in words(app)
    layers = shown(places.CANDIDATE, candidate=done.id, tab="Layers")
    assert "Layer mapping, student ← teacher" in words(layers)
    assert len(charts(layers)) == 4
    assert any(
        "p50 and p95" in alt for alt in charts(shown(places.CANDIDATE, candidate=done.id, tab="Latency"))
    )


def test_a_candidate_says_whether_it_is_on_the_frontier_and_which_are_beside_it_there(db: Path) -> None:
    run = fill(db)
    with opened(db, read_only=True) as store:
        candidates = store.candidates(run)
    front = Findings.of(candidates, None).frontier
    app = shown(places.CANDIDATE, candidate=front[1].id)
    assert "On the Pareto frontier" in words(app)
    beside = [
        link.proto.label for link in app.get("page_link") if link.proto.label[:6] in ("Faster", "Slower")
    ]
    assert [label.split(" (")[0] for label in beside] == [f"Faster: {front[0].id}", f"Slower: {front[2].id}"]
    behind = next(row for row in progress.distilled(candidates) if row not in front)
    assert "Not on the Pareto frontier: candidate" in words(shown(places.CANDIDATE, candidate=behind.id))


def test_a_tab_that_is_none_shows_the_first(db: Path) -> None:
    fill(db)
    app = shown(places.CANDIDATE, candidate=1, tab="?")
    assert "Latency p50" in [card.label for card in app.metric]
    assert not charts(app)  # those of other tabs


def cuts(app: AppTest) -> list[Any]:
    return [box for box in app.expander if box.label == "Cut out of the teacher"]


def test_a_candidate_shows_which_layers_and_heads_of_the_teacher_it_was_cut_from(db: Path) -> None:
    run = fill(db)
    with opened(db, read_only=True) as store:
        done = progress.distilled(store.candidates(run))[0]
    [box] = cuts(shown(places.CANDIDATE, candidate=done.id))
    assert not box.proto.expanded
    table = box.dataframe[0].value
    assert list(table["Teacher layer"]) == [source.layer for source in done.cut_from]
    assert table["Heads"][0] == ", ".join(map(str, done.cut_from[0].heads))


def test_a_candidate_that_began_with_random_weights_was_cut_out_of_nothing(db: Path) -> None:
    run = fill(db)
    with opened(db) as store:
        done = progress.distilled(store.candidates(run))[0]
        store.update_candidate(done.id, cut_from=[])
    assert not cuts(shown(places.CANDIDATE, candidate=done.id))


def test_a_candidate_shows_the_yardstick_as_one_curve_and_the_terms_beside_it(db: Path) -> None:
    run = fill(db)
    with opened(db) as store:
        done = progress.distilled(store.candidates(run))[0]
        depth = done.architecture.layers
        for name in ("vector", "similarity", "yardstick"):
            losses = [LayerLoss(step, depth, TEACHER.layers, 0.9 - step / 200, name) for step in (0, 80)]
            store.add_layer_losses(done.id, losses)
    app = shown(places.CANDIDATE, candidate=done.id, tab="Layers")
    assert list(tab(app, "Layers").dataframe[0].value["Term"]) == [
        "Hidden states",
        "Sentence vectors, by angle",
        "Similarities of texts",
        "What students are compared by",
    ]
    choice(app, "Loss term").set_value("yardstick").run()
    assert "1 − the agreement with the teacher" in words(app)
    assert "Layer mapping" not in words(app)
    assert any(alt.endswith("What students are compared by") for alt in charts(app))


def test_a_run_says_what_the_agreement_is_of(db: Path) -> None:
    run = fill(db)
    [alt] = [alt for alt in charts(shown(places.RUN, run=run)) if "Pareto" in alt]
    assert alt.startswith("Latency against agreement with the teacher, % (sentence vectors);")


VERSION_4 = ROOT / "tests" / "runs" / "fixtures" / "version_4.db"


def test_a_run_of_version_4_is_shown_as_it_was_judged(db: Path) -> None:
    shutil.copyfile(VERSION_4, db)
    app = shown(places.RUN, run=1)
    [alt] = [alt for alt in charts(app) if "Pareto" in alt]
    assert "agreement with the teacher, % (hidden states, mean over layers)" in alt
    assert "Objective KD-NAS" in words(app)
    [table] = [frame.value for frame in app.dataframe if "Agreement" in frame.value]
    assert list(table["Agreement"].round(1).dropna()) == [49.7, 55.3]
    assert "±" not in table


def test_a_candidate_and_a_student_of_version_4_are_shown_as_they_were_judged(db: Path) -> None:
    shutil.copyfile(VERSION_4, db)
    app = shown(places.CANDIDATE, candidate=1)
    assert [card.value for card in app.metric if card.label == "Agreement"] == ["49.7 %"]
    assert not cuts(app)
    app = shown(places.STUDENT, student=1)
    assert app.metric[0].value == "80.0 %"
    [figure] = [figure for alt, figure in charts(app).items() if alt.startswith("Agreement on held-out")]
    title = figure["layout"]["yaxis"]["title"]["text"]
    assert title == "agreement with the teacher, % (hidden states, mean over layers)"


def test_a_paused_run_of_version_4_refuses_to_resume_in_a_sentence(db: Path) -> None:
    shutil.copyfile(VERSION_4, db)
    app = shown(places.RUN, run=2)
    [resume] = [button for button in app.button if button.label == "Resume"]
    app = resume.click().run()
    assert not app.exception
    [error] = app.error
    assert "another version" in error.value
    assert live_run(db, 2).state == "paused"


def of_tinybert(db: Path, *, noted: bool) -> Candidate:
    """A distilled candidate of a filled TinyBERT search, with or without a note."""
    run = fill(db, spec=tinybert_spec())
    with opened(db, read_only=True) as store:
        rows = progress.distilled(store.candidates(run))
    return next(row for row in rows if bool(row.notes) == noted)


def test_a_candidate_of_several_terms_shows_one_at_a_time(db: Path) -> None:
    app = shown(places.CANDIDATE, candidate=of_tinybert(db, noted=False).id, tab="Layers")
    assert list(tab(app, "Layers").dataframe[0].value["Term"]) == [
        "Hidden states",
        "Embeddings",
        "Attention scores",
        "Predictions",
    ]
    assert "1 is no better than its mean" in words(app)
    choice(app, "Loss term").set_value("attention").run()
    assert "each term has a scale of its own" in words(app)
    assert any(alt.endswith("Attention scores") for alt in charts(app))
    choice(app, "Loss term").set_value("prediction").run()
    assert "Layer mapping" not in words(app)
    assert not any("by student layer and teacher layer" in alt for alt in charts(app))


def test_a_candidate_shows_its_notes_and_its_loss_by_language(db: Path) -> None:
    app = shown(places.CANDIDATE, candidate=of_tinybert(db, noted=True).id, tab="Layers")
    assert "Attention loss skipped" in words(app)
    assert "Attention scores" not in list(tab(app, "Layers").dataframe[0].value["Term"])
    [bars] = [figure for alt, figure in charts(app).items() if "7 languages, from sw" in alt]
    assert bars["data"][0]["y"][0] == "sw"


def test_a_run_names_its_objective_and_counts_the_notes_of_its_candidates(db: Path) -> None:
    of_tinybert(db, noted=True)
    app = shown(places.RUN)
    assert "Objective TinyBERT" in words(app)
    [notes] = [box for box in app.expander if box.label == "Notes on candidates"]
    assert not notes.proto.expanded
    assert "candidates · Attention loss skipped" in notes.markdown[0].value


def test_a_run_without_notes_has_no_list_of_them(db: Path) -> None:
    fill(db, episodes=1)
    app = shown(places.RUN)
    assert "Objective Sentence vectors" in words(app)
    assert "Notes on candidates" not in [box.label for box in app.expander]


@pytest.mark.parametrize("place", [places.RUN, places.CANDIDATE], ids=lambda place: place.stem)
def test_a_sentence_about_what_went_wrong_is_not_read_as_markdown(db: Path, place: Path) -> None:
    with opened(db) as store:
        run = begin_run(store)
        [candidate] = add_episode(store, run, 1, [Architecture(2, 96, 384, 3)])
        store.update_candidate(candidate, state="failed", error="![x](http://host/x.png)", notes=["a *b*"])
        store.end_run(run, "failed", "![x](http://host/x.png)")
    app = shown(place, run=run, candidate=candidate)
    assert app.error[0].value.startswith(r"\!\[x\]\(")


@pytest.mark.parametrize("address", ["99", "x", "-1", "1%20OR%201=1"])
@pytest.mark.parametrize(
    ("place", "name"),
    [(places.RUN, "run"), (places.CANDIDATE, "candidate"), (places.STUDENT, "student")],
)
def test_an_address_that_names_nothing_is_answered_in_one_sentence(
    db: Path, place: Path, name: str, address: str
) -> None:
    fill(db, episodes=1)
    app = shown(place, **{name: address})
    assert len(app.error) == 1


@pytest.mark.parametrize("place", PAGES, ids=lambda place: place.stem)
def test_a_file_that_is_no_store_is_answered_in_one_sentence(db: Path, place: Path) -> None:
    db.write_bytes(b"not a database at all, but long enough to look at" * 20)
    app = shown(place, run=1, candidate=1, student=1)
    assert "not a database" in words(app)
    assert "not a database" in words(shown(places.NEW_SEARCH, size="JSON"))


def test_the_form_counts_the_architectures_of_the_choices(db: Path) -> None:
    app = form()
    assert "**122,718 architectures**, 40,182 distinct shapes" in words(app)
    choice(app, "Layers").set_value([2]).run()
    assert f"**{122_718 // 6:,} architectures**, {40_182 // 6:,} distinct shapes" in words(app)
    sizes = {slider.label: slider for slider in app.slider}
    hidden, inner = sizes["Hidden size"], sizes["FFN size"]
    assert (hidden.value, inner.value) == ((96, 384), (96, 1536))
    hidden.set_range(96, 104)
    inner.set_range(1536, 1536)
    app.run()
    # 2, 3, 4, 6 and 12 heads divide 96, and 2 and 4 divide 104
    assert "**7 architectures**, 2 distinct shapes" in words(app)
    choice(app, "Start from").set_value("KD-NAS, as published").run()
    assert "**1,200 architectures**, 80 distinct shapes" in words(app)


def test_the_form_says_how_long_it_takes_and_whether_the_teacher_was_measured(db: Path) -> None:
    told = words(form())
    assert "rough estimate" in told
    assert "not measured in this way on this machine yet" in told


def test_a_choice_that_cannot_work_is_said_and_nothing_can_be_started(db: Path) -> None:
    app = form()
    choice(app, "Layers").set_value([]).run()
    assert len(app.error) == 1
    [start] = [button for button in app.button if button.label == "Start search"]
    assert start.disabled
    assert not db.exists()


@pytest.mark.usefixtures("served")
def test_a_press_on_start_creates_the_run_that_was_chosen(db: Path) -> None:
    app = form()
    app.text_input[0].set_value("mine")
    choice(app, "Budgets").set_value([3.0])
    [start] = [button for button in app.button if button.label == "Start search"]
    start.click().run()
    run = live_run(db, 1)
    assert run.name == "mine"
    assert run.spec.latency.budget_speedup == 3.0
    assert "Run 1 · mine" in words(app)


def form() -> AppTest:
    """The form with every choice."""
    return shown(places.NEW_SEARCH, size="Custom")


def started(app: AppTest, db: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    """The spec of the run that a press on Start creates."""
    monkeypatch.setattr(requests, "ensure_worker", Served().ensure_worker)
    [start] = [button for button in app.button if button.label == "Start search"]
    start.click().run()
    spec: RunSpec = live_run(db, 1).spec
    return spec


def choice(app: AppTest, label: str) -> Any:
    widgets = [*app.selectbox, *app.radio, *app.checkbox, *app.multiselect, *app.number_input]
    [found] = [widget for widget in widgets if widget.label == label]
    return found


def test_the_form_as_it_opens_asks_for_the_objective_that_a_spec_asks_for(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = started(form(), db, monkeypatch)
    assert spec.objective == ObjectiveSpec()
    assert spec.proxy == ProxySpec()
    assert spec.space.embedding_size is None


def test_every_choice_about_latency_reaches_the_spec(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = form()
    for label, value in (
        ("Runtime", "onnxruntime-int8"),
        ("Threads", 2),
        ("Texts at once", 4),
        ("Tokens in each text", 64),
        ("Warm-up runs", 30),
        ("Timed runs", 200),
    ):
        choice(app, label).set_value(value)
    assert started(app.run(), db, monkeypatch).latency == LatencySpec(
        budget_speedup=2.0, runtime="onnxruntime-int8", threads=2, batch_size=4, sequence_length=64,
        warmup=30, runs=200,
    )  # fmt: skip


@pytest.mark.parametrize("is_there", [True, False])
def test_cuda_is_offered_where_there_is_a_driver(
    db: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_there: bool
) -> None:
    monkeypatch.setattr(hardware, "CUDA", tmp_path if is_there else tmp_path / "none")
    offered = choice(form(), "Runtime").options
    assert offered[:3] == ["ONNX Runtime", "ONNX Runtime, 8-bit weights", "torch"]
    assert ("torch on CUDA" in offered) == is_there


def remember_teacher(milliseconds: float, protocol: LatencySpec) -> None:
    asked = latency_protocol.question("packaged", TEACHER, TEACHER, protocol)
    files.remember("latency", asked, reading(milliseconds).to_dict())


def test_the_teachers_latency_on_the_form_is_that_of_the_runtime_that_was_chosen(db: Path) -> None:
    remember_teacher(18.5, LatencySpec())
    remember_teacher(7.25, LatencySpec(runtime="torch", threads=2))
    app = form()
    assert "The teacher takes" in words(app)
    choice(app, "Runtime").set_value("torch").run()
    assert "not measured in this way" in words(app)
    choice(app, "Threads").set_value(2).run()
    told = " ".join(words(app).split())
    assert f"The teacher takes {reading(7.25).p50:.2f} ms" in told


def test_the_form_draws_the_space_once_the_teacher_was_measured(db: Path) -> None:
    assert not charts(form())
    remember_teacher(18.5, LatencySpec())
    app = form()
    [alt] = charts(app)
    assert alt.startswith("Estimated latencies of the space by layers")
    assert "of 122,718 architectures are expected within" in words(app)
    assert "by FLOPs alone" in words(app)
    choice(app, "Layers").set_value([2]).run()
    assert f"of {122_718 // 6:,} architectures are expected within" in words(app)


def test_the_form_estimates_by_what_was_measured_here_and_says_where_that_does_not_reach(db: Path) -> None:
    protocol = LatencySpec()
    remember_teacher(18.5, protocol)
    for layers, width in ((1, 96), (1, 192), (2, 96), (2, 192), (3, 96), (3, 192), (4, 96), (4, 192)):
        shape = Architecture(layers, width, 4 * width, 3)
        here = dataclasses.replace(reading(latency_of(shape)), device=device_name())
        files.remember(
            "latency", latency_protocol.question("packaged", TEACHER, shape, protocol), here.to_dict()
        )
    app = form()
    assert "The estimate comes from 9 latencies measured on this device" in words(app)
    assert "larger than any of those" not in words(app)
    choice(app, "Start from").set_value("KD-NAS, as published").run()
    published = SearchSpace.from_spec(KDNAS_SPACE, TEACHER)
    beyond = sum(shape.flops(128) > TEACHER.flops(128) for shape in published)
    assert f" {beyond} are larger than any of those" in words(app)


def test_a_budget_in_milliseconds_stays_as_it_was_typed_when_the_protocol_changes(db: Path) -> None:
    remember_teacher(18.5, LatencySpec())
    app = form()
    choice(app, "Budget as").set_value(latency_form.MILLISECONDS).run()
    choice(app, "Budgets (ms, p50)").set_value(["5.5"]).run()
    choice(app, "Threads").set_value(2).run()
    assert choice(app, "Budgets (ms, p50)").value == ["5.5"]


def test_several_budgets_reach_the_spec_and_what_is_none_is_refused(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = form()
    choice(app, "Budgets").set_value([2.0, "3 or 5"]).run()
    assert "'3 or 5' is no budget" in app.error[0].value
    choice(app, "Budgets").set_value([]).run()
    assert "Choose a budget, or type one" in app.error[0].value
    choice(app, "Budgets").set_value([2.0, "10x", 5.0, " 3 "]).run()
    assert started(app, db, monkeypatch).latency.amounts == (2.0, 3.0, 5.0, 10.0)


def test_a_budget_that_is_none_takes_back_no_other_choice(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = form()
    choice(app, "Episodes").set_value(20).run()
    choice(app, "Budgets").set_value([]).run()
    choice(app, "Budgets").set_value(["4x"]).run()
    spec = started(app, db, monkeypatch)
    assert (spec.search.episodes, spec.latency.budget_speedup) == (20, 4.0)


def test_a_dropped_spec_is_read_and_one_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def dropped(size: int) -> str:
        file = SimpleNamespace(getvalue=lambda: b'{"name": "dropped"}', size=size)
        state = {spec_form.FILE: file}
        monkeypatch.setattr(st, "session_state", state)
        spec_form._take()
        return str(state[spec_form.TEXT])

    assert dropped(19) == '{"name": "dropped"}'
    assert "too large" in dropped(spec_form.MOST_BYTES + 1)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("Quick", quick_spec().model_copy(update={"name": "search"})),
        ("Standard", parse_spec({"search": {"episodes": 8, "candidates": 6}})),
        (
            "KD-NAS",
            parse_spec(
                {
                    "space": "kdnas",
                    "objective": {"use": "fine_tuning", "recipe": "kdnas", "yardstick": "layers"},
                    "search": {"controller": "lstm", "prune": False, "static": False},
                }
            ),
        ),
    ],
)
def test_each_size_of_search_starts_what_it_says(
    db: Path, monkeypatch: pytest.MonkeyPatch, size: str, expected: RunSpec
) -> None:
    found = started(shown(places.NEW_SEARCH, size=size), db, monkeypatch)
    assert found == expected


def test_teachers_and_texts_of_earlier_searches_are_offered_and_what_is_none_is_said_as_it_is_typed(
    db: Path, tmp_path: Path
) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("One sentence.\n" * 50)
    fill(db, episodes=1, spec=quick_spec().model_copy(update={"corpus": str(text)}))
    app = form()
    assert str(text) in choice(app, "Corpus").options
    text.unlink()
    choice(app, "Corpus").set_value(str(text)).run()
    assert "mine.txt" in app.error[0].value


def test_the_controller_of_the_form_is_that_of_the_run(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = form()
    choice(app, "Controller").set_value("surrogate")
    choice(app, "End when no gain is expected").check()
    search = started(app, db, monkeypatch).search
    assert (search.controller, search.until) == ("surrogate", "no_gain")


def test_a_run_of_several_budgets_has_a_pick_for_each(db: Path) -> None:
    run = fill(db, spec=RunSpec(latency=LatencySpec(budget_speedup=[1.5, 3.0])))
    app = shown(places.RUN, run=run)
    [table] = [frame.value for frame in app.dataframe if "Ahead of the next" in frame.value]
    assert list(table["Budget"]) == ["1.5×", "3×"]
    assert set(table["Better unseen"]) == {wording.UNKNOWN}


def test_a_run_says_what_another_episode_is_expected_to_bring(db: Path) -> None:
    run = fill(db, spec=RunSpec(latency=LatencySpec(budget_speedup=[1.5, 3.0])))
    with opened(db) as store:
        store.set_outlook(run, Outlook(4, 0.042, (0.31, None)))
    app = shown(places.RUN, run=run)
    assert "another is expected to lower the best loss within a budget by 4.2 %." in words(app)
    [table] = [frame.value for frame in app.dataframe if "Better unseen" in frame.value]
    assert list(table["Better unseen"]) == ["31%", wording.UNKNOWN]
    with opened(db) as store:
        store.set_outlook(run, Outlook(4, 0.002, (0.0, 0.0), gain_before=0.001))
    assert "**No gain is expected** after episode 4" in words(shown(places.RUN, run=run))


@pytest.mark.usefixtures("served")
def test_a_run_that_has_ended_is_extended_by_as_many_episodes_as_were_typed(db: Path) -> None:
    run = fill(db)
    app = shown(places.RUN, run=run)
    [more] = [field for field in app.number_input if field.label == "More episodes"]
    more.set_value(5)
    [button] = [button for button in app.button if button.label == "Extend"]
    button.click().run()
    assert not app.exception
    with opened(db, read_only=True) as store:
        row = store.run(run)
        assert (row.state, row.spec.search.episodes) == ("queued", row.episode + 5)
    assert "goes on for 5 more episodes" in app.toast[0].value
    assert not [button for button in app.button if button.label == "Extend"]  # it is not over


def test_the_page_of_a_run_says_how_well_its_rungs_rank_its_students(db: Path) -> None:
    run = fill(db)
    assert "How well it ranks" not in words(shown(places.RUN, run=run))
    with opened(db) as store:
        add_scored(store, [0.7, 0.8, 0.9])
    app = shown(places.RUN, run=run)
    assert "3 students of this run were distilled in full and scored on packaged, sst2." in words(app)
    [table] = [frame.value for frame in app.dataframe if "Ranked by" in frame.value]
    names = list(table["Ranked by"])
    assert names[0] == "Yardstick, before the first step"
    assert names[-3:] == ["Yardstick, after full distillation", "FLOPs", "Parameters"]


def test_a_recipe_that_compares_heads_offers_students_with_the_teachers_heads_alone(db: Path) -> None:
    remember_teacher(18.5, LatencySpec())
    app = form()
    assert choice(app, "Attention heads").value == [2, 3, 4, 6, 12]
    choice(app, "Recipe").set_value("tinybert").run()
    assert choice(app, "Attention heads").value == [12]
    assert choice(app, "Hidden size").value == list(range(96, 385, 24))


def test_every_choice_about_the_objective_reaches_the_spec(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = form()
    for label, value in (
        ("Students are for", "fine_tuning"),
        ("Recipe", "minilmv2"),
        ("Layer mapping", "top"),
        ("Projection", "shared"),
        ("Layers that the start is cut from", "bottom"),
        ("Embedding size", ["48", 64]),
        ("Passes a step", 4),
        ("Language temperature", 1.5),
        ("Pairs of segments", 0.3),
    ):
        choice(app, label).set_value(value)
    choice(app, objective_form.HEAD).check()
    spec = started(app.run(), db, monkeypatch)
    assert spec.objective == ObjectiveSpec(
        use="fine_tuning",
        recipe="minilmv2",
        mapping="top",
        projection="shared",
        start_layers="bottom",
        head="trained",
    )
    assert spec.space.embedding_size == [48, 64]
    assert (spec.proxy.accumulation, spec.proxy.language_temperature, spec.proxy.pairs) == (4, 1.5, 0.3)


@pytest.mark.parametrize("recipe", [None, *get_args(Recipe)])
def test_every_recipe_says_what_it_learns_and_can_be_started(db: Path, recipe: str | None) -> None:
    app = form()
    choice(app, "Recipe").set_value(recipe).run()
    assert not app.exception
    assert not app.error
    assert objective_form.LEARNS[recipe] in words(app)


def test_a_custom_objective_begins_with_one_term_of_hidden_states(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = form()
    choice(app, "Recipe").set_value("custom").run()
    spec = started(app, db, monkeypatch)
    assert spec.objective == ObjectiveSpec(
        recipe="custom", mapping="uniform", start_layers="uniform", terms=[TermSpec(kind="hidden")]
    )


def test_terms_that_cannot_be_are_said_in_a_sentence_and_nothing_can_be_started(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective_form, "terms_of", lambda rows: [])
    app = form()
    choice(app, "Recipe").set_value("custom").run()
    assert "a custom objective needs terms" in app.error[0].value
    [start] = [button for button in app.button if button.label == "Start search"]
    assert start.disabled


def test_a_random_start_is_cut_from_no_layers(db: Path) -> None:
    app = form()
    choice(app, "Start").set_value("random").run()
    assert choice(app, "Layers that the start is cut from").disabled


def test_a_refused_start_shows_the_sentence_and_creates_no_run(db: Path, served: Served) -> None:
    served.refusal = "The smallest student takes 3 ms; raise the budget."
    app = form()
    [start] = [button for button in app.button if button.label == "Start search"]
    start.click().run()
    assert "The smallest student takes 3 ms" in words(app)
    [start] = [button for button in app.button if button.label == "Start search"]
    assert not start.disabled
    with opened(db, read_only=True) as store:
        assert store.runs() == []


def test_a_candidate_at_work_shows_its_step(db: Path) -> None:
    with opened(db) as store:
        run = begin_run(store)
        [candidate] = add_episode(store, run, 1, [Architecture(2, 96, 384, 3)])
        store.update_candidate(candidate, state="distilling", step=20, steps=80)
    assert "step 20 of 80" in words(shown(places.CANDIDATE, candidate=candidate))


def test_a_run_shows_what_makes_its_students_good_and_how_its_search_went(db: Path) -> None:
    run = fill(db)
    folded = charts(shown(places.RUN, run=run))
    (files_of(db) / "worker.log").write_text("first\nsecond\n")
    app = shown(places.RUN, run=run, knobs="true", went="true")
    opened_ones = charts(app).keys() - folded.keys()
    assert any("of the variance" in alt for alt in opened_ones)
    assert any(alt.startswith("Hypervolume") for alt in opened_ones)
    assert app.code[0].value == "first\nsecond"
    assert "On the disk" in [card.label for card in app.metric]


def test_the_looks_at_which_candidates_were_stopped_are_counted() -> None:
    rows = [
        candidate(1, 4.0, 0.5, step=80, steps=80),
        candidate(2, 4.0, 0.6, "pruned", step=26, steps=80),
        candidate(3, 4.0, 0.6, "pruned", step=53, steps=80),
        candidate(4, 4.0, 0.6, "pruned", step=26, steps=80),
    ]
    table = went_section.rungs_table(rows)
    assert table["After step"].tolist() == [26, 53, 80]
    assert table["Reached"].tolist() == [4, 2, 1]
    assert table["Stopped"].tolist() == [2, 1, 0]
    assert table["Steps saved"].sum() == (54 * 2 + 27)


def test_the_vertical_axis_can_be_what_students_retain_on_tasks(db: Path) -> None:
    run = fill(db, students=True)
    app = shown(places.RUN, run=run, y="retained on tasks (%)")
    [figure] = [figure for alt, figure in charts(app).items() if alt.startswith("Speed-up against retained")]
    names = [line.get("name", "") for line in figure["data"]]
    assert {"teacher", "student"} <= set(names)
    assert any(name.startswith("published") for name in names)
    bare = fill(db, episodes=1)
    told = words(shown(places.RUN, run=bare, y="retained on tasks (%)"))
    assert "Nothing of this run has been scored on tasks" in told


def test_all_candidates_are_downloaded_with_the_reasons_of_those_that_failed() -> None:
    rows = [candidate(1, 4.0, 0.5), candidate(2, None, None, "failed", error="Out of memory at step 12.")]
    table = tables.candidates_table(rows)
    assert table["Reason"].iloc[1] == "Out of memory at step 12."
    again = pandas.read_parquet(io.BytesIO(tables.as_parquet(table)))
    assert again["Candidate"].tolist() == [1, 2]
    assert "Reason" not in tables.candidates_table(rows[:1])


def test_the_layers_of_another_student_stand_beside_a_candidates_own(db: Path) -> None:
    run = fill(db)
    with opened(db, read_only=True) as store:
        front = Findings.of(store.candidates(run), None).frontier
    app = shown(places.CANDIDATE, candidate=front[1].id, tab="Layers")
    offered = choice(app, "Beside").options
    assert offered[0] == f"candidate {front[0].id}"
    assert offered[-1] == "the frontier's median"
    assert f"candidate {front[1].id}" not in offered
    choice(app, "Beside").set_value(offered[-1]).run()
    [figure] = [figure for alt, figure in charts(app).items() if alt.startswith("Error of each of")]
    assert figure["data"][-1]["name"] == offered[-1]
    assert all(value is not None for value in figure["data"][-1]["x"])


def test_the_curve_of_each_term_has_a_scale_of_its_own(db: Path) -> None:
    app = shown(places.CANDIDATE, candidate=of_tinybert(db, noted=False).id, tab="Layers")
    [figure] = [figure for alt, figure in charts(app).items() if "of each loss term over the steps" in alt]
    assert len(figure["data"]) == 4
    assert {line["yaxis"] for line in figure["data"]} == {"y", "y2", "y3", "y4"}
    assert all(len(line["x"]) == 5 for line in figure["data"])  # looks at steps 0, 20, … 80


def test_a_student_of_24_layers_and_8_terms_has_a_page(db: Path) -> None:
    run = fill(db, episodes=1, state="running")
    deep, terms = Architecture(24, 96, 384, 3), [
        "hidden", "attention", "embedding", "prediction", "vector", "similarity", "hidden_probe", "yardstick",
    ]  # fmt: skip
    with opened(db) as store:
        [number] = add_episode(store, run, 2, [deep])
        store.update_candidate(number, state="done", loss=0.1, latency=reading(5.0).to_dict())
        losses = [
            LayerLoss(step, layer, 1 + layer % 6, 0.9 - step / 200 - layer / 100, term)
            for step in (0, 40, 80)
            for layer in range(1, 25)
            for term in terms
        ]
        store.add_layer_losses(number, losses)
    app = shown(places.CANDIDATE, candidate=number, tab="Layers")
    assert len(tab(app, "Layers").dataframe[0].value) == len(terms)
    [bars] = [figure for alt, figure in charts(app).items() if alt.startswith("Error of each of 24 layers")]
    assert bars["data"][0]["y"] == [str(layer) for layer in range(1, 25)]
    strip = charts(shown(places.RUN, run=run, budget="1000 ms"))
    assert any("of each layer of" in alt for alt in strip)
