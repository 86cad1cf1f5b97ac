"""The page of a student: its distillation, losses, latency, scores and export."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard.model_page import (
    cut_section,
    distil_form,
    export_section,
    layers_section,
    model_tabs,
    scores_section,
    student_header,
    student_loss,
    students_section,
    sweeps_section,
)
from kdnas_core.dashboard.read import live, live_students
from kdnas_core.dashboard.read.live_students import StudentView
from kdnas_core.dashboard.ui import places, widgets
from kdnas_core.runs.names import Source


@widgets.sentences()  # the student may be deleted while its page is open
def header(db: Path, student: int, refresh: float | None) -> None:
    seen = live_students.read_student(db, student)
    if live.refresh_s([seen.student]) != refresh:
        st.rerun()  # it is finished, and can be scored and exported now
    student_header.show(db, seen)


@widgets.sentences()
def overview(db: Path, student: int) -> None:
    seen = live_students.read_student(db, student)
    student_header.measurements(seen)
    students_section.linked("Made from it:", seen.children)
    student_loss.show(seen)
    cut_section.show(seen.student.cut_from)


@widgets.sentences()
def layers(db: Path, student: int) -> None:
    seen = live_students.read_student(db, student)
    others = layers_section.others_of(db, seen)
    layers_section.show(layers_section.of_student(seen, others))


def distil(db: Path, seen: StudentView) -> None:
    student = seen.student
    if student.state != "finished":
        st.markdown(
            "Once its distillation is finished, it can be made task-specific, or go on with other text."
        )
    elif student.spec.task is not None:
        st.markdown("It was made for one task. Go on with the student that it was made from.")
    else:
        distil_form.show_for_task(db, student)
        distil_form.show_to_go_on(db, seen.run, student)
    if seen.children:
        st.header("Made from this student")
        students_section.listed(seen.children, seen.run)


def contents(db: Path, seen: StudentView, refresh: float | None) -> None:
    student, source = seen.student, Source(seen.candidate, seen.student)
    model_tabs.show(
        {
            "Overview": lambda: st.fragment(overview, run_every=refresh, key="overview")(db, student.id),
            "Layers": lambda: st.fragment(layers, run_every=refresh, key="layers")(db, student.id),
            "Latency": lambda: sweeps_section.show(db, student.candidate, of_student=True),
            "Distil": lambda: distil(db, seen),
            "Scores": lambda: scores_section.show(db, source),
            "Export": lambda: export_section.show(db, source, seen.folder),
        }
    )


def page() -> None:
    db = live.database()
    student = live.id_in_address(st.query_params.get("student"), "student")
    if student is None:
        st.title("Student")
        st.info("No student is named; choose one on the page of its run or candidate.")
        st.page_link(places.RUN, label="Newest run", icon=":material/arrow_forward:")
        return
    seen = live_students.read_student(db, student)
    refresh = live.refresh_s([seen.student])
    st.fragment(header, run_every=refresh, key="student")(db, student, refresh)
    contents(db, seen, refresh)


with widgets.sentences():
    page()
