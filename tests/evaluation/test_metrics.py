from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from kdnas_core.data.tasks import Row, Task
from kdnas_core.evaluation.metrics import (
    Metric,
    chance_of,
    errors_of,
    mean_of,
    metrics_of,
    positive_class,
    score,
    scores_of,
    standard_error,
    task_score,
)

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
        ("tweets_french", ("0", "1", "2"), ("macro_f1",)),
        ("tweets", ("0", "1", "2"), ("macro_f1",)),
        ("tweetsy", ("0", "1", "2"), ("accuracy",)),
        ("qqp", ("not_duplicate", "duplicate"), ("f1", "accuracy")),
        ("cola", ("0", "1", "2"), ("accuracy",)),
        ("mnli", ("entailment", "neutral", "contradiction"), ("accuracy",)),
        ("wnli", ("not_entailment", "entailment"), ("accuracy",)),
        ("mine", ("a", "b", "c"), ("accuracy",)),
        ("stsb", (), ("spearman", "pearson")),
    ],
)
def test_a_task_is_scored_as_its_authors_do(
    name: str, classes: tuple[str, ...], expected: tuple[Metric, ...]
) -> None:
    assert metrics_of(Task(name, classes, {}, ("validation",))) == expected


def task_of(name: str, classes: tuple[str, ...], *splits: list[float]) -> Task:
    rows = {f"s{place}": [Row("A.", None, label) for label in labels] for place, labels in enumerate(splits)}
    return Task(name, classes, rows, tuple(rows))


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        (("not_equivalent", "equivalent"), 1),
        (("equivalent", "not_equivalent"), 0),
        (("0", "1"), 1),
        (("False", "True"), 1),
        (("different", "same"), 1),
        (("north", "nothing"), 1),
        (("a", "b", "no"), 2),
    ],
)
def test_f1_is_of_the_last_class_unless_that_alone_is_named_as_the_negative_one(
    classes: tuple[str, ...], positive: int
) -> None:
    assert positive_class(classes) == positive


def test_f1_follows_the_positive_class_through_a_task() -> None:
    last = task_of("mrpc", ("no", "yes"), [0, 0, 0, 1])
    first = task_of("mrpc", ("equivalent", "not_equivalent"), [0, 0, 0, 1])
    guesses = [0, 0, 1, 1]
    assert scores_of(last, "s0", guesses) == pytest.approx({"f1": 2 / 3, "accuracy": 3 / 4})
    assert scores_of(first, "s0", guesses) == pytest.approx({"f1": 4 / 5, "accuracy": 3 / 4})


def test_the_figure_of_a_task_is_the_mean_over_metrics_then_over_splits() -> None:
    task = task_of("mrpc", ("0", "1"), [0, 0, 0, 1], [1, 1])
    assert mean_of(scores_of(task, "s0", [0, 0, 1, 1])) == pytest.approx((2 / 3 + 3 / 4) / 2)
    both = {"s0": [0.0, 0, 1, 1], "s1": [1.0, 1], "other": []}
    assert task_score(task, both) == pytest.approx(((2 / 3 + 3 / 4) / 2 + 1) / 2)
    with pytest.raises(KeyError):
        task_score(task, {"s0": [0, 0, 1, 1]})


def test_scores_are_those_of_the_split_that_is_named() -> None:
    task = task_of("stsb", (), [1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
    assert scores_of(task, "s0", [0.1, 0.2, 0.4])["spearman"] == pytest.approx(1)
    assert scores_of(task, "s1", [0.1, 0.2, 0.4])["spearman"] == pytest.approx(-1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric", ["pearson", "spearman", "matthews"])
def test_a_split_of_one_class_or_score_has_no_correlation_and_gives_no_warning(metric: Metric) -> None:
    assert score(metric, [1, 1, 1], [1, 0, 1]) == 0.0


@pytest.mark.filterwarnings("error")
def test_a_split_of_one_class_has_an_accuracy_and_an_f1() -> None:
    assert score("accuracy", [0, 0, 0], [0, 0, 1]) == pytest.approx(2 / 3)
    assert score("f1", [0, 0], [0, 0]) == 0.0
    assert score("f1", [1, 1], [1, 1]) == 1.0


# Noise and chance


def test_the_standard_error_of_an_accuracy_is_that_of_a_share_of_rows() -> None:
    right = sum(a == b for a, b in zip(LABELS, PREDICTIONS, strict=True)) / len(LABELS)
    expected = math.sqrt(right * (1 - right) / len(LABELS))
    assert standard_error("accuracy", LABELS, PREDICTIONS) == pytest.approx(expected, rel=0.2)
    assert 0 < standard_error("accuracy", LABELS, LABELS) < 0.03  # of 60 rows that are all right
    assert standard_error("matthews", LABELS, LABELS) == 0.0


@pytest.mark.parametrize("metric", ["pearson", "matthews", "f1"])
def test_a_standard_error_falls_with_the_root_of_the_rows_and_is_always_the_same(metric: Metric) -> None:
    labels, guesses = (SCORES, GUESSES) if metric == "pearson" else (LABELS, PREDICTIONS)
    once, four = standard_error(metric, labels, guesses), standard_error(metric, labels * 4, guesses * 4)
    assert four == pytest.approx(once / 2, rel=0.25)
    assert standard_error(metric, labels, guesses) == once


def test_chance_names_the_class_that_is_most_frequent_in_training() -> None:
    train = [Row(str(number), None, float(number < 2)) for number in range(9)]
    judged = [Row("a", None, 0.0), Row("b", None, 1.0), Row("c", None, 1.0), Row("d", None, 1.0)]
    task = Task("mrpc", ("no", "yes"), {"train": train, "validation": judged}, ("validation",))
    assert chance_of(task, "validation") == {"f1": 0.0, "accuracy": 0.25}
    assert errors_of(task, "validation", [0.0] * 4)["accuracy"] > 0.1


def test_chance_knows_no_order_of_scores() -> None:
    rows = [Row("a", "b", value) for value in SCORES]
    task = Task("stsb", (), {"train": rows, "validation": rows}, ("validation",))
    assert chance_of(task, "validation") == {"spearman": 0.0, "pearson": 0.0}
