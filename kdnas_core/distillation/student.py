"""Architecture -> a stock model for the teacher's words, with random weights or cut out of the teacher."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.distillation.cut import cut_out
from kdnas_core.distillation.importance import Importance
from kdnas_core.distillation.layout import student_config
from kdnas_core.distillation.targets import Targets
from kdnas_core.distillation.teacher import Teacher


def start_student(
    teacher: Teacher,
    architecture: Architecture,
    targets: Targets,
    seed: int,
    importance: Importance | None,
    sources: Sequence[int] | None = None,
) -> tuple[PreTrainedModel, tuple[LayerSource, ...]]:
    """A student ready for its first step, and what each of its layers was cut from.

    Args:
        teacher: gives family, vocabulary and, for a start cut out of it, the weights.
        architecture: the student's shape.
        targets: teacher outputs, whose principal directions the cut keeps.
        seed: of the random weights.
        importance: of the teacher's heads and neurons, for a start cut out of it; None for random weights.
        sources: the teacher layer 1..N that each student layer is cut from; None for those that matter most.

    Raises:
        BadInput: the sources are not one for each layer, or one is no layer of the teacher.
    """
    student = new_student(teacher, architecture, seed)
    if importance is None:
        return student, ()
    cut = cut_out(student, teacher, targets, importance, sources)
    student.load_state_dict(cut.weights, strict=False)
    return student, cut.sources


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
