"""What another episode of a search is expected to bring, and the button that adds some."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import controls
from kdnas_core.dashboard.ui import widgets
from kdnas_core.runs.records import Run
from kdnas_core.spec import METHOD, MOST_EPISODES


def show(db: Path, run: Run) -> None:
    """Draws the outlook of a run, and lets it go on once it has ended."""
    if run.outlook is not None:
        st.markdown(wording.outlook(run.outlook))
    if run.state == "finished" and run.method == METHOD:
        _extend(db, run)


def _extend(db: Path, run: Run) -> None:
    """Draws what lets a search that has ended go on; on the command line its space can change as well."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        key, most = f"more_{run.id}", max(1, MOST_EPISODES - run.episode)
        st.number_input("More episodes", 1, most, min(3, most), key=key, width=150)
        st.button(
            "Extend",
            key=f"extend_{run.id}",
            icon=":material/play_arrow:",
            on_click=widgets.act,
            # called before the page is drawn again, so it reads what was typed
            args=(lambda path, job: controls.extend(path, job, int(st.session_state[key])), db, run.job),
            help="The search goes on with all that it knows.",
        )
