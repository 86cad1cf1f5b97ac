"""The part of a run's page that shows how its search went: progress, steps saved, time, and the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.run import progress_figures
from kdnas_core.dashboard.ui import widgets
from kdnas_core.dashboard.ui.charts import CONFIG
from kdnas_core.runs.records import Candidate

HYPERVOLUME = "The share of the area up to the run's budget and full agreement that the frontier dominates."
RUNGS = "A candidate that is stopped takes none of the steps that were left to it."
LOG_LINES = 200


def show(db: Path, snapshot: Snapshot) -> None:
    """Draws all of it, folded."""
    folded = st.expander("How the search went", key="went", on_change="rerun", bind="query-params")
    if not folded.open:
        return  # its figures take long, of many candidates
    with folded:
        _figures(snapshot)
        left, right = st.columns(2)
        with left:
            _resources(db, snapshot)
        with right:
            _rungs(snapshot.candidates)
        _log(db)


def _figures(snapshot: Snapshot) -> None:
    left, right = st.columns(2)
    with left:
        st.plotly_chart(
            progress_figures.hypervolume_figure(snapshot.candidates, progress.budget_of(snapshot.run)),
            key=f"hypervolume_{snapshot.run.id}",
            config=CONFIG,
            alt="Hypervolume of the frontier within the run's budget by candidates judged",
        )
        st.markdown(f":small[{HYPERVOLUME}]")
    with right:
        st.plotly_chart(
            progress_figures.reward_figure(snapshot.candidates),
            key=f"reward_{snapshot.run.id}",
            config=CONFIG,
            alt="Rewards of the candidates of each episode, their mean and the best so far",
        )


def _resources(db: Path, snapshot: Snapshot) -> None:
    run, judged = snapshot.run, progress.judged(snapshot.candidates)
    seconds = sum(row.seconds for row in judged)
    each = wording.duration(seconds / len(judged)) if judged else wording.UNKNOWN
    st.subheader("Time and room")
    widgets.cards(
        (
            ("Time of the search", wording.duration(run.seconds), None),
            ("A candidate", each, "mean of those judged"),
            (
                "On the disk",
                wording.size(live.bytes_of_run(db, run.id)),
                "weights of candidates and students",
            ),
        )
    )


def rungs_table(candidates: Sequence[Candidate]) -> pd.DataFrame:
    """Returns a row for each number of steps after which candidates were stopped, and one for the end."""
    stopped = progress.pruned(candidates)
    whole = [row for row in candidates if row.state == "done"]
    rows = [
        {
            "After step": step,
            "Reached": sum(row.step >= step for row in stopped) + len(whole),
            "Stopped": sum(row.step == step for row in stopped),
            "Steps saved": sum(row.steps - row.step for row in stopped if row.step == step),
        }
        for step in sorted({row.step for row in stopped})
    ]
    steps = max((row.steps for row in (*stopped, *whole)), default=0)
    return pd.DataFrame([*rows, {"After step": steps, "Reached": len(whole), "Stopped": 0, "Steps saved": 0}])


def _rungs(candidates: Sequence[Candidate]) -> None:
    if not progress.pruned(candidates):
        return
    st.subheader("Stopped early")
    st.dataframe(
        rungs_table(candidates),
        hide_index=True,
        alt="How many candidates reached each look at their loss, and how many were stopped there",
    )
    st.markdown(f":small[{RUNGS}]")


def _log(db: Path) -> None:
    lines = live.last_lines_of_log(db, LOG_LINES)
    if not lines:
        return
    st.subheader("Log of the workers")
    st.code("\n".join(lines), language=None, height=240)
    st.markdown(f":small[The last {len(lines)} lines, of all work of this store]")
