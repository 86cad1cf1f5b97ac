"""The layout of all figures: colours for light and dark themes, margins, and the legend above the plot."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go

BLUE = "#3b82f6"
ORANGE = "#e8833a"
GREEN = "#14a37f"
VIOLET = "#a66bf0"
GREY = "#7c8aa5"
# also in .streamlit/config.toml, which needs exactly ten
CATEGORICAL = (BLUE, ORANGE, GREEN, VIOLET, "#d9487d", "#0ea5c4", "#b8860b", GREY, "#5b6ee1", "#9a6b4f")

CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
_LABEL_ROW = 17  # pixels


def empty_figure(x_title: str, y_title: str, height: int = 300) -> go.Figure:
    """Creates an empty figure with titled axes."""
    return go.Figure(
        layout={
            "height": height,
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            # above the plot: at the side, it leaves no room for the points on a phone
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
            "xaxis": {"title": {"text": x_title}, "zeroline": False, "automargin": True},
            "yaxis": {"title": {"text": y_title}, "zeroline": False, "automargin": True},
            "hoverlabel": {"align": "left"},
        }
    )


def marked(figure: go.Figure, x: float, label: str, colour: str, *, dash: str = "dash", row: int = 0) -> None:
    """Adds a vertical line with a label above the plot; `row` keeps labels from overlapping."""
    line = {"color": colour, "width": 1.5, "dash": dash}
    # as `add_vline` draws, which takes ten times as long
    figure.add_shape(type="line", x0=x, x1=x, y0=0, y1=1, yref="y domain", line=line)
    is_log = figure.layout.xaxis.type == "log"
    figure.add_annotation(
        x=math.log10(x) if is_log else x,  # unlike a line, a note is placed by the logarithm
        y=1,
        yref="paper",
        xanchor="right" if row else "center",  # near the right end, it would be cut off
        yanchor="bottom",
        yshift=_LABEL_ROW * row,
        text=label,
        showarrow=False,
        font={"size": 12},
    )
    figure.update_layout(margin={"t": 8 + _LABEL_ROW * (1 + row)}, legend={"y": 1.03 + 0.045 * (1 + row)})
