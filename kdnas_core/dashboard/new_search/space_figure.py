"""The figure of a search space: every shape at its estimated latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model.forecast import Forecast
from kdnas_core.dashboard.ui.charts import BLUE, GREY, ORANGE, empty_figure, marked
from kdnas_core.latency.model import FAR_OVER

WITHIN, OVER = "expected within the budget", "expected over it"
FAR = f"over {FAR_OVER:g} times the budget: skipped without measuring"
_BAND = 0.4  # height in which the widths of a row of layers spread; less than the gap to the next row
_LEAST_MS = 1e-3  # the least value on the logarithmic axis
_TICKS = (1, 1.5, 2, 3, 5, 7)


@dataclass(frozen=True)
class _Dot:
    """Architectures that differ only in heads or activation, with the same estimated latency."""

    shape: Architecture
    count: int
    milliseconds: float
    load: float

    @property
    def label(self) -> str:
        more = self.count - 1
        others = f"<br>and {more} more with other heads or activations" if more else ""
        return f"{wording.shape(self.shape)}{others}<br>{wording.estimated(self.milliseconds)}"


def space_figure(outlook: Forecast) -> go.Figure:
    """Draws a row for each number of layers, with wider students higher, and a line for each budget.

    Args:
        outlook: must have latencies in milliseconds.
    """
    dots = _dots(outlook)
    depths = sorted({dot.shape.layers for dot in dots})
    figure = empty_figure("estimated latency p50 (ms)", "layers", height=150 + min(420, 46 * len(depths)))
    far = outlook.skipped_above
    for name, colour, symbol, low, high in (
        (WITHIN, BLUE, "circle", -math.inf, 1.0),
        (OVER, GREY, "circle", 1.0, far),
        (FAR, GREY, "circle-open", far, math.inf),
    ):
        _add(figure, [dot for dot in dots if low < dot.load <= high], dots, name, colour, symbol)
    _scales(figure, [dot.milliseconds for dot in dots], depths, outlook)
    return figure


def alt(outlook: Forecast) -> str:
    """Returns the alternative text of the figure."""
    lowest, highest = min(outlook.milliseconds), max(outlook.milliseconds)
    return (
        f"Estimated latencies of the space by layers, from {wording.estimated(lowest)}"
        f" to {wording.estimated(highest)}, {len(outlook.within)} of {len(outlook.shapes)} within the budget"
    )


def _dots(outlook: Forecast) -> list[_Dot]:
    found: dict[tuple[object, ...], _Dot] = {}
    for shape, load, ms in zip(outlook.shapes, outlook.loads, outlook.milliseconds, strict=True):
        key = (shape.shape, shape.embedding_size, shape.bottleneck_size, f"{ms:.4g}")
        before = found.get(key)
        found[key] = _Dot(shape, 1 + (before.count if before else 0), max(ms, _LEAST_MS), load)
    return list(found.values())


def _add(
    figure: go.Figure, dots: Sequence[_Dot], of: Sequence[_Dot], name: str, colour: str, symbol: str
) -> None:
    if not dots:
        return
    depths = sorted({dot.shape.layers for dot in of})
    widths = sorted({dot.shape.hidden_size for dot in of})
    step = _BAND / max(1, len(widths) - 1)
    scatter = go.Scattergl if len(of) > 1_500 else go.Scatter
    figure.add_trace(
        scatter(
            x=[dot.milliseconds for dot in dots],
            y=[
                depths.index(dot.shape.layers)
                + (widths.index(dot.shape.hidden_size) - (len(widths) - 1) / 2) * step
                for dot in dots
            ],
            mode="markers",
            name=name,
            text=[dot.label for dot in dots],
            hovertemplate="%{text}<extra></extra>",
            marker={"color": colour, "symbol": symbol, "size": 7, "opacity": 0.75},
        )
    )


def _scales(figure: go.Figure, latencies: Sequence[float], depths: Sequence[int], outlook: Forecast) -> None:
    low, high = (math.log10(end(*latencies, *outlook.budgets.values())) for end in (min, max))
    ends = [low - 0.04 * (high - low) - 0.01, high + 0.04 * (high - low) + 0.01]
    ticks = [mantissa * 10.0**power for power in range(-3, 6) for mantissa in _TICKS]
    figure.update_xaxes(type="log", range=ends, tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    figure.update_yaxes(
        range=[-0.6, len(depths) - 0.4],
        tickvals=list(range(len(depths))),
        ticktext=[str(depth) for depth in depths],
    )
    for place, (name, at) in enumerate(outlook.budgets.items()):
        marked(figure, at, name, ORANGE, row=place % 2)  # labels of near budgets in two rows
    figure.update_layout(margin={"t": 40}, legend={"orientation": "h", "y": -0.2, "yanchor": "top"})
