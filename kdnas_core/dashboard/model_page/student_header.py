"""The header of a student's page: its state, buttons, progress and results."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import progress
from kdnas_core.dashboard.model_page import neighbours, student_loss, students_section, work_section
from kdnas_core.dashboard.read import live_students
from kdnas_core.dashboard.read.live_students import StudentView
from kdnas_core.dashboard.ui import links, places, widgets, work_controls
from kdnas_core.runs.losses import losses_by_step
from kdnas_core.runs.names import Source
from kdnas_core.runs.records import Student


def show(db: Path, seen: StudentView) -> None:
    """Draws the header of a student's page."""
    student = seen.student
    _way_back(db, seen)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(f"Student {student.name}", width="content")
        widgets.state_badge(student)
    widgets.say()
    made_by = wording.plain(wording.distillation(student.spec, seen.run.spec.objective))
    st.markdown(f"{made_by} · {wording.shape(seen.candidate.architecture)}")
    with st.container(horizontal=True):
        work_controls.change(db, student)
        work_controls.delete_button(student)
    work_controls.confirm_delete(db, student, _what_goes(seen), lambda: _leave(student))
    work_controls.trouble(student)
    if student.steps and student.state != "finished":
        st.progress(min(1.0, student.step / student.steps), text=students_section.steps_words(student))
    st.markdown(" · ".join(_facts(seen)))
    for note in student.notes:
        st.info(wording.plain(note))
    work_section.show(live_students.read_work_for(db, Source(seen.candidate, student)))


def _way_back(db: Path, seen: StudentView) -> None:
    student = seen.student
    with st.container(horizontal=True, vertical_alignment="center"):
        links.to_candidate(student.candidate, f"Candidate {student.candidate}", links.BACK)
        if student.parent is not None:
            links.to_student(student.parent, f"Made from student s{student.parent}", links.BACK)
        st.space("stretch")
        neighbours.show_students(
            *neighbours.of_student(live_students.read_students(db, seen.run.id), student.id)
        )


def _what_goes(seen: StudentView) -> str:
    size = wording.size(seen.size)
    return f"Student {seen.student.name}, its weights ({size}) and its scores are deleted for good."


def _leave(student: Student) -> None:
    st.switch_page(places.CANDIDATE, query_params={"candidate": str(student.candidate)})


def _facts(seen: StudentView) -> list[str]:
    student, how = seen.student, seen.student.spec
    read = f"task {how.task}" if how.task else f"corpus {how.corpus or seen.run.spec.corpus}"
    of_many_lengths = how.task is None and how.cuts_pieces(seen.run.spec.objective.use)
    cut = "cut into pieces of up to" if of_many_lengths else "cut at"
    facts = [wording.plain(f"Reads the {read}, {cut} {how.sequence_length} tokens")]
    if seen.size:
        facts.append(f"{wording.size(seen.size)} on the disk")
    return widgets.with_work(facts, student)


def measurements(seen: StudentView) -> None:
    """Draws cards with its agreement, and what is known of its architecture."""
    candidate = seen.candidate
    widgets.cards(
        (
            _loss_card(seen),
            ("Latency p50", wording.milliseconds(candidate.point[0]), "of its architecture"),
            ("Speed-up", wording.times(progress.speedup_of(candidate)), "against the teacher"),
            ("Parameters", wording.count(candidate.parameters), None),
        )
    )


def _loss_card(seen: StudentView) -> tuple[str, str, str | None]:
    student, mini = seen.student, student_loss.reference(seen)
    if student.spec.task is not None:
        return "Loss of predictions", wording.number(student.loss), None
    beside = None if mini is None else f"{wording.agreement(mini[1])} after mini-KD"
    points = list(losses_by_step(seen.losses).items())
    if student.loss is None and points:
        return "Agreement so far", wording.agreement(points[-1][1]), beside
    return "Agreement", wording.agreement(student.loss, student.loss_se), beside
