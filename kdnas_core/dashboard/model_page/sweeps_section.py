"""The part of a page that measures a candidate's latency in all runtimes, batch sizes and lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from kdnas_core import hardware
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import requests
from kdnas_core.dashboard.model_page import sweep_figures
from kdnas_core.dashboard.read import live, live_students
from kdnas_core.dashboard.read.live_students import LatencyView
from kdnas_core.dashboard.ui import ask_button, widgets, work_controls
from kdnas_core.dashboard.ui.charts import CONFIG
from kdnas_core.latency.reading import LatencyReading
from kdnas_core.runs.records import Sweep
from kdnas_core.spec import LatencySpec, SweepSpec, parse_sweep

SWEPT = SweepSpec()
DISTURBED = "Hollow marks are upper bounds: something else kept the device busy meanwhile."
BY_SIZE = "Also by batch size and by sequence length"
BY_SIZE_HELP = (
    f"Batches of {', '.join(map(str, SWEPT.batch_sizes))} texts with the run's sequence length, and"
    f" {', '.join(map(str, SWEPT.sequence_lengths))} tokens with the run's batch size."
)


def show(db: Path, candidate: int, *, of_student: bool = False) -> None:
    """Draws the form and the readings, which are updated while a sweep runs."""
    st.header("Latency in all runtimes")
    if of_student:
        st.markdown(f"It has the shape of candidate {candidate}, and so its latency.")
    _form(db, candidate)
    refresh = live.refresh_s(live_students.read_latencies(db, candidate).sweeps)
    st.fragment(_results, run_every=refresh, key="sweeps")(db, candidate, refresh)


@st.fragment(key="sweep_form")
def _form(db: Path, candidate: int) -> None:
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    runtimes = left.multiselect(
        "Runtimes", hardware.runtimes(), hardware.runtimes(), format_func=wording.runtime
    )
    by_size = right.checkbox(BY_SIZE, value=True, help=BY_SIZE_HELP)
    fields: dict[str, Any] = {"runtimes": runtimes}
    fields |= {} if by_size else {"batch_sizes": [], "sequence_lengths": []}
    if runtimes:
        view = live_students.read_latencies(db, candidate)
        st.markdown(sweep_figures.expected_duration(view, parse_sweep(fields)))
    ask_button.show(
        "Measure in all runtimes" if set(runtimes) == set(hardware.runtimes()) else "Measure",
        f"sweep_{candidate}",
        db,
        lambda: requests.sweep(db, candidate, fields),
        disabled=not runtimes,
    )


@widgets.sentences()
def _results(db: Path, candidate: int, refresh: float | None) -> None:
    widgets.say()
    view = live_students.read_latencies(db, candidate)
    finished = [sweep for sweep in view.sweeps if sweep.state == "finished"]
    for sweep in view.sweeps:
        if sweep.state != "finished":
            _sweep(db, sweep, view)
    _measured(view)
    if finished:
        with st.expander("Finished sweeps"):
            for sweep in finished:
                _sweep(db, sweep, view)
    if live.refresh_s(view.sweeps) != refresh:
        st.rerun()  # only a run of the whole page changes the refresh time of a fragment


def _sweep(db: Path, sweep: Sweep, view: LatencyView) -> None:
    with st.container(border=True, key=f"sweep_{sweep.id}_card"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**Sweep {sweep.id}** · {how(sweep.spec)}", width="content")
            widgets.state_badge(sweep)
            work_controls.change(db, sweep)
            work_controls.delete_button(sweep)
        what = f"Sweep {sweep.id} and its readings are deleted for good; the device still remembers them."
        work_controls.confirm_delete(db, sweep, what, st.rerun)
        work_controls.trouble(sweep)
        if sweep.state == "running":
            share, words = sweep_figures.progress_words(sweep, view)
            st.progress(share, text=words)


def how(spec: SweepSpec) -> str:
    """Describes a sweep, for example "ONNX Runtime, torch · by batch size and length"."""
    runtimes = " · ".join(map(wording.runtime, spec.runtimes))
    sizes = [
        name for name, some in (("batch size", spec.batch_sizes), ("length", spec.sequence_lengths)) if some
    ]
    return f"{runtimes} · by {' and '.join(sizes)}" if sizes else runtimes


def _measured(view: LatencyView) -> None:
    readings, protocol = sweep_figures.all_readings(view), view.run.spec.latency
    if not readings:
        st.markdown("Nothing is measured yet.")
        return
    st.dataframe(
        sweep_figures.runtimes_table(view),
        hide_index=True,
        placeholder=wording.UNKNOWN,
        column_config=sweep_figures.TABLE_COLUMNS,
        alt="Latency of the student in each runtime, with its speed-up against the teacher",
    )
    st.markdown(f":small[{_protocol(protocol)}]")
    _figures(readings, protocol)
    if not all(row.clean for row in readings):
        st.markdown(f":small[{DISTURBED}]")
    if note := sweep_figures.left_out(view):
        st.markdown(f":small[{note}]")


def _protocol(protocol: LatencySpec) -> str:
    threads = "1 thread" if protocol.threads == 1 else f"{protocol.threads} threads"
    return (
        f"Batch {protocol.batch_size} · {protocol.sequence_length} tokens · {threads} · {protocol.runs} timed"
        f" runs after {protocol.warmup} to warm up, the student's and the teacher's in turns"
    )


def _figures(readings: Sequence[LatencyReading], protocol: LatencySpec) -> None:
    """Draws each figure that has at least two sizes."""
    figures = {
        "batch size": sweep_figures.batch_figure(readings, protocol),
        "sequence length": sweep_figures.length_figure(readings, protocol),
    }
    drawn = {what: figure for what, figure in figures.items() if len(figure.layout.xaxis.tickvals) > 1}
    for column, (what, figure) in zip(st.columns(2), drawn.items(), strict=False):
        column.plotly_chart(
            figure,
            key=f"latency_by_{what}",
            config=CONFIG,
            alt=f"Latency by {what}, a line for each runtime, the teacher's dashed",
        )
