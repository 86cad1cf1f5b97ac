"""The figure of a student's distillation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.charts import BLUE, ORANGE, empty_figure


def agreement_figure(
    points: Sequence[tuple[int, float]],
    steps: int,
    measure: str,
    reference: tuple[str, float] | None = None,
) -> go.Figure:
    """One minus the held-out loss over so many steps, with that of a loss by name to compare it with."""
    figure = empty_figure("step", measure, height=340)
    figure.add_scatter(
        x=[step for step, _ in points],
        y=[100 * (1 - loss) if math.isfinite(loss) else None for _, loss in points],
        mode="lines+markers",
        name="full distillation",
        line={"color": BLUE},
        marker={"size": 6},
        hovertemplate="step %{x}: %{y:.2f} %<extra></extra>",
    )
    right = max([1, steps, *(step for step, _ in points)])  # fixed, so that it does not jump as points arrive
    if reference is not None:
        _add_level(figure, *reference, right=right)
    figure.update_xaxes(range=[-0.02 * right, 1.02 * right])
    figure.update_layout(showlegend=reference is not None)
    return figure


def _add_level(figure: go.Figure, name: str, loss: float, right: int) -> None:
    figure.add_scatter(
        x=[0, right],
        y=[100 * (1 - loss)] * 2,
        mode="lines",
        name=f"{name}: {wording.agreement(loss)}",
        line={"color": ORANGE, "dash": "dash", "width": 2},
        hovertemplate=f"{name}: {wording.agreement(loss)}<extra></extra>",
    )
