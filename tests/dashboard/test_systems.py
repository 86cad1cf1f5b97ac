from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.dashboard.leaderboard import systems_tables
from kdnas_core.dashboard.model import systems
from kdnas_core.dashboard.model.published import SYSTEMS
from kdnas_core.dashboard.model.systems import System
from kdnas_core.dashboard.read.live_students import SystemView, read_systems
from kdnas_core.dashboard.ui import systems_figure
from kdnas_core.spec import ScoreSpec
from tests.filled_systems import SIMILAR, fill_systems

SHAPE = Architecture(2, 96, 384, 3)
TEACHER = System("teacher", "big", "", SHAPE, 10, 10, 1.0, {"a": 0.8, "b": 0.9, SIMILAR: 0.8})
SMALL = System("student", "small", "s1", SHAPE, 5, 5, 4.0, {"a": 0.6, "b": 0.7, SIMILAR: 0.1})
OTHER = System("mini-KD", "other", "3", SHAPE, 5, 5, 2.0, {"a": 0.4})


@pytest.fixture
def views(tmp_path: Path) -> list[SystemView]:
    fill_systems(tmp_path / "runs.db")
    return read_systems(tmp_path / "runs.db")


def test_a_store_that_does_not_exist_has_no_systems(tmp_path: Path) -> None:
    assert read_systems(tmp_path / "runs.db") == []


def test_averages_are_over_what_all_rows_have_and_never_over_zero_shot_tasks() -> None:
    assert systems.shared_tasks([TEACHER, SMALL]) == ["a", "b"]
    assert systems.shared_tasks([TEACHER, SMALL, OTHER]) == ["a"]
    assert systems.zero_shot_tasks_of([TEACHER, SMALL]) == [SIMILAR]
    assert systems.average(SMALL, ["a", "b"]) == pytest.approx(0.65)
    assert systems.average(SMALL, []) is None
    assert systems.retained(SMALL, [TEACHER, SMALL], ["a", "b"]) == pytest.approx(0.65 / 0.85)
    assert systems.retained(SMALL, [SMALL], ["a"]) is None


def test_a_row_without_any_fine_tuned_score_takes_no_average_from_the_others() -> None:
    only_similar = dataclasses.replace(OTHER, figures={SIMILAR: 0.5})
    rows = [TEACHER, SMALL, only_similar]
    assert systems.shared_tasks(rows) == ["a", "b"]
    assert systems.average(only_similar, ["a", "b"]) is None
    assert systems.retained(only_similar, rows, ["a", "b"]) is None
    assert systems_tables.ordered(rows, "retained %")[-1] == only_similar
    assert list(systems_tables.systems_table(rows)["Average"].isna()) == [False, False, True]
    assert systems_figure.systems_figure(rows).data


def test_rows_that_were_not_scored_on_a_task_can_be_left_out() -> None:
    assert systems.scored_on([TEACHER, SMALL, OTHER], ["b"]) == [TEACHER, SMALL]
    assert systems.scored_on([TEACHER, OTHER], []) == [TEACHER, OTHER]


def test_the_teacher_stays_on_top_and_what_is_not_known_goes_last() -> None:
    unmeasured = dataclasses.replace(OTHER, speedup=None)
    rows = [unmeasured, OTHER, SMALL, TEACHER]
    assert systems_tables.ordered(rows, "speed-up") == [TEACHER, SMALL, OTHER, unmeasured]
    assert systems_tables.ordered(rows, "retained %") == [TEACHER, SMALL, unmeasured, OTHER]


def test_of_a_task_that_was_scored_twice_the_newest_counts(views: list[SystemView]) -> None:
    first = views[0]
    later = dataclasses.replace(
        first,
        scores=[dataclasses.replace(score, value=0.99) for score in first.scores if score.task == "sst2"],
    )
    [row] = [row for row in systems.systems_of([*views, later]) if row.of == first.scoring.subject]
    assert row.figures["sst2"] == pytest.approx(0.99)
    assert row.figures["packaged"] == pytest.approx(0.72)


def test_one_control_stands_for_all_students_of_its_shape(views: list[SystemView]) -> None:
    controls = [row for row in systems.systems_of(views) if row.kind == "no distillation"]
    assert [row.name for row in controls] == ["4 × 192 × 384", "2 × 156 × 600"]
    assert set(controls[0].figures) == {"packaged", "sst2", "mrpc"}


