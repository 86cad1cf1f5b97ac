"""All that a store knows of what is exported, gathered before anything is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kdnas_core.runs.rows import Candidate, LayerLoss, Run, Score, Student
from kdnas_core.runs.sources import Source
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
    if student is None:
        scorings, losses = store.scorings(candidate=candidate.id), store.layer_losses(candidate.id)
    else:
        scorings, losses = store.scorings(student=student.id), store.student_losses(student.id)
    found: dict[str, list[Score]] = {}
    for scoring in reversed(scorings):
        if scoring.state == "finished":
            for task, scores in _by_task(store.scores(scoring.id)).items():
                found[task] = scores
    last = max((loss.step for loss in losses), default=0)
    return Facts(
        source,
        store.run(candidate.run),
        [score for scores in found.values() for score in scores],
        [loss for loss in losses if loss.step == last],
    )


def _by_task(scores: list[Score]) -> dict[str, list[Score]]:
    found: dict[str, list[Score]] = {}
    for score in scores:
        found.setdefault(score.task, []).append(score)
    return found


def record(facts: Facts) -> dict[str, Any]:
    """What `kdnas.json` says, from which another store makes the same rows; all but the checks."""
    candidate, student = facts.candidate, facts.student
    return {
        "format": FORM,
        "source": {"candidate": candidate.id, "student": None if student is None else student.id},
        "spec": facts.run.spec.model_dump(mode="json"),
        "teacher": _teacher(facts.run),
        "architecture": candidate.architecture.to_dict(),
        "candidate": _candidate(candidate),
        "student": None if student is None else _student(student),
        "scores": [asdict(score) for score in facts.scores],
    }


def _teacher(run: Run) -> dict[str, Any] | None:
    if run.teacher is None:
        return None
    fields = {name: getattr(run.teacher, name) for name in ("name", "parameters", "flops")}
    shape, latency = run.teacher.architecture.to_dict(), run.teacher.latency.to_dict()
    return {**fields, "architecture": shape, "latency": latency}


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
    }


def _student(student: Student) -> dict[str, Any]:
    return {
        "spec": student.spec.model_dump(mode="json"),
        "loss": student.loss,
        "notes": list(student.notes),
        "languages": student.languages,
        "seconds": student.seconds,
        "step": student.step,
        "steps": student.steps,
    }
