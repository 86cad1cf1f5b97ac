"""How well what a search knew of its candidates ranks the final scores of their students."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.read import live_students
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.runs.proxies import FEWEST
from kdnas_core.search.ranking import EQUAL, Ranking

MEANING = (
    "Spearman is the rank correlation with the mean score over all of these students, 1 at best. Pairs are"
    f" of equal latency (at most {EQUAL:g} times each other) whose scores differ by more than their noise."
)
NAMES = {"full": "Yardstick, after full distillation", "flops": "FLOPs", "parameters": "Parameters"}


def show(db: Path, snapshot: Snapshot) -> None:
    """Draws a row for each measure; nothing while too few students of the run were scored on one task."""
    if sum(student.state == "finished" for student in snapshot.students) < FEWEST:
        return  # without a look at losses and scores, at each update of the page
    found = live_students.read_proxies(db, snapshot.run.id)
    if found is None:
        return
    st.header("How well it ranks")
    tasks = wording.plain(", ".join(found.tasks))
    st.markdown(f"{len(found.students)} students of this run were distilled in full and scored on {tasks}.")
    st.dataframe(
        pd.DataFrame([_row(name, ranking) for name, ranking in found.rankings.items()]),
        hide_index=True,
        placeholder=wording.UNKNOWN,
        column_config={"Spearman": st.column_config.NumberColumn(format="%.2f")},
        alt="How well each measure ranks the final scores, over all and among students of equal latency",
    )
    st.markdown(f":small[{MEANING}]")


def _row(name: str, ranking: Ranking) -> dict[str, object]:
    pairs = f"{ranking.right} of {ranking.pairs}" if ranking.pairs else wording.UNKNOWN
    return {"Ranked by": measure(name), "Spearman": ranking.spearman, "Pairs of equal latency": pairs}


def measure(name: str) -> str:
    """Describes a measure by its name in `Proxies.rankings`."""
    if name.startswith("step "):
        steps = int(name.removeprefix("step "))
        return f"Yardstick, after {steps:,} steps of mini-KD" if steps else "Yardstick, before the first step"
    return NAMES[name]
