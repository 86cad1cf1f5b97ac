from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.errors import BadInput
from kdnas_core.models.cut import cut_out
from kdnas_core.models.families import canonical
from kdnas_core.models.heads import Weights
from kdnas_core.models.mapping import layer_map
from kdnas_core.models.student import new_student, start_student
from kdnas_core.models.targets import Targets, make_batch
from kdnas_core.models.teacher import Teacher
from tests.sentences import is_one_sentence
from tests.tiny import made_up_importance, targets_of, teacher_of
from tests.tiny_families import DISTINCT, USABLE, family_teacher

# The teacher has 4 layers of width 32, feed-forward width 64 and 4 heads of width 8.
SHAPES = {
    "shallower": Architecture(2, 32, 64, 4),
    "narrower": Architecture(4, 16, 64, 4),
    "smaller in all": Architecture(2, 24, 48, 2),
    "more heads": Architecture(3, 32, 64, 8),
    "fewer heads of a wider width": Architecture(3, 32, 64, 2),
    "wider feed-forward": Architecture(3, 32, 128, 4),
    "more heads of a narrower stream": Architecture(2, 16, 32, 8),
    "wider than its teacher": Architecture(3, 48, 96, 4),
    "deeper than its teacher": Architecture(6, 16, 32, 4),
    "factorised": Architecture(4, 32, 64, 4, embedding_size=12),
    "factorised and smaller in all": Architecture(2, 24, 48, 2, embedding_size=12),
    "factorised at its own width": Architecture(2, 24, 48, 2, embedding_size=24),
}
SMALLER = [shape for name, shape in SHAPES.items() if "smaller in all" in name]
OTHERS = [kind for kind in DISTINCT if kind != "bert"]
MOBILEBERT = Architecture(2, 32, 32, 4, "relu", 12, 16, 2, False)


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture(scope="module")
def train(teacher: Teacher, texts: list[str]) -> Targets:
    return targets_of(teacher, texts[:120])


@pytest.fixture(scope="module")
def held_out(teacher: Teacher, texts: list[str]) -> Targets:
    return targets_of(teacher, texts[200:240])


@pytest.fixture(scope="module", params=DISTINCT)
def other(request: pytest.FixtureRequest, teacher: Teacher) -> Teacher:
    """A teacher of each layout."""
    return family_teacher(teacher, request.param)


def weights_of(student: PreTrainedModel, teacher: Teacher, train: Targets) -> Weights:
    """Cut out of the teacher for the student, by a made-up importance."""
    return cut_out(student, teacher, train, made_up_importance(teacher)).weights


def started(
    teacher: Teacher,
    architecture: Architecture,
    train: Targets,
    seed: int = 0,
    sources: Sequence[int] | None = None,
) -> PreTrainedModel:
    """A student cut out of the teacher by a made-up importance."""
    return start_student(teacher, architecture, train, seed, made_up_importance(teacher), sources)[0]


def states_of(model: PreTrainedModel, targets: Targets) -> torch.Tensor:
    """(layers 0..M, real tokens, H) hidden states."""
    batch = make_batch(targets, range(len(targets)), pad=0)
    with torch.no_grad():
        output = model(input_ids=batch.ids, attention_mask=batch.mask, output_hidden_states=True)
    return torch.stack(output.hidden_states)[:, batch.mask.bool()]


def error_of(student: PreTrainedModel, teacher: Teacher, train: Targets, held_out: Targets) -> float:
    """The error of the best projections of the student's layers to the teacher's; that of the mean is 1."""
    errors = []
    of_train, of_held_out = states_of(student, train), states_of(student, held_out)
    their_train, their_held_out = states_of(teacher.model, train), states_of(teacher.model, held_out)
    for i, (source,) in enumerate(layer_map("uniform", student.config.num_hidden_layers, 4), start=1):
        reads = [torch.nn.functional.pad(states[i], (0, 1), value=1.0) for states in (of_train, of_held_out)]
        projection = torch.linalg.lstsq(reads[0].double(), their_train[source].double()).solution
        wrong = reads[1].double() @ projection - their_held_out[source]
        errors.append(wrong.square().mean() / their_held_out[source].var(dim=0).mean())
    return torch.stack(errors).mean().item()


