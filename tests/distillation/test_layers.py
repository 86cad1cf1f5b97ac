from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.cka import Vectors, cka, gram_of
from kdnas_core.distillation.layers import FEWEST, LayerSample, _Spread, floors, layer_states
from kdnas_core.models.student import new_student
from kdnas_core.models.teacher import Teacher, load_teacher


def drawn(seed: int, tokens: int, width: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    scales = np.geomspace(1, 0.01, width)
    return torch.from_numpy((rng.normal(size=(tokens, width)) * scales) @ rng.normal(size=(width, width)) + 5)


def outside(states: torch.Tensor) -> NDArray[np.float64]:
    """Of states that come in three batches."""
    spread = _Spread.empty(states.shape[1])
    for some in states.tensor_split(3):
        spread = spread.with_more(some)
    return spread.outside()


def least_error(states: NDArray[np.float64], width: int) -> float:
    """The error of the best linear map through `width` dimensions, by the singular vectors."""
    centred = states - states.mean(0)
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    near = (left[:, :width] * values[:width]) @ right[:width]
    return float(((centred - near) ** 2).sum() / (centred**2).sum())


@pytest.mark.parametrize("width", [1, 3, 8, 12])
def test_the_floor_is_the_error_of_the_best_subspace_of_that_width(width: int) -> None:
    states = drawn(0, 400, 12)
    assert outside(states.float())[width - 1] == pytest.approx(least_error(states.numpy(), width), abs=1e-5)


def test_no_student_of_that_width_has_a_lower_error_by_least_squares() -> None:
    states = drawn(1, 300, 10)
    student = states @ torch.from_numpy(np.random.default_rng(2).normal(size=(10, 4)))
    ones = torch.ones(len(student), 1, dtype=torch.float64)
    inputs = torch.cat([student, ones], 1)
    fitted = inputs @ torch.linalg.lstsq(inputs, states).solution
    error = float(((fitted - states) ** 2).sum() / ((states - states.mean(0)) ** 2).sum())
    assert outside(states)[3] <= error


def test_floors_are_not_told_from_too_few_tokens_nor_of_a_constant_layer() -> None:
    assert np.isnan(outside(drawn(0, FEWEST * 12 - 1, 12))).all()
    assert (outside(torch.ones(100, 5)) == 0).all()


def hsic_by_pairs(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The unbiased estimate, written as in Song et al. (2012), eq. 5, times n (n - 3)."""
    n = len(first)
    one = np.ones(n)
    trace = np.trace(first @ second)
    whole = (one @ first @ one) * (one @ second @ one) / ((n - 1) * (n - 2))
    return float(trace + whole - 2 / (n - 2) * (one @ first @ second @ one))


@pytest.mark.parametrize("seed", [0, 1])
def test_cka_is_that_of_a_float64_reference(seed: int) -> None:
    first, second = drawn(seed, 60, 7), drawn(seed + 10, 60, 5) + drawn(seed, 60, 7)[:, :5]
    grams = []
    for vectors in (first.numpy(), second.numpy()):
        centred = vectors - vectors.mean(0)
        gram = centred @ centred.T
        np.fill_diagonal(gram, 0)
        grams.append(gram)
    own = hsic_by_pairs(grams[0], grams[0]) * hsic_by_pairs(grams[1], grams[1])
    expected = hsic_by_pairs(*grams) / np.sqrt(own)
    ours = []
    for states in (first, second):
        ours.append(gram_of(states))
        np.fill_diagonal(ours[-1], 0)
    assert cka(*map(Vectors.of, ours)) == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("packaged")


TEXTS = [f"The function number {number} returns a list of {number} words." for number in range(120)]


def test_layers_are_those_of_the_same_tokens_whatever_the_batches(teacher: Teacher) -> None:
    several = layer_states(teacher.model, teacher.tokenizer, TEXTS, 32, 700)
    alone = layer_states(teacher.model, teacher.tokenizer, TEXTS[:3], 32, 20)
    assert [tuple(states.shape) for states in several] == [(700, 384)] * 7
    for states, others in zip(several, alone, strict=True):
        torch.testing.assert_close(states[:20], others, atol=1e-4, rtol=1e-3)


def test_a_teacher_is_like_itself_and_a_random_student_is_not_like_it(teacher: Teacher) -> None:
    sample = LayerSample.of(teacher.model, teacher.tokenizer, TEXTS, 32)
    own = sample.similarity(teacher.model)
    assert own.shape == (7, 7)
    assert np.diag(own) == pytest.approx(1)
    assert own == pytest.approx(own.T, abs=1e-5)
    other = sample.similarity(new_student(teacher, Architecture(2, 96, 192, 3), seed=0))
    assert other.shape == (3, 7)
    assert other[2, 6] < own[5, 6]
    assert sample.of_teacher == pytest.approx(own, abs=1e-5)
    assert floors(teacher.model, teacher.tokenizer, TEXTS, 32).shape == (7, 384)
