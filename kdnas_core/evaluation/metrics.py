"""The metrics of tasks, computed by scikit-learn and scipy; higher is better for all."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from kdnas_core.data.tasks import Task

Metric = Literal["accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman"]

RESAMPLES = 200  # of a bootstrap

# GLUE's metrics where they are neither accuracy nor the two correlations (arXiv 1804.07461).
_OFFICIAL: dict[str, tuple[Metric, ...]] = {
    "cola": ("matthews",),
    "mrpc": ("f1", "accuracy"),
    "qqp": ("f1", "accuracy"),
}
# Names of the negative class of two.
_NEGATIVE = re.compile(r"(not?|non|false|negative|0)(?![^\W_])", re.IGNORECASE)


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """Returns the metrics of a task.

    GLUE's tasks have GLUE's metrics, classification of tweets has macro F1 (arXiv 2104.12250). The default is
    accuracy for classes, and both correlations for scores.
    """
    if task.is_regression:
        return ("spearman", "pearson")
    if re.fullmatch(r"tweets(_.*)?|tweet_sentiment_multilingual", task.name):
        return ("macro_f1",)
    official = _OFFICIAL.get(task.name, ("accuracy",))
    return official if len(task.classes) == 2 else ("accuracy",)


def scores_of(task: Task, split: str, predictions: Sequence[float]) -> dict[Metric, float]:
    """Computes the metrics of a task on one of its splits.

    Args:
        task: the task.
        split: the name of one of its splits.
        predictions: the index of a class, or a score, for each of its rows.
    """
    return _by_metric(score, task, split, predictions)


def errors_of(task: Task, split: str, predictions: Sequence[float]) -> dict[Metric, float]:
    """Computes the standard errors of a task's metrics; arguments as for `scores_of`."""
    return _by_metric(standard_error, task, split, predictions)


def _by_metric(
    of: Callable[[Metric, Sequence[float], Sequence[float], int], float],
    task: Task,
    split: str,
    predictions: Sequence[float],
) -> dict[Metric, float]:
    labels, positive = [row.label for row in task.splits[split]], positive_class(task.classes)
    return {metric: of(metric, labels, predictions, positive) for metric in metrics_of(task)}


def mean_of(scores: Mapping[Metric, float]) -> float:
    """Returns the mean of several metrics, as GLUE does."""
    return fmean(scores.values())


def task_score(task: Task, predictions: Mapping[str, Sequence[float]]) -> float:
    """Computes the score of a task: the mean over its scored splits.

    Args:
        task: the task.
        predictions: by split, for all scored splits; others are ignored.
    """
    return fmean(mean_of(scores_of(task, split, predictions[split])) for split in task.scored)


def positive_class(classes: Sequence[str]) -> int:
    """Returns the positive class of F1: the last, unless it is the only one of two with a negative name.

    Public data lists the negative class first ("not_equivalent", "equivalent"). A folder's classes are sorted
    by name, which can put the negative class last.
    """
    negative = [bool(_NEGATIVE.match(name)) for name in classes]
    return 0 if negative == [False, True] else len(classes) - 1


def score(metric: Metric, labels: Sequence[float], predictions: Sequence[float], positive: int = 1) -> float:
    """Computes a metric; 0 if it is not defined, as for constant predictions.

    Args:
        metric: its name.
        labels: indices of classes, or scores.
        predictions: the model's.
        positive: the positive class of `f1`.
    """
    if metric in ("pearson", "spearman") and min(len(set(labels)), len(set(predictions))) < 2:
        return 0.0  # scipy would warn and return NaN
    value = _compute(metric, labels, predictions, positive)
    return value if np.isfinite(value) else 0.0


def standard_error(
    metric: Metric, labels: Sequence[float], predictions: Sequence[float], positive: int = 1
) -> float:
    """Computes the standard error of a metric over rows; arguments as for `score`.

    How much the metric would vary with other test rows of the same kind: of an accuracy by Agresti and Coull
    (1998), which is above 0 where all rows are right; else by bootstrap, whose resamples are always the same.
    """
    known, predicted = np.asarray(labels, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    rows, rng = len(known), np.random.default_rng(0)
    if metric == "accuracy":
        share = (float((known == predicted).sum()) + 2) / (rows + 4)
        return math.sqrt(share * (1 - share) / (rows + 4))
    if metric in ("pearson", "spearman"):
        drawn = (rng.integers(rows, size=rows) for _ in range(RESAMPLES))
        return float(np.std([score(metric, known[i].tolist(), predicted[i].tolist()) for i in drawn]))
    # rows of the same label and prediction are drawn together
    cells, counts = np.unique(np.stack([known, predicted], axis=1), axis=0, return_counts=True)
    weights = rng.multinomial(rows, counts / rows, size=RESAMPLES)
    return float(np.std([_compute(metric, cells[:, 0], cells[:, 1], positive, some) for some in weights]))


def chance_of(task: Task, split: str) -> dict[Metric, float]:
    """Computes the metrics of always predicting the class that is most frequent in training; 0 for scores."""
    if task.is_regression:
        return dict.fromkeys(metrics_of(task), 0.0)
    usual = Counter(row.label for row in task.splits["train"]).most_common(1)[0][0]
    return scores_of(task, split, [usual] * len(task.splits[split]))


def _compute(
    metric: Metric,
    labels: Sequence[float] | NDArray[np.float64],
    predictions: Sequence[float] | NDArray[np.float64],
    positive: int,
    weights: NDArray[np.int64] | None = None,
) -> float:
    """A metric of classes, whose rows may count several times, or a correlation."""
    match metric:
        case "accuracy":
            return float(accuracy_score(labels, predictions, sample_weight=weights))
        case "f1":  # not "binary", which fails if a split has another class than `positive` only
            chosen = {"labels": [positive], "average": "macro", "zero_division": 0}
            return float(f1_score(labels, predictions, sample_weight=weights, **chosen))
        case "macro_f1":
            return float(
                f1_score(labels, predictions, sample_weight=weights, average="macro", zero_division=0)
            )
        case "matthews":
            return float(matthews_corrcoef(labels, predictions, sample_weight=weights))
        case "pearson":
            return float(pearsonr(labels, predictions).statistic)
        case "spearman":
            return float(spearmanr(labels, predictions).statistic)
