from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.run import budget_control, budgets_section
from kdnas_core.errors import BadInput
from kdnas_core.runs.records import Run
from kdnas_core.spec import LatencySpec
from tests.filled_store import fill


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return live.read_run(tmp_path / "runs.db", fill(tmp_path / "runs.db", episodes=1)).run


@pytest.mark.parametrize("typed", ["7.5", "7.5 ms", " 7.5ms ", "7.50 MS"])
def test_a_budget_is_typed_in_ms(run: Run, typed: str) -> None:
    assert budget_control.milliseconds(typed, run) == 7.5


@pytest.mark.parametrize("typed", ["2.5x", "2.5 ×", "2.5X"])
def test_a_budget_is_typed_as_a_speed_up_over_the_teacher(run: Run, typed: str) -> None:
    teacher = progress.teacher_ms(run)
    assert teacher is not None
    assert budget_control.milliseconds(typed, run) == pytest.approx(teacher / 2.5)


@pytest.mark.parametrize("typed", ["", "fast", "-3", "0", "0x", "1e3", "nan", "inf", "3y", "9" * 400])
def test_what_is_no_budget_is_refused_in_a_sentence_that_says_what_to_type(run: Run, typed: str) -> None:
    with pytest.raises(BadInput, match="type ms, such as"):
        budget_control.milliseconds(typed, run)


def test_a_runs_own_budget_as_it_is_shown_is_the_exact_one(run: Run) -> None:
    own = progress.budget_of(run)
    assert own is not None
    assert budget_control.milliseconds(f"{own:.2f} ms", run) == own


def test_several_budgets_keep_their_order_and_lose_repeats(run: Run) -> None:
    found = budgets_section.budgets("5x, 7 ms; 2x, 5X,", run)
    assert [(each.budget_speedup, each.budget_ms) for each in found] == [(5, None), (None, 7), (2, None)]
    with pytest.raises(BadInput, match="No budget"):
        budgets_section.budgets(" , ", run)


def test_a_run_with_one_budget_is_compared_with_tighter_ones_and_one_with_several_by_its_own(
    run: Run,
) -> None:
    words = budgets_section.usual(run).split(", ")
    limits = [budget_control.milliseconds(word, run) for word in words]
    assert len(limits) > 2
    assert limits == sorted(limits, key=float, reverse=True)  # type: ignore[arg-type]
    several = run.spec.model_copy(update={"latency": LatencySpec(budget_speedup=[2.0, 8.0])})
    assert budgets_section.usual(dataclasses.replace(run, spec=several)) == "2x, 8x"
