"""The script that Streamlit runs for every page: the shared settings and the navigation.

It is not beside `pages/`: from there, a deep link after a server start would run its page without it.
"""

from __future__ import annotations

import streamlit as st

from kdnas_core.dashboard.ui import places

# an emoji: any other icon would be loaded from an external host
st.set_page_config(page_title="KD-NAS Studio", page_icon="⚗️", layout="wide")

# the first row of a page begins right under the menu, so that a chart and its answer fit one screen
st.html("<style>.stMainBlockContainer { padding-top: 4.2rem; padding-bottom: 3rem; }</style>")


def moved() -> None:
    """Leads from the address that the leaderboard had before."""
    st.switch_page(places.LEADERBOARD)


st.navigation(
    [
        st.Page(places.HOME, title="Searches", default=True),
        st.Page(places.NEW_SEARCH, title="New search", url_path="new"),
        st.Page(places.RUN, title="Run", url_path="run"),
        st.Page(places.COMPARE, title="Compare", url_path="compare"),
        st.Page(places.LEADERBOARD, title="Leaderboard", url_path="leaderboard"),
        st.Page(moved, title="Systems", url_path="systems", visibility="hidden"),  # its address before
        st.Page(places.CANDIDATE, title="Candidate", url_path="candidate", visibility="hidden"),
        st.Page(places.STUDENT, title="Student", url_path="student", visibility="hidden"),
    ],
    position="top",
).run()
