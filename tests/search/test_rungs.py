from __future__ import annotations

import math

import numpy as np
import pytest

from kdnas_core.search.rungs import FEWEST, Cost, Peer, Prediction, beaten, predicted_loss


def cost(ms: float) -> Cost:
    """For a teacher of 10 ms."""
    return Cost(ms, ms / 10)


def peer(ms: float, rung: float, final: float | None) -> Peer:
    """A candidate with this loss after 40 of 200 steps."""
    return Peer(cost(ms), {0: 1.0, 40: rung} | ({} if final is None else {200: final}), final)


# what is left at the end is 0.8 of the loss at the rung, nearly
RUNGS = (0.5, 0.55, 0.6, 0.7, 0.8, 0.9)
PEERS = [
    peer(5.0, rung, 0.8 * rung * (1 + off)) for rung, off in zip(RUNGS, [0.004, -0.004] * 3, strict=True)
]
ONE = [cost(9.0)]
SEVERAL = [cost(9.0), cost(6.0), cost(3.0)]


def test_the_loss_at_the_end_is_predicted_as_by_least_squares_over_those_trained_to_the_end() -> None:
    predicted = predicted_loss(40, 0.65, [*PEERS, peer(1.0, 0.1, None)])
    assert predicted is not None
    x, y = np.log(RUNGS), np.log([each.losses[200] for each in PEERS])
    slope, intercept = np.polyfit(x, y, 1)
    assert predicted.log_loss == pytest.approx(intercept + slope * math.log(0.65), abs=1e-3)
    residual = float(np.std(y - slope * x - intercept, ddof=2))
    assert 0.5 * residual < predicted.error < 2 * residual


def test_a_prediction_is_less_sure_far_from_what_was_seen() -> None:
    near, far = predicted_loss(40, 0.65, PEERS), predicted_loss(40, 5.0, PEERS)
    assert near is not None and far is not None
    assert near.error < far.error


def test_the_least_likely_loss_is_a_standard_error_below_the_prediction() -> None:
    predicted = Prediction(math.log(0.4), 0.1)
    assert predicted.loss == pytest.approx(0.4)
    assert predicted.least == pytest.approx(0.4 * math.exp(-0.1))


def test_nothing_is_predicted_before_enough_peers_were_trained_to_the_end() -> None:
    stopped = [peer(1.0, 0.1, None)] * 10
    few = [*PEERS[: FEWEST - 1], *stopped]
    assert predicted_loss(40, 0.9, few) is None
    assert not beaten(cost(9.0), 40, 0.9, few, ONE)
    assert beaten(cost(9.0), 40, 0.9, PEERS[:FEWEST], ONE)


def test_a_rung_that_no_peer_has_says_nothing() -> None:
    assert predicted_loss(80, 0.9, PEERS) is None
    assert not beaten(cost(9.0), 80, 0.9, PEERS, ONE)


def test_with_one_budget_a_candidate_is_beaten_only_by_one_that_is_no_slower_by_either_reading() -> None:
    assert beaten(cost(5.0), 40, 0.9, PEERS, ONE)
    assert not beaten(cost(4.99), 40, 0.9, PEERS, ONE)
    # its session had a slower teacher: within a budget as a speed-up it may be the only one
    assert not beaten(Cost(5.5, 0.49), 40, 0.9, PEERS, ONE)
    assert not beaten(Cost(4.9, 0.55), 40, 0.9, PEERS, ONE)


def test_with_several_budgets_a_candidate_is_beaten_if_another_is_better_within_each_it_is_within() -> None:
    assert beaten(cost(4.0), 40, 0.9, PEERS, SEVERAL), "one of 5 ms is within 6 ms too"
    assert not beaten(cost(3.0), 40, 0.9, PEERS, SEVERAL), "nothing else is within 3 ms"
    assert beaten(cost(3.0), 40, 0.9, [*PEERS, peer(2.9, 0.6, 0.48)], SEVERAL)
    assert not beaten(cost(9.1), 40, 0.9, PEERS, SEVERAL), "over all of them by an estimate: not measured yet"


def test_a_candidate_that_may_still_be_the_best_is_not_beaten() -> None:
    best = min(each.final for each in PEERS if each.final is not None)
    predicted = predicted_loss(40, 0.5, PEERS)
    assert predicted is not None
    assert predicted.least < best < 1.01 * predicted.loss
    assert not beaten(cost(9.0), 40, 0.5, PEERS, ONE)
    assert beaten(cost(9.0), 40, 0.52, PEERS, ONE)


def test_a_loss_of_zero_is_predicted_from() -> None:
    assert predicted_loss(40, 0.0, [peer(5.0, 0.0, 0.0)] * FEWEST) is not None
