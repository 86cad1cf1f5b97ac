from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from kdnas_core.data.tasks import Task
from kdnas_core.evaluation import scoring as module
from kdnas_core.evaluation.classifier import logits_of, tokens_of
from kdnas_core.evaluation.fine_tuning import FineTuning, TrainingSet, fine_tuned
from kdnas_core.evaluation.scoring import (
    Scored,
    ScoringListener,
    TaskScore,
    chosen_rate,
    figure_of,
    score_on,
    soft_loss,
    train_tokens,
    values_of,
)
from kdnas_core.models.teacher import Teacher
from tests.evaluation.test_classifier import count_task, word_rows, word_task
from tests.tiny import teacher_of
from tests.tiny_runs import files_in

HOW = FineTuning(rates=(1e-3, 2e-3), rows=64, batch_size=16, sequence_length=32, epochs=1, trial=2)


class Ended(BaseException):
    """Ends the process as a signal does; no code may catch it."""


@dataclass
class Told:
    """Records the calls of a listener; ends the scoring at the first step of an activity."""

    end_at: str | None = None
    steps: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def activities(self) -> list[str]:
        return list(dict.fromkeys(activity for activity, _, _ in self.steps))

    def step(self, activity: str, taken: int, steps: int) -> None:
        self.steps.append((activity, taken, steps))
        if activity == self.end_at:
            raise Ended

    @property
    def listener(self) -> ScoringListener:
        return ScoringListener(lambda: None, self.step)


@pytest.fixture(autouse=True)
def own_cache(fresh_cache: Path) -> Path:
    return fresh_cache


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return teacher_of(tiny_teacher)


