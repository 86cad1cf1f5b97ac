from __future__ import annotations

import math

import pytest

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard.model.layer_terms import by_layer
from kdnas_core.dashboard.run.layer_strip import strip
from kdnas_core.runs.records import LayerLoss
from tests.dashboard.test_frontier_figure import candidate

SHALLOW = candidate(1, 4.0, 0.6)
DEEP = candidate(2, 6.0, 0.5, architecture=Architecture(24, 96, 384, 3))


def test_each_row_is_as_long_as_any_other_and_each_layer_an_equal_part_of_it() -> None:
    bars = strip([SHALLOW, DEEP], {1: {1: 0.2, 2: 0.4}, 2: dict.fromkeys(range(1, 25), 0.5)}, None).data[0]
    assert list(bars.base[:2]) == [0, 0.5]
    assert sum(bars.x[:2]) == pytest.approx(1)
    assert len(bars.x) == 26
    assert sum(bars.x[2:]) == pytest.approx(1)
    assert list(bars.customdata[:3]) == [1, 1, 2]
    assert list(bars.marker.color[:3]) == [0.2, 0.4, 0.5]


def test_a_layer_without_a_number_is_a_gap_and_a_diverged_one_has_the_last_colour() -> None:
    bars = strip([SHALLOW], {1: {1: math.nan, 2: 1e9}}, None).data[0]
    assert (list(bars.base), list(bars.marker.color)) == ([0.5], [1.0])
    assert not strip([SHALLOW], {1: {1: math.nan, 2: math.inf}}, 1).data[0].x
    assert not strip([], {}, 1).data[0].x


def test_the_chosen_row_has_a_frame() -> None:
    line = strip([SHALLOW, DEEP], {1: {1: 0.2}, 2: {1: 0.2}}, 1).data[0].marker.line
    assert line.width[0] > line.width[1]


def test_a_layer_has_the_error_of_a_probe_if_there_is_one_else_of_what_it_learns() -> None:
    probed = [LayerLoss(20, 1, 2, 0.3, "hidden_probe"), LayerLoss(20, 1, 4, 0.5, "hidden_probe")]
    learnt = [LayerLoss(20, 1, 3, 0.9), LayerLoss(20, 2, 6, 0.7)]
    assert by_layer({1: [*probed, *learnt], 2: learnt}) == {1: {1: 0.4}, 2: {1: 0.9, 2: 0.7}}
    assert by_layer({1: [], 2: [LayerLoss(20, 3, 7, 8.0, "prediction")]}) == {1: {}, 2: {}}
    assert by_layer({}) == {}
