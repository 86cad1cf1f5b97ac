"""The table of a scoring: scores in, a data frame out."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.runs.rows import Score
from kdnas_core.runs.score_table import ScoreRow, score_rows

METRICS = {
    "accuracy": "accuracy",
    "f1": "F1",
    "macro_f1": "macro F1",
    "matthews": "Matthews' correlation",
    "pearson": "Pearson's correlation",
    "spearman": "Spearman's correlation",
}
SCORE_COLUMNS = {
    "Task": st.column_config.TextColumn(pinned=True),
    "Student": st.column_config.TextColumn(alignment="right", help="mean over seeds ± their spread"),
    "Teacher": st.column_config.NumberColumn(format="%.1f"),
    "Retained (%)": st.column_config.NumberColumn(format="%.1f"),
    "Without distillation": st.column_config.NumberColumn(format="%.1f"),
}


def scores_table(scores: Sequence[Score]) -> pd.DataFrame:
    """One row for each task and metric; the control only where there is one."""
    rows = score_rows(scores)
    table = pd.DataFrame([_row(row) for row in rows])
    if all(row.control is None for row in rows):
        return table.drop(columns="Without distillation", errors="ignore")
    return table


def metric(name: str) -> str:
    """A metric in words, with its split where it has one: "accuracy, de"."""
    first, comma, split = name.partition(",")
    return METRICS.get(first, first.replace("_", " ")) + comma + split


def _row(row: ScoreRow) -> dict[str, object]:
    return {
        "Task": row.task,
        "Metric": metric(row.metric),
        "Student": _spread(row),
        "Teacher": _times_100(row.teacher),
        "Retained (%)": _times_100(row.retained),
        "Without distillation": _times_100(row.control),
    }


def _spread(row: ScoreRow) -> str | None:
    if row.student is None:
        return None
    spread = f" ± {wording.points(row.spread)}" if row.spread is not None else ""
    return wording.points(row.student) + spread


def _times_100(value: float | None) -> float | None:
    return None if value is None else 100 * value
