"""The metrics of tasks, as scikit-learn and scipy compute them; higher is better for all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from kdnas_core.data.tasks import Task

Metric = Literal["accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman"]

# Official where they are not accuracy or, for scores, the two correlations (GLUE, arXiv 1804.07461).
_OFFICIAL: dict[str, tuple[Metric, ...]] = {
    "cola": ("matthews",),
    "mrpc": ("f1", "accuracy"),
    "qqp": ("f1", "accuracy"),
}
# Of two classes, what the negative one is called.
_NEGATIVE = re.compile(r"(not?|non|false|negative|0)(?![^\W_])", re.IGNORECASE)


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """What a task is scored by.

    GLUE's tasks by their names, classification of tweets by macro F1, as its authors do (arXiv 2104.12250);
    else accuracy for classes, and both correlations for scores.
    """
    if task.is_regression:
        return ("spearman", "pearson")
    if re.fullmatch(r"tweets(_.*)?|tweet_sentiment_multilingual", task.name):
        return ("macro_f1",)
    official = _OFFICIAL.get(task.name, ("accuracy",))
    return official if len(task.classes) == 2 else ("accuracy",)


def scores_of(task: Task, split: str, predictions: Sequence[float]) -> dict[Metric, float]:
    """The metrics of a task on one of its splits.

    Args:
        task: which.
        split: the name of one of its splits.
        predictions: for each of its rows the index of a class, or a score.
    """
    labels = [row.label for row in task.splits[split]]
    positive = positive_class(task.classes)
    return {metric: score(metric, labels, predictions, positive) for metric in metrics_of(task)}


def mean_of(scores: Mapping[Metric, float]) -> float:
    """The one figure of several metrics: their mean, as GLUE has it."""
    return fmean(scores.values())


def task_score(task: Task, predictions: Mapping[str, Sequence[float]]) -> float:
    """The one figure of a task: the mean over the splits that are scored, which are the languages of some.

    Args:
        task: which.
        predictions: by split, of all that are scored; others are left aside.
    """
    return fmean(mean_of(scores_of(task, split, predictions[split])) for split in task.scored)


def positive_class(classes: Sequence[str]) -> int:
    """The index of the class that F1 is of: the last, unless that is the only one of two named as negative.

    Public data names the negative class first ("not_equivalent", "equivalent"); a folder's classes are in
    the order of their names, where it comes last.
    """
    negative = [bool(_NEGATIVE.match(name)) for name in classes]
    return 0 if negative == [False, True] else len(classes) - 1


def score(metric: Metric, labels: Sequence[float], predictions: Sequence[float], positive: int = 1) -> float:
    """A metric of predictions; 0 where it is not defined, as for predictions that are all the same.

    Args:
        metric: which.
        labels: indices of classes, or scores.
        predictions: the same of the model.
        positive: the class that `f1` is of.
    """
    if metric in ("pearson", "spearman") and min(len(set(labels)), len(set(predictions))) < 2:
        return 0.0  # scipy warns and gives NaN: constant predictions correlate with nothing
    value = _compute(metric, labels, predictions, positive)
    return value if np.isfinite(value) else 0.0


def _compute(metric: Metric, labels: Sequence[float], predictions: Sequence[float], positive: int) -> float:
    match metric:
        case "accuracy":
            return float(accuracy_score(labels, predictions))
        case "f1":  # not of two classes only: a split and its predictions may hold but one
            return float(f1_score(labels, predictions, labels=[positive], average="macro", zero_division=0))
        case "macro_f1":
            return float(f1_score(labels, predictions, average="macro", zero_division=0))
        case "matthews":
            return float(matthews_corrcoef(labels, predictions))
        case "pearson":
            return float(pearsonr(labels, predictions).statistic)
        case "spearman":
            return float(spearmanr(labels, predictions).statistic)
