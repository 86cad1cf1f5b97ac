"""The part of a student's page that compares its agreement with the teacher with that of the mini-KD."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go
import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.read.live_students import StudentView
from kdnas_core.dashboard.ui.charts import BLUE, CONFIG, ORANGE, empty_figure
from kdnas_core.runs.losses import losses_by_step

OF_TASK = (
    "Of the first stage, in which the teacher's layers are learnt: its hidden states on texts of the task."
    " In the second stage predictions are learnt."
)


def show(seen: StudentView) -> None:
    """Draws the agreement on held-out texts over the steps; nothing before the first evaluation."""
    points = list(losses_by_step(seen.losses).items())
    if not points:
        return
    st.header("Agreement with the teacher")
    compared, measure = reference(seen), wording.agreement_with(_yardstick(seen))
    st.plotly_chart(
        agreement_figure(points, seen.student.steps, measure, compared),
        key="loss",
        config=CONFIG,
        alt=f"Agreement on held-out texts over {points[-1][0]:,} steps, from"
        f" {wording.agreement(points[0][1])} to {wording.agreement(points[-1][1])}",
    )
    st.markdown(f":small[{meaning(seen)}]")


def _yardstick(seen: StudentView) -> str | None:
    """The run's yardstick; "layers" for a task-specific student, since its first stage is judged by them."""
    return "layers" if seen.student.spec.task is not None else seen.run.spec.objective.yardstick


def reference(seen: StudentView) -> tuple[str, float] | None:
    """Returns the name and the final loss of the candidate's mini-KD; None if it does not compare."""
    loss, how = seen.candidate.loss, seen.student.spec
    if loss is None or not is_on_the_same_texts(seen):
        return None
    layers = seen.run.spec.objective.yardstick in (None, "layers")
    if layers and how.recipe not in (None, seen.run.spec.objective.recipe):
        return None
    return f"mini-KD of candidate {seen.candidate.id}", loss


def is_on_the_same_texts(seen: StudentView) -> bool:
    """Returns whether its losses are of the texts of its run."""
    how = seen.student.spec
    return how.task is None and how.corpus in (None, seen.run.spec.corpus)


def meaning(seen: StudentView) -> str:
    """Describes the line, and how well it compares with that of the mini-KD."""
    how, run = seen.student.spec, seen.run
    if how.task is not None:
        return OF_TASK
    if reference(seen) is None:
        return "The mini-KD had another recipe or corpus: its figure does not compare."
    if how.sequence_length != run.spec.proxy.sequence_length:
        return (
            f"On the same held-out texts, cut at {how.sequence_length} tokens here and at"
            f" {run.spec.proxy.sequence_length} in the mini-KD: the two compare roughly."
        )
    return "On the same held-out texts as in the mini-KD."


def agreement_figure(
    points: Sequence[tuple[int, float]],
    steps: int,
    measure: str,
    reference: tuple[str, float] | None = None,
) -> go.Figure:
    """Draws one minus the held-out loss over the steps, with a named reference loss for comparison."""
    figure = empty_figure("step", measure, height=340)
    figure.add_scatter(
        x=[step for step, _ in points],
        y=[100 * (1 - loss) if math.isfinite(loss) else None for _, loss in points],
        mode="lines+markers",
        name="full distillation",
        line={"color": BLUE},
        marker={"size": 6},
        hovertemplate="step %{x}: %{y:.2f} %<extra></extra>",
    )
    right = max([1, steps, *(step for step, _ in points)])  # fixed: it must not jump as points arrive
    if reference is not None:
        _add_level(figure, *reference, right=right)
    figure.update_xaxes(range=[-0.02 * right, 1.02 * right])
    figure.update_layout(showlegend=reference is not None)
    return figure


def _add_level(figure: go.Figure, name: str, loss: float, right: int) -> None:
    figure.add_scatter(
        x=[0, right],
        y=[100 * (1 - loss)] * 2,
        mode="lines",
        name=f"{name}: {wording.agreement(loss)}",
        line={"color": ORANGE, "dash": "dash", "width": 2},
        hovertemplate=f"{name}: {wording.agreement(loss)}<extra></extra>",
    )
