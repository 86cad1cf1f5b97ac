"""Reads students, scorings and sweeps for the pages, through a read-only connection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdnas_core.dashboard.read.live import read_jobs
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.runs.jobs import ACTIVE
from kdnas_core.runs.names import Source
from kdnas_core.runs.proxies import Proxies, proxies_of, read_scored
from kdnas_core.runs.records import (
    AnyWork,
    Candidate,
    Export,
    LayerLoss,
    Run,
    Score,
    Scoring,
    Student,
    Sweep,
    TeacherLayerFacts,
)
from kdnas_core.runs.store import bytes_of, opened


@dataclass(frozen=True)
class StudentView:
    """A student with its candidate, run, losses, folder, size in bytes, and the students made from it."""

    student: Student
    candidate: Candidate
    run: Run
    losses: list[LayerLoss]
    folder: Path
    size: int
    children: list[Student]
    layers: TeacherLayerFacts | None = None  # what its layers are compared with


@dataclass(frozen=True)
class ScoringView:
    """A scoring with its scores so far."""

    scoring: Scoring
    scores: list[Score]


@dataclass(frozen=True)
class LatencyView:
    """A candidate with its run, its sweeps, newest first, and their newest readings."""

    candidate: Candidate
    run: Run
    sweeps: list[Sweep]
    readings: list[LatencyReading]


@dataclass(frozen=True)
class SystemView:
    """A finished scoring with its run and candidate, and its student, if a student was scored."""

    scoring: Scoring
    scores: list[Score]
    run: Run
    candidate: Candidate
    student: Student | None


def read_student(db: Path, student: int) -> StudentView:
    """Returns one student with all data of its page.

    Raises:
        BadInput: there is no such student.
    """
    with opened(db, read_only=True) as store:
        row = store.student(student)
        folder = store.student_files(row.run, row.id)
        children = [other for other in store.students(row.run) if other.parent == row.id]
        candidate, run = store.candidate(row.candidate), store.run(row.run)
        losses = store.student_losses(row.id)
        layers = store.teacher_layers(row.run)
        return StudentView(row, candidate, run, losses, folder, bytes_of(folder), children, layers)


def read_students_of(db: Path, candidate: Candidate) -> list[Student]:
    """Returns the students of a candidate, newest first."""
    with opened(db, read_only=True) as store:
        return [row for row in store.students(candidate.run) if row.candidate == candidate.id]


def read_students(db: Path, run: int) -> list[Student]:
    """Returns the students of a run, newest first."""
    with opened(db, read_only=True) as store:
        return store.students(run)


def read_work_for(db: Path, source: Source) -> list[AnyWork]:
    """Returns what runs or waits for a candidate or a student: students, scorings, sweeps and exports."""
    return [work for work in read_jobs(db) if work.state in ACTIVE and _is_for(work, source)]


def _is_for(work: AnyWork, source: Source) -> bool:
    candidate, student = source.candidate.id, source.student
    if isinstance(work, Sweep):
        return work.candidate == candidate
    if isinstance(work, Student):
        return work.candidate == candidate if student is None else work.parent == student.id
    if isinstance(work, Scoring | Export):
        return (work.candidate, work.student) == (
            (candidate, None) if student is None else (None, student.id)
        )
    return False


def read_scorings(db: Path, *, candidate: int | None = None, student: int | None = None) -> list[ScoringView]:
    """Returns the scorings of a candidate itself, or of a student, newest first."""
    with opened(db, read_only=True) as store:
        return [
            ScoringView(row, store.scores(row.id))
            for row in store.scorings(candidate=candidate, student=student)
        ]


def read_export(db: Path, source: Source) -> Export | None:
    """Returns the newest export of a candidate itself, or of a student; None if the store has none."""
    with opened(db, read_only=True) as store:
        found = store.exports(**source.ids)
    return found[0] if found else None


def read_latencies(db: Path, candidate: int) -> LatencyView:
    """Returns a candidate with its sweeps and their readings.

    Raises:
        BadInput: there is no such candidate.
    """
    with opened(db, read_only=True) as store:
        row = store.candidate(candidate)
        sweeps, readings = store.sweeps(candidate=candidate), store.readings(candidate)
        return LatencyView(row, store.run(row.run), sweeps, readings)


def read_proxies(db: Path, run: int) -> Proxies | None:
    """Returns how well early measures rank the scored students of a run; None while they are too few."""
    with opened(db, read_only=True) as store:
        return proxies_of(read_scored(store, run))


def read_systems(db: Path) -> list[SystemView]:
    """Returns all finished scorings, oldest first; none if there is no store yet."""
    if not db.exists():
        return []
    with opened(db, read_only=True) as store:
        scores, students = store.all_scores(), {row.id: row for row in store.students()}
        finished = [row for row in reversed(store.scorings()) if row.state == "finished"]
        runs = {row.id: row for row in store.runs() if row.id in {scoring.run for scoring in finished}}
        candidates = {row.id: row for run in runs for row in store.candidates(run)}
    found = []
    for scoring in finished:
        student = students.get(scoring.student or 0)
        candidate = candidates.get(student.candidate if student else scoring.candidate or 0)
        # else it was deleted meanwhile, or its run cannot be read
        if candidate and scoring.id in scores and scoring.run in runs:
            found.append(SystemView(scoring, scores[scoring.id], runs[scoring.run], candidate, student))
    return found
