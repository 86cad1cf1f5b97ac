"""TinyBERT's second stage: distils a student for a task from its fine-tuned teacher, on augmented rows.

It trains intermediate layers first (embeddings, attention, hidden states), then predictions (arXiv
1909.10351, section 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from kdnas_core.data.tasks import Row, Task, read_task
from kdnas_core.data.tokens import Passage
from kdnas_core.distillation.augmentation.candidates import augmenter_for
from kdnas_core.distillation.augmentation.variants import Augmentation, augment
from kdnas_core.distillation.beginning import begin
from kdnas_core.distillation.needs import check_length
from kdnas_core.distillation.plan import Plan, TeacherProfile, plan
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.distillation.trainer import ProxySet, distil
from kdnas_core.evaluation.classifier import logits_of, tokens_of
from kdnas_core.evaluation.fine_tuning import FineTuning, TrainingSet, fine_tuned
from kdnas_core.evaluation.scoring import Scored, ScoringListener, chosen_rate, soft_loss
from kdnas_core.files import cache_folder
from kdnas_core.hardware import exclusive, moved, turns
from kdnas_core.models.mlm_head import teacher_head
from kdnas_core.models.student import read_student, save, shape_of_model
from kdnas_core.models.targets import Targets, tokenised
from kdnas_core.models.teacher import Teacher, fingerprint, load_teacher
from kdnas_core.models.teacher_outputs import NeededOutputs, teacher_targets
from kdnas_core.spec import DistilSpec, ObjectiveSpec, RunSpec, TermKind, TermSpec
from kdnas_core.students.full import (
    CHECKPOINT,
    LOOKS,
    SAMPLE,
    FullListener,
    FullResult,
    online_targets,
    training_of,
    watcher_of,
)
from kdnas_core.students.task_file import write_task
from kdnas_core.students.task_teacher import STUDENT_DROPOUT, fine_tuned_teacher, usual_settings

INTERMEDIATE = "intermediate.safetensors"  # the checkpoint of the first stage, kept until both are done
INTERMEDIATE_RATE = 5e-4
MOST_HELD_OUT = 200


@dataclass(frozen=True)
class TaskMaterial:
    """A task with its training rows and its fine-tuned teacher.

    Attributes:
        task: the task.
        rows: of the training split, with their variants.
        teacher: fine-tuned on the task.
        classifier: the teacher with its head.
    """

    task: Task
    rows: list[Row]
    teacher: Teacher
    classifier: PreTrainedModel


def distil_for_task(
    spec: RunSpec,
    how: DistilSpec,
    start: Path,
    folder: Path,
    listener: FullListener,
    without: Collection[TermKind] = (),
) -> FullResult:
    """Distils a student for a task, or resumes an interrupted call.

    Args:
        spec: of the student's run.
        how: has the task, and whether its rows are augmented.
        start: folder of the student to begin with.
        folder: for checkpoints, and at the end for the student with its head, in the format of stock
            `transformers`.
        listener: callbacks.
        without: loss terms to leave out of the first stage, for ablations.

    Raises:
        BadInput: the task cannot be read, its length exceeds the teacher's, or no loss term is left.
        Diverged: the loss is not finite.
    """
    assert how.task is not None
    listener.say("reading the task")
    task = read_task(how.task, cache_folder())
    teacher = load_teacher(spec.teacher)
    check_length("sequence_length", how.sequence_length, teacher)
    classifier = fine_tuned_teacher(teacher, task, listener.waiting, listener.say)
    base = classifier.base_model
    assert isinstance(base, PreTrainedModel)
    taught = replace(teacher, model=base, fingerprint=fingerprint(base))
    rows = augmented(task, teacher, how, listener) if how.augment else task.splits["train"]
    material = TaskMaterial(task, rows, taught, classifier)
    steps = math.ceil(how.epochs * len(rows) / how.batch_size)
    listener.begun(2 * steps)
    student = read_student(start)
    objective = intermediate_objective(student.config.num_hidden_layers, without)
    _intermediate(material, how, student, objective, folder, listener, steps)
    distilled = _prediction(material, how, student, folder, listener, steps)
    loss = _loss(material, distilled)
    save(distilled, teacher.tokenizer, folder)
    write_task(folder, how.task, task.fingerprint)
    for checkpoint in (CHECKPOINT, INTERMEDIATE):
        (folder / checkpoint).unlink(missing_ok=True)
    return FullResult(loss, {})


def augmented(task: Task, teacher: Teacher, how: DistilSpec, listener: FullListener) -> list[Row]:
    """Returns the rows of the training split, each followed by its variants with its label."""
    glove = None if how.glove is None else Path(how.glove)
    words, notes = augmenter_for(teacher, teacher_head(teacher), glove, how.sequence_length, autocast_dtype())
    listener.noted(notes)
    rows = task.splits["train"]

    def progress(share: float) -> None:
        listener.say(f"augmenting the rows of {task.name}: {share:.0%}")

    settings = Augmentation(copies=how.copies, seed=how.seed)
    with exclusive(listener.waiting):
        variants = augment([(row.first, row.second) for row in rows], words, settings, progress)
    return [
        each
        for row, of_row in zip(rows, variants, strict=True)
        for each in (row, *(Row(first, second, row.label) for first, second in of_row))
    ]


def _passage(row: Row) -> Passage:
    return row.first if row.second is None else (row.first, row.second)


def _intermediate(
    material: TaskMaterial,
    how: DistilSpec,
    student: PreTrainedModel,
    objective: ObjectiveSpec,
    folder: Path,
    listener: FullListener,
    steps: int,
) -> None:
    """The first stage: embeddings, attention and hidden states of the fine-tuned teacher.

    Its checkpoint is kept, so that an interrupted second stage starts again from the same student.
    """
    architecture = shape_of_model(student)
    profile = TeacherProfile(material.teacher.architecture, predicts_words=False, hides_words=False)
    data = _data(material, how, plan(objective, architecture, profile), listener)
    begun = begin(material.teacher, architecture, objective, profile, data, None, how.seed, student=student)
    listener.noted(begun.notes)
    listener.say(f"learning the layers of the teacher of {material.task.name}")
    proxy = training_of(how.batch_size, INTERMEDIATE_RATE, steps)
    with turns(listener.waiting) as let_others, moved(material.teacher.model):
        watcher = watcher_of(listener, let_others)
        saved = folder / INTERMEDIATE
        distil(student, begun.objective, data, proxy, how.seed, autocast_dtype(), watcher, saved, LOOKS)


def intermediate_objective(layers: int, without: Collection[TermKind] = ()) -> ObjectiveSpec:
    """Returns TinyBERT's intermediate objective (eq. 11), or some of its terms."""
    terms = [
        TermSpec(kind="embedding"),
        TermSpec(kind="attention", weight=layers),
        TermSpec(kind="hidden", weight=layers),
    ]
    return ObjectiveSpec(recipe="custom", terms=[term for term in terms if term.kind not in without])


