from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model.progress import Limit
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.run import budget_control, budgets_section
from kdnas_core.errors import BadInput
from kdnas_core.runs.measured import Measured
from kdnas_core.runs.records import Candidate, Run
from kdnas_core.spec import LatencySpec
from tests.dashboard.test_frontier_figure import candidate
from tests.filled_store import fill


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return live.read_run(tmp_path / "runs.db", fill(tmp_path / "runs.db", episodes=1)).run


@pytest.mark.parametrize("typed", ["7.5", "7.5 ms", " 7.5ms ", "7.50 MS"])
def test_a_budget_is_typed_in_ms(run: Run, typed: str) -> None:
    assert budget_control.limit_of(typed, run) == Limit(7.5)


@pytest.mark.parametrize("typed", ["2.5x", "2.5 ×", "2.5X"])
def test_a_budget_is_typed_as_a_speed_up_over_the_teacher(run: Run, typed: str) -> None:
    teacher = progress.teacher_ms(run)
    assert teacher is not None
    found = budget_control.limit_of(typed, run)
    assert found is not None
    assert found.ms == pytest.approx(teacher / 2.5)
    assert found.speedup == 2.5


@pytest.mark.parametrize("typed", ["", "fast", "-3", "0", "0x", "1e3", "nan", "inf", "3y", "9" * 400])
def test_what_is_no_budget_is_refused_in_a_sentence_that_says_what_to_type(run: Run, typed: str) -> None:
    with pytest.raises(BadInput, match="type ms, such as"):
        budget_control.limit_of(typed, run)


def test_a_runs_own_budget_as_it_is_shown_is_the_exact_one(run: Run) -> None:
    own = progress.budget_of(run)
    assert own is not None
    assert budget_control.limit_of(f"{own:.2f} ms", run) == Limit(own, speedup=2.0)


def test_several_budgets_keep_their_order_and_lose_repeats(run: Run) -> None:
    found = budgets_section.budgets("5x, 7 ms; 2x, 5X,", run)
    assert [(each.budget_speedup, each.budget_ms) for each in found] == [(5, None), (None, 7), (2, None)]
    for text in (" , ", ",".join(str(number) for number in range(1, 22))):
        with pytest.raises(BadInput, match="Type 1 to 20 budgets"):
            budgets_section.budgets(text, run)


def test_a_run_with_one_budget_is_compared_with_tighter_ones_and_one_with_several_by_its_own(
    run: Run,
) -> None:
    limits = [budget_control.limit_of(word, run) for word in budgets_section.usual(run).split(", ")]
    assert len(limits) > 2
    found = [limit.ms for limit in limits if limit is not None]
    assert found == sorted(found, reverse=True)
    several = run.spec.model_copy(update={"latency": LatencySpec(budget_speedup=[2.0, 8.0])})
    assert budgets_section.usual(dataclasses.replace(run, spec=several)) == "2x, 8x"


@pytest.mark.parametrize("budget", [2.0, 0.0123456789, 1234567.25])
def test_a_runs_own_budget_is_read_again_as_the_very_same(run: Run, budget: float) -> None:
    for field in ("budget_ms", "budget_speedup"):
        latency = LatencySpec.model_validate({field: [budget, budget / 3]})
        own = dataclasses.replace(run, spec=run.spec.model_copy(update={"latency": latency}))
        if budget < 1e6:
            assert tuple(budgets_section.budgets(budgets_section.usual(own), own)) == latency.budgets


def allows(limit: Limit, row: Candidate) -> bool:
    [allowed] = limit.allowed(Measured.of([row])).tolist()
    return bool(allowed)


def test_a_speed_up_must_hold_against_the_teachers_runs_beside_a_students_own() -> None:
    row = candidate(1, 4.0, 0.5)  # its teacher took 18.5 ms beside it
    assert allows(Limit(5.0, speedup=4.0), row)
    assert not allows(Limit(5.0, speedup=5.0), row)
    assert not allows(Limit(3.9, speedup=4.0), row)


def test_a_budget_by_p95_leaves_out_what_is_within_it_by_p50_alone() -> None:
    row = candidate(1, 4.0, 0.5)
    assert row.latency is not None
    late = dataclasses.replace(row, latency=dataclasses.replace(row.latency, p95=9.0))
    assert allows(Limit(5.0), late)
    assert not allows(Limit(5.0, "p95"), late)
