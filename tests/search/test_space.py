from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.errors import BadInput
from kdnas_core.search.controllers.lstm import LstmController
from kdnas_core.search.loop import Outcome
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import SearchSpec, SpaceSpec
from tests.sentences import is_one_sentence

TEACHER = Architecture(6, 384, 1536, 12)
SPACE = SearchSpace((1, 2, 4), (16, 24, 30), (32, 48), (2, 3, 4), ("gelu", "relu"))


def distinct(most: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(1, most), min_size=1, max_size=4, unique=True).map(
        lambda ns: tuple(sorted(ns))
    )


spaces = st.builds(
    SearchSpace,
    layers=distinct(12),
    hidden_size=distinct(64),
    intermediate_size=distinct(64),
    attention_heads=distinct(8),
    hidden_act=st.sampled_from([("gelu",), ("gelu", "relu", "silu")]),
    embedding_size=st.just(()) | distinct(64),
)


@given(spaces)
def test_every_point_exists_once_and_has_heads_that_divide(space: SearchSpace) -> None:
    points = list(space)
    assert len(points) == len(space) == len(set(points))
    assert all(point.hidden_size % point.attention_heads == 0 for point in points)
    assert all((point.embedding_size or 0) <= point.hidden_size for point in points)
    assert {point.embedding_size for point in points} <= set(space.embedding_size or (None,))


def test_the_points_are_those_of_the_choices_whose_heads_divide() -> None:
    pairs = {(16, 2), (16, 4), (24, 2), (24, 3), (24, 4), (30, 2), (30, 3)}
    assert {(point.hidden_size, point.attention_heads) for point in SPACE} == pairs
    assert len(SPACE) == 3 * 2 * 2 * len(pairs)
    assert SPACE.shapes() == 3 * 2 * 3


def test_the_order_of_the_points_is_fixed() -> None:
    assert list(SPACE) == list(SPACE)
    assert [point.layers for point in SPACE] == sorted(point.layers for point in SPACE)


@given(spaces)
def test_indices_lead_back_to_the_point(space: SearchSpace) -> None:
    for point in space:
        layers, width, intermediate, heads, act, *rest = space.indices(point)
        assert len(rest) == bool(space.embedding_size)
        assert point == Architecture(
            space.layers[layers],
            space.hidden_size[width],
            space.intermediate_size[intermediate],
            space.attention_heads[heads],
            space.hidden_act[act],
            space.embedding_size[rest[0]] if rest else None,
        )
        assert space.at(space.indices(point)) == point
        assert all(index < count for index, count in zip(space.indices(point), space.choices(), strict=True))


def test_choices_that_do_not_go_together_are_no_point() -> None:
    assert SPACE.at((0, 0, 0, 1, 0)) is None, "3 heads do not divide 16"
    presets = SearchSpace((), (), (), (), (), presets=(PRESETS["tinybert4"], PRESETS["tinybert6"]))
    assert presets.at((1,)) == PRESETS["tinybert6"]


@given(spaces)
def test_a_point_is_in_its_space_and_has_a_number(space: SearchSpace) -> None:
    for number, point in enumerate(space):
        assert space[number] == point
        assert point in space
        assert replace(point, layers=13) not in space
        assert replace(point, hidden_size=65 * point.attention_heads) not in space
    with pytest.raises(IndexError):
        space[len(space)]


@given(spaces.filter(len))
def test_kinds_are_all_depths_widths_heads_and_embeddings_once(space: SearchSpace) -> None:
    def kind(point: Architecture) -> tuple[int, int, int, int | None]:
        return point.layers, point.hidden_size, point.attention_heads, point.embedding_size

    kinds = [kind(point) for point in space.kinds()]
    assert len(set(kinds)) == len(kinds)
    assert set(kinds) == {kind(point) for point in space}


@given(spaces.filter(len))
def test_shapes_are_counted_as_if_they_were_listed(space: SearchSpace) -> None:
    assert space.shapes() == len({(point.shape, point.embedding_size) for point in space})


def test_a_space_of_144_million_points_is_counted_and_drawn_from_without_listing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SearchSpace, "__iter__", None)
    every = tuple(range(8, 4_008, 8))
    space = SearchSpace(tuple(range(1, 49)), every, every, (1, 2, 4, 8), ("gelu", "relu", "silu"))
    assert len(space) == 48 * 500 * 500 * 4 * 3
    assert space.shapes() == 48 * 500 * 500
    assert space.smallest().shape == (1, 8, 8)
    assert sum(1 for _ in space.kinds()) == 48 * 500 * 4
    sample = space.sample(random.Random(0), 500, {space[0], Architecture(99, 8, 8, 1)})
    assert len(set(sample)) == 500
    assert len({point.layers for point in sample}) == 48


