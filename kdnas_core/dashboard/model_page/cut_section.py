"""The part of a page that shows which layers and heads of the teacher a student began with."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from kdnas_core.architecture import LayerSource

MEANING = (
    "Kept are the heads and neurons that the teacher's output owes most to, and the heads that find the same"
    " word in the other text of a pair."
)


def show(cut_from: Sequence[LayerSource], origin: str = "teacher") -> None:
    """Draws a row for each layer, or nothing if the student began with random weights.

    Args:
        cut_from: the source of each layer.
        origin: "teacher", or "supernet" for a candidate that is cut out of one.
    """
    if not cut_from:
        return
    with st.expander(f"Cut out of the {origin}"):
        st.dataframe(
            table(cut_from),
            hide_index=True,
            alt="For each student layer the teacher layer and the heads that it was cut from",
        )
        st.markdown(f":small[{MEANING}]")


def table(cut_from: Sequence[LayerSource]) -> pd.DataFrame:
    """Returns one row for each student layer."""
    return pd.DataFrame(
        [
            {
                "Student layer": layer,
                "Teacher layer": source.layer,
                "Heads": ", ".join(map(str, source.heads)),
            }
            for layer, source in enumerate(cut_from, 1)
        ]
    )
