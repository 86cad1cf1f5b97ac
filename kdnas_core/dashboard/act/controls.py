"""The actions of buttons; each opens a short connection for writing, and most return a sentence to show."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import count, takewhile
from pathlib import Path
from zipfile import ZipFile

from kdnas_core.package.checks import Exported, read_export
from kdnas_core.package.layout import WEIGHTS, sha256, write_zip
from kdnas_core.runs.extending import extended
from kdnas_core.runs.jobs import Job, lane_of
from kdnas_core.runs.launch import ensure_worker
from kdnas_core.runs.names import Source, source_named, weights_of
from kdnas_core.runs.picks import Pick
from kdnas_core.runs.records import Candidate
from kdnas_core.runs.store import opened
from kdnas_core.spec import ExportSpec

Action = Callable[[Path, Job], str]


def pause(db: Path, job: Job) -> str:
    """Pauses work; on resume, a run judges its unfinished candidate again, and a student continues.

    Raises:
        BadInput: as `Store.ask`.
    """
    with opened(db) as store:
        state = store.ask(job, "pause")
    return f"{job.title} will pause in a moment." if state == "running" else f"{job.title} is paused."


def stop(db: Path, job: Job) -> str:
    """Stops work, and keeps its results.

    Raises:
        BadInput: as `Store.ask`.
    """
    with opened(db) as store:
        state = store.ask(job, "stop")
    return f"{job.title} will stop in a moment." if state == "running" else f"{job.title} is stopped."


def resume(db: Path, job: Job) -> str:
    """Queues work again, and makes sure that a worker serves it.

    Raises:
        BadInput: as `Store.resume`.
    """
    with opened(db) as store:
        store.resume(job)
    ensure_worker(db, lane_of(job.kind))
    return f"{job.title} {'is made anew' if job.kind == 'exports' else 'goes on where it ended'}."


def extend(db: Path, job: Job, episodes: int) -> str:
    """Queues a run that has ended for more episodes, and makes sure that a worker serves it.

    Raises:
        BadInput: as `Store.extend`.
    """
    with opened(db) as store:
        store.extend(job.id, extended(store.run(job.id), episodes, []))
    ensure_worker(db, lane_of(job.kind))
    return f"{job.title} goes on for {episodes} more episode{'' if episodes == 1 else 's'}."


def describe(db: Path, run: int, name: str, note: str, tags: Sequence[str]) -> str:
    """Gives a run another name, note and tags.

    Raises:
        BadInput: as `Store.describe`.
    """
    with opened(db) as store:
        store.describe(run, name, note, tags)
    return f"Run {run} is described."


def archive(db: Path, run: int, archived: bool) -> str:
    """Takes a run out of the list of searches, or back.

    Raises:
        BadInput: there is no such run.
    """
    with opened(db) as store:
        store.archive(run, archived)
    return f"Run {run} is {'archived' if archived else 'listed again'}."


def delete(db: Path, job: Job) -> str:
    """Deletes work with everything made in it, and its files.

    Raises:
        BadInput: as `Store.delete`.
    """
    with opened(db) as store:
        store.delete(job)
    return f"{job.title} is deleted."


def export_folder(db: Path, source: Source) -> Path:
    """Returns a new folder for an export, beside the store and numbered from the second on."""
    first = _first_export_folder(db, source)
    return next(folder for folder in _numbered(first) if not folder.is_symlink() and not folder.exists())


def _first_export_folder(db: Path, source: Source) -> Path:
    kind = "candidate" if source.student is None else "student"
    run = source.candidate.run
    return db.resolve().parent / "exports" / f"{db.name}-run-{run}-{kind}-{source.name}"


def _numbered(first: Path) -> Iterator[Path]:
    return (first if number == 1 else first.with_name(f"{first.name}-{number}") for number in count(1))


def export(db: Path, source: Source, with_onnx: bool) -> str:
    """Queues the export of a candidate or a student beside the store.

    Raises:
        BadInput: it has no weights.
    """
    spec = ExportSpec(folder=str(export_folder(db, source)), formats=["hf", "onnx"] if with_onnx else ["hf"])
    with opened(db) as store:
        weights_of(store, source_named(store, source.name))  # raises if it has no weights now
        store.create_export(spec, **source.ids)
    ensure_worker(db, "exports")
    return f"The export of {source.title.lower()} is queued."


def earlier_export(db: Path, source: Source) -> Exported | None:
    """Returns the last complete export of the current weights; None if there is none."""
    ours = own_folder(db, source) / WEIGHTS
    made = list(takewhile(Path.exists, _numbered(_first_export_folder(db, source))))
    for folder in reversed(made if ours.is_file() else []):
        with suppress(OSError, ValueError):
            told = read_export(folder)
            # a new store of the same name gives the same ids to other students
            if told.sha256 == _digest(ours, ours.stat().st_mtime_ns):
                return told
    return None


@lru_cache(maxsize=64)
def _digest(weights: Path, changed: int) -> str:
    """The SHA-256 of weights that were last changed at this time; cached, since a page asks often."""
    return sha256(weights)


def own_folder(db: Path, source: Source) -> Path:
    """Returns the folder in the store of a candidate or a student."""
    candidate, student = source.candidate, source.student
    with opened(db, read_only=True) as store:
        if student is None:
            return store.files(candidate.run, candidate.id)
        return store.student_files(student.run, student.id)


def configs_of(db: Path, run: int, found: Sequence[Pick]) -> bytes:
    """Returns the configurations of the picks of a run as a zip, each in a folder named by its budget.

    Args:
        db: the store.
        run: id of the run.
        found: budgets without a student are left out.
    """
    buffer = io.BytesIO()
    with opened(db, read_only=True) as store, ZipFile(buffer, "w") as archive:
        for pick in found:
            config = pick.best and store.files(run, pick.best.id) / "config.json"
            if config and config.is_file():
                archive.write(config, f"{pick.limit}/config.json")
    return buffer.getvalue()


def config_of(db: Path, candidate: Candidate) -> bytes:
    """Returns the config.json of a candidate; empty braces if it was not built."""
    with opened(db, read_only=True) as store:
        config = store.files(candidate.run, candidate.id) / "config.json"
    return config.read_bytes() if config.is_file() else b"{}"


def zipped(folder: Path) -> bytes:
    """Returns an exported folder as a zip in memory, from where Streamlit sends it.

    Raises:
        Failure: a file was changed since the export was checked.
    """
    buffer = io.BytesIO()
    write_zip(folder, buffer)
    return buffer.getvalue()
