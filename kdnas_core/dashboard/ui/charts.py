"""What all figures share: colours that hold on light and dark, margins, and the legend above the plot."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

BLUE = "#3b82f6"
ORANGE = "#e8833a"
GREEN = "#14a37f"
VIOLET = "#a66bf0"
GREY = "#7c8aa5"
# also in .streamlit/config.toml, which wants exactly ten
CATEGORICAL = (BLUE, ORANGE, GREEN, VIOLET, "#d9487d", "#0ea5c4", "#b8860b", GREY, "#5b6ee1", "#9a6b4f")

CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
_LABEL_ROW = 17  # pixels


def empty_figure(x_title: str, y_title: str, height: int = 300) -> go.Figure:
    """A figure with titled axes and nothing in it yet."""
    return go.Figure(
        layout={
            "height": height,
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            # above the plot: at the side it leaves a phone no room for the points
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
            "xaxis": {"title": {"text": x_title}, "zeroline": False, "automargin": True},
            "yaxis": {"title": {"text": y_title}, "zeroline": False, "automargin": True},
            "hoverlabel": {"align": "left"},
        }
    )


def marked(figure: go.Figure, x: float, label: str, colour: str, *, dash: str = "dash", row: int = 0) -> None:
    """Adds a vertical line with its label above the plot, in a row of its own so that none overlaps."""
    figure.add_vline(x=x, line={"color": colour, "width": 1.5, "dash": dash})
    figure.add_annotation(
        x=x,
        y=1,
        yref="paper",
        xanchor="right" if row else "center",  # the second is near the right end, where it would be cut
        yanchor="bottom",
        yshift=_LABEL_ROW * row,
        text=label,
        showarrow=False,
        font={"size": 12},
    )
    figure.update_layout(margin={"t": 8 + _LABEL_ROW * (1 + row)}, legend={"y": 1.03 + 0.045 * (1 + row)})
