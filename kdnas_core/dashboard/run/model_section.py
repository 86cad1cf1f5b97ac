"""The part of a run's page that shows how well latency can be estimated from the run's readings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from kdnas_core.architecture import Architecture
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.ui.charts import BLUE, CONFIG, GREY, empty_figure
from kdnas_core.latency.model import MeasuredLatency, fitted, without_drift

FOLDS = 5
TITLE = "Estimated latency against measured"


@dataclass(frozen=True)
class Pair:
    """A measured latency, and its estimate from other architectures alone, in ms."""

    architecture: Architecture
    measured: float
    estimated: float

    @property
    def error(self) -> float:
        """The absolute error as a share of the measured latency."""
        return abs(self.estimated / self.measured - 1)


def show(snapshot: Snapshot) -> None:
    """Draws estimates against measurements, folded."""
    folded = st.expander(TITLE, key="estimates", on_change="rerun", bind="query-params")
    if not folded.open:
        return  # a model is fitted to all readings
    found = pairs(known_of(snapshot))
    if not found:
        folded.markdown("There are too few readings yet.")
        return
    median, p90 = (
        f"{100 * value:.0f} %" for value in np.percentile([pair.error for pair in found], (50, 90))
    )
    with folded:
        st.markdown(
            f"Each candidate is estimated from the others of this run, a fifth of them left out at a time:"
            f" off by **{median}** at the median, {p90} at p90. An estimate only ever skips what is far over"
            " the budget; nothing is called within it that was not measured."
        )
        st.plotly_chart(
            figure(found),
            key=f"estimates_{snapshot.run.id}",
            config=CONFIG,
            alt=f"Estimated against measured latency of {len(found)} candidates; {median} off at the median",
        )


def known_of(snapshot: Snapshot) -> tuple[MeasuredLatency, ...]:
    """Returns the clean readings of a run's candidates on its teacher's device."""
    teacher = snapshot.run.teacher
    if teacher is None:
        return ()
    rows = [(row.architecture, row.latency) for row in snapshot.candidates if row.latency is not None]
    here = [(shape, at) for shape, at in rows if at.clean and at.device == teacher.latency.device]
    return tuple(without_drift((teacher.name, shape, at) for shape, at in here))


@lru_cache(maxsize=16)  # the page redraws more often than a run measures
def pairs(known: tuple[MeasuredLatency, ...]) -> tuple[Pair, ...]:
    """Returns each reading with the estimate of a model fitted without its fold; none if too few."""
    names = sorted({at.architecture.key for at in known})
    found: list[Pair] = []
    for fold in range(FOLDS):
        out = set(names[fold::FOLDS])
        model = fitted([at for at in known if at.architecture.key not in out])
        if model is None:
            return ()
        found += [
            Pair(at.architecture, at.ms, model.estimate(at.architecture, at.batch_size, at.sequence_length))
            for at in known
            if at.architecture.key in out
        ]
    return tuple(found)


def figure(found: tuple[Pair, ...]) -> go.Figure:
    """Draws estimated against measured latency; on the line, an estimate is exact."""
    drawn = empty_figure("measured latency p50 (ms)", "estimated (ms)", height=340)
    ends = [0.0, 1.05 * max(max(pair.measured, pair.estimated) for pair in found)]
    drawn.add_scatter(
        x=ends, y=ends, mode="lines", name="exact", line={"color": GREY, "dash": "dot"}, hoverinfo="skip"
    )
    drawn.add_scatter(
        x=[pair.measured for pair in found],
        y=[pair.estimated for pair in found],
        mode="markers",
        name="candidate",
        marker={"color": BLUE, "size": 8, "opacity": 0.75},
        text=[_label(pair) for pair in found],
        hovertemplate="%{text}<extra></extra>",
    )
    drawn.update_xaxes(range=ends)
    drawn.update_yaxes(range=ends)
    return drawn


def _label(pair: Pair) -> str:
    return (
        f"{wording.shape(pair.architecture)}<br>{wording.milliseconds(pair.measured)} measured,"
        f" {wording.estimated(pair.estimated)}: off by {100 * pair.error:.0f} %"
    )