def by_bert(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return canonical(model.state_dict(), model.config.model_type)


def layer_of(model: PreTrainedModel, layer: int) -> dict[str, torch.Tensor]:
    """The weights of a layer 1..M by the names of BERT."""
    prefix = f"encoder.layer.{layer - 1}."
    return {
        name.removeprefix(prefix): weight
        for name, weight in by_bert(model).items()
        if name.startswith(prefix)
    }


def same(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


def test_at_the_teachers_own_shape_a_student_is_its_copy(other: Teacher, train: Targets) -> None:
    student = started(other, other.architecture, train, seed=3)
    assert type(student) is type(other.model)
    assert same(student.state_dict(), dict(other.model.state_dict()))


def test_at_the_teachers_own_width_the_layers_are_copies_of_those_named(
    other: Teacher, train: Targets
) -> None:
    sources = [4, 1]
    student = started(other, Architecture(2, 32, 64, 4), train, seed=0, sources=sources)
    for layer, source in enumerate(sources, start=1):
        assert same(layer_of(student, layer), layer_of(other.model, source))
    rest = {name: weight for name, weight in by_bert(student).items() if not name.startswith("encoder")}
    assert all(torch.equal(weight, by_bert(other.model)[name]) for name, weight in rest.items())


@pytest.mark.parametrize(("layers", "sources"), [(1, [4]), (2, [2, 4]), (3, [1, 2, 4]), (5, [1, 1, 2, 3, 4])])
def test_layers_are_cut_evenly_from_all_where_none_are_named(
    layers: int, sources: list[int], teacher: Teacher, train: Targets
) -> None:
    student = started(teacher, Architecture(layers, 32, 64, 4), train, seed=0)
    for layer, source in enumerate(sources, start=1):
        assert same(layer_of(student, layer), layer_of(teacher.model, source))


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ([1], "names 1 teacher layers"),
        ([1, 2, 3], "names 3 teacher layers"),
        ([0, 1], "names layer 0"),
        ([1, 5], "names layer 5"),
    ],
)
def test_sources_that_cannot_be_are_refused_in_one_sentence(
    sources: list[int], words: str, teacher: Teacher, train: Targets
) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        started(teacher, Architecture(2, 16, 32, 4), train, seed=0, sources=sources)
    assert is_one_sentence(str(caught.value))


@pytest.mark.parametrize("kind", [kind for kind in DISTINCT if "electra" not in kind])
def test_an_electra_layout_of_the_teachers_own_shape_says_what_the_teacher_says(
    kind: str, teacher: Teacher, train: Targets
) -> None:
    """Equal outputs show that positions are right, and that segments the teacher lacks have no effect."""
    other = family_teacher(teacher, kind)
    student = started(other, Architecture(4, 32, 64, 4, embedding_size=32), train, seed=1)
    assert student.config.model_type == "electra"
    assert student.config.max_position_embeddings == USABLE
    torch.testing.assert_close(states_of(student, train), states_of(other.model, train), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["smaller in all", "wider than its teacher", "deeper than its teacher", "factorised and smaller in all"],
)
def test_a_cut_student_is_nearer_to_its_teacher_than_a_random_one_before_any_step(
    name: str, teacher: Teacher, train: Targets, held_out: Targets
) -> None:
    cut, random = (
        error_of(student, teacher, train, held_out)
        for student in (started(teacher, SHAPES[name], train), new_student(teacher, SHAPES[name], seed=0))
    )
    assert cut < random


@pytest.mark.parametrize(
    ("kind", "architecture"), [*((kind, SMALLER[0]) for kind in OTHERS), (OTHERS[-1], SMALLER[1])]
)
def test_a_cut_student_of_any_family_is_nearer_to_its_teacher_than_a_random_one(
    kind: str, architecture: Architecture, teacher: Teacher, texts: list[str], held_out: Targets
) -> None:
    other = family_teacher(teacher, kind)
    train = targets_of(other, texts[:120])
    cut, random = (
        error_of(student, other, train, held_out)
        for student in (started(other, architecture, train), new_student(other, architecture, seed=0))
    )
    assert cut < random


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        *(("bert", shape) for shape in SHAPES.values()),
        *((kind, shape) for kind in OTHERS for shape in SMALLER),
    ],
)
def test_every_weight_of_a_student_is_given(
    kind: str, architecture: Architecture, teacher: Teacher, train: Targets
) -> None:
    other = family_teacher(teacher, kind)
    student = new_student(other, architecture, seed=0)
    weights = weights_of(student, other, train)
    own = student.state_dict()
    assert set(weights) == {name for name in own if name.split(".")[-1] in ("weight", "bias")}
    assert all(weight.shape == own[name].shape for name, weight in weights.items())
    assert all(weight.isfinite().all() for weight in weights.values())


def test_the_rest_of_a_student_with_more_than_its_teacher_is_its_own(
    teacher: Teacher, train: Targets
) -> None:
    student = new_student(teacher, Architecture(1, 32, 100, 4), seed=0)
    own, weights = student.state_dict(), weights_of(student, teacher, train)
    reads, writes = "encoder.layer.0.intermediate.dense.weight", "encoder.layer.0.output.dense.weight"
    assert torch.equal(weights[reads][64:], own[reads][64:])
    assert torch.equal(weights[writes][:, 64:], own[writes][:, 64:])
    assert not torch.isclose(weights[reads][:64], own[reads][:64]).any(dim=1).all()


