"""Work on students as it is written down: distillations, scorings and sweeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from kdnas_core.distillation.objective import Places
from kdnas_core.evaluation.scoring import TaskScore
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.latency.sweep_bench import SweepListener, check_sweep, measure_sweep
from kdnas_core.runs.jobs import Job
from kdnas_core.runs.names import Source, source_named, source_of, weights_of
from kdnas_core.runs.records import Candidate, LayerLoss, Score, Scored, Scoring, Student, Sweep
from kdnas_core.runs.store import Store
from kdnas_core.spec import DistilSpec, ScoreSpec, SweepSpec
from kdnas_core.students.full import FullListener, FullResult, check_full, distil_fully
from kdnas_core.students.scores import ScoreListener, check_scoring, score_models
from kdnas_core.students.task_stage import distil_for_task

STEP_SECONDS = 0.5  # between two rows of progress
WAITING = "waiting for another process to leave the device"

Told = Callable[[str, int, int], None]  # what is done, in words, and steps taken, of how many (0: not known)


class Progress:
    """Of a student or a scoring.

    Args:
        store: open for writing, in this thread.
        job: whose progress.
        write: sets columns of its row.
        check: called often; raises to end the work.
        told: called at each step and whenever something else is done.
    """

    def __init__(
        self,
        store: Store,
        job: Job,
        write: Callable[..., None],
        check: Callable[[], None],
        told: Told,
    ) -> None:
        self.store, self.job, self.check, self.told = store, job, check, told
        self._write = write
        self._activity, self._waiting = "", False
        self._steps, self._written = 0, 0.0

    def say(self, activity: str) -> None:
        """Says what is done now."""
        self.check()
        self._activity, self._waiting = activity, False
        self.store.set_activity(self.job, activity)
        self.told(activity, 0, 0)

    def waiting(self) -> None:
        """Says that another process has the device."""
        self.check()
        if not self._waiting:
            self.store.set_activity(self.job, WAITING)
            self._waiting = True

    def step(self, taken: int, steps: int) -> None:
        """Says how many steps are taken, of how many."""
        try:
            self.check()
        except Exception:
            self._write(self.job.id, step=taken, steps=steps)  # what is kept
            raise
        if self._waiting:  # the device is ours again
            self.say(self._activity)
        if self._is_due(taken, steps):
            self._write(self.job.id, step=taken, steps=steps)
            self._steps, self._written = steps, time.monotonic()
        self.told(self._activity, taken, steps)

    def _is_due(self, taken: int, steps: int) -> bool:
        return taken == steps or steps != self._steps or time.monotonic() - self._written > STEP_SECONDS


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


def check_evaluation(store: Store, source: Source, how: ScoreSpec) -> None:
    """Refuses what could not be scored for what lies outside the store: teacher and tasks.

    Raises:
        BadInput: says why.
    """
    check_scoring(store.run(source.candidate.run).spec, how)


def score(store: Store, scoring: Scoring, check: Callable[[], None], told: Told) -> None:
    """Scores a candidate or a student beside its teacher; what was scored before is remembered.

    Args:
        store: open for writing, in this thread.
        scoring: claimed.
        check: called often; raises to end the work.
        told: called at each step.

    Raises:
        BadInput: it cannot be scored.
    """
    progress = Progress(store, scoring.job, store.update_scoring, check, told)

    def scored(subject: Scored, found: TaskScore) -> None:
        check()
        store.add_scores(scoring.id, scores_of(subject, found))

    listener = ScoreListener(progress.waiting, progress.say, progress.step, scored)
    weights = weights_of(store, source_named(store, scoring.subject))
    score_models(store.run(scoring.run).spec, scoring.spec, weights, listener)


def scores_of(subject: Scored, found: TaskScore) -> list[Score]:
    """What a subject scores on a task, as rows."""
    return [
        Score(subject, found.task, metric, seed, value, found.rate)
        for seed, values in enumerate(found.seeds)
        for metric, value in values.items()
    ]


def check_latency(store: Store, candidate: Candidate, how: SweepSpec) -> str | None:
    """Refuses what could not be measured for what lies outside the store: the teacher and the runtimes.

    Returns:
        A sentence about what is left out; None where nothing is.

    Raises:
        BadInput: says why.
    """
    return check_sweep(store.run(candidate.run).spec, how)


def measure(store: Store, sweep: Sweep, check: Callable[[], None], told: Told) -> None:
    """Measures the points of a sweep that are not there yet.

    Args:
        store: open for writing, in this thread.
        sweep: claimed.
        check: called often; raises to end the work.
        told: called at each point.

    Raises:
        BadInput: it cannot be measured.
    """
    progress = Progress(store, sweep.job, store.update_sweep, check, told)

    def measured(reading: LatencyReading) -> None:
        store.add_reading(sweep.id, reading)

    listener = SweepListener(check, progress.waiting, progress.say, progress.step, measured)
    architecture = store.candidate(sweep.candidate).architecture
    measure_sweep(store.run(sweep.run).spec, sweep.spec, architecture, sweep.step, listener)
