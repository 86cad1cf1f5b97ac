"""The part of the form for the search space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from kdnas_core.architecture import PRESETS, Architecture
from kdnas_core.dashboard import wording
from kdnas_core.dashboard.act import starting
from kdnas_core.errors import BadInput
from kdnas_core.search.space import KNOBS, SearchSpace
from kdnas_core.spec import KDNAS_SPACE, SpaceSpec

FROM_TEACHER, PUBLISHED, STUDENTS = "From the teacher's shape", "KD-NAS, as published", "Published students"
LABELS = {
    "layers": "Layers",
    "hidden_size": "Hidden size",
    "intermediate_size": "FFN size",
    "attention_heads": "Attention heads",
    "hidden_act": "Activation",
}
EMBEDDING = "Embedding size"
MOST_LISTED = 24  # sizes that are chosen one by one; of more, the ends of a range are


def show(teacher: str, shape: Architecture | None, same_heads: bool) -> dict[str, Any]:
    """Draws the choices and returns the fields of a `SpaceSpec`.

    Args:
        teacher: as `RunSpec` names it.
        shape: of the teacher; None if it is not known yet.
        same_heads: whether the objective needs students with as many heads as the teacher.

    Raises:
        BadInput: a choice is not a number, or the choices leave no valid architecture.
    """
    st.header("Search space")
    preset = st.radio("Start from", [FROM_TEACHER, PUBLISHED, STUDENTS], horizontal=True)
    if preset == STUDENTS:
        return _students(shape)
    if preset == FROM_TEACHER and shape is None:
        st.markdown("The space is derived from the teacher's shape once it is loaded.")
        return {}
    derived = None if preset == PUBLISHED or shape is None else SpaceSpec().filled_from(shape, same_heads)
    filled = derived or KDNAS_SPACE
    columns = st.columns(2)
    key = f"{preset}-{teacher}"
    chosen = _knobs(columns, filled.model_dump(), key, same_heads) | _embedding(columns[-1])
    _size(chosen, shape)
    return chosen


def _students(shape: Architecture | None) -> dict[str, Any]:
    picked = st.multiselect(
        "Students",
        PRESETS,
        default=["tinybert4", "bert-small", "bert-mini", "bert-tiny"],
        format_func=lambda name: f"{name} ({wording.shape(PRESETS[name])})",
        help="Shapes that papers compare, measured and distilled here with the objective below.",
    )
    if not picked:
        raise BadInput("Choose at least one published student, or another search space.")
    chosen = {"presets": picked}
    _size(chosen, shape)
    return chosen


def _knobs(
    columns: Sequence[DeltaGenerator], filled: dict[str, list[Any]], key: str, same_heads: bool
) -> dict[str, Any]:
    published = KDNAS_SPACE.model_dump()
    chosen: dict[str, Any] = {}
    for place, knob in enumerate(KNOBS):
        numbers = knob != "hidden_act"
        if len(filled[knob]) > MOST_LISTED:
            chosen[knob] = _range(columns[place % 2], knob, filled[knob], key)
            continue
        picked = columns[place % 2].multiselect(
            LABELS[knob],
            sorted({*filled[knob], *published[knob]}),
            default=filled[knob],
            # a key for each preset and teacher, and of heads for each kind of objective, so that their
            # choices are filled in
            key=f"{knob}-{key}" + ("-same" if same_heads and knob == "attention_heads" else ""),
            accept_new_options=numbers,
            help="Type a number to add it." if numbers else None,
        )
        chosen[knob] = starting.whole_numbers(LABELS[knob], picked) if numbers else picked
    return chosen


def _range(column: DeltaGenerator, knob: str, sizes: list[int], key: str) -> list[int]:
    """Draws the ends of a range of sizes, which are many and have one step, and returns those within."""
    first, last, step = sizes[0], sizes[-1], sizes[1] - sizes[0]
    least, most = column.slider(
        LABELS[knob],
        first,
        last,
        (first, last),
        step=step,
        key=f"{knob}-{first}-{last}-{step}-{key}",
        help=f"All sizes in between, in steps of {step}. Choose single sizes under “{PUBLISHED}”.",
    )
    return [size for size in sizes if least <= size <= most]


def _embedding(column: DeltaGenerator) -> dict[str, Any]:
    """The embedding sizes, if any are chosen; narrow embeddings reduce the cost of a large vocabulary."""
    picked = column.multiselect(
        EMBEDDING,
        [64, 96, 128, 192, 256],
        accept_new_options=True,
        placeholder="As wide as the hidden states",
        help="Narrower embeddings save most where the vocabulary is large. Type a number to add it.",
    )
    return {"embedding_size": starting.whole_numbers(EMBEDDING, picked)} if picked else {}


def _size(chosen: dict[str, Any], shape: Architecture | None) -> None:
    spec = starting.space_spec(chosen)
    space = SearchSpace.from_spec(spec, shape or Architecture(1, 1, 1, 1))  # every knob is given
    st.markdown(
        f"**{len(space):,} architectures**, {space.shapes():,} distinct shapes (heads and activation aside)"
    )
