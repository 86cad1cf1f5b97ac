"""The figures and tables of sweeps."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.read.live_students import LatencyView
from kdnas_core.dashboard.ui.charts import BLUE, CATEGORICAL, GREEN, GREY, ORANGE, VIOLET, empty_figure
from kdnas_core.hardware import device_name
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.latency.sweep import Point, points, points_of, readings_at, seconds_of, share_done, too_long
from kdnas_core.runs.records import Sweep
from kdnas_core.spec import USUAL_RUNTIMES, LatencySpec, SweepSpec

COLOURS = {"onnxruntime": BLUE, "onnxruntime-int8": GREEN, "torch": ORANGE, "torch-cuda": VIOLET}
_SYMBOLS = ("circle", "square", "diamond", "triangle-up")  # by device
_TICKS = [size * 10.0**power for power in range(-2, 6) for size in (1, 2, 5)]

Lines = dict[tuple[str, str], list[LatencyReading]]  # by runtime and device

TABLE_COLUMNS = {
    "Runtime": st.column_config.TextColumn(pinned=True),
    "p50 (ms)": st.column_config.NumberColumn(format="%.2f"),
    "p95 (ms)": st.column_config.NumberColumn(format="%.2f"),
    "Speed-up": st.column_config.NumberColumn(
        format="%.1f×", help="against the teacher in the same runtime, measured in turns"
    ),
    "Teacher p50 (ms)": st.column_config.NumberColumn(format="%.2f"),
    "Clean": st.column_config.TextColumn(
        help="no: something else kept the processor busy, so that it is an upper bound"
    ),
}
OWN = SweepSpec(runtimes=[*USUAL_RUNTIMES, "torch-cuda"], batch_sizes=[], sequence_lengths=[])


def batch_figure(readings: Sequence[LatencyReading], protocol: LatencySpec) -> go.Figure:
    """Draws the latency by batch size, at the protocol's sequence length."""
    some = [row for row in readings if row.sequence_length == protocol.sequence_length]
    return _figure(some, "batch_size", "batch size")


def length_figure(readings: Sequence[LatencyReading], protocol: LatencySpec) -> go.Figure:
    """Draws the latency by sequence length, at the protocol's batch size."""
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
    """The readings of each line, in the order of the colours, so that all figures have the same legend."""
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
        # hollow marks for unclean readings, which are upper bounds
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


def all_readings(view: LatencyView) -> list[LatencyReading]:
    """Returns the readings of sweeps, and that of the run unless a sweep has taken the same on its device."""
    own = view.candidate.latency
    if own is None or any(_place(row) == _place(own) for row in view.readings):
        return view.readings
    return [own, *view.readings]


def _place(row: LatencyReading) -> tuple[str, int, int, str]:
    return row.runtime, row.batch_size, row.sequence_length, row.device


def runtimes_table(view: LatencyView) -> pd.DataFrame:
    """Returns one row for each runtime and device, at the run's batch size and length."""
    rows = readings_at(all_readings(view), points(OWN, view.run.spec.latency))
    return pd.DataFrame([_row(row) for row in sorted(rows, key=lambda row: OWN.runtimes.index(row.runtime))])  # type: ignore[arg-type]


def _row(row: LatencyReading) -> dict[str, object]:
    return {
        "Runtime": wording.runtime(row.runtime),
        "p50 (ms)": row.p50,
        "p95 (ms)": row.p95,
        "Speed-up": row.speedup,
        "Teacher p50 (ms)": row.teacher_p50,
        "Clean": "yes" if row.clean else "no",
        "Device": row.device,
    }


def to_measure(view: LatencyView, how: SweepSpec) -> list[Point]:
    """Returns the points that this device has not measured yet; the others are cached."""
    clean = [row for row in view.readings if row.clean and row.device.startswith(device_name())]
    have = {(row.runtime, row.batch_size, row.sequence_length) for row in clean}
    asked = points(how, view.run.spec.latency)
    return [point for point in asked if (point.runtime, point.batch_size, point.sequence_length) not in have]


def expected_duration(view: LatencyView, how: SweepSpec) -> str:
    """Describes how long a sweep will take."""
    left = to_measure(view, how)
    if not left:
        return "All of it is measured on this device already."
    what = "1 measurement" if len(left) == 1 else f"{len(left)} measurements"
    turn = _turn_ms(view)
    if turn is None:
        return f"{what}, one after another."
    seconds = seconds_of(left, turn, view.run.spec.latency)
    return f"{what}, about **{wording.duration(seconds)}**; other jobs wait."


def _turn_ms(view: LatencyView) -> float | None:
    """The time of one run of teacher and student in ms; by FLOPs for a student that was not measured."""
    own, teacher = view.candidate.latency, view.run.teacher
    if own is not None:
        return own.p50 + own.teacher_p50
    if teacher is None:
        return None
    flops = view.candidate.architecture.flops(view.run.spec.latency.sequence_length)
    return teacher.latency.p50 * (1 + flops / teacher.flops)


def progress_words(sweep: Sweep, view: LatencyView) -> tuple[float, str]:
    """Returns the share of a running sweep that is done, and a description of its progress."""
    asked = points_of(sweep.spec, view.run.spec.latency, sweep.steps)
    share = min(1.0, share_done(asked, sweep.step))
    words = wording.plain(sweep.activity or "starting")
    if sweep.steps:
        words += f" · {sweep.step} of {sweep.steps} measured"
    if sweep.step and share < 1:
        words += f" · about {wording.duration(sweep.seconds / share * (1 - share))} left"
    return share, words


def left_out(view: LatencyView) -> str | None:
    """Returns a sentence on the lengths that a finished sweep has left out; None if there are none."""
    for sweep in view.sweeps:
        asked = points_of(sweep.spec, view.run.spec.latency, sweep.steps)
        longest = max((point.sequence_length for point in asked), default=0)
        if sweep.state == "finished" and max(sweep.spec.sequence_lengths, default=0) > longest:
            return too_long(sweep.spec, longest)
    return None
