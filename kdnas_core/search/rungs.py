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
class Peer:
    """A candidate that was judged before, in the same search.

    Attributes:
        ms: its latency, or the estimate.
        losses: its held-out loss by steps taken.
        final: its loss after all steps; None if it was stopped before.
    """

    ms: float
    losses: Mapping[int, float]
    final: float | None


def is_dominated(ms: float, step: int, loss: float, peers: Sequence[Peer]) -> bool:
    """Returns whether a faster peer was better after as many steps, by more than the rung's noise.

    Never true before `FEWEST` peers were trained to the end.

    Args:
        ms: the candidate's latency, or the estimate.
        step: steps taken.
        loss: its held-out loss after them.
        peers: the candidates judged before.
    """
    noise = _noise(step, peers)
    if noise is None:
        return False
    return any(peer.ms <= ms and peer.losses.get(step, loss) + noise < loss for peer in peers)


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
