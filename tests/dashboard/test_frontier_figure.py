from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, get_args

import plotly.graph_objects as go
import pytest

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.model.knobs import KNOBS
from kdnas_core.dashboard.model.layer_terms import Depths
from kdnas_core.dashboard.model.progress import Limit
from kdnas_core.dashboard.model_page import layer_figures
from kdnas_core.dashboard.run import frontier_figure, progress_figures
from kdnas_core.dashboard.run.frontier_figure import COSTS, View
from kdnas_core.dashboard.ui import charts, tables
from kdnas_core.runs.picks import Pick
from kdnas_core.runs.records import Candidate, LayerLoss
from kdnas_core.runs.store import opened
from kdnas_core.spec import LatencySpec, Use, Yardstick
from tests.filled_store import fill, reading

SMALL = Architecture(2, 96, 384, 3)
NINE = Limit(9.0)


def candidate(
    number: int, ms: float | None, loss: float | None, state: str = "done", **more: Any
) -> Candidate:
    latency = None if ms is None else dataclasses.replace(reading(1.0), p50=ms)
    fields: dict[str, Any] = {
        "id": number, "run": 1, "episode": 1, "state": state, "architecture": SMALL, "parameters": 1,
        "flops": 1, "latency": latency, "loss": loss, "reward": 0.5, "predicted_reward": None, "scores": {},
        "seconds": 1.0, "error": None, "notes": (), "languages": {}, "step": 0, "steps": 0, "weights": False,
    }  # fmt: skip
    return Candidate(**{**fields, **more})


ROWS = [
    candidate(1, 4.0, 0.6),
    candidate(2, 6.0, 0.5),
    candidate(3, 5.0, 0.7),
    candidate(4, 12.0, 0.3),
    candidate(5, 15.0, None, "over_budget"),
    candidate(6, None, None, "failed", reward=None),
    candidate(7, None, None, "proposed", reward=None),
]


def trace(figure: go.Figure, name: str) -> Any:
    [found] = [trace for trace in figure.data if trace.name == name]
    return found


def frontier(rows: list[Candidate] = ROWS, **more: Any) -> go.Figure:
    limit = more.pop("limit", NINE)
    found = Findings.of(rows, limit)
    more["chosen"] = next((row for row in rows if row.id == more.get("chosen")), None)
    return frontier_figure.frontier_figure(found, **{"teacher_ms": 18.5, **more})


def test_the_picks_of_several_budgets_are_a_table() -> None:
    best, other = candidate(2, 6.0, 0.5, loss_se=0.03), candidate(1, 4.0, 0.6, loss_se=0.04)
    one, none = LatencySpec(budget_ms=9.0), LatencySpec(budget_speedup=7.0)
    rows = tables.picks_table([Pick(one, best, other), Pick(none, None, None)]).to_dict("records")
    assert (rows[0]["Budget"], rows[0]["Candidate"], rows[0]["Value"]) == (
        "9.00 ms",
        2,
        "agreement 50.0 ± 3.0 %",
    )
    assert rows[0]["Ahead of the next"] == "10.0 ± 5.0 points (candidate 1)"
    assert (rows[1]["Budget"], rows[1]["Student"]) == ("7×", wording.UNKNOWN)


def test_a_pick_that_is_tied_with_a_better_and_slower_one_says_so() -> None:
    pick, better = candidate(2, 6.0, 0.5, loss_se=0.03), candidate(1, 8.0, 0.49, loss_se=0.04)
    (row,) = tables.picks_table([Pick(LatencySpec(budget_ms=9.0), pick, better, (better,))]).to_dict(
        "records"
    )
    assert row["Ahead of the next"] == "1.0 ± 5.0 points behind candidate 1, which is slower"
    assert row["Tied with"] == "1"
    assert wording.tie([better]).startswith("Tied with candidate 1, which is slower")
    assert wording.tie([better, pick]).startswith("Tied with candidates 1, 2, which are slower")


def test_the_frontier_is_drawn_through_the_undominated_students_within_budget() -> None:
    line = trace(frontier(), "Pareto frontier")
    assert (list(line.x), list(line.y)) == ([4.0, 6.0], [40.0, 50.0])


def test_a_point_carries_the_id_of_its_candidate_as_a_plain_number() -> None:
    assert trace(frontier(), "Pareto frontier").customdata == (1, 2)
    assert json.loads(frontier().to_json())["data"][0]["customdata"] == [5]


def test_a_student_over_the_budget_is_neither_on_the_frontier_nor_best() -> None:
    assert list(trace(frontier(), "over this budget").customdata) == [4]
    assert list(trace(frontier(), "pick within budget").customdata) == [2]


