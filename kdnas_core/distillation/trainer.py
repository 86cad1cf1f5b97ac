"""Distillation: one student learns from the teacher's outputs, by the training loop of `loop.py`.

Without dropout: the student fits outputs that the teacher gave without it.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from kdnas_core.data.tokens import by_length, passes
from kdnas_core.distillation.loop import Diverged, Group, Loop, Saved
from kdnas_core.distillation.objective import HIDDEN, PROBE, YARDSTICK, Objective, Places
from kdnas_core.distillation.terms import PairTerm, Pass
from kdnas_core.distillation.yardstick import Meter, measured
from kdnas_core.models.capture import Captured, capture
from kdnas_core.models.mapping import mean_over_layers
from kdnas_core.models.targets import Batch, Targets, Texts, make_batch
from kdnas_core.models.teacher_outputs import OnlineTargets
from kdnas_core.models.vocabulary import Vocabulary, only_used_words
from kdnas_core.spec import ProxySpec

EVALUATIONS = 6  # of the held-out loss after the one before the first step
FIT_TOKENS = 20  # for each of the teacher's dimensions: what projections are fitted from
FIT_BATCH = 32  # texts, whatever the batch size is


@dataclass(frozen=True)
class HeldOut:
    """Held-out values after some steps.

    Attributes:
        step: steps taken.
        terms: by the name of the term, the value at each place (student layer, teacher layer); the yardstick
            among them, where it is no mean of others.
        standard_error: of the yardstick over texts; only at the end.
        languages: the loss on the texts of each language; only at the end, and where there are several.
    """

    step: int
    terms: dict[str, Places]
    standard_error: float | None = None
    languages: dict[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """L of the reward: the yardstick, or that of the first versions, the mean over layers."""
        name = next(name for name in (YARDSTICK, PROBE, HIDDEN) if name in self.terms)
        return mean_over_layers(self.terms[name])


@dataclass(frozen=True)
class Watcher:
    """What to tell while a student learns; `step` may raise to end it early."""

    step: Callable[[int], None]
    held_out: Callable[[HeldOut], None]


@dataclass(frozen=True)
class ProxySet:
    """What a student learns from and is judged by.

    Attributes:
        train: teacher outputs to learn; of a full corpus those of a sample of it.
        held_out: teacher outputs to judge by.
        vocabulary: the words in use, in whose numbers all are.
        languages: of each held-out text.
        full: the texts of a full corpus, to learn from in the place of `train`.
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
        """All in the numbers of the words that they use, of the vocabulary of a teacher with this config."""
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
    def learnt(self) -> Texts:
        """The texts to learn from."""
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
    """Trains a student and what its objective learns with it, in place; returns the last held-out values.

    The same arguments give the same student on one machine, also where training was ended and went on.

    Args:
        student: with its starting weights.
        objective: for it; its projections are fitted by least squares before the first step.
        data: to learn from and to judge by.
        proxy: steps, batch size, learning rate, and passes whose gradients make one step's.
        seed: of the order of the batches.
        autocast: dtype of the forward pass, None for float32.
        watcher: told of each step and each evaluation.
        saved: a file that keeps how far training is; where it exists, training goes on from it.
        looks: evaluations after the one before the first step.

    Raises:
        Diverged: the loss is not finite.
        BadInput: the saved file is of a training with other settings.
    """
    with only_used_words(student, data.vocabulary), _forward(student, objective, autocast) as forward:
        return _Training(forward, objective, data, proxy, seed, watcher, saved).run(looks)


def judged_by(
    student: PreTrainedModel, objective: Objective, data: ProxySet, autocast: torch.dtype | None
) -> HeldOut:
    """Held-out values of a student as it is: projections are fitted to it, and nothing is trained."""
    watcher = Watcher(step=lambda step: None, held_out=lambda result: None)
    with only_used_words(student, data.vocabulary), _forward(student, objective, autocast) as forward:
        return _Training(forward, objective, data, ProxySpec(), 0, watcher, None).fitted()


