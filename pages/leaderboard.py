"""The page of all scored systems: size, speed, scores, and the share of the teacher's score retained."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard.leaderboard import systems_section
from kdnas_core.dashboard.read import live, live_students
from kdnas_core.dashboard.ui import places, widgets

EMPTY = (
    "Nothing has been scored yet. Open a candidate of a run, or a student that was distilled in full, and"
    " score it on tasks: it appears here beside its teacher."
)


@widgets.sentences()
def view(db: Path) -> None:
    found = live_students.read_systems(db)
    if not found:
        st.info(EMPTY)
        st.page_link(places.RUN, label="Newest run", icon=":material/arrow_forward:")
    else:
        systems_section.show(found)
    systems_section.show_published()


st.title("Leaderboard")
st.markdown("Every candidate and student that was scored, beside its teacher, by size, speed and tasks.")
with widgets.sentences():
    st.fragment(view, run_every=live.IDLE_REFRESH_S, key="systems")(live.database())
