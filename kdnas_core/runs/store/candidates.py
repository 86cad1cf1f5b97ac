"""The rows of candidates and their losses by layer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kdnas_core.architecture import Architecture
from kdnas_core.runs.records import Candidate, LayerLoss
from kdnas_core.runs.store.base import Base, apart, only
from kdnas_core.runs.store.rows import candidate_of, losses_in_order


class Candidates(Base):
    """The table of candidates, with one row for each."""

    def begin_episode(
        self, run: int, episode: int, proposals: Sequence[tuple[Architecture, float | None]]
    ) -> None:
        """Adds an episode's proposals, each with the reward that the controller predicts for it."""
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

    def candidates(self, run: int, episode: int | None = None) -> list[Candidate]:
        """Returns the candidates of a run or an episode, in order of proposal, without latency samples."""
        return [candidate_of(row) for row in self._select("candidates", order="id", run=run, episode=episode)]

    def revision(self, run: int) -> int:
        """Returns the number of the last change of a run's candidates, steps of mini-KD aside; 0 without."""
        (found,) = self._db.query("SELECT max(revision) AS last FROM candidates WHERE run = ?", [run])
        return found["last"] or 0

    def candidates_since(self, run: int, revision: int) -> list[Candidate]:
        """Returns the candidates of a run that were changed after a revision, as `candidates`."""
        columns = ", ".join(self._light_columns("candidates"))
        rows = self._db.query(
            f"SELECT {columns} FROM candidates WHERE run = ? AND revision > ? ORDER BY id", [run, revision]
        )
        return [candidate_of(row) for row in rows]

    def candidate(self, candidate: int) -> Candidate:
        """Returns one candidate.

        Raises:
            BadInput: there is no such candidate.
        """
        missing = f"There is no candidate {candidate} in {self.path}; `show RUN` lists those of a run."
        row = only(self._select("candidates", id=candidate), missing)
        return candidate_of(row, self._samples("candidates", candidate))

    def update_candidate(self, candidate: int, **fields: Any) -> None:
        """Sets columns of a candidate; dictionaries, lists and tuples are stored as JSON."""
        self._update("candidates", candidate, candidate_columns(fields))

    def begin_attempt(self, candidate: int) -> None:
        """Begins a candidate anew and counts the attempt; called before what could end the process."""
        with self._write():
            self._db.execute("DELETE FROM layer_losses WHERE candidate = ?", [candidate])
            self._db.execute(
                """UPDATE candidates SET state = 'proposed', step = 0, notes = '[]', attempts = attempts + 1
                WHERE id = ?""",
                [candidate],
            )

    def drop_layer_losses(self, candidate: int, after: int) -> None:
        """Deletes the held-out losses of a candidate's evaluations after a step."""
        with self._write():
            self._db.execute("DELETE FROM layer_losses WHERE candidate = ? AND step > ?", [candidate, after])

    def add_layer_losses(self, candidate: int, losses: Sequence[LayerLoss]) -> None:
        """Adds the held-out losses of one evaluation during a candidate's mini-KD."""
        self._add_losses("layer_losses", "candidate", candidate, losses)

    def layer_losses(self, candidate: int) -> list[LayerLoss]:
        """Returns a candidate's held-out losses, ordered by step, term, layer and teacher layer."""
        return losses_in_order(self._db.query("SELECT * FROM layer_losses WHERE candidate = ?", [candidate]))

    def final_losses(self, candidate: int) -> list[LayerLoss]:
        """Returns the held-out losses of a candidate's last evaluation."""
        rows = self._db.query(
            """SELECT * FROM layer_losses WHERE candidate = :id
            AND step = (SELECT max(step) FROM layer_losses WHERE candidate = :id)""",
            {"id": candidate},
        )
        return losses_in_order(rows)

    def similarity(self, candidate: int) -> list[list[float]]:
        """Returns the CKA of a candidate's layers 0..M with its teacher's 0..N; empty if not measured."""
        (row,) = self._db.query("SELECT similarity FROM candidates WHERE id = ?", [candidate])
        found: list[list[float]] = json.loads(row["similarity"] or "[]")
        return found


def candidate_columns(fields: dict[str, Any]) -> dict[str, Any]:
    """Converts fields of a candidate to columns, with the samples of its latency in a column of their own."""
    return {**fields, **apart("latency", fields["latency"])} if "latency" in fields else fields
