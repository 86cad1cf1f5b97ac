from __future__ import annotations

from itertools import permutations
from statistics import fmean

import numpy as np
import pytest
from numpy.typing import NDArray

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard.model import knobs
from kdnas_core.dashboard.run import knobs_section
from kdnas_core.runs.records import Candidate
from tests.dashboard.test_frontier_figure import candidate


def reference(regressors: NDArray[np.float64], target: NDArray[np.float64]) -> list[float]:
    """Each one's gain of R², averaged over all orders; R² from correlations alone."""

    def square(chosen: tuple[int, ...]) -> float:
        if not chosen:
            return 0.0
        among = np.corrcoef(np.concatenate([regressors[list(chosen)], target[None]]))
        inner, outer = among[:-1, :-1], among[:-1, -1]
        return float(outer @ np.linalg.inv(inner) @ outer)

    gains: list[list[float]] = [[] for _ in regressors]
    for order in permutations(range(len(regressors))):
        for place, each in enumerate(order):
            gains[each].append(square(order[: place + 1]) - square(order[:place]))
    return [fmean(values) for values in gains]


def test_relative_importance_is_the_mean_gain_of_r_squared_over_all_orders() -> None:
    noise = np.random.default_rng(0)
    mixed = noise.normal(size=(4, 4)) @ noise.normal(size=(4, 40))  # they go together
    target = np.array([1.0, -0.5, 0.2, 0.0]) @ mixed + noise.normal(size=40)
    found = knobs.relative_importance({str(place): row for place, row in enumerate(mixed)}, target)
    assert list(found.values()) == pytest.approx(reference(mixed, target), abs=1e-12)


def students(count: int) -> list[Candidate]:
    """Deeper ones are better, wider ones by a little, and those with more neurons worse."""
    noise = np.random.default_rng(1)
    rows = []
    for number in range(count):
        layers, width, inner = (int(noise.choice(of)) for of in ((1, 2, 4), (96, 192, 384), (192, 768)))
        error = 0.7 - 0.2 * np.log2(layers) / 2 - 0.02 * np.log2(width / 96) + 0.01 * np.log2(inner / 192)
        shape = Architecture(layers, width, inner, 3)
        rows.append(candidate(number, 1.0 + layers, float(error), architecture=shape))
    return rows


def test_the_knob_that_matters_most_comes_first_and_each_says_which_end_is_better() -> None:
    found = knobs.importances(students(40))
    assert [each.knob for each in found][:1] == ["layers"]
    assert {each.knob: each.larger_is_better for each in found} == {
        "layers": True,
        "hidden size": True,
        "FFN size": False,
    }
    assert sum(each.share for each in found) == pytest.approx(1.0)  # the errors are linear in them


@pytest.mark.parametrize("rows", [[], students(3), [candidate(1, 4.0, 0.5), candidate(2, 4.0, 0.5)] * 20])
def test_too_few_students_or_equal_ones_have_no_importances(rows: list[Candidate]) -> None:
    assert knobs.importances(rows) == []


def test_failed_and_static_students_are_left_out() -> None:
    rows = students(12)
    static = candidate(90, 0.3, 0.9, architecture=Architecture(0, 384, 1, 1))
    others = [static, candidate(91, None, None, "failed"), candidate(92, 5.0, float("nan"))]
    assert knobs.importances([*rows, *others]) == knobs.importances(rows)


def test_each_student_is_a_line_through_the_sizes_in_which_students_differ() -> None:
    rows = students(12)
    [lines] = knobs_section.parallel_figure(rows).data
    assert [axis.label for axis in lines.dimensions] == [
        "layers", "hidden size", "FFN size", "ms", "agreement",
    ]  # fmt: skip
    assert len(lines.dimensions[0]["values"]) == len(rows)
    assert max(lines.line.color) == pytest.approx(100 * (1 - min(row.point[1] for row in rows)))
