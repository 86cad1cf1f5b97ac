"""Estimates the latencies of a space before anything in it is measured."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard import wording
from kdnas_core.latency.model import FAR_OVER, LatencyModel
from kdnas_core.search.reward import budget_ms, budgets_ms
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import LatencySpec

MOST = 2_000  # the most architectures to estimate; drawn at random from a larger space


@dataclass(frozen=True)
class Forecast:
    """The estimated latencies of a space.

    Attributes:
        shapes: its architectures, or a random sample of them.
        loads: the estimated latency of each as a multiple of the budget; 0 if nothing can be estimated.
        total: number of architectures in the space.
        budget_ms: the largest budget; None if nothing can be estimated in milliseconds.
        budget_is_estimated: whether budgets depend on an estimate of the teacher's latency.
        budgets: each budget in ms, by its name, the largest first; empty if unknown.
        model: makes the estimates; None if they are by FLOPs alone.
        skipped_above: the load above which a search skips a shape without measuring it.
    """

    shapes: tuple[Architecture, ...]
    loads: tuple[float, ...]
    total: int
    budget_ms: float | None
    budget_is_estimated: bool
    model: LatencyModel | None
    skipped_above: float = math.inf
    budgets: Mapping[str, float] = field(default_factory=dict)

    @property
    def milliseconds(self) -> list[float]:
        """The estimated latency of each shape in ms; empty if unknown."""
        budget = self.budget_ms
        return [] if budget is None else [load * budget for load in self.loads]

    @property
    def within(self) -> list[Architecture]:
        """The shapes that are expected within the budget."""
        return [shape for shape, load in zip(self.shapes, self.loads, strict=True) if load <= 1]

    @property
    def share_skipped(self) -> float:
        """The share of the shapes that a search would skip, since they are far over the budget."""
        return sum(load > self.skipped_above for load in self.loads) / len(self.loads)


def make_forecast(
    protocol: LatencySpec,
    space: SearchSpace,
    teacher: Architecture,
    teacher_ms: float | None,
    model: LatencyModel | None,
) -> Forecast:
    """Estimates the latencies of a space by a model, or from the teacher's latency in proportion to FLOPs.

    Args:
        protocol: of the measurements, with the budget.
        space: the search space.
        teacher: its shape.
        teacher_ms: its latency under the protocol on this device; None if it was never measured.
        model: for the protocol on this device; None if there are too few readings.
    """
    shapes = _drawn(space)
    teachers_own = teacher_ms or estimated_ms(teacher, protocol, model)
    if teachers_own is None and protocol.budget_ms is not None:
        return Forecast(shapes, (0.0,) * len(shapes), len(space), None, False, None)
    latency = _estimator(protocol, teacher, teachers_own or 1.0, model)  # 1.0: relative to the teacher
    budget = budget_ms(protocol, teachers_own or 1.0)
    by_estimate = protocol.budget_ms is None and teacher_ms is None
    return Forecast(
        shapes,
        tuple(latency(shape) / budget for shape in shapes),
        len(space),
        None if teachers_own is None else budget,
        by_estimate,
        model,
        math.inf if space.presets else _skipped_above(model),
        {} if teachers_own is None else _budgets(protocol, teachers_own, by_estimate),
    )


def _budgets(protocol: LatencySpec, teacher_ms: float, is_estimated: bool) -> dict[str, float]:
    amount = wording.estimated if is_estimated else wording.milliseconds
    found = {}
    for given, at in zip(protocol.amounts, budgets_ms(protocol, teacher_ms), strict=True):
        factor = "" if protocol.budget_speedup is None else f"{given:g}×: "
        found[f"{factor}{amount(at)}"] = at
    return found


def _skipped_above(model: LatencyModel | None) -> float:
    return FAR_OVER if model is not None and model.may_skip else math.inf


def estimated_ms(shape: Architecture, protocol: LatencySpec, model: LatencyModel | None) -> float | None:
    """Estimates a shape's latency in ms; None without a model."""
    if model is None:
        return None
    return model.estimate(shape, protocol.batch_size, protocol.sequence_length)


def _estimator(
    protocol: LatencySpec, teacher: Architecture, teacher_ms: float, model: LatencyModel | None
) -> Callable[[Architecture], float]:
    length = protocol.sequence_length
    if model is not None:
        return lambda shape: model.estimate(shape, protocol.batch_size, length)
    return lambda shape: teacher_ms * shape.flops(length) / teacher.flops(length)


def _drawn(space: SearchSpace) -> tuple[Architecture, ...]:
    if len(space) <= MOST:
        return tuple(space)
    kept = sorted(random.Random(0).sample(range(len(space)), MOST))  # the same sample each time
    return tuple(space[place] for place in kept)


def in_words(outlook: Forecast) -> str:
    """Describes the share of the space expected within the budget, and the error of the estimate."""
    if outlook.budget_ms is None:
        return (
            f"**{outlook.total:,} architectures.** Their latencies cannot be estimated yet: nothing was"
            " measured in this way on this device. The search begins with that."
        )
    return f"{_expected(outlook, outlook.budget_ms)} {_basis(outlook)}"


def _expected(outlook: Forecast, budget: float) -> str:
    limit = wording.estimated(budget) if outlook.budget_is_estimated else wording.milliseconds(budget)
    within, looked_at = len(outlook.within), len(outlook.shapes)
    if not within:
        fastest = wording.estimated(min(outlook.milliseconds))
        return f"**No architecture is expected within {limit}**: the fastest takes {fastest}."
    if looked_at < outlook.total:
        share = f"{100 * within / looked_at:.0f} % of {outlook.total:,} architectures"
        drawn = f"{looked_at:,} of them, drawn at random, are looked at and shown."
        return f"**About {share} are expected within {limit}**; {drawn}"
    return f"**{within:,} of {outlook.total:,} architectures are expected within {limit}.**"


def _basis(outlook: Forecast) -> str:
    model = outlook.model
    if model is None:
        return (
            "This is an estimate by FLOPs alone: too little was measured on this device yet; expect it to be"
            " off by half."
        )
    return (
        f"The estimate comes from {model.readings} latencies measured on this device; leaving one out it is"
        f" off by {100 * model.median_error:.0f} % at the median, {100 * model.p90_error:.0f} % at p90."
    )
