"""Fine-tuning on a task: the learning rate chosen early on a cut of train, then one model for each seed."""

from __future__ import annotations

import contextlib
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import PreTrainedModel

from kdnas_core.data.tasks import Task
from kdnas_core.data.tokens import endless
from kdnas_core.distillation.loop import Diverged, Group, Loop, Saved
from kdnas_core.evaluation.classifier import Tokens, logits_of, new_classifier
from kdnas_core.models.vocabulary import Vocabulary, only_used_words

CUT = 0.1  # share of train that a learning rate is chosen by
CUT_MOST = 1_000  # rows


@dataclass(frozen=True)
class FineTuning:
    """How a model is fine-tuned.

    Attributes:
        rates: learning rates to choose from.
        rows: of the training split at the most, the same ones for all models and seeds.
        examples: are seen in all, so that a small task is read more often than a large one ...
        epochs: ... but no more often than this, and each row once.
        batch_size: rows.
        sequence_length: at which rows are cut, in tokens.
        trial: steps that each rate is tried for, if a training has as many.
        dropout: in the place of the model's own; None for that.
    """

    rates: tuple[float, ...] = (5e-5, 1.5e-4, 5e-4)
    rows: int = 100_000
    examples: int = 20_000
    epochs: int = 4
    batch_size: int = 32
    sequence_length: int = 128
    trial: int = 80
    dropout: float | None = None

    def steps(self, rows: int) -> int:
        """Steps on a training split of so many rows."""
        passes = min(self.epochs, max(1.0, self.examples / rows))
        return max(1, math.ceil(rows * passes / self.batch_size))


Progress = Callable[[int, int], None]  # steps taken, of how many


@dataclass(frozen=True)
class Lesson:
    """What a classifier learns.

    Attributes:
        task: its classes.
        rows: to learn.
        soft: (rows, classes) a teacher's logits, to learn in the place of the labels by soft cross-entropy
            (TinyBERT, arXiv 1909.10351, eq. 10), or its scores (rows, 1); None for the labels. Then without
            dropout, as the teacher gave them.
    """

    task: Task
    rows: Tokens
    soft: NDArray[np.float32] | None = None

    def only(self, rows: Sequence[int]) -> Lesson:
        """Some of the rows."""
        soft = None if self.soft is None else self.soft[list(rows)]
        return Lesson(self.task, self.rows.only(rows), soft)


def fine_tuned(
    encoder: PreTrainedModel,
    lesson: Lesson,
    how: FineTuning,
    rate: float,
    seed: int,
    autocast: torch.dtype | None,
    progress: Progress = lambda step, steps: None,
    steps: int | None = None,
    saved: Path | None = None,
) -> PreTrainedModel:
    """A classifier made of an encoder and trained on a task.

    Args:
        encoder: not changed.
        lesson: what is learnt.
        how: settings.
        rate: the learning rate.
        seed: of the head, the order of the rows and the dropout.
        autocast: dtype of the forward pass, None for float32.
        progress: told of each step; where it raises, what was learnt is kept in `saved`.
        steps: in the place of those that `how` has for so many rows.
        saved: a file that keeps how far training is; where it exists, training goes on from it.

    Raises:
        Diverged: the loss is not finite.
        BadInput: the saved file is of a training with other settings.
    """
    model = new_classifier(encoder, lesson.task, seed, reads_apart=lesson.rows.seconds is not None)
    model.train(lesson.soft is None)
    _set_dropout(model, how.dropout)
    steps = steps or how.steps(len(lesson.rows))
    vocabulary = Vocabulary.of_words(
        lesson.rows.words(), model.config.vocab_size, model.config.pad_token_id or 0
    )
    with torch.random.fork_rng(), only_used_words(model, vocabulary):
        torch.manual_seed(seed)
        name = json.dumps([asdict(how), rate, seed, steps, len(lesson.rows)])
        kept = Saved(saved, name, {"model": model}) if saved else None
        loop = Loop([Group(list(model.parameters()))], steps, rate, kept)
        gradients = _gradients(model, lesson, vocabulary, autocast)
        batches = endless(lesson.rows.lengths, how.batch_size, seed)
        done = loop.steps_saved()
        for step, rows in islice(zip(count(1), batches, strict=False), done, steps):
            loop.take(step, partial(gradients, rows))
            loop.keep(step)
            try:
                progress(step, steps)
            except Exception:
                loop.keep(step, now=True)
                raise
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise Diverged("the weights were no numbers after the last step; a lower learning rate may help")
    if lesson.task.is_regression:
        _in_units(model, lesson.rows.labels)
    return model.eval()