def test_a_sample_has_different_points_of_the_space_that_were_not_seen() -> None:
    points = list(SPACE)
    seen = set(points[::3])
    sample = SPACE.sample(random.Random(0), 20, seen)
    assert len(sample) == len(set(sample)) == 20
    assert set(sample) <= set(points) - seen


def test_a_sample_of_more_than_there_is_has_all_that_is_left() -> None:
    points = list(SPACE)
    assert set(SPACE.sample(random.Random(0), 10_000, set(points[:50]))) == set(points[50:])
    assert SPACE.sample(random.Random(0), 5, set(points)) == []


def test_the_same_random_numbers_draw_the_same_sample() -> None:
    samples = [SPACE.sample(random.Random(seed), 8, set()) for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]


def test_a_draw_is_a_point_of_the_space_each_as_likely_as_any_other() -> None:
    space = SearchSpace((1, 2), (16, 24), (32,), (2, 3), ("gelu",), (8, 20))
    rng = random.Random(0)
    counts = Counter(space.draw(rng) for _ in range(4_000))

    assert set(counts) == set(space)
    expected = 4_000 / len(space)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_a_draw_of_presets_is_one_of_them() -> None:
    space = SearchSpace.from_spec(SpaceSpec(presets=["tinybert4", "tinybert6"]), TEACHER)
    assert {space.draw(random.Random(seed)) for seed in range(20)} == set(space.presets)


def test_equal_spaces_have_equal_keys_and_others_have_not() -> None:
    one, other = (SearchSpace((1, 2), (16,), heads, (2,), ("gelu",)) for heads in ((32,), (64,)))
    assert one.key == SearchSpace((1, 2), (16,), (32,), (2,), ("gelu",)).key
    assert one.key != other.key
    assert one.depths == [1, 2]


def test_every_point_is_as_likely_as_any_other() -> None:
    rng = random.Random(0)
    draws = Counter(SPACE.sample(rng, 1, set())[0] for _ in range(50 * len(SPACE)))
    counts = [draws[point] for point in SPACE]  # 50 of each are expected, give or take 7
    assert min(counts) > 20
    assert max(counts) < 80


@given(spaces.filter(len))
def test_the_smallest_has_no_more_multiply_adds_than_any(space: SearchSpace) -> None:
    least = space.smallest().flops(128)
    assert all(least <= point.flops(128) for point in space)


def test_a_space_left_open_is_derived_from_the_teacher() -> None:
    space = SearchSpace.from_spec(SpaceSpec(), TEACHER)
    widths, inner = tuple(range(96, 385, 8)), tuple(range(96, 1537, 8))
    assert space == SearchSpace((1, 2, 3, 4, 5, 6), widths, inner, (2, 3, 4, 6, 12), ("gelu",))
    assert (len(space), space.shapes()) == (122_718, 6 * 37 * 181)
    assert len(SearchSpace.from_spec(SpaceSpec(), PRESETS["bert-base"])) == 957_372


def test_choices_of_the_user_are_kept_in_rising_order() -> None:
    space = SearchSpace.from_spec(SpaceSpec(layers=[9, 5], attention_heads=[12, 1]), TEACHER)
    assert (space.layers, space.attention_heads) == ((5, 9), (1, 12))
    assert all(one < next_one for one, next_one in pairwise(space.hidden_size))


def test_heads_that_divide_no_hidden_size_are_refused_by_their_number() -> None:
    with pytest.raises(BadInput, match="7 attention heads divide none") as caught:
        SearchSpace.from_spec(SpaceSpec(hidden_size=[16, 24], attention_heads=[4, 7]), TEACHER)
    assert is_one_sentence(str(caught.value))


def test_heads_that_divide_no_derived_hidden_size_are_refused_by_their_number() -> None:
    with pytest.raises(BadInput, match="49 attention heads divide none"):
        SearchSpace.from_spec(SpaceSpec(attention_heads=[49]), TEACHER)


def test_heads_that_divide_one_of_the_hidden_sizes_are_enough() -> None:
    space = SearchSpace.from_spec(SpaceSpec(hidden_size=[16, 21], attention_heads=[4, 7]), TEACHER)
    assert {(point.hidden_size, point.attention_heads) for point in space} == {(16, 4), (21, 7)}


def test_a_space_without_a_point_is_refused() -> None:
    empty = SpaceSpec().model_copy(update={"layers": []})
    with pytest.raises(BadInput, match="no valid point") as caught:
        SearchSpace.from_spec(empty, TEACHER)
    assert is_one_sentence(str(caught.value))


