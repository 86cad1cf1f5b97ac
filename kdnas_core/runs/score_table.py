"""Summarises a scoring's scores: one row for each task and metric, averages, and retained shares.

The variance of a mean over seeds has two parts: that of its value over test rows, which all seeds share, and
the sample variance over seeds divided by their number. Intervals are by Student's t with the degrees of
freedom of Welch and Satterthwaite, since few seeds tell their variance badly. A mean over tasks takes tasks
for independent, and the metrics of one task for the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev, variance
from typing import Any, NamedTuple

from scipy.stats import t

from kdnas_core.data.tasks import ZERO_SHOT as ZERO_SHOT
from kdnas_core.runs.records import Score, Scored

_BOTH: tuple[Scored, ...] = ("student", "teacher")
CERTAIN = 0.95  # of an interval
CORRELATIONS = ("matthews", "pearson", "spearman")  # that a constant prediction has none of


@dataclass(frozen=True)
class Noise:
    """The noise of a mean.

    Attributes:
        variance: of it.
        squares: sum of the squares of its parts' variances, each over the part's degrees of freedom; 0 if it
            is known as well as from many.
    """

    variance: float
    squares: float = 0.0

    @property
    def half(self) -> float:
        """Half of its 95 % interval."""
        freedom = self.variance**2 / self.squares if self.squares else math.inf
        return float(t.ppf((1 + CERTAIN) / 2, freedom)) * math.sqrt(self.variance)

    def plus(self, other: Noise) -> Noise:
        """Returns the noise of the sum, or the difference, of two independent means."""
        return Noise(self.variance + other.variance, self.squares + other.squares)

    def times(self, factor: float) -> Noise:
        """Returns the noise of a mean times a factor."""
        return Noise(factor**2 * self.variance, factor**4 * self.squares)


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
        interval: half of the 95 % interval of the student's mean, by seeds and rows; None for one fine-tuned
            seed.
        teacher_interval: of the teacher's.
        chance: what always predicting the most frequent class scores.
        above_chance: what is retained of the teacher's distance to chance; None where the teacher itself is
            within noise of it.
        within_noise: whether the 95 % interval of the difference from the teacher holds 0, as if both were
            scored on rows of their own.
    """

    task: str
    metric: str
    student: float | None
    teacher: float | None
    retained: float | None
    spread: float | None
    control: float | None
    interval: float | None = None
    teacher_interval: float | None = None
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
    interval: float | None = None
    teacher_interval: float | None = None
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
    noises = [_by_tasks(tuned, subject, counted) for subject in _BOTH]
    rows = [row for row in score_rows(tuned) if row.task in counted]
    chances = {task: [row.chance for row in rows if row.task == task] for task in counted}
    known = [[value for value in values if value is not None] for values in chances.values()]
    is_whole = all(len(some) == len(all_) > 0 for some, all_ in zip(known, chances.values(), strict=True))
    chance = fmean(map(fmean, known)) if known and is_whole else None
    return Averages(
        student,
        teacher,
        retained(student, teacher),
        _average(figures["control"], counted),
        *_compared(student, teacher, noises[0], noises[1], chance),
    )


def average_error(scores: Sequence[Score]) -> float | None:
    """Returns the standard error of a student's average over tasks, by seeds and rows; None if not known."""
    tuned = [score for score in scores if not score.task.endswith(ZERO_SHOT)]
    tasks = {score.task for score in tuned if score.subject == "student"}
    noise = _by_tasks(tuned, "student", tasks)
    return None if noise is None else math.sqrt(noise.variance)


def figures_of(scores: Sequence[Score], subject: Scored = "student") -> dict[str, float]:
    """Returns one score for each task of a subject: the mean over metrics of the means over seeds.

    Without training it is the first metric: of what is retrieved, nDCG.
    """
    means: dict[str, list[float]] = {}
    for task, metric in dict.fromkeys((s.task, s.metric) for s in scores if s.subject == subject):
        means.setdefault(task, []).append(fmean(_values(scores, subject, task, metric)))
    return {task: values[0] if task.endswith(ZERO_SHOT) else fmean(values) for task, values in means.items()}