def test_a_larger_budget_makes_the_same_student_best() -> None:
    assert list(trace(frontier(limit=Limit(13.0)), "pick within budget").customdata) == [4]


def test_a_candidate_that_was_never_distilled_is_a_tick_at_the_bottom_edge() -> None:
    figure = frontier()
    tick = trace(figure, "over the search's budget, not distilled")
    assert tick.x[0] == 15.0
    assert tick.y[0] == pytest.approx(figure.layout.yaxis.range[0], rel=0.05)
    assert tick.y[0] < min(trace(figure, "within budget").y)


def test_the_agreement_is_told_with_what_it_is_of() -> None:
    titles = [frontier(yardstick=name).layout.yaxis.title.text for name in (None, "vectors", "layers")]
    assert titles == [
        "agreement with the teacher, %",
        "agreement with the teacher, % (sentence vectors)",
        "agreement with the teacher, % (hidden states, mean over layers)",
    ]


def test_every_yardstick_and_use_has_words_of_its_own() -> None:
    assert set(wording.YARDSTICKS) == set(get_args(Yardstick))
    assert set(wording.USES) == set(get_args(Use))
    titles = [wording.criterion(ROWS, name) for name in wording.YARDSTICKS]
    assert len(set(titles)) == len(titles)


def test_an_agreement_has_its_standard_error_as_a_bar_in_per_cent() -> None:
    rows = [candidate(1, 4.0, 0.6, loss_se=0.006), candidate(2, 6.0, 0.5), *ROWS[2:]]
    figure = frontier(rows)
    bars = trace(figure, "Pareto frontier").error_y
    assert bars.visible
    assert list(bars.array) == pytest.approx([0.6, 0.0])
    assert not trace(figure, "within budget").error_y.visible


def test_no_bar_is_drawn_where_no_loss_has_a_standard_error_or_a_score_is_drawn() -> None:
    scored = [candidate(1, 4.0, 0.6, loss_se=0.006, scores={"sst2 (proxy)": 0.8})]
    for figure in (frontier(), frontier(scored)):
        assert not any(line.error_y.visible for line in figure.data)


def test_each_trace_has_an_identity_so_that_what_is_hidden_stays_hidden() -> None:
    before, after = frontier(), frontier([*ROWS, PRUNED])
    assert {line.uid for line in before.data} < {line.uid for line in after.data}


def test_the_budget_is_drawn_on_the_axis_of_its_reading_alone() -> None:
    def notes(cost: str, limit: Limit) -> list[str]:
        figure = frontier(view=View(cost), limit=limit)
        return [note.text.split()[0] for note in figure.layout.annotations]

    assert notes("p50", Limit(9.0)) == ["budget", "teacher"]
    assert notes("p95", Limit(9.0, "p95")) == ["budget"]
    assert notes("p95", Limit(9.0)) == notes("parameters", Limit(9.0)) == []


@pytest.mark.parametrize("cost", list(COSTS))
@pytest.mark.parametrize("is_log", [False, True])
def test_any_axis_is_drawn_with_any_knob(cost: str, is_log: bool) -> None:
    for knob in (None, *KNOBS):
        figure = frontier(view=View(cost, is_log, knob))
        assert trace(figure, "Pareto frontier").x[0] > 0
        low, high = figure.layout.xaxis.range
        assert low < high
        figure.to_json()


def test_on_a_logarithmic_axis_a_note_stands_at_the_logarithm() -> None:
    figure = frontier(view=View(is_log=True))
    assert figure.layout.annotations[0].x == pytest.approx(math.log10(9.0))
    assert figure.layout.shapes[0].x0 == 9.0


def test_kinds_of_points_can_be_left_out() -> None:
    rows = [*ROWS, PRUNED, SKIPPED]
    every = {line.name for line in frontier(rows).data}
    left = {line.name for line in frontier(rows, view=View(without=("over budget", "stopped early"))).data}
    assert every - left == {
        "over the search's budget, not distilled",
        "over budget, estimated",
        "over this budget",
        "stopped early",
    }


def test_of_thousands_of_points_none_that_matters_is_left_out_and_the_rest_is_counted() -> None:
    many = [candidate(100 + number, 5.0 + number / 1e5, 0.8) for number in range(3_000)]
    figure = frontier([*ROWS, *many])
    drawn = trace(figure, "within budget").customdata
    assert len(drawn) < 50
    assert frontier_figure.behind(figure) == len(many) + 1 - len(drawn)
    assert list(trace(figure, "Pareto frontier").customdata) == [1, 2]
    assert frontier_figure.behind(frontier()) == 0