def test_a_published_name_wants_both_the_shape_and_the_recipe(views: list[SystemView]) -> None:
    tiny = next(view for view in views if view.candidate.architecture.hidden_size == 156)
    assert systems.name(tiny) == "TinyBERT4 (scaled: 2 x 156)"
    assert tiny.student is not None
    by_kdnas = dataclasses.replace(
        tiny.student, spec=tiny.student.spec.model_copy(update={"recipe": "kdnas"})
    )
    assert systems.name(dataclasses.replace(tiny, student=by_kdnas)) == "KD-NAS 2 × 156 × 600"
    for_task = dataclasses.replace(
        tiny.student, spec=tiny.student.spec.model_copy(update={"task": "hub:nyu-mll/glue:sst2"})
    )
    assert systems.name(dataclasses.replace(tiny, student=for_task)).endswith("for sst2")


def test_a_shape_as_it_was_published_has_the_name_without_more(views: list[SystemView]) -> None:
    tiny = next(view for view in views if view.candidate.architecture.hidden_size == 156)
    unscaled = dataclasses.replace(tiny.candidate, architecture=PRESETS["tinybert4"])
    assert systems.name(dataclasses.replace(tiny, candidate=unscaled)) == "TinyBERT4"


def test_teachers_and_ways_of_scoring_are_kept_apart(views: list[SystemView]) -> None:
    assert len(systems.groups(views)) == 1
    on_test = dataclasses.replace(
        views[0], scoring=dataclasses.replace(views[0].scoring, spec=ScoreSpec(tasks=["sst2"], split="test"))
    )
    elsewhere = dataclasses.replace(
        views[0],
        run=dataclasses.replace(views[0].run, spec=views[0].run.spec.model_copy(update={"teacher": "/x"})),
    )
    found = systems.groups([*views, on_test, elsewhere])
    assert [len(some) for some in found.values()] == [1, 1, len(views)]
    assert [group.title.split(" · ")[1] for group in found] == [
        "validation split",
        "test split",
        "validation split",
    ]


def test_a_task_named_like_a_column_has_one_of_its_own() -> None:
    odd = dataclasses.replace(TEACHER, figures={"Average": 0.5, "System": 0.25})
    table = systems_tables.systems_table([odd])
    assert table["System"][0] == "big"
    assert table["System (task)"][0] == 25
    assert table["Average"][0] == pytest.approx(37.5)


def test_the_published_table_is_all_published_and_nothing_is_made_up() -> None:
    table = systems_tables.published_table()
    assert len(table) == len(SYSTEMS)
    assert all(name.endswith("(published)") for name in table["System"])
    [tiny] = [row for row in table.to_dict("records") if row["System"] == "TinyBERT4 (published)"]
    assert tiny["Retained (%)"] == pytest.approx(100 * 77.0 / 79.5)
    assert table["GLUE test average"].isna().sum() == sum(system.average is None for system in SYSTEMS)


def test_the_figure_leaves_out_what_has_no_place_on_it() -> None:
    unmeasured = dataclasses.replace(SMALL, speedup=None)
    odd = dataclasses.replace(SMALL, figures={"a": math.nan})
    names = [trace.name for trace in systems_figure.systems_figure([TEACHER, unmeasured, odd]).data]
    assert names == ["published (GLUE test, BERT-base)", "teacher"]
    assert len(systems_figure.systems_figure([]).data) == 1


def test_a_name_is_not_read_as_markup() -> None:
    odd = dataclasses.replace(SMALL, name="<b>x")
    drawn = systems_figure.systems_figure([TEACHER, odd]).data
    assert "&lt;b&gt;x" in drawn[1].text[0]


def test_chance_is_subtracted_from_teacher_and_student_alike_and_tasks_without_it_are_left_out() -> None:
    rows = [dataclasses.replace(row, chances={"a": 0.5}) for row in (TEACHER, SMALL)]
    above = systems.above_chance(rows)
    assert [row.figures for row in above] == [
        pytest.approx({"a": 0.3, SIMILAR: 0.8}),
        pytest.approx({"a": 0.1, SIMILAR: 0.1}),
    ]
    assert systems.retained(above[1], above, systems.shared_tasks(above)) == pytest.approx(1 / 3)


def test_a_task_of_which_the_teacher_is_hardly_above_chance_says_nothing_of_what_is_retained() -> None:
    rows = [dataclasses.replace(row, chances={"a": 0.78, "b": 0.5}) for row in (TEACHER, SMALL)]
    assert all("a" not in row.figures and "b" in row.figures for row in systems.above_chance(rows))


def test_published_students_are_not_drawn_beside_scores_without_chance() -> None:
    names = [line.name for line in systems_figure.systems_figure([TEACHER, SMALL], above_chance=True).data]
    assert names == ["student", "teacher"]
