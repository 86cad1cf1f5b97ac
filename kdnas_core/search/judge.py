"""Judging one candidate: latency, then the veto, then mini-KD, its losses and the reward."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.mapping import layer_map
from kdnas_core.distillation.objective import HiddenStateObjective
from kdnas_core.distillation.student import new_student, start_student
from kdnas_core.distillation.targets import Targets
from kdnas_core.distillation.trainer import HeldOut, Watcher, distil
from kdnas_core.measure.bench import LatencyBench
from kdnas_core.measure.cost import parameters
from kdnas_core.measure.device import device
from kdnas_core.measure.reading import LatencyReading
from kdnas_core.search.reward import kdnas_reward, within_budget
from kdnas_core.spec import RunSpec


@dataclass(frozen=True)
class Measured:
    """What is known of a candidate before any training."""

    parameters: int
    flops: int
    latency: LatencyReading


@dataclass(frozen=True)
class Judgement:
    """The outcome for one candidate: no loss and no reward where it is over budget."""

    state: Literal["over_budget", "done"]
    loss: float | None
    reward: float | None


@dataclass(frozen=True)
class Listener:
    """Told how a judgement goes on; any may raise to end it early.

    Attributes:
        waiting: another process of ours has the device.
        measured: the candidate's costs, before the veto.
        step: steps of mini-KD taken.
        held_out: held-out losses by (layer, teacher layer), layers counted from 1.
    """

    waiting: Callable[[], None]
    measured: Callable[[Measured], None]
    step: Callable[[int], None]
    held_out: Callable[[int, dict[tuple[int, int], float]], None]


@dataclass(frozen=True)
class Judge:
    """All that the candidates of one search share."""

    spec: RunSpec
    bench: LatencyBench
    teacher_ms: float
    train: Targets
    held_out: Targets
    autocast: torch.dtype | None

    def judge(self, architecture: Architecture, folder: Path, listener: Listener) -> Judgement:
        """Judges one candidate; the same candidate gives the same losses on one machine.

        Args:
            architecture: of the candidate.
            folder: its config is written there at once, its weights and tokenizer after mini-KD.
            listener: told how it goes on.

        Raises:
            Diverged: mini-KD did.
        """
        student = new_student(self.bench.teacher, architecture, self.spec.seed)
        student.config.save_pretrained(folder)
        latency = self.bench.student_latency(architecture, student, listener.waiting)
        flops = architecture.flops(self.spec.latency.sequence_length)
        listener.measured(Measured(parameters(student), flops, latency))
        if not within_budget(latency, self.spec.latency, self.teacher_ms):
            return Judgement("over_budget", None, None)
        with device(listener.waiting):
            loss = self._mini_kd(architecture, folder, listener)
        return Judgement("done", loss, kdnas_reward(loss, latency, self.spec.search.reward))

    def _mini_kd(self, architecture: Architecture, folder: Path, listener: Listener) -> float:
        spec, teacher = self.spec, self.bench.teacher
        student = start_student(teacher, architecture, spec.objective.start, self.train, spec.seed)
        layers = layer_map(spec.objective.mapping or "uniform+last", architecture.layers, teacher.layers)
        with torch.random.fork_rng():
            torch.manual_seed(spec.seed)
            objective = HiddenStateObjective(
                layers, architecture.hidden_size, teacher.architecture.hidden_size, spec.objective.projection
            )

        def report(result: HeldOut) -> None:
            listener.held_out(result.step, by_layers(layers, result.losses))

        watcher = Watcher(step=listener.step, held_out=report)
        result = distil(
            student, objective, self.train, self.held_out, spec.proxy, spec.seed, self.autocast, watcher
        )
        save(student, self.bench, folder)
        return result.loss


def by_layers(layers: list[tuple[int, ...]], losses: list[list[float]]) -> dict[tuple[int, int], float]:
    """Losses by (student layer, teacher layer), counted from 1; one entry where two roles coincide."""
    return {
        (i, teacher_layer): loss
        for i, (teacher_layers, row) in enumerate(zip(layers, losses, strict=True), start=1)
        for teacher_layer, loss in zip(teacher_layers, row, strict=True)
    }


def save(student: PreTrainedModel, bench: LatencyBench, folder: Path) -> None:
    """Writes a student and its tokenizer as a folder that stock `transformers` loads."""
    student.save_pretrained(folder)
    bench.teacher.tokenizer.save_pretrained(folder)
    for path in folder.iterdir():  # on the disk before the store says that they are
        with path.open("rb") as file:
            os.fsync(file.fileno())
