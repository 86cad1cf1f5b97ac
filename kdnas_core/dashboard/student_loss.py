"""The part of a student's page that draws its loss beside that of its candidate's mini-KD."""

from __future__ import annotations

import streamlit as st

from kdnas_core.dashboard import student_figures, terms, wording
from kdnas_core.dashboard.charts import CONFIG
from kdnas_core.dashboard.live_students import StudentView

OF_TASK = (
    "Of the first stage, in which the teacher's layers are learnt: its hidden states on texts of the task."
    " In the second stage predictions are learnt."
)


def show(seen: StudentView) -> None:
    """Draws the held-out loss over steps; nothing before the first evaluation."""
    points = terms.over_steps(seen.losses)
    if not points:
        return
    st.header("Held-out loss")
    compared = reference(seen)
    st.plotly_chart(
        student_figures.loss_figure(points, seen.student.steps, compared),
        key="loss",
        config=CONFIG,
        alt=f"Held-out loss over {points[-1][0]:,} steps, from {wording.number(points[0][1])}"
        f" to {wording.number(points[-1][1])}",
    )
    st.markdown(f":small[{meaning(seen)}]")


def reference(seen: StudentView) -> tuple[str, float] | None:
    """The loss that the candidate's mini-KD ended at; None where it is of other texts."""
    loss, how = seen.candidate.loss, seen.student.spec
    if loss is None or how.task is not None or how.corpus not in (None, seen.run.spec.corpus):
        return None
    if how.recipe not in (None, seen.run.spec.objective.recipe):
        return None
    return f"mini-KD of candidate {seen.candidate.id}", loss


def meaning(seen: StudentView) -> str:
    """What the line is, and how far it compares with the one beside it."""
    how, run = seen.student.spec, seen.run
    if how.task is not None:
        return OF_TASK
    if reference(seen) is None:
        return "Of hidden states. The mini-KD had another recipe or corpus: its loss does not compare."
    if how.sequence_length != run.spec.proxy.sequence_length:
        return (
            f"Of hidden states on the same held-out texts, cut at {how.sequence_length} tokens here and at"
            f" {run.spec.proxy.sequence_length} in the mini-KD: the two compare roughly."
        )
    return "Of hidden states, on the same held-out texts as in the mini-KD."
