"""A teacher fine-tuned on a task, cached so that all students of the task share it."""

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
from kdnas_core.files import cache_folder, keep_latest
from kdnas_core.hardware import exclusive, other_device
from kdnas_core.models.teacher import Teacher, most_tokens

KEPT = 4  # the least recently used are deleted to bound the cache
SEED = 0
USUAL_LENGTH = 128  # tokens of a task's row
STUDENT_DROPOUT = 0.0  # dropout hurts a small student

Report = Callable[[str], None]


def usual_settings(teacher: Teacher, rows: int = FineTuning().rows) -> FineTuning:
    """Returns the settings to fine-tune a teacher and its students, with a length that the teacher reads."""
    return FineTuning(rows=rows, sequence_length=min(USUAL_LENGTH, most_tokens(teacher)))


def fine_tuned_teacher(
    teacher: Teacher, task: Task, waiting: Callable[[], None], report: Report
) -> PreTrainedModel:
    """Returns a teacher fine-tuned on a task, equal to that of its score with the first seed.

    Args:
        teacher: not changed.
        task: with its training split.
        waiting: as for `exclusive`.
        report: called with a sentence on the progress; may raise to end it.
    """
    how = usual_settings(teacher)
    key = [teacher.fingerprint, task.fingerprint, asdict(how), str(autocast_dtype()), *other_device()]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    path = cache_folder() / "task-teachers" / f"{digest}.safetensors"
    if path.is_file():
        path.touch()  # the least recently used file is deleted first
        model = new_classifier(teacher.model, task, SEED)
        model.load_state_dict(load_file(path))
        return model
    model = _fine_tuned(teacher, task, how, waiting, report)
    _keep(model, path)
    return model


def _fine_tuned(
    teacher: Teacher, task: Task, how: FineTuning, waiting: Callable[[], None], report: Report
) -> PreTrainedModel:
    def report_step(activity: str, taken: int, steps: int) -> None:
        if taken == 1 or taken % 50 == 0:
            report(f"the teacher on {activity}, step {taken} of {steps}")

    def step(taken: int, steps: int) -> None:
        report_step(f"{task.name}: fine-tuning", taken, steps)

    autocast = autocast_dtype()
    scored = Scored(teacher.model, teacher.tokenizer, teacher.fingerprint)
    rate = chosen_rate(scored, task, how, autocast, ScoringListener(waiting, report_step))
    with exclusive(waiting):
        data = TrainingSet(task, train_tokens(teacher.tokenizer, task, how))
        return fine_tuned(teacher.model, data, how, rate, SEED, autocast, step)


def _keep(model: PreTrainedModel, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    tensors: dict[str, torch.Tensor] = model.state_dict()
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, unfinished)
    unfinished.replace(path)
    keep_latest(path.parent.glob("*.safetensors"), KEPT)
