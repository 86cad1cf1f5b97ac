"""What is known of a student that is exported: its record, and the teacher and data that it comes from."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.repocard import metadata_load

from kdnas_core.data.corpus import PACKAGED, Part, parts_of
from kdnas_core.data.harvest import HARVEST_VERSION, installed_sources
from kdnas_core.errors import BadInput
from kdnas_core.models.sources import file_of, folder_of
from kdnas_core.runs.names import Source, latest_scores
from kdnas_core.runs.records import Candidate, LayerLoss, Run, Score, Student
from kdnas_core.runs.store import Store

FORM = 1  # raised when a reader of an earlier one could not read it

NOT_STATED = "not stated"
PACKAGED_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGED_LICENCE = "apache-2.0"


@dataclass(frozen=True)
class Facts:
    """What is exported, and what is known of it.

    Attributes:
        source: a candidate or a student.
        run: that it is of.
        scores: of each task those of the last scoring that is finished.
        layers: which teacher layers each layer learnt from: the places of its last held-out losses.
    """

    source: Source
    run: Run
    scores: list[Score]
    layers: list[LayerLoss]

    @property
    def candidate(self) -> Candidate:
        """Whose architecture it has."""
        return self.source.candidate

    @property
    def student(self) -> Student | None:
        """The student; None where the candidate itself is exported."""
        return self.source.student

    @property
    def task(self) -> str | None:
        """The task that it has a head for; None for an encoder."""
        return None if self.student is None else self.student.spec.task

    @property
    def corpus(self) -> str:
        """What it has learnt from; of a student for a task its rows came after that."""
        own = None if self.student is None else self.student.spec.corpus
        return own or self.run.spec.corpus


def facts_of(store: Store, source: Source) -> Facts:
    """Gathers them."""
    candidate, student = source.candidate, source.student
    losses = store.layer_losses(candidate.id) if student is None else store.student_losses(student.id)
    last = max((loss.step for loss in losses), default=0)
    return Facts(
        source,
        store.run(candidate.run),
        latest_scores(store, source),
        [loss for loss in losses if loss.step == last],
    )


def record(facts: Facts) -> dict[str, Any]:
    """What `kdnas.json` says, from which another store makes the same rows; all but the checks."""
    candidate, student = facts.candidate, facts.student
    return {
        "format": FORM,
        "source": {"candidate": candidate.id, "student": None if student is None else student.id},
        "spec": facts.run.spec.model_dump(mode="json"),
        "teacher": None if facts.run.teacher is None else facts.run.teacher.to_dict(),
        "architecture": candidate.architecture.to_dict(),
        "candidate": _candidate(candidate),
        "student": None if student is None else _student(student),
        "scores": [asdict(score) for score in facts.scores],
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "parameters": candidate.parameters,
        "flops": candidate.flops,
        "latency": None if candidate.latency is None else candidate.latency.to_dict(),
        "loss": candidate.loss,
        "reward": candidate.reward,
        "scores": candidate.scores,
        "seconds": candidate.seconds,
        "notes": list(candidate.notes),
        "languages": candidate.languages,
        "loss_se": candidate.loss_se,
        "cut_from": [asdict(source) for source in candidate.cut_from],
    }


def _student(student: Student) -> dict[str, Any]:
    return {
        "spec": student.spec.model_dump(mode="json"),
        "loss": student.loss,
        "notes": list(student.notes),
        "languages": student.languages,
        "loss_se": student.loss_se,
        "cut_from": [asdict(source) for source in student.cut_from],
        "seconds": student.seconds,
        "step": student.step,
        "steps": student.steps,
    }


@dataclass(frozen=True)
class Origin:
    """What is known of a teacher beside its weights.

    Attributes:
        licence: as its own card states it, or "not stated".
        base: its id on the hub; None for a local folder.
        languages: as its own card states them.
    """

    licence: str
    base: str | None
    languages: tuple[str, ...]


def origin_of(teacher: str) -> Origin:
    """Reads a teacher's own card, where it has one."""
    card = _card(teacher)
    licence = _PACKAGED_LICENCE if teacher == PACKAGED else card.get("license")
    named = card.get("language")
    languages = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    base = PACKAGED_NAME if teacher == PACKAGED else None if folder_of(teacher) else teacher
    return Origin(
        licence=licence if isinstance(licence, str) else NOT_STATED,
        base=base,
        languages=tuple(each for each in languages if isinstance(each, str)),
    )


def _card(teacher: str) -> dict[str, Any]:
    path = file_of(teacher, "README.md")
    try:
        found = None if path is None else metadata_load(path)
    except Exception:  # somebody else's YAML; what it does not say is "not stated"
        return {}
    return found if isinstance(found, dict) else {}


def data_fingerprint(corpus: str) -> str:
    """SHA-256 of what a corpus is made of, by which two users can tell whether they had the same texts.

    Of the packaged corpus the versions of the packages that it is harvested from, of files their bytes, of a
    hub's data set its name. "not known" where the corpus is there no more.
    """
    try:
        return hashlib.sha256(json.dumps([_part(part) for part in parts_of(corpus)]).encode()).hexdigest()
    except (BadInput, OSError):
        return "not known"


def _part(part: Part) -> list[Any]:
    if part.source == PACKAGED:
        packages = sorted((source.package, source.version) for source in installed_sources())
        return [PACKAGED, HARVEST_VERSION, platform.python_version(), packages]
    if part.is_stream:
        return [part.source]
    with Path(part.source).open("rb") as file:
        return [Path(part.source).name, hashlib.file_digest(file, "sha256").hexdigest()]
