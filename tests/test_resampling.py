from __future__ import annotations

import numpy as np
import pytest

from kdnas_core.resampling import packed, standard_error, standard_error_of_difference


def test_what_is_common_to_two_statistics_is_no_noise_of_their_difference() -> None:
    rng = np.random.default_rng(0)
    common, own, others = (sd * rng.standard_normal(20_000) for sd in (0.02, 0.003, 0.004))
    first, second = (0.3 + common + own).tolist(), (0.4 + common + others).tolist()
    assert standard_error(first) == pytest.approx(0.0202, rel=0.02)
    assert standard_error_of_difference(packed(first), packed(second)) == pytest.approx(0.005, rel=0.02)


@pytest.mark.parametrize(("first", "second"), [([], []), ([0.1], [0.2]), ([0.1, 0.2], [0.1, 0.2, 0.3])])
def test_without_the_same_samples_nothing_is_known(first: list[float], second: list[float]) -> None:
    assert standard_error_of_difference(packed(first), packed(second)) is None
