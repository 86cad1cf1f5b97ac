from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.search.loss_model import LEVEL, SLOPE, STEP, LossModel
from kdnas_core.search.space import SearchSpace

TEACHER = Architecture(6, 384, 1536, 12)
SPACE = SearchSpace(
    tuple(range(1, 7)), tuple(range(96, 385, 48)), tuple(range(96, 1537, 96)), (3, 6, 12), ("gelu", "relu")
)


def loss_of(shape: Architecture) -> float:
    """A made-up loss: powers of the dimensions."""
    layers, width, inner = shape.shape
    return 3.0 * layers**-0.2 * width**-0.4 * inner**-0.05


def test_before_it_learnt_a_loss_it_expects_more_of_a_larger_student_and_knows_little() -> None:
    prior = LossModel.of(SPACE, TEACHER)
    mean, deviation = prior.predict_each([Architecture(1, 96, 96, 3), Architecture(6, 384, 1536, 12)])
    assert mean[0] > mean[1]
    assert deviation.min() > 0.2
    drawn = SPACE.sample(random.Random(0), 512, ())
    at_full_width = sum(shape.hidden_size == TEACHER.hidden_size for shape in drawn) / 512
    assert prior.predict_each(drawn)[0].mean() == pytest.approx(LEVEL - STEP * at_full_width)


@pytest.mark.parametrize("knob", ["layers", "hidden_size", "intermediate_size"])
def test_more_of_each_size_is_expected_to_be_better_in_a_space_with_embedding_sizes(knob: str) -> None:
    space = SearchSpace((1, 2, 4), (96, 192, 384), (96, 384, 1536), (3, 6, 12), ("gelu",), (32, 96))
    small = Architecture(2, 192, 384, 6, "gelu", 96)
    mean, _ = LossModel.of(space, TEACHER).predict_each(
        [small, replace(small, **{knob: 2 * getattr(small, knob)})]
    )
    assert mean[1] < mean[0]


def test_heads_of_the_teachers_size_and_its_width_are_expected_to_be_better() -> None:
    def expected(width: int, heads: int) -> float:
        return float(LossModel.of(SPACE, TEACHER).predict_each([Architecture(3, width, 384, heads)])[0][0])

    assert expected(192, 6) < expected(192, 12)  # 32 dimensions a head
    assert expected(336, 12) - expected(384, 12) > STEP > expected(288, 12) - expected(336, 12)


def test_a_few_losses_are_enough_to_predict_those_that_follow_a_power_law() -> None:
    shapes = SPACE.sample(random.Random(1), 60, ())
    known, others = shapes[:30], shapes[30:]
    model = LossModel.of(SPACE, TEACHER).fitted(known, [loss_of(shape) for shape in known], [0.0] * 30)
    mean, deviation = model.predict_each(others)
    off = mean - np.log([loss_of(shape) for shape in others])
    assert np.abs(off).mean() < 0.01
    assert np.abs(off / deviation).mean() < 1


def test_it_is_the_posterior_of_its_prior() -> None:
    """Reference: Rasmussen and Williams, equations 2.23 and 2.24, with the kernel that was found."""
    shapes = SPACE.sample(random.Random(2), 30, ())
    known, others, errors = shapes[:12], shapes[12:], np.linspace(0, 0.1, 12)
    losses = [loss_of(shape) * math.exp(0.02 * (-1) ** place) for place, shape in enumerate(known)]
    model = LossModel.of(SPACE, TEACHER).fitted(known, losses, errors.tolist())
    mean, covariance = model.predict(others)

    def features(shape: Architecture) -> list[float]:
        sizes = map(math.log, (*shape.shape, shape.attention_heads))
        likeness = -abs(math.log(shape.hidden_size / shape.attention_heads / 32))
        return [*sizes, likeness, 0.0, 0.0, float(shape.hidden_act == "relu"), 0.0, shape.hidden_size == 384]

    drawn = np.array([features(each) for each in SPACE.sample(random.Random(0), 512, ())])
    centre, scale = drawn.mean(0), np.where(drawn.std(0) == 0, 1.0, drawn.std(0))
    centre[-1], scale[-1] = 0.0, 1.0
    x, y = ((np.array([features(shape) for shape in part]) - centre) / scale for part in (known, others))
    found = model.process.kernel_
    amplitude, noise = found.k1.k1.constant_value, found.k2.noise_level

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        far = math.sqrt(5) * np.linalg.norm(a[:, None] - b[None], axis=2) / 1.5
        return amplitude * (1 + a @ b.T + 0.3 * (1 + far + far**2 / 3) * np.exp(-far))

    fall = [-SLOPE * part[:, :5].sum(1) - STEP * part[:, -1] for part in (x, y)]
    rest = np.log(losses) - fall[0]
    level = rest.mean()
    solved = np.linalg.solve(
        kernel(x, x) + np.diag(noise + errors**2), np.column_stack([rest - level, kernel(x, y)])
    )
    assert mean == pytest.approx(level + fall[1] + kernel(y, x) @ solved[:, 0], abs=1e-5)
    assert covariance == pytest.approx(kernel(y, y) - kernel(y, x) @ solved[:, 1:], abs=1e-5)
    each, deviation = model.predict_each(others)
    assert each == pytest.approx(mean)
    assert deviation == pytest.approx(np.sqrt(covariance.diagonal()))


def test_a_doubtful_loss_counts_for_less() -> None:
    known, prior = [Architecture(3, 192, 384, heads) for heads in (6, 12)], LossModel.of(SPACE, TEACHER)
    sure, doubtful = (
        prior.fitted(known, [0.3, 0.6], [0.0, error]).predict_each(known)[0][1] for error in (0.0, 1.0)
    )
    assert sure == pytest.approx(math.log(0.6), abs=0.05)
    assert doubtful < sure - 0.2


@pytest.mark.parametrize("loss", [0.0, 1e-9, 5.0])
def test_a_single_loss_of_any_size_gives_finite_predictions(loss: float) -> None:
    shapes = SPACE.sample(random.Random(3), 5, ())
    mean, covariance = LossModel.of(SPACE, TEACHER).fitted(shapes[:1], [loss], [0.0]).predict(shapes)
    assert np.isfinite(mean).all() and np.isfinite(covariance).all()


def test_students_of_every_preset_differ_in_what_is_expected() -> None:
    space = SearchSpace((), (), (), (), (), presets=tuple(dict.fromkeys(PRESETS.values())))
    mean, _ = LossModel.of(space, TEACHER).predict_each(list(space))
    assert len(set(mean.round(9).tolist())) == len(space)
