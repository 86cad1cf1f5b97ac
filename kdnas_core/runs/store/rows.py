"""Converts rows of the store to typed records."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from kdnas_core.architecture import Architecture, LayerSource
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.runs.jobs import Job, Kind, Lease, RunState, Worker
from kdnas_core.runs.records import (
    Candidate,
    Check,
    Export,
    LayerLoss,
    Run,
    Scoring,
    Student,
    Sweep,
    TeacherFacts,
)
from kdnas_core.runs.store import lease_locks
from kdnas_core.search.stopping import Outlook
from kdnas_core.spec import (
    ExportSpec,
    ScoreSpec,
    SweepSpec,
    parse_spec_json,
    parse_stored_distil,
    parse_stored_spec,
)

FIRST_YARDSTICKS = 3  # the first method with a choice of yardsticks
LEASE_S = 60  # since the last heartbeat; for a worker on another host, whose lock cannot be seen


def run_of(row: dict[str, Any], leases: Path, samples: Sequence[float] = ()) -> Run:
    """Converts a row to a run; the samples are those of its teacher's latency."""
    teacher = json.loads(row["teacher"]) if row["teacher"] else None
    spec = parse_stored_spec(row["spec"])
    if row["method"] < FIRST_YARDSTICKS and spec.objective.yardstick is None:
        spec = spec.judged_by_layers()
    facts = teacher and _teacher(teacher, samples)
    found = json.loads(row["outlook"]) if row["outlook"] else None
    outlook = found and Outlook(**{**found, "chances": tuple(found["chances"])})
    own = {"tags": tuple(json.loads(row["tags"])), "archived": bool(row["archived"])}
    return Run(**{**_served(row, "runs", leases), "spec": spec, "teacher": facts, "outlook": outlook, **own})


def student_of(row: dict[str, Any], leases: Path) -> Student:
    """Converts a row to a student."""
    return Student(
        **{
            **_served(row, "students", leases),
            "spec": parse_stored_distil(row["spec"]),
            "notes": tuple(json.loads(row["notes"])),
            "languages": json.loads(row["languages"]),
            "cut_from": _sources(row),
        }
    )


def scoring_of(row: dict[str, Any], leases: Path) -> Scoring:
    """Converts a row to a scoring."""
    spec = ScoreSpec.model_validate_json(row["spec"])
    return Scoring(**{**_served(row, "scorings", leases), "spec": spec})


def sweep_of(row: dict[str, Any], leases: Path) -> Sweep:
    """Converts a row to a sweep."""
    return Sweep(**{**_served(row, "sweeps", leases), "spec": SweepSpec.model_validate_json(row["spec"])})


def check_of(row: dict[str, Any], leases: Path) -> Check:
    """Converts a row to a check."""
    read: dict[str, Callable[[str], Any]] = {
        "runs": parse_spec_json,
        "students": parse_stored_distil,
        "scorings": ScoreSpec.model_validate_json,
        "sweeps": SweepSpec.model_validate_json,
    }
    fields = {
        "sources": tuple(json.loads(row["sources"])),
        "spec": read[row["wanted"]](row["spec"]),
        "made": tuple(json.loads(row["made"])),
    }
    return Check(**{**_served(row, "checks", leases), **fields})


def export_of(row: dict[str, Any], leases: Path) -> Export:
    """Converts a row to an export."""
    spec = ExportSpec.model_validate_json(row["spec"])
    return Export(**{**_served(row, "exports", leases), "spec": spec})


def candidate_of(row: dict[str, Any], samples: Sequence[float] = ()) -> Candidate:
    """Converts a row to a candidate; the samples are those of its latency."""
    latency = json.loads(row["latency"]) if row["latency"] else None
    return Candidate(
        **{
            **{name: value for name, value in row.items() if name != "key"},
            "architecture": Architecture(**json.loads(row["architecture"])),
            "latency": latency and reading_of(latency, samples),
            "scores": json.loads(row["scores"]),
            "notes": tuple(json.loads(row["notes"])),
            "languages": json.loads(row["languages"]),
            "cut_from": _sources(row),
            "weights": bool(row["weights"]),
        }
    )


def reading_of(fields: dict[str, Any], samples: Sequence[float]) -> LatencyReading:
    """Creates a latency reading from its fields and its samples, which are stored separately."""
    return LatencyReading.from_dict({**fields, "samples": samples})


def losses_in_order(found: Iterable[dict[str, Any]]) -> list[LayerLoss]:
    """Converts rows to losses, ordered by step, term, layer and teacher layer."""
    owners = ("candidate", "student")
    losses = [LayerLoss(**{name: row[name] for name in row if name not in owners}) for row in found]
    return sorted(losses, key=lambda loss: (loss.step, loss.term, loss.layer, loss.teacher_layer))


def _served(row: dict[str, Any], kind: Kind, leases: Path) -> dict[str, Any]:
    """The row with its worker and its current state: "interrupted" if that worker has died."""
    rest = {name: value for name, value in row.items() if name != "owner"}
    worker = Worker.from_json(row["owner"]) if row["owner"] else None
    state: RunState = row["state"]
    if state == "running" and not _lives(worker, Lease(Job(kind, row["id"]), row["fence"]), row, leases):
        state = "interrupted"
    return {**rest, "state": state, "worker": worker}


def _lives(worker: Worker | None, lease: Lease, row: dict[str, Any], leases: Path) -> bool:
    if worker is None:
        return False
    if worker.is_elsewhere():
        return time.time() - (row["heartbeat_at"] or 0) <= LEASE_S
    return lease_locks.is_held(leases, lease)


def _sources(row: dict[str, Any]) -> tuple[LayerSource, ...]:
    return tuple(LayerSource.from_dict(each) for each in json.loads(row["cut_from"]))


def _teacher(facts: dict[str, Any], samples: Sequence[float]) -> TeacherFacts:
    shape, latency = Architecture(**facts["architecture"]), reading_of(facts["latency"], samples)
    return TeacherFacts(**{**facts, "architecture": shape, "latency": latency})
