"""The facts about an exported student: its record, its teacher and its data."""

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
from kdnas_core.data.hub import HUB
from kdnas_core.data.task_text import learnt_texts
from kdnas_core.errors import BadInput
from kdnas_core.files import cache_folder
from kdnas_core.models.sources import file_of, folder_of
from kdnas_core.runs.names import Source, latest_scores
from kdnas_core.runs.records import Candidate, LayerLoss, Run, Score, Student
from kdnas_core.runs.store import Store

FORM = 1  # increased when readers of the earlier format could not read the new one

NOT_STATED = "not stated"
PACKAGED_NAME = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGED_LICENCE = "apache-2.0"


@dataclass(frozen=True)
class Facts:
    """What is exported, with its run, scores and layer mapping.

    Attributes:
        source: a candidate or a student.
        run: of the candidate.
        scores: on each task, from the last finished scoring on that task.
        layers: its last held-out losses, which have the layer mapping.
    """

    source: Source
    run: Run
    scores: list[Score]
    layers: list[LayerLoss]

    @property
    def candidate(self) -> Candidate:
        """The candidate whose architecture it has."""
        return self.source.candidate

    @property
    def student(self) -> Student | None:
        """The student; None if the candidate itself is exported."""
        return self.source.student

    @property
    def task(self) -> str | None:
        """The task of its classification head; None for an encoder."""
        return None if self.student is None else self.student.spec.task

    @property
    def corpus(self) -> str:
        """The corpus that it was distilled on; a task-specific student then learnt from the task's rows."""
        own = None if self.student is None else self.student.spec.corpus
        return own or self.run.spec.corpus


def facts_of(store: Store, source: Source) -> Facts:
    """Reads the facts about a source from the store."""
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
    """Returns the content of `kdnas.json` without the checks; an import creates its rows from it."""
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
        **({} if candidate.rung is None else _pruned(candidate)),
    }


def _pruned(candidate: Candidate) -> dict[str, Any]:
    return {"rung": candidate.rung, "steps": candidate.steps, "estimated_ms": candidate.estimated_ms}


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
    """The origin of a teacher.

    Attributes:
        licence: from its model card, or "not stated".
        base: its id on the hub; None for a local folder.
        languages: from its model card.
    """

    licence: str
    base: str | None
    languages: tuple[str, ...]


def origin_of(teacher: str) -> Origin:
    """Reads a teacher's origin from its model card, if it has one."""
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
    except Exception:  # the YAML of others may be malformed; the licence is then "not stated"
        return {}
    return found if isinstance(found, dict) else {}


def data_fingerprint(corpus: str) -> str:
    """Returns a SHA-256 by which two users can tell whether they had the same texts.

    It covers the versions of the packaged corpus's sources, the bytes of files, the texts of tasks, and the
    names of hub data sets. Returns "not known" if the corpus no longer exists.
    """
    try:
        return hashlib.sha256(json.dumps([_part(part) for part in parts_of(corpus)]).encode()).hexdigest()
    except (BadInput, OSError):
        return "not known"


def _part(part: Part) -> list[Any]:
    if part.source == PACKAGED:
        packages = sorted((source.package, source.version) for source in installed_sources())
        return [PACKAGED, HARVEST_VERSION, platform.python_version(), packages]
    if part.is_stream or (part.task or "").startswith(HUB):
        return [part.source]
    if part.task is not None:
        texts = learnt_texts(part.task, cache_folder())
        return [part.language, hashlib.sha256(json.dumps(texts).encode()).hexdigest()]
    with Path(part.source).open("rb") as file:
        return [Path(part.source).name, hashlib.file_digest(file, "sha256").hexdigest()]
