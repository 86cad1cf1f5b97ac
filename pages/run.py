"""The page of a run: its progress, its Pareto frontier, and the best student for any budget."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.model_page import students_section
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.run import (
    answer_section,
    budget_control,
    budgets_section,
    candidates_section,
    frontier_section,
    knobs_section,
    layer_strip,
    model_section,
    notes_section,
    outlook_section,
    proxies_section,
    run_header,
    went_section,
)
from kdnas_core.dashboard.ui import places, widgets
from kdnas_core.runs.records import Run

DRAWN = "run_drawn"  # the run whose page was drawn last in this session


def findings(db: Path, snapshot: Snapshot) -> None:
    run = snapshot.run
    left, right = st.columns([2, 1], gap="medium")
    chosen = frontier_section.chosen_of(snapshot)
    with left:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            limit = budget_control.show(run)
            view = frontier_section.view()
        found = Findings.of(snapshot.candidates, limit)
        frontier_section.show(db, snapshot, found, chosen, view)
    with right:
        answer_section.show(db, snapshot, found, chosen)
    layer_strip.show(db, snapshot, found, chosen)
    budgets_section.show(db, snapshot, found)
    candidates_section.show(snapshot, found)
    students_section.show_best(db, snapshot, found)
    outlook_section.show(db, run)
    proxies_section.show(db, snapshot)
    knobs_section.show(snapshot)
    went_section.show(db, snapshot)
    notes_section.show(snapshot.candidates)
    model_section.show(snapshot)


def forget_other(run: Run) -> None:
    """Takes back what was set on the page of another run, which Streamlit keeps in session and address."""
    before = st.session_state.get(DRAWN)
    st.session_state[DRAWN] = run.id
    if before in (None, run.id):
        return
    budget_control.reset(run)
    budgets_section.reset(run)
    frontier_section.reset()


def page() -> None:
    db = live.database()
    run = live.id_in_address(st.query_params.get("run"), "run") or live.newest_run(db)
    if run is None:
        st.title("Run")
        st.info("No search has been started yet.")
        st.page_link(places.NEW_SEARCH, label="Start a new search", icon=":material/add:")
        return
    st.query_params["run"] = str(run)
    snapshot = live.read_run(db, run)
    forget_other(snapshot.run)
    refresh = live.refresh_s([snapshot.run, *snapshot.students], live=run_header.updates())
    st.fragment(run_header.show, run_every=refresh, key="header")(db, snapshot, refresh)
    if any(row.latency or row.estimated_ms for row in snapshot.candidates):
        findings(db, snapshot)
    else:
        st.info(
            "The teacher is measured first, then each candidate; its point appears here once it is judged."
        )


with widgets.sentences():
    page()
