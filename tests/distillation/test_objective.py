from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.objective import Objective
from kdnas_core.distillation.terms import PairTerm, Pass, StateTerm, Term, WordTerm
from kdnas_core.models.capture import Captured
from kdnas_core.models.mapping import HIDDEN, PROBE
from kdnas_core.models.student import new_student
from kdnas_core.models.targets import Batch, Targets, make_batch
from kdnas_core.models.teacher import Teacher
from kdnas_core.models.vocabulary import Vocabulary
from kdnas_core.spec import ObjectiveSpec, Recipe, TermSpec
from tests.tiny import (
    everything_of,
    made_up_targets,
    objective_of,
    targets_of,
    teacher_of,
    whole_vocabulary,
)

SMALL = Architecture(2, 16, 32, 4)
RECIPES: list[Recipe] = [recipe for recipe in get_args(Recipe) if recipe != "custom"]


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture(scope="module")
def vocabulary(teacher: Teacher) -> Vocabulary:
    return whole_vocabulary(teacher)


@pytest.fixture(scope="module")
def targets(teacher: Teacher, texts: list[str]) -> Targets:
    return targets_of(teacher, texts[:8], 24, everything_of(teacher))


@pytest.fixture
def make(teacher: Teacher, vocabulary: Vocabulary) -> Callable[..., Objective]:
    """Makes the objective of a small student from the fields of its spec."""

    def made(student: Architecture = SMALL, seed: int = 0, **fields: Any) -> Objective:
        return objective_of(ObjectiveSpec.model_validate(fields), student, teacher, vocabulary, seed)

    return made


# What is trained when


class Stub(Term):
    """A term whose values are parameters of its own."""

    def __init__(self, name: str, *values: float) -> None:
        super().__init__()
        self.name, self.places = name, [(layer, layer) for layer in range(1, len(values) + 1)]
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, given: Pass, batch: Batch) -> torch.Tensor:
        return self.values


def stubs(*terms: tuple[Stub, dict[str, Any]], first_stage: float = 0.5) -> Objective:
    specs = [(term, TermSpec.model_validate({"kind": "hidden", **fields})) for term, fields in terms]
    return Objective([(term, spec) for term, spec in specs], None, first_stage)


@pytest.fixture
def nothing() -> tuple[Pass, Batch]:
    """A pass and a batch that no stub reads."""
    batch = make_batch(made_up_targets(0, [2], 1, 3), [0], pad=0)
    return Pass([], Captured(), torch.zeros(1, 1)), batch


def trained(objective: Objective, given: tuple[Pass, Batch], done: float) -> dict[str, list[float]]:
    """Returns the gradient of the loss for each term's values."""
    for term in objective.all_terms():
        term.zero_grad()
    objective.loss(*given, done).backward()
    return {
        term.name: term.values.grad.tolist() if term.values.grad is not None else [0.0] * len(term.places)
        for term in objective.all_terms()
        if isinstance(term, Stub)
    }


def test_the_loss_is_the_weighted_sum_of_the_means_over_places(nothing: tuple[Pass, Batch]) -> None:
    objective = stubs((Stub("one", 1.0, 3.0), {"weight": 5}), (Stub("other", 0.25), {"weight": 2}))
    for done in (0.0, 0.5, 0.999):
        assert objective.loss(*nothing, done).item() == 5 * 2 + 2 * 0.25


@pytest.mark.parametrize("first_stage", [0.2, 0.5, 0.9])
def test_each_of_two_stages_trains_its_own_terms_and_no_other(
    nothing: tuple[Pass, Batch], first_stage: float
) -> None:
    objective = stubs(
        (Stub("first", 1.0), {"stage": 1}), (Stub("second", 10.0), {"stage": 2}), first_stage=first_stage
    )
    for hundredth in range(100):
        done = hundredth / 100
        late = done >= first_stage
        assert objective.loss(*nothing, done).item() == (10 if late else 1)
        assert trained(objective, nothing, done) == {"first": [1 - late], "second": [float(late)]}


@pytest.mark.parametrize("stage", [1, 2])
def test_a_stage_that_is_left_alone_is_trained_all_the_time(nothing: tuple[Pass, Batch], stage: int) -> None:
    objective = stubs((Stub("only", 3.0), {"stage": stage}), first_stage=0.3)
    assert objective.first_stage == 1
    for done in (0.0, 0.29, 0.3, 0.99):
        assert objective.loss(*nothing, done).item() == 3


def test_the_only_layer_of_a_static_student_learns_by_a_progressive_term_too() -> None:
    stub = Stub("step by step", 1.0)
    stub.places = [(0, 4)]
    objective = stubs((stub, {"progressive": True}))
    assert objective.rates(0.5)(0) == 1.0


