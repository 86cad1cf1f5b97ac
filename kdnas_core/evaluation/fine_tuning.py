"""Fine-tuning on a task, with a learning rate chosen by short trials on a part of the training split."""

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
from kdnas_core.hardware import autocast_to, compute_device, moved
from kdnas_core.models.vocabulary import Vocabulary, only_used_words

CUT = 0.1  # share of the training split that rates are evaluated on
CUT_MOST = 1_000  # rows


@dataclass(frozen=True)
class FineTuning:
    """The settings of fine-tuning.

    Attributes:
        rates: learning rates to choose from.
        rows: the most rows of the training split, the same for all models and seeds.
        examples: rows read in all, so that a small task has more epochs than a large one.
        epochs: the most epochs; there is at least one.
        batch_size: in rows.
        sequence_length: the most tokens of a row.
        trial: the most steps of the trial of a rate.
        dropout: of all dropout layers; None keeps the model's own.
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
        """Returns the number of steps for a number of rows."""
        passes = min(self.epochs, max(1.0, self.examples / rows))
        return max(1, math.ceil(rows * passes / self.batch_size))


Progress = Callable[[int, int], None]  # steps taken, steps in all


@dataclass(frozen=True)
class TrainingSet:
    """The training set of a classifier.

    Attributes:
        task: has the classes.
        rows: the training rows.
        soft: (rows, classes) logits or (rows, 1) scores of a teacher, the targets instead of the labels
            (TinyBERT, arXiv 1909.10351, eq. 10); None for the labels. With them there is no dropout, as in
            the teacher's forward pass.
    """

    task: Task
    rows: Tokens
    soft: NDArray[np.float32] | None = None

    def only(self, rows: Sequence[int]) -> TrainingSet:
        """Returns a subset of the rows."""
        soft = None if self.soft is None else self.soft[list(rows)]
        return TrainingSet(self.task, self.rows.only(rows), soft)


def fine_tuned(
    encoder: PreTrainedModel,
    data: TrainingSet,
    how: FineTuning,
    rate: float,
    seed: int,
    autocast: torch.dtype | None,
    progress: Progress = lambda step, steps: None,
    steps: int | None = None,
    saved: Path | None = None,
) -> PreTrainedModel:
    """Fine-tunes a classifier made from an encoder.

    Args:
        encoder: not changed.
        data: the training set.
        how: the settings.
        rate: the learning rate.
        seed: of the head, the order of the rows and the dropout.
        autocast: dtype of the forward pass, None for float32.
        progress: called after each step; if it raises, a checkpoint is saved first.
        steps: instead of `how.steps`.
        saved: the checkpoint file; if it exists, training resumes from it.

    Raises:
        Diverged: the loss is not finite.
        BadInput: the saved file is of a training with other settings.
    """
    model = new_classifier(encoder, data.task, seed, reads_apart=data.rows.seconds is not None)
    model.train(data.soft is None)
    _set_dropout(model, how.dropout)
    steps = steps or how.steps(len(data.rows))
    vocabulary = Vocabulary.of_words(
        data.rows.words(), model.config.vocab_size, model.config.pad_token_id or 0
    )
    with torch.random.fork_rng(), only_used_words(model, vocabulary), moved(model):
        torch.manual_seed(seed)
        name = json.dumps([asdict(how), rate, seed, steps, len(data.rows)])
        kept = Saved(saved, name, {"model": model}) if saved else None
        loop = Loop([Group(list(model.parameters()))], steps, rate, kept)
        gradients = _gradients(model, data, vocabulary, autocast)
        batches = endless(data.rows.lengths, how.batch_size, seed)
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
    if data.task.is_regression:
        _in_units(model, data.rows.labels)
    return model.eval()


def _gradients(
    model: PreTrainedModel, data: TrainingSet, vocabulary: Vocabulary, autocast: torch.dtype | None
) -> Callable[[Sequence[int]], float]:
    """Returns a function that adds the gradients of a batch of rows and returns its loss."""
    numbers = data.rows.renumbered(vocabulary.numbers)
    targets = _targets(data).to(compute_device())

    def gradients(rows: Sequence[int]) -> float:
        with autocast_to(autocast):
            logits = model(**numbers.inputs(rows, model.config)).logits
        loss = _loss(logits.float(), targets[torch.tensor(rows)], data.task)
        loss.backward()
        return loss.item()

    return gradients


def best_rate(
    encoder: PreTrainedModel,
    data: TrainingSet,
    how: FineTuning,
    autocast: torch.dtype | None,
    value: Callable[[NDArray[np.float64], NDArray[np.float32]], tuple[float, float] | float],
    progress: Progress = lambda step, steps: None,
) -> float:
    """Chooses the learning rate that is best in short trials on the training split.

    The scored split is not used.

    Args:
        encoder: not changed.
        data: the training set; a tenth of it is held out of the trials for evaluation.
        how: the settings, with the rates to choose from.
        autocast: dtype of the forward pass, None for float32.
        value: rates labels and logits, higher is better; the second of two numbers breaks ties.
        progress: called after each step of each trial.

    Raises:
        Diverged: at every rate.
    """
    if len(how.rates) == 1:
        return how.rates[0]
    cut, rest = _cut(len(data.rows))
    judged, learnt = data.rows.only(cut), data.only(rest)
    steps = min(how.trial, how.steps(len(data.rows)))
    values: dict[float, Any] = {}
    for index, rate in enumerate(how.rates):

        def report(step: int, of: int, before: int = index * steps) -> None:
            progress(before + step, of * len(how.rates))

        with contextlib.suppress(Diverged):
            model = fine_tuned(encoder, learnt, how, rate, 0, autocast, report, steps)
            logits = logits_of(model, judged, autocast)
            if np.isfinite(logits).all():  # otherwise it diverged at the last step
                values[rate] = value(judged.labels, logits)
    if not values:
        raise Diverged(f"fine-tuning diverged at each of the rates {', '.join(map(str, how.rates))}")
    return max(values, key=lambda rate: values[rate])


def _cut(rows: int) -> tuple[list[int], list[int]]:
    order = random.Random(0).sample(range(rows), rows)
    size = max(1, min(CUT_MOST, round(CUT * rows)))
    return order[:size], order[size:]


def _targets(data: TrainingSet) -> torch.Tensor:
    """The targets: classes (rows,), standardised scores (rows,), or soft labels (rows, C)."""
    labels, soft = data.rows.labels, data.soft
    if data.task.is_regression:
        scores = labels if soft is None else soft[:, 0]
        return torch.from_numpy((scores - labels.mean()) / _spread(labels)).float()
    if soft is not None:
        return torch.from_numpy(soft).softmax(1)
    return torch.from_numpy(labels).long()


def _spread(labels: NDArray[np.float64]) -> float:
    return float(labels.std()) or 1.0


def _loss(logits: torch.Tensor, targets: torch.Tensor, task: Task) -> torch.Tensor:
    return F.mse_loss(logits[:, 0], targets) if task.is_regression else F.cross_entropy(logits, targets)


def _set_dropout(model: PreTrainedModel, dropout: float | None) -> None:
    """Sets the rate of all dropout layers, attention's included; None changes nothing."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and dropout is not None:
            module.p = dropout


@torch.no_grad()
def _in_units(model: PreTrainedModel, labels: NDArray[np.float64]) -> None:
    """Rescales a head that was trained on standardised scores to the scores' own units."""
    heads = [each for each in model.modules() if isinstance(each, torch.nn.Linear) and each.out_features == 1]
    heads[-1].weight.mul_(_spread(labels))
    heads[-1].bias.mul_(_spread(labels)).add_(float(labels.mean()))
