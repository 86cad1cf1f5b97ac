"""The page that compares two to six candidates, of one run or of several."""

from __future__ import annotations

import streamlit as st

from kdnas_core.dashboard.compare import sections
from kdnas_core.dashboard.model import comparison
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.ui import widgets


def page() -> None:
    st.title("Compare")
    db = live.database()
    text = st.text_input(
        "Candidates", "", key="candidates", bind="query-params", placeholder="4, 7, 12", width=320
    )
    if not text:
        st.info("Name two to six candidates by their numbers, of one run or of several, such as 4, 7, 12.")
        return
    seen = [live.read_candidate(db, candidate) for candidate in comparison.ids_of(text)]
    sections.shapes(seen)
    sections.losses(db, seen)
    sections.latencies(seen)


with widgets.sentences():
    page()
