from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, RobertaConfig, RobertaModel

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.cut import cut_out, principal_directions
from kdnas_core.distillation.mapping import layer_map
from kdnas_core.distillation.objective import HiddenStateObjective
from kdnas_core.distillation.student import new_student, start_student
from kdnas_core.distillation.targets import Targets, make_batch
from kdnas_core.distillation.teacher import Teacher
from kdnas_core.distillation.trainer import HeldOut, Watcher, distil
from kdnas_core.spec import ProxySpec
from tests.tiny import targets_of, teacher_of

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
}


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture(scope="module")
def train(teacher: Teacher, texts: list[str]) -> Targets:
    return targets_of(teacher, texts[:120])


@pytest.fixture(scope="module")
def held_out(teacher: Teacher, texts: list[str]) -> Targets:
    return targets_of(teacher, texts[200:240])


def final_states(model: PreTrainedModel, targets: Targets) -> torch.Tensor:
    batch = make_batch(targets, range(6), pad=0)
    with torch.no_grad():
        output = model(input_ids=batch.ids, attention_mask=batch.mask, output_hidden_states=True)
    return torch.stack([*output.hidden_states, output.last_hidden_state])[:, batch.mask.bool()]


def loss_before_any_step(
    teacher: Teacher, student: PreTrainedModel, train: Targets, held_out: Targets
) -> float:
    """The first held-out loss that mini-KD reports."""
    layers, width = student.config.num_hidden_layers, student.config.hidden_size
    objective = HiddenStateObjective(layer_map("uniform+last", layers, 4), width, 32, "per_layer")
    seen: list[HeldOut] = []
    watcher = Watcher(step=lambda step: None, held_out=seen.append)
    proxy = ProxySpec(steps=1, batch_size=16)
    distil(student, objective, train, held_out, proxy, 0, None, watcher)
    assert seen[0].step == 0
    return seen[0].loss


def test_at_the_teachers_own_shape_nothing_is_lost(teacher: Teacher, train: Targets) -> None:
    student = start_student(teacher, teacher.architecture, "teacher", train, seed=3)
    torch.testing.assert_close(
        final_states(student, train), final_states(teacher.model, train), atol=1e-4, rtol=1e-4
    )


def test_at_the_teachers_own_width_the_first_layers_of_a_deeper_cut_are_the_teachers(
    teacher: Teacher, train: Targets
) -> None:
    student = start_student(teacher, Architecture(2, 32, 64, 4), "teacher", train, seed=0)
    # layer 1 of 2 is cut from teacher layer 2: its input is the same embedding output
    torch.testing.assert_close(
        final_states(student, train)[0], final_states(teacher.model, train)[0], atol=1e-4, rtol=1e-4
    )
    mine, theirs = student.state_dict(), teacher.model.state_dict()
    name = "output.LayerNorm.weight"
    torch.testing.assert_close(mine[f"encoder.layer.0.{name}"], theirs[f"encoder.layer.1.{name}"])
    torch.testing.assert_close(mine[f"encoder.layer.1.{name}"], theirs[f"encoder.layer.3.{name}"])


def test_a_roberta_is_cut_as_well(teacher: Teacher, texts: list[str]) -> None:
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=teacher.model.config.vocab_size,
        num_hidden_layers=2,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=80,
        type_vocab_size=1,
        pad_token_id=teacher.tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    architecture = Architecture(2, 32, 64, 4)
    roberta = dataclasses.replace(
        teacher,
        model=RobertaModel(config).eval().requires_grad_(False),
        architecture=architecture,
        fingerprint="roberta",
    )
    targets = targets_of(roberta, texts[:40])
    same = start_student(roberta, architecture, "teacher", targets, seed=1)
    torch.testing.assert_close(
        final_states(same, targets), final_states(roberta.model, targets), atol=1e-4, rtol=1e-4
    )
    smaller = start_student(roberta, Architecture(1, 16, 32, 2), "teacher", targets, seed=1)
    assert final_states(smaller, targets).isfinite().all()


@pytest.mark.parametrize("architecture", SHAPES.values(), ids=SHAPES)
def test_a_cut_student_is_nearer_to_its_teacher_than_a_random_one_before_any_step(
    architecture: Architecture, teacher: Teacher, train: Targets, held_out: Targets
) -> None:
    cut, random = (
        loss_before_any_step(
            teacher, start_student(teacher, architecture, start, train, seed=0), train, held_out
        )
        for start in ("teacher", "random")
    )
    assert cut < random


@pytest.mark.parametrize("architecture", SHAPES.values(), ids=SHAPES)
def test_every_weight_of_a_student_is_given(
    architecture: Architecture, teacher: Teacher, train: Targets
) -> None:
    student = new_student(teacher, architecture, seed=0)
    weights = cut_out(student, teacher, train)
    own = student.state_dict()
    assert set(weights) == {name for name in own if name.split(".")[-1] in ("weight", "bias")}
    assert all(weight.shape == own[name].shape for name, weight in weights.items())
    assert all(weight.isfinite().all() for weight in weights.values())


