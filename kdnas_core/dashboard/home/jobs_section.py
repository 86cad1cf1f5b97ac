"""The part of the home page that lists work of every kind: what runs, what waits, and what failed."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.ui import tables, widgets, work_controls

_IDS, _CHOSEN = "jobs_shown", "job_chosen"


@widgets.sentences()
def show(db: Path) -> None:
    """Draws the table and the buttons of the work that is selected; nothing if all work is done."""
    works = live.read_jobs(db)
    if not works:
        return
    st.header("Work")
    st.session_state[_IDS] = [(work.job.kind, work.id) for work in works]
    st.dataframe(
        tables.jobs_table(works),
        hide_index=True,
        key="jobs",
        column_config=tables.JOB_COLUMNS,
        placeholder=wording.UNKNOWN,
        on_select=_remember,
        selection_mode="single-row",
        alt="Work that is running, queued in the order in which it is served, paused or failed",
    )
    chosen = st.session_state.get(_CHOSEN)
    work = next((work for work in works if (work.job.kind, work.id) == chosen), None)
    if work is None:
        st.markdown(":small[Queued work is served in this order. Select a row to pause, stop or resume it.]")
        return
    st.markdown(f"**{work.job.title}**")
    work_controls.buttons(db, work)
    work_controls.trouble(work)


def _remember() -> None:
    job = live.selected(st.session_state["jobs"].selection.rows, st.session_state[_IDS])
    if job is not None:
        st.session_state[_CHOSEN] = job
