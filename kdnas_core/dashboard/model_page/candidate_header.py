"""The header of a candidate's page, its measurements, and the distribution of its latency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model_page import layer_figures, neighbours, work_section
from kdnas_core.dashboard.read import live
from kdnas_core.dashboard.read.live import CandidateView
from kdnas_core.dashboard.ui import links, places, widgets
from kdnas_core.dashboard.ui.charts import CONFIG
from kdnas_core.runs.records import AnyWork, Candidate


def way_back(db: Path, seen: CandidateView) -> None:
    """Draws the links to its run, and to the students beside it on the frontier."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link(
            places.RUN,
            label=f"Run {seen.run.id} · {wording.plain(seen.run.name)}",
            icon=links.BACK,
            query_params={"run": str(seen.run.id)},
        )
        st.space("stretch")
        neighbours.show_frontier(*neighbours.on_frontier(live.read_run(db, seen.run.id), seen.candidate))


def show(seen: CandidateView, works: Sequence[AnyWork]) -> None:
    """Draws its name and state, and what is done for it."""
    candidate = seen.candidate
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(f"Candidate {candidate.id}", width="content")
        st.badge(
            wording.state(candidate.state),
            color=wording.CANDIDATE_COLOURS[candidate.state],  # type: ignore[arg-type]
        )
        st.markdown(f"{wording.shape(candidate.architecture)} · episode {candidate.episode}", width="content")
    widgets.say()
    _troubles(candidate)
    work_section.show(works)


def _troubles(candidate: Candidate) -> None:
    if candidate.error:
        widgets.trouble(candidate.error)
    if candidate.state == "over_budget":
        st.info(_over_budget(candidate))
    if candidate.stopped is not None:
        st.info(
            f"{candidate.stopped.capitalize()}: by its agreement then, and by how others went on from there,"
            " this one would hardly be the best for any budget."
        )
    if candidate.state == "distilling":
        st.info(f"Being distilled: step {candidate.step} of {candidate.steps}.")
    for note in candidate.notes:
        st.info(wording.plain(note))


def _over_budget(candidate: Candidate) -> str:
    if candidate.latency is None and candidate.estimated_ms is not None:
        return (
            f"At {wording.estimated(candidate.estimated_ms)} it is far over the run's latency budget,"
            " so it was neither measured nor distilled."
        )
    return "It is over the run's latency budget, so it was distilled no further than its first rung."


def measurements(candidate: Candidate) -> None:
    """Draws cards with what was measured, and the protocol of its latency."""
    latency = candidate.latency
    expected = candidate.predicted_reward  # the first episode is drawn at random, without a prediction
    predicted = None if expected is None else f"predicted {wording.number(expected)}"
    p95 = None if candidate.estimated_ms is None else wording.estimated(candidate.estimated_ms)
    if latency is not None:
        p95 = f"p95 {wording.milliseconds(latency.p95)}"
    widgets.cards(
        (
            ("Latency p50", wording.milliseconds(candidate.point[0]), p95),
            ("Speed-up", wording.times(progress.speedup_of(candidate)), "against the teacher"),
            ("Parameters", wording.count(candidate.parameters), None),
            ("FLOPs", wording.count(candidate.flops), "for one sequence"),
            ("Agreement", wording.agreement(candidate.loss, candidate.loss_se), "with the teacher"),
            ("Reward", wording.number(candidate.reward), predicted),
        )
    )
    if latency is not None:
        st.markdown(f":small[Measured on {wording.protocol(latency)}]")
        if not latency.clean:
            st.warning(
                "Something else kept the processor busy while this was measured; it is an upper bound."
            )


def timing(candidate: Candidate) -> None:
    """Draws the distribution of its timed runs; nothing if it was not measured."""
    if candidate.latency is not None:
        st.header("Latency of each timed run")
        st.plotly_chart(
            layer_figures.latency_figure(candidate.latency),
            key="latency",
            config=CONFIG,
            alt="Distribution of the timed runs, with p50 and p95",
        )
