from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.errors import BadInput
from kdnas_core.search.space import SearchSpace
from kdnas_core.spec import (
    KDNAS_SPACE,
    DistilSpec,
    ObjectiveSpec,
    ProxySpec,
    Recipe,
    RunSpec,
    SearchSpec,
    SpaceSpec,
    Use,
    Yardstick,
    parse_spec,
    parse_spec_json,
    parse_stored_distil,
    parse_stored_spec,
    quick_spec,
    with_settings,
)
from tests.sentences import is_one_sentence

BERT = PRESETS["bert-base"]
PLAIN = {name: shape for name, shape in PRESETS.items() if shape.bottleneck_size is None}


def nested(path: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for "a.b"."""
    for name in reversed(path.split(".")):
        value = {name: value}
    fields: dict[str, Any] = value
    return fields


def refusal(fields: dict[str, Any]) -> str:
    with pytest.raises(BadInput) as caught:
        parse_spec(fields)
    assert is_one_sentence(str(caught.value)), caught.value
    return str(caught.value)


def some(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Draws any subset of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def floats(least: float, most: float) -> st.SearchStrategy[float]:
    return st.floats(least, most, exclude_min=True)


def knob(most: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, most), min_size=1, max_size=4)


specs = some(
    {
        "name": st.text(min_size=1, max_size=100),
        "seed": st.integers(0, 2**32 - 1),
        "teacher": st.text(min_size=1, max_size=20),
        "corpus": st.text(min_size=1, max_size=20),
        "space": st.sampled_from(["kdnas", "teacher"])
        | some(
            {
                "layers": knob(48),
                "hidden_size": knob(16_384),
                "intermediate_size": knob(16_384),
                "attention_heads": knob(64),
                "hidden_act": st.lists(st.sampled_from(["gelu", "relu", "silu"]), min_size=1),
            }
        ),
        "latency": st.builds(
            lambda budget, others: budget | others,
            some({"budget_ms": floats(0, 1e9)}) | some({"budget_speedup": floats(0, 1e9)}),
            some(
                {
                    "threads": st.integers(1, 64),
                    "batch_size": st.integers(1, 256),
                    "sequence_length": st.integers(8, 512),
                    "warmup": st.integers(20, 1_000),
                    "runs": st.integers(100, 10_000),
                }
            ),
        ),
        "objective": some(
            {
                "use": st.sampled_from([None, *get_args(Use)]),
                "yardstick": st.sampled_from([None, *get_args(Yardstick)]),
                "recipe": st.sampled_from([None, *(name for name in get_args(Recipe) if name != "custom")]),
                "mapping": st.sampled_from(["uniform+last", "uniform", "last"]),
                "projection": st.sampled_from(["per_layer", "shared"]),
                "start": st.sampled_from(["teacher", "random"]),
            }
        ),
        "proxy": some(
            {"steps": st.integers(1, 10**6), "learning_rate": floats(0, 1), "pairs": st.floats(0, 1)}
        ),
        "search": some(
            {
                "controller": st.sampled_from(["lstm", "random"]),
                "episodes": st.integers(1, 1_000),
                "epsilon_start": st.floats(0, 1),
                "reward": some({"alpha": st.floats(-10, 0), "beta": floats(0, 1)}),
                "keep_weights": st.sampled_from(["all", "frontier"]),
            }
        ),
    }
)


@given(specs)
def test_a_spec_is_had_back_from_its_json(fields: dict[str, Any]) -> None:
    spec = parse_spec(fields)
    assert parse_spec_json(spec.to_json()) == spec


def kept(chosen: Any, given: Any) -> bool:
    """Returns whether all given values are kept; ignores the order of choices and the space of a preset."""
    if isinstance(given, dict):
        return all(name in chosen and kept(chosen[name], given[name]) for name in given)
    if isinstance(given, list):
        return sorted(set(given)) == chosen
    return given in ("kdnas", "teacher") or bool(chosen == given)


@given(specs)
def test_a_spec_keeps_all_that_was_chosen(fields: dict[str, Any]) -> None:
    assert kept(parse_spec(fields).model_dump(), fields)


@pytest.mark.parametrize(
    "level", ["", "space.", "latency.", "objective.", "proxy.", "search.", "search.reward."]
)
def test_a_misspelt_field_is_refused_by_its_full_name(level: str) -> None:
    assert refusal(nested(f"{level}sentenses", 1)).startswith(f"'{level}sentenses' is not a field of a spec")


def test_without_a_budget_a_student_must_be_twice_as_fast() -> None:
    for latency in ({}, {"budget_ms": None}, {"budget_ms": None, "budget_speedup": None}):
        spec = parse_spec({"latency": latency})
        assert (spec.latency.budget_ms, spec.latency.budget_speedup) == (None, 2.0)


def test_one_budget_leaves_the_other_unset() -> None:
    assert parse_spec({"latency": {"budget_ms": 3}}).latency.budget_speedup is None
    assert parse_spec({"latency": {"budget_speedup": 3}}).latency.budget_ms is None


def test_two_budgets_are_refused() -> None:
    assert "not both" in refusal({"latency": {"budget_ms": 3, "budget_speedup": 2}})


def test_several_budgets_stand_in_order_once_each_the_one_that_allows_most_first() -> None:
    latency = parse_spec({"latency": {"budget_speedup": [7, 2, 3, 2]}}).latency
    assert latency.budget_speedup == [2, 3, 7]
    assert latency.amounts == (2, 3, 7)
    assert [each.budget_speedup for each in latency.budgets] == [2, 3, 7]
    assert parse_spec({"latency": {"budget_ms": [3, 5]}}).latency.amounts == (5, 3)
    one = parse_spec({"latency": {"budget_ms": [4]}}).latency
    assert (one.budget_ms, one.budgets) == (4, (one,))


@pytest.mark.parametrize("budgets", [[], [2, 0], [2, -1], ["two"], [[2]], list(range(1, 22))])
def test_budgets_that_are_none_are_refused_by_the_name_of_the_field(budgets: list[Any]) -> None:
    told = refusal({"latency": {"budget_speedup": budgets}})
    assert "'latency.budget_speedup" in told
    assert len(budgets) < 20 or "at most 20 items" in told
    assert budgets or "at least 1 item" in told


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "many", ["many"], {}, -20.0])
@pytest.mark.parametrize(
    "field",
    [
        "latency.budget_ms",
        "latency.budget_speedup",
        "proxy.learning_rate",
        "search.epsilon_start",
        "search.epsilon_decay",
        "search.epsilon_floor",
        "search.reward.alpha",
        "search.reward.beta",
    ],
)
def test_what_is_no_sensible_number_is_refused_by_the_name_of_the_field(field: str, value: object) -> None:
    told = refusal(nested(field, value))
    assert told.startswith((f"'{field}'", f"'{field}.0'"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "n" * 101),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", 1.5),
        ("teacher", ""),
        ("corpus", None),
        ("space", "teachers"),
        ("space", ["layers"]),
        ("space.layers", []),
        ("space.layers", [0]),
        ("space.layers", [49]),
        ("space.layers", 3),
        ("space.hidden_size", [-384]),
        ("space.attention_heads", [0]),
        ("space.hidden_act", ["gelu", "tanh"]),
        ("latency", 4),
        ("latency.budget_ms", 0),
        ("latency.warmup", 19),
        ("latency.runs", 99),
        ("latency.runtime", "tensorrt"),
        ("objective.recipe", "none"),
        ("objective.mapping", "first"),
        ("proxy.steps", 0),
        ("proxy.batch_size", 0),
        ("search.candidates", 0),
        ("search.reward.alpha", 0.01),
        ("search.reward.beta", 0),
        ("tasks", [""]),
        ("search.reward.mode", "f1"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_the_name_of_the_field(field: str, value: object) -> None:
    assert refusal(nested(field, value)).startswith(f"'{field}")


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "null", "3", '{"seed": NaN}', '{"seed": 1' + "0" * 5_000 + "}"]
)
def test_json_that_is_no_spec_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_spec_json(text)
    assert is_one_sentence(str(caught.value))


def test_the_named_space_of_kd_nas_has_1200_points_of_80_shapes() -> None:
    space = SearchSpace.from_spec(parse_spec({"space": "kdnas"}).space, BERT)
    assert (len(space), len(list(space)), space.shapes()) == (1_200, 1_200, 80)


def test_the_space_of_kd_nas_does_not_depend_on_the_teacher() -> None:
    assert KDNAS_SPACE.filled_from(PRESETS["bert-tiny"]) == KDNAS_SPACE


def test_the_named_space_of_the_teacher_is_the_default() -> None:
    assert parse_spec({"space": "teacher"}) == parse_spec({}) == RunSpec()


@pytest.mark.parametrize(
    "term",
    [
        {"kind": "hidden", "temperature": 2.0},
        {"kind": "attention", "relation_heads": 48},
        {"kind": "embedding", "mapping": "uniform"},
        {"kind": "masked_lm", "mapping": [1, 2]},
    ],
)
def test_a_setting_that_a_term_does_not_use_is_refused(term: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="leave that out") as refused:
        parse_spec({"objective": {"recipe": "custom", "terms": [{"kind": "hidden"}, term]}})
    assert is_one_sentence(str(refused.value))


def test_a_space_may_be_a_published_student_by_name() -> None:
    assert parse_spec({"space": "tinybert4"}).space == SpaceSpec(presets=["tinybert4"])
    assert SpaceSpec(presets=["tinybert4"]).filled_from(BERT) == SpaceSpec(presets=["tinybert4"])


@pytest.mark.parametrize(
    "space",
    ["tinybert5", {"presets": ["tinybert5"]}, {"presets": ["tinybert4"], "layers": [2]}, {"presets": []}],
)
def test_presets_that_do_not_exist_or_stand_beside_knobs_are_refused(space: Any) -> None:
    with pytest.raises(BadInput) as refused:
        parse_spec({"space": space})
    assert is_one_sentence(str(refused.value))


@pytest.mark.parametrize("teacher", PLAIN.values(), ids=PLAIN)
def test_a_space_derived_from_a_teacher_holds_its_own_shape_and_smaller_ones(teacher: Architecture) -> None:
    space = SearchSpace.from_spec(SpaceSpec(), teacher)
    assert teacher in space
    assert (min(space.layers), max(space.layers)) == (1, teacher.layers)
    assert max(space.hidden_size) == teacher.hidden_size
    assert max(space.intermediate_size) == teacher.intermediate_size


def test_only_the_knobs_left_out_are_derived() -> None:
    filled = SpaceSpec(layers=[5, 2], hidden_act=["relu"]).filled_from(BERT)
    assert (filled.layers, filled.hidden_act) == ([2, 5], ["relu"])
    assert filled.hidden_size == list(range(192, 769, 8))
    assert filled.intermediate_size == list(range(192, 3073, 8))
    assert filled.attention_heads == [2, 3, 4, 6, 12]


def test_derived_heads_divide_the_widths_that_were_given_and_derived_widths_the_heads() -> None:
    assert SpaceSpec(hidden_size=[200, 264]).filled_from(BERT).attention_heads == [2, 3, 4, 6, 12]
    assert SpaceSpec(hidden_size=[200]).filled_from(BERT).attention_heads == [2, 4]
    # heads that divide none are refused by the space, in a sentence
    assert SpaceSpec(attention_heads=[49]).filled_from(BERT).attention_heads == [49]
    assert SpaceSpec(attention_heads=[9]).filled_from(BERT).hidden_size == list(range(216, 769, 72))


@pytest.mark.parametrize(("recipe", "heads"), [("minilm", [12]), ("minilmv2", [2, 3, 4, 6, 12])])
def test_where_a_recipe_compares_head_by_head_students_have_the_teachers_heads(
    recipe: str, heads: list[int]
) -> None:
    spec = parse_spec({"objective": {"recipe": recipe}})
    assert spec.filled_from(BERT).space.attention_heads == heads


def test_heads_that_were_chosen_stay_whatever_the_recipe_compares() -> None:
    spec = parse_spec({"objective": {"recipe": "minilm"}, "space": {"attention_heads": [6, 12]}})
    assert spec.filled_from(BERT).space.attention_heads == [6, 12]


def test_choices_are_sorted_and_repeats_dropped() -> None:
    assert parse_spec({"space": {"layers": [6, 3, 6]}}).space.layers == [3, 6]


def test_a_setting_is_json_where_it_is_json_and_else_text() -> None:
    settings = ["seed=7", "space.layers=[2,3]", "name=mine", "corpus=a=b.txt", "proxy.learning_rate=1e-4"]
    assert with_settings({}, settings) == {
        "seed": 7,
        "space": {"layers": [2, 3]},
        "name": "mine",
        "corpus": "a=b.txt",
        "proxy": {"learning_rate": 1e-4},
    }


def test_the_last_setting_of_a_field_wins() -> None:
    assert with_settings({"seed": 1}, ["seed=2", "seed=3"]) == {"seed": 3}


def test_settings_leave_the_given_fields_and_their_neighbours_alone() -> None:
    fields = {"proxy": {"steps": 5, "batch_size": 8}}
    assert with_settings(fields, ["proxy.steps=9"]) == {"proxy": {"steps": 9, "batch_size": 8}}
    assert fields == {"proxy": {"steps": 5, "batch_size": 8}}


def test_setting_one_budget_replaces_the_other() -> None:
    quick = json.loads(quick_spec().to_json())
    spec = parse_spec(with_settings(quick, ["latency.budget_ms=4"]))
    assert (spec.latency.budget_ms, spec.latency.budget_speedup) == (4, None)
    spec = parse_spec(with_settings(json.loads(spec.to_json()), ["latency.budget_speedup=3"]))
    assert (spec.latency.budget_ms, spec.latency.budget_speedup) == (None, 3)


@pytest.mark.parametrize("setting", ["seed", "=3", " =3", "seed.value=3", "space.layers=2"])
def test_a_setting_that_sets_nothing_is_refused(setting: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_spec(with_settings({"seed": 1, "space": "kdnas"}, [setting]))
    assert is_one_sentence(str(caught.value))


def test_a_misspelt_setting_is_refused_by_its_name() -> None:
    assert "'search.episode'" in refusal(with_settings({}, ["search.episode=3"]))


def test_the_quick_search_is_a_valid_spec_of_its_seed() -> None:
    quick = quick_spec(seed=5)
    assert parse_spec_json(quick.to_json()) == quick
    assert quick.seed == 5
    assert quick.model_copy(update={"seed": 0}) == quick_spec()
    assert quick.search.episodes * quick.search.candidates < 30  # minutes, not hours


def test_the_reward_accuracy_needs_a_task() -> None:
    assert refusal({"search": {"reward": {"mode": "accuracy"}}}).startswith("'tasks': the reward 'accuracy'")
    spec = parse_spec({"search": {"reward": {"mode": "accuracy"}}, "tasks": ["packaged"]})
    assert (spec.search.reward.mode, spec.tasks) == ("accuracy", ["packaged"])


def test_tasks_may_be_named_for_any_reward() -> None:
    assert parse_spec({"tasks": ["packaged"]}).search.reward.mode == "kdnas"


# --- what is usual for a teacher --------------------------------------------------------------------------


def chosen(spec: RunSpec) -> tuple[str | None, str | None, str | None, float | None]:
    return spec.objective.use, spec.objective.yardstick, spec.objective.recipe, spec.proxy.pairs


def test_a_spec_leaves_to_the_teacher_what_students_are_for() -> None:
    assert chosen(RunSpec()) == (None, None, None, None)
    assert chosen(quick_spec()) == (None, None, None, None)
    assert DistilSpec().pairs is None


@pytest.mark.parametrize(
    ("makes_vectors", "expected"),
    [
        (True, ("vectors", "vectors", "vectors", 0.0)),
        (False, ("fine_tuning", "layers", "kdnas", 0.5)),
    ],
)
def test_what_was_left_out_is_filled_as_it_is_usual_for_the_teacher(
    makes_vectors: bool, expected: tuple[str, str, str, float]
) -> None:
    filled = quick_spec(seed=4).filled_for(makes_vectors)
    assert chosen(filled) == expected
    assert filled.filled_for(not makes_vectors) == filled, "what is filled stays"
    assert parse_spec_json(filled.to_json()) == filled


@pytest.mark.parametrize("makes_vectors", [True, False])
@pytest.mark.parametrize(
    ("use", "expected"),
    [("vectors", ("vectors", "vectors", 0.0)), ("fine_tuning", ("layers", "kdnas", 0.5))],
)
def test_a_use_that_was_chosen_stays_whatever_the_teacher_and_the_rest_follows_from_it(
    use: Use, expected: tuple[str, str, float], makes_vectors: bool
) -> None:
    spec = RunSpec(objective=ObjectiveSpec(use=use))
    assert chosen(spec.filled_for(makes_vectors)) == (use, *expected)


@pytest.mark.parametrize("makes_vectors", [True, False])
def test_what_was_chosen_stays_as_it_is(makes_vectors: bool) -> None:
    objective = ObjectiveSpec(yardstick="layers", recipe="pkd", mapping="top", start="random")
    spec = RunSpec(seed=3, objective=objective, proxy=ProxySpec(pairs=0.25, steps=7))
    filled = spec.filled_for(makes_vectors)
    assert chosen(filled)[1:] == ("layers", "pkd", 0.25)
    use = filled.objective.use
    assert filled == spec.model_copy(update={"objective": objective.model_copy(update={"use": use})})


@pytest.mark.parametrize(("makes_vectors", "pairs"), [(True, 0.0), (False, 0.0), (True, 1.0), (False, 1.0)])
def test_no_pairs_and_pairs_alone_can_be_chosen_for_any_teacher(makes_vectors: bool, pairs: float) -> None:
    spec = RunSpec(proxy=ProxySpec(pairs=pairs))
    assert spec.filled_for(makes_vectors).proxy.pairs == pairs


@given(specs, st.booleans())
def test_filling_a_spec_changes_nothing_that_was_chosen(fields: dict[str, Any], makes_vectors: bool) -> None:
    spec = parse_spec(fields)
    filled = spec.filled_for(makes_vectors)
    assert None not in chosen(filled)
    assert all(was in (None, now) for was, now in zip(chosen(spec), chosen(filled), strict=True))
    assert filled.space == spec.space
    assert filled.latency == spec.latency
    assert filled.search == spec.search


def test_the_first_versions_judged_by_all_layers_and_taught_by_kd_nas_where_nothing_else_was_said() -> None:
    assert chosen(quick_spec().judged_by_layers()) == (None, "layers", "kdnas", None)
    pkd = RunSpec(objective=ObjectiveSpec(recipe="pkd"))
    assert chosen(pkd.judged_by_layers()) == (None, "layers", "pkd", None)


@pytest.mark.parametrize("pairs", [-0.1, 1.1, "half"])
def test_a_share_of_pairs_is_between_none_and_all(pairs: object) -> None:
    assert "'proxy.pairs'" in refusal({"proxy": {"pairs": pairs}})


def test_a_search_of_before_there_were_static_students_goes_on_without_one() -> None:
    written = json.loads(RunSpec().to_json())
    assert parse_stored_spec(json.dumps(written)).search.static is None  # still to be chosen
    del written["search"]["static"]
    stored = parse_stored_spec(json.dumps(written))
    assert stored.search.static is False
    assert stored.search.most_candidates == 15 * 20


def test_a_static_student_is_one_candidate_more() -> None:
    assert RunSpec().with_static(can_be=True).search.most_candidates == 15 * 20 + 1
    chosen = RunSpec(search=SearchSpec(static=False))
    assert chosen.with_static(can_be=True) == chosen


def test_a_student_of_before_texts_were_cut_into_pieces_goes_on_with_the_chunks_it_began_with() -> None:
    written = json.loads(DistilSpec().model_dump_json())
    assert parse_stored_distil(json.dumps(written)) == DistilSpec()
    del written["cut"]
    stored = parse_stored_distil(json.dumps(written))
    assert not stored.cuts_pieces("vectors")
    assert [DistilSpec().cuts_pieces(use) for use in ("vectors", "fine_tuning")] == [True, False]
    assert DistilSpec(cut="pieces").cuts_pieces("fine_tuning")
