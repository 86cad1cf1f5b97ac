from __future__ import annotations

import math

import pytest

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard.model import forecast
from kdnas_core.dashboard.new_search import latency_form, space_figure
from kdnas_core.dashboard.new_search.latency_form import MILLISECONDS, SPEEDUP
from kdnas_core.errors import BadInput
from kdnas_core.latency.model import LatencyModel, work
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import KDNAS_SPACE, LatencySpec, SpaceSpec
from tests.filled_store import TEACHER, TEACHER_MS

HALF = LatencySpec(budget_speedup=2.0)
SPACE = SearchSpace((1, 2, 3, 4, 6), (96, 192, 288, 384), (384, 768, 1536), (3, 6, 12), ("gelu",))
LARGE = SearchSpace.from_spec(
    SpaceSpec(**{**KDNAS_SPACE.model_dump(), "layers": list(range(1, 13))}), Architecture(12, 768, 3072, 12)
)


def a_model(ms_for_a_layer: float = 2.0, p90_error: float = 0.11) -> LatencyModel:
    """A model by which each layer takes the same time, independent of its width."""
    kinds = len(work(TEACHER, 1, 128))
    return LatencyModel((0.0, ms_for_a_layer, *([0.0] * (kinds - 2))), 23, 0.04, p90_error)


def foreseen(
    protocol: LatencySpec = HALF,
    *,
    teacher_ms: float | None = TEACHER_MS,
    model: LatencyModel | None = None,
    space: SearchSpace = SPACE,
) -> forecast.Forecast:
    return forecast.make_forecast(protocol, space, TEACHER, teacher_ms, model)


def test_without_a_model_latency_is_in_proportion_to_flops_from_the_teachers() -> None:
    seen = foreseen()
    expected = [TEACHER_MS * shape.flops(128) / TEACHER.flops(128) for shape in SPACE]
    assert seen.milliseconds == pytest.approx(expected)
    assert seen.budget_ms == TEACHER_MS / 2
    assert seen.within == [shape for shape, ms in zip(SPACE, expected, strict=True) if ms <= TEACHER_MS / 2]


def test_with_a_model_its_estimates_are_taken() -> None:
    seen = foreseen(LatencySpec(budget_ms=7.0), model=a_model())
    assert seen.milliseconds == pytest.approx([2.0 * shape.layers for shape in SPACE])
    assert {shape.layers for shape in seen.within} == {1, 2, 3}


def test_the_batch_and_the_length_of_the_protocol_reach_the_model() -> None:
    model = LatencyModel(tuple(float(place == 7) for place in range(11)), 23, 0.04, 0.11)  # tokens x width
    short = foreseen(LatencySpec(budget_ms=7.0, sequence_length=64), model=model)
    long = foreseen(LatencySpec(budget_ms=7.0, sequence_length=128, batch_size=4), model=model)
    assert long.milliseconds == pytest.approx([8 * ms for ms in short.milliseconds])


def test_a_teacher_that_was_never_measured_is_estimated_too_and_that_is_said() -> None:
    seen = foreseen(teacher_ms=None, model=a_model())
    assert seen.budget_ms == pytest.approx(2.0 * TEACHER.layers / 2)
    assert seen.budget_is_estimated
    assert "≈ 6.0 ms, estimated" in forecast.in_words(seen)
    assert not foreseen(model=a_model()).budget_is_estimated


def test_where_nothing_was_measured_a_speed_up_is_judged_by_flops_and_no_milliseconds_are_told() -> None:
    seen = foreseen(teacher_ms=None)
    assert seen.within == foreseen().within
    assert seen.milliseconds == []
    assert "cannot be estimated yet" in forecast.in_words(seen)


def test_where_nothing_at_all_is_known_every_shape_may_be_within_the_budget() -> None:
    seen = foreseen(LatencySpec(budget_ms=0.01), teacher_ms=None)
    assert len(seen.within) == len(SPACE)
    assert seen.budget_ms is None


def test_only_a_model_that_is_good_enough_has_shapes_skipped_and_named_students_never_are() -> None:
    tight = LatencySpec(budget_ms=4.0)  # 1 and 2 layers within, 3 near it, 4 and 6 over 1.5 times
    assert foreseen(tight, model=a_model()).share_skipped == pytest.approx(0.4)
    assert foreseen(tight, model=a_model(p90_error=0.3)).share_skipped == 0
    assert foreseen(tight).share_skipped == 0
    named = SearchSpace.from_spec(SpaceSpec(presets=["bert-tiny", "tinybert6"]), TEACHER)
    assert foreseen(tight, model=a_model(), space=named).share_skipped == 0


def test_the_words_tell_how_many_are_expected_within_and_what_the_estimate_is_worth() -> None:
    by_model = forecast.in_words(foreseen(LatencySpec(budget_ms=7.0), model=a_model()))
    assert "108 of 180 architectures are expected within 7.00 ms" in by_model
    assert "23 latencies measured on this device" in by_model
    assert "4 % at the median, 11 % at p90" in by_model
    assert "by FLOPs alone" in forecast.in_words(foreseen())
    nothing = forecast.in_words(foreseen(LatencySpec(budget_ms=1.0), model=a_model()))
    assert "No architecture is expected within 1.00 ms" in nothing
    assert "the fastest takes ≈ 2.0 ms, estimated" in nothing


