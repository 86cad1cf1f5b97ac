"""Judges a candidate: latency or its estimate, the veto, mini-KD with its losses, and the reward."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
import transformers

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.distillation.beginning import begin
from kdnas_core.distillation.objective import Places
from kdnas_core.distillation.plan import TeacherProfile
from kdnas_core.distillation.trainer import HeldOut, ProxySet, Watcher, distil
from kdnas_core.evaluation.proxy_task import ProxyTask, proxy_score
from kdnas_core.files import sync_files
from kdnas_core.hardware import device_name, exclusive
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.latency.model import FAR_OVER, model_here
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.models.importance import Importance
from kdnas_core.models.mlm_head import TeacherHead
from kdnas_core.models.student import new_student, parameters, read_student, save, student_config
from kdnas_core.search.remembered import MiniKD, recall, remember
from kdnas_core.search.reward import budget_ms, kdnas_reward, within_budget
from kdnas_core.spec import METHOD, RunSpec

REMEMBERED = "No step was taken: its mini-KD had been done before, in the same way, and its result was kept."


@dataclass(frozen=True)
class Measured:
    """The costs of a candidate, known before training."""

    parameters: int
    flops: int
    latency: LatencyReading


@dataclass(frozen=True)
class Judgement:
    """The outcome of one candidate; loss and reward are None if it is over budget.

    Attributes:
        state: "done" or "over_budget".
        loss: L of the reward.
        reward: of the loss and the latency.
        languages: the held-out loss by language, if there are several.
        scores: on the proxies of the run's tasks, by name.
        estimated_ms: its estimated latency, if that was so far over the budget that it was not measured.
        loss_se: standard error of the loss over held-out texts; None if the loss is the mean over layers.
        cut_from: the sources of its layers; empty for random weights.
    """

    state: Literal["over_budget", "done"]
    loss: float | None
    reward: float | None
    languages: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    estimated_ms: float | None = None
    loss_se: float | None = None
    cut_from: tuple[LayerSource, ...] = ()


@dataclass(frozen=True)
class Listener:
    """Callbacks of a judgement; any may raise to end it early.

    Attributes:
        waiting: called while another process holds the device.
        measured: called with the candidate's costs, before the veto.
        noted: called with a sentence for each loss term that is left out, and for a remembered result.
        step: called with the steps of mini-KD taken; not called if its result is remembered.
        held_out: called with the steps taken and the held-out losses by term and (layer, teacher layer).
    """

    waiting: Callable[[], None]
    measured: Callable[[Measured], None]
    noted: Callable[[Sequence[str]], None]
    step: Callable[[int], None]
    held_out: Callable[[int, dict[str, Places]], None]


@dataclass(frozen=True)
class Judge:
    """Judges the candidates of one search.

    Attributes:
        spec: of the search.
        bench: measures latency.
        teacher_ms: the teacher's latency when the search began.
        profile: of the teacher.
        data: the proxy set.
        words: the teacher's masked-LM head, if the recipe needs one.
        autocast: dtype of the students' forward pass, None for float32.
        importance: of the teacher's heads and neurons, if students are cut out of it.
        tasks: the proxies that each candidate is fine-tuned on.
    """

    spec: RunSpec
    bench: LatencyBench
    teacher_ms: float
    profile: TeacherProfile
    data: ProxySet
    words: TeacherHead | None
    autocast: torch.dtype | None
    importance: Importance | None = None
    tasks: Sequence[ProxyTask] = ()

    def judge(self, architecture: Architecture, folder: Path, listener: Listener) -> Judgement:
        """Judges one candidate; its losses are reproducible on one machine.

        Args:
            architecture: of the candidate.
            folder: its config is written there first, its weights and tokenizer after mini-KD.
            listener: callbacks; not called for a candidate whose estimate is far over the budget.

        Raises:
            Diverged: mini-KD diverged.
        """
        estimate = self._far_over_budget(architecture)
        if estimate is not None:
            student_config(self.bench.teacher.model.config, architecture).save_pretrained(folder)
            return Judgement("over_budget", None, None, estimated_ms=estimate)
        student = new_student(self.bench.teacher, architecture, self.spec.seed)
        student.config.save_pretrained(folder)
        latency = self.bench.student_latency(architecture, student, listener.waiting)
        flops = architecture.flops(self.spec.latency.sequence_length)
        listener.measured(Measured(parameters(student), flops, latency))
        if not within_budget(latency, self.spec.latency, self.teacher_ms):
            return Judgement("over_budget", None, None)
        with exclusive(listener.waiting):
            mini_kd = self._mini_kd(architecture, folder, listener)
            scores = self._scores(folder, listener)
        result = mini_kd.result
        constants = self.spec.search.reward
        # the published reward, or that of KD-NAS's first version with accuracy instead of 1 - L
        loss = 1 - fmean(scores.values()) if constants.mode == "accuracy" else result.loss
        reward = kdnas_reward(loss, latency, constants)
        return Judgement(
            "done",
            result.loss,
            reward,
            result.languages,
            scores,
            loss_se=result.standard_error,
            cut_from=mini_kd.sources,
        )

    def _far_over_budget(self, architecture: Architecture) -> float | None:
        """The estimated milliseconds if they are far over the budget; else None, and it is measured.

        Presets are always measured: they are few and unlike the shapes that the model was fitted on. A cached
        latency needs no estimate.
        """
        spec = self.spec
        if spec.space.presets or self.bench.remembered(architecture) is not None:
            return None
        model = model_here(spec.latency)
        if model is None or not model.may_skip:
            return None
        at = spec.latency.batch_size, spec.latency.sequence_length
        estimate = model.estimate(architecture, *at)
        # relative to the teacher: the other reading of a speed-up, and a check of the model at this point
        beside_teacher = estimate * self.teacher_ms / model.estimate(self.bench.teacher.architecture, *at)
        far_over = FAR_OVER * budget_ms(spec.latency, self.teacher_ms)
        return estimate if min(estimate, beside_teacher) > far_over else None

    def _scores(self, student: Path, listener: Listener) -> dict[str, float]:
        """The scores on the proxies of the tasks; `listener.waiting` may end this too."""
        if not self.tasks:
            return {}
        model = read_student(student)

        def progress(step: int, steps: int) -> None:
            listener.waiting()

        return {
            task.name: proxy_score(model, task, self.spec.seed, self.autocast, progress)
            for task in self.tasks
        }

    def _mini_kd(self, architecture: Architecture, folder: Path, listener: Listener) -> MiniKD:
        """Trains the student and saves it to the folder, unless this machine remembers the result."""
        if not self.spec.search.remember:
            return self._trained(architecture, folder, listener)
        question = self._question(architecture)
        known = recall(question, folder)
        if known is not None:
            # it may differ where that changes no loss
            self.bench.teacher.tokenizer.save_pretrained(folder)
            sync_files(folder)  # before the store refers to them
            listener.noted([*known.notes, REMEMBERED])
            for look in known.looks:
                listener.held_out(look.step, look.terms)
            return known
        mini_kd = self._trained(architecture, folder, listener)
        remember(question, mini_kd, folder)
        return mini_kd

    def _trained(self, architecture: Architecture, folder: Path, listener: Listener) -> MiniKD:
        spec, teacher = self.spec, self.bench.teacher
        objective, seed = spec.objective, spec.seed
        begun = begin(
            teacher, architecture, objective, self.profile, self.data, self.words, seed, self.importance
        )
        listener.noted(begun.notes)
        looks: list[HeldOut] = []

        def look(result: HeldOut) -> None:
            looks.append(result)
            listener.held_out(result.step, result.terms)

        watcher = Watcher(step=listener.step, held_out=look)
        result = distil(begun.student, begun.objective, self.data, spec.proxy, seed, self.autocast, watcher)
        save(begun.student, teacher.tokenizer, folder)
        return MiniKD(result, tuple(looks), tuple(begun.notes), tuple(begun.sources))

    def _question(self, architecture: Architecture) -> dict[str, Any]:
        """All that the result of a mini-KD depends on; rounding differs by machine, versions and threads."""
        spec = self.spec
        return {
            "method": METHOD,
            "versions": [torch.__version__, transformers.__version__],
            "device": device_name(),
            "threads": torch.get_num_threads(),
            "autocast": str(self.autocast),
            "teacher": self.bench.teacher.fingerprint,
            "profile": asdict(self.profile),
            **self._fingerprints,
            "objective": spec.objective.model_dump(mode="json"),
            "proxy": spec.proxy.model_dump(mode="json"),
            "seed": spec.seed,
            "student": asdict(architecture),
        }

    @cached_property
    def _fingerprints(self) -> dict[str, str | None]:
        """Of what all candidates share, and takes time to hash."""
        words, importance = self.words, self.importance
        return {
            "words": None if words is None else _digest([words.table, *words.head.parameters()]),
            "importance": None if importance is None else _digest(vars(importance).values()),
            "data": self.data.fingerprint,
        }


def _digest(tensors: Iterable[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().numpy().tobytes())
    return digest.hexdigest()
