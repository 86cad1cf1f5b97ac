"""A student and its objective before the first step, for mini-KD and full distillation alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.distillation.objective import Objective, make_objective
from kdnas_core.distillation.plan import TeacherProfile, plan
from kdnas_core.distillation.recipes import start_layers
from kdnas_core.distillation.trainer import ProxySet
from kdnas_core.models.importance import Importance
from kdnas_core.models.mlm_head import TeacherHead
from kdnas_core.models.student import start_student
from kdnas_core.models.teacher import Teacher
from kdnas_core.spec import ObjectiveSpec


@dataclass(frozen=True)
class Start:
    """A student ready to learn.

    Attributes:
        student: with its starting weights.
        objective: what it learns by.
        notes: a sentence for each loss term that it cannot learn by.
        sources: what each of its layers was cut from; empty where it was not.
    """

    student: PreTrainedModel
    objective: Objective
    notes: Sequence[str]
    sources: tuple[LayerSource, ...] = ()


def begin(
    teacher: Teacher,
    architecture: Architecture,
    spec: ObjectiveSpec,
    given: TeacherProfile,
    data: ProxySet,
    words: TeacherHead | None,
    seed: int,
    importance: Importance | None = None,
    student: PreTrainedModel | None = None,
) -> Start:
    """Makes a student of a teacher and an objective for it.

    Args:
        teacher: the student's.
        architecture: the student's shape.
        spec: what it learns, and where it starts.
        given: what the teacher has to give.
        data: what it learns from; a start cut out of the teacher keeps its principal directions.
        words: the teacher's masked-LM head on the words in use, where a term needs one.
        seed: of random weights.
        importance: of the teacher's heads and neurons, for a start cut out of it.
        student: one that goes on learning, in the place of a new one.

    Raises:
        BadInput: nothing is left that the student could learn.
    """
    planned = plan(spec, architecture, given)
    origins: tuple[LayerSource, ...] = ()
    if student is None:
        assert importance is not None or spec.start == "random", "a cut needs to know what matters"
        layers = start_layers(spec, architecture.layers, teacher.layers)
        kept = importance if spec.start == "teacher" else None
        student, origins = start_student(teacher, architecture, data.train, seed, kept, layers)
    table = student.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    size = (len(data.vocabulary.rows), table.shape[1])
    objective = make_objective(
        planned, spec, architecture, teacher.architecture, words, size, seed, given.pooling
    )
    return Start(student, objective, planned.notes, origins)
