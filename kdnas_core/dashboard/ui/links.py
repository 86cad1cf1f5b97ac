"""Links to the pages of runs, candidates, students and comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from kdnas_core.dashboard.model import comparison
from kdnas_core.dashboard.ui import places

FORWARD, BACK = ":material/arrow_forward:", ":material/arrow_back:"


def to_candidate(candidate: int, label: str, icon: str = FORWARD) -> None:
    """Draws a link to a candidate's page."""
    address = {"candidate": str(candidate)}
    st.page_link(places.CANDIDATE, label=label, icon=icon, query_params=address)


def to_student(student: int, label: str, icon: str = FORWARD) -> None:
    """Draws a link to a student's page."""
    st.page_link(places.STUDENT, label=label, icon=icon, query_params={"student": str(student)})


def to_comparison(candidates: Sequence[int]) -> None:
    """Draws a link to a comparison; nothing if the candidates are too few or too many to be compared."""
    ids = list(dict.fromkeys(candidates))
    if comparison.FEWEST <= len(ids) <= comparison.MOST:
        st.page_link(
            places.COMPARE,
            label="Compare them",
            icon=":material/compare_arrows:",
            query_params={"candidates": ", ".join(map(str, ids))},
        )
