from __future__ import annotations

import json
import math

import pytest

from kdnas_core.dashboard.model.layer_story import Profile, Standing, median_of, nearer, standings, told
from kdnas_core.dashboard.model_page import layer_figures
from kdnas_core.runs.records import LayerLoss, TeacherLayerFacts

FLOORS = [[0.9, 0.5, 0.1], [0.8, 0.4, 0.0], [0.6, 0.2, 0.0]]  # of layers 0..2, by width 1..3
TEACHER = TeacherLayerFacts(FLOORS, [[1.0, 0.5, 0.2], [0.5, 1.0, 0.4], [0.2, 0.4, 1.0]])


def losses(*finals: float, term: str = "hidden_probe") -> list[LayerLoss]:
    rows = []
    for layer, final in enumerate(finals, start=1):
        rows += [LayerLoss(0, layer, 1, 0.9, term), LayerLoss(0, layer, 2, 0.7, term)]
        rows += [LayerLoss(40, layer, 1, final, term), LayerLoss(40, layer, 2, final + 0.1, term)]
    return rows


def test_a_layer_stands_between_what_its_width_allows_and_where_it_began() -> None:
    [row] = standings(losses(0.45), 1, 2, TEACHER)
    assert (row.layer, row.teacher) == (1, (1, 2))
    assert (row.floor, row.start, row.final) == pytest.approx((0.3, 0.8, 0.5))
    assert row.verdict == "width"


def test_a_student_wider_than_its_teacher_has_nothing_out_of_reach() -> None:
    [row] = standings(losses(0.45), 1, 99, TEACHER)
    assert row.floor == 0.0
    assert row.verdict == "training"


def test_without_the_teachers_layers_nothing_is_said_of_width() -> None:
    [row] = standings(losses(0.45), 1, 2, None)
    assert row.floor is None
    assert told([row], 2) == "Layer 1 has yet to learn (error 0.50)."
    unknown = TeacherLayerFacts([[math.nan] * 3] * 3, TEACHER.similarity)
    assert standings(losses(0.45), 1, 2, unknown)[0].floor is None


def test_layers_are_told_in_runs_of_one_verdict() -> None:
    rows = [
        Standing(1, (1,), 0.05, 0.5, 0.1),
        Standing(2, (2,), 0.05, 0.5, 0.2),
        Standing(3, (3,), 0.5, 0.9, 0.6),
    ]
    assert told(rows, 96) == (
        "Layers 1 to 2 follow the teacher (error 0.15); layer 3 is limited by width more than by training"
        " (error 0.60, 0.50 of it beyond width 96)."
    )
    assert told([], 96) == ""
    apart = [rows[0], Standing(4, (4,), 0.05, 0.5, 0.2)]
    assert told(apart, 96) == (
        "Layer 1 follows the teacher (error 0.10); layer 4 follows the teacher (error 0.20)."
    )


def test_layers_that_a_probe_compares_are_not_said_to_learn() -> None:
    assert standings(losses(0.4), 1, 2, None)[0].is_learnt is False
    assert standings(losses(0.4, term="hidden"), 1, 2, None)[0].is_learnt is True


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_layer_without_a_number_is_left_out(value: float) -> None:
    assert [row.layer for row in standings(losses(value, 0.4), 2, 2, TEACHER)] == [2]
    assert standings([], 2, 2, TEACHER) == []
    assert standings([LayerLoss(0, 3, 7, 8.0, "prediction")], 2, 2, TEACHER) == []


def test_another_teacher_layer_is_named_only_where_it_is_clearly_more_alike() -> None:
    rows = [Standing(1, (1,), 0.0, 0.9, 0.5), Standing(2, (2,), 0.0, 0.9, 0.5)]
    alike = [[1.0, 0.5, 0.2, 0.1], [0.3, 0.6, 0.9, 0.1], [0.1, 0.52, 0.5, 0.1]]
    assert nearer(rows, alike) == [(1, 2, 0.9, 0.6)]
    last = [Standing(1, (3,), 0.0, 0.9, 0.5)]  # whatever it is like, the teacher's last layer is wanted
    assert nearer(last, alike) == []
    assert nearer(rows, []) == []
    assert nearer(rows, [[1.0, 0.0, 0.0]]) == []


def test_the_three_parts_of_a_layer_end_at_its_start_and_the_mark_at_its_error() -> None:
    [row] = standings(losses(0.45), 1, 2, TEACHER)
    reach, missing, learnt, mark = layer_figures.standing_figure([row], 1).data
    assert [*reach.x, *missing.x, *learnt.x] == pytest.approx([0.3, 0.2, 0.3])
    assert list(mark.x) == pytest.approx([0.5])
    worse = Standing(1, (1,), 0.7, 0.4, 0.6)  # above its start, and by rounding below its floor
    assert [trace.x[0] for trace in layer_figures.standing_figure([worse], 1).data] == pytest.approx(
        [0.6, 0, 0, 0.6]
    )


def test_24_layers_are_each_a_row_and_alike_by_name() -> None:
    rows = [Standing(layer, (layer,), 0.1, 0.9, 0.5) for layer in range(1, 25)]
    assert layer_figures.standing_figure(rows, 24).layout.height > 24 * 20
    square = [[0.5] * 25 for _ in range(25)]
    drawn = json.loads(layer_figures.similarity_figure(square, square).to_json() or "")
    assert drawn["data"][0]["y"][:2] == ["emb", "1"]
    assert len(drawn["data"][1]["z"]) == 25


def test_another_students_layers_stand_at_the_same_relative_depth() -> None:
    deep = Profile("deep", {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}, 4)
    assert [deep.at(layer, 2) for layer in (1, 2)] == pytest.approx([0.2, 0.4])
    assert [deep.at(layer, 8) for layer in (1, 2, 3)] == pytest.approx([0.1, 0.1, 0.15])  # its first
    assert Profile("one", {1: 0.5}, 1).at(1, 3) == 0.5


def test_a_layer_without_a_number_is_passed_over_and_a_student_without_any_has_none() -> None:
    assert Profile("gap", {1: 0.1, 2: math.nan, 3: 0.3}, 3).at(2, 3) == pytest.approx(0.2)
    assert math.isnan(Profile("none", {1: math.nan}, 1).at(1, 1))
    assert math.isnan(Profile("none", {}, 2).at(1, 1))


def test_the_median_of_the_frontier_is_taken_layer_by_layer() -> None:
    profiles = [Profile(str(error), {1: error, 2: 2 * error}, 2) for error in (0.1, 0.2, 0.4)]
    profiles.append(Profile("none", {1: math.nan}, 1))
    found = median_of(profiles, 2)
    assert found.name == "the frontier's median"
    assert found.errors == pytest.approx({1: 0.2, 2: 0.4})


def test_the_mark_of_another_student_is_within_the_figure() -> None:
    [row] = standings(losses(0.45), 1, 2, TEACHER)
    figure = layer_figures.standing_figure([row], 1, Profile("worse", {1: 1.4}, 1))
    assert figure.data[-1].x == (1.4,)
    assert figure.layout.xaxis.range[1] > 1.4
