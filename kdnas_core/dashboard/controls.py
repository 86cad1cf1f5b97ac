"""What the buttons do: one short connection that may write for each press, and a sentence of what came."""

from __future__ import annotations

import io
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

from kdnas_core.errors import Failure
from kdnas_core.export import Exported, export_hf, sha256
from kdnas_core.runs.launch import ensure_worker
from kdnas_core.runs.rows import Job
from kdnas_core.runs.sources import Source
from kdnas_core.runs.store import opened

Action = Callable[[Path, Job], str]


def pause(db: Path, job: Job) -> str:
    """Pauses work; a candidate in hand is judged anew when it goes on, a student goes on where it was.

    Raises:
        BadInput: as `Store.ask`.
    """
    with opened(db) as store:
        state = store.ask(job, "pause")
    return f"{job.title} will pause in a moment." if state == "running" else f"{job.title} is paused."


def stop(db: Path, job: Job) -> str:
    """Stops work; what was done stays.

    Raises:
        BadInput: as `Store.ask`.
    """
    with opened(db) as store:
        state = store.ask(job, "stop")
    return f"{job.title} will stop in a moment." if state == "running" else f"{job.title} is stopped."


def resume(db: Path, job: Job) -> str:
    """Queues work again and sees to it that a worker serves it.

    Raises:
        BadInput: as `Store.resume`.
    """
    with opened(db) as store:
        store.resume(job)
    ensure_worker(db)
    return f"{job.title} goes on where it ended."


def delete(db: Path, job: Job) -> str:
    """Deletes work with all that is of it, and its files.

    Raises:
        BadInput: as `Store.delete`.
    """
    with opened(db) as store:
        store.delete(job)
    return f"{job.title} is deleted."


def export_folder(db: Path, source: Source) -> Path:
    """Where a candidate or a student is exported to: beside the store."""
    kind = "candidate" if source.student is None else "student"
    run = source.candidate.run
    return db.resolve().parent / "exports" / f"{db.name}-run-{run}-{kind}-{source.name}"


def export(db: Path, source: Source) -> Exported:
    """Exports a candidate or a student beside the store and verifies the copy.

    Raises:
        BadInput: as `export_hf`.
        Failure: what was copied does not load.
    """
    try:
        with opened(db, read_only=True) as store:
            return export_hf(store, source.name, export_folder(db, source))
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{source.title} was not exported: {error}.") from None


def earlier_export(db: Path, source: Source) -> Exported | None:
    """What was exported of it before; None where nothing was, or where that is not this student."""
    folder = export_folder(db, source)
    ours, weights = own_folder(db, source) / "model.safetensors", folder / "model.safetensors"
    # a store made anew gives the same ids to other students
    if not (weights.is_file() and ours.is_file()) or sha256(weights) != sha256(ours):
        return None
    # verified, since nothing stays at the folder that was not
    return Exported(folder, sorted(path.name for path in folder.iterdir()), sha256(weights), verified=True)


def own_folder(db: Path, source: Source) -> Path:
    """Where the store keeps the files of a candidate or a student."""
    candidate, student = source.candidate, source.student
    with opened(db, read_only=True) as store:
        if student is None:
            return store.files(candidate.run, candidate.id)
        return store.student_files(student.run, student.id)


def zipped(folder: Path) -> bytes:
    """The files of an exported folder as one zip, under the folder's name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # weights do not compress
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, Path(folder.name) / path.relative_to(folder))
    return buffer.getvalue()
