"""Rungs: the evaluations of a mini-KD at which a candidate is stopped if it will hardly be picked.

The loss at the end is predicted from the loss at the rung by a regression over the candidates of the same
search that were trained to the end (performance prediction, Baker et al., arXiv 1705.10823, section 3). A
candidate is stopped if even one standard error below the prediction another is better wherever it could be
picked: within each budget of the search, or where there is one budget, among those that are no slower. With
several budgets a faster candidate that would have been tied with the best may be stopped so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 4  # candidates trained to the end, by which the others are predicted
ERRORS = 1.0  # standard errors; of 40 replays one misses the best by over 1 % with 0.7, none with 1
RIDGE = 0.03  # in squares of logarithms: some losses that hardly differ say nothing of a slope
LEAST_LOSS = 1e-6  # smaller ones count as this, since logarithms are taken


@dataclass(frozen=True)
class Cost:
    """A latency as it is read both ways: in ms, and as a share of the teacher's in the same session."""

    ms: float
    share: float

    def is_at_most(self, other: Cost) -> bool:
        """Whether it is no slower by either reading, so within each budget that the other is within."""
        return self.ms <= other.ms and self.share <= other.share


@dataclass(frozen=True)
class Peer:
    """A candidate that was judged before, in the same search.

    Attributes:
        cost: as measured.
        losses: its held-out loss by steps taken.
        final: its loss after all steps; None if it was stopped before.
    """

    cost: Cost
    losses: Mapping[int, float]
    final: float | None


@dataclass(frozen=True)
class Prediction:
    """The loss after all steps: its logarithm, and the standard error of that."""

    log_loss: float
    error: float

    @property
    def loss(self) -> float:
        """The median."""
        return math.exp(self.log_loss)

    @property
    def least(self) -> float:
        """The least that is still likely."""
        return math.exp(self.log_loss - ERRORS * self.error)


def beaten(
    cost: Cost, step: int, loss: float, peers: Sequence[Peer], budgets: Sequence[Cost]
) -> Prediction | None:
    """Returns what is predicted of a candidate that will hardly be picked; None if it may be picked.

    Always None before `FEWEST` peers were trained to the end.

    Args:
        cost: of the candidate; the least that it may be, where it is estimated.
        step: steps taken.
        loss: its held-out loss after them.
        peers: the candidates judged before.
        budgets: of the search, as the most that a pick may cost.
    """
    predicted = predicted_loss(step, loss, peers)
    if predicted is None:
        return None
    limits = [budget for budget in budgets if cost.is_at_most(budget)] if len(budgets) > 1 else [cost]
    better = [peer.cost for peer in peers if peer.final is not None and peer.final < predicted.least]
    if limits and all(any(each.is_at_most(limit) for each in better) for limit in limits):
        return predicted
    return None


def predicted_loss(step: int, loss: float, peers: Sequence[Peer]) -> Prediction | None:
    """Predicts the loss after all steps; None if too few peers were trained to the end.

    Args:
        step: steps taken.
        loss: the held-out loss after them.
        peers: the candidates judged before.
    """
    whole = [
        (_log(peer.losses[step]), _log(peer.final))
        for peer in peers
        if peer.final is not None and step in peer.losses
    ]
    if len(whole) < FEWEST:
        return None
    rungs, finals = np.array(whole).T
    left = finals - rungs  # of the loss, in logarithms: all candidates alike where the ridge rules
    off, spread = rungs - rungs.mean(), float(np.square(rungs - rungs.mean()).sum()) + RIDGE
    slope = float(off @ left) / spread
    residuals = left - left.mean() - slope * off
    variance = float(residuals @ residuals) / (len(whole) - 2)
    away = _log(loss) - float(rungs.mean())
    return Prediction(
        _log(loss) + float(left.mean()) + slope * away,
        math.sqrt(variance * (1 + 1 / len(whole) + away**2 / spread)),
    )


def _log(loss: float) -> float:
    return math.log(max(loss, LEAST_LOSS))
