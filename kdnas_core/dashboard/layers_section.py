"""The part of a candidate's page that shows what it has learnt: by term, by language, and by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from kdnas_core.dashboard import language_figure, layer_figures, tables, terms, wording
from kdnas_core.dashboard.charts import CONFIG
from kdnas_core.dashboard.live import CandidateView
from kdnas_core.dashboard.terms import Depths
from kdnas_core.runs.rows import LayerLoss

NORMALISED = "A loss of 0 copies the teacher layer; 1 is no better than its mean."
PROBE = "The held-out loss of this candidate: projections fitted for it at each evaluation, never trained. "
OTHER = "Lower is better; each term has a scale of its own."


def show(seen: CandidateView) -> None:
    """Draws what is known of a candidate's losses; nothing before the first evaluation."""
    _overview(seen)
    if not seen.losses:
        return
    st.header("What each layer has learnt")
    term = _term(seen)
    _layers(term, terms.of_term(seen.losses, term), _depths(seen))


def _depths(seen: CandidateView) -> Depths:
    teacher = seen.run.teacher.architecture.layers if seen.run.teacher else 0
    return Depths(seen.candidate.architecture.layers, teacher)


def _overview(seen: CandidateView) -> None:
    summary, languages = terms.summary(seen.losses), seen.candidate.languages
    left, right = st.columns(2)
    if len(summary) > 1:
        with left:
            _by_term(summary)
    if languages:
        with right if len(summary) > 1 else left:
            _by_language(languages)


def _by_term(summary: Sequence[terms.TermLoss]) -> None:
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
        language_figure.language_figure(languages),
        key="languages",
        config=CONFIG,
        alt=language_figure.alt(languages),
    )


def _term(seen: CandidateView) -> str:
    present = terms.present(seen.losses)
    if len(present) == 1:
        return present[0]
    key = f"term_{seen.candidate.id}"
    return st.radio("Loss term", present, format_func=wording.term, horizontal=True, key=key)


def _layers(term: str, losses: Sequence[LayerLoss], depths: Depths) -> None:
    normalised, words = terms.is_normalised(term), layer_figures.mapping_words(losses, depths)
    meaning = f"{PROBE if term == 'hidden_probe' else ''}{NORMALISED if normalised else OTHER}"
    if all(depths.are_outer(loss.layer, loss.teacher_layer) for loss in losses):
        st.markdown(meaning)
        _curves(term, losses, depths)  # one number, which the curve ends at: there is nothing to map
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
        _curves(term, losses, depths)


def _curves(term: str, losses: Sequence[LayerLoss], depths: Depths) -> None:
    st.plotly_chart(
        layer_figures.curves_figure(losses, depths),
        key=f"curves_{term}",
        config=CONFIG,
        alt=f"Held-out loss of each layer over the steps of the mini-KD: {wording.term(term)}",
    )