def test_the_gain_of_each_ms_is_over_the_pick_of_the_next_budget() -> None:
    slow, fast = candidate(2, 6.0, 0.5), candidate(1, 4.0, 0.6)
    one, two = LatencySpec(budget_ms=9.0), LatencySpec(budget_ms=5.0)
    rows = tables.picks_table([Pick(one, slow, fast), Pick(two, fast, None), Pick(two, None, None)])
    assert list(rows["Gain for each ms"]) == [
        "5.0 points, over candidate 1",
        wording.UNKNOWN,
        wording.UNKNOWN,
    ]


def test_the_choice_is_a_ring_of_its_own() -> None:
    assert list(trace(frontier(chosen=3), "your choice").customdata) == [3]
    assert "your choice" not in [trace.name for trace in frontier(chosen=99).data]


SKIPPED = candidate(9, None, None, "over_budget", reward=None, estimated_ms=14.2, parameters=None)


def test_a_candidate_that_was_only_estimated_is_a_cross_of_its_own_that_says_so() -> None:
    figure = frontier([*ROWS, SKIPPED])
    cross = trace(figure, "over budget, estimated")
    assert (list(cross.x), cross.customdata) == ([14.2], (9,))
    assert cross.y[0] == trace(figure, "over the search's budget, not distilled").y[0]
    assert "≈ 14 ms, estimated, not measured" in cross.text[0]
    assert trace(figure, "over the search's budget, not distilled").customdata == (5,)
    assert list(trace(frontier([*ROWS, SKIPPED], chosen=9), "your choice").customdata) == [9]


def test_a_candidate_that_was_only_estimated_moves_no_axis_and_is_never_picked_by_any_budget() -> None:
    rows = [*ROWS, candidate(9, None, None, "over_budget", reward=None, estimated_ms=1.0)]
    for budget in (2.0, 9.0, 1e3):
        with_it, without = frontier(rows, limit=Limit(budget)), frontier(limit=Limit(budget))
        assert with_it.layout.xaxis.range == without.layout.xaxis.range
        for name in ("Pareto frontier", "pick within budget", "within budget"):
            ids = [list(line.customdata) for line in with_it.data if line.name == name]
            assert ids == [list(line.customdata) for line in without.data if line.name == name]
    assert progress.best_within(rows, Limit(2.0)) is None


PRUNED = candidate(9, None, 0.6, "pruned", estimated_ms=7.1, step=33, steps=200)


def test_a_candidate_that_was_stopped_early_is_drawn_at_its_agreement_then_and_says_so() -> None:
    mark = trace(frontier([*ROWS, PRUNED]), "stopped early")
    assert (list(mark.x), [round(y) for y in mark.y], mark.customdata) == ([7.1], [40], (9,))
    assert "≈ 7.1 ms, estimated, not measured" in mark.text[0]
    assert "stopped after 33 of 200 steps, agreement 40.0 % then" in mark.text[0]
    before = trace(frontier([dataclasses.replace(PRUNED, step=0)]), "stopped early").text[0]
    assert "stopped before the first of 200 steps, agreement 40.0 % then" in before
    measured = dataclasses.replace(PRUNED, latency=ROWS[0].latency)
    assert "4.00 ms" in trace(frontier([measured]), "stopped early").text[0]


def test_a_candidate_that_was_stopped_early_is_never_on_the_frontier_nor_picked() -> None:
    best = dataclasses.replace(PRUNED, loss=0.01, latency=ROWS[0].latency)
    assert Findings.of([*ROWS, best], NINE).frontier == Findings.of(ROWS, NINE).frontier
    assert progress.best_within([*ROWS, best], NINE) == progress.best_within(ROWS, NINE)
    assert progress.hypervolumes([*ROWS, best], 9.0)[-1][1] == progress.hypervolumes(ROWS, 9.0)[-1][1]


def test_the_reward_of_a_candidate_that_was_stopped_early_is_no_best() -> None:
    best = dataclasses.replace(PRUNED, reward=0.99)
    assert progress.episode_rewards([*ROWS, best])[-1].best_so_far == 0.5
    assert 0.99 in progress.episode_rewards([*ROWS, best])[-1].rewards


def test_the_steps_saved_are_a_share_of_those_that_all_would_have_taken() -> None:
    whole = [dataclasses.replace(row, step=row.steps, steps=200) for row in ROWS]
    assert progress.steps_saved(whole) == 0
    assert progress.steps_saved([*whole, PRUNED]) == pytest.approx(167 / 1_000)
    assert progress.steps_saved(ROWS[-1:]) == 0


