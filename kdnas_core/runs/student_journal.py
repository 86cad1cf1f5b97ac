"""The journal of a student's distillation: whatever becomes known is in the store the moment it is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from kdnas_core.distillation.objective import Places
from kdnas_core.runs.progress import Progress, Told
from kdnas_core.runs.rows import LayerLoss, Student
from kdnas_core.runs.sources import Source, source_of, weights_of
from kdnas_core.runs.store import Store
from kdnas_core.search.full import FullListener, FullResult, check_full, distil_fully
from kdnas_core.search.scores import check_scoring
from kdnas_core.search.task_stage import distil_for_task
from kdnas_core.spec import DistilSpec, ScoreSpec


def check_distillation(store: Store, source: Source, how: DistilSpec) -> None:
    """Refuses what could not be distilled for what lies outside the store: teacher, corpus, task, recipe.

    Raises:
        BadInput: says why.
    """
    spec = store.run(source.candidate.run).spec
    if how.task is None:
        check_full(spec, how, source.candidate.architecture)
    else:
        check_scoring(spec, ScoreSpec(tasks=[how.task]))


def distil(store: Store, student: Student, check: Callable[[], None], told: Told) -> None:
    """Distils a student, or goes on with it where it was ended.

    Args:
        store: open for writing, in this thread.
        student: claimed.
        check: called often; raises to end the work.
        told: called at each step.

    Raises:
        BadInput: it cannot be distilled.
    """
    folder = store.student_files(student.run, student.id)
    if student.loss is not None and (folder / "model.safetensors").is_file():
        return  # it was ended between its last word and its end
    folder.mkdir(parents=True, exist_ok=True)
    result = _distilled(store, student, folder, _listener(store, student, check, told))
    store.update_student(
        student.id,
        loss=result.loss,
        loss_se=result.loss_se,
        languages=result.languages,
        cut_from=[asdict(source) for source in result.cut_from],
    )


def _distilled(store: Store, student: Student, folder: Path, listener: FullListener) -> FullResult:
    spec = store.run(student.run).spec
    if student.spec.task is None:
        architecture = store.candidate(student.candidate).architecture
        return distil_fully(spec, student.spec, architecture, folder, listener)
    return distil_for_task(spec, student.spec, _start(store, student), folder, listener)


def _start(store: Store, student: Student) -> Path:
    """The weights that a task-specific student begins with."""
    if student.parent is None:
        return weights_of(store, Source(store.candidate(student.candidate)))
    return weights_of(store, source_of(store, store.student(student.parent)))


def _listener(store: Store, student: Student, check: Callable[[], None], told: Told) -> FullListener:
    progress = Progress(store, student.job, store.update_student, check, told)
    steps = student.steps

    def begun(count: int) -> None:
        nonlocal steps
        steps = count
        store.update_student(student.id, steps=count)

    def noted(notes: Sequence[str]) -> None:
        # a distillation that goes on says again what it said before
        known = store.student(student.id).notes
        store.update_student(student.id, notes=list(dict.fromkeys([*known, *notes])))

    def held_out(taken: int, terms: dict[str, Places]) -> None:
        rows = [
            LayerLoss(taken, layer, of, loss, term)
            for term, places in terms.items()
            for (layer, of), loss in places.items()
        ]
        store.add_student_losses(student.id, rows)

    return FullListener(
        waiting=progress.waiting,
        say=progress.say,
        begun=begun,
        noted=noted,
        step=lambda taken: progress.step(taken, steps),
        held_out=held_out,
    )