@pytest.mark.parametrize("places", [1, 2, 3, 4, 6, 7, 12, 24, 48])
@pytest.mark.parametrize("first_stage", [0.5, 0.25, None])
def test_progressive_layers_are_trained_one_at_a_time_in_order_for_equal_shares(
    nothing: tuple[Pass, Batch], places: int, first_stage: float | None
) -> None:
    alone = first_stage is None
    terms: list[tuple[Stub, dict[str, Any]]] = [
        (Stub("step by step", *[2.0] * places), {"progressive": True})
    ]
    terms += [] if alone else [(Stub("later", 1.0), {"stage": 2})]
    objective = stubs(*terms, first_stage=first_stage or 0.5)
    steps = places * (20 if alone else 8)
    stage = steps if alone else round(steps * objective.first_stage)
    turns = []
    for step in range(stage):
        gradient = trained(objective, nothing, step / steps)["step by step"]
        assert sorted(gradient) == [0.0] * (places - 1) + [1.0]
        turns.append(gradient.index(1.0))
    assert turns == sorted(turns)
    shares = [turns.count(place) for place in range(places)]
    assert max(shares) - min(shares) <= 1, shares  # where a share is no whole number of steps, one of them


def test_a_progressive_term_of_the_second_stage_begins_there(nothing: tuple[Pass, Batch]) -> None:
    progressive = Stub("later", 1.0, 1.0)
    objective = stubs((Stub("first", 1.0), {}), (progressive, {"stage": 2, "progressive": True}))
    expected = {0.0: [0, 0], 0.4: [0, 0], 0.5: [1, 0], 0.74: [1, 0], 0.75: [0, 1], 0.99: [0, 1]}
    assert {done: trained(objective, nothing, done)["later"] for done in expected} == expected


def test_a_progressive_term_is_weighted_too(nothing: tuple[Pass, Batch]) -> None:
    objective = stubs((Stub("term", 3.0, 7.0), {"weight": 10, "progressive": True}))
    assert [objective.loss(*nothing, done).item() for done in (0.0, 0.5)] == [30, 70]


# What a recipe is made of


def test_the_terms_of_a_recipe_are_of_the_kinds_that_it_names(make: Callable[..., Objective]) -> None:
    made = make(recipe="tinybert")
    assert [(type(term), term.name) for term, _ in made.terms] == [
        (StateTerm, "embedding"),
        (PairTerm, "attention"),
        (StateTerm, "hidden"),
        (WordTerm, "prediction"),
    ]


def test_every_term_of_words_has_the_students_one_head(make: Callable[..., Objective]) -> None:
    made = make(recipe="distilbert")
    heads = {id(term.head) for term, _ in made.terms if isinstance(term, WordTerm)}
    assert len(heads) == 1
    assert sum("head.bias" in name for name, _ in made.named_parameters()) == 1