def chances_of(scores: Sequence[Score]) -> dict[str, float]:
    """Returns what naming the most frequent class scores on each task, the mean over its metrics.

    It is 0 for a correlation, and left out where it is not known, as of scores of the first versions.
    """
    found: dict[str, dict[str, float]] = {}
    for score in scores:
        chance = 0.0 if score.metric.split(",")[0] in CORRELATIONS else score.chance
        if chance is not None:
            found.setdefault(score.task, {})[score.metric] = chance
    metrics: dict[str, set[str]] = {}
    for score in scores:
        metrics.setdefault(score.task, set()).add(score.metric)
    return {task: fmean(known.values()) for task, known in found.items() if known.keys() == metrics[task]}


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
    noise, teacher_noise = (_noise(scores, subject, task, metric) for subject in _BOTH)
    return ScoreRow(
        task=task,
        metric=metric,
        student=mean,
        teacher=teacher,
        retained=retained(mean, teacher),
        spread=stdev(student) if len(student) > 1 else None,
        control=_mean(_values(scores, "control", task, metric)),
        **_compared(mean, teacher, noise, teacher_noise, chance)._asdict(),
    )


class _Compared(NamedTuple):
    """The fields that rows and averages share."""

    interval: float | None
    teacher_interval: float | None
    chance: float | None
    above_chance: float | None
    within_noise: bool | None


def _compared(
    student: float | None,
    teacher: float | None,
    noise: Noise | None,
    teacher_noise: Noise | None,
    chance: float | None,
) -> _Compared:
    interval, teacher_interval = (None if each is None else each.half for each in (noise, teacher_noise))
    above = within = None
    if student is not None and teacher is not None:
        if chance is not None and teacher - chance > (teacher_interval or 0.0):
            above = (student - chance) / (teacher - chance)
        if noise is not None and teacher_noise is not None:
            within = abs(student - teacher) <= noise.plus(teacher_noise).half
    return _Compared(interval, teacher_interval, chance, above, within)


def _noise(scores: Sequence[Score], subject: Scored, task: str, metric: str) -> Noise | None:
    """The noise of a mean over seeds; None where it is not known over rows, or not over seeds."""
    found = _asked(scores, subject, task, metric)
    errors = [score.error for score in found if score.error is not None]
    if not found or len(errors) < len(found) or (len(found) == 1 and found[0].rate is not None):
        return None
    by_rows = Noise(fmean(error**2 for error in errors))
    if len(found) == 1:
        return by_rows
    by_seeds = variance(score.value for score in found) / len(found)
    return by_rows.plus(Noise(by_seeds, by_seeds**2 / (len(found) - 1)))


def _by_tasks(scores: Sequence[Score], subject: Scored, tasks: Collection[str]) -> Noise | None:
    """The noise of a mean over tasks; None if one is not known."""
    total = Noise(0.0)
    for task in tasks:
        metrics = dict.fromkeys(score.metric for score in scores if score.task == task)
        found = [_noise(scores, subject, task, metric) for metric in metrics]
        known = [each for each in found if each is not None]
        if not known or len(known) < len(found):
            return None
        mean = Noise(fmean(each.variance for each in known), fmean(each.squares for each in known))
        total = total.plus(mean.times(1 / len(tasks)))
    return total if tasks else None


def _values(scores: Sequence[Score], subject: Scored, task: str, metric: str) -> list[float]:
    return [score.value for score in _asked(scores, subject, task, metric)]


def _asked(scores: Sequence[Score], subject: Scored, task: str, metric: str) -> list[Score]:
    asked = (subject, task, metric)
    return [score for score in scores if (score.subject, score.task, score.metric) == asked]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _average(figures: dict[str, float], tasks: Collection[str]) -> float | None:
    return _mean([figure for task, figure in figures.items() if task in tasks])