def test_the_neurons_of_the_teacher_that_matter_most_are_those_kept_in_its_order(
    teacher: Teacher, train: Targets
) -> None:
    student = new_student(teacher, Architecture(4, 32, 16, 4), seed=0)
    weights, theirs = weights_of(student, teacher, train), teacher.model.state_dict()
    reads = theirs["encoder.layer.2.intermediate.dense.weight"]
    writes = theirs["encoder.layer.2.output.dense.weight"]
    best = made_up_importance(teacher).neurons[2].topk(16).indices.sort().values
    assert torch.equal(weights["encoder.layer.2.intermediate.dense.weight"], reads[best])
    assert torch.equal(weights["encoder.layer.2.output.dense.weight"], writes[:, best])


def head_products(weights: dict[str, torch.Tensor], heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (heads, H + 1, H + 1) and writes (heads, H, H + 1) of layer 3, with the bias as last column."""
    layer = "encoder.layer.2.attention."
    query, key, value = (
        torch.cat(
            [weights[f"{layer}self.{name}.weight"], weights[f"{layer}self.{name}.bias"][:, None]], dim=1
        )
        for name in ("query", "key", "value")
    )
    width = len(query) // heads
    output = weights[f"{layer}output.dense.weight"]
    parts = [slice(head * width, (head + 1) * width) for head in range(heads)]
    scores = [query[part].T @ key[part] / width**0.5 for part in parts]
    return torch.stack(scores), torch.stack([output[:, part] @ value[part] for part in parts])


def test_the_heads_that_matter_most_are_kept_and_attend_as_they_did(teacher: Teacher, train: Targets) -> None:
    student = new_student(teacher, Architecture(4, 32, 64, 2), seed=0)  # heads twice as wide
    with torch.no_grad():
        for weight in student.parameters():
            weight.zero_()  # so that none of the student's own weights remain
    scores, writes = head_products(weights_of(student, teacher, train), heads=2)
    their_scores, their_writes = head_products(teacher.model.state_dict(), heads=4)
    best = made_up_importance(teacher).heads[2].topk(2).indices.sort().values
    torch.testing.assert_close(scores, their_scores[best], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(writes, their_writes[best], atol=1e-4, rtol=1e-4)


def test_a_head_that_finds_the_same_word_is_kept_before_those_that_matter_more(
    teacher: Teacher, train: Targets
) -> None:
    made_up = made_up_importance(teacher)
    least = int(made_up.heads[2].argmin())
    same_word = made_up.same_word.clone()
    same_word[2, least] = 0.4
    importance = dataclasses.replace(made_up, same_word=same_word)
    student = new_student(teacher, Architecture(4, 32, 64, 1), seed=0)
    with torch.no_grad():
        for weight in student.parameters():
            weight.zero_()
    cut = cut_out(student, teacher, train, importance)
    _, writes = head_products(cut.weights, heads=1)
    _, their_writes = head_products(teacher.model.state_dict(), heads=4)
    torch.testing.assert_close(writes[0], their_writes[least], atol=1e-4, rtol=1e-4)
    assert cut.sources[2] == LayerSource(3, (least + 1,))


@pytest.mark.parametrize("named", [None, [4, 1]])
def test_a_student_knows_the_layers_and_heads_it_was_cut_from_counted_from_one(
    named: list[int] | None, teacher: Teacher, train: Targets
) -> None:
    importance = made_up_importance(teacher)
    _, sources = start_student(teacher, Architecture(2, 32, 64, 2), train, 0, importance, named)
    expected = []
    for layer in named or [2, 4]:
        by_effect = sorted(range(1, 5), key=lambda head: -float(importance.heads[layer - 1][head - 1]))
        expected.append(LayerSource(layer, tuple(sorted(by_effect[:2]))))
    assert list(sources) == expected


def test_a_student_with_more_heads_was_given_all_of_its_teachers(teacher: Teacher, train: Targets) -> None:
    _, sources = start_student(
        teacher, Architecture(1, 32, 64, 8), train, 0, made_up_importance(teacher), [3]
    )
    assert sources == (LayerSource(3, (1, 2, 3, 4)),)


@pytest.mark.parametrize("architecture", [MOBILEBERT, Architecture(2, 32, 64, 4)])
def test_no_layer_of_a_mobilebert_or_of_a_random_student_was_cut(
    architecture: Architecture, teacher: Teacher, train: Targets
) -> None:
    importance = made_up_importance(teacher) if architecture is MOBILEBERT else None
    assert start_student(teacher, architecture, train, 0, importance)[1] == ()


def test_a_narrower_head_is_the_nearest_of_its_rank(teacher: Teacher, train: Targets) -> None:
    student = new_student(teacher, Architecture(4, 32, 64, 8), seed=0)  # heads half as wide
    scores, writes = head_products(weights_of(student, teacher, train), heads=8)
    for mine, theirs in zip(
        (scores, writes), head_products(teacher.model.state_dict(), heads=4), strict=True
    ):
        singular = torch.linalg.svdvals(theirs)
        least = singular[:, 4:].square().sum(dim=1)  # Eckart and Young
        error = (mine[:4] - theirs).square().sum(dim=(1, 2))
        torch.testing.assert_close(error, least, atol=1e-4, rtol=1e-3)


def projected(weights: dict[str, torch.Tensor], table: str) -> torch.Tensor:
    """Returns a table in the stream's width, without the layer norm."""
    return weights[f"embeddings.{table}.weight"] @ weights["embeddings_project.weight"].T


@pytest.mark.parametrize(("kind", "size"), [("bert", 4), ("roberta", 31), ("distilbert", 12)])
def test_the_projected_words_are_the_nearest_of_their_rank(
    kind: str, size: int, teacher: Teacher, train: Targets
) -> None:
    other = family_teacher(teacher, kind)
    student = new_student(other, Architecture(4, 32, 64, 4, embedding_size=size), seed=0)
    theirs = by_bert(other.model)["embeddings.word_embeddings.weight"]
    error = (projected(weights_of(student, other, train), "word_embeddings") - theirs).square().sum()
    least = torch.linalg.svdvals(theirs)[size:].square().sum()
    torch.testing.assert_close(error, least, atol=1e-3, rtol=1e-3)


def test_the_narrower_embedding_of_a_factorised_teacher_is_the_nearest_of_its_rank(
    teacher: Teacher, train: Targets
) -> None:
    other = family_teacher(teacher, "electra, factorised")  # 16 wide
    student = new_student(other, Architecture(4, 32, 64, 4, embedding_size=6), seed=0)
    weights, theirs = weights_of(student, other, train), other.model.state_dict()
    tables = [part["embeddings.word_embeddings.weight"] for part in (weights, theirs)]
    back = torch.linalg.lstsq(tables[0], tables[1]).solution
    error = (tables[0] @ back - tables[1]).square().sum()
    torch.testing.assert_close(
        error, torch.linalg.svdvals(tables[1])[6:].square().sum(), atol=1e-3, rtol=1e-3
    )
    expected = theirs["embeddings_project.weight"] @ back.T
    torch.testing.assert_close(weights["embeddings_project.weight"], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(weights["embeddings_project.bias"], theirs["embeddings_project.bias"])


@pytest.mark.parametrize("kind", DISTINCT)
def test_of_a_mobilebert_the_words_are_given_and_the_rest_is_its_own(
    kind: str, teacher: Teacher, train: Targets
) -> None:
    other = family_teacher(teacher, kind)
    student = new_student(other, MOBILEBERT, seed=0)
    weights = weights_of(student, other, train)
    assert set(weights) == {"embeddings.word_embeddings.weight"}
    words, theirs = weights["embeddings.word_embeddings.weight"], by_bert(other.model)
    table = theirs["embeddings.word_embeddings.weight"]
    back = torch.linalg.lstsq(words, table).solution
    least = torch.linalg.svdvals(table)[12:].square().sum()
    torch.testing.assert_close((words @ back - table).square().sum(), least, atol=1e-3, rtol=1e-3)
    student = started(other, MOBILEBERT, train, seed=0)
    assert states_of(student, train).isfinite().all()


def test_words_of_a_mobilebert_that_are_wider_than_its_teachers_end_in_zeros(
    teacher: Teacher, train: Targets
) -> None:
    student = new_student(teacher, Architecture(1, 64, 32, 4, "relu", 48, 16, 1, True), seed=0)
    words = weights_of(student, teacher, train)["embeddings.word_embeddings.weight"]
    assert torch.equal(words[:, :32], teacher.model.state_dict()["embeddings.word_embeddings.weight"])
    assert not words[:, 32:].any()


def test_cutting_changes_neither_teacher_nor_student(teacher: Teacher, train: Targets) -> None:
    student = new_student(teacher, Architecture(2, 24, 96, 2), seed=0)
    before = [
        {name: weight.clone() for name, weight in model.state_dict().items()}
        for model in (teacher.model, student)
    ]
    weights_of(student, teacher, train)
    started(teacher, Architecture(2, 24, 96, 2), train, seed=0)
    for model, weights in zip((teacher.model, student), before, strict=True):
        assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_a_cut_student_shares_no_memory_with_its_teacher(other: Teacher, train: Targets) -> None:
    student = started(other, other.architecture, train, seed=0)
    theirs = {weight.data_ptr() for weight in other.model.parameters()}
    assert all(weight.data_ptr() not in theirs for weight in student.parameters())