class _Training:
    """The state of one training: what the loop and its evaluations share."""

    def __init__(
        self,
        forward: _Forward,
        objective: Objective,
        data: ProxySet,
        proxy: ProxySpec,
        seed: int,
        watcher: Watcher,
        saved: Path | None,
    ) -> None:
        self.forward, self.objective, self.data, self.proxy = forward, objective, data, proxy
        self.watcher = watcher
        self.batches = _endless(data.learnt, proxy.batch_size, seed)
        pad = forward.pad
        self.fitting = [make_batch(data.train, texts, pad) for texts in _fitting(data.train)]
        objective.weigh_alike(self.fitting, proxy.batch_size)
        terms = [spec.model_dump() for _, spec in objective.terms]
        name = json.dumps([proxy.model_dump(), seed, terms])  # what its checkpoints are told by
        modules = {"student": forward.student, "objective": objective}
        groups = [*_by_layer(forward.student), Group(list(objective.parameters()), decays=False)]
        kept = Saved(saved, name, modules) if saved else None
        self.loop = Loop(groups, proxy.steps, proxy.learning_rate, kept)

    def run(self, evaluations: int) -> HeldOut:
        """The loop."""
        steps = self.proxy.steps
        looks = {steps * k // evaluations for k in range(1, evaluations + 1)}
        for step in range(self._begin() + 1, steps + 1):
            self._begin_step(step)
            done = (step - 1) / steps
            self.loop.take(step, lambda: self._gradients(done), self.objective.rates(done))  # noqa: B023
            if step in looks and step < steps:
                self.watcher.held_out(self.evaluated(step))
            self.loop.keep(step)
            self._tell(step)
        last = self.evaluated(steps, last=True)
        self.watcher.held_out(last)
        return last

    def _tell(self, step: int) -> None:
        """Tells the watcher; where it ends the training, what was learnt so far is kept."""
        try:
            self.watcher.step(step)
        except Exception:
            self.loop.keep(step, now=True)
            raise

    def _begin(self) -> int:
        """Fits the projections, or reads how far an earlier training was; returns the steps taken."""
        if step := self.loop.steps_saved():
            for _ in range(step * self.proxy.accumulation):
                next(self.batches)
            return step
        self.watcher.held_out(self.fitted())
        return 0

    @torch.no_grad()
    def fitted(self) -> HeldOut:
        """Fits the projections to the student as it is, and evaluates it."""
        self.objective.fit(self._passes())
        return self._looked(0)

    def _gradients(self, done: float) -> float:
        """Adds up the gradients of one step; returns its loss."""
        accumulated, total = self.proxy.accumulation, 0.0
        for texts, chosen in islice(self.batches, accumulated):
            batch = make_batch(texts, chosen, self.forward.pad)
            loss = self.objective.loss(self.forward(batch), batch, done) / accumulated
            loss.backward()
            total += loss.item()
        return total

    def _begin_step(self, step: int) -> None:
        """Before the second stage's first step, fits its projections."""
        steps = self.proxy.steps
        if step > 1 and self.objective.begins_second_stage((step - 1) / steps, before=(step - 2) / steps):
            self.objective.fit_second_stage(self._passes())

    @torch.no_grad()
    def _passes(self) -> Iterator[tuple[Pass, Batch]]:
        """The texts that projections are fitted from, with the student's outputs as it is now."""
        for batch in self.fitting:
            yield self.forward(batch), batch

    @torch.no_grad()
    def evaluated(self, step: int, last: bool = False) -> HeldOut:
        """Held-out values as the student is now."""
        self.objective.fit_idle(self._passes(), done=step / self.proxy.steps)
        return self._looked(step, last)

    def _looked(self, step: int, last: bool = False) -> HeldOut:
        """Held-out values with the projections as they are."""
        held_out, size = self.data.held_out, self.proxy.batch_size
        meter = self.objective.meter()
        terms = evaluate(self.forward, self.objective, held_out, range(len(held_out)), size, meter)
        error = None if meter is None else measured(meter, with_standard_error=last)
        if error is not None:
            terms[YARDSTICK] = {(self.forward.layers, len(held_out.variance) - 1): error.value}
        if not all(math.isfinite(value) for places in terms.values() for value in places.values()):
            raise Diverged(f"a held-out loss was not a number at step {step}; a lower learning rate may help")
        languages = self._languages() if last else {}
        return HeldOut(step, terms, None if error is None else error.standard_error, languages)

    def _languages(self) -> dict[str, float]:
        """The loss on each language; none where there is one, or too few texts to tell."""
        held_out, size, found = self.data.held_out, self.proxy.batch_size, {}
        if len(names := sorted(set(self.data.languages))) < 2:
            return {}
        for name in names:
            texts = [index for index, language in enumerate(self.data.languages) if language == name]
            meter = self.objective.meter()
            terms = evaluate(self.forward, self.objective, held_out, texts, size, meter)
            if meter is not None:
                terms = {YARDSTICK: {(0, 0): measured(meter, with_standard_error=False).value}}
            found[name] = HeldOut(0, terms).loss
        return {name: loss for name, loss in found.items() if math.isfinite(loss)}


@torch.no_grad()
def evaluate(
    forward: _Forward,
    objective: Objective,
    held_out: Targets,
    texts: Sequence[int],
    batch_size: int,
    meter: Meter | None = None,
) -> dict[str, Places]:
    """The values of all terms on some held-out texts, each a mean over all that the term counts."""
    terms = objective.all_terms()
    totals, counts = [torch.zeros(len(term.places)) for term in terms], [0] * len(terms)
    for some in by_length(held_out.lengths, batch_size, texts):
        batch = make_batch(held_out, some, forward.pad)
        given = forward(batch)
        if meter is not None:
            meter.read(given, batch)
        for index, term in enumerate(terms):
            count = term.count(batch)
            totals[index] += term(given, batch) * count
            counts[index] += count
    return {
        term.name: _by_place(term.places, (total / max(1, count)).tolist())
        for term, total, count in zip(terms, totals, counts, strict=True)
    }


def _by_place(places: Sequence[tuple[int, int]], values: Sequence[float]) -> Places:
    """The values by place; their mean where a layer learns one teacher layer in two roles."""
    found: dict[tuple[int, int], list[float]] = {}
    for place, value in zip(places, values, strict=True):
        found.setdefault(place, []).append(value)
    return {place: sum(those) / len(those) for place, those in found.items()}


class _Forward:
    """A student's forward pass under autocast."""

    def __init__(self, student: PreTrainedModel, captured: Captured, autocast: torch.dtype | None) -> None:
        self.student = student.eval()
        self.captured = captured
        self.autocast = autocast
        self.pad = student.config.pad_token_id or 0
        self.layers = int(student.config.num_hidden_layers)

    def __call__(self, batch: Batch) -> Pass:
        with torch.autocast("cpu", self.autocast, enabled=self.autocast is not None):
            output = self.student(
                input_ids=batch.ids, attention_mask=batch.mask, output_hidden_states=True, **pair(batch)
            )
        return Pass(output.hidden_states, self.captured, self.student.get_input_embeddings().weight)


def pair(batch: Batch) -> dict[str, torch.Tensor]:
    """What a model is told of pairs of sentences, as an argument; of none where no text is a pair."""
    return {} if batch.types is None else {"token_type_ids": batch.types}


@contextlib.contextmanager
def _forward(
    student: PreTrainedModel, objective: Objective, autocast: torch.dtype | None
) -> Iterator[_Forward]:
    """With queries, keys and values captured only where a term reads them."""
    reads = any(isinstance(term, PairTerm) for term in objective.all_terms())
    with capture(student) if reads else contextlib.nullcontext(Captured()) as captured:
        yield _Forward(student, captured, autocast)


def _endless(learnt: Texts, batch_size: int, seed: int) -> Iterator[tuple[Texts, list[int]]]:
    """The texts as they are in each pass over them, with those of one batch after another."""
    for number, batches in enumerate(passes(learnt.lengths, batch_size, seed)):
        texts = learnt.in_pass(number)
        yield from ((texts, batch) for batch in batches)


def _fitting(targets: Targets) -> list[list[int]]:
    """Batches of texts for least squares: enough tokens for every student, and the same for all of a run.

    Not as many as the student needs: then wide students would be judged on more text than narrow ones.
    """
    order = random.Random(0).sample(range(len(targets)), len(targets))
    tokens = np.cumsum(targets.lengths[order])
    enough = int(np.searchsorted(tokens, FIT_TOKENS * targets.width)) + 1
    return by_length(targets.lengths, FIT_BATCH, order[:enough])


_LAYER = re.compile(r"(?:^|\.)layer\.(\d+)\.")


def _by_layer(student: PreTrainedModel) -> list[Group]:
    """A student's parameters by layer, counted from 1; 0 is all that is in no layer."""
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        found = _LAYER.search(name)
        groups.setdefault(int(found[1]) + 1 if found else 0, []).append(parameter)
    return [Group(parameters, layer) for layer, parameters in groups.items()]
