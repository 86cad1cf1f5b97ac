"""The part of a page that lists students, and that of a run's page that distils the best candidates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import requests
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.model.progress import Limit
from kdnas_core.dashboard.model_page import distil_form
from kdnas_core.dashboard.read.live import Snapshot
from kdnas_core.dashboard.ui import ask_button, links, widgets
from kdnas_core.runs.records import Candidate, Run, Student

OVER = ("stopped", "failed")  # a new distillation may replace them


def listed(students: Sequence[Student], run: Run) -> None:
    """Draws a card for each student, with its progress and a link to its page."""
    for student in students:
        with st.container(border=True, key=f"student_{student.id}"):
            _card(student, run)


def linked(label: str, students: Sequence[Student]) -> None:
    """Draws a label and a link to each student with what became of it; nothing without students."""
    if not students:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="students_of_it"):
        st.markdown(label, width="content")
        for student in students:
            of = student.spec.task
            agreement = f"agreement {wording.agreement(student.loss)}"
            done = f"for {wording.plain(of)}" if of else agreement
            what = done if student.state == "finished" else wording.state(student.state)
            links.to_student(student.id, f"{student.name} · {what}")


def _card(student: Student, run: Run) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        links.to_student(student.id, f"Student {student.name}")
        widgets.state_badge(student)
        st.markdown(" · ".join(_facts(student, run)), width="content")
    if student.steps and student.state != "finished":
        st.progress(min(1.0, student.step / student.steps), text=steps_words(student))


def _facts(student: Student, run: Run) -> list[str]:
    made_from = f"of student s{student.parent}" if student.parent else f"of candidate {student.candidate}"
    facts = [made_from, wording.plain(wording.distillation(student.spec, run.spec.objective))]
    if student.loss is not None:
        facts.append(
            f"loss of predictions {wording.number(student.loss)}"
            if student.spec.task
            else f"agreement {wording.agreement(student.loss, student.loss_se)}"
        )
    return facts


def steps_words(student: Student) -> str:
    """Describes a student's progress, for example "Step 120 of 4,000 · about 3 min left"."""
    words = f"Step {student.step:,} of {student.steps:,}"
    left = student.seconds_left
    return words if left is None or left < 1 else f"{words} · about {wording.duration(left)} left"


def best_first(snapshot: Snapshot, found: Findings) -> list[Candidate]:
    """Returns the frontier within a budget, without candidates that have or await a student.

    The pick comes first, then those with the least loss.
    """
    taken = {row.candidate for row in snapshot.students if row.spec.task is None and row.state not in OVER}
    left = [row for row in found.frontier if row.id not in taken]
    return sorted(left, key=lambda row: (row is not found.pick, row.point[1]))


def show_best(db: Path, snapshot: Snapshot, found: Findings) -> None:
    """Draws the part of a run's page that distils the best candidates, and lists the students."""
    if not (found.within or found.over or snapshot.students):
        return
    st.header("Full distillation")
    best = best_first(snapshot, found)
    if best:
        _ask_for_best(db, snapshot.run, best, found.limit)
    else:
        st.markdown(
            "Every student on the frontier within the budget is distilled in full, or is going to be."
        )
    listed(snapshot.students, snapshot.run)


def _ask_for_best(db: Path, run: Run, best: Sequence[Candidate], limit: Limit | None) -> None:
    within = "" if limit is None else f" within {wording.milliseconds(limit.ms)}"
    left, right = st.columns(2)
    # the number typed for a larger budget may exceed the candidates left
    key = f"best_{run.id}_{len(best)}"
    count = left.number_input("Distil the best … in full", 1, len(best), 1, key=key)
    epochs = right.number_input("Epochs", 0.1, 1_000.0, distil_form.USUAL.epochs, 1.0, key=f"epochs_{run.id}")
    chosen = [str(row.id) for row in best[:count]]
    noun = "candidate" if count == 1 else "candidates"
    st.markdown(
        f"Of the frontier{within}, best first: {noun} **{', '.join(chosen)}**, with the objective"
        f" and the corpus of the search ({wording.plain(run.spec.corpus)})."
    )
    ask_button.show(
        f"Distil {count} in full",
        f"distil_best_{run.id}",
        db,
        lambda: requests.distil(db, chosen, {"epochs": epochs}),
    )
