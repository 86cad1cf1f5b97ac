"""A scoring's scores as people read them: one row for each task and metric, averages, and retained shares."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from kdnas_core.data.tasks import ZERO_SHOT as ZERO_SHOT
from kdnas_core.runs.records import Score, Scored


@dataclass(frozen=True)
class ScoreRow:
    """One metric of one task; None for what was not scored (yet).

    Attributes:
        task: its name.
        metric: its name.
        student: mean over seeds.
        teacher: the same of the teacher.
        retained: the student's as a share of the teacher's.
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
        """The score object of the command line's `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class Averages:
    """Over tasks, the mean of each task's mean over its metrics; None for what was not scored (yet).

    Only tasks on which the teacher was scored too count, where it was on any: averages over other tasks would
    not compare. Scores without fine-tuning are of another kind, and count in none.
    """

    student: float | None
    teacher: float | None
    retained: float | None
    control: float | None


def score_rows(scores: Sequence[Score]) -> list[ScoreRow]:
    """One row for each task and metric, in the order in which they were scored."""
    return [_row(scores, task, metric) for task, metric in dict.fromkeys((s.task, s.metric) for s in scores)]


def averages(scores: Sequence[Score]) -> Averages:
    """What a scoring comes to."""
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
    """The one figure of each task that a subject was scored on: the mean over metrics of means over seeds."""
    means: dict[str, list[float]] = {}
    for task, metric in dict.fromkeys((s.task, s.metric) for s in scores if s.subject == subject):
        means.setdefault(task, []).append(fmean(_values(scores, subject, task, metric)))
    return {task: fmean(values) for task, values in means.items()}


def retained(student: float | None, teacher: float | None) -> float | None:
    """The share of the teacher's score that a student keeps; None where the teacher's is no more than 0."""
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
