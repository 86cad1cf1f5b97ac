"""The layers of all students on a run's frontier in one figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import layer_terms
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.run import frontier_section
from kdnas_core.dashboard.ui import live_chart
from kdnas_core.dashboard.ui.charts import VIOLET, empty_figure
from kdnas_core.runs.records import Candidate

MOST = 24  # rows, evenly of the frontier, so that each can be read
MEANING = (
    "Each row is a student of the frontier, the fastest on top, from its first layer to its last. A colour is"
    " the held-out error of that layer against the teacher layer that it stands for: 0 copies it, 1 is no"
    " better than its mean. Click a row to choose the student."
)
_ROW, _ROOM = 22, 74  # pixels
_EDGE = "rgba(124, 138, 165, 0.35)"
_SCALE = [[0.0, "#14a37f"], [0.5, "#9ad7c8"], [1.0, "#e8833a"]]


def show(db: Path, snapshot: Snapshot, found: Findings, chosen: Candidate | None) -> None:
    """Draws the strip; nothing while no student on the frontier has losses by layer."""
    front = [row for row in found.whole if not row.architecture.is_static]
    rows = front
    if len(front) > MOST:
        rows = [front[round(place * (len(front) - 1) / (MOST - 1))] for place in range(MOST)]
    losses = layer_terms.by_layer(live.read_final_losses(db, [row.id for row in rows]))
    rows = [row for row in rows if losses.get(row.id)]
    if not rows:
        return
    st.header("Layer by layer")
    live_chart.show(
        strip(rows, losses, None if chosen is None else chosen.id),
        key=f"strip_{snapshot.run.id}",
        name=f"run-{snapshot.run.id}-layers",
        alt=f"Held-out error of each layer of {len(rows)} students of the frontier, the fastest on top",
        on_click=frontier_section.choose,
    )
    st.markdown(f":small[{MEANING}]")


def strip(
    rows: Sequence[Candidate], losses: Mapping[int, Mapping[int, float]], chosen: int | None
) -> go.Figure:
    """Draws a row of cells for each candidate, in the order given, all rows equally long.

    Args:
        rows: on top the first.
        losses: of each candidate, by layer from 1.
        chosen: the candidate with a frame, if it is among them.
    """
    figure = empty_figure("from the first layer to the last", "", _ROOM + _ROW * len(rows))
    names = [_name(row) for row in rows]
    cells = [  # a layer without a number is a gap
        (row, name, layer)
        for row, name in zip(rows, names, strict=True)
        for layer in _layers(row)
        if math.isfinite(losses[row.id].get(layer, math.nan))
    ]
    values = [losses[row.id][layer] for row, _, layer in cells]
    figure.add_bar(
        orientation="h",
        base=[(layer - 1) / row.architecture.layers for row, _, layer in cells],
        x=[1 / row.architecture.layers for row, _, layer in cells],
        y=[name for _, name, _ in cells],
        customdata=[row.id for row, _, _ in cells],
        text=[
            f"{wording.shape(row.architecture)}<br>layer {layer} of {row.architecture.layers}:"
            f" {wording.number(value)}"
            for (row, _, layer), value in zip(cells, values, strict=True)
        ],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
        marker={
            "color": [min(value, 1.0) for value in values],
            "colorscale": _SCALE,
            "cmin": 0,
            "cmax": 1,
            "colorbar": {"title": {"text": "error"}, "thickness": 10},
            "line": {
                "width": [2.5 if row.id == chosen else 1 for row, _, _ in cells],
                "color": [VIOLET if row.id == chosen else _EDGE for row, _, _ in cells],
            },
        },
    )
    figure.update_layout(bargap=0.12, showlegend=False)
    figure.update_xaxes(
        range=[0, 1],
        showticklabels=False,
        fixedrange=True,
    )
    figure.update_yaxes(
        autorange="reversed", categoryorder="array", categoryarray=names, title=None, fixedrange=True
    )
    return figure


def _layers(row: Candidate) -> range:
    return range(1, row.architecture.layers + 1)


def _name(row: Candidate) -> str:
    shape = row.architecture
    return f"{row.id} · {wording.milliseconds(row.point[0])} · {shape.layers} x {shape.hidden_size}"
