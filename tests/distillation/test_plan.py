from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest

from kdnas_core.architecture import PRESETS, Architecture, static_student
from kdnas_core.distillation.plan import Plan, TeacherProfile, plan
from kdnas_core.errors import BadInput
from kdnas_core.spec import SAME_HEADS, WORDS, ObjectiveSpec, Recipe, TermKind
from tests.sentences import is_one_sentence

TEACHER = Architecture(12, 48, 64, 4)
STUDENT = Architecture(3, 24, 64, 4)
OTHER_HEADS = Architecture(3, 24, 64, 2)
GIVEN = TeacherProfile(TEACHER, predicts_words=True, hides_words=True)
NO_HEAD = dataclasses.replace(GIVEN, predicts_words=False)
NO_MASK = dataclasses.replace(GIVEN, hides_words=False)
RECIPES: list[Recipe] = [recipe for recipe in get_args(Recipe) if recipe != "custom"]


def planned(student: Architecture = STUDENT, given: TeacherProfile = GIVEN, **fields: Any) -> Plan:
    return plan(ObjectiveSpec.model_validate(fields), student, given)


def custom(
    *terms: TermKind | dict[str, Any], student: Architecture = STUDENT, given: TeacherProfile = GIVEN
) -> Plan:
    listed = [{"kind": term} if isinstance(term, str) else term for term in terms]
    return planned(student, given, recipe="custom", terms=listed)


def names(plan: Plan) -> list[str]:
    return [term.name for term in plan.terms]


def refusal(
    *terms: TermKind | dict[str, Any], student: Architecture = STUDENT, given: TeacherProfile = GIVEN
) -> str:
    with pytest.raises(BadInput) as caught:
        custom(*terms, student=student, given=given)
    assert is_one_sentence(str(caught.value)), caught.value
    return str(caught.value)


# Places


def test_a_term_of_layers_has_the_teacher_layers_of_each_student_layer() -> None:
    (term,) = planned(recipe="kdnas").terms
    assert term.layers == [(), (4, 10), (8, 11), (12, 12), ()]


def test_the_embedding_learns_the_embedding_and_words_learn_from_the_prediction_layer() -> None:
    terms = {term.name: term.layers for term in planned(recipe="tinybert").terms}
    assert terms["embedding"] == [(0,), (), (), (), ()]
    assert terms["prediction"] == [(), (), (), (), (13,)]
    assert terms["attention"] == terms["hidden"] == [(), (4,), (8,), (12,), ()]


@pytest.mark.parametrize("kind", ["hidden", "vector", "cosine", "patience"])
def test_a_static_student_learns_the_teachers_last_states(kind: TermKind) -> None:
    (term,) = custom(kind, student=static_student(24)).terms
    assert term.layers == [(12,), ()]


def test_a_static_student_learns_no_attention() -> None:
    found = custom("hidden", "attention_kl", "relations", student=static_student(24))
    assert names(found) == ["hidden"]
    assert all("a static student has no attention" in note for note in found.notes)
    assert len(found.notes) == 2


@pytest.mark.parametrize("recipe", ["minilm", "minilmv2", "pd"])
def test_a_recipe_of_attention_or_words_alone_is_nothing_for_a_static_student(recipe: Recipe) -> None:
    with pytest.raises(BadInput, match=r"a static student has no (attention|context)"):
        planned(static_student(24), recipe=recipe)


def test_a_layer_that_a_list_leaves_out_learns_from_none() -> None:
    (term,) = custom({"kind": "hidden", "mapping": [None, 0, 7]}).terms
    assert term.layers == [(), (), (0,), (7,), ()]


def test_the_second_term_of_a_kind_is_numbered() -> None:
    plan = custom("hidden", "cosine", {"kind": "hidden", "mapping": "last"}, "hidden")
    assert names(plan) == ["hidden", "cosine", "hidden-2", "hidden-3"]


# What it takes


