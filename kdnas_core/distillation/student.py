"""Architecture -> a stock model for the teacher's words, with random weights or cut out of the teacher."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.cut import cut_out
from kdnas_core.distillation.layout import student_config
from kdnas_core.distillation.targets import Targets
from kdnas_core.distillation.teacher import Teacher


def start_student(
    teacher: Teacher,
    architecture: Architecture,
    start: Literal["teacher", "random"],
    targets: Targets,
    seed: int,
    sources: Sequence[int] | None = None,
) -> PreTrainedModel:
    """A student ready for its first step.

    Args:
        teacher: gives family, vocabulary and, for the start "teacher", the weights.
        architecture: the student's shape.
        start: "random", or "teacher" for weights cut out of the teacher.
        targets: teacher outputs, whose principal directions the cut keeps.
        seed: of the random weights.
        sources: the teacher layer 1..N that each student layer is cut from; None for floor(i * N / M).

    Raises:
        BadInput: the sources are not one for each layer, or one is no layer of the teacher.
    """
    student = new_student(teacher, architecture, seed)
    if start == "teacher":
        student.load_state_dict(cut_out(student, teacher, targets, sources), strict=False)
    return student


def new_student(teacher: Teacher, architecture: Architecture, seed: int) -> PreTrainedModel:
    """A student with random weights, in the layout that `student_config` finds for it.

    Args:
        teacher: gives the family, the vocabulary and all of the config that is not the architecture.
        architecture: the student's shape.
        seed: of the random weights.
    """
    config = student_config(teacher.model.config, architecture)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32)
    return student.eval()


def save(student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a student and its tokenizer as a folder that stock `transformers` loads."""
    student.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():  # on the disk before the store says that they are
        with path.open("rb") as file:
            os.fsync(file.fileno())
