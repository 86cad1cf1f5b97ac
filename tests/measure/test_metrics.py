from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from kdnas_core.measure.metrics import Metric, metrics_of, score
from kdnas_core.measure.tasks import Task

CHANCE = random.Random(0)
LABELS = [CHANCE.randint(0, 1) for _ in range(60)]
PREDICTIONS = [label if CHANCE.random() < 0.7 else 1 - label for label in LABELS]
SCORES = [CHANCE.random() for _ in range(40)]
GUESSES = [value + CHANCE.random() for value in SCORES]


def counts(positive: int) -> tuple[int, int, int, int]:
    """True and false positives, false and true negatives."""
    pairs = [(label == positive, guess == positive) for label, guess in zip(LABELS, PREDICTIONS, strict=True)]
    kinds = ((True, True), (False, True), (True, False), (False, False))
    tp, fp, fn, tn = (pairs.count(kind) for kind in kinds)
    return tp, fp, fn, tn


def f1(positive: int) -> float:
    true, wrong, missed, _ = counts(positive)
    return 2 * true / (2 * true + wrong + missed)


def matthews() -> float:
    tp, fp, fn, tn = counts(1)
    return (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))


def pearson(one: Sequence[float], other: Sequence[float]) -> float:
    a, b = ([value - sum(values) / len(values) for value in values] for values in (one, other))
    products = sum(x * y for x, y in zip(a, b, strict=True))
    return products / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def ranks(values: Sequence[float]) -> list[float]:
    return [float(sorted(values).index(value)) for value in values]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("accuracy", sum(a == b for a, b in zip(LABELS, PREDICTIONS, strict=True)) / 60),
        ("f1", f1(1)),
        ("macro_f1", (f1(0) + f1(1)) / 2),
        ("matthews", matthews()),
    ],
)
def test_a_metric_of_classes_is_what_its_definition_says(metric: Metric, expected: float) -> None:
    assert score(metric, LABELS, PREDICTIONS) == pytest.approx(expected, abs=1e-12)


def test_the_correlations_are_what_their_definitions_say() -> None:
    assert score("pearson", SCORES, GUESSES) == pytest.approx(pearson(SCORES, GUESSES), abs=1e-12)
    assert score("spearman", SCORES, GUESSES) == pytest.approx(
        pearson(ranks(SCORES), ranks(GUESSES)), abs=1e-12
    )


@pytest.mark.parametrize("metric", ["pearson", "spearman", "matthews"])
def test_what_says_the_same_of_every_text_scores_nothing(metric: Metric) -> None:
    assert score(metric, LABELS, [1] * 60) == 0.0


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("cola", ("0", "1"), ("matthews",)),
        ("mrpc", ("0", "1"), ("f1", "accuracy")),
        ("sst2", ("0", "1"), ("accuracy",)),
        ("tweets_french", ("0", "1", "2"), ("macro_f1", "accuracy")),
        ("mine", ("a", "b", "c"), ("accuracy",)),
        ("stsb", (), ("spearman", "pearson")),
    ],
)
def test_a_task_is_scored_as_its_authors_do(
    name: str, classes: tuple[str, ...], expected: tuple[Metric, ...]
) -> None:
    assert metrics_of(Task(name, classes, {})) == expected
