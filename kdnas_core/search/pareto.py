"""The accuracy-latency trade-off: Pareto frontier, hypervolume, and the best student within a budget.

All functions take points (latency in ms, loss), where lower is better. Points with a value that is not finite
are never on the frontier.
"""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]  # (latency in ms, held-out loss)


def frontier(points: Sequence[Point]) -> list[int]:
    """Returns the indices of the non-dominated points by ascending latency; of equal points, the first."""
    finite = _finite(points)
    if not finite:
        return []
    kept = moocore.is_nondominated(_array(points, finite), keep_weakly=False)
    best = [index for index, keep in zip(finite, kept, strict=True) if keep]
    return sorted(best, key=lambda index: points[index])


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Computes the area that the points dominate up to a reference point."""
    finite = _finite(points)
    return float(moocore.hypervolume(_array(points, finite), ref=np.array(reference))) if finite else 0.0


def pick(points: Sequence[Point], budget_ms: float) -> int | None:
    """Returns the index of the point with the least loss within the budget; None if there is none."""
    within = [index for index in frontier(points) if points[index][0] <= budget_ms]
    return within[-1] if within else None


def _finite(points: Sequence[Point]) -> list[int]:
    return [index for index, point in enumerate(points) if np.isfinite(point).all()]


def _array(points: Sequence[Point], indices: list[int]) -> NDArray[np.float64]:
    return np.array([points[index] for index in indices], dtype=np.float64)
