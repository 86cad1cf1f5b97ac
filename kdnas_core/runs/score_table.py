"""Summarises a scoring's scores: one row for each task and metric, averages, and retained shares."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from kdnas_core.data.tasks import ZERO_SHOT as ZERO_SHOT
from kdnas_core.runs.records import Score, Scored


@dataclass(frozen=True)
class ScoreRow:
    """One metric of one task; values that were not scored (yet) are None.

    Attributes:
        task: its name.
        metric: its name.
        student: mean over seeds.
        teacher: the teacher's mean over seeds.
        retained: the student's score as a share of the teacher's.
        spread: sample standard deviation over the student's seeds; None for one seed.
        control: mean over seeds of the same student without distillation.
    """

    task: str
    metric: str
    student: float | None
    teacher: float | None
    retained: float | None
    spread: float | None
    control: float | None

    def to_dict(self) -> dict[str, Any]:
        """Returns the score object of the command line's `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class Averages:
    """The mean over tasks of each task's mean over its metrics; None if not scored (yet).

    If the teacher was scored, only tasks that it was scored on count, so that the averages compare. Scores
    without fine-tuning do not count.
    """

    student: float | None
    teacher: float | None
    retained: float | None
    control: float | None


def score_rows(scores: Sequence[Score]) -> list[ScoreRow]:
    """Returns one row for each task and metric, in the order of scoring."""
    return [_row(scores, task, metric) for task, metric in dict.fromkeys((s.task, s.metric) for s in scores)]


def averages(scores: Sequence[Score]) -> Averages:
    """Averages a scoring's scores over tasks."""
    tuned = [score for score in scores if not score.task.endswith(ZERO_SHOT)]
    figures: dict[Scored, dict[str, float]] = {
        subject: figures_of(tuned, subject) for subject in ("student", "teacher", "control")
    }
    shared = figures["student"].keys() & figures["teacher"].keys()
    counted = shared or figures["student"].keys()
    student = _average(figures["student"], counted)
    teacher = _average(figures["teacher"], shared)
    return Averages(student, teacher, retained(student, teacher), _average(figures["control"], counted))


def figures_of(scores: Sequence[Score], subject: Scored = "student") -> dict[str, float]:
    """Returns one score for each task of a subject: the mean over metrics of the means over seeds.

    Without training it is the first metric: of what is retrieved, nDCG.
    """
    means: dict[str, list[float]] = {}
    for task, metric in dict.fromkeys((s.task, s.metric) for s in scores if s.subject == subject):
        means.setdefault(task, []).append(fmean(_values(scores, subject, task, metric)))
    return {task: values[0] if task.endswith(ZERO_SHOT) else fmean(values) for task, values in means.items()}


def retained(student: float | None, teacher: float | None) -> float | None:
    """Returns the student's score as a share of the teacher's; None if that is unknown or not positive."""
    if student is None or teacher is None or teacher <= 0:
        return None
    return student / teacher


def _row(scores: Sequence[Score], task: str, metric: str) -> ScoreRow:
    student = _values(scores, "student", task, metric)
    mean, teacher = _mean(student), _mean(_values(scores, "teacher", task, metric))
    return ScoreRow(
        task=task,
        metric=metric,
        student=mean,
        teacher=teacher,
        retained=retained(mean, teacher),
        spread=stdev(student) if len(student) > 1 else None,
        control=_mean(_values(scores, "control", task, metric)),
    )


def _values(scores: Sequence[Score], subject: Scored, task: str, metric: str) -> list[float]:
    asked = (subject, task, metric)
    return [score.value for score in scores if (score.subject, score.task, score.metric) == asked]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _average(figures: dict[str, float], tasks: Collection[str]) -> float | None:
    return _mean([figure for task, figure in figures.items() if task in tasks])
