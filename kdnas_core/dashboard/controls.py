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
from kdnas_core.runs.store import files_of, opened

Action = Callable[[Path, int], str]


def pause(db: Path, run: int) -> str:
    """Pauses a run; the candidate in hand is judged anew when it goes on.

    Raises:
        BadInput: as `Store.ask`.
    """
    with opened(db) as store:
        state = store.ask(run, "pause")
    return f"Run {run} will pause in a moment." if state == "running" else f"Run {run} is paused."


def stop(db: Path, run: int) -> str:
    """Stops a run; what was judged stays.

    Raises:
        BadInput: as `Store.ask`.
    """
    with opened(db) as store:
        state = store.ask(run, "stop")
    return f"Run {run} will stop in a moment." if state == "running" else f"Run {run} is stopped."


def resume(db: Path, run: int) -> str:
    """Queues a run again and sees to it that a worker serves it.

    Raises:
        BadInput: as `Store.resume`.
    """
    with opened(db) as store:
        store.resume(run)
    ensure_worker(db)
    return f"Run {run} goes on where it ended."


def delete(db: Path, run: int) -> str:
    """Deletes a run with its candidates and their files.

    Raises:
        BadInput: as `Store.delete_run`.
    """
    with opened(db) as store:
        store.delete_run(run)
    return f"Run {run} is deleted."


def export_folder(db: Path, run: int, candidate: int) -> Path:
    """Where a candidate is exported to: beside the store."""
    return db.resolve().parent / "exports" / f"{db.name}-run-{run}-candidate-{candidate}"


def export(db: Path, run: int, candidate: int) -> Exported:
    """Exports a candidate beside the store and verifies the copy.

    Raises:
        BadInput: as `export_hf`.
        Failure: what was copied does not load.
    """
    try:
        with opened(db, read_only=True) as store:
            return export_hf(store, candidate, export_folder(db, run, candidate))
    except subprocess.TimeoutExpired as error:
        raise Failure(f"Candidate {candidate} was not exported: {error}.") from None


def earlier_export(db: Path, run: int, candidate: int) -> Exported | None:
    """What was exported of a candidate before; None where nothing was, or where it is not this student."""
    folder = export_folder(db, run, candidate)
    ours = files_of(db) / str(run) / str(candidate) / "model.safetensors"
    weights = folder / "model.safetensors"
    # a store made anew gives the same ids to other students
    if not (weights.is_file() and ours.is_file()) or sha256(weights) != sha256(ours):
        return None
    # verified, since nothing stays at the folder that was not
    return Exported(folder, sorted(path.name for path in folder.iterdir()), sha256(weights), verified=True)


def zipped(folder: Path) -> bytes:
    """The files of an exported folder as one zip, under the folder's name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # weights do not compress
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, Path(folder.name) / path.relative_to(folder))
    return buffer.getvalue()