ATTENTION = {("query", 12), ("key", 12)}
UNIFORM = {(kind, layer) for kind in ("query", "key") for layer in (4, 8, 12)}
READS: dict[Recipe, set[tuple[str, int]]] = {
    "vectors": set(),
    "embedding": set(),
    "similarity": set(),
    "contrastive": set(),
    "kdnas": set(),
    "tinybert": UNIFORM,
    "distilbert": set(),
    "pkd": set(),
    "pd": set(),
    "minilm": ATTENTION | {("value", 12)},
    "minilmv2": ATTENTION | {("value", 12)},
    "mobilebert": UNIFORM,
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_of_the_teacher_no_more_is_read_than_the_recipe_compares(recipe: Recipe) -> None:
    assert planned(recipe=recipe).projections == READS[recipe]


@pytest.mark.parametrize("recipe", RECIPES)
def test_words_are_hidden_where_a_recipe_learns_words(recipe: Recipe) -> None:
    with_words = {"tinybert", "distilbert", "pkd", "pd", "mobilebert"}
    assert planned(recipe=recipe).hides_words == (recipe in with_words)


def test_nothing_is_read_and_no_word_hidden_for_a_term_that_is_left_out() -> None:
    plan = planned(OTHER_HEADS, NO_HEAD, recipe="tinybert")
    assert names(plan) == ["embedding", "hidden"]
    assert plan.projections == set()
    assert not plan.hides_words


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_teacher_and_student_that_have_everything_leave_no_term_out(recipe: Recipe) -> None:
    assert planned(recipe=recipe).notes == []


# What does not fit


@pytest.mark.parametrize("kind", SAME_HEADS)
def test_a_term_of_heads_is_left_out_where_their_numbers_differ(kind: TermKind) -> None:
    plan = custom("hidden", kind, student=OTHER_HEADS)
    assert names(plan) == ["hidden"]
    (note,) = plan.notes
    assert is_one_sentence(note)
    assert f"The {kind} loss is left out" in note
    assert "2 attention heads, the teacher 4" in note


@pytest.mark.parametrize("kind", SAME_HEADS)
def test_where_nothing_else_is_left_to_learn_other_heads_are_refused(kind: TermKind) -> None:
    message = refusal(kind, student=OTHER_HEADS)
    assert OTHER_HEADS.key in message
    assert "2 attention heads, the teacher 4" in message


def test_minilm_is_refused_for_other_heads_with_both_of_its_losses_and_minilmv2_is_not() -> None:
    with pytest.raises(BadInput) as caught:
        planned(OTHER_HEADS, recipe="minilm")
    assert is_one_sentence(str(caught.value))
    assert "attention_kl" in str(caught.value)
    assert "value_relation" in str(caught.value)
    assert planned(OTHER_HEADS, recipe="minilmv2").notes == []


@pytest.mark.parametrize(
    ("heads", "whose"), [(5, "the student's width of 24"), (16, "the student's width of 24")]
)
def test_relation_heads_that_divide_not_both_widths_are_left_out_or_refused(heads: int, whose: str) -> None:
    term = {"kind": "relations", "relation_heads": heads}
    (note,) = custom("hidden", term).notes
    assert is_one_sentence(note)
    assert f"{heads} relation heads do not divide {whose}" in note
    assert f"{heads} relation heads do not divide {whose}" in refusal(term)


def test_relation_heads_that_do_not_divide_the_teachers_width_are_told_of_with_it() -> None:
    teacher = TeacherProfile(Architecture(12, 40, 64, 4), predicts_words=True, hides_words=True)
    term = {"kind": "relations", "relation_heads": 3}
    assert "do not divide the teacher's width of 40" in refusal(term, given=teacher)


def test_relations_of_a_mobilebert_are_cut_out_of_its_bottleneck() -> None:
    teacher = TeacherProfile(Architecture(12, 768, 3072, 12), predicts_words=True, hides_words=True)
    term = {"kind": "relations", "relation_heads": 256}  # divides the stream of 512 but not the 128
    message = refusal(term, student=PRESETS["mobilebert"], given=teacher)
    assert "do not divide the student's width of 128" in message


@pytest.mark.parametrize("mapping", ["bottom", [1, 2, 13], [12, 1, 48]])
@pytest.mark.parametrize("kind", ["hidden", "attention", "relations"])
def test_a_mapping_beyond_the_teachers_depth_is_refused(kind: TermKind, mapping: Any) -> None:
    shallow = TeacherProfile(Architecture(2, 48, 64, 4), predicts_words=True, hides_words=True)
    assert "the teacher has" in refusal({"kind": kind, "mapping": mapping}, given=shallow)


@pytest.mark.parametrize("listed", [[12], [3, 6, 9, 12]])
def test_a_list_of_another_length_than_the_student_is_refused(listed: list[int]) -> None:
    message = refusal({"kind": "hidden", "mapping": listed})
    assert f"{len(listed)} teacher layers" in message


@pytest.mark.parametrize("kind", [*SAME_HEADS, "relations"])
def test_the_embedding_has_no_attention_to_learn_from(kind: TermKind) -> None:
    term = {"kind": kind, "mapping": [0, 6, 12]} | ({"relation_heads": 4} if kind == "relations" else {})
    message = refusal(term)
    assert f"the {kind} loss names layer 0" in message
    assert "name layers 1 to 12" in message


@pytest.mark.parametrize("kind", ["hidden", "cosine", "patience", "feature_map"])
def test_states_can_be_learnt_from_the_embedding(kind: TermKind) -> None:
    (term,) = custom({"kind": kind, "mapping": [0, 6, 12]}).terms
    assert term.layers[1] == (0,)


def test_without_a_masked_lm_head_distilbert_learns_the_rest_and_says_so() -> None:
    plan = planned(given=NO_HEAD, recipe="distilbert")
    assert names(plan) == ["masked_lm", "cosine"]
    (note,) = plan.notes
    assert is_one_sentence(note)
    assert "prediction_kl" in note
    assert "no masked-LM head" in note
    assert "objective.head=trained" in note


def test_without_a_masked_lm_head_nothing_of_the_teacher_is_left_for_pd() -> None:
    with pytest.raises(BadInput, match="no masked-LM head") as caught:
        planned(given=NO_HEAD, recipe="pd")
    assert is_one_sentence(str(caught.value))
    assert "recipe 'pd'" in str(caught.value)


@pytest.mark.parametrize("recipe", ["distilbert", "pkd", "mobilebert", "tinybert"])
def test_without_a_mask_token_all_terms_of_words_are_left_out(recipe: Recipe) -> None:
    whole, plan = planned(recipe=recipe), planned(given=NO_MASK, recipe=recipe)
    assert [term for term in whole.terms if term.spec.kind not in WORDS] == plan.terms
    assert len(plan.notes) == len(whole.terms) - len(plan.terms) > 0
    assert all("no mask token" in note and is_one_sentence(note) for note in plan.notes)
    assert not plan.hides_words


def test_without_a_mask_token_pd_is_refused() -> None:
    with pytest.raises(BadInput, match="no mask token") as caught:
        planned(given=NO_MASK, recipe="pd")
    assert is_one_sentence(str(caught.value))


def test_words_alone_are_nothing_that_is_learnt_from_a_teacher() -> None:
    assert "learn from its teacher; add a term" in refusal("masked_lm")
