"""Runs distillations, scorings and sweeps, and writes their progress and results to the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from kdnas_core.data.tasks import check_is_learnt
from kdnas_core.distillation.objective import Places
from kdnas_core.errors import BadInput
from kdnas_core.evaluation.scoring import TaskScore
from kdnas_core.hardware import chosen_device, computing_on
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.latency.sweep_bench import SweepListener, check_sweep, measure_sweep
from kdnas_core.runs.jobs import Job
from kdnas_core.runs.names import Source, as_before, source_named, source_of, weights_of
from kdnas_core.runs.records import Candidate, LayerLoss, Score, Scored, Scoring, Student, Sweep
from kdnas_core.runs.store import Store
from kdnas_core.spec import DistilSpec, ScoreSpec, SweepSpec
from kdnas_core.students.full import CHECKPOINT, FullListener, FullResult, check_full, distil_fully
from kdnas_core.students.scores import ScoreListener, check_scoring, score_models
from kdnas_core.students.task_stage import distil_for_task

STEP_SECONDS = 0.5  # between two rows of progress
WAITING = "waiting for another process to leave the device"

Told = Callable[[str, int, int], None]  # the activity in words, steps taken, and steps in all (0: not known)


class Progress:
    """Writes the progress of a student, a scoring or a sweep.

    Args:
        store: open for writing, in this thread.
        job: the work.
        write: sets columns of its row.
        check: called often; raises to end the work.
        told: called at each step and at each new activity.
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
        """Sets the activity."""
        self.check()
        self._activity, self._waiting = activity, False
        self.store.set_activity(self.job, activity)
        self.told(activity, 0, 0)

    def waiting(self) -> None:
        """Sets the activity while another process holds the device."""
        self.check()
        if not self._waiting:
            self.store.set_activity(self.job, WAITING)
            self._waiting = True

    def step(self, taken: int, steps: int) -> None:
        """Sets the steps taken and the steps in all."""
        try:
            self.check()
        except Exception:
            self._write(self.job.id, step=taken, steps=steps)  # the checkpoint is at this step
            raise
        if self._waiting:  # this process holds the device again
            self.say(self._activity)
        if self._is_due(taken, steps):
            self._write(self.job.id, step=taken, steps=steps)
            self._steps, self._written = steps, time.monotonic()
        self.told(self._activity, taken, steps)

    def _is_due(self, taken: int, steps: int) -> bool:
        return taken == steps or steps != self._steps or time.monotonic() - self._written > STEP_SECONDS


def check_distillation(store: Store, source: Source, how: DistilSpec) -> None:
    """Checks the teacher, corpus, task and recipe of a distillation, which lie outside the store.

    Raises:
        BadInput: the source cannot be distilled; says why.
    """
    chosen_device(how.device)
    spec, how = store.run(source.candidate.run).spec, as_before(source, how)
    if how.task is None:
        check_full(spec, how, source.candidate.architecture)
    else:
        if source.candidate.architecture.is_static:
            raise BadInput(
                "A static student has no first token that a task's head could read; distil a student with "
                "layers for a task."
            )
        check_is_learnt(how.task)
        check_scoring(spec, ScoreSpec(tasks=[how.task]))


def distil(store: Store, student: Student, check: Callable[[], None], told: Told) -> None:
    """Distils a student, from its checkpoint if there is one.

    Args:
        store: open for writing, in this thread.
        student: the claimed student.
        check: called often; raises to end the work.
        told: called at each step.

    Raises:
        BadInput: it cannot be distilled.
    """
    folder = store.student_files(student.run, student.id)
    if student.loss is not None and (folder / "model.safetensors").is_file():
        return  # its worker ended after the last write, before it marked the work as finished
    folder.mkdir(parents=True, exist_ok=True)
    with computing_on(student.spec.device):
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
        # a checkpoint has all that was learnt, also where the student that it began with is gone
        goes_on = student.parent is not None and not (folder / CHECKPOINT).exists()
        start = _start(store, student) if goes_on else None
        return distil_fully(spec, student.spec, architecture, folder, listener, start)
    return distil_for_task(spec, student.spec, _start(store, student), folder, listener)


def _start(store: Store, student: Student) -> Path:
    """The folder of the weights that a student of another one begins with."""
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
        # a resumed distillation repeats its notes
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
    """Checks the teacher and tasks of a scoring, which lie outside the store.

    Raises:
        BadInput: the source cannot be scored; says why.
    """
    chosen_device(how.device)
    check_scoring(store.run(source.candidate.run).spec, how)


def score(store: Store, scoring: Scoring, check: Callable[[], None], told: Told) -> None:
    """Scores a candidate or a student and its teacher; earlier scores are cached.

    Args:
        store: open for writing, in this thread.
        scoring: the claimed scoring.
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
    spec = store.run(scoring.run).spec
    with computing_on(scoring.spec.device):
        score_models(spec, scoring.spec, weights, listener)


def scores_of(subject: Scored, found: TaskScore) -> list[Score]:
    """Returns a subject's scores on a task as rows."""
    errors = found.errors or ({},) * len(found.seeds)
    return [
        Score(
            subject,
            found.task,
            metric,
            seed,
            value,
            found.rate,
            errors[seed].get(metric),
            found.chance.get(metric),
        )
        for seed, values in enumerate(found.seeds)
        for metric, value in values.items()
    ]


def check_latency(store: Store, candidate: Candidate, how: SweepSpec) -> str | None:
    """Checks the teacher and the runtimes of a sweep, which lie outside the store.

    Returns:
        A sentence on the lengths that are left out; None if there are none.

        Raises:
            BadInput: the candidate cannot be measured; says why.
    """
    return check_sweep(store.run(candidate.run).spec, how)


def measure(store: Store, sweep: Sweep, check: Callable[[], None], told: Told) -> None:
    """Measures the points of a sweep that have not been measured yet.

    Args:
        store: open for writing, in this thread.
        sweep: the claimed sweep.
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
