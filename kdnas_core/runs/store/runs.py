"""The rows of runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from kdnas_core.architecture import Architecture
from kdnas_core.errors import BadInput
from kdnas_core.runs.jobs import Job, Worker
from kdnas_core.runs.records import Run, TeacherFacts, TeacherLayerFacts
from kdnas_core.runs.store.base import Base, apart, only
from kdnas_core.runs.store.rows import run_of
from kdnas_core.search.loop import Outcome
from kdnas_core.search.stopping import Outlook
from kdnas_core.spec import METHOD, RunSpec


class Runs(Base):
    """The table of runs, with one row for each search."""

    def create_run(self, spec: RunSpec, worker: Worker | None = None) -> int:
        """Queues a run, or assigns it to a worker at once; returns its id."""
        return self._create("runs", {"name": spec.name, "spec": spec.to_json(), "method": METHOD}, worker)

    def runs(self, limit: int | None = None) -> list[Run]:
        """Returns the newest runs, newest first, without the samples of their teachers' latencies.

        Those that this version cannot read are left out; `runs_and_unreadable` names them.
        """
        rows = (self._readable(row) for row in self._select_work("runs"))
        return list(islice((row for row in rows if isinstance(row, Run)), limit))

    def runs_and_unreadable(self) -> tuple[list[Run], list[str]]:
        """Returns all runs as `runs` does, and a sentence for each that this version cannot read."""
        rows = [self._readable(row) for row in self._select_work("runs")]
        return [row for row in rows if isinstance(row, Run)], [row for row in rows if isinstance(row, str)]

    def _readable(self, row: dict[str, Any], samples: Sequence[float] = ()) -> Run | str:
        """The run of a row, or why it cannot be read."""
        try:
            return run_of(row, self._leases, samples)
        except (BadInput, ValueError) as error:
            return f"Run {row['id']} cannot be read, and is kept as it is: {error}"

    def run(self, run: int) -> Run:
        """Returns one run.

        Raises:
            BadInput: there is no such run, or this version cannot read it.
        """
        missing = f"There is no run {run} in {self.path}; `python -m kdnas_core runs` lists them."
        row = only(self._select_work("runs", id=run), missing)
        found = self._readable(row, self._samples("runs", run))
        if isinstance(found, str):
            raise BadInput(found)
        return found

    def set_teacher(self, run: int, spec: RunSpec, teacher: TeacherFacts) -> None:
        """Saves the teacher's measurements and the prepared spec."""
        self._update_work(Job("runs", run), {"spec": spec.to_json(), **teacher_columns(teacher)})

    def earlier(self, run: int) -> list[Outcome] | None:
        """Returns the outcomes of earlier searches that a run learns from; None if none were kept yet."""
        (row,) = self._db.query("SELECT earlier FROM runs WHERE id = ?", [run])
        if row["earlier"] is None:
            return None
        kept: list[dict[str, Any]] = json.loads(row["earlier"])
        return [Outcome(**{**each, "architecture": Architecture(**each["architecture"])}) for each in kept]

    def set_earlier(self, run: int, outcomes: Sequence[Outcome]) -> None:
        """Keeps the outcomes of earlier searches that a run learns from."""
        self._update_work(Job("runs", run), {"earlier": [asdict(outcome) for outcome in outcomes]})

    def describe(self, run: int, name: str, note: str, tags: Sequence[str]) -> None:
        """Gives a run another name, note and tags.

        Raises:
            BadInput: there is no such run, or it has no name left.
        """
        self.run(run)
        if not name.strip():
            raise BadInput("A run needs a name; type one.")
        own = list(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
        self._update_work(Job("runs", run), {"name": name.strip(), "note": note.strip(), "tags": own})

    def archive(self, run: int, archived: bool) -> None:
        """Takes a run out of the list, or back.

        Raises:
            BadInput: there is no such run.
        """
        self.run(run)
        self._update_work(Job("runs", run), {"archived": int(archived)})

    def set_outlook(self, run: int, outlook: Outlook) -> None:
        """Saves what another episode is expected to bring."""
        self._update_work(Job("runs", run), {"outlook": asdict(outlook)})

    def set_teacher_layers(self, run: int, layers: TeacherLayerFacts) -> None:
        """Saves what a run's students are compared with layer by layer."""
        self._update_work(Job("runs", run), {"layers": asdict(layers)})

    def teacher_layers(self, run: int) -> TeacherLayerFacts | None:
        """Returns that; None if it was not measured."""
        (row,) = self._db.query("SELECT layers FROM runs WHERE id = ?", [run])
        return TeacherLayerFacts(**json.loads(row["layers"])) if row["layers"] else None


def teacher_columns(teacher: TeacherFacts) -> dict[str, Any]:
    """Converts a teacher to columns of its run."""
    facts = teacher.to_dict()
    latency = apart("latency", facts["latency"])
    return {"teacher": {**facts, "latency": latency["latency"]}, "samples": latency["samples"]}
