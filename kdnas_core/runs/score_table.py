"""Summarises a scoring's scores: one row for each task and metric, averages, and retained shares.

The squared standard error of a mean over seeds is the mean squared error over the scored rows, which all
seeds share, plus the variance over seeds divided by their number. That of a mean over tasks takes tasks for
independent, and the metrics of one task for the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev, variance
from typing import Any, NamedTuple

from kdnas_core.data.tasks import ZERO_SHOT as ZERO_SHOT
from kdnas_core.runs.records import Score, Scored

_BOTH: tuple[Scored, ...] = ("student", "teacher")
CERTAIN = 1.96  # standard errors on each side hold 95 % of a normal distribution


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
        error: standard error of the student's mean, by seeds and rows.
        teacher_error: of the teacher's.
        chance: what always predicting the most frequent class scores.
        above_chance: what is retained of the teacher's distance to chance; None where the teacher itself is
            within noise of it.
        within_noise: whether student and teacher differ by less than the noise of both: 1.96 standard errors
            of the difference, as if they were scored on rows of their own.
    """

    task: str
    metric: str
    student: float | None
    teacher: float | None
    retained: float | None
    spread: float | None
    control: float | None
    error: float | None = None
    teacher_error: float | None = None
    chance: float | None = None
    above_chance: float | None = None
    within_noise: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the score object of the command line's `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class Averages:
    """The mean over tasks of each task's mean over its metrics; None if not scored (yet).

    If the teacher was scored, only tasks that it was scored on count, so that the averages compare. Scores
    without fine-tuning do not count. The last five fields are as those of a row.
    """

    student: float | None
    teacher: float | None
    retained: float | None
    control: float | None
    error: float | None = None
    teacher_error: float | None = None
    chance: float | None = None
    above_chance: float | None = None
    within_noise: bool | None = None


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
    rows = [row for row in score_rows(tuned) if row.task in counted]
    error = _by_tasks([(row.task, row.error) for row in rows], _root_mean)
    teacher_error = _by_tasks([(row.task, row.teacher_error) for row in rows], _root_mean)
    chance = _by_tasks([(row.task, row.chance) for row in rows], fmean)
    return Averages(
        student,
        teacher,
        retained(student, teacher),
        _average(figures["control"], counted),
        *_compared(student, teacher, error, teacher_error, chance),
    )


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
    known = (score.chance for score in scores if (score.task, score.metric) == (task, metric))
    chance = next((value for value in known if value is not None), None)
    error, teacher_error = (_error(scores, subject, task, metric) for subject in _BOTH)
    return ScoreRow(
        task=task,
        metric=metric,
        student=mean,
        teacher=teacher,
        retained=retained(mean, teacher),
        spread=stdev(student) if len(student) > 1 else None,
        control=_mean(_values(scores, "control", task, metric)),
        **_compared(mean, teacher, error, teacher_error, chance)._asdict(),
    )


class _Compared(NamedTuple):
    """The fields that rows and averages share."""

    error: float | None
    teacher_error: float | None
    chance: float | None
    above_chance: float | None
    within_noise: bool | None


def _compared(
    student: float | None,
    teacher: float | None,
    error: float | None,
    teacher_error: float | None,
    chance: float | None,
) -> _Compared:
    above = within = None
    if student is not None and teacher is not None:
        if chance is not None and teacher - chance > CERTAIN * (teacher_error or 0.0):
            above = (student - chance) / (teacher - chance)
        if error is not None and teacher_error is not None:
            within = abs(student - teacher) < CERTAIN * math.hypot(error, teacher_error)
    return _Compared(error, teacher_error, chance, above, within)


def _error(scores: Sequence[Score], subject: Scored, task: str, metric: str) -> float | None:
    """The standard error of a mean over seeds; None if that over rows is not known of all."""
    asked = (subject, task, metric)
    found = [score for score in scores if (score.subject, score.task, score.metric) == asked]
    errors = [score.error for score in found if score.error is not None]
    if not found or len(errors) < len(found):
        return None
    by_seeds = variance(score.value for score in found) / len(found) if len(found) > 1 else 0.0
    return math.sqrt(fmean(error**2 for error in errors) + by_seeds)


def _by_tasks(
    values: Sequence[tuple[str, float | None]], together: Callable[[Sequence[float]], float]
) -> float | None:
    """Values of rows, averaged within each task, and put together over tasks; None if one is not known."""
    of_tasks: dict[str, list[float]] = {}
    for task, value in values:
        if value is None:
            return None
        of_tasks.setdefault(task, []).append(value)
    return together([fmean(some) for some in of_tasks.values()]) if of_tasks else None


def _root_mean(errors: Sequence[float]) -> float:
    """The standard error of a mean of independent values."""
    return math.hypot(*errors) / len(errors)


def _values(scores: Sequence[Score], subject: Scored, task: str, metric: str) -> list[float]:
    asked = (subject, task, metric)
    return [score.value for score in scores if (score.subject, score.task, score.metric) == asked]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _average(figures: dict[str, float], tasks: Collection[str]) -> float | None:
    return _mean([figure for task, figure in figures.items() if task in tasks])
