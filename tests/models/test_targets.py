from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kdnas_core.data.tokens import NOT_HIDDEN
from kdnas_core.models.targets import Batch, Targets, make_batch
from kdnas_core.models.teacher import Teacher
from tests.tiny import everything_of, made_up_targets, targets_of, teacher_of

LENGTHS = [3, 7, 1, 5]


@pytest.fixture
def targets() -> Targets:
    return made_up_targets(0, LENGTHS, layers=2, width=6)


@pytest.fixture
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


def test_a_batch_is_the_texts_asked_for_padded_at_the_end(targets: Targets) -> None:
    batch = make_batch(targets, [3, 0], pad=9)
    assert batch.ids[0].tolist() == targets.ids[11:16].tolist()
    assert batch.ids[1].tolist() == [*targets.ids[:3].tolist(), 9, 9]
    assert batch.mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_batch_gives_the_teachers_outputs_at_real_tokens_in_the_order_of_its_texts(
    targets: Targets, layer: int
) -> None:
    given = make_batch(targets, [3, 0], pad=9).teacher("hidden", layer)
    states = targets.outputs["hidden", layer]
    assert given.dtype == torch.float32
    assert np.array_equal(given.numpy(), np.concatenate([states[11:16], states[:3]]).astype(np.float32))


def test_padded_outputs_are_the_same_with_zeros_for_padding(targets: Targets) -> None:
    batch = make_batch(targets, [3, 0], pad=9)
    padded = batch.teacher_padded("hidden", 1)
    states = torch.from_numpy(targets.outputs["hidden", 1]).float()
    assert torch.equal(padded[0], states[11:16])
    assert torch.equal(padded[1], torch.cat([states[:3], torch.zeros(2, 6)]))


def test_labels_of_a_batch_stand_at_the_tokens_of_its_texts(teacher: Teacher, texts: list[str]) -> None:
    targets = targets_of(teacher, texts[:6], 24, everything_of(teacher))
    batch = make_batch(targets, [4, 1], pad=0)
    expected = [targets.labels[targets.offsets[text] : targets.offsets[text + 1]] for text in (4, 1)]
    assert (targets.labels != NOT_HIDDEN).any()
    assert batch.labels.tolist() == np.concatenate(expected).tolist()
    assert len(batch.labels) == int(batch.mask.sum())


def test_the_real_tokens_of_a_students_states_are_those_of_the_teacher(targets: Targets) -> None:
    batch = make_batch(targets, [3, 0], pad=9)
    states = torch.arange(2 * 5 * 4.0).reshape(2, 5, 4).to(torch.bfloat16)
    real = batch.real(states)
    assert real.dtype == torch.float32
    assert torch.equal(real, torch.cat([states[0], states[1, :3]]).float())


def test_padding_of_a_student_that_is_no_number_reaches_nothing(targets: Targets) -> None:
    batch = make_batch(targets, [3, 0], pad=9)
    states = torch.ones(2, 5, 4).masked_fill(~batch.mask.bool()[..., None], torch.nan)
    assert torch.equal(batch.real(states), torch.ones(8, 4))


def test_a_text_is_the_same_in_whatever_batch_it_is(targets: Targets) -> None:
    def row_of(batch: Batch, row: int) -> torch.Tensor:
        return batch.teacher_padded("hidden", 2)[row, : LENGTHS[0]]

    alone, together = make_batch(targets, [0], pad=0), make_batch(targets, [1, 0, 2], pad=0)
    assert torch.equal(row_of(alone, 0), row_of(together, 1))


def test_counts_and_widths_are_those_of_the_texts_and_the_teacher(targets: Targets) -> None:
    assert len(targets) == 4
    assert targets.lengths.tolist() == LENGTHS
    assert targets.width == 6


def test_a_sample_of_states_holds_all_layers_but_the_embedding(targets: Targets) -> None:
    sample = targets.states_sample(5)
    assert sample.shape == (5, 2, 6)
    for layer in (1, 2):
        assert np.array_equal(sample[:, layer - 1], targets.outputs["hidden", layer][:5])
