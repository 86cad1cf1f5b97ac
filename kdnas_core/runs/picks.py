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

from kdnas_core.resampling import standard_errors_of_differences
from kdnas_core.runs.measured import Measured
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
    measured = _measured(candidates)
    found = [_pick(run, measured, budget) for budget in (own if budgets is None else budgets)]
    return [
        # no surrogate is told of a static student
        replace(pick, chance_unseen=None if _is_static(pick) else chances.get(pick.budget))
        for pick in found
    ]


def _measured(candidates: Sequence[Candidate]) -> Measured:
    return candidates if isinstance(candidates, Measured) else Measured.of(candidates)


def _is_static(pick: Pick) -> bool:
    return pick.best is not None and pick.best.architecture.is_static


def pick_within(run: Run, candidates: Sequence[Candidate], budget: LatencySpec) -> Pick:
    """Returns the pick within a budget, from what was measured."""
    return _pick(run, _measured(candidates), budget)


def _pick(run: Run, measured: Measured, budget: LatencySpec) -> Pick:
    if run.teacher is None:
        return Pick(budget, None, None)
    is_within = are_within(measured.p50, measured.speedups, budget, run.teacher.latency.p50)
    within = measured.where(is_within)
    best, tied = picked(within)
    return Pick(budget, best, best_but(within, best), tied)


def picked(candidates: Sequence[Candidate]) -> tuple[Candidate | None, tuple[Candidate, ...]]:
    """Returns the one of measured candidates to pick, None without any, and those tied with it."""
    measured = _measured(candidates)
    places = frontier(measured.points)
    if not places:
        return None, ()
    best = measured[places[-1]]
    tied = _are_tied(best, measured)
    # read on the same texts: where the noise is that of texts of their own, it is too large
    is_known = ~np.isnan(_paired_noises(best, [measured[place] for place in places]))
    fast = (place for place, known in zip(places, is_known, strict=True) if tied[place] and known)
    fastest = measured[next(fast, places[-1])]
    return fastest, tuple(row for row in measured.where(tied) if row is not fastest)


def best_but(measured: Measured, picked: Candidate | None) -> Candidate | None:
    """Returns the one with the least error besides another, of equal ones the fastest; None without any."""
    others = measured.where(np.array([row is not picked for row in measured], dtype=bool))
    if not len(others):
        return None
    best = others.where(others.errors == others.errors.min())
    return best[int(best.p50.argmin())]


def margin_of(one: Candidate, other: Candidate) -> tuple[float, float | None]:
    """By how much the other's loss is worse, and the standard error of that; None if it is not known."""
    return other.point[1] - one.point[1], _noise(one, other)


def _are_tied(best: Candidate, others: Measured) -> NDArray[np.bool_]:
    """Whether each of some candidates is worse than the best by no more than the noise of the difference."""
    worse = others.errors - best.point[1]
    # no difference has more noise than both losses, and most of many are far from the best
    tied = worse <= TWO_SIDED * ((best.loss_se or 0.0) + others.noise)
    near = np.flatnonzero(tied)
    noises = _noises(best, [others[place] for place in near.tolist()])
    tied[near] = np.where(np.isnan(noises), worse[near] == 0, worse[near] <= TWO_SIDED * noises)
    return tied


def _noise(one: Candidate, other: Candidate) -> float | None:
    """The standard error of the difference of two losses; None if it is not known."""
    [noise] = _noises(one, [other]).tolist()
    return None if math.isnan(noise) else noise


def _noises(one: Candidate, others: Sequence[Candidate]) -> NDArray[np.float64]:
    """The standard errors of the differences of several losses from one; NaN where not known."""
    paired = _paired_noises(one, others)
    apart = [math.hypot(_own_noise(one), _own_noise(other)) for other in others]
    return np.where(np.isnan(paired), np.array(apart, dtype=np.float64), paired)


def _own_noise(row: Candidate) -> float:
    return math.nan if row.proxy_score is not None or row.loss_se is None else row.loss_se


def _paired_noises(one: Candidate, others: Sequence[Candidate]) -> NDArray[np.float64]:
    """The same, of losses on the same texts alone."""
    same = [
        one.proxy_score is None and other.proxy_score is None and one.run == other.run for other in others
    ]
    kept = [other.resampled if is_same else b"" for other, is_same in zip(others, same, strict=True)]
    return standard_errors_of_differences(one.resampled, kept)
