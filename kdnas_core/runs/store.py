"""The store: every run, candidate, student and score in one SQLite file. The only file with SQL.

WAL, so that readers never wait for the writer; every write is one short BEGIN IMMEDIATE transaction, so
that a kill between two of them loses nothing that was finished. Migrations are sqlite-utils' own.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sqlite_utils import Database, Migrations

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.errors import BadInput
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.runs.records import (
    ACTIVE,
    KINDS,
    RESUMABLE,
    Candidate,
    Job,
    Kind,
    LayerLoss,
    Run,
    RunState,
    Score,
    Scoring,
    Student,
    Sweep,
    TeacherFacts,
    Worker,
)
from kdnas_core.runs.score_table import figures_of
from kdnas_core.spec import DistilSpec, RunSpec, ScoreSpec, SweepSpec, parse_spec_json

BUSY_S = 30
METHOD = 4  # raised when the same spec gives a candidate another loss than before
FIRST_YARDSTICKS = 3  # the first method under which a run chooses what its candidates are compared by
LOOKS = 5  # at a file before it is refused
_FRESH = {"request": None, "error": None, "finished_at": None}  # of what is queued or claimed anew
STALE_S = 60  # without a beat, for a worker on another host, whose processes cannot be seen

_NOTHING = "SELECT '' AS kind, 0 AS id WHERE FALSE"
# what else is of no use, or has nothing to read, once such a piece of work is deleted
_DEPENDING: dict[Kind, str] = {
    "runs": """SELECT 'students' AS kind, id FROM students WHERE run = :id
        UNION ALL SELECT 'scorings', id FROM scorings WHERE run = :id
        UNION ALL SELECT 'sweeps', id FROM sweeps WHERE run = :id""",
    "students": """SELECT 'students' AS kind, id FROM students WHERE parent = :id
        UNION ALL SELECT 'scorings', id FROM scorings WHERE student = :id""",
    "scorings": _NOTHING,
    "sweeps": _NOTHING,
}
_QUEUED = " UNION ALL ".join(
    f"SELECT '{kind}' AS kind, id, created_at FROM {kind} WHERE state = 'queued'" for kind in KINDS
)

migrations = Migrations("kdnas")


@migrations(name="1_runs_candidates_layer_losses")
def _version_1(db: Database) -> None:
    # AUTOINCREMENT: the id of a deleted run is never given to another, so an old link cannot show a new run.
    db.execute("""
        CREATE TABLE runs (
            id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, state TEXT NOT NULL, spec TEXT NOT NULL,
            created_at REAL NOT NULL, finished_at REAL, heartbeat_at REAL, worker TEXT, request TEXT,
            episode INTEGER NOT NULL DEFAULT 0, activity TEXT NOT NULL DEFAULT '',
            seconds REAL NOT NULL DEFAULT 0, error TEXT, teacher TEXT)""")
    db.execute("""
        CREATE TABLE candidates (
            id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            episode INTEGER NOT NULL, state TEXT NOT NULL, key TEXT NOT NULL, architecture TEXT NOT NULL,
            parameters INTEGER, flops INTEGER, latency TEXT, loss REAL, reward REAL, predicted_reward REAL,
            scores TEXT NOT NULL DEFAULT '{}', seconds REAL NOT NULL DEFAULT 0, error TEXT,
            step INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL DEFAULT 0,
            weights INTEGER NOT NULL DEFAULT 0, UNIQUE (run, key))""")
    db.execute("""
        CREATE TABLE layer_losses (
            candidate INTEGER NOT NULL REFERENCES candidates ON DELETE CASCADE, step INTEGER NOT NULL,
            layer INTEGER NOT NULL, teacher_layer INTEGER NOT NULL, loss REAL NOT NULL,
            PRIMARY KEY (candidate, step, layer, teacher_layer))""")


@migrations(name="2_terms_notes_languages")
def _version_2(db: Database) -> None:
    db.execute("ALTER TABLE candidates ADD COLUMN notes TEXT NOT NULL DEFAULT '[]'")
    db.execute("ALTER TABLE candidates ADD COLUMN languages TEXT NOT NULL DEFAULT '{}'")
    db.execute("ALTER TABLE runs ADD COLUMN method INTEGER NOT NULL DEFAULT 1")
    # SQLite cannot change a primary key: the table is made anew, what it holds was the loss of hidden states
    db.execute("ALTER TABLE layer_losses RENAME TO layer_losses_1")
    db.execute("""
        CREATE TABLE layer_losses (
            candidate INTEGER NOT NULL REFERENCES candidates ON DELETE CASCADE, step INTEGER NOT NULL,
            term TEXT NOT NULL DEFAULT 'hidden', layer INTEGER NOT NULL, teacher_layer INTEGER NOT NULL,
            loss REAL NOT NULL, PRIMARY KEY (candidate, step, term, layer, teacher_layer))""")
    db.execute("""
        INSERT INTO layer_losses (candidate, step, layer, teacher_layer, loss)
        SELECT candidate, step, layer, teacher_layer, loss FROM layer_losses_1""")
    db.execute("DROP TABLE layer_losses_1")


# the columns of a piece of work that is not a run
_WORK = """state TEXT NOT NULL, created_at REAL NOT NULL, finished_at REAL, heartbeat_at REAL, worker TEXT,
    request TEXT, activity TEXT NOT NULL DEFAULT '', step INTEGER NOT NULL DEFAULT 0,
    steps INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0, error TEXT"""


@migrations(name="3_students_scorings")
def _version_3(db: Database) -> None:
    # no REFERENCES: a student stays as it is when the one that it was made from is deleted
    db.execute(f"""
        CREATE TABLE students (
            id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            candidate INTEGER NOT NULL REFERENCES candidates ON DELETE CASCADE, parent INTEGER,
            spec TEXT NOT NULL, loss REAL, notes TEXT NOT NULL DEFAULT '[]',
            languages TEXT NOT NULL DEFAULT '{{}}', {_WORK})""")
    db.execute("""
        CREATE TABLE student_losses (
            student INTEGER NOT NULL REFERENCES students ON DELETE CASCADE, step INTEGER NOT NULL,
            term TEXT NOT NULL DEFAULT 'hidden', layer INTEGER NOT NULL, teacher_layer INTEGER NOT NULL,
            loss REAL NOT NULL, PRIMARY KEY (student, step, term, layer, teacher_layer))""")
    db.execute(f"""
        CREATE TABLE scorings (
            id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            candidate INTEGER REFERENCES candidates ON DELETE CASCADE,
            student INTEGER REFERENCES students ON DELETE CASCADE, spec TEXT NOT NULL, {_WORK})""")
    db.execute("""
        CREATE TABLE scores (
            scoring INTEGER NOT NULL REFERENCES scorings ON DELETE CASCADE, subject TEXT NOT NULL,
            task TEXT NOT NULL, metric TEXT NOT NULL, seed INTEGER NOT NULL, value REAL NOT NULL, rate REAL,
            PRIMARY KEY (scoring, subject, task, metric, seed))""")


@migrations(name="4_sweeps_estimates")
def _version_4(db: Database) -> None:
    db.execute("ALTER TABLE candidates ADD COLUMN estimated_ms REAL")
    db.execute(f"""
        CREATE TABLE sweeps (
            id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            candidate INTEGER NOT NULL REFERENCES candidates ON DELETE CASCADE,
            spec TEXT NOT NULL, {_WORK})""")
    db.execute("""
        CREATE TABLE readings (
            sweep INTEGER NOT NULL REFERENCES sweeps ON DELETE CASCADE, runtime TEXT NOT NULL,
            batch_size INTEGER NOT NULL, sequence_length INTEGER NOT NULL, reading TEXT NOT NULL,
            PRIMARY KEY (sweep, runtime, batch_size, sequence_length))""")


@migrations(name="5_standard_errors_cuts")
def _version_5(db: Database) -> None:
    for table in ("candidates", "students"):
        db.execute(f"ALTER TABLE {table} ADD COLUMN loss_se REAL")
        db.execute(f"ALTER TABLE {table} ADD COLUMN cut_from TEXT NOT NULL DEFAULT '[]'")


class Store:
    """One connection to a store; use it in the thread that opened it, and close it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = Database(connection)

    def close(self) -> None:
        """Closes the connection; the store is of no use afterwards."""
        self._db.close()

    # --- runs ---------------------------------------------------------------------------------------------

    def create_run(self, spec: RunSpec, worker: Worker | None = None) -> int:
        """Queues a run, or starts it as this worker's at once, and returns its id."""
        return self._create("runs", {"name": spec.name, "spec": spec.to_json(), "method": METHOD}, worker)

    def runs(self) -> list[Run]:
        """All runs, newest first."""
        return [_run(row) for row in self._db.query("SELECT * FROM runs ORDER BY id DESC")]

    def run(self, run: int) -> Run:
        """One run.

        Raises:
            BadInput: there is no such run.
        """
        rows = list(self._db.query("SELECT * FROM runs WHERE id = ?", [run]))
        if not rows:
            raise BadInput(f"There is no run {run} in {self.path}; `python -m kdnas_core runs` lists them.")
        return _run(rows[0])

    def set_teacher(self, run: int, spec: RunSpec, teacher: TeacherFacts) -> None:
        """Keeps the teacher's measurements and the spec with its space filled in."""
        self._update("runs", run, {"spec": spec.to_json(), "teacher": json.dumps(teacher.to_dict())})

    def claim_run(self, worker: Worker) -> Run | None:
        """Makes the oldest queued run this worker's; None where there is none."""
        claimed = self.claim(worker, {"runs"})
        return claimed if isinstance(claimed, Run) else None

    def end_run(self, run: int, state: RunState, error: str | None = None) -> None:
        """Takes the run from its worker, as `end` does."""
        self.end(Job("runs", run), state, error)

    def delete_run(self, run: int) -> None:
        """Deletes a run, its candidates and their files, as `delete` does."""
        self.delete(Job("runs", run))

    def files(self, run: int, candidate: int | None = None) -> Path:
        """The folder of a run's files, or of one of its candidates' weights; made by who writes there."""
        folder = files_of(self.path) / str(run)
        return folder if candidate is None else folder / str(candidate)

    # --- runs, students, scorings, sweeps: a number alone is a run's id ------------------------------------

    def work(self, job: Job | int) -> Run | Student | Scoring | Sweep:
        """One piece of work.

        Raises:
            BadInput: there is none such.
        """
        job = _job(job)
        look: dict[Kind, Callable[[int], Run | Student | Scoring | Sweep]] = {
            "runs": self.run,
            "students": self.student,
            "scorings": self.scoring,
            "sweeps": self.sweep,
        }
        return look[job.kind](job.id)

    def is_waiting(self) -> bool:
        """Whether anything is queued."""
        return bool(list(self._db.query(f"{_QUEUED} LIMIT 1")))

    def claim(
        self, worker: Worker, kinds: Collection[Kind] = KINDS
    ) -> Run | Student | Scoring | Sweep | None:
        """Makes the piece of work of these kinds that was queued first this worker's; None for none."""
        with self._write():
            queued = [
                row for row in self._db.query(f"{_QUEUED} ORDER BY created_at, id") if row["kind"] in kinds
            ]
            jobs = (Job(row["kind"], row["id"]) for row in queued)
            job = next((job for job in jobs if self._may_go_on(job)), None)
            if job is None:
                return None
            now = time.time()
            served = {"state": "running", "worker": json.dumps(asdict(worker)), "heartbeat_at": now}
            self._db.table(job.kind).update(job.id, {**_FRESH, **served})
            self._forget_unfinished(job)  # what a killed worker left half done is to be done again
        return self.work(job)

    def heartbeat(self, job: Job | int) -> None:
        """Says that the worker lives, and counts the time since it last said so as worked."""
        job = _job(job)
        with self._write():
            self._db.execute(
                f"""UPDATE {job.kind} SET seconds = seconds + (:now - heartbeat_at), heartbeat_at = :now
                WHERE id = :id AND state = 'running'""",
                {"now": time.time(), "id": job.id},
            )

    def set_activity(self, job: Job | int, activity: str) -> None:
        """What the worker does now, in words for the page."""
        job = _job(job)
        self._update(job.kind, job.id, {"activity": activity})

    def end(self, job: Job | int, state: RunState, error: str | None = None) -> None:
        """Takes work from its worker: finished, failed, paused, stopped or interrupted.

        A finished scoring takes the place of earlier ones that asked the same; the figures of a candidate
        become its `scores`.
        """
        job = _job(job)
        self.heartbeat(job)
        now = time.time()
        fields = {"state": state, "error": error, "request": None, "activity": "", "finished_at": now}
        with self._write():
            self._forget_unfinished(job)
            self._db.table(job.kind).update(job.id, fields)
            if job.kind == "scorings" and state == "finished":
                self._publish(job.id)

    def ask(self, job: Job | int, request: Literal["pause", "stop"]) -> RunState:
        """Asks that a run, student or scoring pause or stop, and returns its state.

        A running one obeys within seconds, when its worker next looks; any other changes here.

        Raises:
            BadInput: there is none such, or it is over.
        """
        job = _job(job)
        with self._write():
            state = self.work(job).state
            if state == "running":
                self._db.table(job.kind).update(job.id, {"request": request})
                return state
            if state in ("finished", "failed") or (request == "pause" and state == "stopped"):
                what = job.title.split()[0].lower()
                raise BadInput(f"{job.title} is {state}; only a {what} that is not over can {request}.")
            asked: RunState = "paused" if request == "pause" else "stopped"
            self._forget_unfinished(job)
            self._db.table(job.kind).update(job.id, {"state": asked, "request": None, "worker": None})
            return asked

    def resume(self, job: Job | int) -> RunState:
        """Queues what was paused, stopped, interrupted or failed; what is active stays as it is.

        Raises:
            BadInput: there is none such, it is finished, or another version has judged candidates of a run.
        """
        job = _job(job)
        with self._write():
            state = self.work(job).state
            if state in ACTIVE:
                self._db.table(job.kind).update(job.id, {"request": None})
                return state
            if state not in RESUMABLE:
                raise BadInput(f"{job.title} is {state}; there is nothing left to resume.")
            self._forget_unfinished(job)
            if job.kind == "runs":
                self._take_up_method(job.id)
            self._db.table(job.kind).update(job.id, {**_FRESH, "state": "queued", "worker": None})
            return "queued"

    def delete(self, job: Job | int) -> None:
        """Deletes a run, a student or a scoring with all that is of it, and their files.

        Raises:
            BadInput: there is none such, or a worker is at it or at something that needs it.
        """
        job = _job(job)
        with self._write():
            row = self.work(job)
            if row.state == "running":
                raise BadInput(f"{job.title} is running; stop it before you delete it.")
            self._refuse_if_needed(job)
            self._db.table(job.kind).delete(job.id)
        if isinstance(row, Run):
            shutil.rmtree(self.files(row.id), ignore_errors=True)
        elif isinstance(row, Student):
            shutil.rmtree(self.student_files(row.run, row.id), ignore_errors=True)

    def _refuse_if_needed(self, job: Job) -> None:
        for found in self._db.query(_DEPENDING[job.kind], {"id": job.id}):
            other = Job(found["kind"], found["id"])
            # a student that is queued would find nothing to begin with; of a run all goes with it
            busy = ("running",) if job.kind == "runs" else ACTIVE
            if (state := self.work(other).state) in busy:
                title = other.title[0].lower() + other.title[1:]
                raise BadInput(f"{job.title} is needed by {title}, which is {state}; stop that first.")

    def _may_go_on(self, job: Job) -> bool:
        """Whether what is queued can be worked on; a run of another method that cannot fails and says why."""
        if job.kind != "runs":
            return True
        try:
            self._take_up_method(job.id)
        except BadInput as refused:
            self._db.table("runs").update(job.id, {"state": "failed", "error": str(refused)})
            return False
        return True

    def _take_up_method(self, run: int) -> None:
        """Refuses to mix losses of two methods in one run, where they could not be told apart."""
        (row,) = self._db.query(
            """SELECT method,
                EXISTS (SELECT * FROM candidates WHERE run = runs.id AND state = 'done') AS judged
            FROM runs WHERE id = ?""",
            [run],
        )
        if row["method"] != METHOD and row["judged"]:
            raise BadInput(
                f"Run {run} was begun by another version of the product, whose losses do not compare with "
                "those of this one; it can be looked at as it is, and a new search goes on."
            )
        self._db.table("runs").update(run, {"method": METHOD})

    # --- candidates ---------------------------------------------------------------------------------------

    def begin_episode(
        self, run: int, episode: int, proposals: Sequence[tuple[Architecture, float | None]]
    ) -> None:
        """Records an episode's proposals, each with the reward that the controller predicts for it."""
        rows = [
            {
                "run": run,
                "episode": episode,
                "state": "proposed",
                "key": architecture.key,
                "architecture": json.dumps(architecture.to_dict()),
                "predicted_reward": predicted,
            }
            for architecture, predicted in proposals
        ]
        with self._write():
            self._db.table("candidates").insert_all(rows, pk="id")
            self._db.table("runs").update(run, {"episode": episode})

    def candidates(self, run: int) -> list[Candidate]:
        """A run's candidates in the order they were proposed."""
        rows = self._db.query("SELECT * FROM candidates WHERE run = ? ORDER BY id", [run])
        return [_candidate(row) for row in rows]

    def candidate(self, candidate: int) -> Candidate:
        """One candidate.

        Raises:
            BadInput: there is no such candidate.
        """
        rows = list(self._db.query("SELECT * FROM candidates WHERE id = ?", [candidate]))
        if not rows:
            raise BadInput(
                f"There is no candidate {candidate} in {self.path}; `show RUN` lists those of a run."
            )
        return _candidate(rows[0])

    def update_candidate(self, candidate: int, **fields: Any) -> None:
        """Sets columns of a candidate; dictionaries, lists and tuples are kept as JSON."""
        self._update("candidates", candidate, _kept(fields))

    def add_layer_losses(self, candidate: int, losses: Sequence[LayerLoss]) -> None:
        """Adds the held-out losses of one evaluation during a candidate's mini-KD."""
        self._add_losses("layer_losses", "candidate", candidate, losses)

    def layer_losses(self, candidate: int) -> list[LayerLoss]:
        """A candidate's held-out losses by step, term, layer and teacher layer."""
        return _in_order(self._db.query("SELECT * FROM layer_losses WHERE candidate = ?", [candidate]))

    def candidates_in_use(self, run: int) -> set[int]:
        """Candidates of a run that were scored, or that a task-specific student begins with.

        Their weights are to be kept: what is shown of them is to stay true of what is exported.
        """
        scored = {scoring.candidate for scoring in self.scorings(run) if scoring.candidate is not None}
        started = (row for row in self.students(run) if row.spec.task is not None and row.parent is None)
        return scored | {student.candidate for student in started}

    # --- students -----------------------------------------------------------------------------------------

    def create_student(
        self,
        candidate: int,
        spec: DistilSpec,
        *,
        parent: int | None = None,
        notes: Sequence[str] = (),
        worker: Worker | None = None,
    ) -> int:
        """Queues a student, or starts it as this worker's at once, and returns its id.

        Args:
            candidate: whose architecture it gets.
            spec: how it is distilled.
            parent: the student whose weights a task-specific one begins with; the candidate's, if None.
            notes: what is to be known of it from the start.
            worker: who serves it, where that is known.

        Raises:
            BadInput: there is no such candidate or parent.
        """
        if parent is not None:
            self.student(parent)
        begun = {"candidate": candidate, "parent": parent, "notes": json.dumps(list(notes))}
        row = {"run": self.candidate(candidate).run, "spec": spec.model_dump_json(), **begun}
        return self._create("students", row, worker)

    def students(self, run: int | None = None) -> list[Student]:
        """All students, or those of a run, newest first."""
        return [_student(row) for row in self._select("students", run=run)]

    def student(self, student: int) -> Student:
        """One student.

        Raises:
            BadInput: there is no such student.
        """
        rows = self._select("students", id=student)
        if not rows:
            raise BadInput(
                f"There is no student s{student} in {self.path}; `python -m kdnas_core students` lists them."
            )
        return _student(rows[0])

    def update_student(self, student: int, **fields: Any) -> None:
        """Sets columns of a student; dictionaries, lists and tuples are kept as JSON."""
        self._update("students", student, _kept(fields))

    def add_student_losses(self, student: int, losses: Sequence[LayerLoss]) -> None:
        """Adds the held-out losses of one evaluation during a student's distillation."""
        self._add_losses("student_losses", "student", student, losses)

    def student_losses(self, student: int) -> list[LayerLoss]:
        """A student's held-out losses by step, term, layer and teacher layer."""
        return _in_order(self._db.query("SELECT * FROM student_losses WHERE student = ?", [student]))

    def student_files(self, run: int, student: int) -> Path:
        """The folder of a student's weights, and of its checkpoint; made by who writes there."""
        return self.files(run) / "students" / str(student)

    # --- scorings -----------------------------------------------------------------------------------------

    def create_scoring(
        self,
        spec: ScoreSpec,
        *,
        candidate: int | None = None,
        student: int | None = None,
        worker: Worker | None = None,
    ) -> int:
        """Queues the scoring of a candidate or of a student, or starts it as this worker's; returns its id.

        Raises:
            BadInput: there is no such candidate or student.
        """
        if candidate is not None and student is None:
            run = self.candidate(candidate).run
        elif student is not None and candidate is None:
            run = self.student(student).run
        else:
            raise ValueError("a scoring is of a candidate or of a student")
        row = {"run": run, "candidate": candidate, "student": student, "spec": spec.model_dump_json()}
        return self._create("scorings", row, worker)

    def scorings(
        self, run: int | None = None, *, candidate: int | None = None, student: int | None = None
    ) -> list[Scoring]:
        """All scorings, or those of a run, of a candidate itself, or of a student; newest first."""
        rows = self._select("scorings", run=run, candidate=candidate, student=student)
        return [_scoring(row) for row in rows]

    def scoring(self, scoring: int) -> Scoring:
        """One scoring.

        Raises:
            BadInput: there is no such scoring.
        """
        rows = self._select("scorings", id=scoring)
        if not rows:
            raise BadInput(f"There is no scoring {scoring} in {self.path}; `evaluate` makes one.")
        return _scoring(rows[0])

    def update_scoring(self, scoring: int, **fields: Any) -> None:
        """Sets columns of a scoring."""
        self._update("scorings", scoring, fields)

    def add_scores(self, scoring: int, scores: Sequence[Score]) -> None:
        """Adds scores, each in the place of one of the same subject, task, metric and seed."""
        with self._write():
            self._db.table("scores").insert_all(
                [{"scoring": scoring, **asdict(score)} for score in scores],
                pk=("scoring", "subject", "task", "metric", "seed"),
                replace=True,
            )

    def scores(self, scoring: int) -> list[Score]:
        """A scoring's scores in the order in which they came in."""
        return self.all_scores(scoring).get(scoring, [])

    def all_scores(self, scoring: int | None = None) -> dict[int, list[Score]]:
        """The scores of every scoring that has any, by its id."""
        found: dict[int, list[Score]] = {}
        for row in self._select("scores", order="rowid", scoring=scoring):
            found.setdefault(row.pop("scoring"), []).append(Score(**row))
        return found

    # --- sweeps -------------------------------------------------------------------------------------------

    def create_sweep(self, spec: SweepSpec, candidate: int, worker: Worker | None = None) -> int:
        """Queues a sweep of a candidate's latencies, or starts it as this worker's; returns its id.

        Raises:
            BadInput: there is no such candidate.
        """
        row = {"run": self.candidate(candidate).run, "candidate": candidate, "spec": spec.model_dump_json()}
        return self._create("sweeps", row, worker)

    def sweeps(self, run: int | None = None, *, candidate: int | None = None) -> list[Sweep]:
        """All sweeps, or those of a run or of a candidate, newest first."""
        return [_sweep(row) for row in self._select("sweeps", run=run, candidate=candidate)]

    def sweep(self, sweep: int) -> Sweep:
        """One sweep.

        Raises:
            BadInput: there is no such sweep.
        """
        rows = self._select("sweeps", id=sweep)
        if not rows:
            raise BadInput(f"There is no sweep {sweep} in {self.path}; `latency` makes one.")
        return _sweep(rows[0])

    def update_sweep(self, sweep: int, **fields: Any) -> None:
        """Sets columns of a sweep."""
        self._update("sweeps", sweep, fields)

    def add_reading(self, sweep: int, reading: LatencyReading) -> None:
        """Adds what was measured, in the place of a reading of the same runtime, batch size and length."""
        key = {name: getattr(reading, name) for name in ("runtime", "batch_size", "sequence_length")}
        row = {"sweep": sweep, **key, "reading": json.dumps(reading.to_dict())}
        with self._write():
            self._db.table("readings").insert(row, pk=("sweep", *key), replace=True)

    def readings(self, candidate: int) -> list[LatencyReading]:
        """The newest reading of each runtime, batch size and length that sweeps of a candidate have taken."""
        found: dict[tuple[str, int, int], LatencyReading] = {}
        for sweep in reversed(self.sweeps(candidate=candidate)):
            for row in self._select("readings", order="rowid", sweep=sweep.id):
                key = row["runtime"], row["batch_size"], row["sequence_length"]
                found[key] = LatencyReading.from_dict(json.loads(row["reading"]))
        return [found[key] for key in sorted(found)]

    # --- what comes back from elsewhere -------------------------------------------------------------------

    def import_run(
        self,
        spec: RunSpec,
        teacher: TeacherFacts | None,
        architecture: Architecture,
        candidate: dict[str, Any],
        student: dict[str, Any] | None = None,
        place: Callable[[int, int, int | None], None] = lambda run, candidate, student: None,
    ) -> tuple[int, int, int | None]:
        """A finished run with one judged candidate, and the student made of it, all at once or nothing.

        Args:
            spec: of the run that it came from.
            teacher: of that run, as it was measured there.
            architecture: of the candidate.
            candidate: its other columns, as for `update_candidate`.
            student: columns of the student, `spec` among them as JSON; None where the candidate came alone.
            place: told the ids before anything is kept; where it raises, nothing is.

        Returns:
            The ids of run, candidate and student.
        """
        if spec.objective.yardstick is None:  # it was judged by a version that knew but one
            spec = spec.judged_by_layers()
        now = time.time()
        over = {"state": "finished", "created_at": now, "finished_at": now}
        searched = {"name": spec.name, "spec": spec.to_json(), "method": METHOD, "episode": 1}
        facts = {"teacher": None if teacher is None else json.dumps(teacher.to_dict())}
        judged = {"key": architecture.key, "architecture": architecture.to_dict(), "episode": 1}
        with self._write():
            run = self._inserted("runs", {**searched, **facts, **over})
            made = self._inserted("candidates", {"state": "done", **judged, **candidate, "run": run})
            begun = None if student is None else {**student, "run": run, "candidate": made, **over}
            of = None if begun is None else self._inserted("students", begun)
            place(run, made, of)
        return run, made, of

    # --- inside -------------------------------------------------------------------------------------------

    def _inserted(self, table: str, row: dict[str, Any]) -> int:
        made = self._db.table(table).insert(_kept(row), pk="id").last_pk
        assert isinstance(made, int)
        return made

    def migrate(self) -> None:
        """Brings the tables up to date; safe from several processes at once."""
        if migrations.pending(self._db):
            with self._write():
                migrations.apply(self._db)

    @contextmanager
    def _write(self) -> Iterator[None]:
        # IMMEDIATE: a deferred transaction that reads first fails at once when another wrote meanwhile.
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.conn.rollback()
            raise
        self._db.conn.commit()

    def _update(self, table: str, row: int, fields: dict[str, Any]) -> None:
        with self._write():
            self._db.table(table).update(row, fields)

    def _create(self, kind: Kind, row: dict[str, Any], worker: Worker | None) -> int:
        now = time.time()
        row = {**row, "state": "queued", "created_at": now}
        if worker is not None:
            row |= {"state": "running", "worker": json.dumps(asdict(worker)), "heartbeat_at": now}
        with self._write():
            return self._inserted(kind, row)

    def _select(self, table: str, order: str = "id DESC", **wanted: int | None) -> list[dict[str, Any]]:
        """Rows with these values, where they are given."""
        if table not in self._db.table_names():
            return []  # a file of an earlier version that is opened for reading alone is not migrated
        given = {column: value for column, value in wanted.items() if value is not None}
        where = " AND ".join(f"{column} = :{column}" for column in given) or "TRUE"
        return list(self._db.query(f"SELECT * FROM {table} WHERE {where} ORDER BY {order}", given))

    def _add_losses(self, table: str, owner: str, row: int, losses: Sequence[LayerLoss]) -> None:
        with self._write():
            self._db.table(table).insert_all(
                [{owner: row, **asdict(loss)} for loss in losses],
                pk=(owner, "step", "term", "layer", "teacher_layer"),
                replace=True,  # an evaluation that a training which went on makes again
            )

    def _publish(self, scoring: int) -> None:
        """What follows from a scoring that is finished."""
        row = self.scoring(scoring)
        if row.candidate is not None:
            known = self.candidate(row.candidate).scores
            figures = json.dumps({**known, **figures_of(self.scores(scoring))})
            self._db.table("candidates").update(row.candidate, {"scores": figures})
        for other in self.scorings(candidate=row.candidate, student=row.student):
            if other.id < row.id and other.spec == row.spec and other.state not in ACTIVE:
                self._db.table("scorings").delete(other.id)

    def _forget_unfinished(self, job: Job) -> None:
        """Of a run the candidate in hand; a student goes on from its checkpoint, the rest loses nothing."""
        if job.kind != "runs":
            return
        self._db.execute(
            """DELETE FROM layer_losses WHERE candidate IN
            (SELECT id FROM candidates WHERE run = ? AND state IN ('proposed', 'distilling'))""",
            [job.id],
        )
        self._db.execute(
            """UPDATE candidates SET state = 'proposed', step = 0, notes = '[]', languages = '{}'
            WHERE run = ? AND state = 'distilling'""",
            [job.id],
        )


