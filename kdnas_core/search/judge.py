"""Judges a candidate: latency or its estimate, the veto, mini-KD by rungs with its losses, and the reward."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import transformers

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.beginning import begin
from kdnas_core.distillation.layers import LayerSample
from kdnas_core.distillation.plan import TeacherProfile
from kdnas_core.distillation.trainer import ProxySet, Watcher, distil
from kdnas_core.evaluation.proxy_task import ProxyTask, proxy_score
from kdnas_core.files import sync_files
from kdnas_core.hardware import Turn, compute_name, in_slot
from kdnas_core.latency.bench import LatencyBench
from kdnas_core.models.heads import Weights
from kdnas_core.models.importance import Importance
from kdnas_core.models.mlm_head import TeacherHead
from kdnas_core.models.student import new_student, read_student, save, student_config
from kdnas_core.search.candidate import (
    Beaten,
    CandidateUnderJudgement,
    Judgement,
    KnownPeers,
    Listener,
    OverBudget,
    estimate,
)
from kdnas_core.search.loop import REMEMBERED
from kdnas_core.search.remembered import FORMAT, MiniKD, recall, remember
from kdnas_core.search.reward import budget_ms, kdnas_reward
from kdnas_core.spec import METHOD, RunSpec

log = logging.getLogger(__name__)


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
        slots: that the device is divided into; this judge computes in one of them.
        importance: of the teacher's heads and neurons, if students are cut out of it.
        shared: the weights of the supernet, if students are cut out of one.
        tasks: the proxies that each candidate is fine-tuned on.
        layers: what their layers are compared with; None to leave that out.
    """

    spec: RunSpec
    bench: LatencyBench
    teacher_ms: float
    profile: TeacherProfile
    data: ProxySet
    words: TeacherHead | None
    autocast: torch.dtype | None
    slots: int = 1
    importance: Importance | None = None
    shared: Weights | None = None
    tasks: Sequence[ProxyTask] = ()
    layers: LayerSample | None = None

    def judge(
        self,
        architecture: Architecture,
        folder: Path,
        listener: Listener,
        peers: KnownPeers = lambda: [],
    ) -> Judgement:
        """Judges one candidate; its losses are reproducible on one machine.

        Args:
            architecture: of the candidate.
            folder: its config is written there first, its weights and tokenizer after mini-KD.
            listener: callbacks; not called for a candidate whose estimate is far over the budget.
            peers: returns the candidates judged before, by which this one may be pruned.

        Raises:
            Diverged: mini-KD diverged.
        """
        with in_slot(self.slots, listener.waiting) as turn:
            return self._judged(architecture, folder, listener, peers, turn)

    def _judged(
        self,
        architecture: Architecture,
        folder: Path,
        listener: Listener,
        peers: KnownPeers,
        turn: Turn,
    ) -> Judgement:
        expected = estimate(architecture, self.spec, self.bench, self.teacher_ms)
        budget = budget_ms(self.spec.latency, self.teacher_ms)
        if expected is not None and expected.is_far_over(budget):
            student_config(self.bench.teacher.model.config, architecture).save_pretrained(folder)
            return Judgement("over_budget", None, None, estimated_ms=expected.ms)
        student = new_student(self.bench.teacher, architecture, self.spec.seed)
        student.config.save_pretrained(folder)
        # the latency of one that is well within is measured at its first rung, if it gets there
        waits = self.spec.prunes and expected is not None and expected.is_well_within(budget)
        try:
            candidate = CandidateUnderJudgement(
                architecture,
                student,
                self.spec,
                self.bench,
                self.teacher_ms,
                listener,
                peers,
                expected if waits else None,
                turn,
            )
            mini_kd = self._settled(architecture, folder, candidate)
            latency = candidate.measure()
            scores = self._scores(folder, candidate)
        except OverBudget as vetoed:
            return Judgement("over_budget", None, None, rung=vetoed.rung)
        except Beaten as stopped:
            return candidate.pruned(stopped)
        result, constants = mini_kd.result, self.spec.search.reward
        # the published reward, or that of KD-NAS's first version with accuracy instead of 1 - L
        loss = 1 - fmean(scores.values()) if constants.mode == "accuracy" else result.loss
        return Judgement(
            "done",
            result.loss,
            kdnas_reward(loss, latency.p50, latency.teacher_p50, constants),
            result.languages,
            scores,
            loss_se=result.standard_error,
            resampled=result.resampled,
            cut_from=mini_kd.sources,
        )

    def similarity(
        self, architecture: Architecture, folder: Path, waiting: Callable[[], None]
    ) -> list[list[float]]:
        """Returns the CKA of each layer 0..M of a student with each of its teacher's; empty without layers.

        Args:
            architecture: of the student.
            folder: of its weights.
            waiting: called while another process holds the device; may raise to end it early.
        """
        if self.layers is None or architecture.is_static:
            return []
        with in_slot(self.slots, waiting):
            found = self.layers.similarity(read_student(folder))
        return [[round(value, 4) for value in row] for row in found.tolist()]

    def _settled(
        self, architecture: Architecture, folder: Path, candidate: CandidateUnderJudgement
    ) -> MiniKD:
        """The mini-KD, with all rungs decided; an error after an open rung counts only if it was passed."""
        try:
            mini_kd = self._mini_kd(architecture, folder, candidate)
        except (RuntimeError, ValueError, MemoryError):
            candidate.settle()
            raise
        candidate.settle()
        return mini_kd

    def _scores(self, student: Path, candidate: CandidateUnderJudgement) -> dict[str, float]:
        """The scores on the proxies of the tasks; `listener.waiting` may end this too."""
        if not self.tasks:
            return {}
        model = read_student(student)

        def progress(step: int, steps: int) -> None:
            candidate.listener.waiting()
            candidate.turn.let_others()

        return {
            task.name: proxy_score(model, task, self.spec.seed, self.autocast, progress)
            for task in self.tasks
        }

    def _mini_kd(
        self, architecture: Architecture, folder: Path, candidate: CandidateUnderJudgement
    ) -> MiniKD:
        """Trains the student and saves it to the folder, unless this machine remembers the result."""
        if not self.spec.search.remember:
            return self._trained(architecture, folder, candidate)
        question = self._question(architecture)
        known = recall(question)
        if known is not None:
            mini_kd = known.mini_kd
            candidate.begins([*mini_kd.notes, REMEMBERED], mini_kd.sources)
            for look in mini_kd.looks:
                candidate.look(look)
            if known.is_whole and self._copied(known.copy_student, folder):
                return mini_kd
        try:
            mini_kd = self._trained(architecture, folder, candidate)
        except Beaten as stopped:
            looks, notes = tuple(candidate.looks), tuple(candidate.notes)
            if not candidate.is_split:
                remember(question, MiniKD(stopped.look, looks, notes, candidate.sources), None)
            raise
        if not candidate.is_split:  # another loss than on a device with room for its batches
            remember(question, mini_kd, folder)
        return mini_kd

    def _copied(self, copy_student: Callable[[Path], None], folder: Path) -> bool:
        try:
            copy_student(folder)
        except OSError as error:  # another process made room
            log.warning(f"A result of mini-KD is gone: {error}")
            return False
        self.bench.teacher.tokenizer.save_pretrained(folder)  # it may differ where that changes no loss
        sync_files(folder)  # before the store refers to them
        return True

    def _trained(
        self, architecture: Architecture, folder: Path, candidate: CandidateUnderJudgement
    ) -> MiniKD:
        spec, teacher = self.spec, self.bench.teacher
        objective, seed = spec.objective, spec.seed
        begun = begin(
            teacher,
            architecture,
            objective,
            self.profile,
            self.data,
            self.words,
            seed,
            self.importance,
            shared=self.shared,
        )
        candidate.begins(begun.notes, begun.sources)
        watcher = Watcher(step=candidate.step, held_out=candidate.look, noted=candidate.split)
        result = distil(begun.student, begun.objective, self.data, spec.proxy, seed, self.autocast, watcher)
        save(begun.student, teacher.tokenizer, folder)
        return MiniKD(result, tuple(candidate.looks), tuple(candidate.notes), begun.sources)

    def _question(self, architecture: Architecture) -> dict[str, Any]:
        """All that the result of a mini-KD depends on; rounding differs by machine, versions and threads."""
        spec = self.spec
        return {
            "method": METHOD,
            "format": FORMAT,
            "versions": [torch.__version__, transformers.__version__],
            "device": compute_name(),
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
        shared = self.shared or {}
        supernet = {"supernet": _digest(shared[name] for name in sorted(shared))} if shared else {}
        return supernet | {
            "words": None if words is None else _digest([words.table, *words.head.parameters()]),
            "importance": None if importance is None else _digest(vars(importance).values()),
            "data": self.data.fingerprint,
        }


def _digest(tensors: Iterable[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().numpy().tobytes())
    return digest.hexdigest()
