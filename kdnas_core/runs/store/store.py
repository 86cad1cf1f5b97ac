"""The store: every run, candidate, student and score in one SQLite file.

WAL, so that readers never wait for the writer; every write is one short BEGIN IMMEDIATE transaction, so
that a kill between two of them loses nothing that was finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kdnas_core.architecture import Architecture
from kdnas_core.runs.records import TeacherFacts
from kdnas_core.runs.store.candidates import candidate_columns
from kdnas_core.runs.store.jobs import Jobs
from kdnas_core.runs.store.runs import METHOD, teacher_columns
from kdnas_core.spec import RunSpec


class Store(Jobs):
    """All that is remembered. Close it when it is of no more use."""

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
        facts = {} if teacher is None else teacher_columns(teacher)
        judged = {"key": architecture.key, "architecture": architecture.to_dict(), "episode": 1}
        with self._write():
            run = self._inserted_work("runs", {**searched, **facts, **over})
            columns = candidate_columns(candidate)
            made = self._inserted("candidates", {"state": "done", **judged, **columns, "run": run})
            begun = None if student is None else {**student, "run": run, "candidate": made, **over}
            of = None if begun is None else self._inserted_work("students", begun)
            place(run, made, of)
        return run, made, of
