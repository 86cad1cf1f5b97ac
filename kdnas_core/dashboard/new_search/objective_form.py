"""The part of the form for the objective and the student's first weights."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, get_args

import pandas as pd
import streamlit as st

from kdnas_core.dashboard import wording
from kdnas_core.spec import Recipe, TermKind, TermSpec, parse_spec

USUAL_USE = "Whatever the teacher is made for"
USE_HELP = (
    "Students are compared by what they are for. By their sentence vectors: how far these agree with the"
    " teacher's on held-out texts. For fine-tuning: how far their hidden states follow the teacher's, layer"
    " by layer; half of the texts are then read as pairs of segments. A teacher with the files of"
    " sentence-transformers is made for vectors, any other for fine-tuning."
)
LEARNS = {
    None: "What teaches most for that use: Sentence vectors for vectors, KD-NAS for fine-tuning.",
    "vectors": "The last hidden states, the sentence vectors themselves, and how alike texts are by them.",
    "embedding": "The sentence vectors alone, by their angle and by squared error (arXiv 2301.12005).",
    "similarity": "How alike the texts of a batch are by their sentence vectors (arXiv 1907.09682).",
    "contrastive": "Which other text of a batch each text is nearest to, with the teacher's similarities"
    " as soft labels (arXiv 2101.04731).",
    "kdnas": "Hidden states of two teacher layers each, through a learnable projection (arXiv 2303.09639).",
    "tinybert": "Embeddings, hidden states and attention scores and, in a second stage, predictions"
    " (arXiv 1909.10351).",
    "distilbert": "The teacher's predictions of words, the masked words themselves, and the direction of the"
    " last hidden states (arXiv 1910.01108).",
    "pkd": "The first token's states at every layer but the last, the teacher's predictions and masked words"
    " (arXiv 1908.09355).",
    "pd": "Masked words and, in a second stage, the teacher's predictions (arXiv 1908.08962).",
    "minilm": "Attention and the relation between values in the last layer (arXiv 2002.10957).",
    "minilmv2": "Relations between queries, keys and values in the last layer, whatever the numbers of heads"
    " (arXiv 2012.15828).",
    "mobilebert": "Feature maps and attention, one layer after the other, then predictions and masked words"
    " (arXiv 2004.02984).",
    "custom": "The terms that you list here, added up with their weights.",
}
MAPPINGS = ["uniform", "uniform+last", "top", "bottom", "skip", "final"]
STARTS = {
    "teacher": "Cut out of the teacher",
    "supernet": "Cut out of a supernet, trained for all shapes",
    "random": "Random weights",
}
START_LAYERS = ["uniform", "top", "bottom"]
OWN_LAYERS = "Those that matter most, or the recipe's own"
PROJECTIONS = {"per_layer": "One for each layer", "shared": "One shared by all layers"}
OWN = "The recipe's own"
EDITING = "Click the empty row to add a term; tick a row at its left to delete it."
STAGES_HELP = "For recipes of two stages: TinyBERT, PD, MobileBERT, and terms of your own."
HEAD = "Train a masked-LM head for the teacher where it has none"
HEAD_HELP = "For predictions of words: many published encoders come without the head that makes them."

_FIELDS = ["kind", "weight", "mapping", "temperature", "relation_heads", "stage", "progressive"]
_USUAL = TermSpec(kind="hidden").model_dump(include=set(_FIELDS))


def show() -> dict[str, Any]:
    """Draws the choices and returns the fields of an `ObjectiveSpec`.

    Raises:
        BadInput: the choices conflict.
    """
    st.header("Objective")
    left, right = st.columns(2)
    use = left.selectbox("Students are for", [None, *wording.USES], format_func=_use, help=USE_HELP)
    recipe = right.selectbox("Recipe", [None, *get_args(Recipe)], format_func=wording.recipe)
    st.markdown(LEARNS[recipe])
    fields: dict[str, Any] = {"use": use, "recipe": recipe}
    if recipe == "custom":
        fields["terms"] = _terms()
    fields |= _details(recipe)
    parse_spec({"objective": fields})
    return fields


def terms_of(rows: Sequence[Mapping[Hashable, Any]]) -> list[dict[str, Any]]:
    """Returns the fields of the terms in the rows of the table; leaves out empty cells."""
    return [{str(name): value for name, value in row.items() if not pd.isna(value)} for row in rows]


def _terms() -> list[dict[str, Any]]:
    table = st.data_editor(
        pd.DataFrame([_USUAL], columns=_FIELDS).astype({"mapping": "object"}),
        num_rows="dynamic",
        hide_index=True,
        placeholder=wording.UNKNOWN,
        key="terms",
        column_config=_columns(),
        alt="The loss terms, a row each; add and delete rows",
    )
    st.markdown(f":small[{EDITING}]")
    return terms_of(table.to_dict("records"))


def _columns() -> dict[str, Any]:
    number, select = st.column_config.NumberColumn, st.column_config.SelectboxColumn
    return {
        "kind": select(
            "Loss",
            options=get_args(TermKind),
            format_func=lambda kind: wording.term(str(kind)),
            default="hidden",
            required=True,
            width="medium",
        ),
        "weight": number("Weight", default=1.0, help="Its factor in the sum of all terms."),
        "mapping": select(
            "Layer mapping", options=MAPPINGS, help="For terms of layers; empty: that of the objective."
        ),
        "temperature": number(
            "Temperature", default=1.0, help="Divides logits; of contrastive terms, cosines (0.05 is usual)."
        ),
        "relation_heads": number(
            "Relation heads",
            default=_USUAL["relation_heads"],
            step=1,
            help="Into which queries, keys and values are cut anew; for relations only.",
        ),
        "stage": select("Stage", options=[1, 2], default=1, help="In which of two stages it is trained."),
        "progressive": st.column_config.CheckboxColumn(
            "Layer by layer", default=False, help="Its layers take turns, from the first to the last."
        ),
    }


def _use(name: str | None) -> str:
    return USUAL_USE if name is None else wording.USES[name]


def _details(recipe: str | None) -> dict[str, Any]:
    with st.expander("Layer mapping, projection and start"):
        left, right = st.columns(2)
        usual = [] if recipe == "custom" else [None]  # custom terms have no published default
        mapping = left.selectbox("Layer mapping", [*usual, *MAPPINGS], format_func=_or_own)
        projection = right.selectbox("Projection", PROJECTIONS, format_func=PROJECTIONS.__getitem__)
        start = left.selectbox("Start", STARTS, format_func=STARTS.__getitem__)
        start_layers = right.selectbox(
            "Layers that the start is cut from",
            [*usual, *START_LAYERS],
            format_func=lambda choice: OWN_LAYERS if choice is None else choice,
            disabled=start == "random",
        )
        head = st.checkbox(HEAD, help=HEAD_HELP)
        share = left.number_input("First stage's share of the steps", 0.05, 0.95, 0.5, 0.05, help=STAGES_HELP)
    return {
        "first_stage": share,
        "mapping": mapping,
        "projection": projection,
        "start": start,
        "start_layers": None if start == "random" else start_layers,
        "head": "trained" if head else "teacher",
    }


def _or_own(choice: str | None) -> str:
    return OWN if choice is None else choice
