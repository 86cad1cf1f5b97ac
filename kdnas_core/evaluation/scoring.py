"""Scores a model on a task: fine-tunes it with several seeds and caches each result on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core import files
from kdnas_core.data.tasks import APART, Task
from kdnas_core.evaluation.classifier import Tokens, logits_of, predictions, tokens_of
from kdnas_core.evaluation.fine_tuning import FineTuning, TrainingSet, best_rate, fine_tuned
from kdnas_core.evaluation.metrics import (
    Metric,
    chance_of,
    errors_of,
    mean_of,
    metrics_of,
    positive_class,
    score,
    scores_of,
)
from kdnas_core.hardware import exclusive, other_device

Values = dict[str, float]  # by metric; by "metric, split" for a task with several scored splits


@dataclass(frozen=True)
class TaskScore:
    """The score of a model on a task.

    Attributes:
        task: its name.
        seeds: the values of each seed.
        rate: the chosen learning rate; None if nothing was trained.
        errors: the standard errors of each seed's values over the scored rows; empty if they are not known.
        chance: the values of always predicting the most frequent class; empty where that is no prediction.
    """

    task: str
    seeds: tuple[Values, ...]
    rate: float | None = None
    errors: tuple[Values, ...] = ()
    chance: Values = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        return list(self.seeds[0])

    def mean(self, metric: str) -> float:
        """Returns the mean of a metric over seeds."""
        return fmean(values[metric] for values in self.seeds)

    @property
    def figure(self) -> float:
        """The task's score: the mean over its metrics, its scored splits and the seeds."""
        return fmean(self.mean(metric) for metric in self.metrics)


@dataclass(frozen=True)
class Scored:
    """A model to score.

    Attributes:
        encoder: the model; not changed.
        tokenizer: the model's.
        fingerprint: a hash of its weights, part of the key of cached results.
    """

    encoder: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str


@dataclass(frozen=True)
class ScoringListener:
    """Callbacks of scoring; either may raise to end it early.

    Attributes:
        waiting: called while another process holds the device.
        step: called with a sentence on what is being done, the steps taken and the steps in all.
    """

    waiting: Callable[[], None]
    step: Callable[[str, int, int], None]


def score_on(
    model: Scored,
    task: Task,
    how: FineTuning,
    seeds: Sequence[int],
    autocast: torch.dtype | None,
    listener: ScoringListener,
    reads_apart: bool = False,
) -> TaskScore:
    """Fine-tunes a model on a task once for each seed, and scores each on the scored splits.

    Cached results are not computed again, so an interrupted scoring resumes.

    Args:
        model: a copy of it is fine-tuned.
        task: with its splits.
        how: the settings; the learning rate is chosen once for all seeds.
        seeds: of the heads, the order of rows and the dropout.
        autocast: dtype of forward passes, None for float32.
        listener: callbacks.
        reads_apart: whether the two sentences of a pair are encoded separately; the task's name then says so.

    Raises:
        Diverged: at every learning rate.
    """
    return _Scoring(model, task, how, autocast, listener, reads_apart and task.is_pair).result(seeds)


def chosen_rate(
    model: Scored, task: Task, how: FineTuning, autocast: torch.dtype | None, listener: ScoringListener
) -> float:
    """Returns the learning rate for fine-tuning a model on a task, cached as in `score_on`."""
    return _Scoring(model, task, how, autocast, listener).rate()