def test_of_a_large_space_the_same_sample_is_looked_at_each_time_and_that_is_said() -> None:
    seen = foreseen(space=LARGE)
    assert seen.total == len(LARGE) > forecast.MOST == len(seen.shapes)
    assert seen.shapes == foreseen(space=LARGE).shapes
    assert len({shape.hidden_act for shape in seen.shapes}) == 3  # no knob is left out by a stride
    every = [TEACHER_MS * shape.flops(128) / TEACHER.flops(128) <= TEACHER_MS / 2 for shape in LARGE]
    assert len(seen.within) / len(seen.shapes) == pytest.approx(sum(every) / len(every), abs=0.03)
    assert "2,000 of them, drawn at random" in forecast.in_words(seen)


def test_the_figure_has_every_shape_once_on_its_side_of_the_budget() -> None:
    seen = foreseen(LatencySpec(budget_ms=4.0), model=a_model())
    drawn = {trace.name: trace for trace in space_figure.space_figure(seen).data}
    assert {name: set(trace.x) for name, trace in drawn.items()} == {
        space_figure.WITHIN: {2.0, 4.0},
        space_figure.OVER: {6.0},
        space_figure.FAR: {8.0, 12.0},
    }
    assert sum(len(trace.x) for trace in drawn.values()) == SPACE.shapes()


def test_a_point_of_the_figure_tells_its_shape_and_that_it_is_an_estimate() -> None:
    figure = space_figure.space_figure(foreseen(model=a_model()))
    label = figure.data[0].text[0]
    assert "1 layer · hidden 96 · FFN 384" in label
    assert "and 2 more with other heads or activations" in label
    assert "≈ 2.0 ms, estimated" in label


def test_points_stand_in_the_row_of_their_layers_wider_ones_higher() -> None:
    [trace] = space_figure.space_figure(foreseen(LatencySpec(budget_ms=99.0))).data
    rows = {round(y) for y in trace.y}
    assert rows == {0, 1, 2, 3, 4}
    places = dict(zip(trace.text, trace.y, strict=True))
    [narrow] = [y for text, y in places.items() if text.startswith("2 layers · hidden 96 · FFN 384 ")]
    [wide] = [y for text, y in places.items() if text.startswith("2 layers · hidden 384 · FFN 384 ")]
    assert narrow < wide


def test_the_budget_is_named_where_its_line_stands_on_the_logarithmic_axis() -> None:
    figure = space_figure.space_figure(foreseen(LatencySpec(budget_ms=5.0)))
    [note] = figure.layout.annotations
    assert note.text == "5.00 ms"
    assert note.x == pytest.approx(math.log10(5.0))
    assert figure.layout.shapes[0].x0 == 5.0
    assert figure.layout.xaxis.range[0] < note.x < figure.layout.xaxis.range[1]


@pytest.mark.parametrize("budget", [1e-3, 1e4])
def test_a_budget_beyond_all_shapes_or_below_is_drawn_too(budget: float) -> None:
    figure = space_figure.space_figure(foreseen(LatencySpec(budget_ms=budget)))
    low, high = figure.layout.xaxis.range
    assert low < math.log10(budget) < high


def test_one_shape_alone_and_a_model_by_which_all_costs_nothing_are_drawn() -> None:
    one = SearchSpace.from_spec(SpaceSpec(presets=["bert-tiny"]), TEACHER)
    space_figure.space_figure(foreseen(space=one)).to_json()
    nothing = foreseen(LatencySpec(budget_ms=5.0), model=a_model(0.0))
    assert all(math.isfinite(x) for trace in space_figure.space_figure(nothing).data for x in trace.x)
    assert "180 of 180" in forecast.in_words(nothing)


def test_each_budget_has_a_line_with_its_latency_and_speed_up() -> None:
    figure = space_figure.space_figure(foreseen(LatencySpec(budget_speedup=[2.0, 4.0]), teacher_ms=18.0))
    assert [note.text for note in figure.layout.annotations] == ["2×: 9.00 ms", "4×: 4.50 ms"]
    assert [line.x0 for line in figure.layout.shapes] == [9.0, 4.5]


@pytest.mark.parametrize(
    ("given", "kind", "amount"),
    [(2.0, SPEEDUP, 2.0), ("3x", SPEEDUP, 3.0), (" 3.5 × ", SPEEDUP, 3.5), ("7.5 ms", MILLISECONDS, 7.5)],
)
def test_a_budget_is_read_with_its_unit_or_without(given: float | str, kind: str, amount: float) -> None:
    assert latency_form.amount_of(given, kind) == amount


@pytest.mark.parametrize(
    ("given", "kind"),
    [("3 ms", SPEEDUP), ("2x", MILLISECONDS), ("0", SPEEDUP), ("inf", SPEEDUP), ("", SPEEDUP)],
)
def test_what_is_no_budget_of_its_kind_is_refused(given: str, kind: str) -> None:
    with pytest.raises(BadInput, match="is no budget"):
        latency_form.amount_of(given, kind)
