"""Converts systems to data frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd
import streamlit as st

from kdnas_core.architecture import PRESETS
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import systems
from kdnas_core.dashboard.model.published import BERT_BASE_AVERAGE, SYSTEMS
from kdnas_core.dashboard.model.published import System as Published
from kdnas_core.dashboard.model.systems import System

Order = Literal["retained %", "speed-up"]

_AVERAGE = "Average"
_FIXED = (
    "System",
    "Kind",
    "Of",
    "Parameters (M)",
    "FLOPs (G)",
    "Speed-up",
    _AVERAGE,
    "Retained (%)",
    "Shape",
)
_NUMBERS: dict[str, Any] = {
    "Parameters (M)": st.column_config.NumberColumn(format="%.1f"),
    "FLOPs (G)": st.column_config.NumberColumn(format="%.2f", help="of one sequence"),
    "Speed-up": st.column_config.NumberColumn(format="%.1f×", help="against the teacher"),
    "Retained (%)": st.column_config.NumberColumn(
        format="%.1f", help="the average as a share of the teacher's"
    ),
}
PUBLISHED_COLUMNS: dict[str, Any] = {
    **_NUMBERS,
    "System": st.column_config.TextColumn(pinned=True),
    "GLUE test average": st.column_config.NumberColumn(format="%.1f", help="without WNLI"),
}


def ordered(rows: Sequence[System], order: Order) -> list[System]:
    """Sorts rows by an order, best first; the teacher comes first, and unknown values last."""
    tasks = systems.shared_tasks(rows)

    def key(row: System) -> tuple[bool, bool, float]:
        value = row.speedup if order == "speed-up" else systems.retained(row, rows, tasks)
        return row.kind != "teacher", value is None, -(value or 0.0)

    return sorted(rows, key=key)


def systems_table(rows: Sequence[System]) -> pd.DataFrame:
    """Returns one row for each system and one column for each task, with averages over the shared tasks."""
    tasks = systems.shared_tasks(rows)
    return pd.DataFrame([_row(row, rows, tasks) for row in rows])


def system_columns(rows: Sequence[System]) -> dict[str, Any]:
    """Returns the column settings of `systems_table`."""
    scores = [column(task) for task in (*systems.tasks_of(rows), *systems.zero_shot_tasks_of(rows))]
    return {
        **{name: st.column_config.NumberColumn(format="%.1f") for name in scores},
        **_NUMBERS,
        "System": st.column_config.TextColumn(pinned=True, help="recipe, layers × hidden size × FFN size"),
        "Kind": st.column_config.TextColumn(help="mini-KD: a candidate as its search left it"),
        _AVERAGE: st.column_config.NumberColumn(format="%.1f", help="over the tasks that all rows have"),
    }


def column(task: str) -> str:
    """Returns the name of a task's column, which differs from those of the fixed columns."""
    return f"{task} (task)" if task in _FIXED else task


def _row(row: System, rows: Sequence[System], tasks: Sequence[str]) -> dict[str, object]:
    tuned, similar = systems.tasks_of(rows), systems.zero_shot_tasks_of(rows)
    return {
        "System": row.name,
        "Kind": row.kind,
        "Of": row.of or None,
        "Parameters (M)": row.parameters and row.parameters / 1e6,
        "FLOPs (G)": row.flops and row.flops / 1e9,
        "Speed-up": row.speedup,
        **{column(task): _times_100(row.figures.get(task)) for task in tuned},
        _AVERAGE: _times_100(systems.average(row, tasks)),
        "Retained (%)": _times_100(systems.retained(row, rows, tasks)),
        **{column(task): _times_100(row.figures.get(task)) for task in similar},
        "Shape": wording.shape(row.architecture),
    }


def published_table() -> pd.DataFrame:
    """Returns the published students with their published results."""
    return pd.DataFrame([_published_row(system) for system in SYSTEMS])


def _published_row(system: Published) -> dict[str, object]:
    return {
        "System": f"{system.name} (published)",
        "Parameters (M)": system.parameters,
        "FLOPs (G)": system.flops,
        "Speed-up": system.speedup,
        "GLUE test average": system.average,
        "Retained (%)": _times_100(system.retained),
        "Shape": wording.shape(PRESETS[system.preset]),
    }


PUBLISHED_WORDS = (
    "Published figures, as TinyBERT's paper reports them (arXiv 1909.10351, tables 1 and 2): GLUE's tests,"
    f" and speed-up over BERT-base, whose average is {BERT_BASE_AVERAGE}. They were got with another teacher,"
    " other tasks and another machine than the systems above, and enter none of their averages."
)


def _times_100(value: float | None) -> float | None:
    return None if value is None else 100 * value
