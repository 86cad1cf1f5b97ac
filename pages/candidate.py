"""The page of a candidate: its shape, cost and losses by layer, its students, and its export."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model_page import (
    cut_section,
    distil_form,
    export_section,
    layer_figures,
    layers_section,
    scores_section,
    students_section,
    sweeps_section,
)
from kdnas_core.dashboard.read import live, live_students
from kdnas_core.dashboard.read.live import CandidateView
from kdnas_core.dashboard.ui import places, widgets
from kdnas_core.dashboard.ui.charts import CONFIG
from kdnas_core.runs.jobs import ACTIVE
from kdnas_core.runs.names import Source
from kdnas_core.runs.records import Candidate


def head(seen: CandidateView) -> None:
    candidate = seen.candidate
    st.page_link(
        places.RUN,
        label=f"Run {seen.run.id} · {wording.plain(seen.run.name)}",
        icon=":material/arrow_back:",
        query_params={"run": str(seen.run.id)},
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(f"Candidate {candidate.id}", width="content")
        st.badge(
            wording.state(candidate.state),
            color=wording.CANDIDATE_COLOURS[candidate.state],  # type: ignore[arg-type]
        )
    widgets.say()
    st.markdown(f"{wording.shape(candidate.architecture)} · episode {candidate.episode}")
    if candidate.error:
        widgets.trouble(candidate.error)
    if candidate.state == "over_budget":
        st.info(over_budget(candidate))
    if candidate.stopped is not None:
        st.info(
            f"{candidate.stopped.capitalize()}: by its agreement then, and by how others went on from there,"
            " this one would hardly be the best for any budget."
        )
    if candidate.state == "distilling":
        st.info(f"Being distilled: step {candidate.step} of {candidate.steps}.")
    for note in candidate.notes:
        st.info(wording.plain(note))


def over_budget(candidate: Candidate) -> str:
    if candidate.latency is None and candidate.estimated_ms is not None:
        return (
            f"At {wording.estimated(candidate.estimated_ms)} it is far over the run's latency budget,"
            " so it was neither measured nor distilled."
        )
    return "It is over the run's latency budget, so it was distilled no further than its first rung."


def measurements(candidate: Candidate) -> None:
    latency = candidate.latency
    expected = candidate.predicted_reward  # the first episode is drawn at random, without a prediction
    predicted = None if expected is None else f"predicted {wording.number(expected)}"
    p95 = None if candidate.estimated_ms is None else wording.estimated(candidate.estimated_ms)
    if latency is not None:
        p95 = f"p95 {wording.milliseconds(latency.p95)}"
    cards = (
        ("Latency p50", wording.milliseconds(candidate.point[0]), p95),
        ("Speed-up", wording.times(progress.speedup_of(candidate)), "against the teacher"),
        ("Parameters", wording.count(candidate.parameters), None),
        ("FLOPs", wording.count(candidate.flops), "for one sequence"),
        ("Agreement", wording.agreement(candidate.loss, candidate.loss_se), "with the teacher"),
        ("Reward", wording.number(candidate.reward), predicted),
    )
    with st.container(horizontal=True):
        for label, value, beside in cards:
            st.metric(
                label, value, beside, delta_color="off", delta_arrow="off", border=True, width=170, height=118
            )
    if latency is not None:
        st.markdown(f":small[Measured on {wording.protocol(latency)}]")
        if not latency.clean:
            st.warning(
                "Something else kept the processor busy while this was measured; it is an upper bound."
            )


def timing(candidate: Candidate) -> None:
    if candidate.latency is not None:
        st.header("Latency of each timed run")
        st.plotly_chart(
            layer_figures.latency_figure(candidate.latency),
            key="latency",
            config=CONFIG,
            alt="Distribution of the timed runs, with p50 and p95",
        )


def under_way(seen: CandidateView) -> bool:
    return seen.candidate.state in ("proposed", "distilling") and seen.run.state in ACTIVE


@widgets.sentences()
def facts(db: Path, candidate: int, refresh: float | None) -> None:
    seen = live.read_candidate(db, candidate)
    head(seen)
    measurements(seen.candidate)
    layers_section.show(layers_section.of_candidate(seen))
    cut_section.show(seen.candidate.cut_from, seen.run.spec.objective.start)
    timing(seen.candidate)
    if refresh and not under_way(seen):
        st.rerun()  # it has been judged, and can be exported now


@widgets.sentences()
def students(db: Path, seen: CandidateView, refresh: float | None) -> None:
    made = live_students.read_students_of(db, seen.candidate)
    students_section.listed(made, seen.run)
    if live.refresh_s(made) != refresh:
        st.rerun()  # only a run of the whole page changes the refresh time of a fragment


def full_distillation(db: Path, seen: CandidateView) -> None:
    st.header("Full distillation")
    if seen.candidate.state in ("proposed", "distilling"):
        st.markdown("It can be distilled in full once it is judged.")
    else:
        distil_form.show(db, seen.run, seen.candidate)
    refresh = live.refresh_s(live_students.read_students_of(db, seen.candidate))
    st.fragment(students, run_every=refresh, key="students")(db, seen, refresh)


def page() -> None:
    db = live.database()
    candidate = live.id_in_address(st.query_params.get("candidate"), "candidate")
    if candidate is None:
        st.title("Candidate")
        st.info("No candidate is named; choose one on the page of a run.")
        st.page_link(places.RUN, label="Newest run", icon=":material/arrow_forward:")
        return
    seen = live.read_candidate(db, candidate)
    refresh = live.BUSY_REFRESH_S if under_way(seen) else None
    st.fragment(facts, run_every=refresh, key="candidate")(db, candidate, refresh)
    sweeps_section.show(db, candidate)
    source = Source(seen.candidate)
    full_distillation(db, seen)
    scores_section.show(db, source)
    export_section.show(db, source, seen.folder)


with widgets.sentences():
    page()