def _data(material: TaskMaterial, how: DistilSpec, planned: Plan, listener: FullListener) -> ProxySet:
    """All training rows online; the held-out texts are rows of the scored split, which are not trained on."""
    autocast, teacher = autocast_dtype(), material.teacher
    passages = [_passage(row) for row in material.rows]
    wanted = NeededOutputs(sorted(planned.projections))

    def stored(texts: Sequence[Passage]) -> Targets:
        with exclusive(listener.waiting):
            return teacher_targets(
                teacher, texts, how.sequence_length, autocast, cache_folder(), wanted=wanted
            )

    order = np.random.default_rng(0).permutation(len(passages))[:SAMPLE]
    sample = stored([passages[index] for index in order])
    held_out = stored([_passage(row) for row in _held_out(material.task)])
    encoded = tokenised(teacher, passages, how.sequence_length)
    full = online_targets(teacher, encoded, sample, autocast, planned)
    return ProxySet.of(sample, held_out, teacher.model.config, full=full)


def _held_out(task: Task) -> list[Row]:
    return task.splits[task.scored[0]][:MOST_HELD_OUT]


def _prediction(
    material: TaskMaterial,
    how: DistilSpec,
    student: PreTrainedModel,
    folder: Path,
    listener: FullListener,
    steps: int,
) -> PreTrainedModel:
    """The second stage: the teacher's predictions for each row and variant."""
    settings = FineTuning(
        batch_size=how.batch_size, sequence_length=how.sequence_length, dropout=STUDENT_DROPOUT
    )
    rate = _rate(material, student, settings, listener)
    autocast = autocast_dtype()
    listener.say(f"learning the predictions of the teacher of {material.task.name}")
    with turns(listener.waiting) as let_others:
        training_set = _soft(material, material.rows, settings.sequence_length, autocast)

        def progress(taken: int, of: int) -> None:
            listener.step(steps + taken)
            let_others()

        saved = folder / CHECKPOINT
        return fine_tuned(student, training_set, settings, rate, how.seed, autocast, progress, steps, saved)


def _rate(
    material: TaskMaterial,
    student: PreTrainedModel,
    settings: FineTuning,
    listener: FullListener,
) -> float:
    """The learning rate, chosen as for any fine-tuning, on the labels of the training split."""
    scored = Scored(student, material.teacher.tokenizer, fingerprint(student))

    def report(activity: str, taken: int, steps: int) -> None:
        if taken % 50 == 0:
            listener.say(f"{activity}, step {taken} of {steps}")

    return chosen_rate(
        scored, material.task, settings, autocast_dtype(), ScoringListener(listener.waiting, report)
    )


def _soft(
    material: TaskMaterial, rows: Sequence[Row], sequence_length: int, autocast: torch.dtype | None
) -> TrainingSet:
    tokens = tokens_of(rows, material.teacher.tokenizer, sequence_length)
    return TrainingSet(material.task, tokens, logits_of(material.classifier, tokens, autocast))


def _loss(material: TaskMaterial, classifier: PreTrainedModel) -> float:
    """The loss of the student's predictions against the teacher's, on held-out rows."""
    autocast = autocast_dtype()
    length = usual_settings(material.teacher).sequence_length
    tokens = tokens_of(_held_out(material.task), material.teacher.tokenizer, length)
    both: list[NDArray[np.float32]] = [
        logits_of(model, tokens, autocast) for model in (classifier, material.classifier)
    ]
    return soft_loss(material.task, *both)
