"""Scores a student, its teacher and an undistilled control on tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from kdnas_core import files
from kdnas_core.data.retrieval import Retrieval, is_retrieval, read_retrieval
from kdnas_core.data.tasks import ZERO_SHOT as ZERO_SHOT
from kdnas_core.data.tasks import Task, read_task
from kdnas_core.distillation.precision import autocast_dtype
from kdnas_core.errors import BadInput
from kdnas_core.evaluation.fine_tuning import FineTuning
from kdnas_core.evaluation.metrics import score, standard_error
from kdnas_core.evaluation.retrieval import retrieved
from kdnas_core.evaluation.scoring import Scored, ScoringListener, TaskScore, chance, score_on, values_of
from kdnas_core.evaluation.zero_shot import can_compare, similarities
from kdnas_core.files import cache_folder
from kdnas_core.hardware import exclusive, other_device
from kdnas_core.models.pooling import Mode, Pooling, is_embedding_teacher, pooling_mode, pooling_of
from kdnas_core.models.sources import check_teacher
from kdnas_core.models.student import read_student
from kdnas_core.models.teacher import Teacher, fingerprint, load_teacher, most_tokens
from kdnas_core.spec import RunSpec, ScoreSpec
from kdnas_core.students.task_file import fingerprint_of_task
from kdnas_core.students.task_teacher import STUDENT_DROPOUT, usual_settings

Subject = Literal["student", "teacher", "control"]


@dataclass(frozen=True)
class ScoreListener:
    """Callbacks of scoring; any may raise to end it early.

    Attributes:
        waiting: called while another process holds the device.
        say: called with a sentence on what is being done.
        step: called with the steps taken of the current fine-tuning and its steps in all.
        scored: called with each score of a subject.
    """

    waiting: Callable[[], None]
    say: Callable[[str], None]
    step: Callable[[int, int], None]
    scored: Callable[[Subject, TaskScore], None]


def check_scoring(spec: RunSpec, how: ScoreSpec) -> None:
    """Checks a scoring before anything is written.

    Raises:
        BadInput: the teacher or a task cannot be read; says why in one sentence.
    """
    check_teacher(spec.teacher)
    list(_tasks(spec, how))


def score_models(spec: RunSpec, how: ScoreSpec, student: Path, listener: ScoreListener) -> None:
    """Scores a student and its teacher on tasks, in the same way.

    Results are cached on this machine: the teacher is scored once, and an interrupted scoring resumes. An
    embedding teacher and its student are also scored without training, by the similarity of their sentence
    vectors, and by default encode the two sentences of a pair separately.

    Args:
        spec: of the student's run.
        how: has the tasks, the seeds, and whether to score the control.
        student: its folder.
        listener: callbacks.

    Raises:
        BadInput: as `check_scoring`.
        Diverged: fine-tuning diverged at every learning rate.
    """
    listener.say("reading the tasks")
    tasks = list(_tasks(spec, how))
    teacher = load_teacher(spec.teacher)
    compared = is_embedding_teacher(spec.teacher)
    models = dict(_models(teacher, student, how))
    settings = usual_settings(teacher, how.rows)
    small = replace(settings, dropout=STUDENT_DROPOUT)
    tuned: dict[Subject, FineTuning] = {"teacher": settings, "student": small, "control": small}
    pooling, length = pooling_mode(spec.teacher), _served_length(teacher)
    reads_apart = compared if how.pairs is None else how.pairs == "apart"
    for task in tasks:
        if isinstance(task, Retrieval):
            for subject, model in models.items():
                if subject != "control":
                    listener.say(f"{subject}: {task.name}")
                    listener.scored(subject, _retrieved(model, task, length, pooling, listener))
            continue
        own = is_for(student, task)
        apart = reads_apart and not own  # a task's own student reads a pair as one text, so all do
        for subject, model in models.items():
            if subject == "student" and own:
                listener.scored(subject, _as_it_is(student, model, task, settings, listener))
            else:
                _score(subject, model, task, tuned[subject], how.seeds, apart, listener)
            if compared and can_compare(task) and subject != "control":
                listener.say(f"{subject}: {task.name}, similarity")
                listener.scored(subject, _zero_shot(model, task, settings, pooling, listener))


def _tasks(spec: RunSpec, how: ScoreSpec) -> Iterator[Task | Retrieval]:
    for source in how.tasks:
        if not is_retrieval(source):
            yield read_task(source, cache_folder(), split=how.split, train_language=how.train_language)
            continue
        if not is_embedding_teacher(spec.teacher):
            raise BadInput(
                f"The teacher is not made for the sentence vectors that {source} compares; leave it out."
            )
        yield read_retrieval(source, cache_folder(), how.split)


def _models(teacher: Teacher, student: Path, how: ScoreSpec) -> Iterator[tuple[Subject, Scored]]:
    yield "teacher", Scored(teacher.model, teacher.tokenizer, teacher.fingerprint)
    encoder = read_student(student)
    yield "student", Scored(encoder, teacher.tokenizer, fingerprint(encoder))
    if how.control:
        undistilled = _random(encoder)
        yield "control", Scored(undistilled, teacher.tokenizer, fingerprint(undistilled))


def _random(encoder: PreTrainedModel) -> PreTrainedModel:
    """A model of the same shape with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModel.from_config(encoder.config, dtype=torch.float32)
    return model.eval()


