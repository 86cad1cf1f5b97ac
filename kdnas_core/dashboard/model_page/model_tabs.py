"""The tabs of the page of a candidate or a student; the open one stands in the address."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

NAMES = ("Overview", "Layers", "Latency", "Distil", "Scores", "Export")


@dataclass(frozen=True)
class ModelTabs:
    """The tabs, to draw in.

    Attributes:
        tabs: by name.
        opened: the name of the open one. Tabs of figures (layers, latency) are drawn only while they are
            open; those of forms always, since Streamlit forgets what was typed into one that is not drawn.
    """

    tabs: dict[str, DeltaGenerator]
    opened: str

    def __getitem__(self, name: str) -> DeltaGenerator:
        """Returns the tab of a name."""
        return self.tabs[name]


def show() -> ModelTabs:
    """Draws the tabs."""
    tabs = dict(zip(NAMES, st.tabs(NAMES, key="tab", bind="query-params"), strict=True))
    return ModelTabs(dict(tabs), next((name for name, tab in tabs.items() if tab.open), NAMES[0]))
