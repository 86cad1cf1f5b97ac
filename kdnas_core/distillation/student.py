"""Architecture -> a stock model of the teacher's family, with random weights or cut out of the teacher."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from transformers import AutoModel, PreTrainedModel

from kdnas_core.architecture import Architecture
from kdnas_core.distillation.cut import cut_out
from kdnas_core.distillation.targets import Targets
from kdnas_core.distillation.teacher import Teacher


def start_student(
    teacher: Teacher,
    architecture: Architecture,
    start: Literal["teacher", "random"],
    targets: Targets,
    seed: int,
) -> PreTrainedModel:
    """A student ready for its first step.

    Args:
        teacher: gives family, vocabulary and, for the start "teacher", the weights.
        architecture: the student's shape.
        start: "random", or "teacher" for weights cut out of the teacher.
        targets: teacher outputs, whose principal directions the cut keeps.
        seed: of the random weights.
    """
    student = new_student(teacher, architecture, seed)
    if start == "teacher":
        student.load_state_dict(cut_out(student, teacher, targets), strict=False)
    return student


def new_student(teacher: Teacher, architecture: Architecture, seed: int) -> PreTrainedModel:
    """A student of the teacher's family and vocabulary with random weights.

    Args:
        teacher: gives the family, the vocabulary and all of the config that is not the architecture.
        architecture: the student's shape.
        seed: of the random weights.
    """
    config = copy.deepcopy(teacher.model.config)
    config.update(
        {
            "num_hidden_layers": architecture.layers,
            "hidden_size": architecture.hidden_size,
            "intermediate_size": architecture.intermediate_size,
            "num_attention_heads": architecture.attention_heads,
            "hidden_act": architecture.hidden_act,
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32)
    return student.eval()
