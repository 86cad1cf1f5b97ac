"""Least squares for the projections of an objective, so that training begins with the best there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from kdnas_core.distillation.targets import Batch
from kdnas_core.distillation.terms import Pass, StateTerm

RIDGE = 1e-4  # of the mean square of the student's states: keeps the least squares solvable


@torch.no_grad()
def fit(terms: Sequence[StateTerm], passes: Iterable[tuple[Pass, Batch]]) -> None:
    """Sets all projections of these terms to the least-squares solution for the student as it is.

    Args:
        terms: some of which may have no projections.
        passes: of the student, with their batches; not begun where no term has any.
    """
    if not any(term.projections for term in terms):
        return
    sums: dict[nn.Linear, _Sums] = {}
    for given, batch in passes:
        for term in terms:
            for layer, projection in term.projections.items():
                seen = term.picked(batch.real(given.hidden[layer]), batch)
                wanted = [term.picked(batch.teacher("hidden", t), batch) for t in term.layers[layer]]
                if projection not in sums:
                    sums[projection] = _Sums(projection)
                sums[projection].add(seen, torch.cat(wanted, dim=1))
    for projection, total in sums.items():
        total.solve(projection)


class _Sums:
    """X^T X and X^T Y over all tokens, X with a column of ones for the bias."""

    def __init__(self, projection: nn.Linear) -> None:
        size = projection.in_features + 1
        self.gram = torch.zeros(size, size, dtype=torch.float64)
        self.cross = torch.zeros(size, projection.out_features, dtype=torch.float64)

    def add(self, seen: torch.Tensor, wanted: torch.Tensor) -> None:
        """Takes in (tokens, H_S) states and what is wanted of them (tokens, H_T)."""
        columns = torch.cat([seen.double(), torch.ones(len(seen), 1, dtype=torch.float64)], dim=1)
        self.gram += columns.T @ columns
        self.cross += columns.T @ wanted.double()

    def solve(self, projection: nn.Linear) -> None:
        """Writes the solution into the projection."""
        ridge = RIDGE * self.gram.diagonal().mean()
        # one at a time: the batched solve fails on some builds of MKL
        weights = torch.linalg.solve(self.gram + ridge * torch.eye(len(self.gram)), self.cross).float()
        projection.weight.copy_(weights[:-1].T)
        projection.bias.copy_(weights[-1])
