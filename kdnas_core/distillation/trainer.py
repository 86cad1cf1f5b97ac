"""The training loop: one student learns from the teacher's outputs. The only one in the project.

Without dropout: the student fits outputs that the teacher gave without it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from kdnas_core.distillation.objective import HiddenStateObjective
from kdnas_core.distillation.targets import Batch, Targets, make_batch
from kdnas_core.spec import ProxySpec

EVALUATIONS = 6  # of the held-out loss after the one before the first step
FIT_BATCHES = 8  # from which the projections are fitted before the first step
WARMUP = 0.1  # share of the steps
MAX_GRADIENT_NORM = 1.0


class Diverged(RuntimeError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out losses after some steps.

    Attributes:
        step: steps taken.
        losses: [layer][k], of the k-th teacher layer that the layer learns.
    """

    step: int
    losses: list[list[float]]

    @property
    def loss(self) -> float:
        """Mean over layers of the mean over their teacher layers: the L of the reward."""
        return float(np.mean(self.losses))


@dataclass(frozen=True)
class Watcher:
    """What to tell while a student learns; `step` may raise to end it early."""

    step: Callable[[int], None]
    held_out: Callable[[HeldOut], None]


def distil(
    student: PreTrainedModel,
    objective: HiddenStateObjective,
    train: Targets,
    held_out: Targets,
    proxy: ProxySpec,
    seed: int,
    autocast: torch.dtype | None,
    watcher: Watcher,
) -> HeldOut:
    """Trains a student and its projections, in place, and returns the last held-out losses.

    The same arguments give the same student on one machine.

    Args:
        student: with its starting weights.
        objective: with projections for it; fitted by least squares before the first step.
        train: teacher outputs to learn.
        held_out: teacher outputs to judge by.
        proxy: steps, batch size and learning rate.
        seed: of the order of the batches.
        autocast: dtype of the forward pass, None for float32.
        watcher: told of each step and each evaluation.

    Raises:
        Diverged: the loss is not finite.
    """
    model = _Forward(student, autocast)
    batches = _endless_batches(train, proxy.batch_size, seed)
    with torch.inference_mode():
        fitted = [make_batch(train, next(batches), model.pad) for _ in range(FIT_BATCHES)]
        objective.fit((model(batch), batch) for batch in fitted)
    parameters = [*student.parameters(), *objective.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=proxy.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _share_of_rate(step, proxy.steps))
    evaluated_at = {proxy.steps * k // EVALUATIONS for k in range(1, EVALUATIONS + 1)}

    result = evaluate(model, objective, held_out, proxy.batch_size, step=0)
    watcher.held_out(result)
    for step in range(1, proxy.steps + 1):
        batch = make_batch(train, next(batches), model.pad)
        loss = objective(model(batch), batch, train).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if not math.isfinite(loss.item()):
            raise Diverged(f"the loss was {loss.item()} at step {step}; a lower learning rate may help")
        watcher.step(step)
        if step in evaluated_at:
            result = evaluate(model, objective, held_out, proxy.batch_size, step)
            watcher.held_out(result)
    return result


@torch.inference_mode()
def evaluate(
    model: _Forward, objective: HiddenStateObjective, held_out: Targets, batch_size: int, step: int
) -> HeldOut:
    """The losses on all held-out tokens, each token counting alike."""
    total, tokens = torch.zeros(()), 0
    for texts in _by_length(held_out, batch_size):
        batch = make_batch(held_out, texts, model.pad)
        total = total + objective(model(batch), batch, held_out) * len(batch.hidden)
        tokens += len(batch.hidden)
    losses: list[list[float]] = (total / tokens).tolist()
    result = HeldOut(step, losses)
    if not math.isfinite(result.loss):
        raise Diverged(f"the held-out loss was {result.loss} at step {step}; a lower learning rate may help")
    return result


class _Forward:
    """A student's forward pass under autocast, giving the outputs of layers 1..M."""

    def __init__(self, student: PreTrainedModel, autocast: torch.dtype | None) -> None:
        self.student = student.eval()
        self.autocast = autocast
        self.pad = student.config.pad_token_id or 0

    def __call__(self, batch: Batch) -> Sequence[torch.Tensor]:
        with torch.autocast("cpu", self.autocast, enabled=self.autocast is not None):
            output = self.student(input_ids=batch.ids, attention_mask=batch.mask, output_hidden_states=True)
        states: Sequence[torch.Tensor] = output.hidden_states[1:]
        return states


def _share_of_rate(step: int, steps: int) -> float:
    """Linear warm-up, then linear decay towards 0."""
    warmup = max(1, round(WARMUP * steps))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def _by_length(targets: Targets, batch_size: int) -> list[list[int]]:
    """Batches of texts of like length, so that little of a batch is padding."""
    order = np.argsort(targets.lengths, kind="stable")
    return [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]


def _endless_batches(targets: Targets, batch_size: int, seed: int) -> Iterator[list[int]]:
    rng = random.Random(seed)
    batches = _by_length(targets, batch_size)
    while True:
        yield from rng.sample(batches, len(batches))
