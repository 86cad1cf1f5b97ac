"""The figure of a student's distillation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.charts import BLUE, ORANGE, empty_figure


def loss_figure(
    points: Sequence[tuple[int, float]], steps: int, reference: tuple[str, float] | None = None
) -> go.Figure:
    """Held-out loss over so many steps, with a loss by name to compare it with."""
    figure = empty_figure("step", "held-out loss", height=340)
    figure.add_scatter(
        x=[step for step, _ in points],
        y=[loss if math.isfinite(loss) else None for _, loss in points],
        mode="lines+markers",
        name="full distillation",
        line={"color": BLUE},
        marker={"size": 6},
        hovertemplate="step %{x}: loss %{y:.4f}<extra></extra>",
    )
    right = max([1, steps, *(step for step, _ in points)])  # fixed, so that it does not jump as points arrive
    if reference is not None:
        _add_level(figure, *reference, right=right)
    figure.update_xaxes(range=[-0.02 * right, 1.02 * right])
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(showlegend=reference is not None)
    return figure


def _add_level(figure: go.Figure, name: str, loss: float, right: int) -> None:
    figure.add_scatter(
        x=[0, right],
        y=[loss, loss],
        mode="lines",
        name=f"{name}: {wording.number(loss)}",
        line={"color": ORANGE, "dash": "dash", "width": 2},
        hovertemplate=f"{name}: loss {loss:.4f}<extra></extra>",
    )