class _Scoring:
    """The scoring of one model on one task."""

    def __init__(
        self,
        model: Scored,
        task: Task,
        how: FineTuning,
        autocast: torch.dtype | None,
        listener: ScoringListener,
        reads_apart: bool = False,
    ) -> None:
        self.model, self.task, self.how, self.autocast, self.listener = model, task, how, autocast, listener
        self.reads_apart = reads_apart
        self.question = {
            "model": model.fingerprint,
            "task": [task.name, task.fingerprint],
            "how": asdict(how),
            "autocast": str(autocast),
            **({"reads_apart": True} if reads_apart else {}),
            **({"device": other_device()} if other_device() else {}),
        }
        self._training_set: TrainingSet | None = None

    def result(self, seeds: Sequence[int]) -> TaskScore:
        """Returns the scores of all seeds."""
        rate = self.rate()
        found = [
            _read(
                self._remembered(
                    "scores", {**self.question, "seed": seed, "rate": rate}, self._of(seed, rate)
                )
            )
            for seed in seeds
        ]
        name = self.task.name + (APART if self.reads_apart else "")
        values, errors = zip(*found, strict=True)
        return TaskScore(name, values, rate, errors if all(errors) else (), chance(self.task))

    def _remembered(self, kind: str, question: dict[str, Any], compute: Callable[[], Any]) -> Any:
        answer = files.recall(kind, question)
        if answer is None:
            with exclusive(self.listener.waiting):
                answer = compute()
            files.remember(kind, question, answer)
        return answer

    @property
    def training_set(self) -> TrainingSet:
        """The training split, read once."""
        if self._training_set is None:
            rows = train_tokens(self.model.tokenizer, self.task, self.how, self.reads_apart)
            self._training_set = TrainingSet(self.task, rows)
        return self._training_set

    def rate(self) -> float:
        """Returns the learning rate, chosen once for all seeds."""
        return float(self._remembered("rates", self.question, lambda: {"rate": self._best_rate()})["rate"])

    def _best_rate(self) -> float:
        return best_rate(
            self.model.encoder,
            self.training_set,
            self.how,
            self.autocast,
            lambda labels, logits: _value(self.task, labels, logits),
            self._progress("choosing a learning rate"),
        )

    def _of(self, seed: int, rate: float) -> Callable[[], dict[str, Values]]:
        def compute() -> dict[str, Values]:
            progress = self._progress(f"fine-tuning, seed {seed}")
            classifier = fine_tuned(
                self.model.encoder, self.training_set, self.how, rate, seed, self.autocast, progress
            )
            values, errors = values_of(
                classifier, self.model.tokenizer, self.task, self.how, self.autocast, self.reads_apart
            )
            return {"values": values, "errors": errors}

        return compute

    def _progress(self, activity: str) -> Callable[[int, int], None]:
        return lambda step, steps: self.listener.step(f"{self.task.name}: {activity}", step, steps)


def train_tokens(
    tokenizer: PreTrainedTokenizerBase, task: Task, how: FineTuning, reads_apart: bool = False
) -> Tokens:
    """Returns the tokenized training rows: all, or a sample that is the same for all models."""
    rows = task.splits["train"]
    if len(rows) > how.rows:
        order = np.random.default_rng(0).permutation(len(rows))[: how.rows]
        rows = [rows[index] for index in sorted(order)]
    return tokens_of(rows, tokenizer, how.sequence_length, reads_apart)


def values_of(
    classifier: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    how: FineTuning,
    autocast: torch.dtype | None,
    reads_apart: bool = False,
) -> tuple[Values, Values]:
    """Computes all metrics of a classifier on all scored splits, and their standard errors over rows."""
    values: Values = {}
    errors: Values = {}
    for split in task.scored:
        tokens = tokens_of(task.splits[split], tokenizer, how.sequence_length, reads_apart)
        predicted = predictions(logits_of(classifier, tokens, autocast), task)
        values |= _named(task, split, scores_of(task, split, predicted))
        errors |= _named(task, split, errors_of(task, split, predicted))
    return values, errors


def chance(task: Task) -> Values:
    """Computes all metrics of always predicting the most frequent class, on all scored splits."""
    values: Values = {}
    for split in task.scored:
        values |= _named(task, split, chance_of(task, split))
    return values


def _named(task: Task, split: str, values: Mapping[Metric, float]) -> Values:
    return {
        metric if len(task.scored) == 1 else f"{metric}, {split}": value for metric, value in values.items()
    }


def _read(kept: dict[str, Any]) -> tuple[Values, Values]:
    """The values and standard errors that are kept in the cache; the first versions kept values alone."""
    return (kept["values"], kept["errors"]) if "values" in kept else (kept, {})


def _value(task: Task, labels: NDArray[np.float64], logits: NDArray[np.float32]) -> tuple[float, float]:
    """The value by which rates are compared: the metrics' mean, then the loss.

    After few steps a hard task's metrics are often equal: Matthews is 0 for any constant prediction.
    """
    predicted, targets = torch.from_numpy(logits), torch.from_numpy(labels)
    if task.is_regression:
        loss = (predicted[:, 0] - targets).square().mean()
    else:
        loss = torch.nn.functional.cross_entropy(predicted, targets.long())
    return figure_of(task, labels, logits), -float(loss)


def figure_of(task: Task, labels: NDArray[np.float64], logits: NDArray[np.float32]) -> float:
    """Returns the mean of a task's metrics on some rows."""
    predicted, positive = predictions(logits, task), positive_class(task.classes)
    return mean_of(
        {metric: score(metric, labels.tolist(), predicted, positive) for metric in metrics_of(task)}
    )


def soft_loss(task: Task, student: NDArray[np.float32], teacher: NDArray[np.float32]) -> float:
    """Computes the loss of predictions against a teacher's: soft cross-entropy, or squared error of scores.

    Args:
        task: has classes or scores.
        student: (rows, classes) logits, or (rows, 1) scores.
        teacher: the teacher's.
    """
    predicted, targets = torch.from_numpy(student), torch.from_numpy(teacher)
    if task.is_regression:
        return float((predicted - targets).square().mean())
    return float(torch.nn.functional.cross_entropy(predicted, targets.softmax(1)))
