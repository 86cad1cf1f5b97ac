"""What a model scores on a task: fine-tuned with several seeds, each result remembered on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core import files
from kdnas_core.data.tasks import APART, Task
from kdnas_core.evaluation.classifier import Tokens, logits_of, predictions, tokens_of
from kdnas_core.evaluation.fine_tuning import FineTuning, Lesson, best_rate, fine_tuned
from kdnas_core.evaluation.metrics import mean_of, metrics_of, positive_class, score, scores_of
from kdnas_core.hardware import exclusive

Values = dict[str, float]  # by metric; of a task with several scored splits "metric, split"


@dataclass(frozen=True)
class TaskScore:
    """What a model scores on a task.

    Attributes:
        task: its name.
        seeds: the values of each seed.
        rate: the learning rate that was chosen; None where nothing was trained.
    """

    task: str
    seeds: tuple[Values, ...]
    rate: float | None = None

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        return list(self.seeds[0])

    def mean(self, metric: str) -> float:
        """The mean over seeds of one metric."""
        return fmean(values[metric] for values in self.seeds)

    @property
    def figure(self) -> float:
        """The one figure of the task: the mean over its metrics, its scored splits and the seeds."""
        return fmean(self.mean(metric) for metric in self.metrics)


@dataclass(frozen=True)
class Scored:
    """A model that is scored: never changed.

    Attributes:
        encoder: the model.
        tokenizer: its own.
        fingerprint: changes with its weights; its results are remembered by it.
    """

    encoder: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str


@dataclass(frozen=True)
class ScoringListener:
    """Told how scoring goes on; either may raise to end it early.

    Attributes:
        waiting: another process of ours has the device.
        step: what is done, in words, and steps taken of how many.
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
    """Fine-tunes a model on a task once for each seed, and scores each on the split that is to be scored.

    What this machine has scored before is not scored again, so that a scoring that was ended goes on.

    Args:
        model: is fine-tuned, in a copy.
        task: with its splits.
        how: settings; its learning rate is chosen on a cut of the training split, once for all seeds.
        seeds: of the heads, the order of rows and the dropout.
        autocast: dtype of forward passes, None for float32.
        listener: told how it goes on.
        reads_apart: whether the sentences of pairs are read each by itself; then the task's name says so.

    Raises:
        Diverged: at every learning rate.
    """
    return _Scoring(model, task, how, autocast, listener, reads_apart and task.is_pair).result(seeds)


def chosen_rate(
    model: Scored, task: Task, how: FineTuning, autocast: torch.dtype | None, listener: ScoringListener
) -> float:
    """The learning rate that a model is fine-tuned with on a task, remembered as `score_on` does."""
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
        }
        self._lesson: Lesson | None = None

    def result(self, seeds: Sequence[int]) -> TaskScore:
        """The scores of all seeds."""
        rate = self.rate()
        values = [
            self._remembered("scores", {**self.question, "seed": seed, "rate": rate}, self._of(seed, rate))
            for seed in seeds
        ]
        return TaskScore(self.task.name + (APART if self.reads_apart else ""), tuple(values), rate)

    def _remembered(self, kind: str, question: dict[str, Any], compute: Callable[[], Any]) -> Any:
        answer = files.recall(kind, question)
        if answer is None:
            with exclusive(self.listener.waiting):
                answer = compute()
            files.remember(kind, question, answer)
        return answer

    @property
    def lesson(self) -> Lesson:
        """The training split, read once."""
        if self._lesson is None:
            rows = train_tokens(self.model.tokenizer, self.task, self.how, self.reads_apart)
            self._lesson = Lesson(self.task, rows)
        return self._lesson

    def rate(self) -> float:
        """The learning rate, chosen once for all seeds."""
        return float(self._remembered("rates", self.question, lambda: {"rate": self._best_rate()})["rate"])

    def _best_rate(self) -> float:
        return best_rate(
            self.model.encoder,
            self.lesson,
            self.how,
            self.autocast,
            lambda labels, logits: _value(self.task, labels, logits),
            self._told("choosing a learning rate"),
        )

    def _of(self, seed: int, rate: float) -> Callable[[], Values]:
        def compute() -> Values:
            told = self._told(f"fine-tuning, seed {seed}")
            classifier = fine_tuned(
                self.model.encoder, self.lesson, self.how, rate, seed, self.autocast, told
            )
            return values_of(
                classifier, self.model.tokenizer, self.task, self.how, self.autocast, self.reads_apart
            )

        return compute

    def _told(self, activity: str) -> Callable[[int, int], None]:
        return lambda step, steps: self.listener.step(f"{self.task.name}: {activity}", step, steps)


def train_tokens(
    tokenizer: PreTrainedTokenizerBase, task: Task, how: FineTuning, reads_apart: bool = False
) -> Tokens:
    """The rows of the training split that are learnt from: all, or the same ones for all models."""
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
) -> Values:
    """All metrics of a classifier on all splits that are to be scored."""
    found: Values = {}
    for split in task.scored:
        tokens = tokens_of(task.splits[split], tokenizer, how.sequence_length, reads_apart)
        predicted = predictions(logits_of(classifier, tokens, autocast), task)
        for metric, value in scores_of(task, split, predicted).items():
            found[metric if len(task.scored) == 1 else f"{metric}, {split}"] = value
    return found


def _value(task: Task, labels: NDArray[np.float64], logits: NDArray[np.float32]) -> tuple[float, float]:
    """What rates are compared by: the metrics, and where they are equal the loss.

    After so few steps a hard task's metrics are often equal: Matthews is 0 for all that knows one class only.
    """
    given, wanted = torch.from_numpy(logits), torch.from_numpy(labels)
    if task.is_regression:
        loss = (given[:, 0] - wanted).square().mean()
    else:
        loss = torch.nn.functional.cross_entropy(given, wanted.long())
    return figure_of(task, labels, logits), -float(loss)


def figure_of(task: Task, labels: NDArray[np.float64], logits: NDArray[np.float32]) -> float:
    """The mean of a task's metrics on some rows."""
    predicted, positive = predictions(logits, task), positive_class(task.classes)
    return mean_of(
        {metric: score(metric, labels.tolist(), predicted, positive) for metric in metrics_of(task)}
    )


def soft_loss(task: Task, student: NDArray[np.float32], teacher: NDArray[np.float32]) -> float:
    """How far predictions are from a teacher's: soft cross-entropy, or the squared error of scores.

    Args:
        task: whether it has classes or scores.
        student: (rows, classes) logits, or (rows, 1) scores.
        teacher: the same of the teacher.
    """
    given, wanted = torch.from_numpy(student), torch.from_numpy(teacher)
    if task.is_regression:
        return float((given - wanted).square().mean())
    return float(torch.nn.functional.cross_entropy(given, wanted.softmax(1)))