def test_the_table_tells_an_estimate_apart_from_what_was_measured() -> None:
    table = tables.candidates_table([*ROWS, SKIPPED])
    assert table["Latency p50 (ms)"].isna().sum() == 3
    assert list(table["Not measured"])[-1] == "≈ 14 ms, estimated"
    assert list(table["Not measured"])[:-1] == [""] * 5 + ["–"] * 2  # failed, or not yet measured
    assert "Not measured" not in tables.candidates_table(ROWS)


@pytest.mark.parametrize(
    ("value", "words"),
    [(14.2, "≈ 14 ms, estimated"), (9.34, "≈ 9.3 ms, estimated"), (0.123, "≈ 0.12 ms, estimated")],
)
def test_an_estimate_reads_with_no_more_digits_than_it_deserves(value: float, words: str) -> None:
    assert wording.estimated(value) == words


def test_the_axes_stay_where_they_are_as_points_arrive_within_them() -> None:
    before, after = frontier(ROWS[:4]), frontier([*ROWS[:4], candidate(8, 4.5, 0.55)])
    assert before.layout.xaxis.range == after.layout.xaxis.range
    assert before.layout.yaxis.range == after.layout.yaxis.range


def test_one_diverged_student_does_not_flatten_the_others() -> None:
    figure = frontier([*ROWS, candidate(9, 3.0, 1e6)])
    assert figure.layout.yaxis.range[0] > -100
    assert min(trace(figure, "within budget").y) > -100


def test_a_slow_student_is_drawn_at_the_edge_and_tells_its_true_latency() -> None:
    figure = frontier([*ROWS, candidate(9, 900.0, None, "over_budget")])
    tick = trace(figure, "over the search's budget, not distilled")
    assert max(tick.x) < 30
    assert "900.00 ms" in tick.text[1]


