"""The rows of candidates, and of their losses by layer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from kdnas_core.architecture import Architecture
from kdnas_core.runs.records import Candidate, LayerLoss
from kdnas_core.runs.store.base import Base, apart, only
from kdnas_core.runs.store.rows import candidate_of, losses_in_order


class Candidates(Base):
    """Candidates: one row a student that a search proposed."""

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

    def candidates(self, run: int, episode: int | None = None) -> list[Candidate]:
        """A run's candidates, or those of an episode, as they were proposed; without samples of latencies."""
        return [candidate_of(row) for row in self._select("candidates", order="id", run=run, episode=episode)]

    def candidate(self, candidate: int) -> Candidate:
        """One candidate.

        Raises:
            BadInput: there is no such candidate.
        """
        missing = f"There is no candidate {candidate} in {self.path}; `show RUN` lists those of a run."
        row = only(self._select("candidates", id=candidate), missing)
        return candidate_of(row, self._samples("candidates", candidate))

    def update_candidate(self, candidate: int, **fields: Any) -> None:
        """Sets columns of a candidate; dictionaries, lists and tuples are kept as JSON."""
        self._update("candidates", candidate, candidate_columns(fields))

    def begin_attempt(self, candidate: int) -> None:
        """Counts an attempt at a candidate, before anything is done that could end the process."""
        with self._write():
            self._db.execute("UPDATE candidates SET attempts = attempts + 1 WHERE id = ?", [candidate])

    def add_layer_losses(self, candidate: int, losses: Sequence[LayerLoss]) -> None:
        """Adds the held-out losses of one evaluation during a candidate's mini-KD."""
        self._add_losses("layer_losses", "candidate", candidate, losses)

    def layer_losses(self, candidate: int) -> list[LayerLoss]:
        """A candidate's held-out losses by step, term, layer and teacher layer."""
        return losses_in_order(self._db.query("SELECT * FROM layer_losses WHERE candidate = ?", [candidate]))


def candidate_columns(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a candidate as columns: the samples of its latency apart."""
    return {**fields, **apart("latency", fields["latency"])} if "latency" in fields else fields
