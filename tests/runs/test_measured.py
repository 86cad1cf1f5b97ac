from __future__ import annotations

import math

import numpy as np
import pytest

from kdnas_core.resampling import packed, standard_error_of_difference, standard_errors_of_differences
from kdnas_core.runs.measured import Measured
from tests.dashboard.test_frontier_figure import candidate


def test_only_what_was_judged_to_the_end_is_measured_and_keeps_its_order() -> None:
    rows = [
        candidate(1, 4.0, 0.6, loss_se=0.01),
        candidate(2, 6.0, math.nan),
        candidate(3, math.inf, 0.5),
        candidate(4, None, 0.5),
        candidate(5, 7.0, 0.5, "pruned"),
        candidate(6, 5.0, 0.4),
    ]
    measured = Measured.of(rows)
    assert [row.id for row in measured] == [1, 6]
    assert measured.points.tolist() == [[4.0, 0.6], [5.0, 0.4]]
    assert measured.speedups == pytest.approx([18.5 / 4, 18.5 / 5])
    assert measured.noise.tolist() == [0.01, 0.0]
    assert [row.id for row in measured.where(measured.errors < 0.5)] == [6]
    assert len(Measured.of([])) == 0
    assert Measured.of([]).points.shape == (0, 2)


def test_differences_from_many_have_the_standard_errors_of_each() -> None:
    noise = np.random.default_rng(0)
    first, *others = (packed(noise.normal(size=30).tolist()) for _ in range(4))
    others.insert(1, packed([1.0, 2.0]))  # of another number of samples
    others.append(b"")
    found = standard_errors_of_differences(first, others)
    assert np.isnan(found).tolist() == [False, True, False, False, True]
    for error, other in zip(found.tolist(), others, strict=True):
        one = standard_error_of_difference(first, other)
        assert (one is None) if math.isnan(error) else error == one
    values, third = (np.frombuffer(kept, "<f4").astype(float) for kept in (first, others[2]))
    assert found[2] == pytest.approx(np.std(values - third, ddof=1), rel=1e-12)
