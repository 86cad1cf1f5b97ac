"""Distillation: trains a student on the teacher's outputs with the loop of `loop.py`.

The student has no dropout, since the teacher's outputs were computed without it.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from kdnas_core.data.tokens import by_length, passes
from kdnas_core.distillation.forward import Forward, evaluate, placed
from kdnas_core.distillation.loop import Diverged, Group, Loop, Saved
from kdnas_core.distillation.objective import Objective, Places
from kdnas_core.distillation.terms import Pass
from kdnas_core.distillation.yardstick import measured
from kdnas_core.hardware import free_memory
from kdnas_core.models.mapping import YARDSTICK, judging_term, mean_over_layers
from kdnas_core.models.targets import Batch, Targets, Texts, make_batch
from kdnas_core.models.teacher_outputs import OnlineTargets
from kdnas_core.models.vocabulary import Vocabulary
from kdnas_core.resampling import standard_error
from kdnas_core.spec import ProxySpec

EVALUATIONS = 6  # of the held-out loss, besides the one before the first step
PROBE_STEPS = 250  # between evaluations of a probe that the loss of the reward does not need
FIT_TOKENS = 20  # for each of the teacher's dimensions, to fit projections
FIT_BATCH = 32  # texts, independent of the batch size


@dataclass(frozen=True)
class HeldOut:
    """Held-out values after some steps.

    Attributes:
        step: steps taken.
        terms: the value at each place (student layer, teacher layer), by the name of the term; includes the
            yardstick unless it is a mean of other terms.
        resampled: the yardstick on samples of the texts; only at the end.
        languages: the loss by language; only at the end, and if there are several.
    """

    step: int
    terms: dict[str, Places]
    resampled: tuple[float, ...] = ()
    languages: dict[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """L of the reward: the yardstick, or the mean over layers if there is none."""
        name = judging_term(self.terms)
        assert name is not None, "every evaluation has one of these terms"
        return mean_over_layers(self.terms[name])

    @property
    def standard_error(self) -> float | None:
        """Of the yardstick over texts; None if it is not known."""
        return standard_error(self.resampled)


@dataclass(frozen=True)
class Watcher:
    """Callbacks of a training; all may raise to end it early. `noted` gets a sentence for the user."""

    step: Callable[[int], None]
    held_out: Callable[[HeldOut], None]
    noted: Callable[[str], None] = lambda note: None


@dataclass(frozen=True)
class ProxySet:
    """The training and held-out sets of a student.

    Attributes:
        train: teacher outputs for training; for a full corpus, those of a sample.
        held_out: teacher outputs for evaluation.
        vocabulary: the words in use; all ids are its numbers.
        languages: of each held-out text.
        full: the texts of a full corpus, for training instead of `train`.
    """

    train: Targets
    held_out: Targets
    vocabulary: Vocabulary
    languages: Sequence[str] = ()
    full: Texts | None = None

    @classmethod
    def of(
        cls,
        train: Targets,
        held_out: Targets,
        config: PreTrainedConfig,
        languages: Sequence[str] = (),
        full: OnlineTargets | None = None,
    ) -> ProxySet:
        """Renumbers the sets by the words that they use, of the vocabulary of this config."""
        sets: list[Texts] = [train, held_out, *([full] if full else [])]
        vocabulary = Vocabulary.used(sets, config.vocab_size, config.pad_token_id or 0)
        return cls(
            vocabulary.renumbered(train),
            vocabulary.renumbered(held_out),
            vocabulary,
            languages,
            vocabulary.renumbered(full) if full else None,
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the training and held-out texts, with the variance of the teacher's outputs on them."""
        digest = hashlib.sha256(self.vocabulary.rows.tobytes())
        for texts in (self.train, self.held_out):
            for array in (texts.ids, texts.labels, texts.offsets, texts.variance, texts.types):
                digest.update(b"-" if array is None else array.tobytes())
        digest.update(json.dumps(list(self.languages)).encode())
        return digest.hexdigest()

    @property
    def words(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(used,) ids of the words in use, in the whole vocabulary, and their counts in training texts."""
        rows = self.vocabulary.rows
        return rows, np.bincount(self.learnt.ids, minlength=len(rows))

    @property
    def learnt(self) -> Texts:
        """The training texts."""
        return self.full or self.train


def distil(
    student: PreTrainedModel,
    objective: Objective,
    data: ProxySet,
    proxy: ProxySpec,
    seed: int,
    autocast: torch.dtype | None,
    watcher: Watcher,
    saved: Path | None = None,
    looks: int = EVALUATIONS,
) -> HeldOut:
    """Trains a student and its objective in place; returns the last held-out values.

    The same arguments give the same student on one machine, also if the training was interrupted and resumed.

    Args:
        student: with its starting weights.
        objective: of the student; its projections are fitted by least squares before the first step.
        data: the training and held-out sets.
        proxy: steps, batch size, learning rate, and gradient accumulation.
        seed: of the order of the batches.
        autocast: dtype of the forward pass, None for float32.
        watcher: called at each step and each evaluation.
        saved: the checkpoint file; if it exists, training resumes from it.
        looks: number of evaluations, besides the one before the first step.

    Raises:
        Diverged: the loss is not finite.
        BadInput: the saved file is of a training with other settings.
    """
    with placed(student, objective, data.vocabulary, autocast) as forward:
        return _Training(forward, objective, data, proxy, seed, watcher, saved).run(looks)


def judged_by(
    student: PreTrainedModel, objective: Objective, data: ProxySet, autocast: torch.dtype | None
) -> HeldOut:
    """Evaluates a student without training; only projections are fitted to it."""
    watcher = Watcher(step=lambda step: None, held_out=lambda result: None)
    with placed(student, objective, data.vocabulary, autocast) as forward:
        return _Training(forward, objective, data, ProxySpec(), 0, watcher, None).fitted()


class _Training:
    """The state of one training, shared by the loop and its evaluations."""

    def __init__(
        self,
        forward: Forward,
        objective: Objective,
        data: ProxySet,
        proxy: ProxySpec,
        seed: int,
        watcher: Watcher,
        saved: Path | None,
    ) -> None:
        self.forward, self.objective, self.data, self.proxy = forward, objective, data, proxy
        self.watcher = watcher
        self.parts = 1  # of a batch, computed one after another, where the device has too little memory
        self.batches = _endless(data.learnt, proxy.batch_size, seed)
        pad = forward.pad
        self.fitting = [make_batch(data.train, texts, pad) for texts in _fitting(data.train)]
        objective.weigh_alike(self.fitting, proxy.batch_size)
        terms = [spec.model_dump() for _, spec in objective.terms]
        name = json.dumps([proxy.model_dump(), seed, terms])  # identifies its checkpoints
        modules = {"student": forward.student, "objective": objective}
        groups = [*_by_layer(forward.student), Group(list(objective.parameters()), decays=False)]
        kept = Saved(saved, name, modules) if saved else None
        self.loop = Loop(groups, proxy.steps, proxy.learning_rate, kept)

    def run(self, evaluations: int) -> HeldOut:
        """Runs the loop; returns the last held-out values."""
        steps = self.proxy.steps
        looks = sorted({steps * k // evaluations for k in range(1, evaluations + 1)} - {0, steps})
        probed = {now for before, now in pairwise([0, *looks]) if now // PROBE_STEPS > before // PROBE_STEPS}
        for step in range(self._begin() + 1, steps + 1):
            self._begin_step(step)
            done = (step - 1) / steps
            self.loop.take(step, lambda: self._gradients(done), self.objective.rates(done))  # noqa: B023
            if step in looks:
                self.watcher.held_out(self.evaluated(step, with_probe=step in probed))
            self.loop.keep(step)
            self._tell(step)
        last = self.evaluated(steps, last=True)
        self.watcher.held_out(last)
        return last

    def _tell(self, step: int) -> None:
        """Calls the watcher; if it ends the training, saves a checkpoint first."""
        try:
            self.watcher.step(step)
        except Exception:
            self.loop.keep(step, now=True)
            raise

    def _begin(self) -> int:
        """Fits the projections, or loads the checkpoint; returns the steps taken."""
        if step := self.loop.steps_saved():
            for _ in range(step * self.proxy.accumulation):
                next(self.batches)
            return step
        self.watcher.held_out(self.fitted())
        return 0

    @torch.no_grad()
    def fitted(self) -> HeldOut:
        """Fits the projections to the student and evaluates it."""
        self.objective.fit(self._passes())
        return self._looked(0)

    def _gradients(self, done: float) -> float:
        """Accumulates the gradients of one step; returns its loss."""
        batches = list(islice(self.batches, self.proxy.accumulation))
        while True:
            try:
                return sum(self._gradients_of(texts, chosen, done) for texts, chosen in batches)
            except torch.OutOfMemoryError:
                if self.parts >= self.proxy.batch_size:
                    raise
            self._halve()

    def _gradients_of(self, texts: Texts, chosen: Sequence[int], done: float) -> float:
        """Adds the gradients of one batch.

        Those of its parts add up, since each weighs by its tokens, but for similarities, which are compared
        within a part.
        """
        total, size = 0.0, math.ceil(len(chosen) / self.parts)
        for start in range(0, len(chosen), size):
            batch = make_batch(texts, chosen[start : start + size], self.forward.pad)
            loss = self.objective.loss(self.forward(batch), batch, done) / self.proxy.accumulation
            loss.backward()
            total += loss.item()
        return total

    def _halve(self) -> None:
        """Begins a step anew with smaller parts."""
        self.loop.optimiser.zero_grad()
        free_memory()
        self.parts *= 2
        size = math.ceil(self.proxy.batch_size / self.parts)
        self.watcher.noted(
            f"A batch did not fit in the device's memory and is split into parts of {size} texts; "
            "similarities are compared within a part."
        )

    def _begin_step(self, step: int) -> None:
        """Fits the second stage's projections before its first step."""
        steps = self.proxy.steps
        if step > 1 and self.objective.begins_second_stage((step - 1) / steps, before=(step - 2) / steps):
            self.objective.fit_second_stage(self._passes())

    @torch.no_grad()
    def _passes(self) -> Iterator[tuple[Pass, Batch]]:
        """Yields the student's outputs on the batches that projections are fitted on."""
        for batch in self.fitting:
            yield self.forward(batch), batch

    @torch.no_grad()
    def evaluated(self, step: int, last: bool = False, with_probe: bool = True) -> HeldOut:
        """Evaluates the student after fitting the projections that are not trained."""
        with_probe = with_probe or self.objective.probe_judges
        self.objective.fit_idle(self._passes(), step / self.proxy.steps, with_probe)
        return self._looked(step, last, with_probe)

    def _looked(self, step: int, last: bool = False, with_probe: bool = True) -> HeldOut:
        """Evaluates the student with the current projections."""
        held_out, size = self.data.held_out, self.proxy.batch_size
        meter, terms = self.objective.meter(), self.objective.all_terms(with_probe)
        losses = evaluate(self.forward, terms, held_out, range(len(held_out)), size, meter)
        error = None if meter is None else measured(meter, with_resampled=last)
        if error is not None:
            losses[YARDSTICK] = {(self.forward.layers, len(held_out.variance) - 1): error.value}
        if not all(math.isfinite(value) for places in losses.values() for value in places.values()):
            raise Diverged(f"a held-out loss was not a number at step {step}; a lower learning rate may help")
        languages = self._languages() if last else {}
        return HeldOut(step, losses, () if error is None else error.resampled, languages)

    def _languages(self) -> dict[str, float]:
        """The loss by language; empty for one language, without those that have too few texts."""
        held_out, size, losses = self.data.held_out, self.proxy.batch_size, {}
        if len(names := sorted(set(self.data.languages))) < 2:
            return {}
        for name in names:
            texts = [index for index, language in enumerate(self.data.languages) if language == name]
            meter = self.objective.meter()
            needed = self.objective.all_terms() if meter is None else []
            terms = evaluate(self.forward, needed, held_out, texts, size, meter)
            if meter is not None:
                terms = {YARDSTICK: {(0, 0): measured(meter, with_resampled=False).value}}
            losses[name] = HeldOut(0, terms).loss
        return {name: loss for name, loss in losses.items() if math.isfinite(loss)}


def _endless(learnt: Texts, batch_size: int, seed: int) -> Iterator[tuple[Texts, list[int]]]:
    """Yields the batches of all passes, each with the texts of its pass."""
    for number, batches in enumerate(passes(learnt.lengths, batch_size, seed)):
        texts = learnt.in_pass(number)
        yield from ((texts, batch) for batch in batches)


def _fitting(targets: Targets) -> list[list[int]]:
    """Batches of texts for least squares, with enough tokens for any student.

    They are the same for all students of a run: otherwise wide students would be fitted on more text.
    """
    order = random.Random(0).sample(range(len(targets)), len(targets))
    tokens = np.cumsum(targets.lengths[order])
    enough = int(np.searchsorted(tokens, FIT_TOKENS * targets.width)) + 1
    return by_length(targets.lengths, FIT_BATCH, order[:enough])


_LAYER = re.compile(r"(?:^|\.)layer\.(\d+)\.")


def _by_layer(student: PreTrainedModel) -> list[Group]:
    """A student's parameters by layer, counted from 1; 0 for those outside the layers."""
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        match = _LAYER.search(name)
        groups.setdefault(int(match[1]) + 1 if match else 0, []).append(parameter)
    return [Group(parameters, layer) for layer, parameters in groups.items()]
