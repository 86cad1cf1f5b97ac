"""What the pages read: the rows of one moment, through a connection that cannot change them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdnas_core.errors import BadInput
from kdnas_core.runs.jobs import ACTIVE, Work
from kdnas_core.runs.records import Candidate, LayerLoss, Run, Student
from kdnas_core.runs.store import Store, opened

BUSY_REFRESH_S = 2.0  # a candidate takes longer than this
IDLE_REFRESH_S = 10.0  # still looked at: a run may be resumed from the command line


@dataclass(frozen=True)
class Snapshot:
    """A run, its candidates and its students, newest first, as they were at one moment."""

    run: Run
    candidates: list[Candidate]
    students: Sequence[Student] = ()


@dataclass(frozen=True)
class CandidateView:
    """A candidate, the run it is of, its losses and the folder of its files."""

    candidate: Candidate
    run: Run
    losses: list[LayerLoss]
    folder: Path


def database() -> Path:
    """The store that the pages show: `KDNAS_DB`, or runs.db where the server was started."""
    return Path(os.environ.get("KDNAS_DB") or "runs.db")


def read_runs(db: Path, limit: int | None = None) -> list[Snapshot]:
    """The newest runs with their candidates; none where there is no store yet."""
    if not db.exists():
        return []
    with opened(db, read_only=True) as store:
        return [_snapshot(store, run) for run in store.runs()[:limit]]


def read_run(db: Path, run: int) -> Snapshot:
    """One run with its candidates.

    Raises:
        BadInput: there is no such run.
    """
    with opened(db, read_only=True) as store:
        return _snapshot(store, store.run(run))


def _snapshot(store: Store, run: Run) -> Snapshot:
    return Snapshot(run, store.candidates(run.id), store.students(run.id))


def newest_run(db: Path) -> int | None:
    """The id of the newest run; None where there is none."""
    if not db.exists():
        return None
    with opened(db, read_only=True) as store:
        runs = store.runs()
    return runs[0].id if runs else None


def read_candidate(db: Path, candidate: int) -> CandidateView:
    """One candidate with all that its page shows.

    Raises:
        BadInput: there is no such candidate.
    """
    with opened(db, read_only=True) as store:
        row = store.candidate(candidate)
        return CandidateView(
            row, store.run(row.run), store.layer_losses(candidate), store.files(row.run, candidate)
        )


def id_in_address(text: str | None, noun: str) -> int | None:
    """The id that an address such as `?run=3` names; None where it names none.

    Raises:
        BadInput: what it names is no id.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise BadInput(f"The address names no {noun}: an id is a whole number, such as ?{noun}=1.")
    return int(text)


def refresh_s(work: Sequence[Run | Work], *, live: bool = True) -> float | None:
    """Seconds until a page looks again at this work; None where the user has stopped live updates."""
    if not live:
        return None
    return BUSY_REFRESH_S if any(row.state in ACTIVE for row in work) else IDLE_REFRESH_S


def clicked(points: Sequence[Mapping[str, Any]]) -> int | None:
    """The candidate whose point was clicked.

    None for the empty selections that arrive when a chart is drawn anew, and for lines, which carry no id.
    """
    for point in points:
        candidate = point.get("customdata")
        if isinstance(candidate, int):
            return candidate
    return None


def selected(rows: Sequence[int], shown: Sequence[int]) -> int | None:
    """The candidate of the selected row of a table that showed these ids."""
    return shown[rows[0]] if rows and 0 <= rows[0] < len(shown) else None
