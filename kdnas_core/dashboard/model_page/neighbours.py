"""The links from one model to the next: along the frontier, and from student to student."""

from __future__ import annotations

from collections.abc import Sequence

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.ui import links
from kdnas_core.runs.records import Candidate, Student


def on_frontier(snapshot: Snapshot, candidate: Candidate) -> tuple[Candidate | None, Candidate | None]:
    """Returns the next faster and the next slower student of a run's frontier; None where there is none.

    Those of a candidate that is not on the frontier, or not measured, are by its latency or its estimate.
    """
    front = [row for row in Findings.of(snapshot.candidates, None).frontier if row.id != candidate.id]
    own = candidate.estimated_ms if candidate.latency is None else candidate.latency.p50
    if own is None:
        return None, None
    faster = [row for row in front if row.point[0] <= own]
    slower = [row for row in front if row.point[0] > own]
    return (faster[-1] if faster else None), (slower[0] if slower else None)


def of_student(students: Sequence[Student], student: int) -> tuple[Student | None, Student | None]:
    """Returns the students before and after one by number; None where there is none."""
    before = [row for row in students if row.id < student]
    after = [row for row in students if row.id > student]
    return max(before, key=lambda row: row.id, default=None), min(after, key=lambda row: row.id, default=None)


def show_frontier(faster: Candidate | None, slower: Candidate | None) -> None:
    """Draws the links along a frontier."""
    if faster is not None:
        links.to_candidate(faster.id, f"Faster: {faster.id} ({_of(faster)})", ":material/chevron_left:")
    if slower is not None:
        links.to_candidate(slower.id, f"Slower: {slower.id} ({_of(slower)})", ":material/chevron_right:")


def show_students(before: Student | None, after: Student | None) -> None:
    """Draws the links from student to student."""
    if before is not None:
        links.to_student(before.id, f"Student {before.name}", ":material/chevron_left:")
    if after is not None:
        links.to_student(after.id, f"Student {after.name}", ":material/chevron_right:")


def _of(row: Candidate) -> str:
    return wording.milliseconds(row.point[0])