@pytest.fixture
def model(teacher: Teacher) -> Scored:
    return Scored(teacher.model, teacher.tokenizer, teacher.fingerprint)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seed of each fine-tuning that is scored."""
    seeds: list[int] = []

    def counted(*given: Any) -> Any:
        seeds.append(given[4])
        return fine_tuned(*given)

    monkeypatch.setattr(module, "fine_tuned", counted)
    return seeds


def scored(model: Scored, task: Task, seeds: Sequence[int] = (0, 1), told: Told | None = None) -> TaskScore:
    return score_on(model, task, HOW, seeds, None, (told or Told()).listener)


SMALL = word_task(48, 20)


# What is scored


def test_each_seed_is_scored_as_it_is_fine_tuned(teacher: Teacher, model: Scored) -> None:
    task = word_task(64, 60)
    how = replace(HOW, rates=(2e-3,), epochs=2)
    result = score_on(model, task, how, (3, 4), None, Told().listener)
    assert (result.task, result.rate, result.metrics) == ("words", 2e-3, ["accuracy"])
    data = TrainingSet(task, tokens_of(task.splits["train"], teacher.tokenizer, 32))
    tokens = tokens_of(task.splits["validation"], teacher.tokenizer, 32)
    for seed, values in zip((3, 4), result.seeds, strict=True):
        classifier = fine_tuned(teacher.model, data, how, 2e-3, seed, None)
        right = logits_of(classifier, tokens).argmax(1) == tokens.labels
        assert values == {"accuracy": pytest.approx(right.mean())}


def test_a_task_of_scores_is_scored_by_both_correlations(model: Scored) -> None:
    result = scored(model, count_task(48, 20), [0])
    assert result.metrics == ["spearman", "pearson"]
    assert all(-1 <= value <= 1 for value in result.seeds[0].values())


def test_of_several_scored_splits_each_has_its_values(teacher: Teacher, model: Scored) -> None:
    splits = {
        "train": word_rows(32),
        "de": word_rows(10, seed=3),
        "en": word_rows(14, seed=4),
        "test": word_rows(6, seed=5),
    }
    task = Task("several", ("no", "yes"), splits, ("en", "de"), ("en", "de"))
    result = scored(model, task, [0])
    assert result.metrics == ["accuracy, en", "accuracy, de"]
    data = TrainingSet(task, tokens_of(task.splits["train"], teacher.tokenizer, 32))
    assert result.rate is not None
    classifier = fine_tuned(teacher.model, data, HOW, result.rate, 0, None)
    for split in ("en", "de"):
        tokens = tokens_of(splits[split], teacher.tokenizer, 32)
        right = logits_of(classifier, tokens).argmax(1) == tokens.labels
        assert result.seeds[0][f"accuracy, {split}"] == pytest.approx(right.mean())
    assert result.figure == pytest.approx(sum(result.seeds[0].values()) / 2)


def test_all_official_metrics_of_a_task_are_named(teacher: Teacher, model: Scored) -> None:
    task = replace(SMALL, name="mrpc")
    data = TrainingSet(task, tokens_of(task.splits["train"], teacher.tokenizer, 32))
    classifier = fine_tuned(teacher.model, data, HOW, 1e-3, 0, None)
    values, errors = values_of(classifier, teacher.tokenizer, task, HOW, None)
    assert list(values) == list(errors) == ["f1", "accuracy"]


def test_mean_and_figure_are_those_of_the_seeds() -> None:
    seeds = ({"f1": 0.5, "accuracy": 0.7}, {"f1": 0.6, "accuracy": 0.9}, {"f1": 1.0, "accuracy": 0.8})
    score = TaskScore("mrpc", seeds, 1e-4)
    assert score.mean("f1") == pytest.approx(0.7)
    assert score.mean("accuracy") == pytest.approx(0.8)
    assert score.figure == pytest.approx(0.75)


def test_of_two_rates_with_the_same_metrics_the_one_with_the_smaller_loss_is_better() -> None:
    labels, words = np.array([0.0, 0.0, 1.0]), replace(SMALL, name="cola")
    sure, unsure = (np.array([[x, 0.0]] * 3, dtype=np.float32) for x in (9.0, 0.5))
    assert module._value(words, labels, sure)[0] == module._value(words, labels, unsure)[0] == 0.0
    assert module._value(words, labels, sure) < module._value(words, labels, unsure)
    expected = -(2 * np.log(1 / (1 + np.exp(-0.5))) + np.log(1 / (1 + np.exp(0.5)))) / 3
    assert -module._value(words, labels, unsure)[1] == pytest.approx(expected, rel=1e-5)


def test_rates_are_compared_by_the_figure_of_the_task(teacher: Teacher) -> None:
    labels = np.array([0.0, 1.0, 1.0, 1.0])
    logits = np.array([[2, 1], [0, 1], [3, 0], [0, 4]], dtype=np.float32)  # one of four is wrong
    assert figure_of(SMALL, labels, logits) == pytest.approx(0.75)
    f1 = 2 * 2 / (2 * 2 + 0 + 1)  # of the class 1: two found, none in excess, one missed
    assert figure_of(replace(SMALL, name="mrpc"), labels, logits) == pytest.approx((f1 + 0.75) / 2)
    scores = np.array([[1.0], [2.0], [3.0], [4.0]], dtype=np.float32)
    assert figure_of(count_task(2, 2), np.array([10.0, 20.0, 30.0, 40.0]), scores) == pytest.approx(1.0)


def test_the_rate_is_chosen_by_the_figure_on_a_cut_of_train(
    model: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(
        encoder: Any, data: TrainingSet, how: FineTuning, autocast: Any, value: Any, told: Any
    ) -> float:
        assert encoder is model.encoder
        assert data.rows.labels.tolist() == [row.label for row in SMALL.splits["train"]]
        assert data.soft is None
        assert value(np.array([0.0, 1.0]), np.array([[1, 0], [1, 0]], dtype=np.float32))[0] == 0.5
        return how.rates[1]

    monkeypatch.setattr(module, "best_rate", chosen)
    assert chosen_rate(model, SMALL, HOW, None, Told().listener) == 2e-3
    assert scored(model, SMALL, [0]).rate == 2e-3


# What is remembered


def test_what_was_scored_before_is_not_scored_again(
    model: Scored, trainings: list[int], own_cache: Path
) -> None:
    first = scored(model, SMALL)
    assert trainings == [0, 1]
    kept = files_in(own_cache)
    told = Told()
    assert scored(model, SMALL, told=told) == first
    assert trainings == [0, 1]
    assert told.steps == []
    assert files_in(own_cache) == kept


def test_values_have_errors_and_chance_and_those_of_the_first_versions_chance_alone(
    model: Scored, trainings: list[int], own_cache: Path
) -> None:
    found = scored(model, SMALL, [0])
    assert [list(errors) for errors in found.errors] == [["accuracy"]]
    labels = [row.label for row in SMALL.splits["train"]]
    usual = max(sorted(set(labels), key=labels.index), key=labels.count)
    expected = sum(row.label == usual for row in SMALL.splits["validation"]) / 20
    assert found.chance["accuracy"] == expected
    for path in (own_cache / "scores").iterdir():
        kept = json.loads(path.read_text())
        kept["answer"] = kept["answer"]["values"]
        path.write_text(json.dumps(kept))
    again = scored(model, SMALL, [0])
    assert (again.seeds, again.errors, again.chance) == (found.seeds, (), found.chance)
    assert trainings == [0]


def test_another_seed_costs_that_seed_alone(model: Scored, trainings: list[int]) -> None:
    first = scored(model, SMALL)
    told = Told()
    more = scored(model, SMALL, (0, 1, 2), told)
    assert trainings == [0, 1, 2]
    assert more.seeds[:2] == first.seeds
    assert told.activities == ["words: fine-tuning, seed 2"]


def test_something_else_is_scored_anew(model: Scored, trainings: list[int]) -> None:
    other_rows = replace(SMALL, splits={**SMALL.splits, "validation": word_rows(20, seed=9)})
    asked: list[tuple[Scored, Task, FineTuning, torch.dtype | None]] = [
        (model, SMALL, HOW, None),
        (replace(model, fingerprint="another"), SMALL, HOW, None),
        (model, replace(SMALL, name="others"), HOW, None),
        (model, other_rows, HOW, None),
        (model, SMALL, replace(HOW, epochs=2), None),
        (model, SMALL, HOW, torch.bfloat16),
    ]
    for number, (other, task, how, autocast) in enumerate(asked, start=1):
        score_on(other, task, how, [0], autocast, Told().listener)
        assert trainings == [0] * number


@pytest.mark.parametrize(
    ("end_at", "left"),
    [
        ("words: choosing a learning rate", ["choosing a learning rate", "seed 0", "seed 1"]),
        ("words: fine-tuning, seed 1", ["seed 1"]),
    ],
)
def test_a_scoring_that_was_ended_goes_on_with_what_is_left(
    end_at: str, left: list[str], model: Scored
) -> None:
    with pytest.raises(Ended):
        scored(model, SMALL, told=Told(end_at))
    told = Told()
    result = scored(model, SMALL, told=told)
    assert [
        activity.removeprefix("words: ").removeprefix("fine-tuning, ") for activity in told.activities
    ] == left
    again = replace(model, fingerprint="the same once more")
    assert result == scored(again, SMALL)


def test_the_device_is_taken_for_what_is_computed_and_for_nothing_else(
    model: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []

    @contextmanager
    def spied(waiting: Any) -> Iterator[None]:
        held.append(True)
        yield
        held.append(False)

    monkeypatch.setattr(module, "exclusive", spied)
    scored(model, SMALL)
    assert held == [True, False] * 3  # the rate and two seeds
    scored(model, SMALL)
    assert len(held) == 6


def test_steps_are_told_in_words(model: Scored) -> None:
    told = Told()
    scored(model, SMALL, [5], told)
    assert told.activities == ["words: choosing a learning rate", "words: fine-tuning, seed 5"]
    assert [step for step in told.steps if step[0] == told.activities[1]] == [
        (told.activities[1], taken, 3) for taken in (1, 2, 3)
    ]


# Rows


def test_the_same_rows_are_learnt_by_all_models(teacher: Teacher) -> None:
    rows = [replace(row, label=float(index)) for index, row in enumerate(word_rows(300))]
    task = Task("numbered", (), {"train": rows}, ())
    words = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    other = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    capped = replace(HOW, rows=50)
    one, two = (train_tokens(tokenizer, task, capped) for tokenizer in (teacher.tokenizer, other))
    assert len(one) == len(two) == 50
    assert one.labels.tolist() == two.labels.tolist()
    assert len(set(one.labels)) == 50
    assert one.labels.max() > 200  # not the first that come
    assert not np.array_equal(one.ids[0], two.ids[0])
    assert train_tokens(teacher.tokenizer, task, replace(HOW, rows=300)).labels.tolist() == list(range(300))


# Soft losses


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_the_soft_loss_is_cross_entropy_or_the_squared_error_of_scores() -> None:
    rng = np.random.default_rng(0)
    student, teacher = (rng.normal(scale=3, size=(9, 4)).astype(np.float32) for _ in range(2))
    expected = -(softmax(teacher.astype(float)) * np.log(softmax(student.astype(float)))).sum(1).mean()
    assert soft_loss(SMALL, student, teacher) == pytest.approx(expected, rel=1e-5)
    assert soft_loss(SMALL, teacher, teacher) < expected
    scores = [each[:, :1] for each in (student, teacher)]
    squared = ((scores[0].astype(float) - scores[1].astype(float)) ** 2).mean()
    assert soft_loss(count_task(2, 2), *scores) == pytest.approx(squared, rel=1e-5)
