"""The figure of a multilingual candidate: how much of each language it has learnt."""

from __future__ import annotations

import math
from collections.abc import Mapping

import plotly.graph_objects as go

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.charts import BLUE, empty_figure

_ROW = 24  # pixels
_NUMBERED = 40  # more bars than this have no room for their numbers


def by_loss(languages: Mapping[str, float]) -> list[tuple[str, float]]:
    """The languages from the worst learnt to the best; one whose loss is no number is worst."""
    return sorted(languages.items(), key=lambda pair: (math.isfinite(pair[1]), -pair[1], pair[0]))


def language_figure(languages: Mapping[str, float]) -> go.Figure:
    """Final held-out loss of each language as a bar, the worst on top."""
    rows = by_loss(languages)
    figure = empty_figure("held-out loss", "", height=max(220, 70 + _ROW * len(rows)))
    figure.add_bar(
        x=[loss if math.isfinite(loss) else None for _, loss in rows],
        y=[name for name, _ in rows],
        text=[wording.significant(loss) for _, loss in rows],
        textposition="outside" if len(rows) <= _NUMBERED else "none",
        cliponaxis=False,
        orientation="h",
        marker={"color": BLUE},
        hovertemplate="%{y}: loss %{x:.4g}<extra></extra>",
    )
    largest = max((loss for _, loss in rows if math.isfinite(loss)), default=0.0)
    figure.update_xaxes(range=[0, 1.15 * largest or 1.0])  # room for the number beside the longest bar
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, dtick=1)
    figure.update_layout(bargap=0.3)
    return figure


def alt(languages: Mapping[str, float]) -> str:
    """What the figure shows, for who cannot see it."""
    rows = by_loss(languages)
    worst, best = (f"{name} {wording.significant(loss)}" for name, loss in (rows[0], rows[-1]))
    return f"Final held-out loss of {len(rows)} languages, from {worst} to {best}"
