"""The table of jobs: the state, the worker and the progress of all work.

A worker claims a job under a lease: a fence, which is a number that rises with each claim, and a file lock,
which ends with its process. On the worker's host the lock shows whether it lives; on other hosts, its last
heartbeat does.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection
from typing import Literal

from kdnas_core.errors import BadInput
from kdnas_core.runs.extending import check_can_go_on, is_within_now
from kdnas_core.runs.jobs import ACTIVE, LANES, RESUMABLE, Job, Kind, Lane, Lease, RunState, Worker
from kdnas_core.runs.records import AnyWork, Run, Student
from kdnas_core.runs.score_table import figures_of
from kdnas_core.runs.store import lease_locks
from kdnas_core.runs.store.requests import Requests
from kdnas_core.runs.store.runs import Runs
from kdnas_core.spec import METHOD, RunSpec

_NOTHING = "SELECT '' AS kind, 0 AS id WHERE FALSE"
# the work that depends on a piece of work, which cannot be deleted while that is active
_DEPENDING: dict[Kind, str] = {
    "runs": """SELECT 'students' AS kind, id FROM students WHERE run = :id
        UNION ALL SELECT 'scorings', id FROM scorings WHERE run = :id
        UNION ALL SELECT 'sweeps', id FROM sweeps WHERE run = :id
        UNION ALL SELECT 'exports', id FROM exports WHERE run = :id""",
    "students": """SELECT 'students' AS kind, id FROM students WHERE parent = :id
        UNION ALL SELECT 'scorings', id FROM scorings WHERE student = :id
        UNION ALL SELECT 'exports', id FROM exports WHERE student = :id""",
    "scorings": _NOTHING,
    "sweeps": _NOTHING,
    "checks": _NOTHING,
    "exports": _NOTHING,
}


class Jobs(Runs, Requests):
    """The jobs of all kinds of work. An int stands for a run's id."""

    def work(self, job: Job | int) -> AnyWork:
        """Returns one piece of work.

        Raises:
            BadInput: it does not exist.
        """
        job = _job(job)
        look: dict[Kind, Callable[[int], AnyWork]] = {
            "runs": self.run,
            "students": self.student,
            "scorings": self.scoring,
            "sweeps": self.sweep,
            "checks": self.check,
            "exports": self.export,
        }
        return look[job.kind](job.id)

    def is_waiting(self, lane: Lane = "long") -> bool:
        """Returns whether any work of a lane is queued."""
        queued = self._db.query("SELECT DISTINCT kind FROM jobs WHERE state = 'queued'")
        return any(row["kind"] in LANES[lane] for row in queued)

    def unfinished(self, most: int = 50) -> list[Job]:
        """Returns the newest work that is running, queued, paused or failed; checks of requests aside."""
        rows = self._db.query(
            """SELECT kind, subject FROM jobs WHERE kind != 'checks'
            AND state IN ('running', 'queued', 'paused', 'failed') ORDER BY created_at DESC LIMIT ?""",
            [most],
        )
        return [Job(row["kind"], row["subject"]) for row in rows]

    def claim(self, worker: Worker, kinds: Collection[Kind] = LANES["long"]) -> AnyWork | None:
        """Assigns the oldest queued work of these kinds to a worker; returns None if there is none."""
        with self._write():
            queued = self._db.query(
                "SELECT kind, subject FROM jobs WHERE state = 'queued' ORDER BY created_at, id"
            )
            jobs = (Job(row["kind"], row["subject"]) for row in list(queued) if row["kind"] in kinds)
            job = next((job for job in jobs if self._may_go_on(job)), None)
            if job is None:
                return None
            self._lease_to(worker, job)
            self._forget_unfinished(job)  # a killed worker may have left a candidate unfinished
        return self.work(job)

    def claim_run(self, worker: Worker) -> Run | None:
        """Assigns the oldest queued run to a worker; returns None if there is none."""
        claimed = self.claim(worker, {"runs"})
        return claimed if isinstance(claimed, Run) else None

    def heartbeat(self, job: Job | int, seconds: float = 0.0) -> Literal["pause", "stop"] | None:
        """Records a heartbeat, and the seconds worked since the last one.

        Returns:
            The user's request, if there is one.
        """
        job = _job(job)
        with self._write():
            row = self._db.execute(
                """UPDATE jobs SET seconds = seconds + :seconds, heartbeat_at = :now
                WHERE kind = :kind AND subject = :id AND state = 'running' RETURNING request""",
                {"seconds": seconds, "now": time.time(), "kind": job.kind, "id": job.id},
            ).fetchone()
        return row and row[0]

    def set_activity(self, job: Job | int, activity: str) -> None:
        """Sets what the worker is doing, in words for the page."""
        self._update_work(_job(job), {"activity": activity})

    def end(self, job: Job | int, state: RunState, error: str | None = None) -> None:
        """Ends work in the given state, and releases its lease.

        A finished scoring replaces earlier ones with the same spec; a candidate's results are added to its
        `scores`. For a finished student that went on from another, what that one was scored on is queued.
        """
        job = _job(job)
        now = time.time()
        ended = {"state": state, "error": error, "request": None, "activity": "", "finished_at": now}
        with self._write():
            self._forget_unfinished(job, ended_well=True)
            self._set_job(job, {**ended, "heartbeat_at": now, "attempts": 0})
            if job.kind == "scorings" and state == "finished":
                self._publish(job.id)
            if job.kind == "students" and state == "finished":
                self._score_again(job.id)
            fence = self.work(job).fence
        lease_locks.release(self._leases, Lease(job, fence))

    def end_run(self, run: int, state: RunState, error: str | None = None) -> None:
        """Ends a run, as `end` does."""
        self.end(Job("runs", run), state, error)

    def ask(self, job: Job | int, request: Literal["pause", "stop"]) -> RunState:
        """Asks that work pause or stop, and returns its state.

        Running work obeys within seconds, at its worker's next check; other work changes its state at once.

        Raises:
            BadInput: it does not exist, or it is over.
        """
        job = _job(job)
        with self._write():
            state = self.work(job).state
            if state == "running":
                self._set_job(job, {"request": request})
                return state
            if state in ("finished", "failed") or (request == "pause" and state == "stopped"):
                what = job.title.split()[0].lower()
                raise BadInput(f"{job.title} is {state}; only a {what} that is not over can {request}.")
            asked: RunState = "paused" if request == "pause" else "stopped"
            self._forget_unfinished(job)
            self._set_job(job, {"state": asked, "request": None, "owner": None})
            return asked

    def resume(self, job: Job | int) -> RunState:
        """Queues work that was paused, stopped, interrupted or failed, and returns its state.

        Active work stays as it is, without its request to pause or stop.

        Raises:
            BadInput: it does not exist, it is finished, or another version judged candidates of the run.
        """
        job = _job(job)
        with self._write():
            state = self.work(job).state
            if state in ACTIVE:
                self._set_job(job, {"request": None})
                return state
            if state not in RESUMABLE:
                raise BadInput(f"{job.title} is {state}; there is nothing left to resume.")
            self._forget_unfinished(job)
            if job.kind == "runs":
                self._take_up_method(job.id)
            self._queue_again(job)
            return "queued"

    def extend(self, run: int, spec: RunSpec, worker: Worker | None = None) -> None:
        """Queues a run that is not active with another spec, or assigns it to a worker at once.

        What was over the budget, and may be within that of the spec, is judged again.

        Raises:
            BadInput: it does not exist, it is active, or its losses do not compare with this version's.
        """
        job = Job("runs", run)
        with self._write():
            row = self.run(run)
            check_can_go_on(row)
            self._forget_unfinished(job)
            self._set("runs", run, {"spec": spec.to_json(), "outlook": None})
            if row.teacher is not None:
                self._propose_again(run, spec, row.teacher.latency.p50)
            self._queue_again(job)
            if worker is not None:
                self._lease_to(worker, job)

    def delete(self, job: Job | int) -> None:
        """Deletes a piece of work with everything made in it, and the files.

        Raises:
            BadInput: it does not exist, is running, or is needed by other work.
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

    def delete_run(self, run: int) -> None:
        """Deletes a run, as `delete` does."""
        self.delete(Job("runs", run))

    def _refuse_if_needed(self, job: Job) -> None:
        for found in self._db.query(_DEPENDING[job.kind], {"id": job.id}):
            other = Job(found["kind"], found["id"])
            # a queued student would find no weights to begin with; all work of a run is deleted with it
            busy = ("running",) if job.kind == "runs" else ACTIVE
            if (state := self.work(other).state) in busy:
                title = other.title[0].lower() + other.title[1:]
                raise BadInput(f"{job.title} is needed by {title}, which is {state}; stop that first.")

    def _may_go_on(self, job: Job) -> bool:
        """Returns whether a queued job can be run; marks a run of another method as failed if it cannot."""
        if job.kind != "runs":
            return True
        try:
            self._take_up_method(job.id)
        except BadInput as refused:
            self._set_job(job, {"state": "failed", "error": str(refused)})
            return False
        return True

    def _take_up_method(self, run: int) -> None:
        """Sets a run's method to this version's; raises `BadInput` rather than mix losses of two methods."""
        (row,) = self._db.query(
            """SELECT method,
                EXISTS (SELECT * FROM candidates WHERE run = runs.id AND state = 'done') AS judged
            FROM runs WHERE id = ?""",
            [run],
        )
        if row["method"] != METHOD and row["judged"]:
            raise BadInput(
                f"Run {run} was begun elsewhere, or by another version of the product, whose losses do not "
                "compare with those of this one; it can be looked at as it is, and a new search goes on."
            )
        self._db.table("runs").update(run, {"method": METHOD})

    def _publish(self, scoring: int) -> None:
        """Updates a candidate's scores, and deletes earlier scorings with the same spec."""
        row = self.scoring(scoring)
        if row.candidate is not None:
            known = self.candidate(row.candidate).scores
            self._set("candidates", row.candidate, {"scores": {**known, **figures_of(self.scores(scoring))}})
        for other in self.scorings(candidate=row.candidate, student=row.student):
            if other.id < row.id and other.spec == row.spec and other.state not in ACTIVE:
                self._db.table("scorings").delete(other.id)

    def _queue_again(self, job: Job) -> None:
        """Queues work that is not active; requires an open transaction."""
        fresh = {"request": None, "error": None, "finished_at": None}
        self._set_job(job, {**fresh, "state": "queued", "owner": None})

    def _propose_again(self, run: int, spec: RunSpec, teacher_ms: float) -> None:
        """Proposes what was over budget, and may be within that of a spec, once more."""
        for candidate in self.candidates(run):
            if candidate.state == "over_budget" and is_within_now(candidate, spec, teacher_ms):
                again = {"state": "proposed", "reward": None, "attempts": 0}
                self._set("candidates", candidate.id, again)

    def _score_again(self, student: int) -> None:
        """Queues for a student each way in which the one that it went on from was scored."""
        row = self.student(student)
        if row.parent is None or row.spec.task is not None:
            return
        known = [scoring.spec for scoring in self.scorings(student=student) if scoring.state != "failed"]
        for scoring in reversed(self.scorings(student=row.parent)):
            if scoring.state == "finished" and scoring.spec not in known:
                known.append(scoring.spec)
                columns = self._row_of_model(scoring.spec, None, student)
                self._inserted_work("scorings", {**columns, "state": "queued", "created_at": time.time()})

    def _forget_unfinished(self, job: Job, ended_well: bool = False) -> None:
        """Resets the unfinished candidate of a run; other kinds of work have nothing to reset.

        Args:
            job: ended, or claimed again.
            ended_well: whether its own process ended it, so that the attempt at the candidate does not count.
        """
        if job.kind != "runs":
            return
        self._db.execute(
            """DELETE FROM layer_losses WHERE candidate IN
            (SELECT id FROM candidates WHERE run = ? AND state IN ('proposed', 'distilling'))""",
            [job.id],
        )
        self._db.execute(
            """UPDATE candidates SET state = 'proposed', step = 0, notes = '[]', languages = '{}',
                attempts = MAX(0, attempts - ?)
            WHERE run = ? AND (state = 'distilling' OR state = 'proposed' AND attempts > 0)""",
            [int(ended_well), job.id],
        )


def _job(job: Job | int) -> Job:
    return job if isinstance(job, Job) else Job("runs", job)