def is_for(student: Path, task: Task) -> bool:
    """Returns whether a student was distilled for this task, so that it has a head for it."""
    return fingerprint_of_task(student) == task.fingerprint


def _as_it_is(
    student: Path, model: Scored, task: Task, settings: FineTuning, listener: ScoreListener
) -> TaskScore:
    """Scores a student on the task that it was distilled for, without training."""
    listener.say(f"student: {task.name}, as it is")
    classifier: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        student, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    with exclusive(listener.waiting):
        values, errors = values_of(classifier.eval(), model.tokenizer, task, settings, autocast_dtype())
    return TaskScore(task.name, (values,), errors=(errors,), chance=chance(task))


def _score(
    subject: Subject,
    model: Scored,
    task: Task,
    settings: FineTuning,
    seeds: int,
    reads_apart: bool,
    listener: ScoreListener,
) -> None:
    def step(activity: str, taken: int, steps: int) -> None:
        if taken == 1:
            listener.say(f"{subject}: {activity}")
        listener.step(taken, steps)

    callbacks = ScoringListener(listener.waiting, step)
    found = score_on(model, task, settings, range(seeds), autocast_dtype(), callbacks, reads_apart)
    listener.scored(subject, found)


def _served_length(teacher: Teacher) -> int:
    """The tokens at which a sentence-embedding teacher cuts its texts."""
    pooling, most = pooling_of(teacher.name), most_tokens(teacher)
    return min(most, pooling.length or most) if isinstance(pooling, Pooling) else most


def _retrieved(
    model: Scored, task: Retrieval, length: int, pooling: Mode, listener: ScoreListener
) -> TaskScore:
    """Scores what a model's vectors retrieve; remembered on this machine."""
    question = {
        "model": model.fingerprint,
        "retrieval": task.fingerprint,
        "length": length,
        "pooling": pooling,
        "device": other_device(),
        "by": "query",
    }
    values = files.recall("scores", question)
    if values is None:
        with exclusive(listener.waiting):
            values = retrieved(model.encoder, model.tokenizer, task, length, pooling, listener.step)
        files.remember("scores", question, values)
    asked = f", {task.split}" if task.split else ""
    by_name, several = {f"{name}{asked}": each for name, each in values.items()}, len(task.queries) > 1
    return TaskScore(
        f"{task.name}{ZERO_SHOT}",
        ({name: fmean(each) for name, each in by_name.items()},),
        errors=({name: stdev(each) / len(each) ** 0.5 for name, each in by_name.items()},) if several else (),
    )


def _zero_shot(
    model: Scored, task: Task, settings: FineTuning, pooling: Mode, listener: ScoreListener
) -> TaskScore:
    """Scores similarities on the test split if there is one, as is usual for embedding models."""
    rows = task.splits["test" if "test" in task.splits else task.scored[0]]
    with exclusive(listener.waiting):
        found = similarities(model.encoder, model.tokenizer, rows, settings.sequence_length, pooling)
    labels = [row.label for row in rows]
    value, error = score("spearman", labels, found), standard_error("spearman", labels, found)
    name = f"{task.name}{ZERO_SHOT}"
    return TaskScore(name, ({"spearman": value},), errors=({"spearman": error},), chance={"spearman": 0.0})
