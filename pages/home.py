"""The page of all searches, with their results so far, all work, and a link to a new search."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard.home import import_section, jobs_section, runs_section
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.ui import places


def introduction() -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.title("KD-NAS Studio", width="content")
        if st.button("New search", icon=":material/add:", type="primary"):
            st.switch_page(places.NEW_SEARCH)
    st.markdown(
        "Find the small encoder that fits your latency budget: a search distils many candidate students for a"
        " short while each, measures them on this machine, and keeps the Pareto frontier."
        " Choose a student for a budget, see layer by layer what it has learnt, and export it."
    )


def lists(db: Path) -> None:
    runs_section.show(db)
    jobs_section.show(db)


introduction()
database = live.database()
import_section.show(database)
st.header("Searches")
st.fragment(lists, run_every=live.IDLE_REFRESH_S)(database)
