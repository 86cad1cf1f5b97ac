"""An exported student comes back: as a finished run with one candidate, and the student made of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from kdnas_core.errors import BadInput
from kdnas_core.importing.checks import check_shape, check_sums, check_weights
from kdnas_core.importing.manifest import Judged, Manifest, manifest_of
from kdnas_core.importing.package import WEIGHTS, copied, opened_package
from kdnas_core.runs.rows import CandidateState, Job, Worker
from kdnas_core.runs.store import Store, check_path, opened
from kdnas_core.spec import RunSpec, ScoreSpec

SUFFIX = " (imported)"
LONGEST_NAME = 100  # of a run

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Imported:
    """A student that came back.

    Attributes:
        run: made for it.
        candidate: in that run.
        student: made of the candidate; None where the candidate itself was exported.
        path: the folder of the weights in the store.
        sha256: of its model.safetensors.
    """

    run: int
    candidate: int
    student: int | None
    path: Path
    sha256: str


def import_student(db: Path, source: Path | BinaryIO, title: str, tell: Tell) -> Imported:
    """Takes an exported student into a store, which is made where there is none.

    Nothing is changed unless the student was checked whole. Importing it again makes another run.

    Args:
        db: the store.
        source: the export: a folder, a zip, or an open zip.
        title: what to call it.
        tell: told each step, in words without a full stop.

    Raises:
        BadInput: it cannot be used, or the store cannot be written.
        Failure: the check did not come to an end.
    """
    check_path(db)
    with opened_package(source, title) as package:
        manifest = manifest_of(package)
        try:
            with _unfinished(db) as folder:
                tell("Reading its files")
                sums = copied(package, folder)
                check_sums(package, sums)
                check_shape(folder, manifest.architecture, title)
                tell("Loading it with stock transformers in a clean process")
                check_weights(folder, manifest, title)
                with opened(db) as store:
                    return _added(store, manifest, folder, sums[WEIGHTS])
        except OSError as error:
            raise BadInput(
                f"{title} cannot be kept beside {db} ({error.strerror}); free some space there, "
                "or name another store with --db."
            ) from None


@contextmanager
def _unfinished(db: Path) -> Iterator[Path]:
    """An empty folder on the disk of the store, which is gone after the `with` block."""
    prefix = f".{db.name}.import-"
    _clear(db.parent, prefix)
    with tempfile.TemporaryDirectory(dir=db.parent, prefix=prefix) as made, FileLock(Path(made) / "lock"):
        folder = Path(made) / "student"
        folder.mkdir()
        yield folder


def _clear(parent: Path, prefix: str) -> None:
    """Removes what an import that was killed has left: its lock went with it."""
    for left in parent.glob(f"{prefix}*"):
        with suppress(Timeout, OSError), FileLock(left / "lock", blocking=False):
            shutil.rmtree(left, ignore_errors=True)


def _added(store: Store, manifest: Manifest, folder: Path, sha256: str) -> Imported:
    """Makes the rows and moves the weights to where the store keeps them; both, or neither."""
    kept: list[Path] = []

    def place(run: int, candidate: int, student: int | None) -> None:
        where = store.files(run, candidate) if student is None else store.student_files(run, student)
        if where.exists():  # of a store of this name that was removed by hand
            shutil.rmtree(where)
        where.parent.mkdir(parents=True, exist_ok=True)
        kept.append(folder.replace(where))

    run, candidate, student = store.import_run(
        _renamed(manifest.spec),
        manifest.teacher,
        manifest.architecture,
        _candidate(manifest.candidate, has_weights=manifest.student is None),
        _student(manifest),
        place,
    )
    try:
        _add_scores(store, manifest, candidate, student)
    except BaseException:
        store.delete_run(run)
        raise
    return Imported(run, candidate, student, kept[0].resolve(), sha256)


def _renamed(spec: RunSpec) -> RunSpec:
    name = spec.name.removesuffix(SUFFIX)[: LONGEST_NAME - len(SUFFIX)] + SUFFIX
    return spec.model_copy(update={"name": name})


def _candidate(judged: Judged, has_weights: bool) -> dict[str, Any]:
    return {
        **judged.model_dump(exclude={"latency"}),
        "latency": None if judged.latency is None else judged.latency.to_dict(),
        "state": _state(judged),
        "weights": int(has_weights),
    }


def _state(judged: Judged) -> CandidateState:
    """Without a loss it was vetoed, once it was measured, or failed; a student can be made of any."""
    if judged.loss is not None:
        return "done"
    return "failed" if judged.latency is None else "over_budget"


def _student(manifest: Manifest) -> dict[str, Any] | None:
    made = manifest.student
    if made is None:
        return None
    return {**made.model_dump(exclude={"spec"}), "spec": made.spec.model_dump_json()}


def _add_scores(store: Store, manifest: Manifest, candidate: int, student: int | None) -> None:
    scores = manifest.scores
    if not scores:
        return
    how = ScoreSpec(
        tasks=list(dict.fromkeys(score.task for score in scores)),
        seeds=1 + max(score.seed for score in scores),
        control=any(score.subject == "control" for score in scores),
    )
    whose = {"candidate": candidate} if student is None else {"student": student}
    job = Job("scorings", store.create_scoring(how, **whose, worker=Worker.this_process()))
    try:
        store.add_scores(job.id, scores)
    except BaseException:
        store.end(job, "failed")  # else it would hold its run fast
        raise
    store.end(job, "finished")
