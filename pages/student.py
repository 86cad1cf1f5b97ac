"""The page of a student: its distillation, losses, scores and export."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard.model_page import (
    cut_section,
    distil_form,
    export_section,
    layers_section,
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
def facts(db: Path, student: int, refresh: float | None) -> None:
    seen = live_students.read_student(db, student)
    student_header.show(db, seen)
    student_loss.show(seen)
    layers_section.show(layers_section.of_student(seen))
    cut_section.show(seen.student.cut_from)
    if live.refresh_s([seen.student]) != refresh:
        st.rerun()  # it is finished, and can be scored and exported now


def go_on(db: Path, seen: StudentView) -> None:
    student = seen.student
    scores_section.show(db, Source(seen.candidate, student))
    if student.spec.task is None and student.state == "finished":
        distil_form.show_for_task(db, student)
        distil_form.show_to_go_on(db, seen.run, student)
    sweeps_section.show(db, student.candidate, of_student=True)
    if seen.children:
        st.header("Made from this student")
        students_section.listed(seen.children, seen.run)
    export_section.show(db, Source(seen.candidate, student), seen.folder)


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
    st.fragment(facts, run_every=refresh, key="student")(db, student, refresh)
    go_on(db, seen)


with widgets.sentences():
    page()
