"""What the knobs of a space have to do with how good its students are.

The share of each is its relative importance by Lindeman, Merenda and Gold (1980), the Shapley value of R²: by
how much it raises the R² of a linear model of the error, averaged over the orders in which knobs can join it.
Sizes enter by their logarithms. Of knobs that go together, as a search chooses them, each has a part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from kdnas_core.dashboard.model import progress
from kdnas_core.runs.records import Candidate

FEWEST = 2  # students for each number that the linear model fits
KNOBS: dict[str, Callable[[Candidate], float]] = {
    "layers": lambda row: row.architecture.layers,
    "hidden size": lambda row: row.architecture.hidden_size,
    "FFN size": lambda row: row.architecture.intermediate_size,
    "heads": lambda row: row.architecture.attention_heads,
    "embedding size": lambda row: row.architecture.embedding_size or row.architecture.hidden_size,
}


@dataclass(frozen=True)
class Importance:
    """What a knob has to do with the error of the students that were distilled.

    Attributes:
        knob: of `KNOBS`.
        share: of the variance of their errors that the linear model explains by it; those of all knobs add
            up to its R².
        larger_is_better: whether the error falls as it grows and the others stay.
    """

    knob: str
    share: float
    larger_is_better: bool


def students_of(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Returns the candidates that were distilled and have layers."""
    return [row for row in progress.distilled(candidates) if not row.architecture.is_static]


def varied(rows: Sequence[Candidate]) -> dict[str, list[float]]:
    """Returns the values of each knob in which students differ, by its name."""
    values = {name: [of(row) for row in rows] for name, of in KNOBS.items()}
    if values["embedding size"] == values["hidden size"]:
        del values["embedding size"]
    return {name: some for name, some in values.items() if len(set(some)) > 1}


def importances(candidates: Sequence[Candidate]) -> list[Importance]:
    """Returns the importance of each knob that varies, the largest first; none of too few students."""
    rows = students_of(candidates)
    logs = {name: np.log(values) for name, values in varied(rows).items()}
    errors = np.array([row.point[1] for row in rows])
    if not logs or len(rows) < FEWEST * (1 + len(logs)) or np.ptp(errors) == 0:
        return []
    shares = relative_importance(logs, errors)
    slopes, _ = _fit(list(logs.values()), errors)
    found = [
        Importance(name, share, slope < 0)
        for (name, share), slope in zip(shares.items(), slopes, strict=True)
    ]
    return sorted(found, key=lambda each: -each.share)


def relative_importance(
    knobs: Mapping[str, NDArray[np.float64]], target: NDArray[np.float64]
) -> dict[str, float]:
    """Computes the Shapley value of R² of each of some regressors (Lindeman, Merenda and Gold, 1980).

    Args:
        knobs: regressors by name, (rows,) each.
        target: (rows,), not constant.
    """
    names = list(knobs)
    squares = {
        chosen: _fit([knobs[name] for name in chosen], target)[1]
        for size in range(len(names) + 1)
        for chosen in combinations(names, size)
    }
    return {name: _shapley(name, names, squares) for name in names}


def _shapley(name: str, names: Sequence[str], squares: Mapping[tuple[str, ...], float]) -> float:
    others = [other for other in names if other != name]
    total = 0.0
    for size in range(len(names)):
        gains = [
            squares[tuple(each for each in names if each in chosen or each == name)] - squares[chosen]
            for chosen in combinations(others, size)
        ]
        total += sum(gains) / len(gains)
    return total / len(names)


def _fit(regressors: Sequence[NDArray[np.float64]], target: NDArray[np.float64]) -> tuple[list[float], float]:
    """The slopes of a least-squares fit, and its R²."""
    design = np.stack([np.ones_like(target), *regressors], axis=1)
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    residual = target - design @ solution
    return solution[1:].tolist(), 1 - float(residual @ residual) / float(np.var(target) * len(target))