def test_a_space_without_embedding_sizes_has_five_knobs_and_one_with_them_six() -> None:
    assert SPACE.choices() == [3, 3, 2, 3, 2]
    assert replace(SPACE, embedding_size=(8, 16)).choices() == [3, 3, 2, 3, 2, 2]


def test_every_point_has_one_of_the_embedding_sizes_that_its_hidden_size_takes() -> None:
    space = SearchSpace.from_spec(
        SpaceSpec(hidden_size=[16, 32], attention_heads=[4], embedding_size=[8, 24]), TEACHER
    )
    pairs = {(point.hidden_size, point.embedding_size) for point in space}
    assert pairs == {(16, 8), (32, 8), (32, 24)}
    assert space.shapes() == len(space) == 6 * 3 * len(space.intermediate_size)


def test_an_embedding_size_as_wide_as_a_hidden_size_is_taken() -> None:
    space = SearchSpace.from_spec(SpaceSpec(hidden_size=[24, 36], embedding_size=[36]), TEACHER)
    assert {point.hidden_size for point in space} == {36}


def test_an_embedding_size_that_no_hidden_size_takes_is_refused_by_its_number() -> None:
    with pytest.raises(BadInput, match="embedding size of 48 exceeds all of the hidden sizes") as caught:
        SearchSpace.from_spec(SpaceSpec(hidden_size=[24, 36], embedding_size=[8, 48]), TEACHER)
    assert is_one_sentence(str(caught.value))


def test_a_controller_that_learns_tells_embedding_sizes_apart() -> None:
    space = replace(SPACE, embedding_size=(8, 16))
    one, other = (Architecture(1, 16, 32, 2, "gelu", size) for size in (8, 16))
    assert space.indices(one)[:5] == space.indices(other)[:5]
    assert space.indices(one)[5] != space.indices(other)[5]
    controller = LstmController(space, SearchSpec(candidates=6), seed=0)
    for episode in (1, 2):
        proposals = controller.ask(episode, 6)
        assert len({proposal.architecture for proposal in proposals}) == 6
        controller.tell([Outcome(proposal.architecture, 0.5) for proposal in proposals])


def test_a_space_of_presets_has_those_alone_each_shape_once() -> None:
    named = SpaceSpec(presets=["tinybert6", "bert-pkd-6", "mobilebert-tiny"])
    space = SearchSpace.from_spec(named, PRESETS["bert-base"])
    assert list(space) == [PRESETS["bert-pkd-6"], PRESETS["mobilebert-tiny"]]
    assert (len(space), space.choices()) == (2, [2])
    assert [space.indices(architecture) for architecture in space] == [(0,), (1,)]
    assert space.sample(random.Random(0), 5, seen=[PRESETS["tinybert6"]]) == [PRESETS["mobilebert-tiny"]]


def test_neighbours_differ_in_one_knob_by_one_choice_and_in_heads_where_they_must() -> None:
    here = Architecture(2, 24, 32, 3, "gelu")
    assert set(SPACE.neighbours(here)) == {
        Architecture(1, 24, 32, 3, "gelu"),
        Architecture(4, 24, 32, 3, "gelu"),
        Architecture(2, 16, 32, 2, "gelu"),  # 3 heads do not divide 16; 2 and 4 are as near
        Architecture(2, 30, 32, 3, "gelu"),
        Architecture(2, 24, 48, 3, "gelu"),
        Architecture(2, 24, 32, 2, "gelu"),
        Architecture(2, 24, 32, 4, "gelu"),
        Architecture(2, 24, 32, 3, "relu"),
    }


def test_where_choices_are_many_neighbours_are_a_few_on_too() -> None:
    space = SearchSpace((2,), tuple(range(96, 385, 8)), (96,), (4,), ("gelu",))
    widths = [shape.hidden_size for shape in space.neighbours(Architecture(2, 192, 96, 4))]
    assert widths == [176, 184, 200, 208]
    assert [shape.hidden_size for shape in space.neighbours(Architecture(2, 96, 96, 4))] == [104, 112]


@given(spaces.filter(len))
def test_neighbours_are_points_of_the_space(space: SearchSpace) -> None:
    for point in list(space)[:20]:
        around = space.neighbours(point)
        assert len(set(around)) == len(around)
        assert point not in around
        assert all(neighbour in space for neighbour in around)


def test_a_preset_has_no_neighbours() -> None:
    space = SearchSpace.from_spec(SpaceSpec(presets=["tinybert4", "tinybert6"]), TEACHER)
    assert space.neighbours(space[0]) == []
