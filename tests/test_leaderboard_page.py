"""The leaderboard."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from kdnas_core.dashboard.ui import places
from kdnas_core.runs.store import opened
from kdnas_core.spec import ScoreSpec
from tests.filled_store import fill
from tests.filled_systems import SIMILAR, add_scoring, fill_systems
from tests.test_pages import charts, choice, db, shown, words

__all__ = ["db"]  # the fixture


def table(app: AppTest) -> pd.DataFrame:
    frame: pd.DataFrame = app.dataframe[0].value
    return frame


def test_without_a_score_the_page_says_what_to_do_and_still_shows_what_was_published(db: Path) -> None:
    fill(db, episodes=1)
    app = shown(places.LEADERBOARD)
    assert "Nothing has been scored yet" in words(app)
    assert all(name.endswith("(published)") for name in table(app)["System"])


def test_each_system_is_a_row_with_its_cost_its_tasks_and_what_it_retains(db: Path) -> None:
    fill_systems(db)
    app = shown(places.LEADERBOARD)
    rows = table(app)
    assert list(rows["System"]) == [
        "all-MiniLM-L6-v2",
        "TinyBERT6 (scaled: 3 x 384)",
        "KD-NAS 4 × 192 × 384",
        "TinyBERT4 (scaled: 2 x 156)",
        "KD-NAS 3 × 96 × 384",
        "KD-NAS 4 × 192 × 384",
        "4 × 192 × 384",
        "2 × 156 × 600",
    ]
    assert list(rows["Kind"])[4:] == ["mini-KD", "mini-KD", "no distillation", "no distillation"]
    assert rows["packaged"][1] == pytest.approx(87.0)
    assert rows["Average"][0] == pytest.approx(91.0)
    assert rows["Retained (%)"][3] == pytest.approx(100 * 82.5 / 91)
    assert rows["stsb (zero-shot)"][2] == pytest.approx(74.0)


def test_the_average_names_its_tasks_and_leaves_out_what_not_all_have(db: Path) -> None:
    fill_systems(db)
    app = shown(places.LEADERBOARD)
    said = "**Average over packaged, sst2**, which all fine-tuned rows were scored on; not over mrpc."
    assert said in words(app)
    choice(app, "Only systems scored on").set_value(["mrpc"])
    app = app.run()
    assert list(table(app)["Kind"]) == ["teacher", "student", "no distillation"]
    assert table(app)["Average"][0] == pytest.approx(90.0)
    assert "**Average over packaged, sst2, mrpc**" in words(app)


def test_scores_without_fine_tuning_alone_have_no_average_and_say_so(db: Path) -> None:
    run = fill(db, episodes=1)
    with opened(db) as store:
        done = next(row for row in store.candidates(run) if row.state == "done")
        add_scoring(store, {SIMILAR: 0.61}, candidate=done.id, spec=ScoreSpec(tasks=["stsb"], seeds=2))
    app = shown(places.LEADERBOARD)
    assert "Nothing was fine-tuned for them, so that there is no average." in words(app)
    assert table(app)["Average"].isna().all()


def test_rows_can_be_sorted_by_speed_up(db: Path) -> None:
    fill_systems(db)
    app = shown(places.LEADERBOARD)
    choice(app, "Sort by").set_value("speed-up")
    speedups = list(table(app.run())["Speed-up"])
    assert speedups[0] == 1.0
    assert speedups[1:] == sorted(speedups[1:], reverse=True)


def test_the_figure_has_published_students_as_hollow_marks(db: Path) -> None:
    fill_systems(db)
    [figure] = [figure for alt, figure in charts(shown(places.LEADERBOARD)).items() if "Speed-up" in alt]
    published, *ours = figure["data"]
    assert published["name"].startswith("published")
    assert published["marker"]["symbol"].endswith("open")
    assert not any(line["marker"]["symbol"].endswith("open") for line in ours)


def test_what_was_scored_in_another_way_is_not_compared_but_can_be_chosen(db: Path) -> None:
    ids = fill_systems(db)
    with opened(db) as store:
        other = ScoreSpec(tasks=["packaged"], seeds=2, split="test")
        add_scoring(store, {"packaged": 0.5}, student=ids["full"], spec=other)
    app = shown(places.LEADERBOARD)
    assert list(table(app)["packaged"]) == pytest.approx([90.0, 50.0])  # the newest way first
    choice(app, "Teacher, and how was scored").set_value(1)
    app = app.run()
    assert len(table(app)) == 8
    assert "validation split" in words(app)


def test_a_teacher_that_came_out_differently_is_told(db: Path) -> None:
    ids = fill_systems(db)
    assert not shown(places.LEADERBOARD).warning
    with opened(db) as store:
        add_scoring(store, {"sst2": 0.6}, student=ids["tinybert4"], teachers={"sst2": 0.7})
    app = shown(places.LEADERBOARD)
    assert "scores of sst2 differ between scorings" in app.warning[0].value


def test_a_system_is_opened_by_its_name(db: Path) -> None:
    fill_systems(db)
    app = shown(places.LEADERBOARD)
    choice(app, "System").set_value("1")
    [button] = [button for button in app.run().button if button.label == "Open candidate 1"]
    assert "Candidate 1" in words(button.click().run())


def test_where_no_chance_is_known_nothing_is_subtracted_and_that_is_said(db: Path) -> None:
    fill_systems(db)
    app = shown(places.LEADERBOARD, above_chance="true")
    assert "The chance of packaged, sst2, mrpc is not known" in words(app)
    assert table(app)["Average"][0] == pytest.approx(91.0)


def test_chance_is_subtracted_from_the_scores_of_the_table(db: Path) -> None:
    ids = fill_systems(db)
    scores = {"packaged": 0.55, "sst2": 0.75}
    with opened(db) as store:
        for scoring in store.scorings():
            store.delete(scoring.job)
        add_scoring(store, scores, student=ids["full"], spec=ScoreSpec(tasks=list(scores)), chance=0.5)
    plain = table(shown(places.LEADERBOARD))
    above = table(shown(places.LEADERBOARD, above_chance="true"))
    assert above["sst2"].tolist() == pytest.approx([value - 50 for value in plain["sst2"]])
    assert above["Average"].tolist() == pytest.approx([value - 50 for value in plain["Average"]])
