"""The part of a run's page that shows which sizes make its students good."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
import streamlit as st

from kdnas_core.dashboard.model import knobs
from kdnas_core.dashboard.model.knobs import Importance
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.ui.charts import BLUE, CONFIG, ORANGE, empty_figure
from kdnas_core.runs.records import Candidate

MEANING = (
    "The share of the variance between students, of what they are compared by, that a linear model of the"
    " logarithms of their sizes explains by each (Shapley values of R²). It says what went together in this"
    " search, which chose its students; by few of them it is rough."
)
MOST_LINES = 2_000  # of the parallel coordinates; the best of more


def show(snapshot: Snapshot) -> None:
    """Draws the importance of each knob, and all students as lines through their sizes; folded."""
    folded = st.expander("What makes a student good", key="knobs", on_change="rerun", bind="query-params")
    if not folded.open:
        return  # it takes long, of many candidates
    rows, found = knobs.students_of(snapshot.candidates), knobs.importances(snapshot.candidates)
    with folded:
        if not found:
            st.markdown("Too few students have been distilled yet, or they do not differ.")
            return
        left, right = st.columns([1, 2])
        with left:
            st.plotly_chart(
                importance_figure(found),
                key=f"importance_{snapshot.run.id}",
                config=CONFIG,
                alt="; ".join(f"{each.knob}: {each.share:.0%} of the variance" for each in found),
            )
            st.markdown(f":small[{MEANING}]")
        with right:
            st.plotly_chart(
                parallel_figure(rows),
                key=f"parallel_{snapshot.run.id}",
                config=CONFIG,
                alt=f"{len(rows)} students as lines through their sizes, latency and agreement",
            )
            st.markdown(":small[Drag along an axis to keep only what runs through a part of it.]")


def importance_figure(found: Sequence[Importance]) -> go.Figure:
    """Draws a bar for each knob, the most important on top."""
    figure = empty_figure("share of variance (%)", "", 60 + 44 * len(found))
    for name, colour, is_better in (("larger is better", BLUE, True), ("smaller is better", ORANGE, False)):
        some = [each for each in found if each.larger_is_better == is_better]
        if some:
            figure.add_bar(
                orientation="h",
                name=name,
                x=[100 * each.share for each in some],
                y=[each.knob for each in some],
                marker={"color": colour},
                hovertemplate="%{y}: %{x:.0f} %<extra></extra>",
            )
    figure.update_layout(showlegend=True)
    figure.update_yaxes(
        categoryorder="array", categoryarray=[each.knob for each in found], autorange="reversed", title=None
    )
    figure.update_xaxes(rangemode="tozero")
    return figure


def parallel_figure(rows: Sequence[Candidate]) -> go.Figure:
    """Draws a line for each student, coloured by its agreement."""
    rows = sorted(rows, key=lambda row: row.point[1])[:MOST_LINES]
    agreements = [100 * (1 - row.point[1]) for row in rows]
    last = "agreement" if rows[0].proxy_score is None else "score"
    axes = knobs.varied(rows) | {"ms": [row.point[0] for row in rows], last: agreements}
    figure = go.Figure(
        go.Parcoords(
            dimensions=[{"label": name, "values": values} for name, values in axes.items()],
            line={"color": agreements, "colorscale": "Viridis"},
        )
    )
    return figure.update_layout(height=320, margin={"l": 48, "r": 40, "t": 48, "b": 16})
