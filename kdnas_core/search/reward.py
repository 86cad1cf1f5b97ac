"""The reward of a candidate, and the veto by the latency budget."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdnas_core.latency.reading import LatencyReading
from kdnas_core.spec import LatencySpec, RewardSpec


def kdnas_reward(loss: float, ms: float, teacher_ms: float, constants: RewardSpec) -> float:
    """Computes `(1 - L) * (lat_S / (beta * lat_T)) ** alpha` (KD-NAS, arXiv 2303.09639, section 3).

    Args:
        loss: held-out mini-KD loss, 1 for a student that predicts the mean; clamped to [0, 1], since above 1
            the sign would change and slower students would score higher.
        ms: the student's latency.
        teacher_ms: the teacher's, from the same session.
        constants: alpha and beta.
    """
    clamped = min(max(loss, 0.0), 1.0)
    relative = ms / (constants.beta * teacher_ms)
    return float((1 - clamped) * relative**constants.alpha)


def loss_of(reward: float, ms: float, teacher_ms: float, constants: RewardSpec) -> float:
    """Computes the loss that has this reward; arguments as for `kdnas_reward`."""
    return 1 - reward / (ms / (constants.beta * teacher_ms)) ** constants.alpha


def within_budget(latency: LatencyReading, budget: LatencySpec, teacher_ms: float) -> bool:
    """Returns whether a measured latency meets the budget.

    A speed-up must hold against the teacher's latency in this run, which the page draws, and against the
    teacher's runs that alternated with this student's.

    Args:
        latency: of a student.
        budget: in milliseconds or as a speed-up; of several, the largest.
        teacher_ms: the teacher's median in this run.
    """
    one = np.array([latency.p50]), np.array([latency.speedup])
    return bool(are_within(*one, budget, teacher_ms)[0])


def are_within(
    ms: NDArray[np.float64], speedups: NDArray[np.float64], budget: LatencySpec, teacher_ms: float
) -> NDArray[np.bool_]:
    """As `within_budget`, of many latencies in ms and their speed-ups at once."""
    fast_enough = ms <= budget_ms(budget, teacher_ms)
    return fast_enough if budget.budget_speedup is None else fast_enough & (speedups >= budget.amounts[0])


def budget_ms(budget: LatencySpec, teacher_ms: float) -> float:
    """Returns the largest budget in milliseconds, for a teacher with a latency of `teacher_ms`."""
    return budgets_ms(budget, teacher_ms)[0]


def budgets_ms(budget: LatencySpec, teacher_ms: float) -> tuple[float, ...]:
    """Returns all budgets in milliseconds, the largest first."""
    amounts = budget.amounts
    return amounts if budget.budget_speedup is None else tuple(teacher_ms / amount for amount in amounts)