def _gradients(
    model: PreTrainedModel, lesson: Lesson, vocabulary: Vocabulary, autocast: torch.dtype | None
) -> Callable[[Sequence[int]], float]:
    """Adds the gradients of a batch of rows, and returns its loss."""
    numbers = lesson.rows.renumbered(vocabulary.numbers)
    wanted = _wanted(lesson)

    def gradients(rows: Sequence[int]) -> float:
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            logits = model(**numbers.inputs(rows, model.config)).logits
        loss = _loss(logits.float(), wanted[rows], lesson.task)
        loss.backward()
        return loss.item()

    return gradients


def best_rate(
    encoder: PreTrainedModel,
    lesson: Lesson,
    how: FineTuning,
    autocast: torch.dtype | None,
    value: Callable[[NDArray[np.float64], NDArray[np.float32]], tuple[float, float] | float],
    progress: Progress = lambda step, steps: None,
) -> float:
    """The learning rate that does best in a short trial on a cut of the training split.

    The split that is scored is never looked at.

    Args:
        encoder: not changed.
        lesson: on the training split; a tenth of it is held out of the trial to judge by.
        how: settings, with the rates to choose from.
        autocast: dtype of the forward pass, None for float32.
        value: of labels and logits, higher is better; of two numbers the second decides between equals.
        progress: told of each step of each trial.

    Raises:
        Diverged: at every rate.
    """
    if len(how.rates) == 1:
        return how.rates[0]
    cut, rest = _cut(len(lesson.rows))
    judged, learnt = lesson.rows.only(cut), lesson.only(rest)
    steps = min(how.trial, how.steps(len(lesson.rows)))
    values: dict[float, Any] = {}
    for index, rate in enumerate(how.rates):

        def told(step: int, of: int, before: int = index * steps) -> None:
            progress(before + step, of * len(how.rates))

        with contextlib.suppress(Diverged):
            model = fine_tuned(encoder, learnt, how, rate, 0, autocast, told, steps)
            logits = logits_of(model, judged, autocast)
            if np.isfinite(logits).all():  # else it diverged at the last step
                values[rate] = value(judged.labels, logits)
    if not values:
        raise Diverged(f"fine-tuning diverged at each of the rates {', '.join(map(str, how.rates))}")
    return max(values, key=lambda rate: values[rate])


def _cut(rows: int) -> tuple[list[int], list[int]]:
    order = random.Random(0).sample(range(rows), rows)
    size = max(1, min(CUT_MOST, round(CUT * rows)))
    return order[:size], order[size:]


def _wanted(lesson: Lesson) -> torch.Tensor:
    """What is learnt: classes (rows,), scores (rows,) in units of their spread, or soft labels (rows, C)."""
    labels, soft = lesson.rows.labels, lesson.soft
    if lesson.task.is_regression:
        scores = labels if soft is None else soft[:, 0]
        return torch.from_numpy((scores - labels.mean()) / _spread(labels)).float()
    if soft is not None:
        return torch.from_numpy(soft).softmax(1)
    return torch.from_numpy(labels).long()


def _spread(labels: NDArray[np.float64]) -> float:
    return float(labels.std()) or 1.0


def _loss(logits: torch.Tensor, wanted: torch.Tensor, task: Task) -> torch.Tensor:
    return F.mse_loss(logits[:, 0], wanted) if task.is_regression else F.cross_entropy(logits, wanted)


def _set_dropout(model: PreTrainedModel, dropout: float | None) -> None:
    """Sets the share of all dropout layers, attention's among them; None leaves them as they are."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and dropout is not None:
            module.p = dropout


@torch.no_grad()
def _in_units(model: PreTrainedModel, labels: NDArray[np.float64]) -> None:
    """Puts a head that learnt scores in units of their spread back to the scores' own."""
    heads = [each for each in model.modules() if isinstance(each, torch.nn.Linear) and each.out_features == 1]
    heads[-1].weight.mul_(_spread(labels))
    heads[-1].bias.mul_(_spread(labels)).add_(float(labels.mean()))
