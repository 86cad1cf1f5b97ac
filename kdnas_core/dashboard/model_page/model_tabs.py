"""The tabs of the page of a candidate or a student; the open one stands in the address."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import streamlit as st

NAMES = ("Overview", "Layers", "Latency", "Distil", "Scores", "Export")
FIGURES = ("Layers", "Latency")


def show(parts: Mapping[str, Callable[[], None]]) -> None:
    """Draws the tabs.

    Those of figures are drawn only while they are open; the others always, since Streamlit forgets what was
    typed into a form that is not drawn.

    Args:
        parts: draws the contents of each tab, by its name.
    """
    tabs = st.tabs(NAMES, key="tab", bind="query-params")
    for name, tab in zip(NAMES, tabs, strict=True):
        if tab.open or name not in FIGURES:
            with tab:
                parts[name]()
