from __future__ import annotations

import pytest
from scipy.stats import kendalltau, spearmanr

from kdnas_core.search.ranking import Ranking, pairs_of_equal_latency, ranked

ALL = [(0, 1), (0, 2), (1, 2)]


def test_a_measure_that_orders_students_as_their_scores_do_is_right_in_every_pair() -> None:
    assert ranked([0.3, 0.2, 0.1], [70, 80, 90], [0, 0, 0], ALL) == Ranking(1.0, 3, 3)
    assert ranked([0.1, 0.2, 0.3], [70, 80, 90], [0, 0, 0], ALL) == Ranking(-1.0, 0, 3)


def test_the_correlation_and_the_pairs_are_those_of_scipy() -> None:
    errors, scores = [0.5, 0.1, 0.4, 0.2, 0.3], [1.0, 2.0, 4.0, 5.0, 3.0]
    pairs = pairs_of_equal_latency([1.0] * 5)
    found = ranked(errors, scores, [0.0] * 5, pairs)
    assert found.spearman == pytest.approx(spearmanr([-error for error in errors], scores).statistic)
    tau = kendalltau([-error for error in errors], scores).statistic
    assert (2 * found.right - found.pairs) / found.pairs == pytest.approx(tau)


def test_scores_within_their_noise_are_no_pair() -> None:
    for noise, pairs in ((0.8, 0), (0.6, 1)):
        found = ranked([0.1, 0.2], [81, 80], [noise, noise], [(0, 1)])
        assert (found.right, found.pairs) == (pairs, pairs)


def test_a_pair_whose_noise_is_not_known_does_not_count() -> None:
    assert ranked([0.1, 0.2], [81, 70], [0.5, None], [(0, 1)]).pairs == 0


def test_a_measure_that_is_the_same_for_all_has_no_correlation_and_is_right_in_no_pair() -> None:
    assert ranked([0.2, 0.2], [80, 90], [0, 0], [(0, 1)]) == Ranking(None, 0, 1)


def test_pairs_of_equal_latency_differ_by_fifteen_per_cent_at_most() -> None:
    assert pairs_of_equal_latency([4.0, 4.5, 5.0, 5.1, 9.0]) == [(0, 1), (1, 2), (1, 3), (2, 3)]
