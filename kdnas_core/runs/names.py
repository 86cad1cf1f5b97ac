"""The source of a distillation, a scoring or an export: a candidate, as in `12`, or a student, as in `s3`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdnas_core.errors import BadInput
from kdnas_core.runs.jobs import Worker, parts_of_name
from kdnas_core.runs.records import Candidate, Score, Student
from kdnas_core.runs.store import Store
from kdnas_core.spec import DistilSpec, ScoreSpec

AS_BEFORE = {"recipe", "pairs", "sequence_length", "cut", "batch_size", "learning_rate"}


@dataclass(frozen=True)
class Source:
    """A candidate, or a student with the candidate whose architecture it has."""

    candidate: Candidate
    student: Student | None = None

    @property
    def name(self) -> str:
        """Its name as a user writes it: 12 or s3."""
        return str(self.candidate.id) if self.student is None else self.student.name

    @property
    def ids(self) -> dict[str, int]:
        """The student's id, or the candidate's if there is no student, as keyword of the store's methods."""
        if self.student is None:
            return {"candidate": self.candidate.id}
        return {"student": self.student.id}

    @property
    def title(self) -> str:
        """Its name at the start of a sentence."""
        return f"Candidate {self.name}" if self.student is None else f"Student {self.name}"


def source_named(store: Store, name: str) -> Source:
    """Returns the candidate or student of a name.

    Raises:
        BadInput: the name is malformed, or there is no such candidate or student.
    """
    is_student, number = parts_of_name(name, "candidate")
    if not is_student:
        return Source(store.candidate(number))
    return source_of(store, store.student(number))


def source_of(store: Store, student: Student) -> Source:
    """Returns a student as a source."""
    return Source(store.candidate(student.candidate), student)


def weights_of(store: Store, source: Source) -> Path:
    """Returns the folder of a source's weights.

    Raises:
        BadInput: it has no weights, or not yet; says why.
    """
    candidate, student = source.candidate, source.student
    if student is None:
        folder = store.files(candidate.run, candidate.id)
        advice = f"distil it in full first: `distill {candidate.id}`"
        if not candidate.weights:
            raise BadInput(f"{source.title} has no weights, since {_why_none(candidate)}; {advice}.")
    else:
        folder = store.student_files(student.run, student.id)
        advice = f"distil {'its candidate' if student.parent is None else 'one'} anew"
        if student.state != "finished":
            raise BadInput(f"{source.title} is {student.state} and has no weights yet; let it finish first.")
    if not (folder / "model.safetensors").is_file():
        raise BadInput(f"The weights of {source.title.lower()} are gone from {folder}; {advice}.")
    return folder


def latest_scores(store: Store, source: Source) -> list[Score]:
    """Returns a source's scores on each task, from the last finished scoring on that task."""
    found: dict[str, list[Score]] = {}
    for scoring in reversed(store.scorings(**source.ids)):
        if scoring.state == "finished":
            scores = store.scores(scoring.id)
            for task in dict.fromkeys(score.task for score in scores):
                found[task] = [score for score in scores if score.task == task]
    return [score for scores in found.values() for score in scores]


def _why_none(candidate: Candidate) -> str:
    if candidate.state == "done":
        return "only students on the frontier keep theirs in its run (search.keep_weights)"
    return f"it is {candidate.state.replace('_', ' ')} and was not distilled to the end"


def as_before(source: Source, how: DistilSpec) -> DistilSpec:
    """Returns how a source is distilled: a student goes on as it was distilled, but for what is given."""
    if source.student is None or how.task is not None:
        return how
    names = AS_BEFORE - how.model_fields_set
    return how.model_copy(update=source.student.spec.model_dump(include=names))


def check_student(store: Store, source: Source, how: DistilSpec) -> list[str]:
    """Checks that a source can be distilled, and returns the student's first notes.

    Raises:
        BadInput: it cannot be distilled; says why.
    """
    if how.task is not None:
        weights_of(store, source)
    elif source.student is not None:
        _check_goes_on(source, source.student, how)
        weights_of(store, source)
    if source.candidate.state in ("proposed", "distilling"):
        raise BadInput(f"{source.title} is not judged yet; let its run go on until it is.")
    return _warnings(source.candidate)


def _check_goes_on(source: Source, student: Student, how: DistilSpec) -> None:
    """Refuses to distil a student in full again, unless it is to go on with other text."""
    if student.spec.task is not None:
        raise BadInput(
            f"{source.title} was made for the task {student.spec.task}; go on with the student that it was "
            "made from."
        )
    if how.corpus is None:
        raise BadInput(
            f"{source.title} is distilled already; name text to go on with by --corpus, a task by --task, or "
            f"distil its candidate {source.candidate.id} anew."
        )


def going_on_from(store: Store, student: Student) -> Student | None:
    """Returns the student that a general one goes on from; None if there is none, or it was deleted."""
    if student.parent is None or student.spec.task is not None:
        return None
    return next((other for other in store.students(student.run) if other.id == student.parent), None)


def _warnings(candidate: Candidate) -> list[str]:
    if candidate.state == "over_budget":
        return [f"Candidate {candidate.id} is over the latency budget of its run."]
    if candidate.state == "pruned":
        return [f"Candidate {candidate.id} was stopped early in its run: others promised more."]
    if candidate.state == "failed":
        return [
            f"Candidate {candidate.id} failed in its run: {(candidate.error or 'no reason').rstrip('.')}."
        ]
    return []


def new_student(store: Store, source: Source, how: DistilSpec, worker: Worker | None = None) -> int:
    """Queues a student of a source, or assigns it to a worker at once; returns its id.

    Raises:
        BadInput: as `check_student`.
    """
    notes, how = check_student(store, source, how), as_before(source, how)
    parent = None if source.student is None else source.student.id
    return store.create_student(source.candidate.id, how, parent=parent, notes=notes, worker=worker)


def new_scoring(store: Store, source: Source, how: ScoreSpec, worker: Worker | None = None) -> int:
    """Queues the scoring of a source, or assigns it to a worker at once; returns its id.

    Raises:
        BadInput: as `weights_of`.
    """
    weights_of(store, source)
    return store.create_scoring(how, **source.ids, worker=worker)
