"""The candidate to pick within each budget of a run, and how far it is ahead of the next.

It is the best one, by its loss or, where a run has tasks, by its scores; or the fastest of those that are
tied with the best: worse by no more than the noise of the difference (95 %). The noise is that of held-out
texts. Candidates are read on the same ones, so much of it is in both losses and cancels out. Where this is
not known, as in a run of an earlier version, the noise counts as if each was read on texts of its own; it is
then too large; ties are reported, and the best is picked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdnas_core.resampling import standard_error_of_difference
from kdnas_core.runs.records import Candidate, Run
from kdnas_core.search.pareto import frontier
from kdnas_core.search.reward import are_within
from kdnas_core.spec import LatencySpec

TWO_SIDED = 1.96  # standard errors of a 95 % interval


@dataclass(frozen=True)
class Pick:
    """What is picked within a budget.

    Attributes:
        budget: one of those of the run, or another under its protocol.
        best: the candidate to pick; None if nothing that was measured is within the budget.
        next: the best of the others within it.
        tied: the others of which the best within it is one, or which are tied with that.
        chance_unseen: the probability that an architecture not judged yet has a lower loss than the best
            within the budget; None if unknown.
    """

    budget: LatencySpec
    best: Candidate | None
    next: Candidate | None
    tied: tuple[Candidate, ...] = ()
    chance_unseen: float | None = None

    @property
    def limit(self) -> str:
        """Its budget in short: "5 ms" or "3x"."""
        amount = self.budget.amounts[0]
        return f"{amount:g}x" if self.budget.budget_ms is None else f"{amount:g} ms"

    @property
    def margin(self) -> float | None:
        """By how much the next is worse, in units of the loss; None without a next.

        It is negative where the next is better by no more than the noise, and slower.
        """
        return None if self.best is None or self.next is None else self.next.point[1] - self.best.point[1]

    @property
    def margin_se(self) -> float | None:
        """The margin's standard error; None if unknown."""
        return None if self.best is None or self.next is None else _noise(self.best, self.next)

    def to_dict(self) -> dict[str, Any]:
        """Returns the object of the command line's `--json`."""
        return {
            "budget_ms": self.budget.budget_ms,
            "budget_speedup": self.budget.budget_speedup,
            "candidate": self.best and self.best.to_dict(),
            "tied": [each.id for each in self.tied],
            "next": self.next and self.next.id,
            "margin": self.margin,
            "margin_se": self.margin_se,
            "chance_unseen": self.chance_unseen,
        }


def picks(
    run: Run, candidates: Sequence[Candidate], budgets: Sequence[LatencySpec] | None = None
) -> list[Pick]:
    """Returns the pick for each budget: of those of a run, the largest first, or of the budgets given."""
    own = run.spec.latency.budgets
    outlook = run.outlook
    # of an episode that is not over, some candidates are known that the outlook does not know
    known = outlook is not None and outlook.episode == run.episode
    chances = dict(zip(own, outlook.chances, strict=True)) if outlook and known else {}
    measured = _Measured.of(candidates)
    found = [_pick(run, measured, budget) for budget in (own if budgets is None else budgets)]
    return [
        # no surrogate is told of a static student
        replace(pick, chance_unseen=None if _is_static(pick) else chances.get(pick.budget))
        for pick in found
    ]


def _is_static(pick: Pick) -> bool:
    return pick.best is not None and pick.best.architecture.is_static


def pick_within(run: Run, candidates: Sequence[Candidate], budget: LatencySpec) -> Pick:
    """Returns the pick within a budget, from what was measured."""
    return _pick(run, _Measured.of(candidates), budget)


def picked(candidates: Sequence[Candidate]) -> tuple[Candidate | None, tuple[Candidate, ...]]:
    """Returns the one of measured candidates to pick, None without any, and those tied with it."""
    return _Measured.all_of(candidates).picked()


@dataclass(frozen=True)
class _Measured:
    """Candidates with their points as an array of (latency in ms, error): there may be thousands."""

    rows: Sequence[Candidate]
    points: NDArray[np.float64]
    speedups: NDArray[np.float64]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> _Measured:
        """Those that were judged to the end."""
        return cls.all_of([row for row in candidates if row.state == "done" and row.latency])

    @classmethod
    def all_of(cls, rows: Sequence[Candidate]) -> _Measured:
        points = np.array([row.point for row in rows], dtype=np.float64).reshape(-1, 2)
        speedups = [math.nan if row.latency is None else row.latency.speedup for row in rows]
        return cls(rows, points, np.array(speedups, dtype=np.float64))

    def where(self, is_kept: NDArray[np.bool_]) -> _Measured:
        rows = [self.rows[place] for place in np.flatnonzero(is_kept).tolist()]
        return _Measured(rows, self.points[is_kept], self.speedups[is_kept])

    def picked(self) -> tuple[Candidate | None, tuple[Candidate, ...]]:
        on_frontier = [self.rows[place] for place in frontier(self.points)]
        if not on_frontier:
            return None, ()
        best = on_frontier[-1]
        fastest = next(
            each
            for each in on_frontier
            if each is best or (_is_tied(best, each) and _paired_noise(best, each) is not None)
        )
        # the noise of a difference is at most both errors together, and most of many are far from the best
        noisiest = max(row.loss_se or 0.0 for row in self.rows)
        near = self.where(self.points[:, 1] <= best.point[1] + TWO_SIDED * ((best.loss_se or 0.0) + noisiest))
        tied = (row for row in near.rows if row is best or _is_tied(best, row))
        return fastest, tuple(row for row in tied if row is not fastest)

    def best_but(self, picked: Candidate | None) -> Candidate | None:
        """The one with the least error besides another, of equal ones the fastest; None if there is none."""
        order = np.lexsort((self.points[:, 0], self.points[:, 1]))
        finite = np.isfinite(self.points[order]).all(axis=1)
        others = (self.rows[place] for place in order[finite].tolist())
        return next((row for row in others if row is not picked), None)


def _pick(run: Run, measured: _Measured, budget: LatencySpec) -> Pick:
    if run.teacher is None:
        return Pick(budget, None, None)
    teacher_ms = run.teacher.latency.p50
    is_within = are_within(measured.points[:, 0], measured.speedups, budget, teacher_ms)
    within = measured.where(is_within)
    best, tied = within.picked()
    return Pick(budget, best, within.best_but(best), tied)


def margin_of(one: Candidate, other: Candidate) -> tuple[float, float | None]:
    """By how much the other's loss is worse, and the standard error of that; None if it is not known."""
    return other.point[1] - one.point[1], _noise(one, other)


def _is_tied(best: Candidate, other: Candidate) -> bool:
    worse = other.point[1] - best.point[1]
    if worse > TWO_SIDED * ((best.loss_se or 0) + (other.loss_se or 0)):  # no difference has more noise
        return False
    noise = _noise(best, other)
    return worse == 0 if noise is None else worse <= TWO_SIDED * noise


def _noise(one: Candidate, other: Candidate) -> float | None:
    """The standard error of the difference of two losses; None if it is not known."""
    paired = _paired_noise(one, other)
    if paired is not None:
        return paired
    errors = [each.loss_se for each in (one, other) if each.proxy_score is None]
    known = [error for error in errors if error is not None]
    return math.hypot(*known) if len(known) == 2 else None


def _paired_noise(one: Candidate, other: Candidate) -> float | None:
    """The same, of losses on the same texts; None if it is not known."""
    if one.proxy_score is not None or other.proxy_score is not None or one.run != other.run:
        return None
    return standard_error_of_difference(one.resampled, other.resampled)
