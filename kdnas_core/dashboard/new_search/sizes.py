"""The sizes of a search that its form offers, from minutes to the published setting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from kdnas_core.spec import KDNAS_SPACE, quick_spec

_REPEATED = "repeated_run"  # the run of the address whose spec was shown last
CUSTOM, AS_JSON = "Custom", "JSON"
EPISODES, CANDIDATES = 8, 6  # well under an hour
_QUICK = quick_spec()


@dataclass(frozen=True)
class Size:
    """A size of a search.

    Attributes:
        caption: what it is, in a few words.
        fields: of its spec, besides teacher, corpus and budgets.
    """

    caption: str
    fields: dict[str, Any] = field(default_factory=dict)


SIZES = {
    "Quick": Size(
        "4 episodes of 4 students, 40 steps of mini-KD each, for a first look",
        {name: _QUICK.model_dump(exclude_unset=True)[name] for name in ("proxy", "search")},
    ),
    "Standard": Size(
        f"{EPISODES} episodes of {CANDIDATES} students, 200 steps of mini-KD each",
        {"search": {"episodes": EPISODES, "candidates": CANDIDATES}},
    ),
    "KD-NAS": Size(
        "The space, objective and LSTM controller of KD-NAS ([2303.09639](https://arxiv.org/abs/2303.09639)),"
        " 15 episodes of 20 students",
        {
            "space": KDNAS_SPACE.model_dump(exclude_none=True),
            "objective": {"use": "fine_tuning", "recipe": "kdnas", "yardstick": "layers"},
            "search": {"controller": "lstm", "prune": False, "static": False},
        },
    ),
    CUSTOM: Size("Every choice, below"),
    AS_JSON: Size("Any spec, typed, pasted or dropped"),
}


def show() -> str:
    """Draws the choice and returns its name; an address that names a run to repeat asks for JSON."""
    repeated = st.query_params.get("from")
    if repeated is not None and st.session_state.get(_REPEATED) != repeated:
        # once: a size that was chosen before would be kept, and one that is chosen now is
        st.session_state["size"] = AS_JSON
    st.session_state[_REPEATED] = repeated
    names, first = list(SIZES), "Standard"
    chosen = st.radio(
        "Size of the search",
        names,
        names.index(first),
        horizontal=True,
        key="size",
        bind="query-params",
        label_visibility="collapsed",
    )
    size = SIZES[chosen or first]
    st.markdown(f":small[{size.caption}]")
    return chosen or first
