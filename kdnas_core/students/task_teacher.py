"""A teacher fine-tuned on a task, kept in the cache: each student of the task learns from the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from kdnas_core.data.tasks import Task
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.evaluation.classifier import new_classifier
from kdnas_core.evaluation.fine_tuning import FineTuning, TrainingSet, fine_tuned
from kdnas_core.evaluation.scoring import Scored, ScoringListener, chosen_rate, train_tokens
from kdnas_core.files import cache_folder
from kdnas_core.hardware import exclusive
from kdnas_core.models.teacher import Teacher, most_tokens

KEPT = 4  # the least recently used are deleted, so that the cache stays bounded
SEED = 0
USUAL_LENGTH = 128  # tokens of a task's row
STUDENT_DROPOUT = 0.0  # a student is small, and its teacher's dropout costs it more than it saves

Say = Callable[[str], None]


def usual_settings(teacher: Teacher, rows: int = FineTuning().rows) -> FineTuning:
    """How a teacher and its students are fine-tuned, for whatever length the teacher reads."""
    return FineTuning(rows=rows, sequence_length=min(USUAL_LENGTH, most_tokens(teacher)))


def fine_tuned_teacher(
    teacher: Teacher, task: Task, waiting: Callable[[], None], report: Say
) -> PreTrainedModel:
    """A teacher fine-tuned on a task, as it is when it is scored with the first seed.

    Args:
        teacher: not changed.
        task: with its training split.
        waiting: as for `exclusive`.
        report: told in words how far it is; may raise to end it.
    """
    how = usual_settings(teacher)
    asked = [teacher.fingerprint, task.fingerprint, asdict(how), str(autocast_dtype())]
    word = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:24]
    path = cache_folder() / "task-teachers" / f"{word}.safetensors"
    if path.is_file():
        path.touch()  # used just now: the last to be deleted
        model = new_classifier(teacher.model, task, SEED)
        model.load_state_dict(load_file(path))
        return model
    model = _fine_tuned(teacher, task, how, waiting, report)
    _keep(model, path)
    return model


def _fine_tuned(
    teacher: Teacher, task: Task, how: FineTuning, waiting: Callable[[], None], report: Say
) -> PreTrainedModel:
    def told(activity: str, taken: int, steps: int) -> None:
        if taken == 1 or taken % 50 == 0:
            report(f"the teacher on {activity}, step {taken} of {steps}")

    def step(taken: int, steps: int) -> None:
        told(f"{task.name}: fine-tuning", taken, steps)

    autocast = autocast_dtype()
    scored = Scored(teacher.model, teacher.tokenizer, teacher.fingerprint)
    rate = chosen_rate(scored, task, how, autocast, ScoringListener(waiting, told))
    with exclusive(waiting):
        data = TrainingSet(task, train_tokens(teacher.tokenizer, task, how))
        return fine_tuned(teacher.model, data, how, rate, SEED, autocast, step)


def _keep(model: PreTrainedModel, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    tensors: dict[str, torch.Tensor] = model.state_dict()
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, unfinished)
    unfinished.replace(path)
    by_age = sorted(path.parent.glob("*.safetensors"), key=lambda each: each.stat().st_mtime)
    for old in by_age[:-KEPT]:
        old.unlink(missing_ok=True)
