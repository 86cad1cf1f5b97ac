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


def frontier(points: Sequence[Point] | NDArray[np.float64]) -> list[int]:
    """Returns the indices of the non-dominated points by ascending latency; of equal points, the first."""
    array = _array(points)
    finite = np.flatnonzero(np.isfinite(array).all(1))
    if not len(finite):
        return []
    best = finite[moocore.is_nondominated(array[finite], keep_weakly=False)]
    order = np.lexsort((array[best, 1], array[best, 0]))
    return [int(index) for index in best[order]]


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Computes the area that the points dominate up to a reference point."""
    array = _array(points)
    finite = array[np.isfinite(array).all(1)]
    return float(moocore.hypervolume(finite, ref=np.array(reference))) if len(finite) else 0.0


def pick(points: Sequence[Point], budget_ms: float) -> int | None:
    """Returns the index of the point with the least loss within the budget; None if there is none."""
    within = [index for index in frontier(points) if points[index][0] <= budget_ms]
    return within[-1] if within else None


def _array(points: Sequence[Point] | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array(points, dtype=np.float64).reshape(-1, 2)
