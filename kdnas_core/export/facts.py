"""All that a store knows of what is exported, gathered before anything is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kdnas_core.runs.rows import Candidate, LayerLoss, Run, Score, Student
from kdnas_core.runs.sources import Source, latest_scores
from kdnas_core.runs.store import Store

FORM = 1  # raised when a reader of an earlier one could not read it


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
