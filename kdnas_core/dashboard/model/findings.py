"""What a run has found within a latency budget, computed once for all sections of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model.progress import Limit
from kdnas_core.runs.measured import Measured
from kdnas_core.runs.picks import best_but, picked
from kdnas_core.runs.records import Candidate
from kdnas_core.search import pareto


@dataclass(frozen=True)
class Findings:
    """What a run has found.

    Attributes:
        limit: the budget; None while the run's own is not known in milliseconds.
        measured: all candidates that were distilled, in the order of proposal.
        within: those within the budget.
        over: the others.
        frontier: the Pareto frontier of those within it, by ascending latency.
        whole: that of all.
        pick: the candidate to pick; None if there is none, or no budget.
        tied: those tied with it.
        states: all candidates by state.
    """

    limit: Limit | None
    measured: Measured
    within: Measured
    over: Measured
    frontier: Sequence[Candidate]
    whole: Sequence[Candidate]
    pick: Candidate | None
    tied: Sequence[Candidate]
    states: Mapping[str, Sequence[Candidate]]

    @classmethod
    def of(cls, candidates: Sequence[Candidate], limit: Limit | None) -> Findings:
        """Computes what these candidates are."""
        states = progress.by_state(candidates)
        measured = Measured.of(states.get("done", ()))
        allowed = np.ones(len(measured), dtype=bool) if limit is None else limit.allowed(measured)
        within = measured.where(allowed)
        pick, tied = (None, ()) if limit is None else picked(within)
        over = measured.where(~allowed)
        return cls(limit, measured, within, over, _frontier(within), _frontier(measured), pick, tied, states)

    def ahead_of(self) -> Candidate | None:
        """Returns the best of those within the budget besides the pick; None if there is none."""
        return best_but(self.within, self.pick)


def _frontier(rows: Measured) -> list[Candidate]:
    return [rows[index] for index in pareto.frontier(rows.points)]
