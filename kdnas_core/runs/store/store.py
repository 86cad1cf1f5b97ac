"""The store: every run, candidate, student and score in one SQLite file.

It uses WAL, so that readers never wait for the writer. Every write is one short BEGIN IMMEDIATE transaction,
so that a killed process loses no finished result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kdnas_core.architecture import Architecture
from kdnas_core.runs.records import TeacherFacts
from kdnas_core.runs.store.candidates import candidate_columns
from kdnas_core.runs.store.jobs import Jobs
from kdnas_core.runs.store.runs import teacher_columns
from kdnas_core.spec import RunSpec

ELSEWHERE = 0  # the method of a run that was not judged here


class Store(Jobs):
    """All tables of the store. Close it after use."""

    def damage(self) -> str | None:
        """Returns what SQLite finds wrong with the file; None if it is whole."""
        (found,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        return None if found == "ok" else str(found)

    def import_run(
        self,
        spec: RunSpec,
        teacher: TeacherFacts | None,
        architecture: Architecture,
        candidate: dict[str, Any],
        student: dict[str, Any] | None = None,
        place: Callable[[int, int, int | None], None] = lambda run, candidate, student: None,
    ) -> tuple[int, int, int | None]:
        """Adds a finished run with one judged candidate and, if any, its student, in one transaction.

        Args:
            spec: of the original run.
            teacher: of the original run, as measured there.
            architecture: of the candidate.
            candidate: its other columns, as for `update_candidate`.
            student: columns of the student, with `spec` as JSON; None for a candidate alone.
            place: called with the ids before the commit; if it raises, nothing is added.

        Returns:
            The ids of run, candidate and student.
        """
        if spec.objective.yardstick is None:  # from a version with only one yardstick
            spec = spec.judged_by_layers()
        now = time.time()
        over = {"state": "finished", "created_at": now, "finished_at": now}
        searched = {"name": spec.name, "spec": spec.to_json(), "method": ELSEWHERE, "episode": 1}
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