def test_budget_and_teacher_are_named_with_their_milliseconds() -> None:
    assert [note.text for note in frontier().layout.annotations] == ["budget 9.00 ms", "teacher 18.50 ms"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_every_figure_of_a_run_is_drawn_whatever_the_rows_hold(rows: int, value: float | None) -> None:
    odd = [candidate(number, value, value, reward=value) for number in range(rows)]
    for budget in (None, 9.0):
        frontier(odd, limit=budget and Limit(budget), teacher_ms=None, chosen=0).to_json()
        progress_figures.hypervolume_figure(odd, budget).to_json()
    progress_figures.reward_figure(odd).to_json()


def test_the_same_rows_give_the_same_figure() -> None:
    assert frontier().to_json() == frontier().to_json()


def test_hypervolume_grows_with_each_better_student_and_never_falls() -> None:
    line = progress_figures.hypervolume_figure(ROWS, 9.0).data[0]
    assert list(line.x) == [1, 2, 3, 4, 5, 6]
    # within 9 ms and a loss of 1: (9-4) * (1-0.6), and (9-6) * (0.6-0.5) more, of 9
    assert list(line.y) == pytest.approx([100 * 2 / 9, 100 * 2.3 / 9] + [100 * 2.3 / 9] * 4)


def test_a_student_over_the_budget_adds_no_hypervolume() -> None:
    assert list(progress_figures.hypervolume_figure([candidate(1, 12.0, 0.3)], 9.0).data[0].y) == [0.0]


def test_rewards_are_shown_by_episode_with_their_mean_and_the_best_so_far() -> None:
    rows = [
        candidate(1, 4.0, 0.6, reward=0.4),
        candidate(2, 4.0, 0.6, reward=0.6),
        candidate(3, 4.0, 0.6, episode=2, reward=0.5),
    ]
    figure = progress_figures.reward_figure(rows)
    assert list(trace(figure, "mean").y) == pytest.approx([0.5, 0.5])
    assert list(trace(figure, "best so far").y) == [0.6, 0.6]


def test_the_heat_map_shows_the_last_losses_of_the_mapping_and_leaves_other_pairs_empty() -> None:
    losses = [LayerLoss(0, 1, 3, 0.9), LayerLoss(20, 1, 3, 0.4), LayerLoss(20, 2, 6, 0.5)]
    cells = layer_figures.mapping_figure(losses, Depths(2, 6)).data[-1]
    assert list(cells.x) == ["1", "2", "3", "4", "5", "6"]
    assert [list(row) for row in cells.z] == [[None, None, 0.4, None, None, None], [None] * 5 + [0.5]]


def test_each_pair_of_the_mapping_has_its_own_curve() -> None:
    losses = [LayerLoss(step, 1, target, 0.5) for step in (0, 20) for target in (3, 5)]
    figure = layer_figures.curves_figure(losses, Depths(2, 6))
    assert [line.name for line in figure.data] == ["1 ← 3", "1 ← 5"]
    assert list(figure.data[0].x) == [0, 20]
    assert layer_figures.mapping(losses) == {1: [3, 5]}


def test_the_embedding_and_the_prediction_layer_are_named() -> None:
    losses = [LayerLoss(0, 0, 0, 0.9), LayerLoss(0, 2, 6, 0.5), LayerLoss(0, 3, 7, 9.0)]
    cells = layer_figures.mapping_figure(losses, Depths(2, 6)).data[-1]
    assert list(cells.x) == ["embedding", "1", "2", "3", "4", "5", "6", "prediction"]
    assert list(cells.y) == ["embedding", "2", "prediction"]
    figure = layer_figures.curves_figure(losses, Depths(2, 6))
    assert [line.name for line in figure.data] == [
        "embedding ← embedding",
        "2 ← 6",
        "prediction ← prediction",
    ]
    words = layer_figures.mapping_words(losses, Depths(2, 6))
    assert words == "embedding ← embedding · 2 ← 6 · prediction ← prediction"


def test_the_colours_of_a_term_that_is_not_normalised_end_at_its_largest_loss() -> None:
    last = [LayerLoss(20, 1, 3, 40.0, "attention"), LayerLoss(20, 2, 6, 250.0, "attention")]
    losses = [LayerLoss(0, 1, 3, 400.0, "attention"), *last]
    cells = layer_figures.mapping_figure(losses, Depths(2, 6), normalised=False).data[-1]
    assert (cells.zmin, cells.zmax) == (0, 400.0)
    assert [text for row in cells.text for text in row if text] == ["40.0", "250"]
    assert layer_figures.mapping_figure(losses, Depths(2, 6)).data[-1].zmax == 1


def test_a_term_whose_losses_are_all_nought_or_no_numbers_still_has_colours() -> None:
    for loss in (0.0, math.inf):
        losses = [LayerLoss(20, 1, 3, loss, "attention")]
        assert layer_figures.mapping_figure(losses, Depths(2, 6), normalised=False).data[-1].zmax == 1


def test_languages_are_bars_with_the_worst_on_top() -> None:
    figure = layer_figures.language_figure({"en": 0.2, "sw": 0.6, "de": 0.3, "xx": math.inf})
    assert list(figure.data[0].y) == ["xx", "sw", "de", "en"]
    assert list(figure.data[0].x) == [None, 0.6, 0.3, 0.2]
    assert figure.layout.yaxis.autorange == "reversed"
    assert layer_figures.alt({"en": 0.2, "sw": 0.6}).endswith("2 languages, from sw 0.600 to en 0.200")


def test_a_hundred_languages_and_one_without_a_number_are_drawn() -> None:
    many = layer_figures.language_figure({f"l{number}": number / 100 for number in range(100)})
    assert many.layout.height > 2_000
    layer_figures.language_figure({"en": math.nan}).to_json()
    layer_figures.language_figure({"en": 0.0}).to_json()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_leaves_a_gap(loss: float) -> None:
    losses = [LayerLoss(0, 1, 1, loss)]
    assert layer_figures.curves_figure(losses, Depths(2, 6)).data[0].y[0] is None
    assert layer_figures.mapping_figure(losses, Depths(1, 1)).data[-1].z[0][0] is None


def test_a_candidate_without_losses_has_empty_figures() -> None:
    layer_figures.mapping_figure([], Depths(2, 6)).to_json()
    assert not layer_figures.curves_figure([], Depths(2, 6)).data


def test_the_latency_figure_shows_every_timed_run_and_names_p50_and_p95() -> None:
    measured = reading(5.0)
    figure = layer_figures.latency_figure(measured)
    assert len(figure.data[0].x) == len(measured.samples)
    assert [note.text[:3] for note in figure.layout.annotations] == ["p50", "p95"]


def test_the_colours_of_the_charts_are_those_of_both_themes() -> None:
    config = (Path(__file__).resolve().parents[2] / ".streamlit" / "config.toml").read_text()
    assert len(charts.CATEGORICAL) == 10
    assert config.count(json.dumps(list(charts.CATEGORICAL))) == 2


def test_the_figures_of_a_whole_store_hold_its_rows(tmp_path: Path) -> None:
    run = fill(tmp_path / "runs.db")
    with opened(tmp_path / "runs.db", read_only=True) as store:
        rows = store.candidates(run)
    drawn = {number for line in frontier(rows).data for number in line.customdata}
    assert drawn == {row.id for row in rows if row.state in ("done", "over_budget")}
