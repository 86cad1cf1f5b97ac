"""What earlier searches of a store have found that a new one can learn from."""

from __future__ import annotations

from typing import Any

from kdnas_core.runs.records import Run
from kdnas_core.runs.search_journal import outcome_of
from kdnas_core.runs.store import Store
from kdnas_core.search.loop import Outcome
from kdnas_core.spec import RunSpec


def earlier_outcomes(store: Store, run: Run, spec: RunSpec, teacher_ms: float) -> list[Outcome]:
    """Returns the outcomes of the searches that had ended before a run was created, and compare with it.

    Args:
        store: of the run.
        run: the new one.
        spec: of it, prepared.
        teacher_ms: the teacher's latency in it, by which the earlier latencies are scaled.
    """
    wanted = _compared_by(spec)
    return [
        outcome_of(candidate, spec.search.reward, teacher_ms)
        for other in reversed(store.runs())
        if other.finished_at is not None
        and other.finished_at < run.created_at
        and _compared_by(other.spec) == wanted
        for candidate in store.candidates(other.id)
        if candidate.state in ("done", "pruned") and not candidate.architecture.is_static
    ]


def _compared_by(spec: RunSpec) -> dict[str, Any]:
    """All that decides losses and latencies, but for the seed, which makes a repeat."""
    fields = spec.model_dump(include={"teacher", "corpus", "objective", "proxy", "tasks"})
    fields["protocol"] = spec.latency.model_dump(exclude={"budget_ms", "budget_speedup"})
    if spec.objective.start == "supernet":  # all are cut out of one that is trained for its space
        fields["space"] = spec.space.model_dump()
    return fields
