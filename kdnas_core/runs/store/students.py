"""The rows of students and their losses by layer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdnas_core.runs.jobs import Job, Worker
from kdnas_core.runs.records import LayerLoss, Student
from kdnas_core.runs.store.base import only
from kdnas_core.runs.store.candidates import Candidates
from kdnas_core.runs.store.rows import losses_in_order, student_of
from kdnas_core.spec import DistilSpec


class Students(Candidates):
    """The table of students, with one row for each distilled student."""

    def create_student(
        self,
        candidate: int,
        spec: DistilSpec,
        *,
        parent: int | None = None,
        notes: Sequence[str] = (),
        worker: Worker | None = None,
    ) -> int:
        """Queues a student, or assigns it to a worker at once; returns its id.

        Args:
            candidate: has the architecture.
            spec: how it is distilled.
            parent: the student whose weights it begins with; if None, a task-specific one begins with those
                of the candidate.
            notes: the student's first notes.
            worker: serves it at once; None queues it.

        Raises:
            BadInput: there is no such candidate or parent.
        """
        if parent is not None:
            self.student(parent)
        begun = {"candidate": candidate, "parent": parent, "notes": json.dumps(list(notes))}
        row = {"run": self.candidate(candidate).run, "spec": spec.model_dump_json(), **begun}
        return self._create("students", row, worker)

    def students(self, run: int | None = None) -> list[Student]:
        """Returns all students, or those of a run; newest first."""
        return [student_of(row, self._leases) for row in self._select_work("students", run=run)]

    def student(self, student: int) -> Student:
        """Returns one student.

        Raises:
            BadInput: there is no such student.
        """
        missing = (
            f"There is no student s{student} in {self.path}; `python -m kdnas_core students` lists them."
        )
        return student_of(only(self._select_work("students", id=student), missing), self._leases)

    def update_student(self, student: int, **fields: Any) -> None:
        """Sets columns of a student; dictionaries, lists and tuples are stored as JSON."""
        self._update_work(Job("students", student), fields)

    def add_student_losses(self, student: int, losses: Sequence[LayerLoss]) -> None:
        """Adds the held-out losses of one evaluation during a student's distillation."""
        self._add_losses("student_losses", "student", student, losses)

    def student_losses(self, student: int) -> list[LayerLoss]:
        """Returns a student's held-out losses, ordered by step, term, layer and teacher layer."""
        return losses_in_order(self._db.query("SELECT * FROM student_losses WHERE student = ?", [student]))

    def student_files(self, run: int, student: int) -> Path:
        """Returns the folder of a student's weights and checkpoint; does not create it."""
        return self.files(run) / "students" / str(student)
