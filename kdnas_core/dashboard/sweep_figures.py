"""The figures of a sweep: a student's latency by batch size and by sequence length, its teacher's dashed."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.charts import BLUE, CATEGORICAL, GREEN, GREY, ORANGE, VIOLET, empty_figure
from kdnas_core.measure.reading import LatencyReading
from kdnas_core.spec import LatencySpec

COLOURS = {"onnxruntime": BLUE, "onnxruntime-int8": GREEN, "torch": ORANGE, "torch-cuda": VIOLET}
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")  # of devices
_TICKS = [size * 10.0**power for power in range(-2, 6) for size in (1, 2, 5)]

Lines = dict[tuple[str, str], list[LatencyReading]]  # by runtime and device


def batch_figure(readings: Sequence[LatencyReading], protocol: LatencySpec) -> go.Figure:
    """Latency by batch size, of texts as long as the protocol's."""
    some = [row for row in readings if row.sequence_length == protocol.sequence_length]
    return _figure(some, "batch_size", "batch size")


def length_figure(readings: Sequence[LatencyReading], protocol: LatencySpec) -> go.Figure:
    """Latency by sequence length, of batches as large as the protocol's."""
    some = [row for row in readings if row.batch_size == protocol.batch_size]
    return _figure(some, "sequence_length", "tokens")


def _figure(readings: Sequence[LatencyReading], field: str, title: str) -> go.Figure:
    figure = empty_figure(title, "p50 of a batch (ms)", height=400)
    sizes = sorted({_size(row, field) for row in readings})
    lines = _lines(readings, field)
    devices = list(dict.fromkeys(device for _, device in lines))
    for (runtime, device), rows in lines.items():
        name = wording.runtime(runtime) + (f" on {device}" if len(devices) > 1 else "")
        _add(figure, rows, field, wording.plain_html(name), _SYMBOLS[devices.index(device) % len(_SYMBOLS)])
    if lines:
        _name_the_dashes(figure)
    figure.update_xaxes(type="log", tickvals=sizes, ticktext=[str(size) for size in sizes])
    figure.update_yaxes(type="log", tickvals=_TICKS, ticktext=[f"{tick:g}" for tick in _TICKS])
    return figure


def _lines(readings: Sequence[LatencyReading], field: str) -> Lines:
    """In the order of the colours, so that each figure has the same legend."""
    order = [*COLOURS, *sorted({row.runtime for row in readings} - COLOURS.keys())]
    lines: Lines = {}
    for row in sorted(readings, key=lambda row: (order.index(row.runtime), row.device, _size(row, field))):
        lines.setdefault((row.runtime, row.device), []).append(row)
    return lines


def _add(figure: go.Figure, rows: Sequence[LatencyReading], field: str, name: str, symbol: str) -> None:
    colour = COLOURS.get(rows[0].runtime, CATEGORICAL[4])
    sizes = [_size(row, field) for row in rows]
    figure.add_scatter(
        x=sizes,
        y=[row.teacher_p50 for row in rows],
        mode="lines",
        line={"color": colour, "dash": "dash", "width": 1.5},
        showlegend=False,
        hovertemplate=f"teacher, {name}: %{{y:.4g}} ms<extra></extra>",
    )
    figure.add_scatter(
        x=sizes,
        y=[row.p50 for row in rows],
        mode="lines+markers",
        name=name,
        line={"color": colour},
        # hollow: an upper bound
        marker={"size": 8, "symbol": [symbol if row.clean else f"{symbol}-open" for row in rows]},
        text=[_label(row) for row in rows],
        hovertemplate=f"{name}<br>%{{text}}<extra></extra>",
    )


def _label(row: LatencyReading) -> str:
    return (
        f"batch {row.batch_size}, {row.sequence_length} tokens: p50 {row.p50:.4g} ms, p95 {row.p95:.4g} ms"
        f"<br>{row.p50 / row.batch_size:.4g} ms a text · {wording.times(row.speedup)} the teacher's speed"
        f"{'' if row.clean else '<br>disturbed: an upper bound'}"
    )


def _name_the_dashes(figure: go.Figure) -> None:
    line = {"color": GREY, "dash": "dash", "width": 1.5}
    figure.add_scatter(x=[None], y=[None], mode="lines", name="teacher", line=line, hoverinfo="skip")


def _size(row: LatencyReading, field: str) -> int:
    return row.batch_size if field == "batch_size" else row.sequence_length
