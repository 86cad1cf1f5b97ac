"""The page of all searches, with their results so far and a link to a new search."""

from __future__ import annotations

import time
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import controls
from kdnas_core.dashboard.home import import_section
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.ui import places, tables, widgets
from kdnas_core.runs.jobs import ACTIVE
from kdnas_core.runs.records import Run
from kdnas_core.spec import quick_spec

SHOWN = 20
SHOWN_KEY = "runs_shown"


def introduction() -> None:
    st.title("KD-NAS Studio")
    st.markdown(
        "Find the small encoder that fits your latency budget: a search distils many candidate students for a"
        " short while each, measures them on this machine, and keeps the Pareto frontier."
        " Choose a student for a budget, see layer by layer what it has learnt, and export it."
    )


@st.dialog("Delete this run?")
def confirm_delete(db: Path, run: Run) -> None:
    st.markdown(
        f"Run {run.id} ({wording.plain(run.name)}), its candidates, its students, their weights and their"
        " scores are deleted for good."
    )
    if st.button("Delete for good", type="primary"):
        widgets.act(controls.delete, db, run.job)
        st.rerun()


def first_search(db: Path, snapshots: list[Snapshot]) -> None:
    run = snapshots[0].run
    if len(snapshots) > 1 or run.name != quick_spec().name or run.state not in ACTIVE:
        return
    with st.container(border=True, key="first-search"):
        st.markdown(
            "**A quick search was started for you**, with the packaged teacher and corpus, so that there is"
            " something to look at in a few minutes. It goes on in the background when you close this tab."
        )
        with st.container(horizontal=True, vertical_alignment="center"):
            st.page_link(
                places.RUN, label="Watch it", icon=":material/monitoring:", query_params={"run": str(run.id)}
            )
            st.button("Stop it", on_click=widgets.act, args=(controls.stop, db, run.job))


def remember_row() -> None:
    shown = st.session_state[SHOWN_KEY]
    row = live.selected(st.session_state["runs"].selection.rows, shown)
    if row is not None:
        st.session_state["run_chosen"] = row


def actions(db: Path, snapshots: list[Snapshot]) -> None:
    runs = {snapshot.run.id: snapshot.run for snapshot in snapshots}
    run = runs.get(st.session_state.get("run_chosen", 0), snapshots[0].run)
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button(f"Open run {run.id}", icon=":material/arrow_forward:"):
            st.switch_page(places.RUN, query_params={"run": str(run.id)})
        busy = run.state == "running"
        if st.button(
            f"Delete run {run.id} …",
            disabled=busy,
            help="Stop it first." if busy else None,
        ):
            confirm_delete(db, run)


@widgets.sentences()
def all_runs(db: Path) -> None:
    widgets.say()
    everything = st.session_state.get("all_runs", False)
    snapshots = live.read_runs(db, None if everything else SHOWN)
    if not snapshots:
        st.info("No search has been started yet. Give one a latency budget and press start.")
        return
    first_search(db, snapshots)
    st.session_state[SHOWN_KEY] = [snapshot.run.id for snapshot in snapshots]
    st.dataframe(
        tables.runs_table(snapshots, time.time()),
        hide_index=True,
        key="runs",
        column_config=tables.RUN_COLUMNS,
        on_select=remember_row,
        selection_mode="single-row",
        alt="Searches, newest first: state, episode, candidates judged and the pick within budget",
    )
    actions(db, snapshots)
    if len(snapshots) >= SHOWN:
        st.toggle("Show older runs too", key="all_runs")


introduction()
database = live.database()
if st.button("New search", icon=":material/add:", type="primary"):
    st.switch_page(places.NEW_SEARCH)
import_section.show(database)
st.header("Searches")
st.fragment(all_runs, run_every=live.IDLE_REFRESH_S)(database)