def test_relations_are_three_terms_whose_losses_add_up(make: Callable[..., Objective]) -> None:
    listed = [
        {"kind": "relations", "weight": 2, "relation_heads": 4},
        {"kind": "relations", "relation_heads": 8},
    ]
    made = make(Architecture(2, 24, 32, 4), recipe="minilmv2")
    assert [(term.name, spec.weight) for term, spec in made.terms] == [
        ("relations-query", 1),
        ("relations-key", 1),
        ("relations-value", 1),
    ]
    (first, _, _) = [term for term, _ in made.terms]
    assert isinstance(first, PairTerm)
    assert first.heads == 8  # divides 24 and 32
    made = make(recipe="custom", terms=listed)
    names = [term.name for term, _ in made.terms]
    assert len(set(names)) == 6
    assert [spec.weight for _, spec in made.terms] == [2, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_two_terms_of_a_recipe_have_one_name(recipe: Recipe, make: Callable[..., Objective]) -> None:
    names = [term.name for term in make(recipe=recipe).all_terms()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_seed_gives_the_same_objective_and_leaves_other_chance_alone(
    recipe: Recipe, make: Callable[..., Objective]
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = make(recipe=recipe).state_dict()
    assert torch.equal(torch.rand(3), expected)
    again, other = (make(recipe=recipe, seed=seed).state_dict() for seed in (0, 1))
    assert all(torch.equal(weight, first[name]) for name, weight in again.items())
    same = all(torch.equal(weight, first[name]) for name, weight in other.items())
    # some have no projection, and a head begins as the identity
    assert same == (recipe in ("pd", "minilm", "minilmv2", "similarity", "contrastive"))


# The probe

HAVE_NONE: list[dict[str, Any]] = [
    {"recipe": "kdnas"},
    {"recipe": "custom", "terms": [{"kind": "hidden"}, {"kind": "cosine"}]},
    {"recipe": "custom", "terms": [{"kind": "hidden", "stage": 2}]},
]


@pytest.mark.parametrize("fields", HAVE_NONE)
def test_where_hidden_states_are_learnt_from_first_to_last_there_is_no_probe(
    fields: dict[str, Any], make: Callable[..., Objective]
) -> None:
    objective = make(**fields)
    assert objective.probe is None
    assert HIDDEN in [term.name for term in objective.all_terms()]
    objective.fit_idle([], done=0.0)


PROBED: list[dict[str, Any]] = [
    *({"recipe": recipe} for recipe in RECIPES if recipe != "kdnas"),
    {"recipe": "custom", "terms": [{"kind": "cosine"}]},
    {"recipe": "custom", "terms": [{"kind": "hidden"}, {"kind": "attention", "stage": 2}]},
]


@pytest.mark.parametrize("fields", PROBED)
def test_where_they_are_not_a_probe_says_what_the_student_holds_of_them(
    fields: dict[str, Any], make: Callable[..., Objective]
) -> None:
    probe = make(**fields).probe
    assert probe is not None
    assert (probe.name, probe.kind) == (PROBE, "hidden")
    assert probe.places == [(1, 2), (1, 3), (2, 4), (2, 4)]  # as KD-NAS learns them, whatever is learnt
    assert make(**fields, projection="shared").probe.layers == probe.layers  # type: ignore[union-attr]


def a_pass(teacher: Teacher, batch: Batch) -> Pass:
    student = new_student(teacher, SMALL, seed=0)
    output = student(input_ids=batch.ids, attention_mask=batch.mask, output_hidden_states=True)
    table = student.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    return Pass(output.hidden_states, Captured(), table)


@pytest.mark.parametrize("recipe", ["distilbert", "pkd", "pd"])
def test_a_probe_is_no_part_of_the_loss_and_gets_no_gradient(
    recipe: Recipe, make: Callable[..., Objective], teacher: Teacher, targets: Targets
) -> None:
    objective, batch = make(recipe=recipe), make_batch(targets, range(8), pad=0)
    given = a_pass(teacher, batch)
    assert objective.probe is not None
    for done in (0.0, 0.9):
        loss = objective.loss(given, batch, done)
        loss.backward(retain_graph=True)
        with torch.no_grad():
            for linear in objective.probe.projections.values():
                linear.weight.add_(1.0)
        assert torch.equal(objective.loss(given, batch, done), loss)
    assert all(weight.grad is None for weight in objective.probe.parameters())


@pytest.mark.parametrize("recipe", ["distilbert", "tinybert"])
def test_a_probe_is_not_among_the_parameters_that_are_trained(
    recipe: Recipe, make: Callable[..., Objective]
) -> None:
    objective = make(recipe=recipe)
    assert objective.probe is not None
    probed = {id(weight) for weight in objective.probe.parameters()}
    assert probed
    assert not any(id(weight) in probed for weight in objective.parameters())


def test_fitting_the_probe_leaves_what_is_trained_alone(
    make: Callable[..., Objective], teacher: Teacher, targets: Targets
) -> None:
    objective, batch = make(recipe="pkd"), make_batch(targets, range(8), pad=0)
    given = a_pass(teacher, batch)
    assert objective.probe is not None
    terms = nn.ModuleList(term for term, _ in objective.terms)
    before = {name: weight.clone() for name, weight in terms.state_dict().items()}
    scored = objective.probe(given, batch).mean()
    objective.fit_idle([(given, batch)], done=0.0)
    assert objective.probe(given, batch).mean() < scored
    assert all(torch.equal(weight, before[name]) for name, weight in terms.state_dict().items())
    objective.fit([(given, batch)])
    assert not all(torch.equal(weight, before[name]) for name, weight in terms.state_dict().items())


def test_in_the_second_stage_the_projections_of_the_first_follow_the_student(
    make: Callable[..., Objective], teacher: Teacher, targets: Targets
) -> None:
    objective, batch = make(recipe="tinybert"), make_batch(targets, range(8), pad=0)
    given = a_pass(teacher, batch)
    hidden = next(term for term, spec in objective.terms if spec.kind == "hidden")
    unfitted = hidden(given, batch).mean()
    objective.fit_idle([(given, batch)], done=0.4)
    assert torch.equal(hidden(given, batch).mean(), unfitted)
    objective.fit_idle([(given, batch)], done=0.5)
    assert hidden(given, batch).mean() < unfitted


def test_gradients_of_kdnas_reach_all_of_the_student_but_its_pooler(
    make: Callable[..., Objective], teacher: Teacher, targets: Targets
) -> None:
    objective, batch = make(recipe="kdnas"), make_batch(targets, range(4), pad=0)
    student = new_student(teacher, SMALL, seed=0)
    output = student(input_ids=batch.ids, attention_mask=batch.mask, output_hidden_states=True)
    objective.loss(Pass(output.hidden_states, Captured(), torch.zeros(1, 1)), batch, 0.0).backward()
    unmoved = {
        name
        for name, weight in [*student.named_parameters(), *objective.named_parameters()]
        if weight.grad is None or not weight.grad.abs().sum() > 0
    }
    # no hidden state passes through the pooler, and a bias of all keys alike shifts no attention
    assert {name for name in unmoved if "pooler" not in name and ".key.bias" not in name} == set()
    assert all(weight.grad is None for weight in teacher.model.parameters())
