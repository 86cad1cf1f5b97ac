"""Makes a student and its objective before the first step of mini-KD or full distillation."""

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
from kdnas_core.models.heads import Weights
from kdnas_core.models.importance import Importance
from kdnas_core.models.mlm_head import TeacherHead
from kdnas_core.models.student import start_student
from kdnas_core.models.teacher import Teacher
from kdnas_core.spec import ObjectiveSpec

STATIC = (
    "A static student: each word has one vector, at first the teacher's output for that word alone, and a "
    "text has their mean. What a layer adds to that is what the others are better by."
)


@dataclass(frozen=True)
class Start:
    """A student before its first step.

    Attributes:
        student: with its starting weights.
        objective: its loss terms.
        notes: a sentence for each loss term that is left out.
        sources: of each of its layers, if it was cut out of the teacher; else empty.
    """

    student: PreTrainedModel
    objective: Objective
    notes: Sequence[str]
    sources: tuple[LayerSource, ...] = ()


def begin(
    teacher: Teacher,
    architecture: Architecture,
    spec: ObjectiveSpec,
    profile: TeacherProfile,
    data: ProxySet,
    words: TeacherHead | None,
    seed: int,
    importance: Importance | None = None,
    student: PreTrainedModel | None = None,
    shared: Weights | None = None,
) -> Start:
    """Makes a student and its objective.

    Args:
        teacher: the student's.
        architecture: the student's shape.
        spec: the objective and the start.
        profile: of the teacher.
        data: the training set; a cut keeps its principal directions.
        words: the teacher's masked-LM head on the words in use, if a term needs it.
        seed: of random weights.
        importance: of the teacher's heads and neurons, to cut the student out of it.
        student: an existing student to train further, instead of a new one.
        shared: the weights of a supernet, out of which a student is cut that does not start at random.

    Raises:
        BadInput: no term is left that the student can learn by.
    """
    planned = plan(spec, architecture, profile)
    origins: tuple[LayerSource, ...] = ()
    is_new_static = student is None and architecture.is_static and spec.start != "random"
    if student is None:
        assert importance is not None or spec.start == "random", "a cut needs to know what matters"
        layers = None if architecture.is_static else start_layers(spec, architecture.layers, teacher.layers)
        kept = None if spec.start == "random" else importance
        student, origins = start_student(
            teacher, architecture, data.train, seed, kept, layers, shared, data.words
        )
    table = student.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    size = (len(data.vocabulary.rows), table.shape[1])
    objective = make_objective(
        planned, spec, architecture, teacher.architecture, words, size, seed, profile.pooling
    )
    notes = [*planned.notes, *([STATIC] if is_new_static else [])]
    return Start(student, objective, notes, origins)
