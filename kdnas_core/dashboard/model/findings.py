"""What a run has found within a latency budget, computed once for all sections of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model.progress import Limit
from kdnas_core.runs.picks import picked
from kdnas_core.runs.records import Candidate
from kdnas_core.search import pareto


@dataclass(frozen=True)
class Findings:
    """What a run has found.

    Attributes:
        limit: the budget; None while the run's own is not known in milliseconds.
        within: the distilled candidates within it, in the order of proposal.
        over: the other distilled candidates.
        frontier: the Pareto frontier of those within it, by ascending latency.
        whole: that of all.
        pick: the candidate to pick; None if there is none, or no budget.
        tied: those tied with it.
        states: all candidates by state.
    """

    limit: Limit | None
    within: Sequence[Candidate]
    over: Sequence[Candidate]
    frontier: Sequence[Candidate]
    whole: Sequence[Candidate]
    pick: Candidate | None
    tied: Sequence[Candidate]
    states: Mapping[str, Sequence[Candidate]]

    @classmethod
    def of(cls, candidates: Sequence[Candidate], limit: Limit | None) -> Findings:
        """Computes what these candidates are."""
        states = progress.by_state(candidates)
        distilled = progress.distilled(states["done"])
        within = distilled if limit is None else [row for row in distilled if limit.allows(row)]
        ids = {row.id for row in within}
        pick, tied = (None, ()) if limit is None else picked(within)
        over = [row for row in distilled if row.id not in ids]
        return cls(limit, within, over, _frontier(within), _frontier(distilled), pick, tied, states)

    def ahead_of(self) -> Candidate | None:
        """Returns the best of those within the budget besides the pick; None if there is none."""
        others = (row for row in self.within if row is not self.pick)
        return min(others, key=lambda row: row.point[1], default=None)


def _frontier(rows: Sequence[Candidate]) -> list[Candidate]:
    return [rows[index] for index in pareto.frontier([row.point for row in rows])]
