"""The rows of scorings, scores, sweeps and readings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kdnas_core.latency.reading import LatencyReading
from kdnas_core.runs.jobs import Job, Worker
from kdnas_core.runs.records import Score, Scoring, Sweep
from kdnas_core.runs.store.base import apart, kept, only
from kdnas_core.runs.store.rows import reading_of, scoring_of, sweep_of
from kdnas_core.runs.store.students import Students
from kdnas_core.spec import ExportSpec, ScoreSpec, SweepSpec


class Measurements(Students):
    """The tables of scorings and sweeps."""

    def create_scoring(
        self,
        spec: ScoreSpec,
        *,
        candidate: int | None = None,
        student: int | None = None,
        worker: Worker | None = None,
    ) -> int:
        """Queues the scoring of a candidate or a student, or assigns it to a worker at once; returns its id.

        Raises:
            BadInput: there is no such candidate or student.
        """
        return self._create("scorings", self._row_of_model(spec, candidate, student), worker)

    def _row_of_model(
        self, spec: ScoreSpec | ExportSpec, candidate: int | None, student: int | None
    ) -> dict[str, Any]:
        """The columns of work on a candidate or on a student."""
        if candidate is not None and student is None:
            run = self.candidate(candidate).run
        elif student is not None and candidate is None:
            run = self.student(student).run
        else:
            raise ValueError("such work is of a candidate or of a student")
        return {"run": run, "candidate": candidate, "student": student, "spec": spec.model_dump_json()}

    def scorings(
        self, run: int | None = None, *, candidate: int | None = None, student: int | None = None
    ) -> list[Scoring]:
        """Returns all scorings, or those of a run, of a candidate itself, or of a student; newest first."""
        rows = self._select_work("scorings", run=run, candidate=candidate, student=student)
        return [scoring_of(row, self._leases) for row in rows]

    def scoring(self, scoring: int) -> Scoring:
        """Returns one scoring.

        Raises:
            BadInput: there is no such scoring.
        """
        missing = f"There is no scoring {scoring} in {self.path}; `evaluate` makes one."
        return scoring_of(only(self._select_work("scorings", id=scoring), missing), self._leases)

    def update_scoring(self, scoring: int, **fields: Any) -> None:
        """Sets columns of a scoring."""
        self._update_work(Job("scorings", scoring), fields)

    def add_scores(self, scoring: int, scores: Sequence[Score]) -> None:
        """Adds scores; each replaces one of the same subject, task, metric and seed."""
        with self._write():
            self._db.table("scores").insert_all(
                [{"scoring": scoring, **asdict(score)} for score in scores],
                pk=("scoring", "subject", "task", "metric", "seed"),
                replace=True,
            )

    def scores(self, scoring: int) -> list[Score]:
        """Returns a scoring's scores in the order in which they were added."""
        return self.all_scores(scoring).get(scoring, [])

    def all_scores(self, scoring: int | None = None) -> dict[int, list[Score]]:
        """Returns the scores of every scoring, or of one, by its id; scorings without scores are left out."""
        found: dict[int, list[Score]] = {}
        for row in self._select("scores", order="rowid", scoring=scoring):
            found.setdefault(row.pop("scoring"), []).append(Score(**row))
        return found

    def create_sweep(self, spec: SweepSpec, candidate: int, worker: Worker | None = None) -> int:
        """Queues a sweep of a candidate's latencies, or assigns it to a worker at once; returns its id.

        Raises:
            BadInput: there is no such candidate.
        """
        row = {"run": self.candidate(candidate).run, "candidate": candidate, "spec": spec.model_dump_json()}
        return self._create("sweeps", row, worker)

    def sweeps(self, run: int | None = None, *, candidate: int | None = None) -> list[Sweep]:
        """Returns all sweeps, or those of a run or of a candidate; newest first."""
        rows = self._select_work("sweeps", run=run, candidate=candidate)
        return [sweep_of(row, self._leases) for row in rows]

    def sweep(self, sweep: int) -> Sweep:
        """Returns one sweep.

        Raises:
            BadInput: there is no such sweep.
        """
        missing = f"There is no sweep {sweep} in {self.path}; `latency` makes one."
        return sweep_of(only(self._select_work("sweeps", id=sweep), missing), self._leases)

    def update_sweep(self, sweep: int, **fields: Any) -> None:
        """Sets columns of a sweep."""
        self._update_work(Job("sweeps", sweep), fields)

    def add_reading(self, sweep: int, reading: LatencyReading) -> None:
        """Adds a reading; it replaces the sweep's reading of the same runtime, batch size and length."""
        key = {name: getattr(reading, name) for name in ("runtime", "batch_size", "sequence_length")}
        row = {"sweep": sweep, **key, **apart("reading", reading.to_dict())}
        with self._write():
            self._db.table("readings").insert(kept(row), pk=("sweep", *key), replace=True)

    def readings(self, candidate: int) -> list[LatencyReading]:
        """Returns a candidate's newest reading in each runtime, batch size and length, without samples."""
        found: dict[tuple[str, int, int], LatencyReading] = {}
        for sweep in reversed(self.sweeps(candidate=candidate)):
            for row in self._select("readings", order="rowid", sweep=sweep.id):
                key = row["runtime"], row["batch_size"], row["sequence_length"]
                found[key] = reading_of(json.loads(row["reading"]), ())
        return [found[key] for key in sorted(found)]

    def candidates_in_use(self, run: int) -> set[int]:
        """Returns the candidates of a run that were scored, or that a task-specific student begins with.

        Their weights are kept, so that an export has the weights that were scored.
        """
        scored = {scoring.candidate for scoring in self.scorings(run) if scoring.candidate is not None}
        started = (row for row in self.students(run) if row.spec.task is not None and row.parent is None)
        return scored | {student.candidate for student in started}
