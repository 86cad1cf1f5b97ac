from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas_core.search.pareto import Point, frontier, hypervolume, pick

# few values, so that there are many ties, and some that are not finite
numbers = st.integers(0, 6).map(float) | st.floats(0, 6) | st.sampled_from([math.nan, math.inf, -math.inf])
points_lists = st.lists(st.tuples(numbers, numbers), max_size=25)
finite_lists = st.lists(
    st.tuples(st.integers(0, 8).map(float) | st.floats(0, 8), st.floats(0, 8)), max_size=15
)


def finite(point: Point) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def beats(one: Point, other: Point) -> bool:
    return one[0] <= other[0] and one[1] <= other[1] and one != other


def by_force(points: Sequence[Point]) -> list[int]:
    """Compares each point with every other one."""
    kept = [
        i
        for i, point in enumerate(points)
        if finite(point)
        and not any(finite(other) and beats(other, point) for other in points)
        and point not in points[:i]
    ]
    return sorted(kept, key=lambda i: points[i])


def by_rectangles(points: Sequence[Point], reference: Point) -> float:
    """One rectangle for each step of the staircase."""
    area, floor = 0.0, reference[1]
    for latency, loss in sorted(point for point in points if finite(point)):
        if latency < reference[0] and loss < floor:
            area += (reference[0] - latency) * (floor - loss)
            floor = loss
    return area


@given(points_lists)
def test_the_frontier_is_what_no_other_point_beats(points: list[Point]) -> None:
    assert frontier(points) == by_force(points)


def test_the_frontier_of_a_small_example_is_by_rising_latency() -> None:
    points = [(5.0, 0.1), (1.0, 0.9), (3.0, 0.5), (4.0, 0.5), (3.0, 0.6), (1.0, 0.9)]
    assert frontier(points) == [1, 2, 0]


def test_of_equal_points_the_first_is_kept() -> None:
    assert frontier([(2.0, 2.0), (1.0, 1.0), (1.0, 1.0)]) == [1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_neither_wins_nor_hides_others(bad: float) -> None:
    points = [(bad, 0.0), (0.0, bad), (bad, bad), (2.0, 0.5)]
    assert frontier(points) == [3]
    assert pick(points, 10.0) == 3
    assert hypervolume(points, (3.0, 1.0)) == pytest.approx(0.5)


def test_without_points_there_is_nothing_to_take() -> None:
    for points in ([], [(math.nan, 1.0)]):
        assert frontier(points) == []
        assert pick(points, 5.0) is None
        assert hypervolume(points, (1.0, 1.0)) == 0


@given(points_lists, st.floats(-1, 8) | st.sampled_from([math.inf, math.nan]))
def test_the_pick_is_within_the_budget_and_no_better_one_is(points: list[Point], budget: float) -> None:
    chosen = pick(points, budget)
    within = [point for point in points if finite(point) and point[0] <= budget]
    if not within:
        assert chosen is None
        return
    assert chosen is not None
    least = min(loss for _, loss in within)
    assert points[chosen][1] == least
    assert points[chosen][0] == min(latency for latency, loss in within if loss == least)
    assert points[chosen][0] <= budget


@given(finite_lists, st.tuples(st.floats(0, 9), st.floats(0, 9)))
def test_the_hypervolume_is_the_area_under_the_staircase(points: list[Point], reference: Point) -> None:
    expected = by_rectangles(points, reference)
    assert hypervolume(points, reference) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(finite_lists, st.tuples(st.floats(0, 8), st.floats(0, 8)))
def test_one_point_more_never_makes_the_hypervolume_smaller(points: list[Point], more: Point) -> None:
    reference = (9.0, 9.0)
    assert hypervolume([*points, more], reference) >= hypervolume(points, reference) - 1e-9


def test_ten_thousand_points_are_no_burden() -> None:
    rng = random.Random(0)
    points = [(rng.uniform(1, 20), rng.uniform(0, 1)) for _ in range(10_000)]
    started = time.process_time()
    found = frontier(points)
    area = hypervolume(points, (20.0, 1.0))
    assert time.process_time() - started < 2
    assert area == pytest.approx(by_rectangles(points, (20.0, 1.0)))
    least, expected = math.inf, []
    for index in sorted(range(10_000), key=lambda index: points[index]):
        if points[index][1] < least:
            least = points[index][1]
            expected.append(index)
    assert found == expected
