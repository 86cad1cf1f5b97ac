"""Rungs: the evaluations of a mini-KD at which a candidate is stopped if it cannot be on the frontier.

Successive halving (arXiv 1502.07943) for two objectives: not a share of the candidates is stopped, but those
that a faster candidate of the same search beats at the same rung by more than the noise of that rung.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

FEWEST = 4  # candidates trained to the end, by which the noise of a rung is known
SPREADS = 2.0  # standard deviations; replays of two whole searches lose no pick with it, nor with 1.5


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


def is_dominated(cost: Cost, step: int, loss: float, peers: Sequence[Peer]) -> bool:
    """Returns whether a faster peer was better after as many steps, by more than the rung's noise.

    Never true before `FEWEST` peers were trained to the end.

    Args:
        cost: of the candidate; the least that it may be, where it is estimated.
        step: steps taken.
        loss: its held-out loss after them.
        peers: the candidates judged before.
    """
    noise = _noise(step, peers)
    if noise is None:
        return False
    return any(peer.cost.is_at_most(cost) and peer.losses.get(step, loss) + noise < loss for peer in peers)


def expected_loss(step: int, loss: float, peers: Sequence[Peer]) -> float:
    """Estimates the loss after all steps of a candidate that was stopped at a rung."""
    gains = _gains(step, peers)
    return max(0.0, loss - fmean(gains)) if gains else loss


def _noise(step: int, peers: Sequence[Peer]) -> float | None:
    """How much more than another a candidate may still gain; None if too few were trained to the end."""
    gains = _gains(step, peers)
    return SPREADS * stdev(gains) if len(gains) >= FEWEST else None


def _gains(step: int, peers: Sequence[Peer]) -> list[float]:
    """By how much the loss of each peer fell between the rung and the end."""
    return [
        peer.losses[step] - peer.final for peer in peers if peer.final is not None and step in peer.losses
    ]
