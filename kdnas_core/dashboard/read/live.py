"""Reads runs and candidates for the pages, through a read-only connection."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kdnas_core.dashboard.read.known_candidates import candidates_of
from kdnas_core.errors import BadInput
from kdnas_core.runs.jobs import ACTIVE, Work
from kdnas_core.runs.records import AnyWork, Candidate, LayerLoss, Run, Student, TeacherLayerFacts
from kdnas_core.runs.store import Store, bytes_of, files_of, opened
from kdnas_core.spec import RunSpec

Id = TypeVar("Id")
_ORDER = {"running": 0, "queued": 1, "interrupted": 2, "paused": 3, "failed": 4}
BUSY_REFRESH_S = 2.0  # less than a candidate takes
_LOG_BYTES = 100_000
IDLE_REFRESH_S = 10.0  # a run may be resumed from the command line


@dataclass(frozen=True)
class Snapshot:
    """A run, its candidates and its students, newest first, at one moment.

    `revision` is that of the candidates; it changes with each of them. `scored` is the number of scorings
    that are finished.
    """

    run: Run
    candidates: list[Candidate]
    students: Sequence[Student] = ()
    revision: int = 0
    scored: int = 0


@dataclass(frozen=True)
class CandidateView:
    """A candidate, its run, its losses and the folder of its files.

    `layers` is what its layers are compared with, `similarity` how alike they are (`Store.similarity`).
    """

    candidate: Candidate
    run: Run
    losses: list[LayerLoss]
    folder: Path
    layers: TeacherLayerFacts | None = None
    similarity: Sequence[Sequence[float]] = ()


def database() -> Path:
    """Returns the path of the store: `KDNAS_DB`, or runs.db in the server's working folder."""
    return Path(os.environ.get("KDNAS_DB") or "runs.db")


def read_runs(db: Path, limit: int | None = None) -> list[Snapshot]:
    """Returns the newest runs with their candidates; none if there is no store yet."""
    if not db.exists():
        return []
    with opened(db, read_only=True) as store:
        return [_snapshot(store, run) for run in store.runs(limit)]


def find_runs(
    db: Path, wanted: str, limit: int | None, *, archived: bool
) -> tuple[list[Snapshot], int, list[str]]:
    """Returns the newest of the runs that are wanted, with their candidates, and how many are.

    Also a sentence for each run that cannot be read, wanted or not.

    Args:
        db: the store.
        wanted: words that all have to be in a run's name, note, tags, state or teacher; empty for all runs.
        limit: the most runs; None for all.
        archived: whether the runs that are archived are wanted, instead of the others.
    """
    if not db.exists():
        return [], 0, []
    words = wanted.lower().split()
    with opened(db, read_only=True) as store:
        runs, unreadable = store.runs_and_unreadable()
        found = [run for run in runs if run.archived == archived and _has(run, words)]
        return [_snapshot(store, run) for run in found[:limit]], len(found), unreadable


def read_specs(db: Path, limit: int) -> list[RunSpec]:
    """Returns the specs of the newest runs; none if there is no store yet."""
    if not db.exists():
        return []
    with opened(db, read_only=True) as store:
        return [run.spec for run in store.runs(limit)]


def _has(run: Run, words: Sequence[str]) -> bool:
    teacher = run.spec.teacher if run.teacher is None else run.teacher.name
    text = " ".join([str(run.id), run.name, run.note, *run.tags, run.state, teacher]).lower()
    return all(word in text for word in words)


def read_jobs(db: Path) -> list[AnyWork]:
    """Returns work that is running, then what is queued, in the order served, then what waits or failed."""
    if not db.exists():
        return []
    with opened(db, read_only=True) as store:
        works: list[AnyWork] = []
        for job in store.unfinished():
            with suppress(BadInput):  # it was deleted meanwhile
                works.append(store.work(job))
    unfinished = [work for work in works if work.state in _ORDER]  # it may have ended meanwhile
    return sorted(unfinished, key=lambda work: (_ORDER[work.state], work.created_at))


