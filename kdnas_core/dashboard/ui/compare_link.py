"""The link to a comparison of candidates."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from kdnas_core.dashboard.model import comparison
from kdnas_core.dashboard.ui import places


def show(candidates: Sequence[int]) -> None:
    """Draws the link; nothing if they are too few or too many to be compared."""
    ids = list(dict.fromkeys(candidates))
    if comparison.FEWEST <= len(ids) <= comparison.MOST:
        st.page_link(
            places.COMPARE,
            label="Compare them",
            icon=":material/compare_arrows:",
            query_params={"candidates": ", ".join(map(str, ids))},
        )
