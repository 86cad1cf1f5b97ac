"""The page of a candidate: its shape, cost and losses by layer, its students, and its export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard.model_page import (
    candidate_header,
    cut_section,
    distil_form,
    export_section,
    layers_section,
    model_tabs,
    scores_section,
    students_section,
    summary_section,
    sweeps_section,
)
from kdnas_core.dashboard.read import live, live_students
from kdnas_core.dashboard.read.live import CandidateView
from kdnas_core.dashboard.ui import places, widgets
from kdnas_core.runs.jobs import ACTIVE
from kdnas_core.runs.names import Source
from kdnas_core.runs.records import AnyWork


def under_way(seen: CandidateView) -> bool:
    return seen.candidate.state in ("proposed", "distilling") and seen.run.state in ACTIVE


def refresh_s(seen: CandidateView, works: Sequence[AnyWork]) -> float | None:
    return live.BUSY_REFRESH_S if works or under_way(seen) else None


@widgets.sentences()
def header(db: Path, candidate: int, refresh: float | None) -> None:
    seen = live.read_candidate(db, candidate)
    works = live_students.read_work_for(db, Source(seen.candidate))
    if refresh_s(seen, works) != refresh:
        st.rerun()  # it has been judged, and can be exported now, or what was done for it is over
    candidate_header.show(seen, works)


@widgets.sentences()
def overview(db: Path, candidate: int) -> None:
    seen = live.read_candidate(db, candidate)
    candidate_header.measurements(seen.candidate)
    summary_section.show(seen, live.read_run(db, seen.run.id).candidates)
    students_section.linked("Distilled in full:", live_students.read_students_of(db, seen.candidate))
    cut_section.show(seen.candidate.cut_from, seen.run.spec.objective.start)


@widgets.sentences()
def layers(db: Path, candidate: int) -> None:
    seen = live.read_candidate(db, candidate)
    others = layers_section.others_of(db, seen)
    layers_section.show(layers_section.of_candidate(seen, others))


@widgets.sentences()
def students(db: Path, seen: CandidateView, refresh: float | None) -> None:
    made = live_students.read_students_of(db, seen.candidate)
    students_section.listed(made, seen.run)
    if live.refresh_s(made) != refresh:
        st.rerun()  # only a run of the whole page changes the refresh time of a fragment


def full_distillation(db: Path, seen: CandidateView) -> None:
    if seen.candidate.state in ("proposed", "distilling"):
        st.markdown("It can be distilled in full once it is judged.")
    else:
        distil_form.show(db, seen.run, seen.candidate)
    refresh = live.refresh_s(live_students.read_students_of(db, seen.candidate))
    st.fragment(students, run_every=refresh, key="students")(db, seen, refresh)


def latency(db: Path, seen: CandidateView) -> None:
    candidate_header.timing(seen.candidate)
    sweeps_section.show(db, seen.candidate.id)


def contents(db: Path, seen: CandidateView) -> None:
    refresh = live.BUSY_REFRESH_S if under_way(seen) else None
    candidate, source = seen.candidate.id, Source(seen.candidate)
    model_tabs.show(
        {
            "Overview": lambda: st.fragment(overview, run_every=refresh, key="overview")(db, candidate),
            "Layers": lambda: st.fragment(layers, run_every=refresh, key="layers")(db, candidate),
            "Latency": lambda: latency(db, seen),
            "Distil": lambda: full_distillation(db, seen),
            "Scores": lambda: scores_section.show(db, source),
            "Export": lambda: export_section.show(db, source, seen.folder),
        }
    )


def page() -> None:
    db = live.database()
    candidate = live.id_in_address(st.query_params.get("candidate"), "candidate")
    if candidate is None:
        st.title("Candidate")
        st.info("No candidate is named; choose one on the page of a run.")
        st.page_link(places.RUN, label="Newest run", icon=":material/arrow_forward:")
        return
    seen = live.read_candidate(db, candidate)
    refresh = refresh_s(seen, live_students.read_work_for(db, Source(seen.candidate)))
    candidate_header.way_back(db, seen)
    st.fragment(header, run_every=refresh, key="candidate")(db, candidate, refresh)
    contents(db, seen)


with widgets.sentences():
    page()
