"""The page of a run: its progress, its Pareto frontier, and the best student for any budget."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model_page import students_section
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.run import (
    frontier_section,
    model_section,
    notes_section,
    outlook_section,
    progress_figures,
    proxies_section,
    run_header,
)
from kdnas_core.dashboard.ui import places, widgets
from kdnas_core.dashboard.ui.charts import CONFIG

HYPERVOLUME = "The share of the area up to the run's budget and full agreement that the frontier dominates."
UPDATES_HELP = "Switched off, the charts keep your zoom while the search goes on."


def development(db: Path, snapshot: Snapshot) -> None:
    left, right = st.columns(2)
    with left:
        st.header("Hypervolume")
        st.plotly_chart(
            progress_figures.hypervolume_figure(snapshot.candidates, progress.budget_of(snapshot.run)),
            key=f"hypervolume_{snapshot.run.id}",
            config=CONFIG,
            alt="Hypervolume of the frontier within the run's budget by candidates judged",
        )
        st.markdown(f":small[{HYPERVOLUME}]")
        outlook_section.show(db, snapshot.run)
    with right:
        st.header("Reward by episode")
        st.plotly_chart(
            progress_figures.reward_figure(snapshot.candidates),
            key=f"reward_{snapshot.run.id}",
            config=CONFIG,
            alt="Rewards of the candidates of each episode, their mean and the best so far",
        )


def findings(db: Path, snapshot: Snapshot) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.header("Accuracy against latency", width="content")
        st.toggle("Live updates", value=True, key="updates", help=UPDATES_HELP)
    limit = frontier_section.show(db, snapshot)
    development(db, snapshot)
    frontier_section.show_table(snapshot, limit)
    students_section.show_best(db, snapshot, limit)
    proxies_section.show(db, snapshot)
    notes_section.show(snapshot.candidates)
    model_section.show(snapshot)


def updates() -> bool:
    return bool(st.session_state.get("updates", True))


def pace(snapshot: Snapshot) -> float | None:
    return live.refresh_s([snapshot.run, *snapshot.students], live=updates())


@widgets.sentences()  # the run may be deleted while its page is open
def view(db: Path, run: int, refresh: float | None) -> None:
    snapshot = live.read_run(db, run)
    run_header.show(db, snapshot)
    if any(row.latency or row.estimated_ms for row in snapshot.candidates):
        findings(db, snapshot)
    else:
        st.info(
            "The teacher is measured first, then each candidate; its point appears here once it is judged."
        )
    if pace(snapshot) != refresh:
        st.rerun()  # only a run of the whole page changes the refresh time of a fragment


def page() -> None:
    db = live.database()
    run = live.id_in_address(st.query_params.get("run"), "run") or live.newest_run(db)
    if run is None:
        st.title("Run")
        st.info("No search has been started yet.")
        st.page_link(places.NEW_SEARCH, label="Start a new search", icon=":material/add:")
        return
    st.query_params["run"] = str(run)
    refresh = pace(live.read_run(db, run))
    st.fragment(view, run_every=refresh, key="run")(db, run, refresh)


with widgets.sentences():
    page()