def test_the_rest_of_a_student_with_more_than_its_teacher_is_its_own(
    teacher: Teacher, train: Targets
) -> None:
    student = new_student(teacher, Architecture(1, 32, 100, 4), seed=0)
    own, weights = student.state_dict(), cut_out(student, teacher, train)
    reads, writes = "encoder.layer.0.intermediate.dense.weight", "encoder.layer.0.output.dense.weight"
    assert torch.equal(weights[reads][64:], own[reads][64:])
    assert torch.equal(weights[writes][:, 64:], own[writes][:, 64:])
    assert not torch.isclose(weights[reads][:64], own[reads][:64]).any(dim=1).all()


def test_the_widest_neurons_of_the_teacher_are_those_kept(teacher: Teacher, train: Targets) -> None:
    student = new_student(teacher, Architecture(4, 32, 16, 4), seed=0)
    weights, theirs = cut_out(student, teacher, train), teacher.model.state_dict()
    reads = theirs["encoder.layer.2.intermediate.dense.weight"]
    writes = theirs["encoder.layer.2.output.dense.weight"]
    importance = reads.norm(dim=1) * writes.norm(dim=0)
    best = importance.topk(16).indices
    kept = weights["encoder.layer.2.intermediate.dense.weight"]
    assert {tuple(row) for row in kept.tolist()} == {tuple(row) for row in reads[best].tolist()}


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


def test_the_heads_that_write_most_are_kept_and_attend_as_they_did(teacher: Teacher, train: Targets) -> None:
    student = new_student(teacher, Architecture(4, 32, 64, 2), seed=0)  # heads twice as wide
    with torch.no_grad():
        for weight in student.parameters():
            weight.zero_()  # so that none of the student's own is left beside the teacher's
    scores, writes = head_products(cut_out(student, teacher, train), heads=2)
    their_scores, their_writes = head_products(teacher.model.state_dict(), heads=4)
    best = their_writes.flatten(1).norm(dim=1).topk(2).indices
    torch.testing.assert_close(scores, their_scores[best], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(writes, their_writes[best], atol=1e-4, rtol=1e-4)


def test_a_narrower_head_is_the_nearest_of_its_rank(teacher: Teacher, train: Targets) -> None:
    student = new_student(teacher, Architecture(4, 32, 64, 8), seed=0)  # heads half as wide
    scores, writes = head_products(cut_out(student, teacher, train), heads=8)
    their_scores, their_writes = head_products(teacher.model.state_dict(), heads=4)
    order = their_writes.flatten(1).norm(dim=1).argsort(descending=True)
    for mine, theirs in ((scores, their_scores[order]), (writes, their_writes[order])):
        singular = torch.linalg.svdvals(theirs)
        least = singular[:, 4:].square().sum(dim=1)  # Eckart and Young
        error = (mine[:4] - theirs).square().sum(dim=(1, 2))
        torch.testing.assert_close(error, least, atol=1e-4, rtol=1e-3)


def test_cutting_changes_neither_teacher_nor_student(teacher: Teacher, train: Targets) -> None:
    student = new_student(teacher, Architecture(2, 24, 96, 2), seed=0)
    before = [
        {name: weight.clone() for name, weight in model.state_dict().items()}
        for model in (teacher.model, student)
    ]
    cut_out(student, teacher, train)
    start_student(teacher, Architecture(2, 24, 96, 2), "teacher", train, seed=0)
    for model, weights in zip((teacher.model, student), before, strict=True):
        assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_a_cut_student_shares_no_memory_with_its_teacher(teacher: Teacher, train: Targets) -> None:
    student = start_student(teacher, teacher.architecture, "teacher", train, seed=0)
    theirs = {weight.data_ptr() for weight in teacher.model.parameters()}
    assert all(weight.data_ptr() not in theirs for weight in student.parameters())


@pytest.mark.parametrize("count", [1, 8, 31])
def test_principal_directions_hold_more_of_the_states_than_random_ones(train: Targets, count: int) -> None:
    directions = principal_directions(train, count)
    torch.testing.assert_close(directions.T @ directions, torch.eye(count), atol=1e-5, rtol=0)
    states = torch.tensor(train.hidden, dtype=torch.float32).flatten(0, 1)
    random = torch.linalg.qr(torch.randn(32, count, generator=torch.Generator().manual_seed(0))).Q
    assert (states @ directions).square().sum() > (states @ random).square().sum()


def test_directions_are_the_identity_where_nothing_is_left_out(train: Targets) -> None:
    assert torch.equal(principal_directions(train, 32), torch.eye(32))
    assert torch.equal(principal_directions(train, 40), torch.eye(32, 40))