def read_run(db: Path, run: int) -> Snapshot:
    """Returns one run with its candidates and students.

    Raises:
        BadInput: there is no such run.
    """
    with opened(db, read_only=True) as store:
        return _snapshot(store, store.run(run))


def newer(db: Path, drawn: Snapshot) -> tuple[Run, bool]:
    """Returns a run as it is now, and whether anything else of it differs from what was drawn.

    Raises:
        BadInput: the run is deleted.
    """
    with opened(db, read_only=True) as store:
        run = store.run(drawn.run.id)
        if _shown(run) != _shown(drawn.run) or store.revision(run.id) != drawn.revision:
            return run, True
        students = [(row.id, row.state, row.step) for row in store.students(run.id)]
        if students != [(row.id, row.state, row.step) for row in drawn.students]:
            return run, True
        return run, _scored(store, run.id) != drawn.scored


def _shown(run: Run) -> tuple[object, ...]:
    outlook = None if run.outlook is None else run.outlook.episode
    return run.state, run.episode, outlook, run.name, run.spec.latency


def _scored(store: Store, run: int) -> int:
    return sum(row.state == "finished" for row in store.scorings(run))


def _snapshot(store: Store, run: Run) -> Snapshot:
    revision, candidates = candidates_of(store, run)
    return Snapshot(run, candidates, store.students(run.id), revision, _scored(store, run.id))


def bytes_of_run(db: Path, run: int) -> int:
    """Returns the size of the files of a run's candidates and students."""
    with opened(db, read_only=True) as store:
        return bytes_of(store.files(run))


def last_lines_of_log(db: Path, most: int) -> list[str]:
    """Returns the last lines of the log of a store's workers; none if there is no log."""
    path = files_of(db) / "worker.log"
    if not path.is_file():
        return []
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - _LOG_BYTES))
        return log.read().decode("utf-8", "replace").splitlines()[-most:]


def newest_run(db: Path) -> int | None:
    """Returns the id of the newest run; None if there is none."""
    if not db.exists():
        return None
    with opened(db, read_only=True) as store:
        runs = store.runs(limit=1)
    return runs[0].id if runs else None


def read_candidate(db: Path, candidate: int) -> CandidateView:
    """Returns one candidate with all data of its page.

    Raises:
        BadInput: there is no such candidate.
    """
    with opened(db, read_only=True) as store:
        row = store.candidate(candidate)
        return CandidateView(
            row,
            store.run(row.run),
            store.layer_losses(candidate),
            store.files(row.run, candidate),
            store.teacher_layers(row.run),
            store.similarity(candidate),
        )


def read_final_losses(db: Path, candidates: Sequence[int]) -> dict[int, list[LayerLoss]]:
    """Returns the losses by layer of candidates' last evaluations; empty lists for those without."""
    with opened(db, read_only=True) as store:
        return {candidate: store.final_losses(candidate) for candidate in candidates}


def id_in_address(text: str | None, noun: str) -> int | None:
    """Parses the id in an address such as `?run=3`; returns None if there is none.

    Raises:
        BadInput: it is not an id.
    """
    if not text:
        return None
    if not is_id(text):
        raise BadInput(f"The address names no {noun}: an id is a whole number, such as ?{noun}=1.")
    return int(text)


def is_id(text: str) -> bool:
    """Returns whether a text is a number that may be an id."""
    return text.isascii() and text.isdecimal() and len(text) < 16


def refresh_s(work: Sequence[Run | Work], *, live: bool = True) -> float | None:
    """Returns the seconds until a page reads this work again; None if live updates are off."""
    if not live:
        return None
    return BUSY_REFRESH_S if any(row.state in ACTIVE for row in work) else IDLE_REFRESH_S


def selected(rows: Sequence[int], shown: Sequence[Id]) -> Id | None:
    """Returns the id of the selected row of a table that showed these ids."""
    return shown[rows[0]] if rows and 0 <= rows[0] < len(shown) else None
