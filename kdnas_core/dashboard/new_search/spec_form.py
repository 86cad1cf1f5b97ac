"""A new search as the JSON of its spec: typed, pasted, or that of an earlier search."""

from __future__ import annotations

import re
from pathlib import Path

import streamlit as st

from kdnas_core.dashboard.read import live
from kdnas_core.spec import RunSpec, parse_spec_json

HELP = (
    "Every field of a search: all that the form has, and what it has not, such as several tasks or a mapping"
    " layer by layer. Fields that are left out are as usual. `run.json` of an export is such a text."
)


FILE, TEXT = "spec_file", "spec_text"
MOST_BYTES = 1_000_000


def show(db: Path) -> RunSpec:
    """Draws the text and returns its spec.

    Raises:
        BadInput: it is no spec; says what is wrong with it.
    """
    st.file_uploader("Drop a run.json", type="json", key=FILE, on_change=_take)
    text = st.text_area("Spec (JSON)", first_text(db), height=420, help=HELP, key=TEXT)
    return parse_spec_json(text or "{}")


def _take() -> None:
    """Puts the text of a dropped file into the field."""
    given = st.session_state.get(FILE)
    if given is None:  # it was taken away
        return
    text = given.getvalue() if given.size <= MOST_BYTES else b'"The file is too large to be a spec."'
    st.session_state[TEXT] = text.decode("utf-8", "replace")


def first_text(db: Path) -> str:
    """Returns the text that the address asks for by the number of a run, else that of the usual search.

    Raises:
        BadInput: there is no such run.
    """
    run = live.id_in_address(st.query_params.get("from"), "run")
    spec = RunSpec() if run is None else copy_of(live.read_run(db, run).run.spec)
    # a size in each line would make the text hundreds of lines long
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), spec.to_json())


def copy_of(spec: RunSpec) -> RunSpec:
    """Returns the spec of a new search like an earlier one, under a name of its own."""
    suffix = " (again)"
    name = spec.name if spec.name.endswith(suffix) else f"{spec.name[: 100 - len(suffix)]}{suffix}"
    return spec.model_copy(update={"name": name})
