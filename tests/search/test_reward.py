from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas_core.search.reward import budget_ms, kdnas_reward, loss_of, within_budget
from kdnas_core.spec import LatencySpec, RewardSpec
from tests.tiny import reading_of

PAPER = RewardSpec()
losses = st.floats(0, 1)
times = st.floats(1e-2, 1e3)
alphas = st.floats(-2, 0)


def test_the_constants_are_those_of_the_paper() -> None:
    assert (PAPER.alpha, PAPER.beta) == (-0.06, 0.6)


def test_the_reward_is_the_written_formula() -> None:
    # 0.7 * (5 / 6) ** -0.06, and 0.5 * (2 / 10) ** -0.5
    assert kdnas_reward(0.3, 5, 10, PAPER) == pytest.approx(0.70770, abs=1e-5)
    assert kdnas_reward(0.5, 2, 20, RewardSpec(alpha=-0.5, beta=0.5)) == pytest.approx(1.11803, abs=1e-5)


@given(st.floats(0, 1), st.floats(0.1, 100))
def test_the_loss_can_be_had_back_from_the_reward(loss: float, ms: float) -> None:
    constants = RewardSpec()
    assert loss_of(kdnas_reward(loss, ms, 40.0, constants), ms, 40.0, constants) == pytest.approx(loss)


def test_at_the_target_latency_the_reward_is_one_minus_the_loss() -> None:
    assert kdnas_reward(0.25, 6, 10, PAPER) == pytest.approx(0.75)


@pytest.mark.parametrize(("loss", "clamped"), [(1.0, 1.0), (1.7, 1.0), (1e9, 1.0), (-0.1, 0.0)])
def test_a_loss_beyond_its_range_is_clamped(loss: float, clamped: float) -> None:
    assert kdnas_reward(loss, 3, 10, PAPER) == kdnas_reward(clamped, 3, 10, PAPER)
    assert kdnas_reward(loss, 3, 10, PAPER) >= 0


@given(st.floats(0, 3), times, times, times, alphas)
def test_of_two_with_the_same_loss_the_slower_never_scores_higher(
    loss: float, one: float, other: float, teacher: float, alpha: float
) -> None:
    constants = RewardSpec(alpha=alpha)
    fast, slow = sorted((one, other))
    quick = kdnas_reward(loss, fast, teacher, constants)
    assert kdnas_reward(loss, slow, teacher, constants) <= quick


@given(losses, losses, times, times, alphas)
def test_of_two_with_the_same_latency_the_worse_never_scores_higher(
    one: float, other: float, latency: float, teacher: float, alpha: float
) -> None:
    constants = RewardSpec(alpha=alpha)
    good, bad = (kdnas_reward(loss, latency, teacher, constants) for loss in sorted((one, other)))
    assert bad <= good


@given(
    st.lists(st.tuples(losses, times), min_size=2, max_size=6),
    alphas,
    st.floats(0.01, 1),
    st.floats(0.01, 1),
)
def test_beta_never_changes_a_ranking(
    candidates: list[tuple[float, float]], alpha: float, beta: float, other_beta: float
) -> None:
    one, other = (
        [kdnas_reward(loss, ms, 10, RewardSpec(alpha=alpha, beta=b)) for loss, ms in candidates]
        for b in (beta, other_beta)
    )
    for i in range(len(candidates)):
        for j in range(len(candidates)):
            if one[i] > one[j] * (1 + 1e-9) + 1e-300:  # by more than rounding
                assert other[i] > other[j]


def test_a_budget_in_milliseconds_holds_up_to_itself() -> None:
    budget = LatencySpec(budget_ms=4)
    assert within_budget(reading_of(4.0, 1.0), budget, teacher_ms=1.0)
    assert not within_budget(reading_of(4.001, 1_000.0), budget, teacher_ms=1_000.0)
    assert budget_ms(budget, teacher_ms=99) == 4


def test_a_budget_as_a_speedup_holds_from_itself() -> None:
    budget = LatencySpec(budget_speedup=2)
    assert within_budget(reading_of(5.0, 10.0), budget, teacher_ms=10.0)
    assert not within_budget(reading_of(5.001, 10.0), budget, teacher_ms=11.0)
    assert not within_budget(reading_of(5.0, 11.0), budget, teacher_ms=9.9)
    assert budget_ms(budget, teacher_ms=10) == 5
