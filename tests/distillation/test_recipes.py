from __future__ import annotations

from math import floor
from typing import Any, get_args

import pytest

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.distillation.recipes import RELATION_HEADS, relation_heads, start_layers, terms_of
from kdnas_core.errors import BadInput
from kdnas_core.spec import SAME_HEADS, Mapping, ObjectiveSpec, Recipe, TermSpec
from tests.sentences import is_one_sentence

TEACHER = Architecture(12, 768, 3072, 12)
STUDENT = Architecture(4, 384, 1536, 12)
RECIPES: list[Recipe] = [recipe for recipe in get_args(Recipe) if recipe != "custom"]
MAPPED = {"hidden", "cosine", "patience", "feature_map", "attention", "attention_kl", "attention_transfer"}
MAPPED |= {"value_relation", "relations", "vector", "vector_mse", "similarity", "contrastive"}

# As published: kind, weight, teacher layers, and whatever else is not as usual
PUBLISHED: dict[Recipe, list[tuple[str, float, str | None, dict[str, Any]]]] = {
    "vectors": [
        ("hidden", 1, "final", {}),
        ("vector", 4, "final", {}),
        ("similarity", 1, "final", {}),
    ],  # ours
    "embedding": [("vector", 1, "final", {}), ("vector_mse", 1, "final", {})],
    "similarity": [("similarity", 1, "final", {})],
    "contrastive": [("contrastive", 1, "final", {"temperature": 0.05})],
    "kdnas": [("hidden", 1, "uniform+last", {})],
    "tinybert": [
        ("embedding", 1, None, {}),
        ("attention", 4, "uniform", {}),  # a sum over 4 layers
        ("hidden", 4, "uniform", {}),
        ("prediction", 1, None, {"stage": 2}),
    ],
    "distilbert": [
        ("prediction_kl", 5, None, {"temperature": 2}),
        ("masked_lm", 2, None, {}),
        ("cosine", 1, "final", {}),
    ],
    "pkd": [
        ("masked_lm", 0.5, None, {}),  # alpha of {0.2, 0.5, 0.7}
        ("prediction_kl", 0.5, None, {"temperature": 10}),  # of {5, 10, 20}
        ("patience", 100, "skip", {}),  # beta of {10, 100, 500, 1000}
    ],
    "pd": [("masked_lm", 1, None, {}), ("prediction", 1, None, {"stage": 2})],
    "minilm": [("attention_kl", 1, "final", {}), ("value_relation", 1, "final", {})],
    "minilmv2": [("relations", 1, "final", {"relation_heads": 48})],
    "mobilebert": [
        ("feature_map", 1, "uniform", {"progressive": True}),
        ("attention_transfer", 1, "uniform", {"progressive": True}),
        ("prediction", 0.5, None, {"stage": 2}),
        ("masked_lm", 0.5, None, {"stage": 2}),
    ],
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_the_terms_that_were_published(recipe: Recipe) -> None:
    expected = [
        TermSpec.model_validate({"kind": kind, "weight": weight, "mapping": mapping, **more})
        for kind, weight, mapping, more in PUBLISHED[recipe]
    ]
    assert terms_of(ObjectiveSpec(recipe=recipe), STUDENT, TEACHER) == expected


@pytest.mark.parametrize("layers", [1, 3, 12])
def test_tinyberts_layers_are_summed_so_that_its_depth_is_their_weight(layers: int) -> None:
    student = Architecture(layers, 384, 1536, 12)
    terms = terms_of(ObjectiveSpec(recipe="tinybert"), student, TEACHER)
    assert {term.kind: term.weight for term in terms} == {
        "embedding": 1,
        "attention": layers,
        "hidden": layers,
        "prediction": 1,
    }


@pytest.mark.parametrize("mapping", ["last", [3, 6, 9, 12]])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_mapping_of_the_user_replaces_that_of_the_recipe(recipe: Recipe, mapping: Any) -> None:
    usual = terms_of(ObjectiveSpec(recipe=recipe), STUDENT, TEACHER)
    terms = terms_of(ObjectiveSpec(recipe=recipe, mapping=mapping), STUDENT, TEACHER)
    assert [term.mapping for term in terms] == [mapping if term.kind in MAPPED else None for term in terms]
    unmapped = [[term.model_copy(update={"mapping": None}) for term in some] for some in (usual, terms)]
    assert unmapped[0] == unmapped[1]


def test_own_terms_are_taken_as_they_are_with_the_usual_mapping_where_they_have_none() -> None:
    own = [TermSpec(kind="hidden", weight=3, mapping="last"), TermSpec(kind="cosine", stage=2)]
    for mapping, expected in ((None, "uniform"), ("top", "top")):
        objective = ObjectiveSpec.model_validate({"recipe": "custom", "terms": own, "mapping": mapping})
        terms = terms_of(objective, STUDENT, TEACHER)
        assert terms == [own[0], own[1].model_copy(update={"mapping": expected})]


@pytest.mark.parametrize(
    ("width", "teacher_width", "heads"),
    [
        (384, 768, 48),
        (768, 768, 48),
        (312, 768, 24),
        (128, 768, 32),
        (100, 768, 4),
        (96, 384, 48),
        (7, 32, 1),
    ],
)
def test_relation_heads_are_48_or_as_many_as_divide_both_widths(
    width: int, teacher_width: int, heads: int
) -> None:
    student, teacher = Architecture(2, width, 64, 1), Architecture(12, teacher_width, 64, 1)
    assert relation_heads(student, teacher) == heads
    assert width % heads == teacher_width % heads == 0
    more = range(heads + 1, RELATION_HEADS + 1)
    assert not any(width % count == teacher_width % count == 0 for count in more)


def test_relation_heads_of_a_mobilebert_divide_its_bottleneck() -> None:
    assert PRESETS["mobilebert"].bottleneck_size == 128
    assert relation_heads(PRESETS["mobilebert"], TEACHER) == 32


# Where a student starts


def starts(layers: int, teacher_layers: int, **fields: Any) -> list[int] | None:
    return start_layers(ObjectiveSpec.model_validate(fields), layers, teacher_layers)


def test_distilbert_starts_from_six_layers_spread_from_the_first_to_the_last() -> None:
    assert starts(6, 12, recipe="distilbert") == [1, 3, 5, 8, 10, 12]


def test_patient_students_start_from_the_first_layers() -> None:
    assert starts(6, 12, recipe="pkd") == [1, 2, 3, 4, 5, 6]
    assert starts(3, 12, recipe="pkd") == [1, 2, 3]


@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - {"distilbert", "pkd"}))
def test_other_recipes_leave_open_where_their_students_start(recipe: Recipe) -> None:
    for m, n in ((6, 12), (4, 12), (10, 12), (5, 6), (1, 12), (12, 12)):
        assert starts(m, n, recipe=recipe) is None
        uniform = [floor(i * n / m) for i in range(1, m + 1)]
        assert starts(m, n, recipe=recipe, start_layers="uniform") == uniform


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_start_stays_within_the_teacher_whatever_the_depths(recipe: Recipe) -> None:
    for m in range(1, 15):
        for n in range(1, 15):
            layers = starts(m, n, recipe=recipe)
            assert (layers is None) == (m > n or recipe not in ("distilbert", "pkd"))
            layers = layers or starts(m, n, recipe=recipe, start_layers="uniform")
            assert layers is not None and len(layers) == m
            assert all(1 <= layer <= n for layer in layers)
            assert layers == sorted(layers)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("uniform", [3, 6, 9, 12]),
        ("last", [9, 10, 11, 12]),
        ("top", [9, 10, 11, 12]),
        ("bottom", [1, 2, 3, 4]),
        ([12, 1, 7, 7], [12, 1, 7, 7]),
    ],
)
@pytest.mark.parametrize("recipe", ["kdnas", "distilbert", "pkd"])
def test_what_the_user_chose_goes_before_the_recipes_own(
    recipe: Recipe, chosen: Mapping | list[int], expected: list[int]
) -> None:
    assert starts(4, 12, recipe=recipe, start_layers=chosen) == expected


@pytest.mark.parametrize("chosen", ["bottom", [1, 2], [1, 2, 3, 4, 5, 13]])
def test_a_start_that_does_not_fit_is_refused_in_one_sentence(chosen: Any) -> None:
    with pytest.raises(BadInput) as caught:
        starts(6, 5, start_layers=chosen)
    assert is_one_sentence(str(caught.value))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_compares_heads_where_one_of_its_terms_does(recipe: Recipe) -> None:
    objective = ObjectiveSpec(recipe=recipe)
    terms = terms_of(objective, STUDENT, TEACHER)
    assert objective.compares_heads == any(term.kind in SAME_HEADS for term in terms)
