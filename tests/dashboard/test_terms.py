from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, get_args

import pytest

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import layer_terms
from kdnas_core.dashboard.model.layer_terms import Depths, TermLoss
from kdnas_core.dashboard.new_search import objective_form
from kdnas_core.dashboard.run import notes_section
from kdnas_core.dashboard.ui import tables
from kdnas_core.runs.records import LayerLoss
from kdnas_core.spec import ObjectiveSpec, Recipe, TermKind, TermSpec
from tests.dashboard.test_frontier_figure import candidate

NARROW = Architecture(2, 96, 384, 3, embedding_size=48)
LOSSES = [
    LayerLoss(0, 1, 2, 4.0, "attention"),
    LayerLoss(0, 2, 4, 8.0, "attention"),
    LayerLoss(0, 0, 0, 0.9, "embedding"),
    LayerLoss(0, 1, 2, 1.0),
    LayerLoss(40, 1, 2, 1.0, "attention"),
    LayerLoss(40, 2, 4, 2.0, "attention"),
    LayerLoss(40, 1, 2, 0.5),
]


def test_hidden_states_come_first_of_the_terms_and_a_second_after_the_first() -> None:
    assert layer_terms.present(LOSSES) == ["hidden", "embedding", "attention"]
    more = [*LOSSES, LayerLoss(0, 1, 2, 1.0, "hidden-2"), LayerLoss(0, 1, 2, 1.0, "unheard_of")]
    assert layer_terms.present(more) == ["hidden", "hidden-2", "embedding", "attention", "unheard_of"]


def test_a_term_comes_to_the_mean_over_its_layers_at_its_first_and_last_evaluation() -> None:
    assert layer_terms.summary(LOSSES) == [
        TermLoss("hidden", 1.0, 0.5),
        TermLoss("embedding", 0.9, None),
        TermLoss("attention", 6.0, 1.5),
    ]


@pytest.mark.parametrize(
    ("first", "last", "change"),
    [
        (2.0, 0.5, -0.75),
        (1.0, 1.5, 0.5),
        (1.0, None, None),
        (0.0, 1.0, None),
        (1e-7, 0.03, None),
        (math.inf, 1.0, -1.0),
    ],
)
def test_the_change_of_a_term_is_a_share_of_its_first_loss(
    first: float, last: float | None, change: float | None
) -> None:
    assert TermLoss("hidden", first, last).change == change


@pytest.mark.parametrize(("first", "last"), [(1.0, math.inf), (1.0, math.nan), (math.nan, 1.0)])
def test_no_change_is_told_where_a_loss_is_no_number(first: float, last: float) -> None:
    assert TermLoss("hidden", first, last).change is None


def test_the_table_of_terms_reads_in_words_and_three_digits() -> None:
    table = tables.terms_table(layer_terms.summary(LOSSES))
    assert list(table["Term"]) == ["Hidden states", "Embeddings", "Attention scores"]
    assert list(table["First"]) == ["1.00", "0.900", "6.00"]
    assert list(table["Last"]) == ["0.500", "–", "1.50"]
    assert list(table["Change"]) == ["-50 %", "–", "-75 %"]


def test_only_losses_in_units_of_the_targets_variance_are_normalised() -> None:
    assert all(layer_terms.is_normalised(name) for name in ("yardstick", "hidden", "hidden-2", "embedding"))
    assert not any(layer_terms.is_normalised(name) for name in ("attention", "cosine", "prediction"))


def test_what_lies_between_the_layers_of_a_model_is_not_outer() -> None:
    depths = Depths(2, 6)
    assert depths.are_outer(0, 0)
    assert depths.are_outer(3, 7)
    assert not any(depths.are_outer(*pair) for pair in ((1, 0), (2, 6), (1, 3)))


@pytest.mark.parametrize(
    "kind", [*get_args(TermKind), "yardstick", "relations-query", "relations-key", "relations-value"]
)
def test_every_kind_of_term_has_its_words(kind: str) -> None:
    assert kind in wording.TERMS
    assert wording.term(f"{kind}-2") == f"{wording.term(kind)} (2)"
    assert layer_terms.kind(f"{kind}-2") == kind


def test_the_second_relations_are_told_from_the_first() -> None:
    assert wording.term("relations-2-query") == "Query relations (2)"


def test_no_two_terms_or_recipes_read_the_same() -> None:
    for words in (wording.TERMS, wording.RECIPES):
        assert len(set(words.values())) == len(words)


def test_every_recipe_has_a_name_and_a_sentence() -> None:
    recipes = set(get_args(Recipe))
    assert recipes == set(wording.RECIPES)
    assert recipes | {None} == set(objective_form.LEARNS)
    assert wording.recipe(None) == "Usual"
    assert all(sentence.endswith(".") for sentence in objective_form.LEARNS.values())


def test_an_objective_reads_as_its_recipe_or_as_its_own_terms() -> None:
    assert wording.objective(ObjectiveSpec(recipe="pkd")) == "Patient KD"
    parts = [TermSpec(kind="hidden"), TermSpec(kind="hidden"), TermSpec(kind="prediction")]
    assert wording.objective(ObjectiveSpec(recipe="custom", terms=parts)) == "hidden states + predictions"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.01234, "0.0123"),
        (0.5, "0.500"),
        (12.34, "12.3"),
        (12_345.6, "12,346"),
        (math.inf, "–"),
        (None, "–"),
    ],
)
def test_a_loss_of_any_scale_reads_with_three_digits(value: float | None, words: str) -> None:
    assert wording.significant(value) == words


def test_a_cell_of_the_table_that_was_left_empty_is_left_to_the_spec() -> None:
    rows: list[dict[Hashable, Any]] = [{"kind": "hidden", "weight": 2.0, "mapping": None, "stage": math.nan}]
    assert objective_form.terms_of(rows) == [{"kind": "hidden", "weight": 2.0}]


def test_a_factorised_embedding_is_shown_where_there_is_one() -> None:
    plain, narrow = candidate(1, 4.0, 0.6), candidate(2, 4.0, 0.6, architecture=NARROW)
    assert wording.shape(NARROW) == "2 layers · hidden 96 · embedding 48 · FFN 384 · 3 heads · gelu"
    assert "embedding" not in wording.shape(plain.architecture)
    assert list(tables.candidates_table([plain, narrow])["Embedding"].dropna()) == [48]
    assert "Embedding" not in tables.candidates_table([plain])
    assert tables.candidates_table([]).empty


def test_each_note_is_counted_once_a_candidate_the_most_frequent_first() -> None:
    rows = [
        candidate(1, 4.0, 0.6, notes=("b", "a", "a")),
        candidate(2, 4.0, 0.6, notes=("a",)),
        candidate(3, 4.0, 0.6),
    ]
    assert notes_section.counted(rows) == [("a", 2), ("b", 1)]
