"""The part of a page that says what is done for a candidate or a student at this moment."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.ui import widgets
from kdnas_core.runs.records import AnyWork

TABS = {"students": "Distil", "scorings": "Scores", "sweeps": "Latency", "exports": "Export"}


def show(works: Sequence[AnyWork]) -> None:
    """Draws a line for each piece of work that runs or waits, with the tab that has its buttons."""
    for work in works:
        with st.container(horizontal=True, vertical_alignment="center", key=f"at_{work.job.kind}_{work.id}"):
            st.markdown(f":material/progress_activity: **{work.job.title}**", width="content")
            widgets.state_badge(work)
            st.markdown(f":small[{_words(work)}]", width="content")


def _words(work: AnyWork) -> str:
    words = []
    if work.state == "running":
        words.append(wording.plain(work.activity or "starting"))
        if work.steps:
            words.append(f"{work.step:,} of {work.steps:,}")
    return " · ".join([*words, f"see {TABS[work.job.kind]}"])
