"""What earlier searches of a store have found that a new one can learn from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kdnas_core.runs.records import Run
from kdnas_core.runs.search_journal import outcome_of
from kdnas_core.runs.store import Store
from kdnas_core.search.loop import Outcome
from kdnas_core.spec import RunSpec

MOST = 500  # outcomes, the newest: the time of a surrogate's fit grows with the third power


def earlier_outcomes(store: Store, run: Run, spec: RunSpec, teacher_ms: float) -> list[Outcome]:
    """Returns what a run learns from the searches that had ended before it was created, and compare with it.

    It is kept with the run when it is first asked for, so that a search that is resumed asks for the same.

    Args:
        store: of the run, open for writing.
        run: the new one.
        spec: of it, prepared.
        teacher_ms: the teacher's latency in it, by which the earlier latencies are scaled.
    """
    kept = store.earlier(run.id)
    if kept is None:
        kept = _found(store, run, spec, teacher_ms)[-MOST:]
        store.set_earlier(run.id, kept)
    return kept


def _found(store: Store, run: Run, spec: RunSpec, teacher_ms: float) -> list[Outcome]:
    wanted = _compared_by(spec)
    found = []
    for other in reversed(store.runs()):
        had_ended = other.finished_at is not None and other.finished_at < run.created_at
        if not had_ended or other.method != run.method or other.teacher is None:
            continue
        if _compared_by(other.spec) == wanted:
            found += _outcomes(store, other, other.teacher.latency.p50, teacher_ms)
    return found


def _outcomes(store: Store, other: Run, other_ms: float, teacher_ms: float) -> list[Outcome]:
    outcomes = [
        outcome_of(candidate, other.spec.search.reward, other_ms)
        for candidate in store.candidates(other.id)
        if candidate.state in ("done", "pruned") and not candidate.architecture.is_static
    ]
    return [
        replace(each, ms=None if each.ms is None else each.ms * teacher_ms / other_ms) for each in outcomes
    ]


def _compared_by(spec: RunSpec) -> dict[str, Any]:
    """All that decides losses and latencies, but for the seed, which makes a repeat."""
    fields = spec.model_dump(include={"teacher", "corpus", "objective", "proxy", "tasks"})
    fields["protocol"] = spec.latency.model_dump(exclude={"budget_ms", "budget_speedup"})
    if spec.objective.start == "supernet":  # all are cut out of one that is trained for its space
        fields["space"] = spec.space.model_dump()
    return fields
