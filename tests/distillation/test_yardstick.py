from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from kdnas_core.distillation.terms import Pass, StateTerm
from kdnas_core.distillation.yardstick import (
    FEWEST_TEXTS,
    SAMPLES,
    LastLayerMeter,
    Meter,
    VectorsMeter,
    bootstrap,
    measured,
    vectors_error,
)
from kdnas_core.models.pooling import Mode
from kdnas_core.models.targets import Batch, make_batch
from kdnas_core.resampling import standard_error
from tests.tiny import made_up_targets

Vectors = NDArray[np.float64]

LENGTHS = [3, 7, 1, 5, 2, 9, 4, 6]
WIDTH, TEACHER_WIDTH, LAYERS = 5, 6, 4


def random_vectors(seed: int, texts: int, width: int) -> torch.Tensor:
    return torch.randn(texts, width, generator=torch.Generator().manual_seed(seed))


def related(seed: int, texts: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of a student that share some information with those of its teacher."""
    teacher = random_vectors(seed, texts, 12)
    student = teacher @ random_vectors(0, 12, 8) + noise * random_vectors(seed + 10_000, texts, 8)
    return student, teacher


def error_of(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """Computes the loss on all texts."""
    return vectors_error(student, teacher)(np.arange(len(student)))


# The reference


def hsic_of_quadruples(first: Vectors, second: Vectors) -> float:
    """The U-statistic of Song et al. (2012): a mean over all four different texts, in any order."""
    values = [
        first[i, j] * (second[i, j] + second[q, r] - 2 * second[i, q])
        for i, j, q, r in itertools.permutations(range(len(first)), 4)
    ]
    return math.fsum(values) / len(values)


def hsic_in_closed_form(first: Vectors, second: Vectors) -> float:
    n, ones = len(first), np.ones(len(first))
    a, b = (gram - np.diag(np.diag(gram)) for gram in (first, second))
    whole = (ones @ a @ ones) * (ones @ b @ ones) / ((n - 1) * (n - 2))
    return float((np.trace(a @ b) + whole - 2 / (n - 2) * (ones @ a @ b @ ones)) / (n * (n - 3)))


def hsic_as_plain(first: Vectors, second: Vectors) -> float:
    centre = np.eye(len(first)) - 1 / len(first)
    return float(np.trace(first @ centre @ second @ centre))


def by_reference(student: torch.Tensor, teacher: torch.Tensor, hsic: Any) -> float:
    first, second = ((vectors @ vectors.T).numpy() for vectors in (student.double(), teacher.double()))
    return 1 - float(hsic(first, second)) / math.sqrt(hsic(first, first) * hsic(second, second))


@pytest.mark.parametrize("seed", range(4))
def test_the_error_of_vectors_is_one_minus_cka_with_the_unbiased_hsic(seed: int) -> None:
    student, teacher = related(seed, texts=8, noise=2.0)
    student, teacher = student + 3, teacher - 5  # not centred
    assert error_of(student, teacher) == pytest.approx(
        by_reference(student, teacher, hsic_of_quadruples), abs=1e-5
    )


@pytest.mark.parametrize("texts", [10, 57, 200])
def test_the_error_of_many_vectors_is_that_of_the_closed_form(texts: int) -> None:
    student, teacher = related(texts, texts, noise=2.0)
    expected = by_reference(student, teacher, hsic_in_closed_form)
    assert 0.05 < expected < 0.95
    assert error_of(student, teacher) == pytest.approx(expected, abs=1e-5)


def test_vectors_that_are_turned_scaled_or_moved_agree_in_full() -> None:
    _, teacher = related(0, texts=50, noise=0)
    turn, _ = torch.linalg.qr(random_vectors(1, 12, 12))
    assert error_of(teacher, teacher) == pytest.approx(0, abs=1e-6)
    assert error_of(100 + 0.01 * teacher @ turn, teacher) == pytest.approx(0, abs=1e-4)
    wider, _ = torch.linalg.qr(random_vectors(2, 30, 12))
    assert error_of(teacher @ wider.T, teacher) == pytest.approx(0, abs=1e-5)


def test_a_turn_a_scale_or_a_shift_of_either_side_changes_no_error() -> None:
    student, teacher = related(0, texts=50, noise=2.0)
    expected = error_of(student, teacher)
    turn, _ = torch.linalg.qr(random_vectors(1, 8, 8))
    assert error_of(30 * student @ turn - 7, 0.2 * teacher + 9) == pytest.approx(expected, abs=1e-4)
    assert error_of(teacher, student) == pytest.approx(expected, abs=1e-5)


def test_the_less_a_student_holds_the_higher_its_error() -> None:
    errors = [error_of(*related(0, texts=100, noise=noise)) for noise in (0.0, 1.0, 3.0, 10.0, 100.0)]
    assert errors == sorted(errors)
    assert errors[0] < 0.4 < 0.9 < errors[-1]


@pytest.mark.parametrize("width", [4, 64, 512])
def test_vectors_without_any_relation_score_about_one_however_wide_they_are(width: int) -> None:
    drawn = [(random_vectors(seed, 60, width), random_vectors(seed + 1_000, 60, 384)) for seed in range(10)]
    assert np.mean([error_of(*pair) for pair in drawn]) == pytest.approx(1, abs=0.05)
    # what the unbiased estimate is for: by the plain one wider students would win
    plain = np.mean([by_reference(*pair, hsic_as_plain) for pair in drawn])
    assert plain < {4: 0.8, 64: 0.4, 512: 0.2}[width]


def test_a_student_to_which_all_texts_are_alike_scores_one() -> None:
    _, teacher = related(0, texts=20, noise=0)
    assert error_of(torch.full((20, 7), 0.3), teacher) == pytest.approx(1, abs=1e-3)


# The standard error


def test_the_standard_error_of_a_mean_is_the_known_one() -> None:
    values = np.random.default_rng(1).normal(5, 3, size=300)
    expected = float(values.std(ddof=1)) / math.sqrt(300)
    found = bootstrap(lambda texts: float(values[texts].mean()), 300)
    assert standard_error(found) == pytest.approx(expected, rel=0.25)
    assert bootstrap(lambda texts: float(values[texts].mean()), 300) == found


def test_two_errors_are_resampled_on_the_same_texts() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 50))

    def resampled(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array(bootstrap(lambda texts: float(values[texts].mean()), 50))

    assert resampled(first) - resampled(second) == pytest.approx(resampled(first - second))


@pytest.mark.parametrize("noise", [2.0, 6.0])
def test_the_standard_error_of_vectors_is_about_the_spread_over_other_texts(noise: float) -> None:
    texts = 100
    drawn = [vectors_error(*related(seed, texts, noise)) for seed in range(60)]
    spread = np.std([error(np.arange(texts)) for error in drawn], ddof=1)
    told = np.mean([np.std(bootstrap(error, texts), ddof=1) for error in drawn[:12]])
    assert 1 / 1.5 < told / spread < 1.5


def test_a_text_that_is_drawn_twice_does_not_agree_with_itself() -> None:
    student, teacher = random_vectors(0, 40, 64), random_vectors(1, 40, 64)
    twice = np.repeat(np.arange(40), 2)
    as_others = error_of(student[twice], teacher[twice])
    assert as_others < 0.8
    assert vectors_error(student, teacher)(twice) > as_others + 0.15
    assert vectors_error(student, teacher)(twice) == pytest.approx(1, abs=0.1)


def test_one_text_drawn_again_and_again_says_nothing() -> None:
    assert vectors_error(*related(0, texts=10, noise=1.0))(np.full(10, 3)) == 1


# Meters


def a_batch(chosen: list[int], seed: int = 0) -> Batch:
    return make_batch(made_up_targets(seed, LENGTHS, LAYERS, TEACHER_WIDTH), chosen, pad=0)


def a_pass(batch: Batch, seed: int = 0) -> Pass:
    """States of a student of two layers, with large numbers where padding is."""
    generator = torch.Generator().manual_seed(seed)
    states = [torch.randn(*batch.ids.shape, WIDTH, generator=generator) for _ in range(3)]
    real = batch.mask[..., None].bool()
    states = [torch.where(real, state, 1e6) for state in states]
    return Pass(states, None, states[0])  # type: ignore[arg-type]


BATCHES = ([4, 0, 2], [1, 7], [3, 6, 5])


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_vectors_are_read_of_the_last_states_of_all_batches(mode: Mode) -> None:
    meter = VectorsMeter(mode, LAYERS)
    mine: list[torch.Tensor] = []
    theirs: list[torch.Tensor] = []
    for seed, chosen in enumerate(BATCHES):
        batch = a_batch(chosen)
        given = a_pass(batch, seed)
        meter.read(given, batch)
        targets = batch.teacher("hidden", LAYERS).split([LENGTHS[text] for text in chosen])
        for state, text, wanted in zip(given.hidden[-1], chosen, targets, strict=True):
            for tokens, side in ((state[: LENGTHS[text]], mine), (wanted, theirs)):
                vector = {"mean": tokens.mean(0), "cls": tokens[0], "max": tokens.amax(0)}[mode]
                side.append(vector)
    expected = by_reference(torch.stack(mine), torch.stack(theirs), hsic_in_closed_form)
    assert measured(meter, with_resampled=False).value == pytest.approx(expected, abs=1e-5)


MAPPINGS: list[list[tuple[int, ...]]] = [
    [(), (2, 3), (4, 4)],
    [(), (2,), (4,)],
    [(), (), (4,)],
    [(), (1,), (1, 4)],
]


def a_term(mapping: list[tuple[int, ...]], projection: Any = "per_layer") -> StateTerm:
    torch.manual_seed(0)
    return StateTerm("hidden", "hidden", mapping, (WIDTH, TEACHER_WIDTH), projection)


@pytest.mark.parametrize("projection", ["per_layer", "shared"])
@pytest.mark.parametrize("mapping", MAPPINGS)
@torch.no_grad()
def test_the_error_of_the_last_states_is_what_the_term_says_at_the_last_layers(
    mapping: list[tuple[int, ...]], projection: str
) -> None:
    term = a_term(mapping, projection)
    meter = LastLayerMeter(term)
    place, total, tokens = term.places.index((2, LAYERS)), 0.0, 0
    for seed, chosen in enumerate(BATCHES):
        batch = a_batch(chosen)
        given = a_pass(batch, seed)
        meter.read(given, batch)
        total += float(term(given, batch)[place]) * term.count(batch)
        tokens += term.count(batch)
    assert measured(meter, with_resampled=False).value == pytest.approx(total / tokens, rel=1e-5)


@torch.no_grad()
def test_the_errors_of_single_texts_are_what_the_term_says_of_each_alone() -> None:
    term, batch = a_term(MAPPINGS[0]), a_batch([4, 1, 2])
    given = a_pass(batch)
    errors = term.last_errors(given, batch)
    for index, text in enumerate([4, 1, 2]):
        length = LENGTHS[text]
        alone = a_batch([text])
        states = [state[index : index + 1, :length] for state in given.hidden]
        value = term(Pass(states, None, states[0]), alone)[2]  # type: ignore[arg-type]
        assert float(errors[index]) / length == pytest.approx(float(value), rel=1e-5)


@torch.no_grad()
def meters() -> list[Meter]:
    return [VectorsMeter("mean", LAYERS), LastLayerMeter(a_term(MAPPINGS[0]))]


@pytest.mark.parametrize("which", [0, 1])
@torch.no_grad()
def test_of_too_few_texts_there_is_no_error(which: int) -> None:
    meter = meters()[which]
    batch = a_batch([4, 0, 2])
    assert len(batch.mask) < FEWEST_TEXTS
    meter.read(a_pass(batch), batch)
    found = measured(meter, with_resampled=True)
    assert math.isnan(found.value)
    assert found.resampled == ()


@pytest.mark.parametrize("which", [0, 1])
@torch.no_grad()
def test_an_error_is_resampled_where_it_is_asked_for(which: int) -> None:
    meter = meters()[which]
    for seed, chosen in enumerate(BATCHES):
        batch = a_batch(chosen)
        meter.read(a_pass(batch, seed), batch)
    plain, whole = (measured(meter, with_resampled=asked) for asked in (False, True))
    assert plain.value == whole.value
    assert plain.resampled == ()
    assert len(whole.resampled) == SAMPLES
    assert len(set(whole.resampled)) > 1
