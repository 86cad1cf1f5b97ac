"""How well an early measure of students ranks what they score in the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from scipy.stats import spearmanr

EQUAL = 1.15  # the most that one latency of a pair is a multiple of the other


@dataclass(frozen=True)
class Ranking:
    """How a measure ranks.

    Attributes:
        spearman: rank correlation with the scores over all students; None where all have the same value.
        right: pairs of equal latency that it ranks right.
        pairs: pairs of equal latency whose scores differ by more than their noise.
    """

    spearman: float | None
    right: int
    pairs: int


def ranked(
    errors: Sequence[float],
    scores: Sequence[float],
    noise: Sequence[float | None],
    pairs: Sequence[tuple[int, int]],
) -> Ranking:
    """Compares the order of a measure with that of scores.

    Args:
        errors: the measure of each student; less is better.
        scores: of each student; more is better.
        noise: standard error of each score; None if it is not known.
        pairs: of students to compare; those do not count whose scores differ by no more than their noise, or
            whose noise is not known.
    """
    rank = float(spearmanr([-error for error in errors], scores).statistic) if _vary(errors, scores) else None
    told = []
    for one, other in pairs:
        errors_of_both = [error for error in (noise[one], noise[other]) if error is not None]
        if len(errors_of_both) == 2 and abs(scores[one] - scores[other]) > math.hypot(*errors_of_both):
            told.append((one, other))
    right = sum((errors[one] - errors[other]) * (scores[one] - scores[other]) < 0 for one, other in told)
    return Ranking(rank, right, len(told))


def pairs_of_equal_latency(latencies: Sequence[float]) -> list[tuple[int, int]]:
    """Returns the pairs of places whose latencies are at most `EQUAL` times each other."""
    return [
        (one, other)
        for one, other in combinations(range(len(latencies)), 2)
        if max(latencies[one], latencies[other]) <= EQUAL * min(latencies[one], latencies[other])
    ]


def _vary(*values: Sequence[float]) -> bool:
    return all(len(set(each)) > 1 for each in values)