def files_of(path: Path) -> Path:
    """The folder beside a store that holds the files of its runs."""
    return path.with_name(f"{path.name}.files")


def bytes_of(folder: Path) -> int:
    """How many bytes the files of a folder take; 0 where there is none. It may change meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def check_path(path: Path) -> None:
    """Refuses, without writing, what `connect` would refuse.

    Raises:
        BadInput: the file is not a store, is of a newer version, or cannot be one.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise BadInput(f"{path} cannot hold the runs: name a file in a folder that exists with --db.")
    if path.exists():
        _check_ours(path)


def connect(path: Path) -> Store:
    """Opens a store for writing, made and migrated where that is needed.

    Raises:
        BadInput: the file is not a store, is of a newer version, or cannot be written.
    """
    check_path(path)  # before anything is written to a file that may be somebody else's
    connection = _connect(path.resolve().as_uri(), path)
    try:
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        store = Store(path, connection)
        store.migrate()
    except sqlite3.OperationalError as error:
        connection.close()
        raise BadInput(f"{path} cannot be written ({error}); name another file with --db.") from None
    return store


def connect_read_only(path: Path) -> Store:
    """Opens a store that exists for reading alone; nothing done through it can change the file.

    Raises:
        BadInput: there is no such file, it is not a store, or is of a newer version.
    """
    if not path.is_file():
        raise BadInput(f"There is no {path}; start a search first, or name another file with --db.")
    if not _check_ours(path):
        raise BadInput(f"{path} holds no runs yet; start a search first, or name another file with --db.")
    return Store(path, _connect(f"{path.resolve().as_uri()}?mode=ro", path))


