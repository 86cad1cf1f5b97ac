"""What can be compared of candidates, and why something cannot."""

from __future__ import annotations

from collections.abc import Sequence

from kdnas_core.dashboard.read.live import CandidateView, is_id
from kdnas_core.errors import BadInput

FEWEST, MOST = 2, 6


def ids_of(text: str) -> list[int]:
    """Returns the candidates that a text names, without repeats, for example "4, 7, 12".

    Raises:
        BadInput: one is no id, or there are too few or too many.
    """
    parts = [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]
    for part in parts:
        if not is_id(part):
            raise BadInput(f"{part!r} is no candidate; name some by their numbers, such as 4, 7, 12.")
    ids = list(dict.fromkeys(map(int, parts)))
    if not FEWEST <= len(ids) <= MOST:
        raise BadInput(f"Name {FEWEST} to {MOST} candidates by their numbers, such as 4, 7, 12.")
    return ids


def losses_differ_in(seen: Sequence[CandidateView]) -> str | None:
    """Says why the losses of candidates do not compare; None if they do."""
    runs = {view.run.id: view.run for view in seen}.values()
    told: dict[str, set[object]] = {
        "teacher": {run.spec.teacher for run in runs},
        "corpus": {run.spec.corpus for run in runs},
        "yardstick": {run.spec.objective.yardstick for run in runs},
        "proxy set": {run.spec.proxy.model_dump_json() for run in runs},
        "seed": {run.spec.seed for run in runs},
        "method": {run.method for run in runs},
        "tasks": {tuple(run.spec.tasks) for run in runs},
    }
    return _differ(told, "Their agreement does not compare")


def latencies_differ_in(seen: Sequence[CandidateView]) -> str | None:
    """Says why the latencies of candidates do not compare; None if they do."""
    readings = [view.candidate.latency for view in seen if view.candidate.latency is not None]
    told: dict[str, set[object]] = {
        "device": {reading.device for reading in readings},
        "runtime": {(reading.runtime, reading.dtype) for reading in readings},
        "number of threads": {reading.threads for reading in readings},
        "batch": {(reading.batch_size, reading.sequence_length) for reading in readings},
    }
    return _differ(told, "Their latencies do not compare")


def _differ(told: dict[str, set[object]], sentence: str) -> str | None:
    others = [name for name, values in told.items() if len(values) > 1]
    return f"{sentence}: they differ in {', '.join(others)}." if others else None
