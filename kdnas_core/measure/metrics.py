"""The metrics of tasks, as scikit-learn and scipy compute them; higher is better for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from kdnas_core.measure.tasks import Task

Metric = Literal["accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman"]

# Official where they are not accuracy or, for scores, the two correlations (GLUE, arXiv 1804.07461).
_OFFICIAL: dict[str, tuple[Metric, ...]] = {
    "cola": ("matthews",),
    "mrpc": ("f1", "accuracy"),
    "qqp": ("f1", "accuracy"),
}
_COMPUTE: dict[Metric, Callable[[Sequence[float], Sequence[float]], float]] = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "macro_f1": lambda labels, predictions: f1_score(labels, predictions, average="macro"),
    "matthews": matthews_corrcoef,
    "pearson": lambda labels, predictions: pearsonr(labels, predictions).statistic,
    "spearman": lambda labels, predictions: spearmanr(labels, predictions).statistic,
}


def metrics_of(task: Task) -> tuple[Metric, ...]:
    """What a task is scored by, the metric that stands for it first.

    GLUE's tasks by their names, classification of tweets by macro F1, as its authors do; else accuracy for
    classes, and both correlations for scores.
    """
    if task.is_regression:
        return ("spearman", "pearson")
    if task.name.startswith("tweets_"):
        return ("macro_f1", "accuracy")
    official = _OFFICIAL.get(task.name, ("accuracy",))
    return official if len(task.classes) == 2 else ("accuracy",)


def score(metric: Metric, labels: Sequence[float], predictions: Sequence[float]) -> float:
    """A metric of predictions; 0 where it is not defined, as for predictions that are all the same.

    Args:
        metric: which.
        labels: indices of classes, or scores.
        predictions: the same of the model.
    """
    if metric in ("pearson", "spearman") and len(set(predictions)) < 2:
        return 0.0  # scipy warns and gives NaN: what says the same of every text says nothing
    value = float(_COMPUTE[metric](labels, predictions))
    return value if np.isfinite(value) else 0.0
