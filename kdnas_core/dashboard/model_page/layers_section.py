"""The part of a page that shows what a student has learnt: by term, by language, and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import layer_story, layer_terms
from kdnas_core.dashboard.model.layer_terms import Depths
from kdnas_core.dashboard.model_page import layer_figures
from kdnas_core.dashboard.read.live import CandidateView
from kdnas_core.dashboard.read.live_students import StudentView
from kdnas_core.dashboard.ui import tables
from kdnas_core.dashboard.ui.charts import CONFIG
from kdnas_core.runs.records import LayerLoss, TeacherLayerFacts

NORMALISED = "A loss of 0 copies the teacher layer; 1 is no better than its mean."
YARDSTICK = "1 − the agreement with the teacher: 0 is the teacher itself, 1 no relation."
PROBE = "Through projections fitted to the student as it is at each evaluation, never trained. "
STANDING = (
    "Errors of hidden states in units of the teacher layer's variance. Beyond its width is what no layer of"
    " this width can hold: the variance outside the best subspace of as many dimensions."
)
SIMILARITY = "CKA is 1 for layers that hold the same, whatever their basis, and 0 for unrelated ones."
OTHER = "Lower is better; each term has a scale of its own."


@dataclass(frozen=True)
class Learnt:
    """The losses of a training.

    Attributes:
        key: makes its widgets' keys unique.
        training: its name in words.
        losses: held-out losses of all evaluations.
        languages: the final loss on each language, if there are several.
        depths: of student and teacher.
        width: of the student.
        teacher: what its layers are compared with; None if not known.
        similarity: CKA of its layers 0..M with its teacher's 0..N; empty if not measured.
    """

    key: str
    training: str
    losses: Sequence[LayerLoss]
    languages: Mapping[str, float]
    depths: Depths
    width: int
    teacher: TeacherLayerFacts | None = None
    similarity: Sequence[Sequence[float]] = ()


def of_candidate(seen: CandidateView) -> Learnt:
    """Returns the losses of a candidate's mini-KD."""
    candidate = seen.candidate
    depths = Depths.of(seen.run, candidate)
    width = candidate.architecture.hidden_size
    name = f"{candidate.id}"
    return Learnt(
        name, "mini-KD", seen.losses, candidate.languages, depths, width, seen.layers, seen.similarity
    )


def of_student(seen: StudentView) -> Learnt:
    """Returns the losses of a student's distillation."""
    student, depths = seen.student, Depths.of(seen.run, seen.candidate)
    width = seen.candidate.architecture.hidden_size
    return Learnt(student.name, "distillation", seen.losses, student.languages, depths, width, seen.layers)


def show(learnt: Learnt) -> None:
    """Draws the losses; a sentence before the first evaluation."""
    _overview(learnt)
    if not learnt.losses:
        st.markdown("No losses by layer: it has not been evaluated yet.")
        return
    st.header("What each layer has learnt")
    _standing(learnt)
    term = _term(learnt)
    _layers(term, layer_terms.of_term(learnt.losses, term), learnt)


def _standing(learnt: Learnt) -> None:
    """Draws how each layer stands, and which layers are alike; what is known of that."""
    rows = layer_story.standings(learnt.losses, learnt.depths.student, learnt.width, learnt.teacher)
    if not rows:
        return
    st.markdown(f"**{layer_story.told(rows, learnt.width)}**")
    left, right = st.columns(2) if learnt.similarity and learnt.teacher else (st.container(), None)
    with left:
        st.plotly_chart(
            layer_figures.standing_figure(rows),
            key="standing",
            config=CONFIG,
            alt=f"Error of each of {len(rows)} layers: what is beyond its width, not learnt, and learnt",
        )
        st.markdown(f":small[{STANDING}]")
    if right is None or learnt.teacher is None:
        return
    with right:
        st.plotly_chart(
            layer_figures.similarity_figure(learnt.similarity, learnt.teacher.similarity),
            key="similarity",
            config=CONFIG,
            alt="CKA of each student layer with each teacher layer, beside that of the teacher's layers",
        )
        st.markdown(f":small[{SIMILARITY} {_mapping_words(rows, learnt)}]")


def _mapping_words(rows: Sequence[layer_story.Standing], learnt: Learnt) -> str:
    if not any(row.is_learnt for row in rows):
        return "Its layers learn from none of its teacher's one by one, so they may be alike in any order."
    others = layer_story.nearer(rows, learnt.similarity)
    if not others:
        return "No layer is clearly more like another teacher layer than like those it learns from."
    return " ".join(
        f"Layer {layer} is more like teacher layer {best} ({alike:.2f}) than like those it learns from"
        f" ({own:.2f}): another mapping may suit it better."
        for layer, best, alike, own in others
    )


def _overview(learnt: Learnt) -> None:
    summary, languages = layer_terms.summary(learnt.losses), learnt.languages
    left, right = st.columns(2)
    if len(summary) > 1:
        with left:
            _by_term(summary)
    if languages:
        with right if len(summary) > 1 else left:
            _by_language(languages)


def _by_term(summary: Sequence[layer_terms.TermLoss]) -> None:
    st.header("Loss by term")
    st.dataframe(
        tables.terms_table(summary),
        hide_index=True,
        placeholder=wording.UNKNOWN,
        column_config=tables.TERM_COLUMNS,
        alt="Each loss term's held-out loss at the first evaluation and the last",
    )
    st.markdown(":small[Held out; each is the mean over its layers]")


def _by_language(languages: Mapping[str, float]) -> None:
    st.header("Loss by language")
    st.plotly_chart(
        layer_figures.language_figure(languages),
        key="languages",
        config=CONFIG,
        alt=layer_figures.alt(languages),
    )


def _term(learnt: Learnt) -> str:
    present = layer_terms.present(learnt.losses)
    if len(present) == 1:
        return present[0]
    key = f"term_{learnt.key}"
    return st.radio("Loss term", present, format_func=wording.term, horizontal=True, key=key)


def _layers(term: str, losses: Sequence[LayerLoss], learnt: Learnt) -> None:
    depths = learnt.depths
    normalised, words = layer_terms.is_normalised(term), layer_figures.mapping_words(losses, depths)
    meaning = f"{PROBE if term == 'hidden_probe' else ''}{NORMALISED if normalised else OTHER}"
    if term == "yardstick":
        meaning = YARDSTICK
    if term == "yardstick" or all(depths.are_outer(loss.layer, loss.teacher_layer) for loss in losses):
        st.markdown(meaning)
        _curves(term, losses, learnt)  # a single number, at which the curve ends: there is no mapping to draw
        return
    st.markdown(f"Layer mapping, student ← teacher: {words}. {meaning}")
    left, right = st.columns(2)
    with left:
        st.plotly_chart(
            layer_figures.mapping_figure(losses, depths, normalised=normalised),
            key=f"mapping_{term}",
            config=CONFIG,
            alt=f"Final held-out loss by student layer and teacher layer; layer mapping {words}",
        )
    with right:
        _curves(term, losses, learnt)


def _curves(term: str, losses: Sequence[LayerLoss], learnt: Learnt) -> None:
    st.plotly_chart(
        layer_figures.curves_figure(losses, learnt.depths, learnt.training),
        key=f"curves_{term}",
        config=CONFIG,
        alt=f"Held-out loss of each layer over the steps of the {learnt.training}: {wording.term(term)}",
    )
