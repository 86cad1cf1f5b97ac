from __future__ import annotations

import pytest

from kdnas_core.search.rungs import FEWEST, Cost, Peer, expected_loss, is_dominated


def cost(ms: float) -> Cost:
    """For a teacher of 10 ms."""
    return Cost(ms, ms / 10)


def peers(*falls: float, ms: float = 5.0, rung: float = 0.5) -> list[Peer]:
    """Peers with this loss after 40 of 200 steps, and one lower by each of `falls` at the end."""
    return [Peer(cost(ms), {0: 1.0, 40: rung, 200: rung - fall}, rung - fall) for fall in falls]


EVEN = peers(0.10, 0.10, 0.12, 0.12)  # standard deviation 0.011547


@pytest.mark.parametrize(("loss", "dominated"), [(0.5230, False), (0.5232, True)])
def test_a_candidate_is_dominated_beyond_two_standard_deviations_of_what_is_left_to_gain(
    loss: float, dominated: bool
) -> None:
    assert is_dominated(cost(5.0), 40, loss, EVEN) == dominated


def test_only_a_faster_candidate_dominates() -> None:
    assert is_dominated(cost(5.0), 40, 0.9, EVEN)
    assert not is_dominated(cost(4.99), 40, 0.9, EVEN)


def test_a_candidate_is_dominated_only_if_it_is_slower_by_both_readings_of_a_latency() -> None:
    # its session had a slower teacher: within a budget as a speed-up it may be the only one
    assert not is_dominated(Cost(5.5, 0.49), 40, 0.9, EVEN)
    assert not is_dominated(Cost(4.9, 0.55), 40, 0.9, EVEN)
    assert is_dominated(Cost(5.0, 0.5), 40, 0.9, EVEN)


def test_nothing_is_known_before_enough_peers_were_trained_to_the_end() -> None:
    stopped = [Peer(cost(1.0), {0: 1.0, 40: 0.1}, None)] * 10
    assert len(EVEN) == FEWEST
    assert not is_dominated(cost(5.0), 40, 0.9, [*EVEN[1:], *stopped])
    assert is_dominated(cost(5.0), 40, 0.9, [*EVEN, *stopped])


def test_a_candidate_that_was_stopped_itself_dominates_others() -> None:
    slow = peers(0.10, 0.10, 0.12, 0.12, ms=9.0)
    assert not is_dominated(cost(5.0), 40, 0.9, slow)
    assert is_dominated(cost(5.0), 40, 0.9, [*slow, Peer(cost(4.0), {40: 0.3}, None)])


def test_a_rung_that_no_peer_has_says_nothing() -> None:
    assert not is_dominated(cost(5.0), 80, 0.9, EVEN)
    assert expected_loss(80, 0.9, EVEN) == 0.9


def test_the_loss_to_expect_is_lower_by_what_the_peers_gained_on_average_and_never_below_zero() -> None:
    assert expected_loss(40, 0.9, EVEN) == pytest.approx(0.79)
    assert expected_loss(40, 0.05, EVEN) == 0.0
