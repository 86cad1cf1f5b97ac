"""The part of a page that shows what a student has learnt: by term, by language, and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.dashboard.model import layer_story, layer_terms
from kdnas_core.dashboard.model.findings import Findings
from kdnas_core.dashboard.model.layer_story import Profile
from kdnas_core.dashboard.model.layer_terms import Depths
from kdnas_core.dashboard.model_page import layer_figures, student_loss
from kdnas_core.dashboard.read import live
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
MINI_KD = "its mini-KD"
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
        others: other students, whose layers can stand beside its own.
    """

    key: str
    training: str
    losses: Sequence[LayerLoss]
    languages: Mapping[str, float]
    depths: Depths
    width: int
    teacher: TeacherLayerFacts | None = None
    similarity: Sequence[Sequence[float]] = ()
    others: Sequence[Profile] = ()


def of_candidate(seen: CandidateView, others: Sequence[Profile] = ()) -> Learnt:
    """Returns the losses of a candidate's mini-KD."""
    candidate = seen.candidate
    depths = Depths.of(seen.run, candidate)
    width = candidate.architecture.hidden_size
    name = f"{candidate.id}"
    languages = candidate.languages
    return Learnt(
        name, "mini-KD", seen.losses, languages, depths, width, seen.layers, seen.similarity, others
    )


def of_student(seen: StudentView, others: Sequence[Profile] = ()) -> Learnt:
    """Returns the losses of a student's distillation."""
    student, depths = seen.student, Depths.of(seen.run, seen.candidate)
    width = seen.candidate.architecture.hidden_size
    return Learnt(
        student.name,
        "distillation",
        seen.losses,
        student.languages,
        depths,
        width,
        seen.layers,
        others=others,
    )


def others_of(db: Path, seen: CandidateView | StudentView) -> list[Profile]:
    """Returns what layers can be compared with: of a student its mini-KD, and the run's frontier.

    None of a student that was made for a task or on other text, whose errors are on other texts, and no
    student whose errors were read in another way.
    """
    own = isinstance(seen, StudentView)
    if isinstance(seen, StudentView) and not student_loss.is_on_the_same_texts(seen):
        return []
    front = Findings.of(live.read_run(db, seen.run.id).candidates, None).frontier
    rows = {row.id: row for row in (seen.candidate, *front) if not row.architecture.is_static}
    losses = live.read_final_losses(db, list(rows))
    errors, term = layer_terms.by_layer(losses), layer_terms.states_term(seen.losses)
    return [
        Profile(
            MINI_KD if number == seen.candidate.id else f"candidate {number}",
            errors[number],
            row.architecture.layers,
        )
        for number, row in rows.items()
        if term is not None
        and layer_terms.states_term(losses[number]) == term
        and (own or number != seen.candidate.id)
    ]


def show(learnt: Learnt) -> None:
    """Draws the losses; a sentence if none are known."""
    _overview(learnt)
    if not learnt.losses:
        st.markdown("No losses by layer are known.")
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
    beside = _beside(learnt)
    left, right = st.columns(2) if learnt.similarity and learnt.teacher else (st.container(), None)
    with left:
        st.plotly_chart(
            layer_figures.standing_figure(rows, learnt.depths.student, beside),
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


def _beside(learnt: Learnt) -> Profile | None:
    """Draws the choice of another student, and returns its layers."""
    if not learnt.others:
        return None
    frontier = [each for each in learnt.others if each.name != MINI_KD]
    choices = [*learnt.others]
    if len(frontier) > 1:
        choices.append(layer_story.median_of(frontier, learnt.depths.student))
    named = {each.name: each for each in choices}
    name = st.selectbox(
        "Beside",
        list(named),
        index=None,
        placeholder="no other student",
        key="beside",
        bind="query-params",
        width=360,
    )
    return named.get(name or "")


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
        with right:
            _by_step(learnt)
    if languages:
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


def _by_step(learnt: Learnt) -> None:
    st.header("Term by step")
    st.plotly_chart(
        layer_figures.terms_figure(learnt.losses, learnt.training),
        key="terms",
        config=CONFIG,
        alt=f"The mean over layers of each loss term over the steps of the {learnt.training}",
    )


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
