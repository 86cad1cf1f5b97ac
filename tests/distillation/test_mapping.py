from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest

from kdnas_core.distillation.mapping import Mapping, layer_map

SIZES = [(m, n) for m in range(1, 15) for n in range(1, 15)]


def test_ten_of_twelve_layers_skip_where_the_share_rounds_down() -> None:
    learned = [teacher for (teacher,) in layer_map("uniform", 10, 12)]
    assert learned == [1, 2, 3, 4, 6, 7, 8, 9, 10, 12]


def test_ten_of_twelve_layers_learn_the_last_ten() -> None:
    assert [teacher for (teacher,) in layer_map("last", 10, 12)] == list(range(3, 13))


def test_four_of_twelve_layers_learn_every_third_and_the_last_four() -> None:
    assert layer_map("uniform+last", 4, 12) == [(3, 9), (6, 10), (9, 11), (12, 12)]


def test_a_shallower_student_follows_the_written_formulas() -> None:
    for m, n in ((m, n) for m, n in SIZES if m <= n):
        expected = [(floor(Fraction(i * n, m)), n - m + i) for i in range(1, m + 1)]
        assert layer_map("uniform+last", m, n) == expected
        assert layer_map("uniform", m, n) == [(uniform,) for uniform, _ in expected]
        assert layer_map("last", m, n) == [(last,) for _, last in expected]


@pytest.mark.parametrize("n", [1, 4, 12])
def test_with_as_many_layers_both_targets_are_the_same_layer(n: int) -> None:
    assert layer_map("uniform+last", n, n) == [(i, i) for i in range(1, n + 1)]


def test_a_deeper_student_has_its_first_layers_learn_the_first() -> None:
    assert layer_map("uniform+last", 6, 4) == [(1, 1), (1, 1), (2, 1), (2, 2), (3, 3), (4, 4)]


@pytest.mark.parametrize("mapping", ["uniform+last", "uniform", "last"])
def test_every_mapping_stays_within_the_teacher_rises_and_ends_at_its_last_layer(mapping: Mapping) -> None:
    for m, n in SIZES:
        learned = layer_map(mapping, m, n)
        assert len(learned) == m
        assert set(learned[-1]) == {n}
        for role in zip(*learned, strict=True):
            assert all(1 <= teacher <= n for teacher in role)
            assert list(role) == sorted(role)