@contextmanager
def opened(path: Path, *, read_only: bool = False) -> Iterator[Store]:
    """A store for the length of a `with` block; raises as `connect` and `connect_read_only` do."""
    store = connect_read_only(path) if read_only else connect(path)
    try:
        yield store
    finally:
        store.close()


def _connect(uri: str, path: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise BadInput(f"{path} cannot be opened ({error}); name another file with --db.") from None


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turns WAL on; SQLite itself does not wait here, whatever the timeout, for one who does the same."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _check_ours(path: Path) -> bool:
    """Whether a store that is ours, or empty, has its tables yet; leaves nothing beside one that is not."""
    for _ in range(LOOKS):
        try:
            return _looks_ours(path)
        except BadInput:
            # another process may be making it this moment: without its lock, half of it can be seen
            time.sleep(0.05)
    return _looks_ours(path)


def _looks_ours(path: Path) -> bool:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    if not path.with_name(f"{path.name}-wal").exists():
        uri += "&immutable=1"  # else SQLite would leave side files beside a file that is refused
    try:
        with closing(_connect(uri, path)) as connection:
            db = Database(connection)
            tables = set(db.table_names())
            applied = {migration.name for migration in migrations.applied(db)}
    except sqlite3.DatabaseError:
        raise BadInput(
            f"{path} is not a database of runs; move it away or name another file with --db."
        ) from None
    if applied - _known_migrations():
        raise BadInput(
            f"{path} comes from a newer version of KD-NAS Studio; update this one, or name another with --db."
        )
    if tables and not applied:
        raise BadInput(f"{path} is the database of another program; name another file with --db.")
    return bool(applied)


@cache
def _known_migrations() -> frozenset[str]:
    with closing(sqlite3.connect(":memory:")) as empty:
        return frozenset(migration.name for migration in migrations.pending(Database(empty)))


def _job(job: Job | int) -> Job:
    return job if isinstance(job, Job) else Job("runs", job)


def _kept(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: json.dumps(value) if isinstance(value, dict | list | tuple) else value
        for name, value in fields.items()
    }


def _served(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its worker, and with its state as it is while that worker lives, or does not."""
    worker = Worker(**json.loads(row["worker"])) if row["worker"] else None
    state: RunState = row["state"]
    stale = worker and worker.is_elsewhere() and time.time() - (row["heartbeat_at"] or 0) > STALE_S
    if state == "running" and (stale or not (worker and worker.is_alive())):
        state = "interrupted"
    return {**row, "state": state, "worker": worker}


def _run(row: dict[str, Any]) -> Run:
    teacher = json.loads(row["teacher"]) if row["teacher"] else None
    spec = parse_spec_json(row["spec"])
    if row.get("method", 1) < FIRST_YARDSTICKS and spec.objective.yardstick is None:
        spec = spec.judged_by_layers()
    return Run(
        **{
            **{name: value for name, value in _served(row).items() if name != "method"},
            "spec": spec,
            "teacher": teacher and _teacher(teacher),
        }
    )


def _student(row: dict[str, Any]) -> Student:
    return Student(
        **{
            **_served(row),
            "spec": DistilSpec.model_validate_json(row["spec"]),
            "notes": tuple(json.loads(row["notes"])),
            "languages": json.loads(row["languages"]),
            "cut_from": _sources(row),
        }
    )


def _sources(row: dict[str, Any]) -> tuple[LayerSource, ...]:
    # a file of an earlier version that is opened for reading alone is not migrated, and has none
    return tuple(LayerSource.from_dict(each) for each in json.loads(row.get("cut_from", "[]")))


def _scoring(row: dict[str, Any]) -> Scoring:
    return Scoring(**{**_served(row), "spec": ScoreSpec.model_validate_json(row["spec"])})


def _sweep(row: dict[str, Any]) -> Sweep:
    return Sweep(**{**_served(row), "spec": SweepSpec.model_validate_json(row["spec"])})


def _teacher(facts: dict[str, Any]) -> TeacherFacts:
    return TeacherFacts(
        **{
            **facts,
            "architecture": Architecture(**facts["architecture"]),
            "latency": LatencyReading.from_dict(facts["latency"]),
        }
    )


def _candidate(row: dict[str, Any]) -> Candidate:
    del row["key"]
    latency = json.loads(row["latency"]) if row["latency"] else None
    return Candidate(
        **{
            **row,
            "architecture": Architecture(**json.loads(row["architecture"])),
            "latency": latency and LatencyReading.from_dict(latency),
            "scores": json.loads(row["scores"]),
            # a file of version 1 that is opened for reading alone is not migrated, and has neither
            "notes": tuple(json.loads(row.get("notes", "[]"))),
            "languages": json.loads(row.get("languages", "{}")),
            "cut_from": _sources(row),
            "weights": bool(row["weights"]),
        }
    )


def _in_order(rows: Iterable[dict[str, Any]]) -> list[LayerLoss]:
    owners = ("candidate", "student")
    losses = [LayerLoss(**{name: row[name] for name in row if name not in owners}) for row in rows]
    return sorted(losses, key=lambda loss: (loss.step, loss.term, loss.layer, loss.teacher_layer))
