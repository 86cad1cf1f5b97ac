from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import pytest

from kdnas_core.errors import BadInput
from kdnas_core.models.mapping import layer_map
from kdnas_core.spec import Mapping
from tests.sentences import is_one_sentence

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


def refusal(mapping: Mapping | Sequence[int | None], layers: int, teacher_layers: int) -> str:
    with pytest.raises(BadInput) as caught:
        layer_map(mapping, layers, teacher_layers)
    assert is_one_sentence(str(caught.value)), caught.value
    return str(caught.value)


def test_top_is_last_under_the_name_that_tinybert_gives_it() -> None:
    assert layer_map("top", 4, 12) == [(9,), (10,), (11,), (12,)]
    for m, n in SIZES:
        assert layer_map("top", m, n) == layer_map("last", m, n)


def test_bottom_is_the_same_layer_and_needs_a_teacher_as_deep() -> None:
    for m, n in SIZES:
        if m <= n:
            assert layer_map("bottom", m, n) == [(i,) for i in range(1, m + 1)]
        else:
            assert f"layer {m}, but the teacher has {n}" in refusal("bottom", m, n)


def test_skip_takes_every_second_of_twelve_layers_and_leaves_the_last_student_layer_alone() -> None:
    assert layer_map("skip", 6, 12) == [(2,), (4,), (6,), (8,), (10,), ()]
    assert layer_map("skip", 3, 12) == [(4,), (8,), ()]


def test_skip_rounds_down_where_the_depth_does_not_divide() -> None:
    assert layer_map("skip", 5, 12) == [(2,), (4,), (7,), (9,), ()]
    assert layer_map("skip", 4, 6) == [(1,), (3,), (4,), ()]
    assert layer_map("skip", 4, 2) == [(1,), (1,), (1,), ()]
    for m, n in SIZES:
        if m > 1:
            expected = [(max(1, floor(Fraction(i * n, m))),) for i in range(1, m)]
            assert layer_map("skip", m, n) == [*expected, ()]


def test_skip_is_refused_for_one_layer_which_would_match_nothing() -> None:
    assert "'skip'" in refusal("skip", 1, 12)


@pytest.mark.parametrize("listed", [[2, 5, 12], [12, 12, 1], [0, 0, 0]])
def test_a_list_is_taken_as_it_is_with_0_for_the_embedding(listed: list[int]) -> None:
    assert layer_map(listed, 3, 12) == [(layer,) for layer in listed]
    assert layer_map(tuple(listed), 3, 12) == [(layer,) for layer in listed]


@pytest.mark.parametrize("layer", [13, -1, 1_000])
def test_a_list_beyond_the_depth_of_the_teacher_is_refused_with_the_layer_and_the_depth(layer: int) -> None:
    sentence = refusal([4, layer, 12], 3, 12)
    assert f"layer {layer} " in sentence
    assert "0 to 12" in sentence


@pytest.mark.parametrize("listed", [[], [3, 6], [3, 6, 9, 12]])
def test_a_list_of_another_length_than_the_student_is_refused(listed: list[int]) -> None:
    sentence = refusal(listed, 3, 12)
    assert f"{len(listed)} teacher layers" in sentence
    assert "of 3 layers" in sentence


def test_final_has_the_last_layer_alone_learn_from_the_last() -> None:
    for m, n in SIZES:
        assert layer_map("final", m, n) == [*[()] * (m - 1), (n,)]


def test_a_layer_that_a_list_leaves_out_learns_from_none() -> None:
    assert layer_map([None, 4, None], 3, 12) == [(), (4,), ()]


def test_a_list_that_leaves_out_every_layer_is_refused() -> None:
    assert "names no teacher layer" in refusal([None, None], 2, 12)
