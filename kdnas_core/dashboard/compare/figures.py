"""The figures of a comparison: latency distributions, layer profiles, and the frontiers they come from."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import layer_story
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.read.live import CandidateView
from kdnas_core.dashboard.ui.charts import CATEGORICAL, GREY, empty_figure
from kdnas_core.runs.records import Run


def latencies(seen: Sequence[CandidateView]) -> go.Figure:
    """Draws the timed runs of each candidate as a box with all its points."""
    figure = empty_figure("latency (ms)", "", height=90 + 56 * len(seen))
    for place, view in enumerate(seen):
        reading = view.candidate.latency
        if reading is not None:
            figure.add_box(
                x=list(reading.samples),
                name=str(view.candidate.id),
                boxpoints="all",
                jitter=0.5,
                pointpos=0,
                marker={"color": CATEGORICAL[place], "size": 3, "opacity": 0.5},
                orientation="h",
            )
    figure.update_layout(showlegend=False)
    figure.update_yaxes(type="category", autorange="reversed", title="candidate")
    return figure


def profiles(seen: Sequence[CandidateView]) -> go.Figure:
    """Draws the error of each candidate's layers over relative depth, where students of any depth meet."""
    figure = empty_figure("depth, first to last layer", "error of hidden states", height=320)
    for place, view in enumerate(seen):
        shape = view.candidate.architecture
        rows = layer_story.standings(view.losses, shape.layers, shape.hidden_size, view.layers)
        if rows:
            figure.add_scatter(
                x=[row.layer / shape.layers for row in rows],
                y=[row.final for row in rows],
                mode="lines+markers",
                name=str(view.candidate.id),
                line={"color": CATEGORICAL[place]},
                text=[f"layer {row.layer} of {shape.layers}: {row.final:.3f}" for row in rows],
                hovertemplate="%{text}<extra></extra>",
            )
    figure.update_xaxes(range=[0, 1.03])
    figure.update_yaxes(rangemode="tozero")
    return figure


def frontiers(
    runs: Sequence[tuple[Run, Findings]], seen: Sequence[CandidateView], criterion: str
) -> go.Figure:
    """Draws the whole frontier of each run, and the compared candidates on top."""
    figure = empty_figure("latency p50 (ms)", criterion, height=360)
    for place, (run, found) in enumerate(runs):
        points = [row.point for row in found.whole]
        figure.add_scatter(
            x=[ms for ms, _ in points],
            y=[100 * (1 - error) for _, error in points],
            mode="lines+markers",
            name=f"run {run.id}",
            line={"color": GREY, "dash": ("solid", "dot", "dash", "dashdot")[place % 4]},
            marker={"size": 5},
            text=[f"candidate {row.id}" for row in found.whole],
            hovertemplate="%{text}: %{x:.2f} ms, %{y:.1f} %<extra></extra>",
        )
    for place, view in enumerate(seen):
        ms, error = view.candidate.point
        figure.add_scatter(
            x=[ms],
            y=[100 * (1 - error)],
            mode="markers",
            name=f"candidate {view.candidate.id}",
            marker={"color": CATEGORICAL[place], "size": 14},
            text=[wording.shape(view.candidate.architecture)],
            hovertemplate="%{text}<br>%{x:.2f} ms, %{y:.1f} %<extra></extra>",
        )
    return figure
