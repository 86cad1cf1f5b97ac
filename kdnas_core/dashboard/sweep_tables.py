"""What is told of a sweep beside its figures: the table of runtimes, how long it takes, how far it is."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.live_students import LatencyView
from kdnas_core.measure.device import device_name
from kdnas_core.measure.reading import LatencyReading
from kdnas_core.measure.sweep import Point, points, points_of, readings_at, seconds_of, share_done, too_long
from kdnas_core.runs.rows import Sweep
from kdnas_core.spec import USUAL_RUNTIMES, SweepSpec

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


def all_readings(view: LatencyView) -> list[LatencyReading]:
    """The reading of the run, where no sweep has taken one there on the same device, and those of sweeps."""
    own = view.candidate.latency
    if own is None or any(_place(row) == _place(own) for row in view.readings):
        return view.readings
    return [own, *view.readings]


def _place(row: LatencyReading) -> tuple[str, int, int, str]:
    return row.runtime, row.batch_size, row.sequence_length, row.device


def runtimes_table(view: LatencyView) -> pd.DataFrame:
    """One row a runtime (and device), at the run's own batch size and length."""
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
    """The points that this device has not measured yet; what it has is remembered and costs no time."""
    clean = [row for row in view.readings if row.clean and row.device.startswith(device_name())]
    have = {(row.runtime, row.batch_size, row.sequence_length) for row in clean}
    asked = points(how, view.run.spec.latency)
    return [point for point in asked if (point.runtime, point.batch_size, point.sequence_length) not in have]


def foretold(view: LatencyView, how: SweepSpec) -> str:
    """How long a sweep will take, in words."""
    left = to_measure(view, how)
    if not left:
        return "All of it is measured on this device already."
    what = "1 measurement" if len(left) == 1 else f"{len(left)} measurements"
    turn = _turn_ms(view)
    if turn is None:
        return f"{what}, one after another."
    seconds = seconds_of(left, turn, view.run.spec.latency)
    return f"{what}, about **{wording.duration(seconds)}**; nothing else of ours computes meanwhile."


def _turn_ms(view: LatencyView) -> float | None:
    """One run of the teacher and one of the student; the student's by its FLOPs where it was not measured."""
    own, teacher = view.candidate.latency, view.run.teacher
    if own is not None:
        return own.p50 + own.teacher_p50
    if teacher is None:
        return None
    flops = view.candidate.architecture.flops(view.run.spec.latency.sequence_length)
    return teacher.latency.p50 * (1 + flops / teacher.flops)


def progress_words(sweep: Sweep, view: LatencyView) -> tuple[float, str]:
    """The share of a running sweep that is done, and that in words."""
    asked = points_of(sweep.spec, view.run.spec.latency, sweep.steps)
    share = min(1.0, share_done(asked, sweep.step))
    words = wording.plain(sweep.activity or "starting")
    if sweep.steps:
        words += f" · {sweep.step} of {sweep.steps} measured"
    if sweep.step and share < 1:
        words += f" · about {wording.duration(sweep.seconds / share * (1 - share))} left"
    return share, words


def left_out(view: LatencyView) -> str | None:
    """A sentence about lengths that finished sweeps have left out; None for none."""
    for sweep in view.sweeps:
        asked = points_of(sweep.spec, view.run.spec.latency, sweep.steps)
        longest = max((point.sequence_length for point in asked), default=0)
        if sweep.state == "finished" and max(sweep.spec.sequence_lengths, default=0) > longest:
            return too_long(sweep.spec, longest)
    return None
